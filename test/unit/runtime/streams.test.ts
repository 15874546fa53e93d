import assert from "node:assert/strict";
import { describe, it } from "node:test";

import * as fc from "fast-check";

import { FrameParser } from "../../../src/runtime/docker/demux.ts";
import { parseEvent } from "../../../src/runtime/docker/events.ts";
import { LineSplitter } from "../../../src/runtime/docker/lines.ts";

function frame(type: number, payload: Uint8Array): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt8(type, 0);
  header.writeUInt32BE(payload.length, 4);
  return Buffer.concat([header, payload]);
}

/** Cuts `bytes` at every position of `cuts` (taken modulo its length). */
function chunked(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const at = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].toSorted((a, b) => a - b);
  const out: Buffer[] = [];
  let from = 0;
  for (const to of [...at, bytes.length]) {
    out.push(bytes.subarray(from, to));
    from = to;
  }
  return out;
}

describe("FrameParser", () => {
  it("gives every byte to its stream, in order, wherever the chunks are cut", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom(1, 2), fc.uint8Array({ maxLength: 40 }))),
        fc.array(fc.nat(2000), { maxLength: 30 }),
        (frames, cuts) => {
          const bytes = Buffer.concat(frames.map(([type, payload]) => frame(type, payload)));
          const parser = new FrameParser();
          const got = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] };
          for (const chunk of chunked(bytes, cuts)) {
            for (const part of parser.push(chunk)) got[part.stream].push(part.chunk);
          }
          const want = (type: number): Buffer =>
            Buffer.concat(frames.filter(([kind]) => kind === type).map(([, payload]) => payload));
          assert.deepEqual(Buffer.concat(got.stdout), want(1));
          assert.deepEqual(Buffer.concat(got.stderr), want(2));
          assert.equal(parser.atBoundary, true);
        },
      ),
    );
  });

  it("takes a chunk of many tiny frames without recursion", () => {
    const bytes = Buffer.concat(Array.from({ length: 50_000 }, () => frame(1, Buffer.from("x"))));
    assert.equal(new FrameParser().push(bytes).length, 50_000);
  });

  it("sends the engine's own errors to stderr and knows an unfinished frame", () => {
    const parser = new FrameParser();
    const [part] = parser.push(frame(3, Buffer.from("oops")));
    assert.equal(part?.stream, "stderr");
    parser.push(frame(1, Buffer.from("abc")).subarray(0, 9));
    assert.equal(parser.atBoundary, false);
  });
});

describe("LineSplitter", () => {
  it("joins lines and characters that span chunks", () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ unit: "grapheme", maxLength: 12 })),
        fc.array(fc.nat(500)),
        (texts, cuts) => {
          const lines = texts
            .map((text) => text.replaceAll(/\s/g, ""))
            .filter((text) => text !== "");
          const splitter = new LineSplitter();
          const got = chunked(Buffer.from(lines.join("\r\n")), cuts).flatMap((chunk) =>
            splitter.push(chunk),
          );
          assert.deepEqual([...got, ...splitter.end()], lines);
        },
      ),
    );
  });
});

describe("parseEvent", () => {
  const line = (action: string, attributes: object): string =>
    JSON.stringify({
      Type: "container",
      Action: action,
      Actor: { ID: "c", Attributes: attributes },
    });

  it("maps the engine's words and drops what is not a pod's", () => {
    const pod = { "io.kubernetes.pod.uid": "u" };
    assert.deepEqual(parseEvent(line("die", pod)), {
      kind: "exited",
      podUID: "u",
      containerID: "c",
    });
    assert.equal(parseEvent(line("destroy", pod))?.kind, "removed");
    assert.equal(parseEvent(line("exec_die", pod)), undefined);
    assert.equal(parseEvent(line("start", {})), undefined);
    assert.equal(parseEvent("not json"), undefined);
    assert.equal(parseEvent("[]"), undefined);
  });
});
