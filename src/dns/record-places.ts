import { headerBytes } from "./wire.ts";

/** Where one record of a message stands. */
export interface RecordPlace {
  readonly section: "answer" | "authority" | "additional";
  readonly type: number;
  readonly start: number;
  readonly end: number;
  /** Of the four bytes of the TTL; the data begins six bytes further. */
  readonly ttlAt: number;
}

const maxNameBytes = 255;
/** Real names have one or two; each costs time, and thousands of records may share them. */
const maxPointers = 32;
const classIN = 1;

/** The data of a type: so many bytes, so many names, and so many bytes again. */
interface Shape {
  readonly before: number;
  readonly names: number;
  readonly after: number;
}

/** Types whose data may hold names with pointers (RFC 1035; RFC 3597, 4), or has one length only. */
const shapes: ReadonlyMap<number, Shape> = new Map([
  // A, AAAA
  [1, { before: 4, names: 0, after: 0 }],
  [28, { before: 16, names: 0, after: 0 }],
  // NS, CNAME, PTR, DNAME
  ...[2, 5, 12, 39].map((type) => [type, { before: 0, names: 1, after: 0 }] as const),
  // SOA, MX, SRV
  [6, { before: 0, names: 2, after: 20 }],
  [15, { before: 2, names: 1, after: 0 }],
  [33, { before: 6, names: 1, after: 0 }],
]);

/**
 * Where the records of a message stand. Undefined when it is malformed: names that do not end, are too long, or point
 * anywhere but back; data that is not as long as its type wants it. Linear in the message's length.
 *
 * @param start Behind the question.
 */
export function recordPlaces(message: Buffer, start: number): readonly RecordPlace[] | undefined {
  const places: RecordPlace[] = [];
  let offset = start;
  for (const [section, countAt] of [
    ["answer", 6],
    ["authority", 8],
    ["additional", 10],
  ] as const) {
    for (let left = message.readUInt16BE(countAt); left > 0; left -= 1) {
      const nameStop = wholeNameEnd(message, offset);
      if (nameStop === undefined || nameStop + 10 > message.length) return undefined;
      const end = nameStop + 10 + message.readUInt16BE(nameStop + 8);
      if (end > message.length) return undefined;
      const type = message.readUInt16BE(nameStop);
      const inClass = message.readUInt16BE(nameStop + 2) === classIN;
      const shape = inClass ? shapes.get(type) : undefined;
      if (shape !== undefined && !hasShape(message, nameStop + 10, end, shape)) return undefined;
      places.push({ section, type, start: offset, end, ttlAt: nameStop + 4 });
      offset = end;
    }
  }
  return places;
}

function hasShape(message: Buffer, start: number, end: number, shape: Shape): boolean {
  let offset: number | undefined = start + shape.before;
  for (let left = shape.names; left > 0; left -= 1) {
    offset = wholeNameEnd(message, offset);
    if (offset === undefined) return false;
  }
  return offset + shape.after === end;
}

/** The offset behind a name whose pointers, if any, lead to a whole one; undefined when they do not. */
function wholeNameEnd(message: Buffer, start: number): number | undefined {
  let behind: number | undefined;
  let bytes = 0;
  let pointers = 0;
  let from = start;
  for (let offset = start; offset < message.length;) {
    const length = message[offset] ?? 0;
    if (length === 0) return behind ?? offset + 1;
    if (length >= 0xc0) {
      if (offset + 2 > message.length) return undefined;
      behind ??= offset + 2;
      const target = message.readUInt16BE(offset) & 0x3fff;
      pointers += 1;
      // Back only: so it ends.
      if (target >= from || target < headerBytes || pointers > maxPointers) return undefined;
      from = target;
      offset = target;
      continue;
    }
    bytes += length + 1;
    if (length > 63 || bytes >= maxNameBytes) return undefined;
    offset += length + 1;
  }
  return undefined;
}
