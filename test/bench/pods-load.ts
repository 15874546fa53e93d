// What test/bench/pods.ts runs on its machine: makes and deletes pods through the API, and bare sandboxes with a
// container through the engine, in turns. Arguments: kubeconfig, engine socket, phase (`speed` or `idle`), options as
// JSON. Progress goes to stderr, one JSON object to stdout.
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";

import { Moments } from "./moments.ts";
import { Api, type Seen } from "./pods-api.ts";
import { RawEngine, type RawPod, type RawTemplate } from "./pods-engine.ts";

export interface SpeedOptions {
  readonly singles: number;
  readonly rounds: number;
  readonly burst: number;
  readonly concurrencies: readonly number[];
}

export interface SpeedResult {
  readonly createToReadyMs: readonly number[];
  readonly createToScheduledMs: readonly number[];
  readonly rawStartMs: readonly number[];
  readonly deleteMs: readonly number[];
  readonly rawStopMs: readonly number[];
  readonly burstMs: readonly number[];
  /** By concurrency. */
  readonly rawBurstMs: Readonly<Record<string, readonly number[]>>;
  readonly leaseGapsMs: readonly number[];
}

export interface IdleOptions {
  readonly pods: number;
  readonly settleMs: number;
  readonly measureMs: number;
  /** Process id of the agent, as the machine counts. */
  readonly pid: number;
}

export interface IdleResult {
  readonly pods: number;
  readonly seconds: number;
  readonly cpuPercent: number;
  readonly rssMB: number;
  /** By thread, as the kernel names them; what is below 0.01 % is left out. */
  readonly threads: Readonly<Record<string, number>>;
}

const pods = "/api/v1/namespaces/default/pods";
const leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
/** A shell that has just been started has not set its trap yet, and would sit out the whole grace. */
const trapMs = 150;

function manifest(name: string): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name },
    spec: {
      containers: [
        {
          name: "main",
          image: "busybox:1.36",
          imagePullPolicy: "IfNotPresent",
          command: ["sh", "-c", "trap 'exit 0' TERM; sleep 2147483 & wait"],
        },
      ],
    },
  };
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

class Load {
  readonly #api: Api;
  readonly #engine: RawEngine;
  readonly #moments = new Moments();
  #made = 0;

  constructor(api: Api, engine: RawEngine) {
    this.#api = api;
    this.#engine = engine;
  }

  async #newPod(): Promise<{ readonly name: string; readonly startedAt: number }> {
    this.#made += 1;
    const name = `pod-${this.#made}`;
    const startedAt = performance.now();
    await this.#api.call("POST", pods, manifest(name));
    return { name, startedAt };
  }

  async #deletePod(name: string): Promise<number> {
    const startedAt = performance.now();
    await this.#api.call("DELETE", `${pods}/${name}`);
    return (await this.#moments.until(name, "gone")) - startedAt;
  }

  async #template(): Promise<RawTemplate> {
    // The namespace's service account is made by a controller, a moment after the start.
    for (let tries = 0; ; tries += 1) {
      try {
        await this.#api.call("POST", pods, manifest("template"));
        break;
      } catch (error) {
        if (tries > 50) throw error;
        await delay(200);
      }
    }
    await this.#moments.until("template", "ready");
    const { metadata } = (await this.#api.call("GET", `${pods}/template`)) as Seen;
    return this.#engine.template(metadata.uid);
  }

  async #rawBurst(template: RawTemplate, count: number, concurrency: number): Promise<number> {
    const made: RawPod[] = [];
    let left = count;
    const startedAt = performance.now();
    const worker = async (): Promise<void> => {
      while (left > 0) {
        left -= 1;
        made.push(await this.#engine.start(template));
      }
    };
    await Promise.all(Array.from({ length: concurrency }, worker));
    const took = performance.now() - startedAt;
    await delay(trapMs);
    while (made.length > 0) {
      await Promise.all(made.splice(0, 4).map((pod) => this.#engine.stop(pod)));
    }
    return took;
  }

  async #podBurst(count: number): Promise<number> {
    const startedAt = performance.now();
    const made = await Promise.all(Array.from({ length: count }, () => this.#newPod()));
    const ready = await Promise.all(made.map(({ name }) => this.#moments.until(name, "ready")));
    const took = Math.max(...ready) - startedAt;
    await delay(trapMs);
    await Promise.all(made.map(({ name }) => this.#deletePod(name)));
    return took;
  }

  async speed(options: SpeedOptions): Promise<SpeedResult> {
    const endWatch = await this.#api.watch(pods, this.#moments.take);
    const template = await this.#template();
    const result = {
      createToReadyMs: [] as number[],
      createToScheduledMs: [] as number[],
      rawStartMs: [] as number[],
      deleteMs: [] as number[],
      rawStopMs: [] as number[],
      burstMs: [] as number[],
      rawBurstMs: {} as Record<string, number[]>,
      leaseGapsMs: [] as number[],
    };
    const onePod = async (): Promise<void> => {
      const { name, startedAt } = await this.#newPod();
      result.createToReadyMs.push((await this.#moments.until(name, "ready")) - startedAt);
      result.createToScheduledMs.push((await this.#moments.until(name, "scheduled")) - startedAt);
      await delay(trapMs);
      result.deleteMs.push(await this.#deletePod(name));
    };
    const oneRaw = async (): Promise<void> => {
      const startedAt = performance.now();
      const pod = await this.#engine.start(template);
      result.rawStartMs.push(performance.now() - startedAt);
      await delay(trapMs);
      const stoppedAt = performance.now();
      await this.#engine.stop(pod);
      result.rawStopMs.push(performance.now() - stoppedAt);
    };
    for (let warm = 0; warm < 3; warm += 1) {
      await onePod();
      await oneRaw();
    }
    for (const list of Object.values(result)) if (Array.isArray(list)) list.length = 0;
    for (let turn = 0; turn < options.singles; turn += 1) {
      const [first, second] = turn % 2 === 0 ? [onePod, oneRaw] : [oneRaw, onePod];
      await first();
      await second();
    }
    say(`${options.singles} single starts done`);
    let renewedAt: number | undefined;
    const endLeases = await this.#api.watch(leases, () => {
      const now = performance.now();
      if (renewedAt !== undefined) result.leaseGapsMs.push(now - renewedAt);
      renewedAt = now;
    });
    for (let round = 0; round < options.rounds; round += 1) {
      result.burstMs.push(await this.#podBurst(options.burst));
      for (const concurrency of options.concurrencies) {
        const took = await this.#rawBurst(template, options.burst, concurrency);
        (result.rawBurstMs[concurrency] ??= []).push(took);
      }
      say(`burst ${round + 1} of ${options.rounds} done`);
    }
    // The renewal that a burst may have delayed.
    while (result.leaseGapsMs.length < 2) await delay(500);
    endLeases();
    // It would be one pod too many for what comes next.
    await this.#deletePod("template");
    endWatch();
    return result;
  }

  async idle(options: IdleOptions): Promise<IdleResult> {
    const endWatch = await this.#api.watch(pods, this.#moments.take);
    const made: string[] = [];
    while (made.length < options.pods) {
      const batch = Math.min(10, options.pods - made.length);
      const some = await Promise.all(Array.from({ length: batch }, () => this.#newPod()));
      await Promise.all(some.map(({ name }) => this.#moments.until(name, "ready")));
      made.push(...some.map(({ name }) => name));
    }
    endWatch();
    say(`${made.length} pods are ready`);
    await delay(options.settleMs);
    const before = cpuSeconds(options.pid);
    const startedAt = performance.now();
    await delay(options.measureMs);
    const seconds = (performance.now() - startedAt) / 1000;
    const after = cpuSeconds(options.pid);
    const threads = [...after.threads].flatMap(([name, used]): [string, number][] => {
      const percent = ((used - (before.threads.get(name) ?? 0)) / seconds) * 100;
      return percent < 0.01 ? [] : [[name, Math.round(percent * 100) / 100]];
    });
    return {
      pods: made.length,
      seconds,
      cpuPercent: ((after.total - before.total) / seconds) * 100,
      rssMB: rssMB(options.pid),
      threads: Object.fromEntries(threads),
    };
  }
}

const ticksPerSecond = 100;

function ticks(stat: string, fields: readonly number[]): number {
  // The command's name may hold spaces.
  const values = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields.reduce((sum, field) => sum + Number(values[field - 3]), 0);
}

function childrenOf(pid: number): number[] {
  const found: number[] = [];
  for (const entry of readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      if (ticks(readFileSync(`/proc/${entry}/stat`, "utf8"), [4]) === pid) {
        found.push(Number(entry), ...childrenOf(Number(entry)));
      }
    } catch {
      // It has ended.
    }
  }
  return found;
}

/** User and system time of the process, its children, and what ended among them. */
function cpuSeconds(pid: number): {
  readonly total: number;
  readonly threads: ReadonlyMap<string, number>;
} {
  const threads = new Map<string, number>();
  let total = 0;
  for (const one of [pid, ...childrenOf(pid)]) {
    // utime, stime, cutime, cstime
    total += ticks(readFileSync(`/proc/${one}/stat`, "utf8"), [14, 15, 16, 17]) / ticksPerSecond;
    for (const task of readdirSync(`/proc/${one}/task`)) {
      const stat = readFileSync(`/proc/${one}/task/${task}/stat`, "utf8");
      const name = stat.slice(stat.indexOf("(") + 1, stat.lastIndexOf(")"));
      threads.set(`${name} ${task}`, ticks(stat, [14, 15]) / ticksPerSecond);
    }
  }
  return { total, threads };
}

function rssMB(pid: number): number {
  const match = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Math.round(Number(match?.[1] ?? 0) / 1000);
}

const [kubeconfig = "", socket = "", phase = "", optionsText = "{}"] = process.argv.slice(2);
if (phase !== "") {
  const api = await Api.fromKubeconfig(kubeconfig);
  const engine = new RawEngine(socket);
  const load = new Load(api, engine);
  const options: unknown = JSON.parse(optionsText);
  const result =
    phase === "speed"
      ? await load.speed(options as SpeedOptions)
      : await load.idle(options as IdleOptions);
  process.stdout.write(`${JSON.stringify(result)}\n`);
  api.close();
  engine.close();
}
