import { open } from "node:fs/promises";

import type { PodStatus } from "../../api/types.gen.ts";
import { errorCode } from "../../lib/errors.ts";
import { isRecord, optionalString } from "../../lib/guard.ts";
import type { ContainerRecord, PodRecord } from "../../runtime/types.ts";
import { findPodContainer } from "../spec/containers.ts";
import { parseContainerNote } from "../spec/records.ts";
import { allocatedPod, resizeMessage } from "../spec/resize.ts";
import { podStart } from "../stats/pod-start.ts";
import { computeStatus } from "../status/compute-status.ts";
import type { CrashLoopCurve, ObservedPod } from "../status/observed.ts";
import { isResizing } from "../status/resizing.ts";
import { crashLoopCurve, newestSandbox } from "../status/observed.ts";
import type { AssignedPod } from "../types.ts";
import { podTarget } from "./event-target.ts";
import type { PodDeps } from "./pod-deps.ts";
import { fingerprintOf, type PodEntry } from "./pod-entry.ts";
import type { ProbeTarget } from "./probe-types.ts";
import { recallEnds, rememberEnds } from "./remember-ends.ts";

const maxMessageBytes = 4096;
const maxLogBytes = 2048;
const maxLogLines = 80;
const maxPodMessageBytes = 12 * 1024;

async function readPart(path: string, bytes: number, fromEnd: boolean): Promise<string> {
  try {
    const file = await open(path, "r");
    try {
      const { size } = await file.stat();
      const length = Math.min(size, bytes);
      const buffer = Buffer.alloc(length);
      await file.read(buffer, 0, length, fromEnd ? size - length : 0);
      return buffer.toString("utf8");
    } finally {
      await file.close();
    }
  } catch (error) {
    if (errorCode(error) === "ENOENT") return "";
    throw error;
  }
}

/** The text of the last lines of an engine log file: one JSON object per line. */
function logText(tail: string): string {
  const lines = tail.split("\n").flatMap((line) => {
    try {
      const value: unknown = JSON.parse(line);
      return isRecord(value) ? [optionalString(value["log"]) ?? ""] : [];
    } catch {
      // The first line of a tail is usually torn.
      return [];
    }
  });
  return lines.slice(-maxLogLines).join("").slice(-maxLogBytes);
}

async function terminationMessage(
  deps: PodDeps,
  record: ContainerRecord,
  limit: number,
  signal: AbortSignal,
): Promise<string> {
  const note = parseContainerNote(record.record);
  if (record.state.kind !== "exited" || record.state.startedAt === 0) return "";
  const text =
    note.terminationMessageFile === ""
      ? ""
      : await readPart(note.terminationMessageFile, Math.min(limit, maxMessageBytes), false);
  const wantsLog = note.terminationMessagePolicy === "FallbackToLogsOnError";
  if (text !== "" || !wantsLog || record.state.exitCode === 0) return text;
  const path = await deps.runtime.containerLogPath(record.id, signal);
  return path === undefined ? "" : logText(await readPart(path, maxLogBytes * 8, true));
}

function curveOf({ config }: PodDeps): CrashLoopCurve {
  return crashLoopCurve(config.maxContainerRestartPeriodMs);
}

function endsOf(
  deps: PodDeps,
  entry: PodEntry,
  record: PodRecord,
): ReadonlyMap<string, ContainerRecord> {
  const first = entry.ended === undefined;
  const ends = (entry.ended ??= new Map<string, ContainerRecord>());
  rememberEnds(ends, record);
  const { pod } = entry;
  if (first && pod !== undefined) {
    recallEnds(ends, pod, deps.writer.current(entry.uid) ?? {}, curveOf(deps));
  }
  return ends;
}

function isBehind({ cgroups }: PodDeps, { allocation, pod, resizing }: PodEntry): boolean {
  return resizing && pod !== undefined && !cgroups.isCurrent(allocatedPod(pod, allocation));
}

/** One look at the pod through the runtime, the network and the prober. */
export async function observePod(
  deps: PodDeps,
  entry: PodEntry,
  signal: AbortSignal,
): Promise<ObservedPod> {
  const record = await deps.runtime.podRecord(entry.uid, signal);
  entry.fingerprint = fingerprintOf(record);
  const ended = endsOf(deps, entry, record);
  const count = Math.max((entry.pod?.spec?.containers ?? []).length, 1);
  for (const container of record.containers) {
    if (container.state.kind !== "exited" || entry.messages.has(container.id)) continue;
    if (entry.pod !== undefined) await deps.keptLogs.keep(entry.pod, [container]);
    const limit = Math.floor(maxPodMessageBytes / count);
    entry.messages.set(container.id, await terminationMessage(deps, container, limit, signal));
  }
  return {
    record,
    addresses: (sandboxID) => deps.network.addresses(sandboxID),
    disconnected: (sandboxID) => deps.network.isIntact?.(sandboxID) === false,
    hostIPs: deps.node.hostIPs(),
    probes: deps.prober,
    starting: entry.starting,
    updated: entry.updated,
    ended,
    crashLoop: curveOf(deps),
    cgroupBehind: isBehind(deps, entry),
    now: deps.clock.now(),
  };
}

/** How the API shows the images of these containers. */
async function imageRefs(
  deps: PodDeps,
  record: PodRecord,
  known: Map<string, string>,
  signal: AbortSignal,
): Promise<void> {
  for (const { imageID } of record.containers) {
    if (imageID === "" || known.has(imageID)) continue;
    const image = await deps.images.imageStatus(imageID, signal);
    const [digest] = image?.digests ?? [];
    known.set(
      imageID,
      digest === undefined ? `docker://${imageID}` : `docker-pullable://${digest}`,
    );
  }
}

/** Image references by image id; images are few and never change, so this only grows with them. */
const maxImageRefs = 1000;

/** Computes the status of what was observed and hands it to the writer. */
export async function publishStatus(
  deps: PodDeps,
  entry: PodEntry,
  pod: AssignedPod,
  view: {
    readonly observed: ObservedPod;
    readonly terminating: boolean;
    readonly refs: Map<string, string>;
  },
  signal: AbortSignal,
): Promise<PodStatus> {
  const { observed, refs, terminating } = view;
  if (refs.size > maxImageRefs) refs.clear();
  await imageRefs(deps, observed.record, refs, signal);
  syncProbes(deps, pod, observed, terminating);
  const status = computeStatus({
    pod,
    observed,
    waiting: entry.waiting,
    messages: entry.messages,
    imageRefs: refs,
    terminating,
    old: deps.writer.current(entry.uid) ?? pod.status ?? {},
    verdict: entry.verdict,
    resizePending: entry.resizePending,
    resizeError: entry.resizeError,
    seenAt: entry.seenAt,
  });
  noteStart(deps, entry, pod, status);
  noteResize(deps, entry, pod, observed);
  deps.writer.publish(pod, status);
  return status;
}

/** Counts how long the pod took to run; one that ran before this process did is not counted. */
function noteStart(deps: PodDeps, entry: PodEntry, pod: AssignedPod, status: PodStatus): void {
  const { clock, metrics, writer } = deps;
  const before = writer.current(entry.uid) ?? pod.status;
  if (metrics === undefined || status.phase !== "Running" || before?.phase === "Running") return;
  const times = { seenAtMs: entry.seenAt, nowMs: clock.now() };
  metrics.pods.started(podStart(pod, status, metrics.runtime.pulls(), times));
}

/** Tells once when granted resources are in force. */
function noteResize(deps: PodDeps, entry: PodEntry, pod: AssignedPod, observed: ObservedPod): void {
  const resizing = isResizing(pod, observed);
  if (entry.resizing && !resizing && !entry.ending) {
    entry.resizeError = undefined;
    const message = resizeMessage("Pod resize completed", pod);
    deps.events.event(podTarget(pod), "Normal", "ResizeCompleted", message);
  }
  if (!resizing) entry.updated.clear();
  entry.resizing = resizing;
}

function syncProbes(
  deps: PodDeps,
  pod: AssignedPod,
  observed: ObservedPod,
  terminating: boolean,
): void {
  const sandbox = newestSandbox(observed.record);
  const own = sandbox === undefined ? undefined : observed.addresses(sandbox.id)?.[0];
  // A program in the node's network is no worse for a cable that is out.
  const hostIP = deps.node.addressLost?.() === true ? undefined : observed.hostIPs[0];
  const podIP = own ?? hostIP ?? "127.0.0.1";
  const { containerStatuses = [], initContainerStatuses = [] } =
    deps.writer.current(pod.metadata.uid) ?? pod.status ?? {};
  const known = new Map(
    [...containerStatuses, ...initContainerStatuses].map((each) => [
      each.containerID,
      each.started,
    ]),
  );
  const targets = observed.record.containers.flatMap((record): readonly ProbeTarget[] => {
    const entry = findPodContainer(pod, record.name);
    if (record.state.kind !== "running" || observed.starting.has(record.id)) return [];
    if (entry === undefined || entry.role === "init" || entry.role === "ephemeral") return [];
    const { startedAt } = record.state;
    const started = known.get(`docker://${record.id}`) === true;
    return [{ pod, entry, containerID: record.id, startedAt, podIP, started }];
  });
  deps.prober.sync(pod.metadata.uid, targets, terminating);
}
