import type { UpstreamReply } from "./upstream-message.ts";

interface Kept {
  readonly reply: UpstreamReply;
  /** Monotonic milliseconds. */
  readonly since: number;
}

/** Replies from upstream for a moment, the least recently used go first. */
export class ReplyCache {
  readonly #kept = new Map<string, Kept>();
  readonly #mostBytes: number;
  #bytes = 0;

  constructor(mostBytes: number) {
    this.#mostBytes = mostBytes;
  }

  /** @returns the reply and its age in whole seconds. */
  get(
    key: string,
    now: number,
  ): { readonly reply: UpstreamReply; readonly ageSeconds: number } | undefined {
    const kept = this.#kept.get(key);
    if (kept === undefined) return undefined;
    this.#kept.delete(key);
    const ageSeconds = Math.floor((now - kept.since) / 1000);
    if (ageSeconds >= kept.reply.ttl) {
      this.#bytes -= cost(key, kept.reply);
      return undefined;
    }
    this.#kept.set(key, kept);
    return { reply: kept.reply, ageSeconds };
  }

  set(key: string, reply: UpstreamReply, now: number): void {
    this.delete(key);
    if (reply.ttl <= 0) return;
    this.#kept.set(key, { reply, since: now });
    this.#bytes += cost(key, reply);
    for (const oldest of this.#kept.keys()) {
      if (this.#bytes <= this.#mostBytes) break;
      this.delete(oldest);
    }
  }

  delete(key: string): void {
    const kept = this.#kept.get(key);
    if (kept === undefined) return;
    this.#kept.delete(key);
    this.#bytes -= cost(key, kept.reply);
  }

  clear(): void {
    this.#kept.clear();
    this.#bytes = 0;
  }
}

function cost(key: string, { message, places }: UpstreamReply): number {
  // What an object, a string and a buffer take besides their content, roughly.
  return 400 + 2 * key.length + message.length + 80 * places.length;
}
