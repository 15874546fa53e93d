import { encode, type RecordType } from "dns-packet";

import { headerBytes, MessageWriter } from "./message-writer.ts";
import type { DnsRecord } from "./types.ts";

export { headerBytes };

/** RFC 1035, RFC 6891. */
export const rcodes = {
  noError: 0,
  formErr: 1,
  servFail: 2,
  nxDomain: 3,
  notImp: 4,
  refused: 5,
  badVers: 16,
} as const;

export const flags = { response: 0x8000, authoritative: 0x0400, truncated: 0x0200 } as const;
const recursionDesired = 0x0100;
const recursionAvailable = 0x0080;
const checkingDisabled = 0x0010;

/** What we can take by UDP, and the most we send: fits every path without fragments (DNS flag day 2020). */
export const udpPayloadBytes = 1232;
const plainUDPBytes = 512;
/** The longest message there is (RFC 1035, 4.2.2). */
export const maxMessageBytes = 65_535;
const maxNameBytes = 255;
const classIN = 1;
const typeOPT = 41;
const typeIXFR = 251;
const typeAXFR = 252;

/** Types that the cluster has records of, and ANY; the others are only ever compared. */
const typeNames: Readonly<Record<number, string>> = {
  1: "A",
  2: "NS",
  5: "CNAME",
  6: "SOA",
  12: "PTR",
  16: "TXT",
  28: "AAAA",
  33: "SRV",
  255: "ANY",
};

/** A question as it came, checked. */
export interface Query {
  readonly id: number;
  /** RD and CD as they came. */
  readonly passedFlags: number;
  /** Name, type and class: copied into the answer, so that the asker's spelling comes back (0x20). */
  readonly question: Buffer;
  /** In lower case, without a trailing dot; each byte a character. */
  readonly name: string;
  /** `A`, `SRV`, ...; `TYPE65` for types the cluster has none of. */
  readonly type: string;
  readonly edns: { readonly payloadBytes: number; readonly dnssecOK: boolean } | undefined;
}

export type ParsedQuery =
  | { readonly kind: "query"; readonly query: Query }
  /** Nothing that can be answered, but somebody waits: `reply` says no. */
  | { readonly kind: "refused"; readonly reply: Buffer }
  /** Too short to reply to, or itself a reply. */
  | { readonly kind: "dropped" };

/** Reads a question. Never throws, whatever the bytes; takes time linear in their number. */
export function parseQuery(message: Buffer): ParsedQuery {
  if (message.length < headerBytes) return { kind: "dropped" };
  const word = message.readUInt16BE(2);
  if ((word & flags.response) !== 0) return { kind: "dropped" };
  if (((word >> 11) & 0xf) !== 0) return refused(message, rcodes.notImp);
  if ((word & flags.truncated) !== 0) return refused(message, rcodes.formErr);
  if (message.readUInt16BE(4) !== 1) return refused(message, rcodes.formErr);
  const end = nameEnd(message, headerBytes, false);
  if (end === undefined || end + 4 > message.length) return refused(message, rcodes.formErr);
  const type = message.readUInt16BE(end);
  const plain: Query = {
    id: message.readUInt16BE(0),
    passedFlags: word & (recursionDesired | checkingDisabled),
    question: message.subarray(headerBytes, end + 4),
    name: nameText(message, headerBytes, end),
    type: typeNames[type] ?? `TYPE${type}`,
    edns: undefined,
  };
  // RFC 1995, 3: the zone's SOA stands behind the question.
  if (type === typeIXFR) return refusedQuery(plain, rcodes.refused);
  const others = message.readUInt16BE(6) + message.readUInt16BE(8);
  if (others !== 0) return refused(message, rcodes.formErr);
  const options = readOPT(message, end + 4);
  if (options === "malformed") return refused(message, rcodes.formErr);
  const query = options === undefined ? plain : { ...plain, edns: options };
  if (options !== undefined && options.version > 0) return refusedQuery(query, rcodes.badVers);
  // Transfers of a zone, and classes that nobody has used for decades.
  if (type === typeAXFR) return refusedQuery(query, rcodes.refused);
  if (message.readUInt16BE(end + 2) !== classIN) return refusedQuery(query, rcodes.refused);
  if (type === typeOPT || type === 0) return refusedQuery(query, rcodes.formErr);
  return { kind: "query", query };
}

function refused(message: Buffer, rcode: number): ParsedQuery {
  return { kind: "refused", reply: bareReply(message, rcode) };
}

function refusedQuery(query: Query, rcode: number): ParsedQuery {
  return { kind: "refused", reply: encodeReply(query, { rcode }, plainUDPBytes) };
}

/** The offset behind a name; undefined when it runs out of the message or is too long. Follows no pointer. */
export function nameEnd(message: Buffer, start: number, pointers: boolean): number | undefined {
  for (let offset = start; offset < message.length && offset - start < maxNameBytes;) {
    const length = message[offset] ?? 0;
    if (length === 0) return offset + 1;
    if (length >= 0xc0) return pointers && offset + 2 <= message.length ? offset + 2 : undefined;
    if (length > 63) return undefined;
    offset += length + 1;
  }
  return undefined;
}

/** Bytes in lower case. A dot inside a label becomes a byte that no name of ours has. */
const folded = Uint8Array.from({ length: 256 }, (_, byte) => {
  if (byte === 0x2e) return 0;
  return byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte;
});
const dotted = Buffer.alloc(maxNameBytes);

/** The name without pointers between `start` and `end`, in lower case, without a trailing dot. */
function nameText(message: Buffer, start: number, end: number): string {
  let border = start;
  for (let offset = start; offset < end - 1; offset += 1) {
    const byte = message[offset] ?? 0;
    if (offset === border) {
      dotted[offset - start] = 0x2e;
      border += byte + 1;
    } else {
      dotted[offset - start] = folded[byte] ?? 0;
    }
  }
  return dotted.toString("latin1", 1, end - 1 - start);
}

interface Options {
  readonly payloadBytes: number;
  readonly dnssecOK: boolean;
  readonly version: number;
}

function readOPT(message: Buffer, start: number): Options | undefined | "malformed" {
  let found: Options | undefined;
  let offset = start;
  // A TSIG or SIG(0) may follow; nobody sends more.
  const count = message.readUInt16BE(10);
  if (count > 4) return "malformed";
  for (let turn = 0; turn < count; turn += 1) {
    const end = nameEnd(message, offset, true);
    if (end === undefined || end + 10 > message.length) return "malformed";
    const next = end + 10 + message.readUInt16BE(end + 8);
    if (next > message.length) return "malformed";
    if (message.readUInt16BE(end) === typeOPT) {
      // RFC 6891, 6.1.1: at the root, and only one.
      if (found !== undefined || end !== offset + 1) return "malformed";
      found = {
        payloadBytes: message.readUInt16BE(end + 2),
        version: message[end + 5] ?? 0,
        dnssecOK: ((message[end + 6] ?? 0) & 0x80) !== 0,
      };
    }
    offset = next;
  }
  return found;
}

/** The most that may be sent to who asked this by UDP. */
export function udpLimit({ edns }: Query): number {
  if (edns === undefined) return plainUDPBytes;
  return Math.min(Math.max(edns.payloadBytes, plainUDPBytes), udpPayloadBytes);
}

/** A header that says no to something that could not be read. */
function bareReply(message: Buffer, rcode: number): Buffer {
  const reply = Buffer.alloc(headerBytes);
  message.copy(reply, 0, 0, 2);
  const kept = message.readUInt16BE(2) & (0x7800 | recursionDesired | checkingDisabled);
  reply.writeUInt16BE(flags.response | kept | recursionAvailable | rcode, 2);
  return reply;
}

export interface Reply {
  readonly rcode: number;
  readonly authoritative?: boolean;
  readonly answers?: readonly DnsRecord[];
  readonly authorities?: readonly DnsRecord[];
  readonly additionals?: readonly DnsRecord[];
}

function makeOptRecord(rcode: number, dnssecOK: boolean): Buffer {
  const message = encode({
    type: "response",
    additionals: [
      {
        type: "OPT",
        name: ".",
        udpPayloadSize: udpPayloadBytes,
        extendedRcode: rcode >> 4,
        ednsVersion: 0,
        flags: dnssecOK ? 0x8000 : 0,
        flag_do: dnssecOK,
        options: [],
      },
    ],
  });
  return message.subarray(headerBytes);
}

/** There are only four. */
const optRecords = new Map<number, Buffer>();

function optRecord({ edns }: Query, rcode: number): Buffer {
  const dnssecOK = edns?.dnssecOK === true;
  const key = (rcode >> 4) * 2 + (dnssecOK ? 1 : 0);
  let record = optRecords.get(key);
  if (record === undefined) {
    record = makeOptRecord(rcode, dnssecOK);
    optRecords.set(key, record);
  }
  return record;
}

const none: readonly DnsRecord[] = [];

/**
 * The reply to a query, cut at a record when it would be longer than `limit`. Addresses that were only added for
 * convenience are left out without a word; anything else sets TC, and the asker comes back by TCP, where it gets what
 * there is room for.
 */
export function encodeReply(query: Query, reply: Reply, limit: number): Buffer {
  const { answers = none, authorities = none, additionals = none } = reply;
  const opt = query.edns === undefined ? undefined : optRecord(query, reply.rcode);
  const reserved = opt?.length ?? 0;
  const writer = new MessageWriter(query.name, query.question, limit);
  const answerCount = writer.addAll(answers, reserved);
  const complete = answerCount === answers.length;
  const authorityCount = complete ? writer.addAll(authorities, reserved) : 0;
  const cut = !complete || authorityCount < authorities.length;
  const additionalCount = cut ? 0 : writer.addAll(additionals, reserved);
  // Who asks by TCP could come back with nothing better: a part of ten thousand addresses is what there is.
  const truncated = cut && limit < maxMessageBytes;
  const word =
    flags.response |
    query.passedFlags |
    recursionAvailable |
    (reply.authoritative === true ? flags.authoritative : 0) |
    (truncated ? flags.truncated : 0) |
    (reply.rcode & 0xf);
  writer.setWord(0, query.id);
  writer.setWord(1, word);
  writer.setWord(2, 1);
  writer.setWord(3, answerCount);
  writer.setWord(4, authorityCount);
  writer.setWord(5, additionalCount + (opt === undefined ? 0 : 1));
  return writer.end(opt);
}

/** Name, type and class on the wire. */
export function encodeName(name: string, type: RecordType): Buffer {
  const message = encode({ type: "query", questions: [{ name: name === "" ? "." : name, type }] });
  return message.subarray(headerBytes);
}
