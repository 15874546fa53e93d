import type { ApiClient } from "../../api/client.ts";
import { isConflict, isNotFound } from "../../api/errors.ts";
import { parseStored, type Stored } from "../../api/object.ts";
import { objectPath } from "../../api/resource.ts";
import { PODS } from "../../api/resources.ts";
import type { Pod, PodStatus } from "../../api/types.gen.ts";
import { jitteredBackoffMs } from "../../lib/backoff.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import { KeyedQueue } from "../../lib/keyed-queue.ts";
import type { Logger } from "../../lib/log.ts";
import { isTerminalPhase } from "../spec/containers.ts";
import type { PodMetrics } from "../stats/pod-metrics.ts";
import type { StepHook } from "../steps.ts";
import type { AssignedPod } from "../types.ts";
import { statusPatch } from "./status-patch.ts";

export interface StatusWriterOptions {
  readonly client: ApiClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
  readonly step: StepHook;
  readonly signal: AbortSignal;
  /** Called after each successful write, with the object as the server then has it. */
  readonly onWritten: (pod: AssignedPod) => void;
  readonly metrics?: Pick<PodMetrics, "statusWritten">;
  /** Called when the write for this uid finds that the pod is gone. */
  readonly onGone: (uid: string) => void;
}

interface Entry {
  readonly namespace: string;
  readonly name: string;
  /** The status as the server has it, as far as we know. */
  base: PodStatus;
  resourceVersion: string;
  wanted: PodStatus | undefined;
  /** Since when something is wanted; monotonic milliseconds. */
  wantedSince: number;
  /** The patch, as text, that the server last took without storing it. */
  ignored: string | undefined;
  failures: number;
}

/** How long a status waits that says no more than that the pod is being made. */
const progressMs = 1000;
const progressReasons: ReadonlySet<string> = new Set(["ContainerCreating", "PodInitializing"]);

/**
 * The only writer of pod status. Per pod the latest status wins; equal ones cost nothing; failures are retried for as
 * long as the pod exists. A terminal phase is never followed by another one.
 */
export class StatusWriter {
  readonly #options: StatusWriterOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #queue: KeyedQueue;

  constructor(options: StatusWriterOptions) {
    this.#options = options;
    this.#queue = new KeyedQueue({
      work: (uid) => this.#write(uid),
      onError: (uid, error) => this.#retry(uid, error),
      concurrency: 8,
      clock: options.clock,
      signal: options.signal,
    });
  }

  /** The status last asked for, else last known to be on the server; undefined for an unknown pod. */
  current(uid: string): PodStatus | undefined {
    const entry = this.#entries.get(uid);
    return entry?.wanted ?? entry?.base;
  }

  /** True when the server has everything that was asked for. */
  isWritten(uid: string): boolean {
    return this.#entries.get(uid)?.wanted === undefined;
  }

  /** Takes over what the server holds: call with every change of the pod, before {@link publish}. */
  observe(pod: AssignedPod): void {
    const { uid, name, namespace = "" } = pod.metadata;
    const { resourceVersion } = pod.metadata;
    const base = pod.status ?? {};
    const entry = this.#entries.get(uid);
    if (entry === undefined) {
      const fresh = {
        namespace,
        name,
        base,
        resourceVersion,
        wanted: undefined,
        wantedSince: 0,
        ignored: undefined,
        failures: 0,
      };
      this.#entries.set(uid, fresh);
    } else if (entry.wanted === undefined && isNewer(resourceVersion, entry.resourceVersion)) {
      entry.base = base;
      entry.resourceVersion = resourceVersion;
    }
  }

  /** Asks for `status` to be written. Does not wait. */
  publish(pod: AssignedPod, status: PodStatus): void {
    this.observe(pod);
    const { uid } = pod.metadata;
    const entry = this.#entries.get(uid);
    if (entry === undefined) return;
    const known = entry.wanted ?? entry.base;
    if (isTerminalPhase(known.phase) && known.phase !== status.phase) return;
    const patch = statusPatch(uid, known, status);
    if (patch === undefined || JSON.stringify(patch) === entry.ignored) return;
    if (entry.wanted === undefined) entry.wantedSince = this.#options.clock.monotonic();
    entry.wanted = status;
    if (isOnlyProgress(entry.base, status)) this.#queue.addAfter(uid, progressMs);
    else this.#queue.add(uid);
  }

  /** Drops the pod; a write in flight ends by itself. */
  forget(uid: string): void {
    this.#entries.delete(uid);
    this.#queue.forget(uid);
  }

  /** Resolves when nothing is being written. */
  async idle(): Promise<void> {
    await this.#queue.idle();
  }

  async #write(uid: string): Promise<void> {
    const entry = this.#entries.get(uid);
    const wanted = entry?.wanted;
    if (entry === undefined || wanted === undefined) return;
    const body = statusPatch(uid, entry.base, wanted);
    if (body === undefined) {
      entry.wanted = undefined;
      return;
    }
    await this.#options.step("writeStatus");
    this.#options.logger.log("debug", "pod status changes", {
      podUID: uid,
      pod: `${entry.namespace}/${entry.name}`,
      fields: Object.keys(body["status"] ?? {}).join(" "),
    });
    try {
      const answer = await this.#options.client.request({
        method: "PATCH",
        path: objectPath(PODS, entry, "status"),
        contentType: "application/strategic-merge-patch+json",
        body,
        signal: this.#options.signal,
      });
      this.#written(entry, wanted, parseStored<Pod>(answer));
    } catch (error) {
      if (!(await this.#isGone(uid, entry, error))) throw error;
      this.forget(uid);
      this.#options.onGone(uid);
    }
  }

  /** Gone, or another pod has its name: a foreign uid is refused with 409, but so is a busy object. */
  async #isGone(uid: string, entry: Entry, error: unknown): Promise<boolean> {
    if (isNotFound(error)) return true;
    if (!isConflict(error)) return false;
    const { client, signal } = this.#options;
    try {
      const answer = await client.request({ method: "GET", path: objectPath(PODS, entry), signal });
      return parseStored<Pod>(answer).metadata.uid !== uid;
    } catch (failure) {
      if (isNotFound(failure)) return true;
      throw failure;
    }
  }

  #written(entry: Entry, wanted: PodStatus, pod: Stored<Pod>): void {
    entry.base = pod.status ?? {};
    entry.resourceVersion = pod.metadata.resourceVersion;
    entry.failures = 0;
    const { clock, metrics } = this.#options;
    metrics?.statusWritten((clock.monotonic() - entry.wantedSince) / 1000);
    this.#noteIgnored(entry, statusPatch(pod.metadata.uid, entry.base, wanted));
    if (entry.wanted === wanted) entry.wanted = undefined;
    else {
      entry.wantedSince = clock.monotonic();
      this.#queue.add(pod.metadata.uid);
    }
    this.#options.onWritten(pod);
  }

  /** What a server takes without storing it must not be sent again and again. */
  #noteIgnored(entry: Entry, rest: Readonly<Record<string, unknown>> | undefined): void {
    const ignored = rest === undefined ? undefined : JSON.stringify(rest);
    if (ignored !== undefined && ignored !== entry.ignored) {
      this.#options.logger.log("warn", "the server did not store all of a pod's status", {
        pod: `${entry.namespace}/${entry.name}`,
        fields: Object.keys(rest?.["status"] ?? {}).join(" "),
      });
    }
    entry.ignored = ignored;
  }

  #retry(uid: string, error: unknown): void {
    const entry = this.#entries.get(uid);
    if (entry === undefined) return;
    entry.failures += 1;
    const { logger, random } = this.#options;
    logger.log("warn", "pod status could not be written, will retry", {
      podUID: uid,
      pod: `${entry.namespace}/${entry.name}`,
      attempt: entry.failures,
      error: errorMessage(error),
    });
    this.#queue.addAfter(
      uid,
      jitteredBackoffMs(entry.failures, { baseMs: 200, maxMs: 30_000 }, random),
    );
  }
}

/**
 * Whether all that a status tells is that the pod is being made. Most pods run a moment later, and then this need never
 * have been written: two of the three writes of a start, which in a burst cost as much as a tenth of all work.
 */
function isOnlyProgress(base: PodStatus, next: PodStatus): boolean {
  const { initContainerStatuses = [], containerStatuses = [] } = next;
  return (
    (base.phase ?? "Pending") === "Pending" &&
    next.phase === "Pending" &&
    [...initContainerStatuses, ...containerStatuses].every(
      ({ restartCount, state }) =>
        restartCount === 0 && progressReasons.has(state?.waiting?.reason ?? ""),
    )
  );
}

/** The watch may be behind the answers to our own writes. Resource versions are ordered integers (KEP-5504). */
function isNewer(candidate: string, known: string): boolean {
  if (candidate.length !== known.length) return candidate.length > known.length;
  return candidate > known;
}
