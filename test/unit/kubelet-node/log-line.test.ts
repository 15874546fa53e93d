import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { LogFormatter } from "../../../src/kubelet/logs/log-format.ts";
import {
  fixedTimestamp,
  type LogRecord,
  parseLogLine,
} from "../../../src/kubelet/logs/log-line.ts";

describe("timestamps", () => {
  for (const [text, fixed] of [
    ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000000000Z"],
    ["2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00.500000000Z"],
    ["2026-01-01T00:00:00.123456789Z", "2026-01-01T00:00:00.123456789Z"],
    ["2026-01-01T02:00:00.25+02:00", "2026-01-01T00:00:00.250000000Z"],
    ["2026-01-01", undefined],
    ["2026-01-01T00:00:00", undefined],
  ] as const) {
    test(`${text} is ${fixed ?? "none"}`, () => {
      assert.equal(fixedTimestamp(text), fixed);
    });
  }
});

describe("a log line", () => {
  const line = '{"log":"a\\n","stream":"stdout","time":"2026-01-01T00:00:00.1Z"}';
  const record = { stream: "stdout", text: "a\n", time: "2026-01-01T00:00:00.100000000Z" };

  test("is a record", () => {
    assert.deepEqual(parseLogLine(Buffer.from(line)), record);
  });
  test("may have NUL bytes in front, left by a crash of the host", () => {
    assert.deepEqual(parseLogLine(Buffer.concat([Buffer.alloc(5), Buffer.from(line)])), record);
  });
  for (const torn of [
    "",
    "\0\0",
    line.slice(0, 20),
    "[]",
    '{"log":1}',
    line.replace("stdout", "x"),
  ]) {
    test(`${JSON.stringify(torn)} is no record`, () => {
      assert.equal(parseLogLine(Buffer.from(torn)), undefined);
    });
  }
});

describe("log output", () => {
  const out = (text: string, second: number): LogRecord => ({
    stream: "stdout",
    text,
    time: `2026-01-01T00:00:0${second}.000000000Z`,
  });
  const plain = {
    timestamps: false,
    stream: "all",
    since: undefined,
    limitBytes: undefined,
  } as const;

  test("only the beginning of a long line carries its time, per stream", () => {
    const formatter = new LogFormatter({ ...plain, timestamps: true });
    const error: LogRecord = { ...out("e\n", 1), stream: "stderr" };
    const text = formatter.write([out("a", 1), error, out("b\n", 2), out("c\n", 3)]).toString();
    assert.equal(
      text,
      "2026-01-01T00:00:01.000000000Z a2026-01-01T00:00:01.000000000Z e\nb\n2026-01-01T00:00:03.000000000Z c\n",
    );
  });
  test("since is inclusive", () => {
    const formatter = new LogFormatter({ ...plain, since: "2026-01-01T00:00:02.000000000Z" });
    assert.equal(formatter.write([out("a\n", 1), out("b\n", 2)]).toString(), "b\n");
  });
  test("the byte limit cuts exactly, also inside a character", () => {
    const formatter = new LogFormatter({ ...plain, limitBytes: 2 });
    assert.deepEqual([...formatter.write([out("aé\n", 1)])], [0x61, 0xc3]);
    assert.equal(formatter.full, true);
    assert.equal(formatter.write([out("b\n", 1)]).length, 0);
  });
  test("one stream can be selected", () => {
    const formatter = new LogFormatter({ ...plain, stream: "stderr" });
    assert.equal(formatter.write([out("a\n", 1)]).toString(), "");
  });
});
