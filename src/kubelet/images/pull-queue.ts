import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import type { Image, ImageService, PullProgress } from "../../runtime/types.ts";
import type { Credential } from "./credentials.ts";

export type PullQueueConfig = Pick<
  AgentConfig,
  | "imagePullProgressDeadlineMs"
  | "serializeImagePulls"
  | "maxParallelImagePulls"
  | "registryPullQPS"
  | "registryBurst"
>;

export interface PullQueueOptions {
  readonly config: PullQueueConfig;
  readonly images: ImageService;
  readonly clock: Clock;
  /** It is an image's turn. */
  readonly onBegin?: (reference: string) => void;
  /** Told often; must not throw. */
  readonly onProgress?: (reference: string, progress: PullProgress) => void;
}

/** What a pull brought. */
export interface Pulled {
  readonly image: Image;
  /** Which of the credentials opened the registry; undefined when it was asked without any. */
  readonly usedIndex: number | undefined;
  /** Of the pull itself; waiting for others is not in it. */
  readonly durationMs: number;
}

interface Pull {
  readonly done: Promise<Pulled>;
  readonly stop: AbortController;
  users: number;
}

/** `registryPullQPS` tokens a second, `registryBurst` at once. */
class TokenBucket {
  readonly #perSecond: number;
  readonly #size: number;
  readonly #clock: Clock;
  #tokens: number;
  #at: number;

  constructor(perSecond: number, size: number, clock: Clock) {
    this.#perSecond = perSecond;
    this.#size = size;
    this.#clock = clock;
    this.#tokens = size;
    this.#at = clock.monotonic();
  }

  take(): boolean {
    if (this.#perSecond <= 0) return true;
    const now = this.#clock.monotonic();
    const grown = this.#tokens + ((now - this.#at) / 1000) * this.#perSecond;
    this.#tokens = Math.min(grown, this.#size);
    this.#at = now;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}

/**
 * Asks registries for images: one pull for all who want the same with the same credentials, no more at a time than
 * configured, and no more often.
 */
export class PullQueue {
  readonly #options: PullQueueOptions;
  readonly #pulls = new Map<string, Pull>();
  readonly #waiting: (() => void)[] = [];
  readonly #bucket: TokenBucket;
  readonly #limit: number;
  #running = 0;

  constructor(options: PullQueueOptions) {
    this.#options = options;
    const { config, clock } = options;
    const { maxParallelImagePulls = Number.POSITIVE_INFINITY } = config;
    this.#limit = config.serializeImagePulls ? 1 : maxParallelImagePulls;
    this.#bucket = new TokenBucket(config.registryPullQPS ?? 5, config.registryBurst ?? 10, clock);
  }

  /** Pulls, or waits for somebody's pull of the same. It stops when the last one who wants it has gone. */
  async pull(
    reference: string,
    credentials: readonly Credential[],
    signal: AbortSignal,
  ): Promise<Pulled> {
    signal.throwIfAborted();
    const key = JSON.stringify([reference, credentials.map(({ auth }) => auth)]);
    let pull = this.#pulls.get(key);
    if (pull === undefined) {
      const stop = new AbortController();
      pull = { done: this.#inTurn(reference, credentials, stop.signal), stop, users: 0 };
      this.#pulls.set(key, pull);
      const drop = (): void => {
        if (this.#pulls.get(key) === pull) this.#pulls.delete(key);
      };
      pull.done.then(drop, drop);
    }
    pull.users += 1;
    try {
      return await abortable(pull.done, signal);
    } finally {
      pull.users -= 1;
      if (pull.users === 0) {
        pull.stop.abort();
        if (this.#pulls.get(key) === pull) this.#pulls.delete(key);
      }
    }
  }

  async #inTurn(
    reference: string,
    credentials: readonly Credential[],
    signal: AbortSignal,
  ): Promise<Pulled> {
    if (this.#running >= this.#limit) {
      // Whoever ends hands its place over.
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else {
      this.#running += 1;
    }
    try {
      signal.throwIfAborted();
      return await this.#tryAll(reference, credentials, signal);
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#running -= 1;
      else next();
    }
  }

  async #tryAll(
    reference: string,
    credentials: readonly Credential[],
    signal: AbortSignal,
  ): Promise<Pulled> {
    const { clock, config, images, onBegin, onProgress: tell } = this.#options;
    onBegin?.(reference);
    const onProgress = (progress: PullProgress): void => tell?.(reference, progress);
    const startedAt = clock.monotonic();
    const stallMs = config.imagePullProgressDeadlineMs;
    const failures: unknown[] = [];
    const tries = credentials.length === 0 ? [undefined] : credentials;
    for (const [index, credential] of tries.entries()) {
      if (!this.#bucket.take()) throw new Error("pull QPS exceeded");
      try {
        const auth = credential?.auth;
        const image = await images.pullImage(reference, { auth, stallMs, onProgress }, signal);
        const usedIndex = credential === undefined ? undefined : index;
        return { image, usedIndex, durationMs: clock.monotonic() - startedAt };
      } catch (error) {
        if (isAbort(error) && signal.aborted) throw error;
        failures.push(error);
      }
    }
    const texts = [...new Set(failures.map(errorMessage))];
    if (texts.length <= 1) throw failures[0];
    throw new Error(`[${texts.join(", ")}]`, { cause: failures[0] });
  }
}

async function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => {
    const reason: unknown = signal.reason;
    aborted.reject(reason instanceof Error ? reason : new DOMException("aborted", "AbortError"));
  };
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
