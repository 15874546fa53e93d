// The load of test/bench/streams-scrape.ts, run on the machine that is measured: KUBECONFIG OPTIONS. Prints one JSON
// object, a ScrapeResult, on the last line.
import { readFile } from "node:fs/promises";
import { Agent, request } from "node:https";
import { setTimeout as delay } from "node:timers/promises";
import { parse } from "yaml";

import { Api, type Seen } from "./pods-api.ts";

export interface ScrapeOptions {
  /** The node has so many while it is measured. */
  readonly pods: number;
  readonly rounds: number;
  /** Pause between two requests for the same page: longer than a sample is kept. */
  readonly pauseMs: number;
}

export interface ScrapeResult {
  readonly pods: number;
  /** Milliseconds from the request to the last byte, by page, as this client sees it. */
  readonly ms: Readonly<Record<string, readonly number[]>>;
  /** Milliseconds that the node itself counts for each of the same requests. */
  readonly serverMs: Readonly<Record<string, readonly number[]>>;
  readonly bytes: Readonly<Record<string, number>>;
}

/** Pages by what the node calls them on its own page, which is read last. */
const pages: Readonly<Record<string, string>> = {
  "/metrics/resource": "metrics/resource",
  "/stats/summary": "stats",
  "/metrics/cadvisor": "metrics/cadvisor",
  // What any answer costs.
  "/healthz": "healthz",
};
const ownPage = "/metrics";
const pods = "/api/v1/namespaces/default/pods";
const prefix = "scrape-";

function manifest(name: string): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name },
    spec: {
      terminationGracePeriodSeconds: 0,
      volumes: [{ name: "scratch", emptyDir: {} }],
      containers: [
        {
          name: "main",
          image: "busybox:1.36",
          imagePullPolicy: "IfNotPresent",
          command: ["sleep", "2147483"],
          resources: { requests: { cpu: "1m" }, limits: { memory: "64Mi" } },
          volumeMounts: [{ name: "scratch", mountPath: "/scratch" }],
        },
      ],
    },
  };
}

function isReady({ status }: Seen): boolean {
  return (status?.conditions ?? []).some(
    ({ type, status }) => type === "Ready" && status === "True",
  );
}

async function list(api: Api): Promise<readonly Seen[]> {
  return ((await api.call("GET", pods)) as { readonly items: readonly Seen[] }).items;
}

async function until(what: string, check: () => Promise<boolean>): Promise<void> {
  for (const end = performance.now() + 300_000; performance.now() < end; await delay(500)) {
    if (await check()) return;
  }
  throw new Error(`${what} did not happen`);
}

async function read(agent: Agent, page: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const outgoing = request(`https://127.0.0.1:10250${page}`, { agent }, (incoming) => {
    const chunks: Buffer[] = [];
    incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
    incoming.on("error", reject);
    incoming.on("end", () => {
      const text = Buffer.concat(chunks).toString("utf8");
      if (incoming.statusCode === 200) resolve(text);
      else reject(new Error(`${page}: ${incoming.statusCode} ${text}`));
    });
  });
  outgoing.on("error", reject);
  outgoing.end();
  return promise;
}

/** Seconds that the node has spent on a page so far. */
function spent(text: string, path: string): number {
  const name = "kubelet_http_requests_duration_seconds_sum";
  const line = text
    .split("\n")
    .find((each) => each.includes(`path="${path}"`) && each.startsWith(name));
  return Number(line?.split(" ").at(-1));
}

/** All pods are on the page, or what was measured is not what the figure says. */
function check(page: string, text: string, names: readonly string[]): void {
  if (page === "/healthz") return;
  const missing = names.filter((name) => !text.includes(`"${name}"`));
  if (missing.length > 0) throw new Error(`${page} lacks ${missing.length} pods`);
}

interface Kubeconfig {
  readonly users: readonly { readonly user: Readonly<Record<string, string>> }[];
}

async function measure(kubeconfig: string, options: ScrapeOptions): Promise<ScrapeResult> {
  const user = (parse(await readFile(kubeconfig, "utf8")) as Kubeconfig).users[0]?.user ?? {};
  const agent = new Agent({
    cert: Buffer.from(user["client-certificate-data"] ?? "", "base64"),
    key: Buffer.from(user["client-key-data"] ?? "", "base64"),
    keepAlive: true,
    maxSockets: 1,
    rejectUnauthorized: false,
  });
  const api = await Api.fromKubeconfig(kubeconfig);
  const there = (await list(api)).length;
  const names = Array.from({ length: options.pods - there }, (_, index) => `${prefix}${index}`);
  for (const name of names) await api.call("POST", pods, manifest(name));
  await until("all pods being ready", async () => {
    const ready = (await list(api)).filter((pod) => isReady(pod));
    return names.every((name) => ready.some(({ metadata }) => metadata.name === name));
  });
  const ms: Record<string, number[]> = {};
  const serverMs: Record<string, number[]> = {};
  const bytes: Record<string, number> = {};
  // The first walk over volumes is not what a scraper waits for.
  await read(agent, "/stats/summary");
  await delay(12_000);
  let before = "";
  for (let round = -2; round < options.rounds; round += 1) {
    for (const page of [...Object.keys(pages), ownPage]) {
      await delay(options.pauseMs);
      const startedAt = performance.now();
      const text = await read(agent, page);
      const took = performance.now() - startedAt;
      if (page !== ownPage) check(page, text, names);
      bytes[page] = text.length;
      if (round >= 0) (ms[page] ??= []).push(took);
      if (page !== ownPage) continue;
      for (const [each, path] of Object.entries(pages)) {
        if (round >= 0) {
          (serverMs[each] ??= []).push((spent(text, path) - spent(before, path)) * 1000);
        }
      }
      before = text;
    }
  }
  for (const name of names) await api.call("DELETE", `${pods}/${name}`);
  await until("all pods being gone", async () => (await list(api)).length === there);
  agent.destroy();
  api.close();
  return { pods: names.length + there, ms, serverMs, bytes };
}

const [kubeconfig = "", options = "{}"] = process.argv.slice(2);
const result = await measure(kubeconfig, JSON.parse(options) as ScrapeOptions);
process.stdout.write(`${JSON.stringify(result)}\n`);
