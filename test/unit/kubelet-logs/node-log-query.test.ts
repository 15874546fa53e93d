import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  journalArguments,
  type NodeLogQuery,
  parseNodeLogQuery,
  validateNodeLogQuery,
} from "../../../src/kubelet/logs/node-log-query.ts";

function parsed(query: string): NodeLogQuery {
  const result = parseNodeLogQuery(new URLSearchParams(query));
  assert.equal(result.kind, "query");
  return result.kind === "query" ? result.query : assert.fail();
}

describe("a node log query", () => {
  test("is none without a parameter of its own", () => {
    for (const query of ["", "pretty=1", "boot=&tailLines=&pattern=&sinceTime="]) {
      assert.deepEqual(parseNodeLogQuery(new URLSearchParams(query)), { kind: "none" });
    }
  });

  test("tells services from files by their slashes", () => {
    const { files, services } = parsed("query=kubelet&query=/syslog&query=a%5Cb&query=+");
    assert.deepEqual({ files, services }, { files: ["/syslog", "a\\b"], services: ["kubelet"] });
  });

  test("reads all options", () => {
    const { options } = parsed(
      "query=a&sinceTime=2026-01-01T00:00:00Z&untilTime=2026-01-02T01:00:00%2B01:00&tailLines=5&boot=-1&pattern=a.b",
    );
    assert.deepEqual(options, {
      sinceTime: "2026-01-01T00:00:00.000000000Z",
      untilTime: "2026-01-02T00:00:00.000000000Z",
      tailLines: 5,
      boot: -1,
      pattern: "a.b",
    });
  });

  for (const [query, message] of [
    ["query", 'query: Invalid value: [""]: query cannot be empty'],
    ["query=+++", 'query: Invalid value: ["   "]: query cannot be empty'],
    ["query=a&sinceTime=x", 'sinceTime: Invalid value: "x": invalid time format'],
    [
      "query=a&untilTime=1&boot=b",
      '[untilTime: Invalid value: "1": invalid time format, boot: Invalid value: "b": strconv.Atoi: parsing "b": invalid syntax]',
    ],
    [
      "query=a&tailLines=99999999999999999999",
      'tailLines: Invalid value: "99999999999999999999": strconv.Atoi: parsing "99999999999999999999": value out of range',
    ],
  ] as const) {
    test(`${query} cannot be read`, () => {
      const result = parseNodeLogQuery(new URLSearchParams(query));
      assert.deepEqual(result, { kind: "undecodable", message });
    });
  }

  for (const [query, ...errors] of [
    ["query=kubelet"],
    ["query=a&query=b@1.c:d_e-f"],
    ["query=/syslog"],
    ["query=a&pattern=(?i)x%5CKy&boot=0&tailLines=100000"],
    ["tailLines=5", "query: Required value: cannot be empty with options"],
    ["query=a%20b", 'query: Invalid value: "a b": input contains unsupported characters'],
    ["query=--help", undefined],
    ["query=%24(id)", 'query: Invalid value: "$(id)": input contains unsupported characters'],
    [
      `query=${"a".repeat(257)}`,
      `query: Invalid value: "${"a".repeat(257)}": length must be less than 256`,
    ],
    ["query=a&query=b&query=c&query=d&query=e", "query: Too many: 5: must have at most 4 items"],
    ["query=a&query=/b", 'query: Invalid value: "[/b], [a]": cannot specify a file and service'],
    ["query=/a&query=/b", 'query: Invalid value: ["/a","/b"]: cannot specify more than one file'],
    ["query=/a&boot=0", 'query: Invalid value: ["/a"]: cannot specify file with options'],
    ["query=a&boot=1", "boot: Invalid value: 1: must be less than 1"],
    [
      "query=a&tailLines=100001",
      "tailLines: Invalid value: 100001: must be between 0 and 100000, inclusive",
    ],
    [
      "query=a&tailLines=-1",
      "tailLines: Invalid value: -1: must be between 0 and 100000, inclusive",
    ],
    [
      "query=a&sinceTime=2026-01-02T00:00:00Z&untilTime=2026-01-01T00:00:00.5Z",
      'untilTime: Invalid value: "2026-01-01T00:00:00.5Z": must be after `sinceTime`',
    ],
    [
      "query=a&pattern=(",
      'pattern: Invalid value: "(": error parsing regexp: Unterminated group: `(`',
    ],
    [
      "query=a&pattern=%00",
      'pattern: Invalid value: "\\u0000": error parsing regexp: invalid escape sequence',
    ],
  ] as const) {
    const expected = errors.filter((error) => error !== undefined);
    test(`${query.slice(0, 60)} has ${expected.length} faults`, () => {
      assert.deepEqual(validateNodeLogQuery(parsed(query)), expected);
    });
  }

  test("becomes arguments of which none can be taken for another", () => {
    const { services, options } = parsed(
      "query=--help&query=b&sinceTime=2026-01-01T00:00:00.9Z&untilTime=2026-01-02T00:00:00Z&tailLines=3&boot=-2&pattern=--x",
    );
    assert.deepEqual(journalArguments(services, options), [
      "--utc",
      "--no-pager",
      "--output=short-precise",
      "--since=2026-01-01 00:00:00 UTC",
      "--until=2026-01-02 00:00:00 UTC",
      "--pager-end",
      "--lines=3",
      "--unit=--help",
      "--unit=b",
      "--grep=--x",
      "--boot=-2",
    ]);
  });
});
