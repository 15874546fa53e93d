import { decode } from "dns-packet";

import { isHostName } from "./names.ts";
import type { DnsRecord } from "./types.ts";
import { flags, headerBytes, nameEnd, type Query, rcodes } from "./wire.ts";

const typeSOA = 6;
const typeOPT = 41;

interface RecordPlace {
  readonly section: "answer" | "authority" | "additional";
  readonly type: number;
  readonly start: number;
  readonly end: number;
  /** Of the four bytes of the TTL; the data begins six bytes further. */
  readonly ttlAt: number;
}

/** Where the records of a message stand; undefined when it is malformed. Linear in the message's length. */
function recordPlaces(message: Buffer, start: number): readonly RecordPlace[] | undefined {
  const places: RecordPlace[] = [];
  let offset = start;
  for (const [section, countAt] of [
    ["answer", 6],
    ["authority", 8],
    ["additional", 10],
  ] as const) {
    for (let left = message.readUInt16BE(countAt); left > 0; left -= 1) {
      const nameStop = nameEnd(message, offset, true);
      if (nameStop === undefined || nameStop + 10 > message.length) return undefined;
      const end = nameStop + 10 + message.readUInt16BE(nameStop + 8);
      if (end > message.length) return undefined;
      const type = message.readUInt16BE(nameStop);
      places.push({ section, type, start: offset, end, ttlAt: nameStop + 4 });
      offset = end;
    }
  }
  return places;
}

/** Whether `message` is a reply to the question that went out under `id`. Case may differ: some servers lower it. */
export function answersQuestion(message: Buffer, id: number, question: Buffer): boolean {
  if (message.length < headerBytes + question.length) return false;
  if (message.readUInt16BE(0) !== id || (message.readUInt16BE(2) & 0xf800) !== flags.response) {
    return false;
  }
  if (message.readUInt16BE(4) !== 1) return false;
  const echoed = message.subarray(headerBytes, headerBytes + question.length);
  // The last four bytes, type and class, are no text; their bytes below 0x20 have no case anyway.
  return (
    echoed.equals(question) ||
    (echoed.subarray(-4).equals(question.subarray(-4)) &&
      echoed.toString("latin1").toLowerCase() === question.toString("latin1").toLowerCase())
  );
}

export function isTruncated(message: Buffer): boolean {
  return (message.readUInt16BE(2) & flags.truncated) !== 0;
}

export function rcodeOf(message: Buffer): number {
  return message.readUInt16BE(2) & 0xf;
}

/** A reply from upstream that was read once, so that it can be sent to many. */
export interface UpstreamReply {
  readonly message: Buffer;
  readonly places: readonly RecordPlace[];
  /** How long it may be kept, in seconds; 0 = not at all. */
  readonly ttl: number;
}

/** @returns undefined when the reply is malformed. `maxTTL` in seconds. */
export function readReply(
  message: Buffer,
  question: Buffer,
  maxTTL: number,
): UpstreamReply | undefined {
  const places = recordPlaces(message, headerBytes + question.length);
  if (places === undefined) return undefined;
  return { message, places, ttl: lifetime(message, places, maxTTL) };
}

function lifetime(message: Buffer, places: readonly RecordPlace[], maxTTL: number): number {
  const rcode = rcodeOf(message);
  if (isTruncated(message) || (rcode !== rcodes.noError && rcode !== rcodes.nxDomain)) return 0;
  const answers = places.filter(({ section }) => section === "answer");
  if (answers.length > 0 && rcode === rcodes.noError) {
    const ttls = places
      .filter(({ type }) => type !== typeOPT)
      .map(({ ttlAt }) => ttlOf(message, ttlAt));
    return Math.min(maxTTL, ...ttls);
  }
  // RFC 2308, 5: what is not there is kept as long as the zone says, and not at all when it says nothing.
  const soa = places.find(({ section, type }) => section === "authority" && type === typeSOA);
  if (soa === undefined || soa.end - soa.ttlAt < 26) return 0;
  return Math.min(maxTTL, ttlOf(message, soa.ttlAt), message.readUInt32BE(soa.end - 4));
}

function ttlOf(message: Buffer, at: number): number {
  const ttl = message.readUInt32BE(at);
  // RFC 2181, 8: the top bit set means 0.
  return ttl > 0x7fff_ffff ? 0 : ttl;
}

/** What a reply becomes for one asker. */
export interface Passing {
  readonly ageSeconds: number;
  readonly maxTTL: number;
  /** Bytes; more is cut at a record and marked. */
  readonly limit: number;
}

/** The reply under the asker's id and spelling, with what is left of its time to live. */
export function passOn(
  { message, places }: UpstreamReply,
  query: Query,
  { ageSeconds, maxTTL, limit }: Passing,
): Buffer {
  const copy = Buffer.from(message);
  copy.writeUInt16BE(query.id, 0);
  query.question.copy(copy, headerBytes);
  for (const { type, ttlAt } of places) {
    if (type === typeOPT) continue;
    copy.writeUInt32BE(Math.max(0, Math.min(ttlOf(message, ttlAt), maxTTL) - ageSeconds), ttlAt);
  }
  return copy.length <= limit ? copy : cut(copy, places, query, limit);
}

function cut(message: Buffer, places: readonly RecordPlace[], query: Query, limit: number): Buffer {
  const opt = places.find(({ type }) => type === typeOPT);
  const optBytes = opt === undefined ? 0 : opt.end - opt.start;
  let end = headerBytes + query.question.length;
  let kept = 0;
  for (const place of places) {
    if (place.section !== "answer" || place.end + optBytes > limit) break;
    end = place.end;
    kept += 1;
  }
  const head = Buffer.from(message.subarray(0, end));
  head.writeUInt16BE(head.readUInt16BE(2) | flags.truncated, 2);
  head.writeUInt16BE(kept, 6);
  head.writeUInt16BE(0, 8);
  const carriesOPT = opt !== undefined && end + optBytes <= limit;
  head.writeUInt16BE(carriesOPT ? 1 : 0, 10);
  return carriesOPT ? Buffer.concat([head, message.subarray(opt.start, opt.end)]) : head;
}

const maxDecodedBytes = 4096;
const maxDecodedAnswers = 64;

/**
 * The addresses and aliases of a reply, to be told under an alias of ours. Undefined when the reply is too long to be
 * worth the work, or malformed.
 */
export function addressRecords(message: Buffer, maxTTL: number): readonly DnsRecord[] | undefined {
  if (message.length > maxDecodedBytes || message.readUInt16BE(6) > maxDecodedAnswers) {
    return undefined;
  }
  try {
    return (decode(message).answers ?? []).flatMap((answer): DnsRecord[] => {
      if (answer.type !== "A" && answer.type !== "AAAA" && answer.type !== "CNAME") return [];
      const name = answer.name.toLowerCase();
      const ttl = Math.min(answer.ttl ?? 0, maxTTL);
      if (!isHostName(name)) return [];
      return [{ name, type: answer.type, ttl, data: answer.data }];
    });
  } catch {
    return undefined;
  }
}
