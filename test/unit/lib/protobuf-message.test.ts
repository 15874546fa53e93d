import assert from "node:assert/strict";
import { it } from "node:test";

import * as fc from "fast-check";

import {
  flag,
  integer,
  message,
  nested,
  nestedList,
  text,
  textMap,
  texts,
} from "../../../src/lib/protobuf-message.ts";

interface Inner {
  name: string;
  size: number;
}
const Inner = message<Inner>({ name: text(1), size: integer(15) });

interface Outer {
  on: boolean;
  count: number;
  words: readonly string[];
  map: Readonly<Record<string, string>>;
  inner: Inner | undefined;
  list: readonly Inner[];
}
const Outer = message<Outer>({
  on: flag(1),
  count: integer(16),
  words: texts(2),
  map: textMap(3),
  inner: nested(2047, Inner) as never,
  list: nestedList(2048, Inner) as never,
});

const words = fc.string({ unit: "binary" });
const plain = { noNullPrototype: true };
const inner = fc.record({ name: words, size: fc.maxSafeInteger() }, plain);
const outer = fc.record(
  {
    on: fc.boolean(),
    count: fc.maxSafeInteger(),
    words: fc.array(words),
    map: fc.dictionary(words, words, plain),
    inner: fc.option(inner, { nil: undefined }),
    list: fc.array(inner),
  },
  plain,
);

it("a message is read as it was written, whatever it holds", () => {
  fc.assert(
    fc.property(outer, (value) => {
      assert.deepEqual(Outer.decode(Outer.encode(value)), value);
    }),
  );
});

it("any bytes are a message or a RangeError", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        Outer.decode(bytes);
      } catch (error) {
        assert(error instanceof RangeError, String(error));
      }
    }),
  );
});
