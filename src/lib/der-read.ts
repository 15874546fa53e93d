import { ParseError } from "./errors.ts";

// The part of DER (ITU-T X.690) that certificate requests need. Reading only; der.ts writes.

/** One TLV element. */
export interface DerElement {
  readonly tag: number;
  readonly content: Buffer;
  /** Tag, length and content. */
  readonly raw: Buffer;
}

/** How many bytes a length may take: far more than any request has. */
const maxLengthBytes = 3;

function malformed(what: string): ParseError {
  return new ParseError(`DER ${what}`, "a well-formed element");
}

function readLength(bytes: Buffer, at: number): { readonly length: number; readonly next: number } {
  const first = bytes[at];
  if (first === undefined) throw malformed("length");
  if (first < 0x80) return { length: first, next: at + 1 };
  const count = first & 0x7f;
  if (count === 0 || count > maxLengthBytes || at + 1 + count > bytes.length)
    throw malformed("length");
  const length = bytes.readUIntBE(at + 1, count);
  // DER has one way to write a length: the shortest.
  if (length < 0x80 || length < 256 ** (count - 1)) throw malformed("length");
  return { length, next: at + 1 + count };
}

/**
 * All elements of `bytes`, one after the other.
 *
 * @throws {ParseError} when they do not fill it exactly.
 */
export function readElements(bytes: Uint8Array): DerElement[] {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out: DerElement[] = [];
  let at = 0;
  while (at < buffer.length) {
    const tag = buffer[at] ?? 0;
    // Tags above 30 take more bytes and occur in no certificate.
    if ((tag & 0x1f) === 0x1f) throw malformed("tag");
    const { length, next } = readLength(buffer, at + 1);
    const end = next + length;
    if (end > buffer.length) throw malformed("content");
    out.push({ tag, content: buffer.subarray(next, end), raw: buffer.subarray(at, end) });
    at = end;
  }
  return out;
}

/** @throws {ParseError} unless `element` is there and has this tag. */
export function expectTag(element: DerElement | undefined, tag: number, what: string): DerElement {
  if (element?.tag !== tag) throw new ParseError(what, `tag 0x${tag.toString(16)}`);
  return element;
}

/** Dotted text of an OBJECT IDENTIFIER's content. */
export function objectIdentifierText(content: Uint8Array): string {
  const arcs: number[] = [];
  let arc = 0;
  for (const byte of content) {
    arc = arc * 128 + (byte & 0x7f);
    if ((byte & 0x80) !== 0) continue;
    arcs.push(arc);
    arc = 0;
  }
  const [head = 0, ...rest] = arcs;
  const first = Math.min(Math.floor(head / 40), 2);
  return [first, head - first * 40, ...rest].join(".");
}
