import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { parseAllDocuments } from "yaml";

import type { Pod, Service } from "../../../src/api/types.gen.ts";
import { root } from "../../e2e/lib/machine.ts";
import type { Check, Manifest } from "../check.ts";
import { runs } from "../lib/manifests.ts";
import { type Node, unit } from "../lib/node.ts";
import { shopDirectory } from "../lib/payload.ts";
import type { Destinations } from "../lib/traffic.ts";

const namespace = "shop";
/** Three backends, a frontend, and one that says what it hears. */
const members = 5;

function inShop(object: Manifest): Manifest {
  return { ...object, metadata: { ...object.metadata, namespace } };
}

/** The example, with more patience: probes each second, which may take one, are all that an emulated machine gets done. */
function manifests(): readonly Manifest[] {
  const text = readFileSync(join(root, "examples/shop.yaml"), "utf8");
  const calm = text.replaceAll(
    /^( *)periodSeconds: 1$/gm,
    "$1periodSeconds: 10\n$1timeoutSeconds: 60",
  );
  assert.notEqual(calm, text);
  return parseAllDocuments(calm).map((document) => document.toJS() as Manifest);
}

const echo: readonly Manifest[] = [
  runs("echo", { one: { command: ["nc", "-ll", "-p", "7", "-e", "cat"] } }),
  {
    kind: "Service",
    metadata: { name: "echo" },
    spec: { selector: { app: "echo" }, ports: [{ port: 7 }] },
  },
];

async function clusterIP(node: Node, name: string): Promise<string> {
  const path = `/api/v1/namespaces/${namespace}/services/${name}`;
  return (await node.get<Service>(path)).spec?.clusterIP ?? "";
}

/** All pods of the shop once they are ready. */
export async function shopReady(node: Node): Promise<readonly Pod[]> {
  return node.allReady(namespace, members);
}

/** Asks the frontend ten times. @returns what backends said, each once. */
async function visit(node: Node): Promise<ReadonlySet<string>> {
  const request = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 60 ${await clusterIP(node, "frontend")} 80`;
  const script = `for i in 1 2 3 4 5 6 7 8 9 10; do ${request} | grep 'hello from backend-'; done; true`;
  return new Set((await node.machine.sh(script)).split("\n").filter((line) => line !== ""));
}

/** Waits until customers are served by all of its backends. */
export async function shopServes(node: Node): Promise<void> {
  await node.until("each of three backends has answered", async () =>
    (await visit(node)).size === 3 ? true : undefined,
  );
}

/** Whom the traffic of later checks asks. */
export async function shopDestinations(node: Node): Promise<Destinations> {
  return {
    webIP: await clusterIP(node, "backend-service"),
    dnsIP: "10.96.0.10",
    name: `frontend.${namespace}.svc.cluster.local`,
    echo: `${await clusterIP(node, "echo")}:7`,
  };
}

/** Of the agent's process with its threads, in MB: its own and what it shares with others, and its own part of that alone. */
async function memory(node: Node): Promise<Readonly<Record<string, number>>> {
  const pid = await node.machine.sh(`systemctl show -P MainPID ${unit}`);
  const text = await node.machine.sh(`cat /proc/${pid}/smaps_rollup`);
  const megabytes = (name: string): number =>
    Math.round(Number(new RegExp(`^${name}: +(\\d+) kB`, "m").exec(text)?.[1]) / 1000);
  return { residentMB: megabytes("Rss"), proportionalMB: megabytes("Pss") };
}

/** Opens late: it stays until the end, and its pods would weigh on what others count. */
export const shopChecks: readonly Check[] = [
  {
    name: "the shop of examples/shop.yaml opens: its frontend finds three backends by name, customers find the frontend",
    prepare: async ({ machine }) => {
      const build = `docker build -q --build-arg VERSION=v1 -t remora-shop:v1 ${shopDirectory}`;
      await machine.sh(build, { timeoutMs: 600_000 });
    },
    run: async (node) => {
      await node.create({ kind: "Namespace", metadata: { name: namespace } });
      for (const object of [...manifests(), ...echo]) await node.create(inShop(object), namespace);
      await shopReady(node);
      await shopServes(node);
      node.note("memory", await memory(node));
    },
  },
];
