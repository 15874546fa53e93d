import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { checkMachine } from "../../../scripts/package/node-binary.ts";
import { stripElf } from "../../../scripts/package/strip-elf.ts";

interface Section {
  readonly name: string;
  readonly type: number;
  readonly flags: number;
  readonly content: string;
  /** Of the section that it belongs to. */
  readonly link?: number;
}

const text: Section = { name: ".text", type: 1, flags: 0x6, content: "code that runs" };
const names: Section = { name: ".dynstr", type: 3, flags: 0x2, content: "\0malloc\0" };
const debug: Section = { name: ".debug_info", type: 1, flags: 0, content: "lines of sources" };
const symbols: Section = { name: ".symtab", type: 2, flags: 0, content: "s".repeat(48), link: 0 };

/** A program of one segment with all sections that are in memory, and the others behind it. */
function elf(sections: readonly Section[], machine = 62): Buffer {
  const header = Buffer.alloc(64);
  header.writeUInt32BE(0x7f454c46, 0);
  header[4] = 2;
  header[5] = 1;
  header.writeUInt16LE(machine, 0x12);
  const segment = Buffer.alloc(56);
  const all: readonly Section[] = [{ name: "", type: 0, flags: 0, content: "" }, ...sections];
  const table = `${[...all.map(({ name }) => name), ".shstrtab"].join("\0")}\0`;
  const bodies: Buffer[] = [];
  const headers: Buffer[] = [];
  let at = 120;
  let nameAt = 0;
  let end = at;
  const withNames = [...all, { name: ".shstrtab", type: 3, flags: 0, content: table }];
  for (const { name, type, flags, content, link } of withNames as readonly Section[]) {
    const entry = Buffer.alloc(64);
    entry.writeUInt32LE(nameAt, 0);
    nameAt += name.length + 1;
    entry.writeUInt32LE(type, 4);
    entry.writeBigUInt64LE(BigInt(flags), 8);
    entry.writeBigUInt64LE(BigInt(at), 0x18);
    entry.writeBigUInt64LE(BigInt(content.length), 0x20);
    entry.writeUInt32LE(link ?? 0, 0x28);
    headers.push(entry);
    bodies.push(Buffer.from(content));
    at += content.length;
    if ((flags & 2) !== 0) end = at;
  }
  segment.writeUInt32LE(1, 0);
  segment.writeBigUInt64LE(BigInt(end), 0x20);
  header.writeBigUInt64LE(64n, 0x20);
  header.writeUInt16LE(56, 0x36);
  header.writeUInt16LE(1, 0x38);
  header.writeBigUInt64LE(BigInt(at), 0x28);
  header.writeUInt16LE(headers.length, 0x3c);
  header.writeUInt16LE(headers.length - 1, 0x3e);
  return Buffer.concat([header, segment, ...bodies, ...headers]);
}

/** Names of a program's sections, each with its content and the name of the one that it belongs to. */
function sectionsOf(program: Buffer): readonly (readonly [string, string, string])[] {
  const table = Number(program.readBigUInt64LE(0x28));
  const headers = Array.from({ length: program.readUInt16LE(0x3c) }, (_, index) =>
    program.subarray(table + index * 64, table + (index + 1) * 64),
  );
  const content = (header: Buffer | undefined): string => {
    const from = Number(header?.readBigUInt64LE(0x18) ?? 0n);
    return program.toString("latin1", from, from + Number(header?.readBigUInt64LE(0x20) ?? 0n));
  };
  const strings = content(headers[program.readUInt16LE(0x3e)]);
  const nameOf = (header: Buffer | undefined): string =>
    /^[^\0]*/.exec(strings.slice(header?.readUInt32LE(0)))?.[0] ?? "";
  return headers.map((header) => [
    nameOf(header),
    content(header),
    nameOf(headers[header.readUInt32LE(0x28)]),
  ]);
}

describe("a program without its symbols", () => {
  test("keeps what is in memory when it runs, and loses the rest", () => {
    const stripped = stripElf(elf([text, names, debug, symbols]));
    assert.deepEqual(
      sectionsOf(stripped).map(([name, content]) => [name, name === ".shstrtab" ? "" : content]),
      [
        ["", ""],
        [".text", "code that runs"],
        [".dynstr", "\0malloc\0"],
        [".shstrtab", ""],
      ],
    );
    assert.ok(!stripped.includes("lines of sources"));
  });

  test("has every byte of its segments where it was", () => {
    const program = elf([text, names, debug, symbols]);
    const end = 120 + text.content.length + names.content.length;
    // But for where its header says that the table of sections is.
    assert.deepEqual(stripElf(program).subarray(64, end), program.subarray(64, end));
  });

  test("links its sections by their new numbers", () => {
    // .dynsym is number 3 of the program and belongs to number 4.
    const dynamic: Section = { ...symbols, name: ".dynsym", type: 11, flags: 2, link: 4 };
    const stripped = stripElf(
      elf([{ ...debug, flags: 2 }, { ...debug, flags: 2 }, dynamic, names]),
    );
    assert.equal(sectionsOf(stripped).find(([name]) => name === ".dynsym")?.[2], ".dynstr");
  });

  test("can be stripped again and stays the same", () => {
    const once = stripElf(elf([text, names, debug]));
    assert.deepEqual(stripElf(once), once);
  });

  test("is refused when something to be kept lies behind all that is loaded", () => {
    const program = elf([text, debug, names]);
    // The segment ends behind .text.
    program.writeBigUInt64LE(BigInt(120 + text.content.length), 64 + 0x20);
    assert.throws(() => stripElf(program), /section \.dynstr is in no segment/);
  });

  test("is refused when it is no program", () => {
    assert.throws(() => stripElf(Buffer.from("#!/bin/sh\nexec node")), /not a 64-bit/);
  });
});

describe("the machine of a program", () => {
  test("a Node for another machine is never packaged", () => {
    checkMachine(elf([text], 183), "arm64");
    assert.throws(() => checkMachine(elf([text], 62), "arm64"), /no program for arm64/);
  });
});
