import type { PullProgress } from "../../runtime/types.ts";
import type { ImagePull } from "../types.ts";

interface Entry {
  readonly startedAt: number;
  /** `namespace/name` of those who wait, and how often each does. */
  readonly pods: Map<string, number>;
  begun: boolean;
  progress: PullProgress | undefined;
}

/** Images on their way, for people who wait for them. Kept while they are, and no longer. */
export class PullsUnderWay {
  readonly #pulls = new Map<string, Entry>();

  /**
   * A pod waits for an image.
   *
   * @param now Milliseconds since the epoch.
   * @returns Call it when that is over; once.
   */
  join(image: string, pod: string, now: number): () => void {
    let pull = this.#pulls.get(image);
    if (pull === undefined) {
      pull = { startedAt: now, pods: new Map(), begun: false, progress: undefined };
      this.#pulls.set(image, pull);
    }
    const { pods } = pull;
    pods.set(pod, (pods.get(pod) ?? 0) + 1);
    return () => {
      const left = (pods.get(pod) ?? 1) - 1;
      if (left > 0) pods.set(pod, left);
      else pods.delete(pod);
      if (pods.size === 0) this.#pulls.delete(image);
    };
  }

  /** Others were pulled before it; now it is its turn. */
  begin(image: string): void {
    const pull = this.#pulls.get(image);
    if (pull !== undefined) pull.begun = true;
  }

  progress(image: string, progress: PullProgress): void {
    const pull = this.#pulls.get(image);
    if (pull !== undefined) pull.progress = progress;
  }

  list(): readonly ImagePull[] {
    return [...this.#pulls].map(([image, { begun, pods, progress, startedAt }]) => ({
      image,
      startedAt,
      queued: !begun,
      progress,
      pods: [...pods.keys()],
    }));
  }
}
