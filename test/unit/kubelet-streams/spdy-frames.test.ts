import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { constants, createDeflate, createInflate } from "node:zlib";

import * as fc from "fast-check";

import { spdyDictionary } from "../../../src/kubelet/server/streams/spdy-dictionary.ts";
import {
  controlFrame,
  dataHead,
  flagFin,
  FrameParser,
  type SpdyFrame,
} from "../../../src/kubelet/server/streams/spdy-frames.ts";
import {
  emptyHeaderBlock,
  HeaderReader,
  SpdyError,
} from "../../../src/kubelet/server/streams/spdy-headers.ts";

type Sent =
  | { readonly kind: "control"; readonly type: number; readonly payload: Uint8Array }
  | {
      readonly kind: "data";
      readonly id: number;
      readonly payload: Uint8Array;
      readonly fin: boolean;
    };

const payloads = fc.uint8Array({ maxLength: 300 });
const frames: fc.Arbitrary<readonly Sent[]> = fc.array(
  fc.oneof(
    fc.record({
      kind: fc.constant("control" as const),
      type: fc.nat(0xffff),
      payload: payloads,
    }),
    fc.record({
      kind: fc.constant("data" as const),
      id: fc.nat(0x7fffffff),
      payload: payloads,
      fin: fc.boolean(),
    }),
  ),
);

function encode(sent: readonly Sent[]): Buffer {
  return Buffer.concat(
    sent.flatMap((frame) =>
      frame.kind === "control"
        ? [controlFrame(frame.type, 0, frame.payload)]
        : [dataHead(frame.id, frame.fin ? flagFin : 0, frame.payload.length), frame.payload],
    ),
  );
}

/** What the pieces amount to: data in a row belongs together. */
function amount(received: readonly SpdyFrame[]): unknown[] {
  const out: { what: string; bytes: string }[] = [];
  for (const frame of received) {
    const bytes = frame.payload.toString("hex");
    if (frame.kind === "control") {
      out.push({ what: `control ${frame.type}`, bytes });
      continue;
    }
    const what = `data ${frame.id}`;
    const last = out.at(-1);
    if (last?.what === what) last.bytes += bytes;
    else if (bytes !== "") out.push({ what, bytes });
    if (frame.fin) out.push({ what: `${what} fin`, bytes: "" });
  }
  return out;
}

function parse(chunks: readonly Buffer[]): SpdyFrame[] {
  const parser = new FrameParser();
  return chunks.flatMap((chunk) => [...parser.push(chunk)]);
}

describe("frames of SPDY", () => {
  it("mean the same however the bytes are cut", () => {
    fc.assert(
      fc.property(frames, fc.array(fc.integer({ min: 1, max: 50 })), (sent, cuts) => {
        const bytes = encode(sent);
        const chunks: Buffer[] = [];
        let at = 0;
        for (const cut of cuts) {
          chunks.push(bytes.subarray(at, at + cut));
          at += cut;
        }
        chunks.push(bytes.subarray(at));
        const whole = amount(parse([bytes]));
        assert.deepEqual(amount(parse(chunks)), whole);
        const plain = sent.map((frame): SpdyFrame =>
          frame.kind === "control"
            ? { ...frame, flags: 0, payload: Buffer.from(frame.payload) }
            : { ...frame, payload: Buffer.from(frame.payload) },
        );
        assert.deepEqual(whole, amount(plain));
      }),
    );
  });

  it("of data are passed on as they come, however large", () => {
    const parser = new FrameParser();
    const head = dataHead(1, flagFin, 0xffffff);
    assert.deepEqual([...parser.push(head)], []);
    let bytes = 0;
    let fins = 0;
    for (let left = 0xffffff; left > 0; left -= 65_536) {
      for (const frame of parser.push(Buffer.alloc(Math.min(left, 65_536)))) {
        bytes += frame.payload.length;
        if (frame.kind === "data" && frame.fin) fins += 1;
      }
    }
    assert.deepEqual([bytes, fins], [0xffffff, 1]);
  });

  it("of control are refused by their head when they are too large, or of SPDY/2", () => {
    const huge = Buffer.from([0x80, 3, 0, 1, 0, 1, 0, 1]);
    assert.throws(() => parse([huge]), SpdyError);
    const old = Buffer.from([0x80, 2, 0, 1, 0, 0, 0, 10]);
    assert.throws(() => parse([old]), SpdyError);
  });
});

async function compressed(parts: readonly Buffer[]): Promise<Buffer[]> {
  const deflate = createDeflate({ dictionary: spdyDictionary, flush: constants.Z_SYNC_FLUSH });
  const blocks: Buffer[] = [];
  for (const part of parts) {
    const out: Buffer[] = [];
    const collect = (chunk: Buffer): number => out.push(chunk);
    deflate.on("data", collect);
    await new Promise((resolve) => deflate.write(part, resolve));
    deflate.off("data", collect);
    blocks.push(Buffer.concat(out));
  }
  deflate.destroy();
  return blocks;
}

function headerBytes(entries: readonly (readonly [string, string])[]): Buffer {
  const word = (value: number): Buffer => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(value);
    return bytes;
  };
  const texts = entries.flat().flatMap((text) => {
    const bytes = Buffer.from(text);
    return [word(bytes.length), bytes];
  });
  return Buffer.concat([word(entries.length), ...texts]);
}

describe("header blocks", () => {
  it("share one compression context; names are lower case", async () => {
    const blocks = await compressed([
      headerBytes([
        ["streamType", "data"],
        ["port", "80"],
      ]),
      headerBytes([["Port", "81"]]),
      headerBytes([]),
    ]);
    const reader = new HeaderReader();
    const read = [];
    for (const block of blocks) read.push([...(await reader.read(block))]);
    reader.close();
    assert.deepEqual(read, [
      [
        ["streamtype", "data"],
        ["port", "80"],
      ],
      [["port", "81"]],
      [],
    ]);
  });

  it("that stand for much more than they are get stopped while they come", async () => {
    const [bomb = Buffer.alloc(0)] = await compressed([Buffer.alloc(50_000_000)]);
    assert.ok(bomb.length < 64 * 1024);
    const reader = new HeaderReader();
    await assert.rejects(reader.read(bomb), /too large/);
    await assert.rejects(reader.read(bomb), SpdyError);
    reader.close();
  });

  it("that are damaged or end early are an error, never a hang", async () => {
    const [short = Buffer.alloc(0)] = await compressed([Buffer.from([0, 0, 0, 9, 0, 0, 0, 1])]);
    for (const block of [short, Buffer.from("no zlib at all"), Buffer.alloc(0)]) {
      const reader = new HeaderReader();
      await assert.rejects(reader.read(block), SpdyError);
      reader.close();
    }
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
        const reader = new HeaderReader();
        await reader.read(Buffer.from(bytes)).catch((error: unknown) => {
          assert.ok(error instanceof SpdyError);
        });
        reader.close();
      }),
      { plugins: [fc.interruptAfterTimeLimit(1500)] },
    );
  });

  it("of our replies are such that a decompressor gives them out at once", async () => {
    const inflate = createInflate({ dictionary: spdyDictionary });
    for (const first of [true, false, false]) {
      const out: Buffer[] = [];
      const collect = (chunk: Buffer): number => out.push(chunk);
      inflate.on("data", collect);
      await new Promise((resolve) => inflate.write(emptyHeaderBlock(first), resolve));
      inflate.off("data", collect);
      assert.deepEqual(Buffer.concat(out), Buffer.alloc(4));
    }
    inflate.destroy();
  });
});
