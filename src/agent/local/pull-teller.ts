import type { ImagePull } from "../../kubelet/types.ts";
import { plain } from "../status/text.ts";
import { bytes, span } from "../status/words.ts";

/** What is here within this time is not worth a line. */
const quietMs = 3000;
/** Between two lines about the same image. */
const againMs = 5000;

interface Told {
  readonly at: number;
  readonly words: string;
}

function progressWords({ progress, queued }: ImagePull): string {
  if (queued) return "waits until others are pulled";
  if (progress === undefined) return "nothing has come yet";
  const { doneBytes, totalBytes, unpacking } = progress;
  if (unpacking) return `unpacking ${bytes(totalBytes ?? doneBytes)}`;
  return totalBytes === undefined
    ? `${bytes(doneBytes)} so far`
    : `${bytes(doneBytes)} of ${bytes(totalBytes)}`;
}

/** Lines for somebody who watches an agent that fetches images: of those that take their time, when they get on. */
export class PullTeller {
  readonly #told = new Map<string, Told>();

  /**
   * What is new.
   *
   * @param now Milliseconds since the epoch.
   */
  lines(pulls: readonly ImagePull[], now: number): readonly string[] {
    for (const image of this.#told.keys())
      if (!pulls.some((pull) => pull.image === image)) this.#told.delete(image);
    return pulls.flatMap((pull) => {
      const { image, pods, startedAt } = pull;
      const told = this.#told.get(image);
      const words = progressWords(pull);
      if (now < startedAt + quietMs || words === told?.words) return [];
      if (told !== undefined && now < told.at + againMs) return [];
      this.#told.set(image, { at: now, words });
      return [
        plain(`pulling ${image} for ${pods.join(", ")}: ${words} (${span(now - startedAt)})`),
      ];
    });
  }
}
