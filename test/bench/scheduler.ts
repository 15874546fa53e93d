// Measures the scheduler: test/bench/scheduler.ts [pods] [nodes]. The pods of a few workloads wait when the scheduler
// starts; it decides and binds through the embedded API server, in one process, with the store on disk. Prints the time
// until the last pod has a node, how long anything else had to wait for the thread meanwhile, and what one decision
// costs; one JSON object on the last line.
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";

import type { ApiClient } from "../../src/api/client.ts";
import { createEventRecorder } from "../../src/api/event-recorder.ts";
import { createAdmission } from "../../src/controlplane/admission/admission.ts";
import { createAuthenticator } from "../../src/controlplane/auth/authenticator.ts";
import { createAuthorizer } from "../../src/controlplane/auth/authorizer.ts";
import { ServiceAccountTokens } from "../../src/controlplane/auth/tokens.ts";
import { createInformers } from "../../src/controlplane/controllers/shared/informers.ts";
import { createApiHandler } from "../../src/controlplane/http/api-handler.ts";
import { createInProcessClient } from "../../src/controlplane/in-process-client.ts";
import { createKinds } from "../../src/controlplane/kinds/kinds.ts";
import { createRegistry } from "../../src/controlplane/registry/create-registry.ts";
import { placePod } from "../../src/controlplane/scheduler/place-pod.ts";
import { podInfo } from "../../src/controlplane/scheduler/pod-info.ts";
import { profiles } from "../../src/controlplane/scheduler/profiles.ts";
import { Scheduler } from "../../src/controlplane/scheduler/scheduler.ts";
import { openStore } from "../../src/controlplane/store/open-store.ts";
import { tokenSigner } from "../../src/controlplane/token-signer.ts";
import type { UserInfo } from "../../src/controlplane/types.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { node, pod } from "../unit/controlplane-controllers/builders.ts";
import { snapshot } from "../unit/controlplane-scheduler/world.ts";

const podCount = Number(process.argv[2] ?? 1000);
const nodeCount = Number(process.argv[3] ?? 50);
const workloads = 20;
const admin: UserInfo = { name: "admin", uid: "", groups: ["system:masters"], extra: {} };
const random = (): number => Math.random();
const now = (): number => Date.now();

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return round(sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)] ?? 0);
}

/** The embedded API server without controllers, and a client in this process. */
function startServer(directory: string): { readonly client: ApiClient; close(): void } {
  const store = openStore({
    path: join(directory, "store.db"),
    ephemeralPath: join(directory, "ephemeral.db"),
    isEphemeral: (resource) => resource === "events",
    now,
  });
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const privateKeyPEM = privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  const tokens = new ServiceAccountTokens({ privateKeyPEM, issuer: "https://bench" });
  const authorizer = createAuthorizer({
    objects: store,
    subscribe: (listener) => store.subscribe(listener),
  });
  const kinds = createKinds({
    serviceCidrs: ["10.43.0.0/16"],
    nodePorts: { first: 30_000, last: 32_767 },
    randomInt: () => 0,
    objects: () => store,
    signToken: tokenSigner(tokens, { audience: "https://bench", uuid: () => randomUUID() }),
    authorizer,
    authenticator: createAuthenticator({ objects: store, tokens, audiences: [], now }),
    rules: { rulesFor: () => ({ resourceRules: [], nonResourceRules: [] }) },
    tokenUser: () => undefined,
  });
  const registry = createRegistry({
    store,
    kinds,
    admission: createAdmission({ randomSuffix: () => "xxxxx" }),
    now,
    uuid: () => randomUUID(),
    random,
  });
  const version = { major: "1", minor: "36", gitVersion: "v1.36.0", gitCommit: "" };
  const built = { gitTreeState: "clean", buildDate: "", goVersion: "", compiler: "", platform: "" };
  const handler = createApiHandler({
    kinds,
    registry,
    authorizer,
    clock: systemClock,
    logger: silentLogger,
    random,
    version: { ...version, ...built },
  });
  return {
    client: createInProcessClient({ handler, user: admin }),
    close: () => store.close(),
  };
}

/** Objects as users and nodes would have made them. */
async function fill(client: ApiClient, signal: AbortSignal): Promise<void> {
  const post = async (path: string, body: object): Promise<unknown> =>
    client.request({ method: "POST", path, body, signal });
  const inDefault = "/api/v1/namespaces/default";
  await post("/api/v1/namespaces", { metadata: { name: "default" } });
  await post(`${inDefault}/serviceaccounts`, { metadata: { name: "default" } });
  for (let index = 0; index < workloads; index += 1)
    await post(`${inDefault}/services`, {
      metadata: { name: `app-${index}` },
      spec: { selector: { app: `app-${index}` }, ports: [{ port: 80 }] },
    });
  for (let index = 0; index < podCount; index += 1) {
    const app = `app-${index % workloads}`;
    await post(`${inDefault}/pods`, {
      metadata: { name: `${app}-${index}`, labels: { app } },
      spec: {
        automountServiceAccountToken: false,
        containers: [{ name: "c", image: "i", resources: { requests: { cpu: "100m" } } }],
      },
    });
  }
  for (let index = 0; index < nodeCount; index += 1) {
    const name = `node-${index}`;
    const labels = {
      "kubernetes.io/hostname": name,
      "topology.kubernetes.io/zone": `zone-${index % 3}`,
    };
    // The taint that keeps pods away until somebody says that the node is ready.
    await post("/api/v1/nodes", { metadata: { name, labels } });
    await client.request({
      method: "PATCH",
      path: `/api/v1/nodes/${name}`,
      body: { spec: { taints: null } },
      contentType: "application/merge-patch+json",
      signal,
    });
    await client.request({
      method: "PATCH",
      path: `/api/v1/nodes/${name}/status`,
      body: { status: { allocatable: { cpu: "16", memory: "64Gi", pods: "110" } } },
      contentType: "application/merge-patch+json",
      signal,
    });
  }
}

/** Seconds until all pods have a node, and the longest waits for the thread, milliseconds. */
async function wholeRun(): Promise<Record<string, number>> {
  const directory = await mkdtemp(join(tmpdir(), "remora-bench-"));
  const abort = new AbortController();
  const { signal } = abort;
  const server = startServer(directory);
  const { client } = server;
  await fill(client, signal);
  const common = { client, clock: systemClock, logger: silentLogger, random };
  const caches = createInformers(common);
  const recorders: Promise<void>[] = [];
  const scheduler = new Scheduler({
    ...common,
    informers: caches.informers,
    recorderFor: (component) => {
      const recorder = createEventRecorder({ ...common, component, host: "" });
      recorders.push(recorder.run(signal));
      return recorder;
    },
  });
  const watching = caches.run(signal);
  const { pods, nodes } = caches.informers;
  await Promise.all([pods.whenSynced(signal), nodes.whenSynced(signal)]);

  const all = Promise.withResolvers<void>();
  const bound = new Map<string, number>();
  const delays = monitorEventLoopDelay({ resolution: 1 });
  const start = performance.now();
  pods.subscribe((change) => {
    if (change.kind !== "deleted" && change.object.spec?.nodeName !== undefined)
      bound.set(change.key, performance.now() - start);
    if (bound.size === podCount) all.resolve();
  });
  delays.enable();
  const running = scheduler.run(signal);
  await all.promise;
  delays.disable();
  const perNode = new Map<string, number>();
  for (const { spec } of pods.values())
    perNode.set(spec?.nodeName ?? "", (perNode.get(spec?.nodeName ?? "") ?? 0) + 1);
  abort.abort();
  await Promise.all([running, watching, ...recorders]);
  server.close();
  await rm(directory, { recursive: true, force: true });
  return {
    all_s: round(Math.max(...bound.values()) / 1000),
    pods_per_s: round(podCount / (Math.max(...bound.values()) / 1000)),
    thread_wait_p99_ms: round(delays.percentile(99) / 1e6),
    thread_wait_max_ms: round(delays.max / 1e6),
    fullest_node: Math.max(...perNode.values()),
    emptiest_node: Math.min(...perNode.values()),
  };
}

/** What one decision costs on a filled cluster, milliseconds, for each profile. */
function decisions(): Record<string, number> {
  const labels = (index: number): Record<string, string> => ({
    "kubernetes.io/hostname": `n${index}`,
    "topology.kubernetes.io/zone": `zone-${index % 3}`,
  });
  const spec = { containers: [{ name: "c", image: "i", resources: { requests: { cpu: "10m" } } }] };
  const world = snapshot({
    nodes: Array.from({ length: nodeCount }, (_, index) => ({
      name: `n${index}`,
      labels: labels(index),
    })),
    pods: Array.from({ length: podCount }, (_, index) =>
      pod({
        name: `p${index}`,
        labels: { app: `app-${index % workloads}` },
        spec: { ...spec, nodeName: node({ name: `n${index % nodeCount}` }).metadata.name },
      }),
    ),
    workload: { app: "app-1" },
  });
  const out: Record<string, number> = {};
  for (const profile of profiles) {
    const times: number[] = [];
    for (let round = 0; round < 300; round += 1) {
      const what = podInfo(pod({ labels: { app: "app-1" }, spec }));
      const start = performance.now();
      placePod(what, world, profile, { random, previous: undefined });
      times.push(performance.now() - start);
    }
    out[`${profile.name}_p50_ms`] = quantile(times, 0.5);
    out[`${profile.name}_p99_ms`] = quantile(times, 0.99);
  }
  return out;
}

const result = {
  pods: podCount,
  nodes: nodeCount,
  load: round(loadavg()[0] ?? 0),
  ...(await wholeRun()),
  ...decisions(),
};
for (const [name, value] of Object.entries(result))
  process.stdout.write(`${name.padEnd(28)} ${value}\n`);
process.stdout.write(`${JSON.stringify(result)}\n`);
