// One machine with two pods, an uplink, and beyond it a machine that is outside the cluster, another node and its pod.
import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

import { systemClock } from "../../../src/lib/clock.ts";
import { type Logger, silentLogger } from "../../../src/lib/log.ts";
import { createBridgeNetwork, type NetworkProblems } from "../../../src/network/bridge.ts";
import type { LocalAddresses, PodNetwork } from "../../../src/network/types.ts";
import { askFromNode, connectOutside, Machine, sh } from "../namespace.ts";

const { signal } = new AbortController();
export const podCIDRs = ["10.244.0.0/24", "fd00:244::/64"];
const nameServers = ["10.96.0.10", "fd00:96::a"];
const peerFile = new URL("../peer.ts", import.meta.url).pathname;

/** The ways of packets that a cluster needs. Those that a firewall of the machine decides about, and nobody else. */
export const ways = [
  "pod to pod",
  "pod to a pod of another node",
  "pod of another node to pod",
  "pod to outside",
  "outside to node port",
  "outside to host port",
  "node to pod",
  "pod to the node's name server",
  "pod to the API server on the node",
  "another machine to the kubelet's port",
] as const;
export type Way = (typeof ways)[number];
/** What nothing of ours opens: it is the machine's own. */
export const ofTheMachine: readonly Way[] = [
  "pod to the API server on the node",
  "another machine to the kubelet's port",
];

/** A machine with two pods, and their network. */
export class Stage {
  readonly network: PodNetwork & LocalAddresses & NetworkProblems;
  readonly client: Machine;
  readonly pod: Machine;
  readonly #stateDir: string;
  readonly #servers: ChildProcess[] = [];

  private constructor(stateDir: string, client: Machine, pod: Machine, logger: Logger) {
    this.#stateDir = stateDir;
    this.client = client;
    this.pod = pod;
    this.network = createBridgeNetwork({
      stateDir,
      clusterCIDRs: ["10.244.0.0/16", "fd00:244::/48"],
      nodeServices: () => [
        { from: "pods", port: 6443, protocol: "tcp", trouble: "pods cannot reach the API server" },
        { from: "192.0.2.2", port: 10_250, protocol: "tcp", trouble: "no kubectl logs" },
        { from: "2001:db8:5::2", port: 10_250, protocol: "tcp", trouble: "no kubectl logs" },
      ],
      otherNodes: () => true,
      clock: systemClock,
      logger,
    });
  }

  static async start(logger: Logger = silentLogger): Promise<Stage> {
    const client = await connectOutside();
    const [a, b] = [await Machine.start(), await Machine.start()];
    const stage = new Stage(await mkdtemp(join(tmpdir(), "remora-firewall-")), client, a, logger);
    await stage.network.setLocalAddresses(nameServers, signal);
    await stage.ensure();
    for (const [index, machine] of [a, b].entries()) {
      const sandboxID = `sandbox-${index}`;
      const name = `pod-${index}`;
      const hostPorts =
        index === 0
          ? [{ protocol: "TCP", hostIP: "", hostPort: 5000, containerPort: 8080 } as const]
          : [];
      const { pid } = machine;
      await stage.network.setUp({ sandboxID, podUID: name, podKey: name, pid, hostPorts }, signal);
      await machine.serve(name, 8080);
    }
    await stage.#makeOtherNode();
    await stage.#makeNodePort();
    await client.serve("outside", 9000);
    // New interfaces find out for a second whether their addresses are taken, and ask nobody meanwhile.
    for (const to of ["192.0.2.2:9000", "2001:db8:5::2:9000"]) {
      while (!(await askFromNode("tcp", to))[0]?.startsWith("outside"));
    }
    for (const port of [6443, 10_250]) await stage.#serve(port, "::");
    for (const address of nameServers) await stage.#serve(53, address);
    return stage;
  }

  async #makeOtherNode(): Promise<void> {
    const { client } = this;
    await client.sh("ip", "addr", "add", "10.244.1.7/32", "dev", "lo");
    await client.sh("ip", "-6", "addr", "add", "fd00:244:0:1::7/128", "dev", "lo", "nodad");
    const back = "route add 10.244.0.0/24 via 192.0.2.1 src 10.244.1.7";
    await client.sh("ip", ...back.split(" "));
    const back6 = "-6 route add fd00:244::/64 via 2001:db8:5::1 src fd00:244:0:1::7";
    await client.sh("ip", ...back6.split(" "));
    await sh("ip", "route", "add", "10.244.1.0/24", "via", "192.0.2.2");
    await sh("ip", "-6", "route", "add", "fd00:244:0:1::/64", "via", "2001:db8:5::2");
  }

  /** As a Service proxy does: with a mark for what it gives another source. Also puts it back after a flush. */
  async #makeNodePort(): Promise<void> {
    for (const [family, pod] of [
      ["ip", "10.244.0.2"],
      ["ip6", "[fd00:244::2]"],
    ] as const) {
      const table = `${family} remora-proxy`;
      const text = `add table ${table}
delete table ${table}
add table ${table}
add chain ${table} prerouting { type nat hook prerouting priority -101; }
add rule ${table} prerouting tcp dport 30080 dnat to ${pod}:8080
`;
      await sh("sh", "-c", `printf '%s' '${text}' | nft -f -`);
    }
  }

  async #serve(port: number, address: string): Promise<void> {
    const { NODE_TEST_CONTEXT: _context, ...env } = process.env;
    const argv = [peerFile, "serve", "node", String(port), address];
    const child = spawn(process.execPath, argv, {
      stdio: ["ignore", "pipe", "inherit"],
      env,
    });
    this.#servers.push(child);
    await once(child.stdout, "data");
  }

  /** What the agent does each half minute, and when rules went. */
  async ensure(): Promise<void> {
    await this.network.ensureNode(podCIDRs, signal);
  }

  /** As {@link ensure}, after everything of the Service proxy went too. */
  async repair(): Promise<void> {
    await this.ensure();
    await this.#makeNodePort();
  }

  /** Ways that no packet gets through, of both families. */
  async blocked(): Promise<readonly Way[]> {
    const asked = ways.flatMap((way) =>
      (["IPv4", "IPv6"] as const).flatMap((family) => questions(way, family)),
    );
    const answered = await Promise.all(
      (["pod", "client", "node"] as const).map(async (from) => {
        const own = asked.filter((question) => question.from === from);
        const answers = await this.#askAll(from, own);
        const failed = own.filter(({ wanted }, index) => answers[index] !== wanted);
        // Once more: on a busy machine a packet may be late.
        const again = failed.length === 0 ? [] : await this.#askAll(from, failed);
        return own.map((question, index) => {
          const at = failed.indexOf(question);
          return { ...question, answer: (at < 0 ? answers[index] : again[at]) ?? "" };
        });
      }),
    );
    const all = answered.flat();
    return ways.filter((way) => {
      const right = all
        .filter((one) => one.way === way)
        .map(({ answer, wanted }) => answer === wanted);
      const text = JSON.stringify(all.filter((one) => one.way === way));
      assert.equal(new Set(right).size, 1, `some get through and some do not: ${text}`);
      return right[0] !== true;
    });
  }

  async #askAll(from: Question["from"], asked: readonly Question[]): Promise<readonly string[]> {
    const { NODE_TEST_CONTEXT: _context, ...env } = process.env;
    const argv = [process.execPath, peerFile, "all", ...asked.map(({ text }) => text)];
    const enter = (machine: Machine): string[] => ["nsenter", "-t", String(machine.pid), "-n"];
    const inside = { pod: enter(this.pod), client: enter(this.client), node: [] };
    const [file = "", ...args] = [...inside[from], ...argv];
    const { stdout } = await promisify(execFile)(file, args, { env });
    return stdout.trimEnd().split("\n");
  }

  async stop(): Promise<void> {
    for (const child of this.#servers) {
      const ended = once(child, "close");
      child.kill("SIGKILL");
      await ended;
    }
    await Machine.stopAll();
    await rm(this.#stateDir, { recursive: true, force: true });
  }
}

interface Question {
  readonly way: Way;
  readonly from: "pod" | "client" | "node";
  /** For the program that asks. */
  readonly text: string;
  /** The answer when the packets pass. */
  readonly wanted: string;
}

function questions(way: Way, family: "IPv4" | "IPv6"): readonly Question[] {
  const v4 = family === "IPv4";
  const pod = v4 ? "10.244.0.2" : "fd00:244::2";
  const node = v4 ? "192.0.2.1" : "2001:db8:5::1";
  const outside = v4 ? "192.0.2.2" : "2001:db8:5::2";
  const otherPod = v4 ? "10.244.1.7" : "fd00:244:0:1::7";
  const ask = (from: Question["from"], to: string, port: number, wanted: string): Question[] => [
    { way, from, text: `tcp ${to} ${port}`, wanted },
  ];
  switch (way) {
    case "pod to pod":
      return ask("pod", v4 ? "10.244.0.3" : "fd00:244::3", 8080, `pod-1 ${pod}`);
    case "pod to a pod of another node":
      return ask("pod", otherPod, 9000, `outside ${pod}`);
    case "pod of another node to pod":
      return ask("client", pod, 8080, `pod-0 ${otherPod}`);
    case "pod to outside":
      return ask("pod", outside, 9000, `outside ${node}`);
    case "outside to node port":
      return ask("client", node, 30_080, `pod-0 ${outside}`);
    case "outside to host port":
      return ask("client", node, 5000, `pod-0 ${outside}`);
    case "node to pod":
      return ask("node", pod, 8080, `pod-0 ${v4 ? "10.244.0.1" : "fd00:244::1"}`);
    case "pod to the node's name server": {
      const to = v4 ? "10.96.0.10" : "fd00:96::a";
      const [tcp] = ask("pod", to, 53, `node ${pod}`);
      return tcp === undefined ? [] : [tcp, { ...tcp, text: `udp ${to} 53` }];
    }
    case "pod to the API server on the node":
      return ask("pod", node, 6443, `node ${pod}`);
    case "another machine to the kubelet's port":
      return ask("client", node, 10_250, `node ${outside}`);
  }
}

/** Does what a problem says, as somebody at the machine would: everything behind the colon, line by line. */
export async function obey(problems: readonly string[]): Promise<void> {
  const commands = problems.flatMap((problem) =>
    (problem.split("Allow them there: ")[1] ?? "").split("; "),
  );
  for (const command of new Set(commands)) await sh("sh", "-c", command);
}
