import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { EventTarget } from "../../../src/api/event-types.ts";
import { NODES, PODS } from "../../../src/api/resources.ts";
import type { Stored } from "../../../src/api/object.ts";
import type { Node, Pod } from "../../../src/api/types.gen.ts";
import type { AgentConfig } from "../../../src/config/types.ts";
import type { CgroupSettings } from "../../../src/kubelet/cgroups/settings.ts";
import { createPods, type Pods } from "../../../src/kubelet/pods/pods.ts";
import type { StepHook } from "../../../src/kubelet/steps.ts";
import { MountTable } from "../../../src/kubelet/volumes/mount-table.ts";
import type { Mounter, MountRequest } from "../../../src/kubelet/volumes/mounter.ts";
import { type Clock, systemClock } from "../../../src/lib/clock.ts";
import type { Level, Logger } from "../../../src/lib/log.ts";
import { type FakeApiServer, startFakeApiServer } from "../../fakes/api-server.ts";
import { fakeNetwork, type FakeNetwork } from "../../fakes/fake-network.ts";
import { fakeRuntime, type FakeRuntime } from "../../fakes/fake-runtime.ts";
import { agentConfig as plainConfig } from "../kubelet-node/fixtures.ts";

/** Mounts that only exist in a list: component tests touch no mount table. */
export class FakeMounter implements Mounter {
  readonly mounted = new Map<string, string>();
  /** Options that were asked for, by path; of a remount the new ones. */
  readonly options = new Map<string, readonly string[]>();

  async mount({ options, source, target }: MountRequest): Promise<void> {
    const remount = options.includes("remount");
    assert.equal(this.mounted.has(target), remount, `${target} is mounted twice, or not at all`);
    if (!remount) this.mounted.set(target, source);
    this.options.set(target, options);
  }

  async mountTmpfs(path: string): Promise<void> {
    assert(!this.mounted.has(path), `${path} is mounted twice`);
    this.mounted.set(path, "tmpfs");
  }

  async bind(source: string, target: string): Promise<void> {
    assert(!this.mounted.has(target), `${target} is mounted twice`);
    this.mounted.set(target, source);
  }

  async unmount(path: string): Promise<"unmounted" | "detached"> {
    this.mounted.delete(path);
    this.options.delete(path);
    return "unmounted";
  }

  async mountPoints(directory: string): Promise<readonly string[]> {
    return [...this.mounted.keys()].filter(
      (path) => path === directory || path.startsWith(`${directory}/`),
    );
  }

  table(): MountTable {
    const escape = (text: string): string =>
      text.replaceAll(
        /[ \t\n\\#]/g,
        (each) => `\\0${each.charCodeAt(0).toString(8).padStart(2, "0")}`,
      );
    const flags = (path: string): string => {
      const options = this.options.get(path) ?? [];
      const set = options.filter((each) => ["nodev", "noexec", "nosuid"].includes(each));
      return [options.includes("ro") ? "ro" : "rw", ...set].join(",");
    };
    const lines = [...this.mounted].map(
      ([path, source], index) =>
        `${index + 100} 1 0:${index} / ${escape(path)} ${flags(path)} - tmpfs ${escape(source)} rw`,
    );
    return new MountTable(lines.join("\n"));
  }

  async answers(): Promise<void> {}
}

export interface SeenEvent {
  readonly target: EventTarget;
  readonly type: string;
  readonly reason: string;
  readonly message: string;
}

export interface SeenLog {
  readonly level: Level;
  readonly message: string;
  readonly error: unknown;
}

/** A running instance of the pod half. */
export interface Instance {
  readonly pods: Pods;
  /** Settles when it has ended; the error when it crashed. */
  readonly ended: Promise<Error | undefined>;
  stop(): Promise<void>;
}

/** Everything that outlives one instance of the agent. */
export interface World {
  readonly api: FakeApiServer;
  readonly runtime: FakeRuntime;
  readonly network: FakeNetwork;
  readonly mounter: FakeMounter;
  readonly events: SeenEvent[];
  readonly logs: readonly SeenLog[];
  readonly removedCgroups: string[];
  /** Settings as last written, by path. */
  readonly cgroups: ReadonlyMap<string, CgroupSettings>;
  /** Called before each write; throw to make it fail. */
  onCgroup: (path: string) => void;
  /** Bytes that a cgroup uses, by its path. */
  memoryUsage: (path: string) => number | undefined;
  readonly rootDir: string;
  start(options?: { readonly step?: StepHook; readonly clock?: Clock }): Instance;
  pod(name: string): Stored<Pod> | undefined;
  /** Resolves when `condition` holds; fails with what was last seen after 10 s. */
  until<T>(what: string, condition: () => T | undefined | false): Promise<T>;
  /** Marks a pod as deleted the way the API server does. */
  deletePod(name: string, graceSeconds?: number): void;
  podDirectories(): Promise<readonly string[]>;
  close(): Promise<void>;
}

export const nodeName = "worker";

export function agentConfig(rootDir: string): AgentConfig {
  return plainConfig(rootDir, {
    nodeName,
    podLogsDir: join(rootDir, "logs"),
    containerLogsDir: join(rootDir, "container-logs"),
    clusterDNS: ["10.96.0.10"],
    containerLogMaxFiles: 1,
    imagePullProgressDeadlineMs: 1000,
  });
}

/** A pod that the scheduler has put on the node. */
export function podManifest(name: string, spec: Partial<NonNullable<Pod["spec"]>> = {}): Pod {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: "default", generation: 1 },
    spec: {
      nodeName,
      restartPolicy: "Always",
      terminationGracePeriodSeconds: 30,
      containers: [{ name: "web", image: "app:1", imagePullPolicy: "IfNotPresent" }],
      ...spec,
    },
    status: { phase: "Pending" },
  };
}

/** The machine's time, with jumps ahead: who sleeps wakes when its time has come that way. */
export class JumpingClock implements Clock {
  #aheadMs = 0;
  #jump = Promise.withResolvers<void>();

  now(): number {
    return systemClock.now() + this.#aheadMs;
  }

  monotonic(): number {
    return systemClock.monotonic() + this.#aheadMs;
  }

  async sleep(ms: number, signal: AbortSignal): Promise<void> {
    const due = this.monotonic() + ms;
    for (let left = ms; left > 0; left = due - this.monotonic()) {
      const awake = new AbortController();
      const stop = AbortSignal.any([signal, awake.signal]);
      const nap = systemClock.sleep(left, stop).catch(() => undefined);
      await Promise.race([nap, this.#jump.promise]);
      awake.abort();
      await nap;
      signal.throwIfAborted();
    }
  }

  ahead(ms: number): void {
    this.#aheadMs += ms;
    this.#jump.resolve();
    this.#jump = Promise.withResolvers<void>();
  }
}

export interface WorldOptions {
  /** What the node is told beyond the defaults. */
  readonly settings?: Partial<AgentConfig>;
  /** Of the engine, and of instances that are given no other. */
  readonly clock?: Clock;
}

export async function makeWorld({
  settings = {},
  clock: worldClock = systemClock,
}: WorldOptions = {}): Promise<World> {
  const api = await startFakeApiServer();
  const rootDir = await mkdtemp(join(tmpdir(), "pods-"));
  const runtime = fakeRuntime(() => worldClock.now());
  const network = fakeNetwork();
  const mounter = new FakeMounter();
  const events: SeenEvent[] = [];
  const logs: SeenLog[] = [];
  const logger: Logger = {
    log: (level, message, fields) => {
      logs.push({ level, message, error: fields?.["error"] });
    },
    child: () => logger,
  };
  const removedCgroups: string[] = [];
  const cgroups = new Map<string, CgroupSettings>();
  runtime.addImage("app:1");
  const node = api.put<Node>(NODES, {
    metadata: { name: nodeName, labels: { "kubernetes.io/os": "linux" } },
    status: {
      allocatable: { cpu: "4", memory: "8Gi", pods: "110", "ephemeral-storage": "10Gi" },
      capacity: { cpu: "4", memory: "8Gi", pods: "110" },
    },
  });
  const instances = new Set<Instance>();
  const world: World = {
    api,
    runtime,
    network,
    mounter,
    events,
    logs,
    removedCgroups,
    cgroups,
    onCgroup: () => undefined,
    memoryUsage: () => undefined,
    rootDir,
    start({ step = () => undefined, clock = worldClock } = {}) {
      const stop = new AbortController();
      network.forget();
      const pods = createPods({
        config: { ...agentConfig(rootDir), ...settings },
        client: api.client,
        runtime,
        images: runtime,
        network,
        node: {
          node: () => node,
          hostIPs: () => ["192.0.2.10"],
          subscribe: () => () => undefined,
        },
        events: {
          event: (target, type, reason, message) => {
            events.push({ target, type, reason, message });
          },
        },
        clock,
        logger,
        random: () => 0,
        step,
        mounter,
        cgroups: {
          ensure: async (path, settings) => {
            world.onCgroup(path);
            cgroups.set(path, settings);
          },
          adjust: async () => undefined,
          memoryUsage: async (path) => world.memoryUsage(path),
          remove: async (path) => {
            removedCgroups.push(path);
          },
        },
      });
      const ended = pods.run(stop.signal).then(
        () => undefined,
        (error: unknown) => (error instanceof Error ? error : new Error(String(error))),
      );
      const instance: Instance = {
        pods,
        ended,
        stop: async () => {
          stop.abort();
          await ended;
          instances.delete(instance);
        },
      };
      instances.add(instance);
      return instance;
    },
    pod: (name) => api.get(PODS, `default/${name}`),
    async until(what, condition) {
      const give = systemClock.monotonic() + 10_000;
      for (;;) {
        const value = condition();
        if (value !== undefined && value !== false) return value;
        if (systemClock.monotonic() > give) {
          const pods = JSON.stringify(api.list(PODS).map(({ status }) => status));
          assert.fail(
            `never: ${what}; calls ${runtime.calls.slice(-30).join(", ")}; events ${JSON.stringify(events.slice(-8).map(({ reason, message }) => [reason, message]))}; pods ${pods}`,
          );
        }
        await systemClock.sleep(2, AbortSignal.timeout(1000));
      }
    },
    deletePod(name, graceSeconds = 30) {
      const pod = world.pod(name);
      assert(pod !== undefined);
      api.put<Pod>(PODS, {
        ...pod,
        metadata: {
          ...pod.metadata,
          deletionTimestamp: "2026-01-01T00:00:00Z",
          deletionGracePeriodSeconds: graceSeconds,
        },
      });
    },
    async podDirectories() {
      const names = await readdir(join(rootDir, "pods")).catch(() => []);
      return names;
    },
    async close() {
      for (const instance of instances) await instance.stop();
      await api.close();
      await rm(rootDir, { recursive: true, force: true });
    },
  };
  return world;
}
