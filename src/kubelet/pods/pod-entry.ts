import type { WaitingReason } from "../status/container-status.ts";
import type { PodVerdict } from "../status/compute-status.ts";
import type { ContainerRecord, PodRecord } from "../../runtime/types.ts";
import type { Allocation } from "../spec/resize.ts";
import type { ResizePending } from "../status/conditions.ts";
import type { LimitsUpdate } from "../status/observed.ts";
import type { Reference } from "../objects/referenced-objects.ts";
import type { AssignedPod } from "../types.ts";
import { FailureLog } from "./failure-log.ts";

/**
 * What is remembered of one pod between two looks. All of it may be lost: timers and hints, no facts. Written only by
 * the pod's own loop and by the source.
 */
export interface PodEntry {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  /** As the API last told; undefined for a pod that only the runtime or the disk still knows. */
  pod: AssignedPod | undefined;
  /** The API does not have it any more. */
  removed: boolean;
  /** Milliseconds since the epoch. */
  readonly seenAt: number;
  admitted: boolean;
  /** Nothing of it will be started any more. One-way. */
  ending: boolean;
  /** Why it ends, when its own containers are not the reason. */
  verdict: PodVerdict | undefined;
  /** Its sandbox, network and volumes are down. */
  tornDown: boolean;
  /** When the API server was last told to forget the pod; monotonic milliseconds. */
  deletionSentAt: number | undefined;
  /** Seconds in force for stopping; only shrinks. */
  graceSeconds: number | undefined;
  /** Volume content may be out of date. */
  volumesStale: boolean;
  /** Objects that have changed since, by kind and name; the volumes that show them are out of date. */
  readonly changed: Map<string, Reference>;
  /** Called besides, when the pod is woken while its containers are being stopped. */
  woken: (() => void) | undefined;
  /** Somebody has asked for a look; a change of objects alone is not one. */
  lookWanted: boolean;
  /** When the next look is due, monotonic milliseconds. */
  lookAt: number;
  /** When it was last made current; monotonic milliseconds. Tokens and missed changes make it age. */
  volumesAt: number;
  /** When a token in them is to be refreshed, milliseconds since the epoch. */
  volumesDueAt: number | undefined;
  /** Of which containers and log files the logs were kept last; see KeptLogs. */
  keptLogs: string;
  /** What the last look found in the runtime; a relist that finds the same wakes nobody. */
  fingerprint: string;
  /** Failures in a row, for the wait before the next try. */
  failures: number;
  /** What was said about why. */
  readonly failureLog: FailureLog;
  /** Why containers do not run, by name. */
  readonly waiting: Map<string, WaitingReason>;
  /** Containers whose postStart hook runs, by id. */
  readonly starting: Set<string>;
  /** preStop hooks that were begun, by container id; never reject. */
  readonly preStops: Map<string, RunningHook>;
  /** Termination messages by container id. */
  readonly messages: Map<string, string>;
  /** How containers last ended, by name; undefined before the first look. */
  ended: Map<string, ContainerRecord> | undefined;
  /** Cpu and memory that the containers were granted; undefined before the first look. */
  allocation: Allocation | undefined;
  /** Why the spec asks for more than that. */
  resizePending: ResizePending | undefined;
  /** Granted resources are still being applied. */
  resizing: boolean;
  resizeError: string | undefined;
  /** Last updates of limits that are not in force yet, by container id. */
  readonly updated: Map<string, LimitsUpdate>;
  /** Aborts the look in progress; its work is then looked at anew. */
  interrupt: AbortController;
}

/** A hook that goes on while the pod is looked at anew, because its grace was shortened. */
export interface RunningHook {
  /** Resolves when it is through, however it went. */
  readonly done: Promise<void>;
  /** Ends it before it is through. */
  readonly limit: AbortController;
}

export function newPodEntry(
  identity: { readonly uid: string; readonly namespace: string; readonly name: string },
  seenAt: number,
): PodEntry {
  return {
    ...identity,
    pod: undefined,
    removed: false,
    seenAt,
    admitted: false,
    ending: false,
    verdict: undefined,
    tornDown: false,
    deletionSentAt: undefined,
    graceSeconds: undefined,
    volumesStale: true,
    changed: new Map(),
    woken: undefined,
    lookWanted: true,
    lookAt: 0,
    volumesAt: 0,
    volumesDueAt: undefined,
    keptLogs: "",
    fingerprint: "",
    failures: 0,
    failureLog: new FailureLog(),
    waiting: new Map(),
    starting: new Set(),
    preStops: new Map(),
    messages: new Map(),
    ended: undefined,
    allocation: undefined,
    resizePending: undefined,
    resizing: false,
    resizeError: undefined,
    updated: new Map(),
    interrupt: new AbortController(),
  };
}

/** Identifies what the runtime holds of a pod and in which state; empty when it holds nothing. */
export function fingerprintOf(record: PodRecord): string {
  const sandboxes = record.sandboxes.map(({ id, ready }) => `${id}=${ready}`);
  const containers = record.containers.map(({ id, state }) => `${id}=${state.kind}`);
  return [...sandboxes, ...containers].join(" ");
}
