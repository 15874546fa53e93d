// What test/bench/streams.ts runs on its machine: exec and port-forward straight to 10250, in turns with the engine
// alone and with socat. Arguments: kubeconfig, engine socket, options as JSON. Progress goes to stderr, one JSON object
// to stdout.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { EngineExec } from "./baseline/engine-exec.ts";
import { socatCommand, startSocat } from "./baseline/socat.ts";
import { Api, type Seen } from "./pods-api.ts";
import {
  type Address,
  type Credentials,
  credentialsOf,
  execBytes,
  execOnce,
  Forwarding,
  tlsConnection,
} from "./streams-client.ts";

export interface StreamsOptions {
  /** Process id of the agent, as the machine counts. */
  readonly pid: number;
  /** PEM file with certificate and key, for socat. */
  readonly pem: string;
  /** Of each kind. */
  readonly execs: number;
  readonly rounds: number;
  readonly streamMB: number;
  readonly manyExecs: number;
  readonly relayMB: number;
}

export interface StreamsResult {
  readonly execMs: readonly number[];
  readonly engineExecMs: readonly number[];
  /** MB/s: pod to client, client to pod, and both for 16 connections at once. */
  readonly rates: Readonly<Record<string, readonly number[]>>;
  readonly socat: readonly string[];
  /** Resident memory of the agent. */
  readonly execRssMB: readonly [before: number, after: number];
  readonly manyExecs: number;
  /** By relay: the most that it grew while the bytes passed. */
  readonly relayGrowthMB: Readonly<Record<string, number>>;
}

const pods = "/api/v1/namespaces/default/pods";
const node: Address = { host: "127.0.0.1", port: 10_250 };
const tlsPort = 7443;
const connections = 16;

/** Ports of the pod: a source and a sink for one connection, and a source for each of many. */
const source = 7001;
const sink = 7002;
const smallSource = 7003;

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

const manifest = {
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "streams" },
  spec: {
    containers: [{ name: "main", image: "busybox:1.36", command: ["sleep", "2147483"] }],
  },
};

/** Starts what the pod's ports are served by, in its network namespace; returns when they are open. */
async function startPorts(podPid: number, streamMB: number): Promise<ChildProcess> {
  const million = 1024 * 1024;
  const program = fileURLToPath(new URL("streams-pod.ts", import.meta.url));
  const args = [
    "-t",
    String(podPid),
    "-n",
    process.execPath,
    program,
    String(sink),
    `${source}=${streamMB * million}`,
    `${smallSource}=${Math.ceil(streamMB / connections) * million}`,
  ];
  const child = spawn("nsenter", args, { stdio: ["pipe", "pipe", "inherit"] });
  const failed = once(child, "close").then(() => {
    throw new Error("the pod's ports are not served");
  });
  failed.catch(() => undefined);
  await Promise.race([once(child.stdout, "data"), failed]);
  return child;
}

async function ready(api: Api): Promise<string> {
  for (let tries = 0; tries < 600; tries += 1) {
    const pod = (await api.call("GET", `${pods}/streams`)) as Seen & {
      readonly status?: { readonly podIP?: string };
    };
    if ((pod.status?.conditions ?? []).some((c) => c.type === "Ready" && c.status === "True")) {
      return pod.status?.podIP ?? "";
    }
    await delay(100);
  }
  throw new Error("the pod is not ready");
}

/** What hangs fails, so that it is seen which it was. */
const deadlineMs = 90_000;

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  const late = new AbortController();
  const deadline = delay(deadlineMs, undefined, { signal: late.signal }).then(() => {
    throw new Error(`did not end within ${deadlineMs} ms: ${String(work)}`);
  });
  deadline.catch(() => undefined);
  try {
    await Promise.race([work(), deadline]);
  } finally {
    late.abort();
  }
  return performance.now() - start;
}

class Load {
  readonly #options: StreamsOptions;
  readonly #credentials: Credentials;
  readonly #engine: EngineExec;
  readonly #container: string;
  readonly #podIP: string;
  readonly #podPid: number;

  constructor(
    options: StreamsOptions,
    credentials: Credentials,
    pod: { engine: EngineExec; container: string; podIP: string; podPid: number },
  ) {
    this.#options = options;
    this.#credentials = credentials;
    this.#engine = pod.engine;
    this.#container = pod.container;
    this.#podIP = pod.podIP;
    this.#podPid = pod.podPid;
  }

  #rssMB(): number {
    const status = readFileSync(`/proc/${this.#options.pid}/status`, "utf8");
    return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? Number.NaN) / 1024;
  }

  #execPath(command: readonly string[], more: string): string {
    const words = command.map((word) => `command=${encodeURIComponent(word)}`);
    return `/exec/default/streams/main?${words.join("&")}&output=1${more}`;
  }

  async #exec(): Promise<number> {
    const path = this.#execPath(["true"], "&error=1");
    const { exitCode, ms } = await execOnce(node, path, this.#credentials);
    if (exitCode !== 0) throw new Error(`exec ended with ${exitCode}`);
    return ms;
  }

  async execs(): Promise<Pick<StreamsResult, "execMs" | "engineExecMs">> {
    const execMs: number[] = [];
    const engineExecMs: number[] = [];
    for (let turn = 0; turn < this.#options.execs + 3; turn += 1) {
      const ours = await this.#exec();
      const theirs = await timed(() => this.#engine.run(this.#container, ["true"]));
      // The first ones are warming up.
      if (turn >= 3) {
        execMs.push(ours);
        engineExecMs.push(theirs);
      }
    }
    return { execMs, engineExecMs };
  }

  async manyExecs(): Promise<Pick<StreamsResult, "execRssMB" | "manyExecs">> {
    const run = async (count: number): Promise<void> => {
      let left = count;
      const lane = async (): Promise<void> => {
        while ((left -= 1) >= 0) {
          await this.#exec();
          if (left % 1000 === 0) say(`${left} execs to go, ${this.#rssMB().toFixed(1)} MB`);
        }
      };
      await Promise.all([lane(), lane(), lane(), lane()]);
    };
    await run(Math.ceil(this.#options.manyExecs / 10));
    const before = this.#rssMB();
    await run(this.#options.manyExecs);
    return { execRssMB: [before, this.#rssMB()], manyExecs: this.#options.manyExecs };
  }

  #forwarding(): Promise<Forwarding> {
    return Forwarding.open(node, "/portForward/default/streams", this.#credentials);
  }

  async #rate(megabytes: number, work: () => Promise<number>): Promise<number> {
    let bytes = 0;
    const ms = await timed(async () => {
      bytes = await work();
    });
    if (bytes !== megabytes * 1024 * 1024) throw new Error(`${bytes} of ${megabytes} MB came`);
    return (megabytes * 1.048_576) / (ms / 1000);
  }

  async rates(): Promise<Pick<StreamsResult, "rates" | "socat">> {
    const { pem, rounds, streamMB } = this.#options;
    const bytes = streamMB * 1024 * 1024;
    const ports = [source, sink, smallSource];
    const commands = ports.map((port, index) =>
      socatCommand(this.#podPid, pem, tlsPort + index, port),
    );
    const servers = await Promise.all(commands.map(startSocat));
    const socat = (port: number): Address => ({
      host: this.#podIP,
      port: tlsPort + ports.indexOf(port),
    });
    const rates: Record<string, number[]> = {};
    const note = (what: string, rate: number): void => {
      (rates[what] ??= []).push(rate);
    };
    const up = async (work: () => Promise<unknown>): Promise<number> => {
      await work();
      return bytes;
    };
    const many = async (one: () => Promise<number>): Promise<number> => {
      const all = await Promise.all(Array.from({ length: connections }, one));
      return all.reduce((sum, each) => sum + each, 0);
    };
    const manyMB = Math.ceil(streamMB / connections) * connections;
    try {
      for (let round = 0; round < rounds; round += 1) {
        const forwarding = await this.#forwarding();
        note("down", await this.#rate(streamMB, () => forwarding.connection(source, 0)));
        note("socat down", await this.#rate(streamMB, () => tlsConnection(socat(source), 0)));
        note("up", await this.#rate(streamMB, () => up(() => forwarding.connection(sink, bytes))));
        note(
          "socat up",
          await this.#rate(streamMB, () => up(() => tlsConnection(socat(sink), bytes))),
        );
        note(
          "down16",
          await this.#rate(manyMB, () => many(() => forwarding.connection(smallSource, 0))),
        );
        note(
          "socat down16",
          await this.#rate(manyMB, () => many(() => tlsConnection(socat(smallSource), 0))),
        );
        const share = bytes / connections;
        note(
          "up16",
          await this.#rate(streamMB, () =>
            up(() => many(() => forwarding.connection(sink, share))),
          ),
        );
        note(
          "socat up16",
          await this.#rate(streamMB, () => up(() => many(() => tlsConnection(socat(sink), share)))),
        );
        forwarding.close();
        say(`round ${round + 1} of ${rounds}: ${JSON.stringify(rates)}`);
      }
    } finally {
      for (const server of servers) server.kill("SIGKILL");
    }
    return { rates, socat: commands[0] ?? [] };
  }

  /** How much the agent grows while so many bytes pass, after some of the same kind have. */
  async #growth(work: (megabytes: number) => Promise<unknown>): Promise<number> {
    await work(64);
    const before = this.#rssMB();
    let most = before;
    const watching = setInterval(() => (most = Math.max(most, this.#rssMB())), 20);
    await work(this.#options.relayMB);
    clearInterval(watching);
    return most - before;
  }

  async relays(): Promise<Pick<StreamsResult, "relayGrowthMB">> {
    const million = 1024 * 1024;
    const credentials = this.#credentials;
    const head = (megabytes: number): string[] => [
      "head",
      "-c",
      String(megabytes * million),
      "/dev/zero",
    ];
    const relays: Readonly<Record<string, (megabytes: number) => Promise<unknown>>> = {
      "port-forward, pod to client": async (megabytes) => {
        const forwarding = await this.#forwarding();
        for (let left = megabytes; left > 0; left -= this.#options.streamMB) {
          await forwarding.connection(source, 0);
        }
        forwarding.close();
      },
      "port-forward, client to pod": async (megabytes) => {
        const forwarding = await this.#forwarding();
        await forwarding.connection(sink, megabytes * million);
        forwarding.close();
      },
      "exec, output": (megabytes) =>
        execBytes(node, this.#execPath(head(megabytes), ""), credentials, 0),
      "exec, input": (megabytes) => {
        const path = this.#execPath(["dd", "of=/dev/null", "bs=65536"], "&input=1");
        return execBytes(node, path, credentials, megabytes * million);
      },
    };
    const relayGrowthMB: Record<string, number> = {};
    for (const [name, work] of Object.entries(relays)) {
      relayGrowthMB[name] = await this.#growth(work);
      say(`${name}: ${JSON.stringify(relayGrowthMB[name])} MB`);
    }
    return { relayGrowthMB };
  }
}

const [kubeconfig = "", socketPath = "", text = "{}"] = process.argv.slice(2);
const options = JSON.parse(text) as StreamsOptions;
const api = await Api.fromKubeconfig(kubeconfig);
await api.call("POST", pods, manifest);
const podIP = await ready(api);
const engine = new EngineExec(socketPath);
const [container = ""] = await engine.containers("io.kubernetes.container.name=main");
const podPid = await engine.pid(container);
const ports = await startPorts(podPid, options.streamMB);
const load = new Load(options, await credentialsOf(kubeconfig), {
  engine,
  container,
  podIP,
  podPid,
});
const result: StreamsResult = {
  ...(await load.execs()),
  ...(await load.rates()),
  ...(await load.relays()),
  ...(await load.manyExecs()),
};
await api.call("DELETE", `${pods}/streams?gracePeriodSeconds=0`);
process.stdout.write(`${JSON.stringify(result)}\n`);
ports.stdin?.end();
api.close();
engine.close();
