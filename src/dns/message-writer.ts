import { type Answer, encode } from "dns-packet";

import type { DnsRecord } from "./types.ts";

export const headerBytes = 12;

/** Messages are built here, one at a time, and copied out: a buffer of its own for each part would cost more than they. */
const scratch = Buffer.allocUnsafeSlow(65_535);

/** Everything of a record but its name, as it stands in a message. Records live as long as what they speak of. */
const tails = new WeakMap<DnsRecord, Buffer>();

type SOA = Extract<DnsRecord, { readonly type: "SOA" }>;

/** The last one: denials all carry the same, each time made anew. */
let knownSOA: { readonly record: SOA; readonly tail: Buffer } | undefined;

function sameSOA(one: SOA, other: SOA): boolean {
  const { data } = one;
  return (
    one.ttl === other.ttl &&
    data.serial === other.data.serial &&
    data.mname === other.data.mname &&
    data.rname === other.data.rname &&
    data.refresh === other.data.refresh &&
    data.retry === other.data.retry &&
    data.expire === other.data.expire &&
    data.minimum === other.data.minimum
  );
}

function encodedTail(record: DnsRecord): Buffer {
  const answer = { ...record, name: "." } as Answer;
  return encode({ type: "response", answers: [answer] }).subarray(headerBytes + 1);
}

function recordTail(record: DnsRecord): Buffer {
  if (record.type === "SOA") {
    if (knownSOA === undefined || !sameSOA(knownSOA.record, record)) {
      knownSOA = { record, tail: encodedTail(record) };
    }
    return knownSOA.tail;
  }
  const known = tails.get(record);
  if (known !== undefined) return known;
  const tail = encodedTail(record);
  tails.set(record, tail);
  return tail;
}

/** Whether `name` is `of` or one of the names above it. */
function isSuffix(name: string, of: string): boolean {
  return (
    of.endsWith(name) &&
    (of.length === name.length || of.charCodeAt(of.length - name.length - 1) === 0x2e)
  );
}

/**
 * Builds one message: begin, records, words of the header, end. Names that stand in the question or own an earlier record are pointed at.
 * There is only one at a time, and nothing may be awaited in between.
 */
export class MessageWriter {
  readonly #asked: string;
  readonly #limit: number;
  /** Names that stand in the message besides the one asked for. */
  #offsets: Map<string, number> | undefined;
  #length: number;

  /** @param asked The name in `question`, in lower case. @param limit Bytes of the whole message. */
  constructor(asked: string, question: Buffer, limit: number) {
    this.#asked = asked;
    this.#limit = limit;
    this.#length = headerBytes + question.copy(scratch, headerBytes);
  }

  /** @returns whether it fitted, with `reserved` bytes left behind it. */
  add(record: DnsRecord, reserved: number): boolean {
    const tail = recordTail(record);
    // No name is longer than 255 bytes; beyond the limit there is room for one, or else nothing is written.
    if (this.#length + 256 + tail.length > scratch.length) return false;
    const end = this.#writeOwner(record.name);
    if (end + tail.length + reserved > this.#limit) return false;
    if (record.name !== this.#asked) this.#remember(record.name, this.#length);
    tail.copy(scratch, end);
    this.#length = end + tail.length;
    return true;
  }

  /** @returns how many fitted: none behind the first that did not. */
  addAll(records: readonly DnsRecord[], reserved: number): number {
    let count = 0;
    for (const record of records) {
      if (!this.add(record, reserved)) break;
      count += 1;
    }
    return count;
  }

  /** @returns the offset behind it. */
  #writeOwner(name: string): number {
    let at = this.#length;
    for (let rest = name; rest !== "";) {
      const known = isSuffix(rest, this.#asked)
        ? headerBytes + this.#asked.length - rest.length
        : this.#offsets?.get(rest);
      if (known !== undefined) {
        scratch[at] = 0xc0 | (known >> 8);
        scratch[at + 1] = known & 0xff;
        return at + 2;
      }
      const dot = rest.indexOf(".");
      const label = dot < 0 ? rest : rest.slice(0, dot);
      scratch[at] = label.length;
      at += 1 + scratch.write(label, at + 1, "latin1");
      rest = dot < 0 ? "" : rest.slice(dot + 1);
    }
    scratch[at] = 0;
    return at + 1;
  }

  #remember(name: string, start: number): void {
    let offset = start;
    for (let rest = name; rest !== "" && offset < 0x4000;) {
      if (isSuffix(rest, this.#asked) || this.#offsets?.has(rest) === true) return;
      this.#offsets ??= new Map();
      this.#offsets.set(rest, offset);
      const dot = rest.indexOf(".");
      if (dot < 0) return;
      offset += dot + 1;
      rest = rest.slice(dot + 1);
    }
  }

  /** One of the six words of the header. */
  setWord(index: number, value: number): void {
    scratch.writeUInt16BE(value, 2 * index);
  }

  /** @param last A record that room was reserved for. */
  end(last: Buffer | undefined): Buffer {
    if (last !== undefined) this.#length += last.copy(scratch, this.#length);
    const message = Buffer.allocUnsafe(this.#length);
    scratch.copy(message, 0, 0, this.#length);
    return message;
  }
}
