import type { Clock } from "../lib/clock.ts";
import { errorMessage } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { ContainerRuntime, RuntimeEvent, RuntimeInfo } from "../runtime/types.ts";
import type { Runner } from "./supervise.ts";

/** How often the engine is asked whether it is there (the kubelet's updateRuntimeUp), and while it is not. */
const checkMs = 5_000;
const retryMs = 1_000;
/** An engine that restarts is away for seconds; a node that is not Ready loses its place in every Service. */
const downAfterMs = 30_000;

export interface EngineWatchOptions {
  readonly runtime: ContainerRuntime;
  /** What the engine said when it was first connected. */
  readonly info: RuntimeInfo;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Knows whether the container engine is there, and what it last said about itself: after each absence it is asked anew,
 * because it may have been upgraded or configured otherwise.
 */
export class EngineWatch implements Runner {
  readonly name = "container engine";
  readonly #runtime: ContainerRuntime;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #listeners = new Set<() => void>();
  #info: RuntimeInfo;
  #answeredAt: number;
  /** It was away, or may have been: what is known of it is out of date. */
  #stale = false;
  #toldDown = false;
  #wake: () => void = () => undefined;

  constructor({ runtime, info, clock, logger }: EngineWatchOptions) {
    this.#runtime = runtime;
    this.#info = info;
    this.#clock = clock;
    this.#logger = logger;
    this.#answeredAt = clock.monotonic();
  }

  /** What the engine last said about itself, whether or not it is there now. */
  last(): RuntimeInfo {
    return this.#info;
  }

  /** The same; undefined once it has not answered for 30 s, as long as the kubelet waits. */
  info(): RuntimeInfo | undefined {
    return this.#clock.monotonic() - this.#answeredAt < downAfterMs ? this.#info : undefined;
  }

  /** Calls `listener` when the engine is given up and each time it is back. Returns the function that ends it. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  /** The runtime, for the one reader of its events: a restart between two checks shows only there. */
  observed<T extends ContainerRuntime>(runtime: T): T {
    return { ...runtime, events: (signal: AbortSignal) => this.#observe(runtime.events(signal)) };
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const pause = new AbortController();
      this.#wake = () => pause.abort();
      if (!this.#stale) {
        const wait = AbortSignal.any([signal, pause.signal]);
        await this.#clock.sleep(checkMs, wait).catch(() => undefined);
      }
      await (this.#stale ? this.#reconnect(signal) : this.#check(signal));
    }
  }

  async *#observe(events: AsyncIterable<RuntimeEvent>): AsyncGenerator<RuntimeEvent, void> {
    let first = true;
    for await (const event of events) {
      if (event.kind === "resync") {
        if (!first) {
          this.#stale = true;
          this.#wake();
        }
        first = false;
      }
      yield event;
    }
  }

  async #check(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    try {
      await this.#runtime.ping(signal);
      this.#answeredAt = this.#clock.monotonic();
    } catch (error) {
      if (signal.aborted) return;
      this.#stale = true;
      this.#logger.log("warn", "the container engine does not answer", {
        error: errorMessage(error),
      });
    }
  }

  async #reconnect(signal: AbortSignal): Promise<void> {
    try {
      // Before the call: a restart during it must be followed by another.
      this.#stale = false;
      const before = this.#info.warnings;
      this.#info = await this.#runtime.connect(signal);
      const awayMs = Math.round(this.#clock.monotonic() - this.#answeredAt);
      this.#answeredAt = this.#clock.monotonic();
      this.#toldDown = false;
      const { version, apiVersion } = this.#info;
      this.#logger.log("info", "container engine connected again", { version, apiVersion, awayMs });
      for (const warning of this.#info.warnings) {
        if (before.includes(warning)) continue;
        this.#logger.log("warn", "the host cannot do everything", { warning });
      }
      this.#notify();
    } catch (error) {
      if (signal.aborted) return;
      this.#stale = true;
      if (!this.#toldDown && this.info() === undefined) {
        this.#toldDown = true;
        this.#logger.log("error", "the container engine is down", { error: errorMessage(error) });
        this.#notify();
      }
      await this.#clock.sleep(retryMs, signal).catch(() => undefined);
    }
  }

  #notify(): void {
    for (const listener of this.#listeners) listener();
  }
}
