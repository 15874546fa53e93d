import { isDeepStrictEqual } from "node:util";

import type { Change, Informer } from "../../api/informer-types.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import { KeyedQueue } from "../../lib/keyed-queue.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { PodRecord, RuntimeEvent } from "../../runtime/types.ts";
import {
  allocatedPod,
  recordedAllocation,
  resizeMessage,
  wantedAllocation,
  wantsResize,
} from "../spec/resize.ts";
import { formatSeconds } from "../status/container-status.ts";
import { kernelFiles } from "../stats/kernel-files.ts";
import { measureBytes } from "../stats/tree-usage.ts";
import { type Reference, referenceKey } from "../objects/referenced-objects.ts";
import type { AssignedPod } from "../types.ts";
import { admitResize } from "./admission.ts";
import { Admitter } from "./admitter.ts";
import { podTarget } from "./event-target.ts";
import { changesContent, concernsNode, mayRun, shrinksGrace } from "./pod-changes.ts";
import type { PodDeps } from "./pod-deps.ts";
import { fingerprintOf, newPodEntry, type PodEntry } from "./pod-entry.ts";
import { reconcilePod } from "./reconcile.ts";
import { refreshVolumes, wantsOnlyVolumes } from "./refresh-volumes.ts";
import type { StorageOverrun } from "./storage-limits.ts";
import { StorageWatch } from "./storage-watch.ts";

export interface PodLoopOptions {
  readonly deps: PodDeps;
  readonly pods: Informer<AssignedPod>;
  readonly signal: AbortSignal;
  readonly onFatal: (error: unknown) => void;
}

const relistMs = 30_000;
const relistStaleMs = 180_000;
const relistDeadlineMs = 30_000;
const nodeWaitMs = 1_000;
const unexpectedRetryMs = 10_000;
const maxConcurrent = 16;

/**
 * All pods of the node: takes in what the API and the runtime tell, keeps one entry per uid, and lets one look at a
 * time run for each.
 */
export class PodLoop {
  readonly #options: PodLoopOptions;
  readonly #deps: PodDeps;
  readonly #entries = new Map<string, PodEntry>();
  readonly #refs = new Map<string, string>();
  readonly #looked = new WeakSet<PodEntry>();
  readonly #queue: KeyedQueue;
  readonly #admitter: Admitter;
  readonly #storage: StorageWatch;
  /** Pods that had a sandbox when this process began: they are not admitted anew. */
  #adopted: ReadonlySet<string> = new Set();
  /** Both sources were seen; before that nothing is touched. */
  #open = false;
  #lastRelist: number;

  constructor(options: PodLoopOptions) {
    this.#options = options;
    this.#deps = options.deps;
    this.#lastRelist = options.deps.clock.monotonic();
    this.#admitter = new Admitter({
      deps: options.deps,
      entries: this.#entries,
      isAdopted: (uid) => this.#adopted.has(uid),
      wake: (uid) => this.wake(uid),
      signal: options.signal,
    });
    this.#storage = new StorageWatch({
      ...options.deps,
      engineDir: () => options.deps.runtimeInfo().rootDir,
      pods: () => this.#living(),
      onOverrun: (pod, overrun) => this.#evict(pod, overrun),
      files: kernelFiles(),
      measure: measureBytes,
    });
    this.#queue = new KeyedQueue({
      work: (uid, signal) => this.#work(uid, signal),
      onError: (uid, error) => this.#failed(uid, error),
      concurrency: maxConcurrent,
      clock: options.deps.clock,
      signal: options.signal,
    });
  }

  /** Why the node should not be Ready, if so. */
  healthy(): string | undefined {
    if (!this.#open) return "running pods have not been taken over yet";
    const age = this.#deps.clock.monotonic() - this.#lastRelist;
    if (age <= relistStaleMs) return undefined;
    return `PLEG is not healthy: pleg was last seen active ${formatSeconds(age)} ago; threshold is ${formatSeconds(relistStaleMs)}`;
  }

  /** Something about the pod may have changed. */
  wake(uid: string): void {
    const entry = this.#entries.get(uid);
    if (this.#open && entry !== undefined) this.#look(entry);
  }

  /** A ConfigMap or Secret of the pod has changed, or something else that its volumes are made of. */
  contentChanged(uid: string, reference?: Reference): void {
    const entry = this.#entries.get(uid);
    if (entry === undefined) return;
    if (reference === undefined) entry.volumesStale = true;
    else entry.changed.set(referenceKey(reference), reference);
    // No wake: a pod that is well needs no look for this.
    if (this.#open) this.#queue.add(uid);
  }

  /** The server has taken a status. */
  statusWritten(pod: AssignedPod): void {
    const entry = this.#entries.get(pod.metadata.uid);
    if (entry?.ending === true) this.wake(pod.metadata.uid);
  }

  /** Runs until the signal aborts; resolves when no look is in progress any more. */
  async run(): Promise<void> {
    const { pods, signal } = this.#options;
    let unsubscribe = (): void => undefined;
    let unsubscribeNode = (): void => undefined;
    try {
      await pods.whenSynced(signal);
      const snapshot = await this.#firstSnapshot();
      this.#adopted = new Set(
        [...snapshot.values()]
          .filter((record) => record.sandboxes.length > 0)
          .map(({ uid }) => uid),
      );
      unsubscribe = pods.subscribe((change) => this.#onChange(change));
      this.#takeIn(snapshot);
      await this.#takeInDirectories();
      this.#open = true;
      this.#wakeAll();
      unsubscribeNode = this.#deps.node.subscribe(() => this.#wakeAll());
      await Promise.all([this.#watchRuntime(), this.#relistForever(), this.#storage.run(signal)]);
    } catch (error) {
      if (!(signal.aborted && isAbort(error))) throw error;
    } finally {
      unsubscribe();
      unsubscribeNode();
      for (const entry of this.#entries.values()) entry.interrupt.abort();
      await this.#queue.idle();
    }
  }

  #wakeAll(): void {
    for (const entry of this.#entries.values()) this.#look(entry);
  }

  #look(entry: PodEntry): void {
    entry.lookWanted = true;
    entry.woken?.();
    this.#queue.add(entry.uid);
  }

  #lookAfter(entry: PodEntry, ms: number): void {
    entry.lookAt = this.#deps.clock.monotonic() + ms;
    this.#queue.addAfter(entry.uid, ms);
  }

  async #firstSnapshot(): Promise<ReadonlyMap<string, PodRecord>> {
    const { clock, logger, network, runtime } = this.#deps;
    const { signal } = this.#options;
    for (;;) {
      try {
        // A running pod whose address nobody has read yet would lose it in its status, and its Services the pod.
        await network.load();
        const snapshot = await runtime.snapshot(signal);
        this.#lastRelist = clock.monotonic();
        return snapshot;
      } catch (error) {
        if (signal.aborted) throw error;
        logger.log("warn", "runtime could not be listed, will retry", {
          error: errorMessage(error),
        });
        await clock.sleep(nodeWaitMs, signal);
      }
    }
  }

  /** Makes entries for pods that only the runtime knows. */
  #takeIn(snapshot: ReadonlyMap<string, PodRecord>): void {
    for (const { uid, name, namespace } of snapshot.values()) {
      if (this.#entries.has(uid)) continue;
      this.#entries.set(uid, newPodEntry({ uid, name, namespace }, this.#deps.clock.now()));
    }
  }

  /** The same for pods of which only a directory is left. */
  async #takeInDirectories(): Promise<void> {
    for (const uid of await this.#deps.volumes.podsOnDisk()) {
      if (this.#entries.has(uid)) continue;
      const identity = { uid, name: "", namespace: "" };
      this.#entries.set(uid, newPodEntry(identity, this.#deps.clock.now()));
    }
  }

  #onChange(change: Change<AssignedPod>): void {
    if (change.kind === "deleted") {
      this.#onDeleted(change.previous.metadata.uid);
      return;
    }
    const pod = change.object;
    const { uid, name, namespace = "" } = pod.metadata;
    let entry = this.#entries.get(uid);
    if (entry === undefined) {
      entry = newPodEntry({ uid, name, namespace }, this.#deps.clock.now());
      this.#entries.set(uid, entry);
      this.#deps.metrics?.pods.added(pod.spec?.containers.length ?? 0);
    }
    const before = entry.pod;
    entry.pod = pod;
    entry.removed = false;
    if (before === undefined) this.#storage.podCame(pod);
    this.#deps.writer.observe(pod);
    if (before === undefined || changesContent(before, pod)) {
      entry.volumesStale = true;
      // Its watches open while it is admitted and observed.
      if (mayRun(pod) && entry.verdict === undefined) this.#deps.objects.register(pod);
    }
    if (before !== undefined && shrinksGrace(before, pod)) this.#interrupt(entry);
    if (this.#open && (before === undefined || concernsNode(before, pod))) this.#look(entry);
  }

  #onDeleted(uid: string): void {
    const entry = this.#entries.get(uid);
    if (entry === undefined) return;
    entry.removed = true;
    this.#interrupt(entry);
    if (this.#open) this.#look(entry);
  }

  /** Pods that may write. */
  #living(): readonly AssignedPod[] {
    return [...this.#entries.values()].flatMap(({ ending, pod, removed, verdict }) =>
      pod === undefined || removed || ending || verdict !== undefined ? [] : [pod],
    );
  }

  /** Ends a pod for what it has used, without a condition: to be run again elsewhere would not help it. */
  #evict(pod: AssignedPod, { message, signal }: StorageOverrun): void {
    const { events, logger, metrics } = this.#deps;
    const entry = this.#entries.get(pod.metadata.uid);
    if (entry === undefined || entry.ending || entry.verdict !== undefined) return;
    entry.verdict = { reason: "Evicted", message, conditions: [] };
    entry.graceSeconds = 1;
    events.event(podTarget(pod), "Warning", "Evicted", message);
    metrics?.pods.evicted(signal);
    logger.log("info", "pod is evicted", {
      podUID: entry.uid,
      pod: `${entry.namespace}/${entry.name}`,
      reason: message.trim(),
    });
    this.#interrupt(entry);
    this.wake(entry.uid);
  }

  /** What the pod is waiting for is not what it should be doing now. */
  #interrupt(entry: PodEntry): void {
    entry.interrupt.abort();
    entry.interrupt = new AbortController();
  }

  async #watchRuntime(): Promise<void> {
    const { signal } = this.#options;
    for await (const event of this.#deps.runtime.events(signal)) {
      if (event.kind === "resync") await this.#relist();
      else if (this.#tellsNews(event)) this.wake(event.podUID);
    }
  }

  /** Whether an event is more than the echo of what the agent itself is doing. */
  #tellsNews({ kind, podUID, containerID }: Exclude<RuntimeEvent, { kind: "resync" }>): boolean {
    const known = this.#entries.get(podUID)?.fingerprint ?? "";
    // The agent looks at what it has started by itself, and starts nothing twice: a second start was somebody else.
    if (kind === "started")
      return known.includes(`${containerID}=exited`) || known.includes(`${containerID}=false`);
    // An engine removes what it could not make to its end; to look at once would be to try again without a pause.
    if (kind === "removed") return known.includes(containerID);
    return true;
  }

  async #relistForever(): Promise<void> {
    const { signal } = this.#options;
    while (!signal.aborted) {
      await this.#deps.clock.sleep(relistMs, signal);
      await this.#relist();
      this.#deps.onTurn?.();
    }
  }

  /** Events only say "look": everything that exists is looked at after a gap, strangers included. */
  async #relist(): Promise<void> {
    const { clock, logger, network, runtime } = this.#deps;
    const { signal } = this.#options;
    try {
      const stop = AbortSignal.any([signal, AbortSignal.timeout(relistDeadlineMs)]);
      const snapshot = await runtime.snapshot(stop);
      this.#lastRelist = clock.monotonic();
      this.#takeIn(snapshot);
      for (const [uid, entry] of this.#entries) {
        const record = snapshot.get(uid);
        const found = record === undefined ? "" : fingerprintOf(record);
        if (found !== entry.fingerprint) this.wake(uid);
      }
      const live = [...snapshot.values()].flatMap(({ sandboxes }) => sandboxes.map(({ id }) => id));
      await network.collectGarbage(new Set(live), signal);
      for (const { sandboxes, uid } of snapshot.values()) {
        if (sandboxes.some(({ id, ready }) => ready && network.isIntact?.(id) === false))
          this.wake(uid);
      }
    } catch (error) {
      if (signal.aborted) return;
      logger.log("warn", "relist failed, will retry", { error: errorMessage(error) });
    }
  }

  async #work(uid: string, signal: AbortSignal): Promise<void> {
    const entry = this.#entries.get(uid);
    if (entry === undefined || !this.#open) return;
    if (await this.#refresh(entry, signal)) return;
    entry.lookWanted = false;
    entry.lookAt = Number.POSITIVE_INFINITY;
    if (entry.pod !== undefined && !entry.removed && !(await this.#mayStart(entry))) return;
    this.#grantResources(entry);
    const { interrupt } = entry;
    const looked = this.#measure(entry);
    try {
      const stop = AbortSignal.any([signal, interrupt.signal]);
      const outcome = await reconcilePod(this.#deps, entry, this.#refs, stop);
      if (outcome.finished) this.#forget(entry);
      else if (outcome.requeueMs !== undefined) this.#lookAfter(entry, outcome.requeueMs);
      this.#admitter.looked(uid);
    } catch (error) {
      // Interrupted on purpose: the change that did it has queued the pod already.
      if (interrupt.signal.aborted && isAbort(error)) return;
      throw error;
    } finally {
      looked();
    }
  }

  /** Writes what has changed, when that is all there is to do. Returns whether it was. */
  async #refresh(entry: PodEntry, signal: AbortSignal): Promise<boolean> {
    const { clock } = this.#deps;
    if (!wantsOnlyVolumes(entry, clock.monotonic())) return false;
    const { interrupt } = entry;
    try {
      const stop = AbortSignal.any([signal, interrupt.signal]);
      if (!(await refreshVolumes(this.#deps, entry, stop))) return false;
    } catch (error) {
      if (!(interrupt.signal.aborted && isAbort(error))) throw error;
    }
    // The next look was due before this: to be woken makes the queue forget that.
    const waitMs = entry.lookAt - clock.monotonic();
    if (Number.isFinite(waitMs)) this.#queue.addAfter(entry.uid, Math.max(waitMs, 0));
    return true;
  }

  /** Call before a look at a pod; what it returns, after it. */
  #measure(entry: PodEntry): () => void {
    const { clock, metrics } = this.#deps;
    if (metrics === undefined) return () => undefined;
    const isFirst = !this.#looked.has(entry);
    this.#looked.add(entry);
    const beganAt = clock.monotonic();
    // What ran before this process did was seen by another.
    if (isFirst && !this.#adopted.has(entry.uid)) {
      metrics.pods.workBegan(Math.max(clock.now() - entry.seenAt, 0) / 1000);
    }
    return () => {
      const work = entry.ending || entry.removed ? "kill" : isFirst ? "create" : "sync";
      metrics.pods.worked(work, (clock.monotonic() - beganAt) / 1000);
    };
  }

  #failed(uid: string, error: unknown): void {
    const { clock, events, logger } = this.#deps;
    const entry = this.#entries.get(uid);
    const message = errorMessage(error);
    // An engine that does not answer is no bug, and asked again for each pod.
    const known = error instanceof RuntimeError;
    const level = known ? (entry?.failureLog.level(message, clock.monotonic()) ?? "warn") : "error";
    logger.log(level, "pod could not be looked after, will retry", {
      podUID: uid,
      error: message,
    });
    if (known && entry?.pod !== undefined) {
      const text = `error determining status: ${message}`;
      events.event(podTarget(entry.pod), "Warning", "FailedSync", text);
    }
    if (entry !== undefined) this.#lookAfter(entry, unexpectedRetryMs);
  }

  #forget(entry: PodEntry): void {
    if (!entry.removed && entry.pod !== undefined) return;
    this.#entries.delete(entry.uid);
    this.#deps.writer.forget(entry.uid);
    // A successor of the same name may have been waiting for this.
    for (const other of this.#entries.values()) {
      if (other.name === entry.name && other.namespace === entry.namespace) this.wake(other.uid);
    }
  }

  /** Whether the pod may be worked on: the node is known, admission has passed, no namesake is still there. */
  async #mayStart(entry: PodEntry): Promise<boolean> {
    const { pod } = entry;
    if (pod === undefined) return true;
    if (!entry.admitted) {
      if (this.#deps.node.node() === undefined && !this.#adopted.has(entry.uid)) {
        this.#lookAfter(entry, nodeWaitMs);
        return false;
      }
      await this.#admitter.admitPending();
    }
    if (entry.verdict !== undefined || pod.metadata.deletionTimestamp !== undefined) return true;
    // The predecessor wakes this pod when it is gone; so do those that make room for it.
    return this.#admitter.hasRoom(entry.uid) && !this.#hasNamesake(entry);
  }

  #hasNamesake({ name, namespace, uid }: PodEntry): boolean {
    return [...this.#entries.values()].some((other) => {
      const same = other.name === name && other.namespace === namespace && other.uid !== uid;
      return same && (other.removed || other.pod === undefined);
    });
  }

  /** The other pods that run, with what they were granted. */
  #othersThan(entry: PodEntry): readonly AssignedPod[] {
    return [...this.#entries.values()].flatMap((other) => {
      const { admitted, allocation, ending, pod, verdict } = other;
      if (other === entry || !admitted || ending || verdict !== undefined) return [];
      return pod === undefined ? [] : [allocatedPod(pod, allocation)];
    });
  }

  /** A resize is admitted like a pod: what does not fit waits, and the pod goes on with what it has. */
  #grantResources(entry: PodEntry): void {
    const { pod } = entry;
    if (pod === undefined || entry.removed || entry.ending || !entry.admitted) return;
    entry.allocation ??= recordedAllocation(pod);
    if (!wantsResize(pod, entry.allocation)) {
      entry.resizePending = undefined;
      return;
    }
    const { events, node } = this.#deps;
    const pending = admitResize(pod, { node: node.node(), others: this.#othersThan(entry) });
    if (pending === undefined) {
      entry.allocation = wantedAllocation(pod);
      entry.resizePending = undefined;
      entry.resizing = true;
      const message = resizeMessage("Pod resize started", pod);
      events.event(podTarget(pod), "Normal", "ResizeStarted", message);
      return;
    }
    if (!isDeepStrictEqual(pending, entry.resizePending)) {
      const message = resizeMessage(`Pod resize ${pending.reason}`, pod, pending.message);
      events.event(podTarget(pod), "Warning", `Resize${pending.reason}`, message);
    }
    entry.resizePending = pending;
  }
}
