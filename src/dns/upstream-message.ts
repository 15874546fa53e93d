import { decode, type SoaData as DecodedSOA } from "dns-packet";

import { isHostName } from "./names.ts";
import { type RecordPlace, recordPlaces } from "./record-places.ts";
import type { DnsRecord } from "./types.ts";
import { optRecordBytes, type Outgoing, writeOPT } from "./upstream-question.ts";
import { flags, headerBytes, maxMessageBytes, type Query, rcodes } from "./wire.ts";

const typeSOA = 6;
const typeOPT = 41;

/**
 * Whether `message` is the reply to what went out. A refusal without the question, as a few servers send it, is one too:
 * it can do no harm but to make us ask elsewhere.
 */
export function judgeReply(
  message: Buffer,
  { id, question, exactCase = false }: Pick<Outgoing, "id" | "question" | "exactCase">,
): "reply" | "otherCase" | "stray" {
  if (message.length < headerBytes || message.readUInt16BE(0) !== id) return "stray";
  if ((message.readUInt16BE(2) & 0xf800) !== flags.response) return "stray";
  const count = message.readUInt16BE(4);
  if (count === 0) return isBareRefusal(message) ? "reply" : "stray";
  if (count !== 1 || message.length < headerBytes + question.length) return "stray";
  const echoed = message.subarray(headerBytes, headerBytes + question.length);
  if (echoed.equals(question)) return "reply";
  // The last four bytes, type and class, are no text; those of lengths have no case anyway.
  const same =
    echoed.subarray(-4).equals(question.subarray(-4)) &&
    echoed.toString("latin1").toLowerCase() === question.toString("latin1").toLowerCase();
  if (!same) return "stray";
  return exactCase ? "otherCase" : "reply";
}

/** A header that says no, and nothing else. */
export function isBareRefusal(message: Buffer): boolean {
  const rcode = rcodeOf(message);
  return message.readUInt16BE(4) === 0 && rcode !== rcodes.noError && rcode !== rcodes.nxDomain;
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
  /** With the upper bits that only an OPT record carries. */
  readonly rcode: number;
}

/** @returns undefined when the reply is malformed. `maxTTL` in seconds. */
export function readReply(
  message: Buffer,
  question: Buffer,
  maxTTL: number,
): UpstreamReply | undefined {
  if (isBareRefusal(message)) {
    const refusal = Buffer.concat([message.subarray(0, headerBytes), question]);
    refusal.fill(0, 4, headerBytes);
    refusal.writeUInt16BE(1, 4);
    return { message: refusal, places: [], ttl: 0, rcode: rcodeOf(message) };
  }
  const all = recordPlaces(message, headerBytes + question.length);
  if (all === undefined) return undefined;
  const optAt = all.findIndex(({ type }) => type === typeOPT);
  const opt = all[optAt];
  if (opt !== undefined && opt.section !== "additional") return undefined;
  const upper = opt === undefined ? 0 : (message[opt.ttlAt] ?? 0) << 4;
  // What stands in an OPT record is between the server and us (RFC 6891, 6.1.1), and only signatures of the whole
  // message stand behind it.
  const places = optAt < 0 ? all : all.slice(0, optAt);
  const rcode = upper | rcodeOf(message);
  return { message, places, ttl: upper > 0 ? 0 : lifetime(message, places, maxTTL), rcode };
}

function lifetime(message: Buffer, places: readonly RecordPlace[], maxTTL: number): number {
  const rcode = rcodeOf(message);
  if (isTruncated(message) || (rcode !== rcodes.noError && rcode !== rcodes.nxDomain)) return 0;
  const answers = places.filter(({ section }) => section === "answer");
  if (answers.length > 0 && rcode === rcodes.noError) {
    return places.reduce((least, { ttlAt }) => Math.min(least, ttlOf(message, ttlAt)), maxTTL);
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

/**
 * The reply under the asker's id and spelling, with what is left of its time to live, and with EDNS when the asker knows
 * it. Only answers are kept of a reply that has to be cut.
 */
export function passOn(
  { message, places }: UpstreamReply,
  query: Query,
  { ageSeconds, maxTTL, limit }: Passing,
): Buffer {
  const optBytes = query.edns === undefined ? 0 : optRecordBytes;
  const start = headerBytes + query.question.length;
  const most = Math.max(limit, start + optBytes);
  const whole = (places.at(-1)?.end ?? start) + optBytes <= most;
  const kept = whole
    ? places
    : places.filter(({ section, end }) => section === "answer" && end + optBytes <= most);
  const end = kept.at(-1)?.end ?? start;
  const copy = Buffer.allocUnsafe(end + optBytes);
  message.copy(copy, 0, 0, end);
  copy.writeUInt16BE(query.id, 0);
  query.question.copy(copy, headerBytes);
  for (const { start: at, ttlAt } of kept) {
    respell(copy, at, query.question);
    copy.writeUInt32BE(Math.max(0, Math.min(ttlOf(message, ttlAt), maxTTL) - ageSeconds), ttlAt);
  }
  // A datagram must say that it was cut. Who asks by TCP could not do better than to take what there is.
  const truncated = isTruncated(message) || (!whole && limit < maxMessageBytes);
  const word = message.readUInt16BE(2);
  copy.writeUInt16BE(truncated ? word | flags.truncated : word & ~flags.truncated, 2);
  copy.writeUInt16BE(countOf(kept, "answer"), 6);
  copy.writeUInt16BE(countOf(kept, "authority"), 8);
  copy.writeUInt16BE(countOf(kept, "additional") + (optBytes === 0 ? 0 : 1), 10);
  if (query.edns !== undefined) writeOPT(copy, end, query.edns.dnssecOK);
  return copy;
}

function countOf(places: readonly RecordPlace[], section: RecordPlace["section"]): number {
  return places.reduce((count, place) => (place.section === section ? count + 1 : count), 0);
}

/** Gives a record's name the asker's spelling, where it stands in full and is the name that was asked for. */
function respell(message: Buffer, at: number, question: Buffer): void {
  // Nearly all point at the question instead.
  if ((message[at] ?? 0) >= 0xc0) return;
  const length = question.length - 4;
  const name = message.toString("latin1", at, at + length);
  if (name.toLowerCase() !== question.toString("latin1", 0, length).toLowerCase()) return;
  question.copy(message, at, 0, length);
}

const maxDecodedBytes = 4096;
const maxDecodedAnswers = 64;

/** What a name outside stands for, to be told under an alias of ours. */
export interface BehindAlias {
  readonly rcode: number;
  readonly answers: readonly DnsRecord[];
  /** The zone's SOA when there is nothing: that is kept as long as the zone says (RFC 2308). */
  readonly authorities: readonly DnsRecord[];
}

/**
 * The addresses that the asked name of a reply leads to, with the aliases on the way; what else stands in it is not
 * believed. Undefined when the reply is too long to be worth the work, or malformed.
 */
export function behindAlias(
  message: Buffer,
  { maxTTL, ageSeconds }: Pick<Passing, "maxTTL" | "ageSeconds">,
): BehindAlias | undefined {
  if (message.length > maxDecodedBytes || message.readUInt16BE(6) > maxDecodedAnswers) {
    return undefined;
  }
  try {
    const { questions = [], answers = [], authorities = [] } = decode(message);
    const ttlNow = (ttl = 0): number => Math.max(0, Math.min(ttl, maxTTL) - ageSeconds);
    const records = answers.flatMap((answer): DnsRecord[] => {
      if (answer.type !== "A" && answer.type !== "AAAA" && answer.type !== "CNAME") return [];
      const name = answer.name.toLowerCase();
      if (!isHostName(name)) return [];
      // The next name is looked for by what it is, however it is spelled.
      const data = answer.type === "CNAME" ? answer.data.toLowerCase() : answer.data;
      return [{ name, type: answer.type, ttl: ttlNow(answer.ttl), data }];
    });
    const chain = chainFrom(questions[0]?.name.toLowerCase() ?? "", records);
    return {
      rcode: rcodeOf(message),
      answers: records.filter(({ name }) => chain.has(name)),
      authorities: authorities.flatMap((each): DnsRecord[] => {
        if (each.type !== "SOA" || !isHostName(each.name)) return [];
        const { name, data } = each;
        return [
          { name: name.toLowerCase(), type: "SOA", ttl: ttlNow(each.ttl), data: soaOf(data) },
        ];
      }),
    };
  } catch {
    return undefined;
  }
}

type SOAData = Extract<DnsRecord, { readonly type: "SOA" }>["data"];

function soaOf(data: DecodedSOA): SOAData {
  const { mname, rname, serial = 0, refresh = 0, retry = 0, expire = 0, minimum = 0 } = data;
  return { mname, rname, serial, refresh, retry, expire, minimum };
}

/** The name and those that its aliases lead to. */
function chainFrom(first: string, records: readonly DnsRecord[]): ReadonlySet<string> {
  const aliases = new Map(
    records.flatMap((record) => (record.type === "CNAME" ? [[record.name, record.data]] : [])),
  );
  const chain = new Set<string>();
  for (let name: string | undefined = first; name !== undefined && !chain.has(name);) {
    chain.add(name);
    name = aliases.get(name);
  }
  return chain;
}
