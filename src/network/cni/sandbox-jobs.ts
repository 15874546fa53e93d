import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { CniError } from "./errors.ts";

export type JobKind = "add" | "delete";

interface Job {
  readonly kind: JobKind;
  readonly stop: AbortController;
  readonly startedAt: number;
  readonly done: Promise<readonly string[]>;
  waiting: number;
}

export interface SandboxJobsOptions {
  /** Milliseconds that a caller waits for a job; it goes on, and the next caller joins it. */
  readonly patienceMs: number;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * What plug-ins do for sandboxes, one thing at a time for each. Plug-ins may take minutes, and whoever asks for a pod has
 * others to look after: callers wait for a bounded time, while the job goes on to its own end.
 */
export class SandboxJobs {
  readonly #options: SandboxJobsOptions;
  readonly #jobs = new Map<string, Job>();

  constructor(options: SandboxJobsOptions) {
    this.#options = options;
  }

  /** What is being done for the sandbox. */
  running(sandboxID: string): JobKind | undefined {
    return this.#jobs.get(sandboxID)?.kind;
  }

  /** Whether nothing is being done for anybody. */
  get idle(): boolean {
    return this.#jobs.size === 0;
  }

  /**
   * Does `work` for the sandbox, or joins the same work if it is being done already. Waits for other work before it: an
   * ADD is ended for a DEL.
   *
   * @throws what `work` throws; {@link CniError} when it takes longer than callers wait; `AbortError` for `signal`,
   *   which does not end the work.
   */
  async run(
    sandboxID: string,
    kind: JobKind,
    work: (signal: AbortSignal) => Promise<readonly string[]>,
    signal: AbortSignal,
  ): Promise<readonly string[]> {
    for (;;) {
      const running = this.#jobs.get(sandboxID);
      if (running === undefined) return this.#wait(this.#start(sandboxID, kind, work), signal);
      if (running.kind === kind) return this.#wait(running, signal);
      if (kind === "delete") running.stop.abort();
      await this.#wait(running, signal, true);
    }
  }

  #start(
    sandboxID: string,
    kind: JobKind,
    work: (signal: AbortSignal) => Promise<readonly string[]>,
  ): Job {
    const { clock, logger } = this.#options;
    const stop = new AbortController();
    const startedAt = clock.monotonic();
    const done = work(stop.signal);
    const job: Job = { kind, stop, startedAt, done, waiting: 0 };
    this.#jobs.set(sandboxID, job);
    const end = (error?: unknown): void => {
      this.#jobs.delete(sandboxID);
      if (error === undefined || job.waiting > 0 || isAbort(error)) return;
      // Nobody else hears of it.
      logger.log("warn", "network plug-ins failed", {
        sandboxID,
        error: errorMessage(error),
        durationMs: Math.round(clock.monotonic() - startedAt),
      });
    };
    done.then(
      () => end(),
      (error: unknown) => end(error),
    );
    return job;
  }

  /** @param quietly The other's failure is the other's. */
  async #wait(job: Job, signal: AbortSignal, quietly = false): Promise<readonly string[]> {
    const { clock, patienceMs } = this.#options;
    signal.throwIfAborted();
    const enough = new AbortController();
    const stop = AbortSignal.any([signal, enough.signal]);
    const impatience = clock.sleep(patienceMs, stop).then(
      (): readonly string[] => {
        const seconds = Math.round((clock.monotonic() - job.startedAt) / 1000);
        const what = job.kind === "add" ? "ADD" : "DEL";
        throw new CniError(
          `the plug-ins have been at ${what} for ${seconds} s, and are not waited for`,
        );
      },
      async (): Promise<readonly string[]> => {
        signal.throwIfAborted();
        // Not needed: the job has ended.
        return new Promise<never>(() => undefined);
      },
    );
    job.waiting += 1;
    try {
      const done = quietly ? job.done.catch((): readonly string[] => []) : job.done;
      return await Promise.race([done, impatience]);
    } finally {
      job.waiting -= 1;
      enough.abort();
    }
  }

  /** Ends everything, and waits for the ends. */
  async stopAll(): Promise<void> {
    const jobs = [...this.#jobs.values()];
    for (const { stop } of jobs) stop.abort();
    await Promise.allSettled(jobs.map(({ done }) => done));
  }
}
