import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { type LogQuery, parseLogQuery } from "../../../src/kubelet/logs/log-query.ts";

const now = Date.UTC(2026, 0, 1);

function parse(query: string): LogQuery | string {
  const result = parseLogQuery(new URLSearchParams(query), now);
  return result.kind === "query" ? result.query : result.kind;
}

const none: LogQuery = {
  follow: false,
  previous: false,
  timestamps: false,
  stream: "all",
  tailLines: undefined,
  limitBytes: undefined,
  since: undefined,
};

describe("log options", () => {
  for (const [query, expected] of [
    ["", {}],
    ["follow=true&timestamps=&previous=false", { follow: true, timestamps: true }],
    ["follow=0&timestamps=FALSE&previous=no", { previous: true }],
    ["sinceSeconds=60", { since: "2025-12-31T23:59:00.000000000Z" }],
    ["sinceSeconds=9000000000000000", {}],
    ["sinceTime=2026-01-01T02:00:00.5%2B02:00", { since: "2026-01-01T00:00:00.500000000Z" }],
    ["sinceTime=", {}],
    ["sinceTime=null", {}],
    ["tailLines=0", { tailLines: 0 }],
    ["tailLines=%2B7", { tailLines: 7 }],
    ["tail=3&tailLines=9", { tailLines: 3 }],
    ["tail=all&tailLines=9", {}],
    ["tail=&tailLines=9", { tailLines: 9 }],
    ["limitBytes=1", { limitBytes: 1 }],
    ["stream=All&tailLines=1", { tailLines: 1 }],
    ["stream=Stdout", { stream: "stdout" }],
    ["stream=Stderr", { stream: "stderr" }],
    ["container=c&insecureSkipTLSVerifyBackend=true&unknown=1", {}],
  ] as const) {
    test(`${query || "nothing"} is understood`, () => {
      assert.deepEqual(parse(query), { ...none, ...expected });
    });
  }

  for (const [query, kind] of [
    ["tailLines=x", "undecodable"],
    ["tailLines=", "undecodable"],
    ["tailLines=1.5", "undecodable"],
    ["tail=some", "undecodable"],
    ["tailLines=9223372036854775808", "undecodable"],
    ["limitBytes=1e3", "undecodable"],
    ["sinceSeconds=soon", "undecodable"],
    ["sinceTime=yesterday", "undecodable"],
    ["sinceTime=2026-13-01T00:00:00Z", "undecodable"],
    ["tailLines=-1", "invalid"],
    ["limitBytes=0", "invalid"],
    ["sinceSeconds=0", "invalid"],
    ["sinceSeconds=-9223372036854775808", "invalid"],
    ["sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z", "invalid"],
    ["sinceSeconds=5&sinceTime=", "invalid"],
    ["stream=Both", "invalid"],
    ["stream=", "invalid"],
    ["stream=stdout", "invalid"],
    ["stream=Stdout&tailLines=3", "invalid"],
  ] as const) {
    test(`${query} is ${kind}`, () => {
      assert.equal(parse(query), kind);
    });
  }
});
