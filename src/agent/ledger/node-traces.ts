import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";

import { agentDefaults } from "../../config/agent-config.ts";
import { systemClock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import { namesIn } from "../../lib/names-in.ts";
import { cleanUpProxy, leftOfProxy } from "../../proxy/cleanup.ts";
import { findOtherProxy } from "../../proxy/other-proxy.ts";
import { createDockerRuntime } from "../../runtime/docker/runtime.ts";
import type { ContainerRuntime, ImageService } from "../../runtime/types.ts";
import { machineLockHolder } from "../instance-lock.ts";
import { joinedFiles } from "../join/credential-files.ts";
import { ownLoopDevices, ownSessions } from "../own-disks.ts";
import {
  ownAttachments,
  ownCgroups,
  ownContainers,
  ownDirectories,
  ownFiles,
  ownImages,
  ownInterfaces,
  ownLogs,
  ownMounts,
  ownNetworkRules,
  type OwnResource,
  ownRoutes,
} from "../own-resources.ts";
import { readPlaces } from "../places.ts";
import { createPodNetwork } from "../pod-network.ts";
import { invokingUser, kubeconfigPath } from "../user-kubeconfig.ts";
import { engineContainers } from "./engine-list.ts";
import { type Change, ledgerPath, readLedger } from "./ledger.ts";
import { kernelIdentity, ownSettings } from "./machine-settings.ts";
import { kubeconfigsOf, ownKubeconfigs } from "./own-kubeconfigs.ts";
import { pulledImages } from "./pulled-images.ts";
import { markerPath } from "./state-marker.ts";
import { isStateName, recordNames, setupLedgerName, type StateMode } from "./state-names.ts";

const bridge = "remora0";

/** A node whose traces are removed. */
export interface NodeOfDirectory {
  readonly mode: StateMode;
  /** `--state-dir` or `--root-dir` */
  readonly directory: string;
  readonly rootDir: string;
  readonly nodeName: string;
  /** Undefined: the engine is gone for good, and its containers with it. */
  readonly dockerSocket: string | undefined;
  readonly places: Awaited<ReturnType<typeof readPlaces>>;
  readonly changes: readonly Change[];
  /** The directory is somebody else's: nothing in it is looked at. */
  readonly foreign?: boolean;
}

/** What is known of the node of a directory; the usual values where nothing was written down. */
export async function nodeOf(
  mode: StateMode,
  directory: string,
  given: {
    readonly hostnameOverride?: string;
    readonly dockerSocket?: string;
    readonly withoutEngine?: boolean;
  },
): Promise<NodeOfDirectory> {
  const rootDir = mode === "up" ? join(directory, "kubelet") : directory;
  const places = await readPlaces(rootDir);
  return {
    mode,
    directory,
    rootDir,
    places,
    nodeName: (given.hostnameOverride ?? places.nodeName ?? hostname()).toLowerCase(),
    dockerSocket:
      given.withoutEngine === true
        ? undefined
        : (given.dockerSocket ?? places.dockerSocket ?? agentDefaults.dockerSocket),
    changes: await readLedger(ledgerPath(directory)),
  };
}

export interface RemovalChoices {
  /** Also the data of claims. */
  readonly deleteVolumes: boolean;
  /** Also images that pods made this node pull. */
  readonly deleteImages: boolean;
}

/** Everything of one node, in the order in which it is removed. */
export interface NodeTraces {
  readonly resources: readonly OwnResource[];
  /** What a later try needs to finish: removed when nothing of the others is left. */
  readonly records: readonly OwnResource[];
  /** What stays on purpose, one sentence each. */
  readonly kept: readonly string[];
}

/** The engine as a removal sees it. */
export type Engine = Pick<
  ContainerRuntime,
  "snapshot" | "stopContainer" | "removeContainer" | "stopPodSandbox" | "removePodSandbox"
> &
  Pick<ImageService, "listImages" | "removeImage"> & {
    connect(signal: AbortSignal): Promise<unknown>;
  };

/** One that is gone has nothing, and is asked for nothing. */
const absentEngine: Engine = {
  connect: () => Promise.resolve(),
  snapshot: () => Promise.resolve(new Map()),
  listImages: () => Promise.resolve([]),
  stopContainer: () => Promise.resolve(),
  removeContainer: () => Promise.resolve(),
  stopPodSandbox: () => Promise.resolve(),
  removePodSandbox: () => Promise.resolve(),
  removeImage: () => Promise.resolve(),
};

export function engineOf(node: NodeOfDirectory, logger: Logger): Engine {
  const { podLogsDir, containerLogsDir } = node.places;
  if (node.dockerSocket === undefined) return absentEngine;
  return createDockerRuntime({
    socketPath: node.dockerSocket,
    nodeName: node.nodeName,
    podLogsDir,
    containerLogsDir,
    clock: systemClock,
    logger,
    random: () => 0,
  });
}

/** Looks at the machine for what a node left. `runtime` is connected. */
export async function tracesOf(
  node: NodeOfDirectory,
  choices: RemovalChoices,
  { runtime, logger }: { readonly runtime: Engine; readonly logger: Logger },
  signal: AbortSignal,
): Promise<NodeTraces> {
  const { rootDir, places, changes } = node;
  const network = createPodNetwork({
    config: { rootDir, clusterCIDRs: [], podNetwork: "bridge", proxy: agentDefaults.proxy },
    bridge: { bridgeName: bridge },
    clock: systemClock,
    logger,
  });
  const uids = new Set([
    ...(await namesIn(join(rootDir, "pods"))),
    ...(await runtime.snapshot(signal)).keys(),
  ]);
  const files = await filesOf(node, choices);
  const inUse = async (inner: AbortSignal): Promise<ReadonlySet<string>> => {
    const all = await engineContainers(node.dockerSocket, inner);
    return new Set(all.flatMap((each) => (each.node === node.nodeName ? [] : [each.imageID])));
  };
  const pulled = choices.deleteImages ? [pulledImages(rootDir, runtime, inUse)] : [];
  return {
    resources: [
      ownContainers(runtime),
      ownNetworkRules(network, {
        cleanUp: (inner) => cleanUpProxy(inner),
        left: (inner) => leftOfProxy(inner, findAnothersProxy),
      }),
      ownAttachments(attachmentsOf(rootDir)),
      ownRoutes(),
      ownInterfaces(bridge),
      ownLoopDevices(rootDir),
      ownMounts(rootDir),
      ownSessions(rootDir, logger),
      ownCgroups(places.cgroupRoot),
      ownLogs({
        podLogsDir: places.podLogsDir,
        containerLogsDir: places.containerLogsDir,
        isOurs: (name) => uids.has(name.slice(name.lastIndexOf("_") + 1)),
      }),
      ownImages(runtime),
      ...pulled,
      ownSettings(changes, await kernelIdentity()),
      ...(node.mode === "up" ? [ownKubeconfigs(await kubeconfigs(changes))] : []),
      ownFiles(files.paths),
      ownDirectories(files.directories, files.paths),
    ],
    records: [
      ownFiles(files.records, "records"),
      ownDirectories(files.inner, files.records, "root directory"),
      // Last: without it nobody could tell that what is left is ours.
      ownFiles(files.marker, "marker"),
      ownDirectories(
        files.around,
        [...files.records, ...files.inner, ...files.marker],
        "state directory",
      ),
    ],
    kept: [...files.kept, ...modules(changes)],
  };
}

/** Who looks is not the agent: while that runs, its rules are ours all the same. */
async function findAnothersProxy(signal: AbortSignal): Promise<string | undefined> {
  const agent = await machineLockHolder();
  return findOtherProxy(signal, agent?.pid);
}

async function kubeconfigs(changes: readonly Change[]): Promise<ReturnType<typeof kubeconfigsOf>> {
  const user = invokingUser(await readFile("/etc/passwd", "utf8"), process.env);
  return kubeconfigsOf(changes, { path: kubeconfigPath(user, process.env), user });
}

function modules(changes: readonly Change[]): readonly string[] {
  return changes.flatMap((change) =>
    change.kind === "module"
      ? [`the kernel module ${change.name} stays loaded until the machine starts again`]
      : [],
  );
}

function attachmentsOf(rootDir: string): string {
  return join(rootDir, "network/cni/results");
}

/** Directories in which CSI drivers keep what is theirs. */
const sharedWithDrivers = ["plugins", "plugins_registry"];

interface NodeFiles {
  readonly paths: readonly string[];
  readonly directories: readonly string[];
  /** Removed last, in this order. */
  readonly records: readonly string[];
  readonly inner: readonly string[];
  readonly marker: readonly string[];
  readonly around: readonly string[];
  readonly kept: readonly string[];
}

async function filesOf(node: NodeOfDirectory, choices: RemovalChoices): Promise<NodeFiles> {
  const { mode, directory, rootDir } = node;
  if (node.foreign === true) {
    const kept = [`${directory} is not remora's and stays`];
    return { paths: [], directories: [], records: [], inner: [], marker: [], around: [], kept };
  }
  const volumesDir = join(directory, mode === "up" ? "volumes" : "local-volumes");
  const volumes = choices.deleteVolumes ? [] : await namesIn(volumesDir);
  const kept =
    volumes.length === 0
      ? []
      : [
          `the data of claims (${volumes.length}) stays in ${volumesDir}; --delete-volumes removes it`,
        ];
  const network = join(rootDir, "network");
  const stays = kept.length === 0 ? undefined : volumesDir;
  const files = mode === "up" ? await upFiles(directory) : await runFiles(node);
  // Plug-ins that fail today may let go of what they hold tomorrow, as long as somebody knows of it.
  const attachments = (await namesIn(attachmentsOf(rootDir))).length === 0 ? [] : [network];
  const records = new Set([
    ...attachments,
    join(rootDir, "places.json"),
    ...recordNames.map((name) => join(directory, name)),
  ]);
  const marker = markerPath(directory);
  const foreign = await foreignIn(mode, directory);
  return {
    paths: files.paths.filter((path) => path !== stays && !records.has(path) && path !== marker),
    directories: files.directories,
    records: [...records].filter((path) => path !== marker),
    inner: mode === "up" ? [rootDir] : [],
    marker: [marker],
    around: [directory],
    kept: [...kept, ...foreign],
  };
}

async function upFiles(directory: string): Promise<Pick<NodeFiles, "paths" | "directories">> {
  const names = (await namesIn(directory)).filter(
    (name) => isStateName("up", name) && !["kubelet", "lost+found", setupLedgerName].includes(name),
  );
  const rootDir = join(directory, "kubelet");
  const below = (await namesIn(rootDir)).map((name) => join(rootDir, name));
  return { paths: [...names.map((name) => join(directory, name)), ...below], directories: [] };
}

async function runFiles({
  rootDir,
  places,
}: NodeOfDirectory): Promise<Pick<NodeFiles, "paths" | "directories">> {
  const certDir = places.certDir ?? join(rootDir, "pki");
  const names = (await namesIn(rootDir)).filter((name) => isStateName("run", name));
  const joined = await joinedFiles(rootDir, places.certDir);
  return {
    paths: [
      ...names.map((name) => join(rootDir, name)),
      join(rootDir, "plugins/kubernetes.io"),
      ...["kubelet.crt", "kubelet.key"].map((name) => join(certDir, name)),
      // The kubeconfig last: it tells that the CA beside it is ours.
      ...joined.slice(1),
      ...joined.slice(0, 1),
    ],
    // Sockets of CSI drivers in the last two are the drivers' own.
    directories: [certDir, ...sharedWithDrivers.map((name) => join(rootDir, name))],
  };
}

/** What others put into a directory that is ours; in one that is not, everybody's things are expected. */
async function foreignIn(mode: StateMode, directory: string): Promise<readonly string[]> {
  if (mode === "run") return [];
  const foreign = (await namesIn(directory)).filter((name) => !isStateName(mode, name));
  return foreign.map((name) => `${join(directory, name)} is not remora's and stays`);
}
