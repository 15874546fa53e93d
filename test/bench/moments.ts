import type { Seen, SeenEvent } from "./pods-api.ts";

const deadlineMs = 120_000;

function isReady({ status }: Seen): boolean {
  return (status?.conditions ?? []).some(
    ({ type, status }) => type === "Ready" && status === "True",
  );
}

type Moment = "scheduled" | "ready" | "gone";

/** When the watch first showed what. */
export class Moments {
  readonly #at = new Map<string, number>();
  readonly #waiting = new Map<string, () => void>();

  readonly take = ({ object, type }: SeenEvent): void => {
    const { name } = object.metadata;
    if (type === "DELETED") return this.#note(name, "gone");
    if (object.spec?.nodeName !== undefined) this.#note(name, "scheduled");
    if (isReady(object)) this.#note(name, "ready");
  };

  #note(name: string, moment: Moment): void {
    const key = `${moment} ${name}`;
    if (this.#at.has(key)) return;
    this.#at.set(key, performance.now());
    this.#waiting.get(key)?.();
  }

  async until(name: string, moment: Moment): Promise<number> {
    const key = `${moment} ${name}`;
    if (!this.#at.has(key)) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const timer = setTimeout(() => reject(new Error(`${name} is not ${moment}`)), deadlineMs);
      this.#waiting.set(key, resolve);
      await promise;
      clearTimeout(timer);
    }
    return this.#at.get(key) ?? Number.NaN;
  }
}
