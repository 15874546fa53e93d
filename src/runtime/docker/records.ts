import {
  asRecord,
  asString,
  isRecord,
  type JsonRecord,
  optionalNumber,
  optionalString,
  stringMap,
} from "../../lib/guard.ts";
import type {
  ContainerLimits,
  ContainerRecord,
  ContainerState,
  LinuxUser,
  PodRecord,
  SandboxRecord,
} from "../types.ts";
import { label, type Labels } from "./labels.ts";
import { isFullImageName } from "./mounts.ts";

/** One entry of the engine's list: cheap, but without pids, times and exit codes. */
export interface ListedContainer {
  readonly id: string;
  /** `created`, `running`, `paused`, `restarting`, `removing`, `exited`, `dead`. */
  readonly state: string;
  /** The list's prose, for example `Up 2 seconds`, `Exited (1) 3 hours ago`. */
  readonly status: string;
  readonly createdAt: number;
  readonly labels: Labels;
  readonly image: string;
  readonly imageID: string;
  /** Of those that the engine itself shows as volumes. */
  readonly mountedImages: readonly string[];
  readonly networkMode: string;
}

/** What inspect adds. Times are milliseconds since the epoch, 0 for never. */
export interface InspectedContainer {
  readonly id: string;
  readonly status: string;
  readonly pid: number;
  readonly exitCode: number;
  readonly oomKilled: boolean;
  readonly error: string;
  readonly createdAt: number;
  readonly startedAt: number;
  readonly finishedAt: number;
  readonly image: string;
  readonly imageID: string;
  readonly mountedImages: readonly string[];
  readonly labels: Labels;
  readonly networkMode: string;
  /** Empty when the log driver keeps no file, or before the first start. */
  readonly logPath: string;
  readonly limits: ContainerLimits;
  /** `no` unless somebody has changed it. */
  readonly restartPolicy: string;
  /** Its standard input ends with the first client that ends its own. */
  readonly stdinOnce: boolean;
}

/** Milliseconds since the epoch of an RFC 3339 time; 0 for Docker's zero time and for what is none. */
export function parseTime(value: unknown): number {
  if (typeof value !== "string" || value.startsWith("0001-")) return 0;
  const time = Date.parse(value);
  return Number.isFinite(time) ? time : 0;
}

/** Ids of the images that are mounted; each of ours is asked for by its full id at least once. */
function mountedImages(mounts: unknown): readonly string[] {
  if (!Array.isArray(mounts)) return [];
  return mounts.flatMap((mount: unknown) => {
    if (!isRecord(mount) || mount["Type"] !== "image") return [];
    const name = optionalString(mount["Name"]) ?? "";
    return isFullImageName(name) ? [name] : [];
  });
}

/** @throws {ParseError} */
export function parseListed(value: unknown, path = "container"): ListedContainer {
  const entry = asRecord(value, path);
  const host = isRecord(entry["HostConfig"]) ? entry["HostConfig"] : {};
  return {
    id: asString(entry["Id"], `${path}.Id`),
    state: optionalString(entry["State"]) ?? "",
    status: optionalString(entry["Status"]) ?? "",
    createdAt: (optionalNumber(entry["Created"]) ?? 0) * 1000,
    labels: stringMap(entry["Labels"]),
    image: optionalString(entry["Image"]) ?? "",
    imageID: optionalString(entry["ImageID"]) ?? "",
    mountedImages: mountedImages(entry["Mounts"]),
    networkMode: optionalString(host["NetworkMode"]) ?? "",
  };
}

/** @throws {ParseError} */
export function parseInspected(value: unknown, path = "container"): InspectedContainer {
  const entry = asRecord(value, path);
  const state = asRecord(entry["State"], `${path}.State`);
  const config: JsonRecord = isRecord(entry["Config"]) ? entry["Config"] : {};
  const host: JsonRecord = isRecord(entry["HostConfig"]) ? entry["HostConfig"] : {};
  return {
    id: asString(entry["Id"], `${path}.Id`),
    status: optionalString(state["Status"]) ?? "",
    pid: optionalNumber(state["Pid"]) ?? 0,
    exitCode: optionalNumber(state["ExitCode"]) ?? 0,
    oomKilled: state["OOMKilled"] === true,
    error: optionalString(state["Error"]) ?? "",
    createdAt: parseTime(entry["Created"]),
    startedAt: parseTime(state["StartedAt"]),
    finishedAt: parseTime(state["FinishedAt"]),
    image: optionalString(config["Image"]) ?? "",
    imageID: optionalString(entry["Image"]) ?? "",
    mountedImages: mountedImages(entry["Mounts"]),
    labels: stringMap(config["Labels"]),
    stdinOnce: config["StdinOnce"] === true,
    networkMode: optionalString(host["NetworkMode"]) ?? "",
    logPath: optionalString(entry["LogPath"]) ?? "",
    limits: {
      cpuShares: optionalNumber(host["CpuShares"]) ?? 0,
      cpuQuotaMicros: optionalNumber(host["CpuQuota"]) ?? 0,
      memoryLimitBytes: optionalNumber(host["Memory"]) ?? 0,
    },
    restartPolicy: restartPolicyOf(host),
  };
}

function restartPolicyOf(host: JsonRecord): string {
  const policy = host["RestartPolicy"];
  const name = isRecord(policy) ? optionalString(policy["Name"]) : undefined;
  return name === undefined || name === "" ? "no" : name;
}

/** The list's entry for a container whose inspect is at hand. */
export function asListed(inspected: InspectedContainer): ListedContainer {
  return { ...inspected, state: inspected.status, status: "" };
}

/** State of a container whose inspect is at hand. */
export function stateOf(container: InspectedContainer): ContainerState {
  const { createdAt } = container;
  switch (container.status) {
    case "running":
    case "paused":
    case "restarting":
      return {
        kind: "running",
        createdAt,
        startedAt: container.startedAt,
        pid: container.pid,
      };
    case "created":
      // A start that failed leaves "created" with an error text and 126, 127 or 128.
      if (container.error === "" && container.exitCode === 0) return { kind: "created", createdAt };
      return exited(container);
    case "exited":
    // A removal that has begun or got stuck: it has ended, and removing it again is right.
    case "dead":
    case "removing":
      return exited(container);
    default:
      return { kind: "unknown", createdAt };
  }
}

function exited(container: InspectedContainer): ContainerState {
  const { createdAt, startedAt, exitCode, oomKilled, error } = container;
  const finishedAt = container.finishedAt === 0 ? createdAt : container.finishedAt;
  return { kind: "exited", createdAt, startedAt, finishedAt, exitCode, oomKilled, error };
}

/** Attempt label; 0 when it is not a number, as for a container of an unknown layout. */
function attemptOf(labels: Labels): number {
  const attempt = Number(labels[label.attempt]);
  return Number.isSafeInteger(attempt) && attempt >= 0 ? attempt : 0;
}

export function sandboxRecord(
  listed: ListedContainer,
  inspected: InspectedContainer | undefined,
): SandboxRecord {
  const { labels } = listed;
  // The inspect is the later look of the two. A frozen pause process still holds its namespaces.
  const ready = ["running", "paused"].includes(inspected?.status ?? listed.state);
  const pid = inspected?.pid ?? 0;
  // The agent starts a sandbox once: one that has ended before was started by somebody else.
  const restarted = ready && (inspected?.finishedAt ?? 0) > 0;
  return {
    id: listed.id,
    metadata: {
      name: labels[label.podName] ?? "",
      namespace: labels[label.podNamespace] ?? "",
      uid: labels[label.podUID] ?? "",
      attempt: attemptOf(labels),
    },
    ready,
    pid: ready && pid > 0 ? pid : undefined,
    network: listed.networkMode === "host" ? "node" : "pod",
    createdAt: inspected?.createdAt ?? listed.createdAt,
    labels,
    record: labels[label.record] ?? "",
    ...(restarted ? { restarted } : {}),
  };
}

/** As whom the container was started; undefined when its label is missing or of an unknown form. */
function userOf(labels: Labels): LinuxUser | undefined {
  const text = labels[label.user];
  if (text === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    if (!isRecord(value)) return undefined;
    const uid = optionalNumber(value["uid"]);
    const gid = optionalNumber(value["gid"]);
    const groups = value["supplementalGroups"];
    if (uid === undefined || gid === undefined || !Array.isArray(groups)) return undefined;
    return { uid, gid, supplementalGroups: groups.map(Number) };
  } catch {
    return undefined;
  }
}

export function containerRecord(
  listed: ListedContainer,
  inspected: InspectedContainer | undefined,
): ContainerRecord {
  const { labels } = listed;
  return {
    id: listed.id,
    sandboxID: labels[label.sandboxID] ?? "",
    podUID: labels[label.podUID] ?? "",
    podName: labels[label.podName] ?? "",
    podNamespace: labels[label.podNamespace] ?? "",
    name: labels[label.containerName] ?? "",
    attempt: attemptOf(labels),
    state:
      inspected === undefined
        ? { kind: "unknown", createdAt: listed.createdAt, unanswered: true }
        : stateOf(inspected),
    image: inspected?.image ?? listed.image,
    imageID: inspected?.imageID ?? listed.imageID,
    specHash: labels[label.specHash] ?? "",
    labels,
    record: labels[label.record] ?? "",
    ...((inspected?.restartPolicy ?? "no") === "no" ? {} : { engineRestarts: true }),
    limits: inspected?.limits,
    user: userOf(labels),
    ...(listed.mountedImages.length === 0 ? {} : { mountedImages: listed.mountedImages }),
  };
}

/** A list entry with its inspect; undefined when the engine did not answer for this one in time. */
export interface Observed {
  readonly listed: ListedContainer;
  readonly inspected: InspectedContainer | undefined;
}

/** Groups everything by pod uid. Newest attempt first: Created depends on a clock that may step. */
export function podRecords(observed: readonly Observed[]): Map<string, PodRecord> {
  const pods = new Map<string, { sandboxes: SandboxRecord[]; containers: ContainerRecord[] }>();
  for (const { listed, inspected } of observed) {
    const uid = listed.labels[label.podUID] ?? "";
    const type = listed.labels[label.type];
    if (uid === "" || (type !== "podsandbox" && type !== "container")) continue;
    let pod = pods.get(uid);
    if (pod === undefined) pods.set(uid, (pod = { sandboxes: [], containers: [] }));
    if (type === "podsandbox") pod.sandboxes.push(sandboxRecord(listed, inspected));
    else pod.containers.push(containerRecord(listed, inspected));
  }
  const records = new Map<string, PodRecord>();
  for (const [uid, { sandboxes, containers }] of pods) {
    sandboxes.sort((a, b) => b.metadata.attempt - a.metadata.attempt || b.createdAt - a.createdAt);
    containers.sort((a, b) => b.attempt - a.attempt || b.state.createdAt - a.state.createdAt);
    const name = sandboxes[0]?.metadata.name ?? containers[0]?.podName ?? "";
    const namespace = sandboxes[0]?.metadata.namespace ?? containers[0]?.podNamespace ?? "";
    records.set(uid, { uid, name, namespace, sandboxes, containers });
  }
  return records;
}

/**
 * Whether an inspect taken earlier still describes what the list shows, so that it need not be repeated. Catches also
 * a restart by hand between two lists.
 */
export function stillDescribes(
  inspected: InspectedContainer,
  listed: ListedContainer,
  now: number,
): boolean {
  if (inspected.status !== listed.state) return false;
  if (listed.state === "running") {
    const young = /^Up (Less than a second|\d+ seconds?)\b/.test(listed.status);
    return !young || now - inspected.startedAt < 90_000;
  }
  if (listed.state === "exited") {
    return listed.status.startsWith(`Exited (${inspected.exitCode})`);
  }
  // created may become start-failed without a change that the list shows; the rest is rare.
  return false;
}
