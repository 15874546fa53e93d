// What test/bench/volumes.ts runs on its machine. Arguments: kubeconfig, the kubelet's root directory, process id of the
// agent, options as JSON. Progress goes to stderr, one JSON object to stdout.
import { type FSWatcher, readdirSync, readFileSync, readlinkSync, watch } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

import { Moments } from "./moments.ts";
import { Api, type Seen } from "./pods-api.ts";

export interface VolumesOptions {
  /** Pods that share the ConfigMap. */
  readonly pods: number;
  /** Projected volumes of each of them. */
  readonly volumes: number;
  /** How often the ConfigMap is changed. */
  readonly updates: number;
  /** Starts of one pod with and one without volumes. */
  readonly pairs: number;
}

export interface VolumesResult {
  /** From sending the PATCH until the first file shows the new text. */
  readonly firstMs: readonly number[];
  /** The same until the last one does. */
  readonly lastMs: readonly number[];
  /** What the agent, control plane included, used of a processor meanwhile. */
  readonly agentCpuMs: readonly number[];
  readonly plainMs: readonly number[];
  /** In pairs with those. */
  readonly withVolumesMs: readonly number[];
  /** Watches of ConfigMaps and Secrets that came with the pods, as the API server counts. */
  readonly watches: number;
  /** ConfigMaps and Secrets that the pods refer to. */
  readonly objects: number;
  /** Connections of the agent to its API server, its two identities and the lease together. */
  readonly sockets: number;
}

const pods = "/api/v1/namespaces/default/pods";
const configMaps = "/api/v1/namespaces/default/configmaps";
const settleMs = 300;
const deadlineMs = 60_000;
/** A shell that has just been started has not set its trap yet, and would sit out the whole grace. */
const trapMs = 150;
const ticksPerSecond = 100;

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

function manifest(name: string, volumes: number): object {
  const names = Array.from({ length: volumes }, (_, index) => `v${index}`);
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
          volumeMounts: names.map((volume) => ({ name: volume, mountPath: `/${volume}` })),
        },
      ],
      volumes: names.map((volume) => ({
        name: volume,
        projected: { sources: [{ configMap: { name: "shared" } }] },
      })),
    },
  };
}

/** User and system time of a process with all its threads, milliseconds. */
function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The command's name may hold spaces.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return ((Number(fields[11]) + Number(fields[12])) / ticksPerSecond) * 1000;
}

/** TCP connections that a process has made to a port. */
function connectionsTo(pid: number, port: number): number {
  const own = new Set<string>();
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      own.add(readlinkSync(`/proc/${pid}/fd/${fd}`));
    } catch {
      // It was closed meanwhile.
    }
  }
  const wanted = port.toString(16).toUpperCase().padStart(4, "0");
  const lines = ["tcp", "tcp6"].flatMap((name) =>
    readFileSync(`/proc/${pid}/net/${name}`, "utf8").split("\n").slice(1),
  );
  return lines.filter((line) => {
    const fields = line.trim().split(/\s+/);
    const established = fields[3] === "01";
    return established && fields[2]?.split(":")[1] === wanted && own.has(`socket:[${fields[9]}]`);
  }).length;
}

/** Tells when files show another text: the kernel says that a volume was swapped, and only then is its file read. */
class Shown {
  readonly #watchers: FSWatcher[] = [];
  readonly #waiting = new Map<string, number>();
  #wanted = "";
  #first: number | undefined;
  #done: ((lastAt: number) => void) | undefined;
  readonly #volumes: string[] = [];

  follow(volume: string): void {
    this.#volumes.push(volume);
    this.#watchers.push(watch(volume, () => this.#look(volume)));
  }

  #look(volume: string): void {
    if (!this.#waiting.has(volume)) return;
    if (readFileSync(join(volume, "key"), "utf8") !== this.#wanted) return;
    const at = performance.now();
    this.#waiting.delete(volume);
    this.#first ??= at;
    if (this.#waiting.size === 0) this.#done?.(at);
  }

  expect(text: string): void {
    this.#wanted = text;
    this.#first = undefined;
    for (const volume of this.#volumes) this.#waiting.set(volume, 0);
  }

  /** When the first and the last of all files did. */
  async all(): Promise<{ readonly first: number; readonly last: number }> {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    this.#done = resolve;
    const timer = setTimeout(() => {
      const [some = ""] = this.#waiting.keys();
      reject(new Error(`${this.#waiting.size} files are not up to date, ${some} among them`));
    }, deadlineMs);
    // Some may have been seen before anybody waited.
    if (this.#waiting.size === 0) resolve(performance.now());
    const last = await promise;
    clearTimeout(timer);
    return { first: this.#first ?? Number.NaN, last };
  }

  close(): void {
    for (const watcher of this.#watchers) watcher.close();
  }
}

class Load {
  readonly #api: Api;
  readonly #options: VolumesOptions;
  readonly #root: string;
  readonly #pid: number;
  readonly #moments = new Moments();
  #made = 0;

  constructor(api: Api, root: string, pid: number, options: VolumesOptions) {
    this.#api = api;
    this.#root = root;
    this.#pid = pid;
    this.#options = options;
  }

  async #newPod(volumes: number): Promise<{ readonly name: string; readonly startedAt: number }> {
    this.#made += 1;
    const name = `pod-${this.#made}`;
    const startedAt = performance.now();
    await this.#api.call("POST", pods, manifest(name, volumes));
    return { name, startedAt };
  }

  /** The namespace's service account is made by a controller, a moment after the start. */
  async #firstPod(): Promise<string> {
    for (let tries = 0; ; tries += 1) {
      try {
        return (await this.#newPod(0)).name;
      } catch (error) {
        if (tries > 50) throw error;
        await delay(200);
      }
    }
  }

  async #delete(name: string): Promise<void> {
    await this.#api.call("DELETE", `${pods}/${name}`);
    await this.#moments.until(name, "gone");
  }

  async #startMs(volumes: number): Promise<number> {
    const { name, startedAt } = await this.#newPod(volumes);
    const ready = await this.#moments.until(name, "ready");
    await delay(trapMs);
    await this.#delete(name);
    return ready - startedAt;
  }

  async #watches(): Promise<number> {
    const text = await this.#api.text("/metrics");
    const line = /^apiserver_longrunning_requests\{.*resource="(?:configmaps|secrets)"\} (\d+)$/gm;
    return [...text.matchAll(line)].reduce((sum, [, count]) => sum + Number(count), 0);
  }

  async #update(text: string, shown: Shown): Promise<{ first: number; last: number; cpu: number }> {
    shown.expect(text);
    const before = cpuMs(this.#pid);
    const startedAt = performance.now();
    const changed = this.#api.call("PATCH", `${configMaps}/shared`, { data: { key: text } });
    const { first, last } = await shown.all();
    await changed;
    return { first: first - startedAt, last: last - startedAt, cpu: cpuMs(this.#pid) - before };
  }

  async run(): Promise<VolumesResult> {
    const { pairs, pods: count, updates, volumes } = this.#options;
    const endWatch = await this.#api.watch(pods, this.#moments.take);
    await this.#api.call("POST", configMaps, configMap("0"));
    const first = await this.#firstPod();
    await this.#moments.until(first, "ready");
    await this.#delete(first);
    await delay(1000);
    const watchesBefore = await this.#watches();

    const plainMs: number[] = [];
    const withVolumesMs: number[] = [];
    for (let turn = -2; turn < pairs; turn += 1) {
      const both: Record<number, number> = {};
      for (const each of turn % 2 === 0 ? [0, volumes] : [volumes, 0]) {
        both[each] = await this.#startMs(each);
      }
      // The first ones are warming up.
      if (turn < 0) continue;
      plainMs.push(both[0] ?? Number.NaN);
      withVolumesMs.push(both[volumes] ?? Number.NaN);
    }
    say(`${pairs} pairs of starts done`);

    const made: string[] = [];
    while (made.length < count) {
      const batch = Math.min(10, count - made.length);
      const some = await Promise.all(Array.from({ length: batch }, () => this.#newPod(volumes)));
      await Promise.all(some.map(({ name }) => this.#moments.until(name, "ready")));
      made.push(...some.map(({ name }) => name));
    }
    say(`${made.length} pods are ready`);
    const watches = (await this.#watches()) - watchesBefore;
    const sockets = connectionsTo(this.#pid, this.#api.port);
    const shown = new Shown();
    for (const name of made) {
      const { metadata } = (await this.#api.call("GET", `${pods}/${name}`)) as Seen;
      const plugin = join(this.#root, "pods", metadata.uid, "volumes", "kubernetes.io~projected");
      for (let index = 0; index < volumes; index += 1) shown.follow(join(plugin, `v${index}`));
    }
    const rounds: { first: number; last: number; cpu: number }[] = [];
    for (let turn = 0; turn < updates; turn += 1) {
      await delay(settleMs);
      rounds.push(await this.#update(`text ${turn}`, shown));
    }
    shown.close();
    endWatch();
    return {
      firstMs: rounds.map((round) => round.first),
      lastMs: rounds.map((round) => round.last),
      agentCpuMs: rounds.map(({ cpu }) => cpu),
      plainMs,
      withVolumesMs,
      watches,
      // The one that is shared, and kube-root-ca.crt beside every token.
      objects: 2,
      sockets,
    };
  }
}

function configMap(text: string): object {
  return { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "shared" }, data: { key: text } };
}

const [kubeconfig = "", root = "", pid = "", options = "{}"] = process.argv.slice(2);
const api = await Api.fromKubeconfig(kubeconfig);
const result = await new Load(api, root, Number(pid), JSON.parse(options) as VolumesOptions).run();
process.stdout.write(`${JSON.stringify(result)}\n`);
api.close();
