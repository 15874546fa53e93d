import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  asciiGlyphs,
  drawBars,
  drawService,
  shorten,
  unicodeGlyphs,
} from "../../../../src/agent/demo/picture.ts";

const picture = {
  client: "frontend-76895ffc47-9bkq7",
  service: "backend-service",
  address: "10.96.87.35:80",
  endpoints: [
    { pod: "backend-65c68554ff-2ggpp", address: "10.244.0.2:8080" },
    { pod: "backend-65c68554ff-hl9v7", address: "10.244.0.3:8080" },
  ],
};

describe("drawService", () => {
  test("shows who asks, the Service, and each endpoint with its address", () => {
    assert.deepEqual(drawService(picture, 80, unicodeGlyphs), [
      "  frontend-76895ffc47-9bkq7",
      "    │ http://backend-service",
      "    ▼",
      "  backend-service  10.96.87.35:80",
      "    ├─▶ backend-65c68554ff-2ggpp  10.244.0.2:8080",
      "    └─▶ backend-65c68554ff-hl9v7  10.244.0.3:8080",
    ]);
  });
  test("is plain ASCII where the terminal knows no more", () => {
    assert.match(drawService(picture, 80, asciiGlyphs).join("\n"), /^[\n -~]+$/);
  });
  test("a Service without endpoints says so", () => {
    const lines = drawService({ ...picture, endpoints: [] }, 80, asciiGlyphs);
    assert.equal(lines.at(-1), "    `-> (no endpoints)");
  });
  for (const width of [20, 30, 40, 60, 79]) {
    test(`no line is wider than ${width}, and the ends of pod names stay readable`, () => {
      const lines = drawService(picture, width, unicodeGlyphs);
      for (const line of lines) assert.ok(line.length <= width, `"${line}" has ${line.length}`);
      assert.match(lines.join("\n"), /2ggpp/);
      assert.match(lines.join("\n"), /hl9v7/);
    });
  }
});

describe("drawBars", () => {
  const counts = new Map([
    ["a", 100],
    ["b", 50],
    ["c", 0],
  ]);
  test("the longest bar fills the room, the others are in proportion", () => {
    assert.deepEqual(drawBars(counts, 22, asciiGlyphs), [
      "  a  ############  100",
      "  b  ######         50",
      "  c                  0",
    ]);
  });
  test("without room for bars the counts stay", () => {
    const narrow = drawBars(new Map([["backend-65c68554ff-2ggpp", 7]]), 20, unicodeGlyphs);
    assert.deepEqual(
      narrow,
      ["  backend…f-2ggpp  7"].map((line) => line),
    );
  });
  test("nothing was counted", () => {
    assert.deepEqual(drawBars(new Map(), 80, asciiGlyphs), []);
  });
});

describe("shorten", () => {
  test("cuts in the middle and keeps short texts", () => {
    assert.equal(shorten("abcdefgh", 8, asciiGlyphs), "abcdefgh");
    assert.equal(shorten("abcdefgh", 5, asciiGlyphs), "ab~gh");
    assert.equal(shorten("abcdefgh", 1, asciiGlyphs), "a");
    assert.equal(shorten("abcdefgh", 0, asciiGlyphs), "");
  });
});
