import assert from "node:assert/strict";
import { test } from "node:test";

import { goQuote } from "../../../src/lib/go-quote.ts";

for (const [text, quoted] of [
  ["", '""'],
  ['say "hi" \\', '"say \\"hi\\" \\\\"'],
  ["a\tb\nc\r\u0007\b\f\v", '"a\\tb\\nc\\r\\a\\b\\f\\v"'],
  ["\u0000\u001b[1m\u007f", '"\\x00\\x1b[1m\\x7f"'],
  ["zwölf 日本 € 🚀", '"zwölf 日本 € 🚀"'],
  ["a\u00a0b\u200b\u2028\ufeff", '"a\\u00a0b\\u200b\\u2028\\ufeff"'],
  ["\u{e0001}", '"\\U000e0001"'],
  ["</>&'", `"</>&'"`],
] as const) {
  test(`Go quotes ${JSON.stringify(text)} as ${quoted}`, () => {
    assert.equal(goQuote(text), quoted);
  });
}
