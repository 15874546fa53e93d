import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { neglected, parseAnswer, Tally } from "../../../../src/agent/demo/tally.ts";

describe("answers of the backend", () => {
  const cases: readonly (readonly [string, ReturnType<typeof parseAnswer>])[] = [
    ["hello from backend-1 v1", { kind: "answered", pod: "backend-1", version: "v1" }],
    ["hello from backend-1 v2\r", { kind: "answered", pod: "backend-1", version: "v2" }],
    ["hello from backend-1", { kind: "failed", why: "hello from backend-1" }],
    ["no answer: wget: bad address", { kind: "failed", why: "wget: bad address" }],
    ["no answer: ", { kind: "failed", why: "an empty answer" }],
    ["", { kind: "failed", why: "an empty answer" }],
    ["<html>502 Bad Gateway</html>", { kind: "failed", why: "<html>502 Bad Gateway</html>" }],
  ];
  for (const [line, expected] of cases) {
    test(`${JSON.stringify(line)} is ${expected.kind}`, () => {
      assert.deepEqual(parseAnswer(line), expected);
    });
  }
});

describe("Tally", () => {
  test("counts by pod in the order of names, by version, and keeps each reason once", () => {
    const tally = new Tally();
    for (const line of [
      "hello from b v1",
      "hello from a v2",
      "hello from b v1",
      "no answer: timeout",
      "no answer: timeout",
    ]) {
      tally.add(parseAnswer(line));
    }
    assert.deepEqual(
      [...tally.perPod],
      [
        ["a", 1],
        ["b", 2],
      ],
    );
    assert.equal(tally.answered, 3);
    assert.equal(tally.failed, 2);
    assert.deepEqual(tally.reasons, ["timeout"]);
    assert.equal(tally.describeVersions(), "v1 2, v2 1");
  });
});

describe("neglected", () => {
  const pods = ["a", "b", "c"];
  const of = (...counts: readonly number[]) =>
    neglected(new Map(counts.map((count, at) => [pods[at] ?? "", count])), pods);
  test("nobody while all have at least 35 % of the mean", () => {
    assert.deepEqual(of(80, 80, 80), []);
    assert.deepEqual(of(107, 98, 35), [], "35 of a mean of 80 is 44 %");
    assert.deepEqual(of(106, 106, 28), [], "28 of 80 is exactly 35 %");
  });
  test("who has less, or nothing at all", () => {
    assert.deepEqual(of(107, 106, 27), ["c"]);
    assert.deepEqual(of(240, 0, 0), ["b", "c"]);
    assert.deepEqual(of(120, 120), ["c"], "one that never answered is not in the counts");
    assert.deepEqual(of(0, 0, 0), pods);
  });
  test("answers of others do not move the mean", () => {
    const counts = new Map([
      ["a", 50],
      ["b", 50],
      ["gone", 500],
    ]);
    assert.deepEqual(neglected(counts, ["a", "b"]), []);
  });
});
