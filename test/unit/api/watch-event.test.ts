import assert from "node:assert/strict";
import { describe, it } from "node:test";

import * as fc from "fast-check";

import { isExpired } from "../../../src/api/errors.ts";
import { LineSplitter } from "../../../src/api/line-splitter.ts";
import { parseRetryAfter, responseToError } from "../../../src/api/response-error.ts";
import { parseWatchEvent } from "../../../src/api/watch-event.ts";
import { ParseError } from "../../../src/lib/errors.ts";

const metadata = { name: "web", namespace: "shop", uid: "u", resourceVersion: "7" };

describe("watch event", () => {
  it("takes key, uid and resource version from the raw metadata", () => {
    const event = parseWatchEvent({ type: "MODIFIED", object: { metadata, spec: 1 } });
    assert.deepEqual(event, {
      type: "MODIFIED",
      state: { key: "shop/web", uid: "u", resourceVersion: "7" },
      object: { metadata, spec: 1 },
    });
  });

  it("knows the bookmark that ends a streaming list", () => {
    const bookmark = (annotations: object): unknown => ({
      type: "BOOKMARK",
      object: { metadata: { resourceVersion: "9", annotations } },
    });
    assert.deepEqual(parseWatchEvent(bookmark({ "k8s.io/initial-events-end": "true" })), {
      type: "BOOKMARK",
      resourceVersion: "9",
      initialEventsEnd: true,
    });
    const plain = parseWatchEvent(bookmark({}));
    assert.equal(plain.type === "BOOKMARK" && plain.initialEventsEnd, false);
  });

  it("turns an ERROR event into the error it reports", () => {
    const event = parseWatchEvent({
      type: "ERROR",
      object: { kind: "Status", code: 410, reason: "Expired", message: "too old" },
    });
    assert.ok(event.type === "ERROR" && isExpired(event.error));
    assert.equal(event.error.message, "too old");
    const empty = parseWatchEvent({ type: "ERROR", object: {} });
    assert.ok(empty.type === "ERROR" && empty.error.status === 500);
  });

  const broken: readonly (readonly [unknown, string])[] = [
    [[], "$"],
    [{ type: "ADDED" }, "$.object"],
    [{ type: "ADDED", object: {} }, "$.object.metadata"],
    [{ type: "ADDED", object: { metadata: { name: "a" } } }, "$.object.metadata.uid"],
    [
      { type: "ADDED", object: { metadata: { ...metadata, resourceVersion: "" } } },
      "$.object.metadata.resourceVersion",
    ],
    [{ type: "BOOKMARK", object: { metadata: {} } }, "$.object.metadata.resourceVersion"],
    [{ type: "UPDATED", object: {} }, "$.type"],
  ];
  for (const [value, path] of broken) {
    it(`never lets ${JSON.stringify(value)} pass`, () => {
      assert.throws(
        () => parseWatchEvent(value),
        (error) => error instanceof ParseError && error.path === path,
      );
    });
  }
});

describe("line splitter", () => {
  it("finds the same lines however the bytes are cut", () => {
    const lines = fc.array(
      fc.string({ unit: "grapheme", minLength: 1 }).filter((text) => {
        return text.trim() === text && text !== "" && !text.includes("\n");
      }),
    );
    fc.assert(
      fc.property(lines, fc.array(fc.nat({ max: 40 })), (expected, cuts) => {
        const bytes = Buffer.from(expected.map((line) => `${line}\n`).join(""));
        const splitter = new LineSplitter();
        const found: string[] = [];
        let start = 0;
        for (const cut of [...cuts, bytes.length]) {
          found.push(...splitter.push(bytes.subarray(start, start + cut)));
          start += cut;
        }
        assert.deepEqual(found, expected);
        assert.equal(splitter.unfinished, false);
      }),
    );
  });

  it("knows when a line is unfinished", () => {
    const splitter = new LineSplitter();
    assert.deepEqual([...splitter.push(Buffer.from("a\r\n\nb"))], ["a"]);
    assert.equal(splitter.unfinished, true);
  });
});

describe("errors out of answers", () => {
  it("reads Retry-After as seconds or as a date", () => {
    const now = Date.parse("2026-01-01T00:00:00Z");
    assert.equal(parseRetryAfter("5", now), 5);
    assert.equal(parseRetryAfter("Thu, 01 Jan 2026 00:00:30 GMT", now), 30);
    assert.equal(parseRetryAfter("Wed, 31 Dec 2025 00:00:30 GMT", now), 0);
    assert.equal(parseRetryAfter("soon", now), undefined);
    assert.equal(parseRetryAfter(undefined, now), undefined);
  });

  it("prefers the Status in the body to what the header says", () => {
    const body = JSON.stringify({
      kind: "Status",
      code: 429,
      reason: "TooManyRequests",
      message: "slow down",
      details: { retryAfterSeconds: 3 },
    });
    const error = responseToError("GET /a", { status: 429, body, retryAfterSeconds: 9 });
    assert.deepEqual(
      [error.status, error.reason, error.message, error.retryAfterSeconds, error.retryable],
      [429, "TooManyRequests", "slow down", 3, true],
    );
  });

  it("makes a readable error of a proxy's page and of nothing at all", () => {
    const answer = { status: 502, retryAfterSeconds: undefined };
    const page = responseToError("GET /a", { ...answer, body: "<html>\n<b>Bad</b>" });
    assert.equal(page.message, "GET /a: HTTP 502: <html>");
    assert.equal(responseToError("GET /a", { ...answer, body: "" }).message, "GET /a: HTTP 502");
  });
});
