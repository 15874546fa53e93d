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

const idBytes = 2;
const pairs = 4096;
/** Of one question and its reply: names of usual length, and two dozen addresses. */
const placeBytes = 512;

/** What a place holds; all numbers, so that one question that takes the place of another leaves nothing to be collected. */
class Places {
  readonly hash = new Int32Array(2 * pairs);
  readonly questionBytes = new Uint16Array(2 * pairs);
  /** 0 = nothing is there. */
  readonly replyBytes = new Uint16Array(2 * pairs);
  /** Of {@link Turning}; a count of 0 = nothing turns. */
  readonly count = new Uint16Array(2 * pairs);
  readonly recordBytes = new Uint8Array(2 * pairs);
  readonly turnsBehind = new Uint16Array(2 * pairs);
}

/**
 * Whole replies by the bytes of their question behind the id: what is asked again needs no reading and no writing. Room
 * for 8192 of them is set aside once, 4 MiB; a new one takes the place of the less recently asked of two. What is asked
 * only once is not kept. Whoever changes what names stand for clears it.
 */
export class KnownReplies {
  /** Two places for each pair, in each the question behind the id and the reply behind that. */
  #room = Buffer.allocUnsafeSlow(2 * pairs * placeBytes);
  readonly #places = new Places();
  /** Which of the two was asked for last. */
  readonly #latest = new Uint8Array(pairs);
  /** Hashes of questions that were asked once. */
  readonly #seen = new Int32Array(4 * pairs);

  /** The reply under the id of `message`. Its bytes change with the next who asks this: send it or copy it. */
  get(message: Buffer): Buffer | undefined {
    if (message.length > placeBytes) return undefined;
    const hash = hashOf(message);
    const pair = hash & (pairs - 1);
    const latest = this.#latest[pair] ?? 0;
    let place = 2 * pair + latest;
    if (!this.#holds(place, hash, message)) {
      place ^= 1;
      if (!this.#holds(place, hash, message)) return undefined;
      this.#latest[pair] = latest ^ 1;
    }
    const places = this.#places;
    const start = place * placeBytes + (places.questionBytes[place] ?? 0);
    const reply = this.#room.subarray(start, start + (places.replyBytes[place] ?? 0));
    reply[0] = message[0] ?? 0;
    reply[1] = message[1] ?? 0;
    const count = places.count[place] ?? 0;
    if (count > 0) {
      const recordBytes = places.recordBytes[place] ?? 0;
      turn(reply, { count, recordBytes, questionBytes: places.turnsBehind[place] ?? 0 });
    }
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
    const pair = hash & (pairs - 1);
    const latest = (this.#latest[pair] ?? 0) ^ 1;
    this.#latest[pair] = latest;
    const place = 2 * pair + latest;
    const start = place * placeBytes;
    message.copy(this.#room, start, idBytes);
    reply.copy(this.#room, start + questionBytes);
    const places = this.#places;
    places.hash[place] = hash;
    places.questionBytes[place] = questionBytes;
    places.replyBytes[place] = reply.length;
    places.count[place] = turning?.count ?? 0;
    places.recordBytes[place] = turning?.recordBytes ?? 0;
    places.turnsBehind[place] = turning?.questionBytes ?? 0;
  }

  clear(): void {
    this.#places.replyBytes.fill(0);
  }

  /** Clears it, and never again writes to what it has given out. */
  leave(): void {
    this.clear();
    this.#room = Buffer.allocUnsafeSlow(this.#room.length);
  }

  #holds(place: number, hash: number, message: Buffer): boolean {
    const { hash: hashes, questionBytes, replyBytes } = this.#places;
    if (hashes[place] !== hash || replyBytes[place] === 0) return false;
    const { length } = message;
    if (questionBytes[place] !== length - idBytes) return false;
    const room = this.#room;
    const ahead = place * placeBytes - idBytes;
    for (let at = idBytes; at < length; at += 1) {
      if (room[ahead + at] !== message[at]) return false;
    }
    return true;
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

const turned = Buffer.alloc(64);

/** Puts the first of the answers behind the others. */
function turn(reply: Buffer, { recordBytes, count, questionBytes }: Turning): void {
  const start = headerBytes + questionBytes;
  const last = start + recordBytes * (count - 1);
  reply.copy(turned, 0, start, start + recordBytes);
  reply.copyWithin(start, start + recordBytes, last + recordBytes);
  turned.copy(reply, last, 0, recordBytes);
}
