import { type Clock, notNeeded } from "../lib/clock.ts";
import { errorMessage, isAbort } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { ApiClient } from "./client.ts";
import { ApiError, isAlreadyExists, isNotFound } from "./errors.ts";
import { type CorrelatedEvent, EventCorrelator, TokenBucket } from "./event-correlator.ts";
import type { EventRecorder, EventTarget, EventType } from "./event-types.ts";
import { validateDNS1123Subdomain } from "./names.ts";
import { createObject, patchObject } from "./objects.ts";
import { EVENTS } from "./resources.ts";
import type { Event } from "./types.gen.ts";

export interface EventRecorderOptions {
  readonly client: ApiClient;
  /** For example `kubelet`. */
  readonly component: string;
  /** Name of the node. */
  readonly host: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** In [0, 1). */
  readonly random: () => number;
  /** Events per second in the long run (eventRecordQPS); default 50. */
  readonly qps?: number;
  /** Events at once (eventBurst); default 100. */
  readonly burst?: number;
  /** Default {@link eventPatience}. */
  readonly patience?: EventPatience;
}

/**
 * Normal events are for people, who can wait; what they tell of (pods that start) cannot, and each costs both sides as
 * much as a status. So they are sent when no more of them come, or when the oldest has waited long enough. A Warning
 * is sent at once, with all before it.
 */
export interface EventPatience {
  /** Milliseconds without a new event. */
  readonly quietMs: number;
  /** Milliseconds that an event waits at most. */
  readonly maxMs: number;
}

export const eventPatience: EventPatience = { quietMs: 500, maxMs: 3000 };

const maxQueued = 1000;
const maxTries = 12;
const retryMs = 10_000;
const sendDeadlineMs = 10_000;
/** How long a stopping recorder may still send. */
const flushMs = 2_000;

interface Draft {
  readonly target: EventTarget;
  readonly type: EventType;
  readonly reason: string;
  readonly message: string;
  /** Milliseconds since the epoch. */
  readonly at: number;
  /** The same by the clock that never steps. */
  readonly since: number;
  /** Set once, so that an event that is tried again is not counted twice. Undefined = not yet looked at. */
  correlated?: CorrelatedEvent | "filtered";
}

/** An {@link EventRecorder} that writes to the API server while {@link RunningRecorder.run} runs. */
export interface RunningRecorder extends EventRecorder {
  /** Sends until `signal` aborts, then gives what is queued two seconds. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
}

export function createEventRecorder(options: EventRecorderOptions): RunningRecorder {
  return new Recorder(options);
}

class Recorder implements RunningRecorder {
  readonly #options: EventRecorderOptions;
  readonly #correlator: EventCorrelator;
  readonly #rate: TokenBucket;
  readonly #qps: number;
  readonly #queue: Draft[] = [];
  #wake: (() => void) | undefined;
  #hurry: (() => void) | undefined;
  #dropped = 0;
  /** When the last event came, by the clock that never steps. */
  #lastAt = 0;
  /** Warnings that are queued. */
  #urgent = 0;
  #lastNanos = 0n;

  constructor(options: EventRecorderOptions) {
    this.#options = options;
    this.#qps = options.qps ?? 50;
    this.#correlator = new EventCorrelator(options.clock);
    this.#rate = new TokenBucket(options.burst ?? 100, 1000 / this.#qps, options.clock);
  }

  event(target: EventTarget, type: EventType, reason: string, message: string): void {
    if (this.#queue.length >= maxQueued) {
      this.#dropped += 1;
      return;
    }
    const { clock } = this.#options;
    this.#lastAt = clock.monotonic();
    this.#queue.push({ target, type, reason, message, at: clock.now(), since: this.#lastAt });
    this.#wake?.();
    if (type !== "Warning") return;
    this.#urgent += 1;
    this.#hurry?.();
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const draft = this.#queue[0];
      const waitMs = draft === undefined ? 0 : this.#patienceLeft(draft);
      if (draft === undefined) await this.#queued(signal);
      else if (waitMs > 0) await this.#linger(waitMs, signal);
      else if (await this.#record(draft, signal)) {
        this.#queue.shift();
        if (draft.type === "Warning") this.#urgent -= 1;
      }
    }
    const flush = AbortSignal.timeout(flushMs);
    for (let draft = this.#queue.shift(); draft !== undefined; draft = this.#queue.shift()) {
      if (flush.aborted) break;
      draft.correlated ??= this.#correlate(draft);
      if (draft.correlated !== "filtered") await this.#send(draft, draft.correlated, flush);
    }
  }

  /** Milliseconds that the oldest event may still wait for others. */
  #patienceLeft(oldest: Draft): number {
    const { quietMs, maxMs } = this.#options.patience ?? eventPatience;
    const now = this.#options.clock.monotonic();
    return this.#urgent > 0 ? 0 : Math.min(this.#lastAt + quietMs, oldest.since + maxMs) - now;
  }

  /** Resolves after `ms`, when a Warning comes or when the signal aborts. */
  async #linger(ms: number, signal: AbortSignal): Promise<void> {
    const hurry = new AbortController();
    this.#hurry = () => hurry.abort(notNeeded);
    const { clock } = this.#options;
    await clock.sleep(ms, AbortSignal.any([signal, hurry.signal])).catch(() => undefined);
    this.#hurry = undefined;
  }

  /** Resolves when something is queued, or the signal aborts. */
  async #queued(signal: AbortSignal): Promise<void> {
    if (this.#dropped > 0) {
      this.#options.logger.log("warn", "events were dropped, the queue was full", {
        dropped: this.#dropped,
      });
      this.#dropped = 0;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    const onAbort = (): void => resolve();
    signal.addEventListener("abort", onAbort, { once: true });
    await promise;
    signal.removeEventListener("abort", onAbort);
    this.#wake = undefined;
  }

  /** False when the signal aborted before the event could be written. */
  async #record(draft: Draft, signal: AbortSignal): Promise<boolean> {
    const { clock, logger, random } = this.#options;
    try {
      while (!this.#rate.tryTake()) await clock.sleep(1000 / this.#qps, signal);
      draft.correlated ??= this.#correlate(draft);
      if (draft.correlated === "filtered") return true;
      for (let tries = 1; tries <= maxTries; tries += 1) {
        if (await this.#send(draft, draft.correlated, signal)) return true;
        // The first wait is random, so that not all nodes come back at once.
        await clock.sleep(tries === 1 ? retryMs * random() : retryMs, signal);
      }
      logger.log("warn", "event was given up", { reason: draft.reason, object: draft.target.name });
      return true;
    } catch (error) {
      if (isAbort(error)) return false;
      logger.log("error", "event could not be made", { error: errorMessage(error) });
      return true;
    }
  }

  #correlate(draft: Draft): CorrelatedEvent | "filtered" {
    const { component, host } = this.#options;
    const { target, type, reason, message } = draft;
    const subject = [
      component,
      host,
      target.kind,
      target.namespace,
      target.name,
      target.uid,
      target.apiVersion,
    ].join("\0");
    const correlated = this.#correlator.correlate({
      subject,
      place: `${subject}\0${target.fieldPath ?? ""}`,
      type,
      reason,
      message,
      name: this.#eventName(draft),
      // metav1.Time has whole seconds.
      timestamp: `${new Date(draft.at).toISOString().slice(0, 19)}Z`,
    });
    return correlated ?? "filtered";
  }

  /** `<object>.<hexadecimal nanoseconds>`; unique within this process. */
  #eventName(draft: Draft): string {
    const jitter = BigInt(Math.floor(this.#options.random() * 1_000_000));
    const nanos = BigInt(draft.at) * 1_000_000n + jitter;
    this.#lastNanos = nanos > this.#lastNanos ? nanos : this.#lastNanos + 1n;
    const suffix = this.#lastNanos.toString(16);
    const name = `${draft.target.name}.${suffix}`;
    return validateDNS1123Subdomain(name).length === 0 ? name : `event.${suffix}`;
  }

  /** True when the event is written or hopeless, false when it is worth another try. */
  async #send(draft: Draft, event: CorrelatedEvent, signal: AbortSignal): Promise<boolean> {
    const { logger } = this.#options;
    try {
      if (event.count > 1 && (await this.#patch(draft, event, signal))) return true;
      await createObject(this.#options.client, EVENTS, this.#body(draft, event), {
        signal,
        deadlineMs: sendDeadlineMs,
      });
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      const fields = { reason: draft.reason, error: errorMessage(error) };
      const overloaded = error instanceof ApiError && [429, 503].includes(error.status);
      if (!(error instanceof ApiError) || overloaded) {
        logger.log("debug", "event not written, will retry", fields);
        return false;
      }
      // Names clash after a lost answer; the namespace may be going away. Neither deserves anybody's attention.
      const expected = isAlreadyExists(error) || /being terminated/.test(error.message);
      logger.log(expected ? "debug" : "warn", "event refused", fields);
      return true;
    }
  }

  /** False when the event has expired on the server and must be created again. */
  async #patch(draft: Draft, event: CorrelatedEvent, signal: AbortSignal): Promise<boolean> {
    const { count, lastTimestamp, message, name } = event;
    const at = {
      namespace: eventNamespace(draft.target),
      name,
      patch: { count, lastTimestamp, message },
    };
    try {
      const options = { signal, deadlineMs: sendDeadlineMs };
      await patchObject(this.#options.client, EVENTS, at, options);
      return true;
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
  }

  #body(draft: Draft, event: CorrelatedEvent): Event {
    const { component, host } = this.#options;
    const { count, firstTimestamp, lastTimestamp, message, name } = event;
    const { target, type, reason } = draft;
    const { namespace, ...reference } = target;
    return {
      metadata: { name, namespace: eventNamespace(target) },
      involvedObject: namespace === "" ? reference : { ...reference, namespace },
      reason,
      message,
      type,
      count,
      firstTimestamp,
      lastTimestamp,
      source: host === "" ? { component } : { component, host },
      reportingComponent: component,
      reportingInstance: host,
    };
  }
}

/** Events about cluster-scoped objects live in `default`. */
function eventNamespace({ namespace }: EventTarget): string {
  return namespace === "" ? "default" : namespace;
}
