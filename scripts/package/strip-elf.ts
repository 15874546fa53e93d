// Binutils' strip knows the machine that it was built for; this one cuts the same from programs of every 64-bit one, and
// to the same bytes on every machine that packages.

const elfHeaderBytes = 64;
const sectionHeaderBytes = 64;
/** SHF_ALLOC: the section is in memory when the program runs. */
const allocated = 0x2n;
/** SHT_NOBITS: takes no place in the file. */
const noBits = 8;

interface Section {
  /** Its header as it stands in the file. */
  readonly header: Buffer;
  readonly name: string;
  readonly type: number;
  readonly flags: bigint;
  readonly offset: number;
  readonly size: number;
}

function cString(bytes: Buffer, from: number): string {
  return bytes.toString("latin1", from, bytes.indexOf(0, from));
}

function sectionsOf(elf: Buffer): readonly Section[] {
  const table = Number(elf.readBigUInt64LE(0x28));
  const count = elf.readUInt16LE(0x3c);
  const headers = Array.from({ length: count }, (_, index) => {
    const at = table + index * sectionHeaderBytes;
    return elf.subarray(at, at + sectionHeaderBytes);
  });
  const namesHeader = headers[elf.readUInt16LE(0x3e)];
  if (namesHeader === undefined) throw new Error("the program has no names of sections");
  const names = elf.subarray(Number(namesHeader.readBigUInt64LE(0x18)));
  return headers.map((header) => ({
    header,
    name: cString(names, header.readUInt32LE(0)),
    type: header.readUInt32LE(4),
    flags: header.readBigUInt64LE(8),
    offset: Number(header.readBigUInt64LE(0x18)),
    size: Number(header.readBigUInt64LE(0x20)),
  }));
}

/** The last byte of the file that a running program has in memory. */
function endOfSegments(elf: Buffer): number {
  const table = Number(elf.readBigUInt64LE(0x20));
  const bytes = elf.readUInt16LE(0x36);
  const count = elf.readUInt16LE(0x38);
  const ends = Array.from({ length: count }, (_, index) => {
    const at = table + index * bytes;
    return Number(elf.readBigUInt64LE(at + 8)) + Number(elf.readBigUInt64LE(at + 0x20));
  });
  return Math.max(elfHeaderBytes, table + bytes * count, ...ends);
}

/**
 * A 64-bit little-endian ELF program without symbols and debugging sections: everything that is in memory when it runs
 * stays where it is, byte for byte.
 *
 * @throws {Error} when it is no such program, or when something to be kept lies where it cannot.
 */
export function stripElf(elf: Buffer): Buffer {
  if (elf.readUInt32BE(0) !== 0x7f454c46 || elf[4] !== 2 || elf[5] !== 1) {
    throw new Error("not a 64-bit little-endian ELF program");
  }
  const end = endOfSegments(elf);
  // The first entry is the empty one that the format wants.
  const sections = sectionsOf(elf);
  const kept = sections.filter(({ flags }, index) => index === 0 || (flags & allocated) !== 0n);
  for (const { name, type, offset, size } of kept) {
    if (type !== noBits && offset + size > end) throw new Error(`section ${name} is in no segment`);
  }
  // What is not kept is linked by nothing that is.
  const moved = (index: number): number => {
    const section = sections[index];
    return section === undefined ? 0 : Math.max(0, kept.indexOf(section));
  };

  const names = Buffer.from(
    `${[...kept.map(({ name }) => name), ".shstrtab"].join("\0")}\0`,
    "latin1",
  );
  let nameAt = 0;
  const headers = kept.map(({ header, name, flags }) => {
    const copy = Buffer.from(header);
    copy.writeUInt32LE(nameAt, 0);
    nameAt += name.length + 1;
    // sh_link: another section, by its number; sh_info is one too where SHF_INFO_LINK says so.
    copy.writeUInt32LE(moved(header.readUInt32LE(0x28)), 0x28);
    if ((flags & 0x40n) !== 0n) copy.writeUInt32LE(moved(header.readUInt32LE(0x2c)), 0x2c);
    return copy;
  });
  const namesHeader = Buffer.alloc(sectionHeaderBytes);
  namesHeader.writeUInt32LE(nameAt, 0);
  namesHeader.writeUInt32LE(3, 4); // SHT_STRTAB
  namesHeader.writeBigUInt64LE(BigInt(end), 0x18);
  namesHeader.writeBigUInt64LE(BigInt(names.length), 0x20);
  namesHeader.writeBigUInt64LE(1n, 0x30);

  const tableAt = Math.ceil((end + names.length) / 8) * 8;
  const out = Buffer.alloc(tableAt + (headers.length + 1) * sectionHeaderBytes);
  elf.copy(out, 0, 0, end);
  names.copy(out, end);
  Buffer.concat([...headers, namesHeader]).copy(out, tableAt);
  out.writeBigUInt64LE(BigInt(tableAt), 0x28);
  out.writeUInt16LE(headers.length + 1, 0x3c);
  out.writeUInt16LE(headers.length, 0x3e);
  return out;
}
