import { headerBytes } from "./message-writer.ts";
import { flags } from "./wire.ts";

/** Of records that take turns in being the first. */
export interface Turning {
  /** Bytes of each; all follow one another behind the question. */
  readonly recordBytes: number;
  readonly count: number;
  /** Of name, type and class of the question. */
  readonly questionBytes: number;
}

interface Known {
  readonly reply: Buffer;
  readonly turning: Turning | undefined;
}

/** A longer question is one in a million and would take the room of ten others. */
const maxQuestionBytes = 320;
const maxReplyBytes = 1232;
const slabBytes = 64 * 1024;

/** Replies of about as many questions as one pod asks; those of the generation before are still found. */
class Generation {
  readonly #known = new Map<string, Known>();
  #slab: Buffer | undefined;
  #used = 0;
  #slabs = 0;

  get size(): number {
    return this.#known.size;
  }

  get slabs(): number {
    return this.#slabs;
  }

  get(key: string): Known | undefined {
    return this.#known.get(key);
  }

  set(key: string, reply: Buffer, turning: Turning | undefined): Known {
    if (this.#slab === undefined || this.#used + reply.length > slabBytes) {
      this.#slab = Buffer.allocUnsafeSlow(slabBytes);
      this.#used = 0;
      this.#slabs += 1;
    }
    const copy = this.#slab.subarray(this.#used, this.#used + reply.length);
    reply.copy(copy);
    this.#used += reply.length;
    const known = { reply: copy, turning };
    this.#known.set(key, known);
    return known;
  }
}

/**
 * Whole replies by the bytes of their question behind the id: what is asked again needs no reading and no writing. At most
 * 2 x 8192 of them in 2 x 2 MiB, and their questions. Whoever changes what names stand for clears it.
 */
export class KnownReplies {
  readonly #most: number;
  #young = new Generation();
  #old = new Generation();

  /** @param most Replies of one generation. */
  constructor(most = 8192) {
    this.#most = most;
  }

  /** The reply under the id of `message`. The same buffer comes again for the next who asks this: send it or copy it. */
  get(message: Buffer): Buffer | undefined {
    if (message.length > maxQuestionBytes) return undefined;
    const key = message.toString("latin1", 2);
    let known = this.#young.get(key);
    if (known === undefined) {
      const old = this.#old.get(key);
      if (old === undefined) return undefined;
      known = this.#add(key, old.reply, old.turning);
    }
    const { reply, turning } = known;
    reply[0] = message[0] ?? 0;
    reply[1] = message[1] ?? 0;
    if (turning !== undefined) turn(reply, turning);
    return reply;
  }

  /** Keeps a copy of `reply` unless it is cut or long. */
  set(message: Buffer, reply: Buffer, turning: Turning | undefined): void {
    if (message.length > maxQuestionBytes || reply.length > maxReplyBytes) return;
    if ((reply.readUInt16BE(2) & flags.truncated) !== 0) return;
    this.#add(message.toString("latin1", 2), reply, turning);
  }

  #add(key: string, reply: Buffer, turning: Turning | undefined): Known {
    if (this.#young.size >= this.#most || this.#young.slabs * slabBytes > maxGenerationBytes) {
      this.#old = this.#young;
      this.#young = new Generation();
    }
    return this.#young.set(key, reply, turning);
  }

  clear(): void {
    this.#young = new Generation();
    this.#old = new Generation();
  }
}

const maxGenerationBytes = 2 * 1024 * 1024 - slabBytes;
const first = Buffer.alloc(64);

/** Puts the first of the answers behind the others. */
function turn(reply: Buffer, { recordBytes, count, questionBytes }: Turning): void {
  const start = headerBytes + questionBytes;
  const last = start + recordBytes * (count - 1);
  reply.copy(first, 0, start, start + recordBytes);
  reply.copyWithin(start, start + recordBytes, last + recordBytes);
  first.copy(reply, last, 0, recordBytes);
}
