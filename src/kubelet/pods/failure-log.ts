import type { Level } from "../../lib/log.ts";

const repeatMs = 300_000;
/** A text that is never the same twice must not make every failure news. */
const maxKnown = 8;

/**
 * Decides how loudly the reason is told why a pod does not get on. One that is new is told at once; after that, one
 * every five minutes, also where the reasons alternate (`ErrImagePull`, `ImagePullBackOff`).
 */
export class FailureLog {
  readonly #known = new Set<string>();
  #toldAt = Number.NEGATIVE_INFINITY;

  /** @param nowMs Monotonic milliseconds. */
  level(reason: string, nowMs: number): Extract<Level, "warn" | "debug"> {
    // Attempts, durations and ids differ from time to time and say nothing new.
    const text = reason.replaceAll(/[0-9a-f]{12,}|\d+/g, "#");
    const news = !this.#known.has(text) && this.#known.size < maxKnown;
    if (!news && nowMs - this.#toldAt < repeatMs) return "debug";
    this.#known.add(text);
    this.#toldAt = nowMs;
    return "warn";
  }

  /** The pod is as it should be. What comes and goes within five minutes is still no news. */
  recovered(nowMs: number): void {
    if (nowMs - this.#toldAt >= repeatMs) this.#known.clear();
  }
}
