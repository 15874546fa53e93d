import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { Stored } from "../../../src/api/object.ts";
import {
  CSI_DRIVERS,
  NODES,
  PERSISTENT_VOLUME_CLAIMS,
  PERSISTENT_VOLUMES,
  PODS,
  VOLUME_ATTACHMENTS,
} from "../../../src/api/resources.ts";
import type {
  CSIDriverSpec,
  Node,
  PersistentVolume,
  PersistentVolumeClaim,
  PersistentVolumeSpec,
  Pod,
  Volume,
} from "../../../src/api/types.gen.ts";
import { type Csi, createCsi } from "../../../src/kubelet/csi/csi.ts";
import { attachmentName, uniqueVolumeName } from "../../../src/kubelet/csi/paths.ts";
import type { AssignedPod, NodeView } from "../../../src/kubelet/types.ts";
import { VolumesInUse } from "../../../src/kubelet/volumes/in-use.ts";
import type {
  PreparedVolume,
  VolumePlugin,
  VolumeSpec,
} from "../../../src/kubelet/volumes/plugin.ts";
import { csiPlugin } from "../../../src/kubelet/volumes/plugins/csi.ts";
import { removeTree } from "../../../src/kubelet/volumes/remove-tree.ts";
import type { TokenWish } from "../../../src/kubelet/volumes/service-account-token.ts";
import { type Clock, systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { type FakeApiServer, startFakeApiServer } from "../../fakes/api-server.ts";
import { FakeCsiDriver, type FakeCsiDriverOptions } from "../../fakes/csi-driver.ts";
import { FakeMounter, type SeenEvent } from "../kubelet-pods/fixture.ts";

export const nodeName = "worker";

/** One run of the agent's half that knows CSI. */
export interface Run {
  readonly csi: Csi;
  readonly plugin: VolumePlugin;
  readonly inUse: VolumesInUse;
  setUp(spec: VolumeSpec, pod: AssignedPod, signal?: AbortSignal): Promise<PreparedVolume>;
  tearDown(spec: VolumeSpec, pod: AssignedPod): Promise<void>;
  /** As a crash does: nothing is undone. */
  stop(): Promise<void>;
}

export interface World {
  readonly api: FakeApiServer;
  readonly rootDir: string;
  readonly mounter: FakeMounter;
  readonly events: SeenEvent[];
  /** `step` is called before every mutating step; one that throws stands for a crash. */
  start(options?: { readonly clock?: Clock; readonly step?: () => void }): Run;
  /** Made of the world's root; its mounts show in the fake mount table. */
  driver(options?: Omit<FakeCsiDriverOptions, "rootDir">): FakeCsiDriver;
  csiDriver(name: string, spec: CSIDriverSpec): void;
  pod(name: string, spec?: Partial<NonNullable<Pod["spec"]>>): AssignedPod;
  /** A claim with the volume that it is bound to. */
  claimed(name: string, change?: Partial<PersistentVolumeSpec>): VolumeSpec;
  node(): Stored<Node>;
  /** What the controllers do: the volume is attached to the node. */
  attach(handle: string, context?: Readonly<Record<string, string>>): void;
  until<T>(what: string, condition: () => T | undefined | false): Promise<T>;
  close(): Promise<void>;
}

export function inlineSpec(name: string, source: NonNullable<Volume["csi"]>): VolumeSpec {
  return { name, volume: { name, csi: source }, readOnly: false };
}

export async function startWorld(): Promise<World> {
  const api = await startFakeApiServer();
  const rootDir = await mkdtemp(join(tmpdir(), "remora-csi-"));
  const mounter = new FakeMounter();
  const events: SeenEvent[] = [];
  const drivers: FakeCsiDriver[] = [];
  const runs: Run[] = [];
  api.put<Node>(NODES, { metadata: { name: nodeName } });
  const node = (): Stored<Node> => {
    const found = api.get<Node>(NODES, nodeName);
    if (found === undefined) throw new Error("there is no node");
    return found;
  };
  const until: World["until"] = async (what, condition) => {
    for (let left = 1000; left > 0; left -= 1) {
      const value = condition();
      if (value !== undefined && value !== false) return value;
      await systemClock.sleep(5, new AbortController().signal);
    }
    throw new Error(`${what}: it did not come to that`);
  };
  return {
    api,
    rootDir,
    mounter,
    events,
    until,
    node,
    start: ({ clock = systemClock, step = () => undefined } = {}) => {
      const run = startRun({ api, rootDir, mounter, events, node, clock, step });
      runs.push(run);
      return run;
    },
    driver: (options = {}) => {
      const driver = new FakeCsiDriver({ mounts: tableMounts(mounter), ...options, rootDir });
      drivers.push(driver);
      return driver;
    },
    csiDriver: (name, spec) => {
      api.put(CSI_DRIVERS, {
        metadata: { name },
        spec: {
          attachRequired: false,
          fsGroupPolicy: "ReadWriteOnceWithFSType",
          volumeLifecycleModes: ["Persistent"],
          ...spec,
        },
      });
    },
    pod: (name, spec = {}) =>
      api.put<Pod>(PODS, {
        metadata: { name, namespace: "default" },
        spec: { nodeName, serviceAccountName: "default", containers: [], ...spec },
      }),
    claimed: (name, change = {}) => {
      const claim = api.put<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS, {
        metadata: { name, namespace: "default" },
        spec: { accessModes: ["ReadWriteOnce"], volumeName: `pv-${name}` },
        status: { phase: "Bound", capacity: { storage: "1Gi" } },
      });
      const volume = api.put<PersistentVolume>(PERSISTENT_VOLUMES, {
        metadata: { name: `pv-${name}` },
        spec: {
          capacity: { storage: "1Gi" },
          accessModes: ["ReadWriteOnce"],
          csi: { driver: "csi.example.test", volumeHandle: `handle-${name}` },
          ...change,
        },
      });
      const source = { name, persistentVolumeClaim: { claimName: name } };
      return { name, volume: source, persistent: { claim, volume }, readOnly: false };
    },
    attach: (handle, context) => {
      const id = { driver: "csi.example.test", handle };
      api.put(VOLUME_ATTACHMENTS, {
        metadata: { name: attachmentName(id, nodeName) },
        spec: { attacher: id.driver, nodeName, source: {} },
        status: { attached: true, ...(context && { attachmentMetadata: context }) },
      });
      const now = node();
      const attached = [{ name: uniqueVolumeName(id), devicePath: "" }];
      api.put<Node>(NODES, { ...now, status: { ...now.status, volumesAttached: attached } });
    },
    close: async () => {
      await Promise.all(runs.map((run) => run.stop()));
      await Promise.all(drivers.map((driver) => driver.stop()));
      await api.close();
      await rm(rootDir, { recursive: true, force: true });
    },
  };
}

/** Shows what a driver does in the fake mount table. */
function tableMounts(mounter: FakeMounter): NonNullable<FakeCsiDriverOptions["mounts"]> {
  return {
    mount: async (volume, target, how, block) => {
      // A device is staged without a mount.
      if (block && how === "stage") return;
      if (block) await writeFile(target, "");
      else await mkdir(target, { recursive: true });
      mounter.mounted.set(target, volume);
    },
    unmount: async (_volume, target, how) => {
      mounter.mounted.delete(target);
      if (how === "publish") await rm(target, { recursive: true, force: true });
    },
  };
}

function startRun(given: {
  readonly api: FakeApiServer;
  readonly rootDir: string;
  readonly mounter: FakeMounter;
  readonly events: SeenEvent[];
  readonly node: () => Stored<Node>;
  readonly clock: Clock;
  readonly step: () => void;
}): Run {
  const { api, clock, events, mounter, rootDir, step } = given;
  const { client } = api;
  const stop = new AbortController();
  const inUse = new VolumesInUse();
  const listeners = new Set<() => void>();
  const view: NodeView = {
    node: given.node,
    hostIPs: () => [],
    subscribe: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  // The node's status follows, as the node half does it.
  const report = (): void => {
    const node = given.node();
    const volumesInUse = inUse.list(node.status?.volumesInUse);
    if (volumesInUse === undefined || stop.signal.aborted) return;
    api.put<Node>(NODES, { ...node, status: { ...node.status, volumesInUse } });
    for (const listener of listeners) listener();
  };
  inUse.subscribe(report);
  const ticking = (async () => {
    while (!stop.signal.aborted) {
      for (const listener of listeners) listener();
      await systemClock.sleep(5, stop.signal).catch(() => undefined);
    }
  })();
  const config = { nodeName, rootDir };
  const shared = { clock, logger: silentLogger, random: () => 0.5, step, mounter };
  const csi = createCsi({ ...shared, config, client, node: view, inUse });
  const running = csi.run(stop.signal);
  const deps = {
    ...shared,
    config,
    client,
    events: {
      event: (...event: [SeenEvent["target"], string, string, string]) => {
        const [target, type, reason, message] = event;
        events.push({ target, type, reason, message });
      },
    },
    tokens: {
      bound: async (pod: AssignedPod, { audience = "" }: TokenWish) => ({
        token: `${pod.metadata.name} for ${audience}`,
        expirationTimestamp: "2999-01-01T00:00:00Z",
      }),
    },
    removeTree,
    programs: {
      run: async (argv: readonly string[]) => ({
        exitCode: 0,
        stdout: argv[0] === "stat" ? "61b0 0 7:1\n" : "",
        stderr: "",
      }),
    },
    sys: join(rootDir, "sys"),
  };
  const plugin = csiPlugin(deps as unknown as Parameters<typeof csiPlugin>[0], csi);
  const pathOf = (spec: VolumeSpec, pod: AssignedPod): { name: string; path: string } => {
    const persistent = spec.persistent?.volume;
    const kind = persistent?.spec?.volumeMode === "Block" ? "volumeDevices" : "volumes";
    const name = persistent?.metadata?.name ?? spec.name;
    const pods = join(rootDir, "pods", pod.metadata.uid);
    return { name, path: join(pods, kind, "kubernetes.io~csi", name) };
  };
  return {
    csi,
    plugin,
    inUse,
    setUp: async (spec, pod, signal = stop.signal) => {
      const { path } = pathOf(spec, pod);
      const addresses = { podIPs: [], hostIPs: [] };
      return plugin.setUp(spec, { pod, addresses, path, signal });
    },
    tearDown: async (spec, pod) => {
      const { name, path } = pathOf(spec, pod);
      await plugin.tearDown?.({ podUID: pod.metadata.uid, name, path }, stop.signal);
      await removeTree(path, stop.signal);
    },
    stop: async () => {
      stop.abort();
      await Promise.all([running, ticking]);
    },
  };
}
