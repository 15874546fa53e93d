import { SetupError } from "../../lib/errors.ts";

interface Waiter {
  resolve(line: string): void;
  reject(error: Error): void;
}

/** Cuts bytes into lines and hands them out in order, one per {@link LineQueue.next}. */
export class LineQueue {
  readonly #lines: string[] = [];
  readonly #waiters: Waiter[] = [];
  readonly #decoder = new TextDecoder();
  #rest = "";
  #ended: Error | undefined;

  push(bytes: Uint8Array): void {
    const parts = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split("\n");
    this.#rest = parts.pop() ?? "";
    for (const line of parts) {
      const waiter = this.#waiters.shift();
      if (waiter === undefined) this.#lines.push(line);
      else waiter.resolve(line);
    }
  }

  /** No more lines will come, for the reason given. The first reason counts. */
  end(why: string): void {
    this.#ended ??= new SetupError(why);
    for (const waiter of this.#waiters.splice(0)) waiter.reject(this.#ended);
  }

  /** The next line; rejects when the queue has ended, or with the signal's reason. */
  next(signal: AbortSignal): Promise<string> {
    const line = this.#lines.shift();
    if (line !== undefined) return Promise.resolve(line);
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      const aborted = (): void => {
        this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
        reject(signal.reason as Error);
      };
      const settled = (): void => signal.removeEventListener("abort", aborted);
      const waiter: Waiter = {
        resolve: (value) => {
          settled();
          resolve(value);
        },
        reject: (error) => {
          settled();
          reject(error);
        },
      };
      if (signal.aborted) {
        reject(signal.reason as Error);
        return;
      }
      this.#waiters.push(waiter);
      signal.addEventListener("abort", aborted, { once: true });
    });
  }
}
