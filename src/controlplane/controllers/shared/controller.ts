import type { ApiClient } from "../../../api/client.ts";
import type { EventRecorder, EventTarget } from "../../../api/event-types.ts";
import type { Informer } from "../../../api/informer-types.ts";
import type { Stored } from "../../../api/object.ts";
import type { Resource } from "../../../api/resource.ts";
import { apiVersion } from "../../../api/resource.ts";
import { jitteredBackoffMs } from "../../../lib/backoff.ts";
import type { Clock } from "../../../lib/clock.ts";
import { errorMessage, isAbort } from "../../../lib/errors.ts";
import { KeyedQueue } from "../../../lib/keyed-queue.ts";
import type { Logger } from "../../../lib/log.ts";
import type { Informers } from "./informers.ts";

/** What every controller is given. Controllers are ordinary API clients: nothing here reaches the store. */
export interface ControllerContext {
  readonly client: ApiClient;
  readonly informers: Informers;
  readonly recorder: EventRecorder;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

export interface Controller {
  /** The controller's name in the logs: replication, endpoints, node, ... */
  readonly name: string;
  /** Works until `signal` aborts; resolves when all it started has ended. */
  run(signal: AbortSignal): Promise<void>;
}

/** Resolves when the signal aborts. */
export async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  signal.addEventListener("abort", () => resolve(), { once: true });
  await promise;
}

export interface QueueLoop {
  readonly name: string;
  readonly context: Pick<ControllerContext, "clock" | "logger" | "random">;
  /** Must be filled before the first key is worked on. */
  readonly waitFor: readonly Pick<Informer<unknown>, "whenSynced">[];
  readonly concurrency?: number;
  /** Brings one key to its wanted state. A rejection is retried with back-off. */
  readonly sync: (key: string, queue: KeyedQueue, signal: AbortSignal) => Promise<void>;
  /** Subscribes to what wakes keys; returns the functions that end the subscriptions. */
  readonly subscribe: (queue: KeyedQueue) => readonly (() => void)[];
}

const retryLimits = { baseMs: 20, maxMs: 30_000 };

/**
 * The loop all controllers share: wait for the caches, subscribe, work keys one at a time each, retry failures with
 * back-off, end on abort.
 */
export async function runQueueLoop(loop: QueueLoop, signal: AbortSignal): Promise<void> {
  const { clock, logger, random } = loop.context;
  try {
    await Promise.all(loop.waitFor.map(async (informer) => informer.whenSynced(signal)));
  } catch (error) {
    if (signal.aborted) return;
    throw error;
  }
  const failures = new Map<string, number>();
  const queue: KeyedQueue = new KeyedQueue({
    concurrency: loop.concurrency ?? 4,
    clock,
    signal,
    work: async (key) => {
      await loop.sync(key, queue, signal);
      failures.delete(key);
    },
    onError: (key, error) => {
      if (isAbort(error) && signal.aborted) return;
      const count = (failures.get(key) ?? 0) + 1;
      failures.set(key, count);
      const retryMs = jitteredBackoffMs(count, retryLimits, random);
      // A conflict or a lost race is how optimistic locking works, not something to look at.
      logger.log(count < 3 ? "debug" : "warn", "sync failed, will retry", {
        controller: loop.name,
        key,
        attempt: count,
        error: errorMessage(error),
      });
      queue.addAfter(key, retryMs);
    },
  });
  const unsubscribe = loop.subscribe(queue);
  await aborted(signal);
  for (const end of unsubscribe) end();
  await queue.idle();
}

/** Calls `step` every `periodMs`, the first time at once; one failure is logged and the next period tries again. */
export async function runPeriodically(
  loop: {
    readonly name: string;
    readonly context: Pick<ControllerContext, "clock" | "logger">;
    readonly periodMs: number;
    readonly step: (signal: AbortSignal) => Promise<void>;
  },
  signal: AbortSignal,
): Promise<void> {
  const { clock, logger } = loop.context;
  while (!signal.aborted) {
    try {
      await loop.step(signal);
      await clock.sleep(loop.periodMs, signal);
    } catch (error) {
      if (signal.aborted) return;
      logger.log("warn", "periodic work failed, will retry", {
        controller: loop.name,
        error: errorMessage(error),
      });
      try {
        await clock.sleep(loop.periodMs, signal);
      } catch {
        return;
      }
    }
  }
}

/** What an Event is about. */
export function eventTarget<T>(resource: Resource<T>, object: Stored<unknown>): EventTarget {
  return {
    kind: resource.kind,
    apiVersion: apiVersion(resource),
    namespace: object.metadata.namespace ?? "",
    name: object.metadata.name,
    uid: object.metadata.uid,
    resourceVersion: object.metadata.resourceVersion,
  };
}

/** Splits an informer key; the namespace of a cluster-scoped object is empty. */
export function splitKey(key: string): { readonly namespace: string; readonly name: string } {
  const slash = key.indexOf("/");
  return slash < 0
    ? { namespace: "", name: key }
    : { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
}
