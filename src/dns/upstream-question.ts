import { headerBytes, type Query, udpPayloadBytes } from "./wire.ts";

const optBytes = 11;

/** A question on its way: `message` goes out, and only a reply to `question` under `id` comes back. */
export interface Outgoing {
  readonly message: Buffer;
  readonly id: number;
  /** Name, type and class as they went out. */
  readonly question: Buffer;
  /** The reply must spell the name as `question` does. */
  readonly exactCase?: boolean;
  /** Told of each datagram that came from the server's address and answers something else. */
  readonly onStray?: () => void;
}

/** How a question is put to one server. */
export interface Manner {
  /** With an OPT record: longer datagrams, and DNSSEC for who wants it. A few old servers do not know it. */
  readonly edns: boolean;
  /** The name in letters of random case. Few servers do not give it back as they got it. */
  readonly mixedCase: boolean;
}

/**
 * Letters of a name in a case that nobody can guess (draft-vixie-dnsext-dns0x20): a forger has to guess it too.
 *
 * @param question Name, type and class. @param random [0, 1)
 */
export function mixCase(question: Buffer, random: () => number): Buffer {
  const mixed = Buffer.from(question);
  let bits = 0;
  let left = 0;
  for (let at = 0; at < mixed.length - 4; at += 1) {
    const lower = (mixed[at] ?? 0) | 0x20;
    // Lengths of labels are below 64, and so never look like letters.
    if (lower < 0x61 || lower > 0x7a || (mixed[at] ?? 0) < 0x41) continue;
    if (left === 0) {
      bits = Math.floor(random() * 2 ** 24);
      left = 24;
    }
    mixed[at] = (bits & 1) === 0 ? lower : lower & ~0x20;
    bits >>= 1;
    left -= 1;
  }
  return mixed;
}

/** A question of our own. What the asker said by EDNS is between it and us (RFC 6891, 6.1.3), but for the wish for DNSSEC. */
export function outgoingQuestion(
  query: Pick<Query, "question" | "passedFlags" | "edns">,
  { edns, mixedCase }: Manner,
  random: () => number,
): Outgoing {
  const id = Math.floor(random() * 65_536);
  const question = mixedCase ? mixCase(query.question, random) : query.question;
  const message = Buffer.alloc(headerBytes + question.length + (edns ? optBytes : 0));
  message.writeUInt16BE(id, 0);
  message.writeUInt16BE(query.passedFlags, 2);
  message.writeUInt16BE(1, 4);
  question.copy(message, headerBytes);
  if (edns) {
    message.writeUInt16BE(1, 10);
    writeOPT(message, headerBytes + question.length, query.edns?.dnssecOK === true);
  }
  return { id, question, message, exactCase: mixedCase };
}

/** Writes an OPT record without options (RFC 6891, 6.1.2) and returns the offset behind it. */
export function writeOPT(message: Buffer, at: number, dnssecOK: boolean): number {
  message.writeUInt8(0, at);
  message.writeUInt16BE(41, at + 1);
  message.writeUInt16BE(udpPayloadBytes, at + 3);
  message.writeUInt32BE(dnssecOK ? 0x8000 : 0, at + 5);
  message.writeUInt16BE(0, at + 9);
  return at + optBytes;
}

/** Bytes of {@link writeOPT}. */
export const optRecordBytes: number = optBytes;
