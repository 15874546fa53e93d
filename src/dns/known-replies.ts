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
  readonly hash: number;
  /** In the room set aside. */
  readonly place: number;
  /** The question behind the id. */
  readonly question: Buffer;
  readonly reply: Buffer;
  readonly turning: Turning | undefined;
}

const idBytes = 2;
const pairs = 4096;
/** Of one question and its reply: names of usual length, and two dozen addresses. */
const placeBytes = 512;

/**
 * Whole replies by the bytes of their question behind the id: what is asked again needs no reading and no writing. Room
 * for 8192 of them is set aside once, 4 MiB; a new one takes the place of the less recently asked of two. What is asked
 * only once is not kept. Whoever changes what names stand for clears it.
 */
export class KnownReplies {
  #room = Buffer.allocUnsafeSlow(2 * pairs * placeBytes);
  /** Two for each hash, the one that was asked for last first. */
  readonly #known: (Known | undefined)[] = Array.from({ length: 2 * pairs });
  /** Hashes of questions that were asked once. */
  readonly #seen = new Int32Array(4 * pairs);

  /** The reply under the id of `message`. The same buffer comes again for the next who asks this: send it or copy it. */
  get(message: Buffer): Buffer | undefined {
    if (message.length > placeBytes) return undefined;
    const hash = hashOf(message);
    const at = 2 * (hash & (pairs - 1));
    let known = this.#known[at];
    if (known === undefined || !isOf(known, hash, message)) {
      const second = this.#known[at + 1];
      if (second === undefined || !isOf(second, hash, message)) return undefined;
      this.#known[at + 1] = known;
      this.#known[at] = second;
      known = second;
    }
    const { reply, turning } = known;
    reply[0] = message[0] ?? 0;
    reply[1] = message[1] ?? 0;
    if (turning !== undefined) turn(reply, turning);
    return reply;
  }

  /** Keeps a copy of `reply` when this is not the first time, unless it is cut or long. */
  set(message: Buffer, reply: Buffer, turning: Turning | undefined): void {
    const questionBytes = message.length - idBytes;
    if (questionBytes + reply.length > placeBytes) return;
    if ((reply.readUInt16BE(2) & flags.truncated) !== 0) return;
    const hash = hashOf(message);
    const seenAt = hash & (this.#seen.length - 1);
    if (this.#seen[seenAt] !== hash) {
      this.#seen[seenAt] = hash;
      return;
    }
    const at = 2 * (hash & (pairs - 1));
    const first = this.#known[at];
    const place = this.#known[at + 1]?.place ?? (first?.place === at ? at + 1 : at);
    const start = place * placeBytes;
    const question = this.#room.subarray(start, start + questionBytes);
    message.copy(question, 0, idBytes);
    const copy = this.#room.subarray(start + questionBytes, start + questionBytes + reply.length);
    reply.copy(copy);
    this.#known[at + 1] = first;
    this.#known[at] = { hash, place, question, reply: copy, turning };
  }

  clear(): void {
    this.#known.fill(undefined);
  }

  /** Clears it, and never again writes to what it has given out. */
  leave(): void {
    this.clear();
    this.#room = Buffer.allocUnsafeSlow(this.#room.length);
  }
}

/** FNV-1a of what stands behind the id. */
function hashOf(message: Buffer): number {
  let hash = 0x811c_9dc5 | 0;
  for (let at = idBytes; at < message.length; at += 1) {
    hash = Math.imul(hash ^ (message[at] ?? 0), 0x0100_0193);
  }
  // Its low bits depend on the low bits of all bytes only.
  return hash ^ (hash >>> 15);
}

function isOf({ hash: own, question }: Known, hash: number, message: Buffer): boolean {
  if (own !== hash || question.length !== message.length - idBytes) return false;
  for (let at = 0; at < question.length; at += 1) {
    if (question[at] !== message[at + idBytes]) return false;
  }
  return true;
}

const turned = Buffer.alloc(64);

/** Puts the first of the answers behind the others. */
function turn(reply: Buffer, { recordBytes, count, questionBytes }: Turning): void {
  const start = headerBytes + questionBytes;
  const last = start + recordBytes * (count - 1);
  reply.copy(turned, 0, start, start + recordBytes);
  reply.copyWithin(start, start + recordBytes, last + recordBytes);
  turned.copy(reply, last, 0, recordBytes);
}
