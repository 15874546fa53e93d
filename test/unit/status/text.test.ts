import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import { readKeys } from "../../../src/agent/status/keys.ts";
import {
  asciiGlyphs,
  bar,
  columnWidths,
  cutLine,
  lineWidth,
  paint,
  span,
  tableLine,
  unicodeGlyphs,
} from "../../../src/agent/status/lines.ts";
import { frameText } from "../../../src/agent/status/terminal.ts";
import { terminalOptions } from "../../../src/agent/status/terminal-options.ts";
import { cutEnd, cutMiddle, pad, plain, widthOf, wrap } from "../../../src/agent/status/text.ts";
import { bytes, cores, since, span as time } from "../../../src/agent/status/words.ts";

const anyText = fc.string({ unit: "binary", maxLength: 60 });
/** What a program may write to get at somebody's terminal. */
const hostileText = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        "\u001B[31m",
        "\u001B]0;title\u0007",
        "\u001B]8;;http://a\u001B\\",
        "\u001BP1$r\u001B\\",
        "\u001B[2J",
        "\u009B31m",
        "\u001B",
        "\u202E",
        "\u200B",
        "\r\n",
        "\u0000",
        "\u0085",
        "\u007F",
      ),
      fc.constantFrom("web", " ", "日本", "é", "👩‍🚀", "ｗ"),
    ),
  )
  .map((parts) => parts.join(""));

describe("text of others", () => {
  const cases = [
    ["plain", "plain"],
    ["\u001B[31mred\u001B[0m", "red"],
    ["a\u001B]0;owned\u0007b", "ab"],
    ["a\u001B]0;owned\u001B\\b", "ab"],
    ["a\u009B2Jb", "ab"],
    ["line one\nline two\r\n", "line one line two "],
    ["a\tb", "a b"],
    ["beep\u0007\u0008", "beep"],
    ["exe\u202Etxt.", "exetxt."],
    ["in\u200Bvisible\uFEFF", "invisible"],
    ["half a pair \uD83D", "half a pair "],
    ["日本語 é", "日本語 é"],
  ] as const;
  for (const [text, clean] of cases) {
    test(`${JSON.stringify(text)} is shown as ${JSON.stringify(clean)}`, () => {
      assert.equal(plain(text), clean);
    });
  }

  test("nothing that steers a terminal is left of any text, and it is one line", () => {
    fc.assert(
      fc.property(fc.oneof(anyText, hostileText), (text) => {
        assert.doesNotMatch(plain(text), /[\p{Cc}\p{Cs}\u2028\u2029\u202A-\u202E\u2066-\u2069]/u);
      }),
      { numRuns: 2000 },
    );
  });
});

describe("widths", () => {
  const cases = [
    ["abc", 3],
    ["日本", 4],
    ["é", 1],
    ["e\u0301", 1],
    ["👩‍🚀", 2],
    ["❤️", 2],
    ["한글", 4],
    ["█▏", 2],
    ["…", 1],
    ["", 0],
  ] as const;
  for (const [text, width] of cases) {
    test(`${text} takes ${width}`, () => assert.equal(widthOf(text), width));
  }

  test("no cut is wider than its room, whatever is cut, and what fits stays", () => {
    fc.assert(
      fc.property(fc.oneof(anyText, hostileText).map(plain), fc.nat(70), (text, width) => {
        for (const cut of [cutEnd, cutMiddle]) {
          const shown = cut(text, width, "…");
          assert.ok(widthOf(shown) <= width, `${JSON.stringify(shown)} in ${width}`);
          if (widthOf(text) <= width) assert.equal(shown, text);
        }
        for (const line of wrap(text, Math.max(width, 2), 3, "…"))
          assert.ok(widthOf(line) <= Math.max(width, 2));
      }),
      { numRuns: 3000 },
    );
  });

  test("long names are cut in their middle, sentences at their end", () => {
    assert.equal(cutMiddle("shop-7d9c4b6f8-abcde", 11, "…"), "shop-…abcde");
    assert.equal(cutEnd("a long sentence", 7, "…"), "a long…");
    assert.equal(cutEnd("日本語", 5, "…"), "日本…");
    assert.equal(cutEnd("日本語", 4, "…"), "日…");
    assert.equal(pad("日本", 6), "日本  ");
    assert.equal(pad("7", 3, "right"), "  7");
  });

  test("sentences break at spaces; words without any break where they must", () => {
    assert.deepEqual(wrap("one two three four", 9, 3, "…"), ["one two", "three", "four"]);
    assert.deepEqual(wrap("one two three four", 9, 2, "…"), ["one two", "three fo…"]);
    assert.deepEqual(wrap("aaaaaaaaaa", 4, 9, "…"), ["aaaa", "aaaa", "aa"]);
    assert.deepEqual(wrap("  ", 4, 9, "…"), []);
  });
});

describe("bars", () => {
  const text = (share: number, width = 4): string =>
    bar(share, width, unicodeGlyphs)
      .map((piece) => piece.text)
      .join("");
  test("show eighths of a column, and something for anything", () => {
    assert.equal(text(0), "····");
    assert.equal(text(0.0001), "▏···");
    assert.equal(text(0.5), "██··");
    assert.equal(text(0.53), "██▏·");
    assert.equal(text(1), "████");
    assert.equal(text(7), "████");
    assert.equal(text(-1), "····");
    assert.equal(
      bar(0.5, 4, asciiGlyphs)
        .map((piece) => piece.text)
        .join(""),
      "##..",
    );
  });
});

describe("tables", () => {
  const columns = [
    { title: "NAME", grow: 1 },
    { title: "STATUS" },
    { title: "IP", drop: 1 },
    { title: "AGE", align: "right", drop: 2 },
  ] as const;
  const rows = [
    [{ text: "a-long-name-of-a-pod" }, { text: "Running" }, { text: "10.0.0.1" }, { text: "5s" }],
  ];
  const shown = (width: number): string =>
    tableLine(rows[0] ?? [], columns, columnWidths(columns, rows, width, true), unicodeGlyphs)
      .map((piece) => piece.text)
      .join("");

  test("lose what is needed least when they get narrow, then letters of names", () => {
    assert.equal(shown(80), "a-long-name-of-a-pod  Running  10.0.0.1   5s");
    assert.equal(shown(40), "a-long-name-of-…  Running  10.0.0.1   5s");
    assert.equal(shown(30), "a-long-nam…  Running  10.0.0.1");
    assert.equal(shown(20), "a-long-nam…  Running");
  });

  test("a line that is too long is cut, and that is to be seen", () => {
    const pieces = [span("abc"), span("def", "bad"), span("ghi")];
    const cut = cutLine(pieces, 5, "…");
    assert.equal(paint(cut, "none"), "abcd…");
    assert.equal(lineWidth(cut), 5);
    assert.equal(paint(cutLine(pieces, 6, "…"), "none"), "abcde…");
    assert.equal(paint(cutLine(pieces, 9, "…"), "none"), "abcdefghi");
  });
});

describe("paint", () => {
  const pieces = [span("pod", "bold"), span(" bad", "bad"), span("   ")];
  test("colours only where they are wanted, and nothing at all in a file", () => {
    assert.equal(paint(pieces, "none"), "pod bad");
    assert.equal(paint(pieces, "mono"), "\u001B[1mpod\u001B[0m bad");
    assert.equal(paint(pieces, "colour"), "\u001B[1mpod\u001B[0m\u001B[31m bad\u001B[0m");
  });

  const terminal = { isTTY: true };
  const cases = [
    [terminal, { TERM: "xterm", LANG: "C.UTF-8" }, true, "colour", "…"],
    [terminal, { TERM: "xterm", LANG: "C.UTF-8", NO_COLOR: "1" }, true, "mono", "…"],
    [terminal, { TERM: "xterm", LANG: "C.UTF-8", LC_ALL: "C" }, true, "colour", "~"],
    [terminal, { TERM: "dumb", LANG: "C.UTF-8" }, false, "none", "…"],
    [terminal, { LANG: "C.UTF-8" }, false, "none", "…"],
    [{}, { TERM: "xterm", LC_CTYPE: "en_US.utf8" }, false, "none", "…"],
  ] as const;
  for (const [stream, env, interactive, how, ellipsis] of cases) {
    test(`${JSON.stringify([stream, env])} is ${how}`, () => {
      const found = terminalOptions(stream, env);
      assert.deepEqual([found.interactive, found.paint], [interactive, how]);
      assert.equal(found.glyphs.ellipsis, ellipsis);
    });
  }
});

describe("keys", () => {
  test("arrows of all sorts, signs, controls", () => {
    const { keys, rest } = readKeys("\u001B[A\u001BOBjé\u0003\u007F\r\u001B[Z");
    assert.deepEqual(keys, ["up", "down", "j", "é", "ctrl-c", "backspace", "enter", "shift-tab"]);
    assert.equal(rest, "");
  });

  test("a sequence in two pieces is one key, and an unknown one is none", () => {
    const first = readKeys("q\u001B[");
    assert.deepEqual(first, { keys: ["q"], rest: "\u001B[" });
    assert.deepEqual(readKeys("B", first.rest), { keys: ["down"], rest: "" });
    assert.deepEqual(readKeys("\u001B[99;5u\u001B[200~x"), { keys: ["x"], rest: "" });
  });

  test("the escape key alone is one", () => {
    assert.deepEqual(readKeys("\u001B"), { keys: ["escape"], rest: "" });
  });

  test("any bytes make keys, and never more than a few are waited for", () => {
    fc.assert(
      fc.property(fc.oneof(anyText, hostileText), (text) => {
        const { rest } = readKeys(text);
        assert.ok(rest.length < 32);
      }),
    );
  });
});

describe("a frame", () => {
  test("sends what is another than before, and nothing when nothing is", () => {
    assert.equal(frameText(["a", "b"], ["a", "b"]), "");
    const text = frameText(["a", "b", "c"], ["a", "x"]);
    assert.ok(!text.includes("\u001B[1;1H"));
    assert.match(text, /\[2;1Hx.*\[3;1H/u);
    assert.ok(!text.includes("\u001B[2J"));
    assert.match(frameText(undefined, ["a"]), /\[2J.*\[1;1Ha/u);
  });
});

describe("figures in words", () => {
  test("sizes, cores and times", () => {
    const sizes = [
      0,
      999,
      1000,
      1024,
      10 * 1024,
      1.5 * 1024 ** 3,
      999 * 1024 ** 2,
      1023 * 1024 ** 2,
    ];
    assert.deepEqual(sizes.map(bytes), [
      "0 B",
      "999 B",
      "1.0 KiB",
      "1.0 KiB",
      "10 KiB",
      "1.5 GiB",
      "999 MiB",
      "1.0 GiB",
    ]);
    assert.deepEqual([0, 0.004, 0.25, 1, 1.5, 12.3].map(cores), [
      "0",
      "0",
      "0.25",
      "1",
      "1.5",
      "12",
    ]);
    const spans = [0, 119, 120, 200, 3600, 11_000, 90_000, 200_000, 9e5].map((each) =>
      time(each * 1000),
    );
    assert.deepEqual(spans, ["0s", "119s", "2m", "3m20s", "60m", "3h3m", "25h", "2d7h", "10d"]);
    assert.equal(since("nonsense", 0), "");
    assert.equal(since("1970-01-01T00:00:10Z", 5000), "0s");
  });
});
