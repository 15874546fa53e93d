import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { NODES, PODS } from "../../../src/api/resources.ts";
import type { Stored } from "../../../src/api/object.ts";
import type { Node as ApiNode, Pod, PodSpec } from "../../../src/api/types.gen.ts";
import { createPods, type Pods, type PodsOptions } from "../../../src/kubelet/pods/pods.ts";
import { systemMounter } from "../../../src/kubelet/volumes/mounter.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { agentConfig, nodeName, podManifest } from "../../component/kubelet-pods/fixture.ts";
import { type FakeApiServer, startFakeApiServer } from "../../fakes/api-server.ts";
import { fakeNetwork } from "../../fakes/fake-network.ts";
import { createFixture, type Fixture, testSignal } from "../runtime/fixture.ts";

/** What a command in a container came to. */
export interface Ran {
  readonly exitCode: number;
  readonly text: string;
}

/** The pod half of an agent on the real engine and the real mount table. */
export interface Node extends AsyncDisposable {
  readonly fixture: Fixture;
  readonly rootDir: string;
  readonly api: FakeApiServer;
  /** `reason message` of every event. */
  readonly events: readonly string[];
  readonly pods: Pods;
  /** The scheduler puts a pod on the node; containers without an image get busybox. */
  put(name: string, spec: Partial<PodSpec>): void;
  pod(name: string): Stored<Pod> | undefined;
  /** Below the volumes of the pod. */
  volumes(name: string): string;
  until<T>(what: string, condition: () => T | undefined | false, seconds?: number): Promise<T>;
  ready(name: string): Promise<void>;
  /** Runs a shell script in the pod's container of this name. */
  run(pod: string, script: string, container?: string): Promise<Ran>;
  /** Deletes the pod and waits until nothing is left of it: no mount, no directory. */
  remove(name: string): Promise<void>;
  /** The agent's process ends, and another one begins. */
  restart(): Promise<void>;
}

export const sleeper = [
  "/bin/busybox",
  "sh",
  "-c",
  "trap 'exit 0' TERM; while :; do busybox sleep 0.1; done",
];

/** @param more Is asked at each start of the agent: what its pod half gets beside the rest. */
export async function makeNode(
  more: (
    given: Pick<PodsOptions, "client" | "config" | "node">,
    stop: AbortSignal,
  ) => Partial<PodsOptions> = () => ({}),
): Promise<Node> {
  const fixture = await createFixture();
  const api = await startFakeApiServer();
  const rootDir = await mkdtemp(join(tmpdir(), "volumes-"));
  const network = fakeNetwork();
  const events: string[] = [];
  const config = { ...agentConfig(rootDir), cgroupsPerQOS: false };
  const known = api.put<ApiNode>(NODES, {
    metadata: { name: nodeName, labels: { "kubernetes.io/os": "linux" } },
    status: {
      allocatable: {
        cpu: "4",
        memory: "8Gi",
        pods: "110",
        "ephemeral-storage": "10Gi",
        "hugepages-2Mi": "64Mi",
      },
      capacity: { cpu: "4", memory: "8Gi", pods: "110" },
    },
  });
  let stop = new AbortController();
  let running: Promise<void> = Promise.resolve();
  let pods: Pods | undefined;
  const start = (): void => {
    stop = new AbortController();
    network.forget();
    const given = {
      config: { ...config, podLogsDir: fixture.podLogsDir },
      client: api.client,
      node: { node: () => known, hostIPs: () => ["192.0.2.10"], subscribe: () => () => undefined },
    };
    pods = createPods({
      ...given,
      runtime: fixture.runtime,
      images: fixture.runtime,
      network,
      events: {
        event: (_, type, reason, message) => void events.push(`${type} ${reason} ${message}`),
      },
      clock: systemClock,
      logger: silentLogger,
      random: () => 0,
      step: () => undefined,
      cgroups: {
        ensure: async () => undefined,
        adjust: async () => undefined,
        memoryUsage: async () => undefined,
        remove: async () => undefined,
      },
      ...more(given, stop.signal),
    });
    running = pods.run(stop.signal);
  };
  const node: Node = {
    fixture,
    rootDir,
    api,
    events,
    get pods() {
      assert(pods !== undefined);
      return pods;
    },
    put(name, spec) {
      const full = podManifest(name, {
        terminationGracePeriodSeconds: 1,
        ...spec,
        containers: (spec.containers ?? [{ name: "main" }]).map((container) => ({
          image: fixture.busyboxName,
          imagePullPolicy: "Never",
          command: sleeper,
          ...container,
        })),
      });
      api.put<Pod>(PODS, full);
    },
    pod: (name) => api.get(PODS, `default/${name}`),
    volumes: (name) => join(rootDir, "pods", node.pod(name)?.metadata.uid ?? "", "volumes"),
    async until(what, condition, seconds = 20) {
      const give = systemClock.monotonic() + seconds * 1000;
      for (;;) {
        const value = condition();
        if (value !== undefined && value !== false) return value;
        if (systemClock.monotonic() > give) {
          const statuses = api.list(PODS).map(({ status }) => status?.containerStatuses);
          assert.fail(
            `never: ${what}; ${events.slice(-10).join("; ")}; ${JSON.stringify(statuses)}`,
          );
        }
        await systemClock.sleep(10, testSignal());
      }
    },
    async ready(name) {
      await node.until(`${name} is ready`, () => {
        const { containerStatuses = [] } = node.pod(name)?.status ?? {};
        return containerStatuses.length > 0 && containerStatuses.every(({ ready }) => ready);
      });
    },
    async run(pod, script, container = "main") {
      const uid = node.pod(pod)?.metadata.uid ?? "";
      const record = await fixture.runtime.podRecord(uid, testSignal());
      const found = record.containers.find(({ name }) => name === container);
      const { exitCode, stderr, stdout } = await fixture.runtime.execSync(
        found?.id ?? "",
        ["/bin/busybox", "sh", "-c", script],
        { timeoutMs: 10_000, maxBytes: 1 << 20 },
        testSignal(),
      );
      const text = Buffer.concat([Buffer.from(stdout), Buffer.from(stderr)]).toString("utf8");
      return { exitCode, text: text.trim() };
    },
    async remove(name) {
      const pod = node.pod(name);
      assert(pod !== undefined);
      const root = join(rootDir, "pods", pod.metadata.uid);
      api.put<Pod>(PODS, {
        ...pod,
        metadata: {
          ...pod.metadata,
          deletionTimestamp: "2026-01-01T00:00:00Z",
          deletionGracePeriodSeconds: 1,
        },
      });
      await node.until(`${name} is gone`, () => node.pod(name) === undefined);
      assert.deepEqual(systemMounter.table().below(root), []);
      await node.until(`nothing is left of ${name}`, () => true);
      const left = await readdir(join(rootDir, "pods"));
      assert(!left.includes(pod.metadata.uid), "its directory is left");
    },
    async restart() {
      stop.abort();
      await running;
      start();
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running.catch(() => undefined);
      for (const { path } of systemMounter.table().below(rootDir)) {
        await systemMounter.unmount(path, testSignal());
      }
      await api.close();
      await fixture[Symbol.asyncDispose]();
      await rm(rootDir, { recursive: true, force: true });
    },
  };
  start();
  return node;
}
