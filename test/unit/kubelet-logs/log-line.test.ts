import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import { type LogFormat, LogFormatter } from "../../../src/kubelet/logs/log-format.ts";
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

/** A log file as Docker writes it: Go's JSON, which escapes what could end a script tag. */
function file(...records: readonly LogRecord[]): Buffer {
  return Buffer.from(records.map((record) => `${dockerLine(record)}\n`).join(""));
}

function dockerLine({ text, stream, time }: LogRecord): string {
  const log = JSON.stringify(text).replaceAll(
    /[<>&\u2028\u2029]/g,
    (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  const trimmed = time.replace(/\.?0*Z$/, "Z");
  return `{"log":${log},"stream":"${stream}","time":"${trimmed}"}`;
}

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
    const lines = file(out("a", 1), error, out("b\n", 2), out("c\n", 3));
    assert.equal(
      formatter.write(lines).toString(),
      "2026-01-01T00:00:01.000000000Z a2026-01-01T00:00:01.000000000Z e\nb\n2026-01-01T00:00:03.000000000Z c\n",
    );
  });
  test("since is inclusive", () => {
    const formatter = new LogFormatter({ ...plain, since: "2026-01-01T00:00:02.000000000Z" });
    assert.equal(formatter.write(file(out("a\n", 1), out("b\n", 2))).toString(), "b\n");
  });
  test("the byte limit cuts exactly, also inside a character", () => {
    const formatter = new LogFormatter({ ...plain, limitBytes: 2 });
    assert.deepEqual([...formatter.write(file(out("aé\n", 1)))], [0x61, 0xc3]);
    assert.equal(formatter.full, true);
    assert.equal(formatter.write(file(out("b\n", 1))).length, 0);
  });
  test("the byte limit counts times, and nothing of what is left out", () => {
    const formatter = new LogFormatter({
      ...plain,
      timestamps: true,
      stream: "stderr",
      limitBytes: 34,
    });
    const error: LogRecord = { ...out("error\n", 1), stream: "stderr" };
    const bytes = formatter.write(file(out("output\n", 1), error, error));
    assert.equal(bytes.toString(), "2026-01-01T00:00:01.000000000Z err");
  });
  test("one stream can be selected", () => {
    const formatter = new LogFormatter({ ...plain, stream: "stderr" });
    assert.equal(formatter.write(file(out("a\n", 1))).toString(), "");
  });
  test("labels and tags in a record change nothing", () => {
    const line = `{"log":"a\\n","stream":"stdout","attrs":{"tag":"x"},"time":"2026-01-01T00:00:00Z"}\n`;
    assert.equal(new LogFormatter(plain).write(Buffer.from(line)).toString(), "a\n");
  });
  test("a whole record behind a torn one is found, NUL bytes between them or not", () => {
    const whole = dockerLine(out("b\n", 1));
    for (const between of ["", "\0\0\0", "\ufffd"]) {
      const line = Buffer.from(`{"log":"to${between}${whole}\n`);
      assert.equal(new LogFormatter(plain).write(line).toString(), "b\n");
    }
  });
  test("bytes that are no UTF-8 become U+FFFD where the record is parsed the long way", () => {
    const record = Buffer.from(
      `{"stream":"stdout","log":"${"?".repeat(100)}\\n","time":"2026-01-01T00:00:00Z"}\n`,
    );
    for (const [index, byte] of record.entries()) if (byte === 0x3f) record[index] = 0xff;
    const twice = Buffer.concat([record, record]);
    const expected = `${"\ufffd".repeat(100)}\n`;
    assert.equal(new LogFormatter(plain).write(twice).toString(), expected + expected);
  });

  const text = fc.oneof(
    fc.string({ unit: "binary", maxLength: 40 }),
    fc.string({ unit: fc.constantFrom("\n", "\0", "\u001b", '"', "\\", "<", "é", "\u2028", "😀") }),
  );
  const records = fc.array(
    fc.record({
      text: fc.tuple(text, fc.boolean()).map(([body, ends]) => (ends ? `${body}\n` : `${body}.`)),
      stream: fc.constantFrom("stdout" as const, "stderr" as const),
      time: fc
        .tuple(
          fc.integer({ min: 0, max: 99 }),
          fc.constantFrom("000000000", "120000000", "123456789"),
        )
        .map(
          ([second, fraction]) =>
            `${new Date(second * 1000).toISOString().slice(0, 19)}.${fraction}Z`,
        ),
    }),
  );
  test("the fast way gives what the JSON parser gives", () => {
    fc.assert(
      fc.property(
        records,
        fc.boolean(),
        fc.constantFrom("all", "stdout", "stderr"),
        fc.boolean(),
        (list, timestamps, stream, late) => {
          const since = late ? "1970-01-01T00:00:50.123000000Z" : undefined;
          const format = { ...plain, timestamps, stream, since };
          const fast = new LogFormatter(format).write(file(...list)).toString();
          // A member nobody writes sends each record the long way.
          const slow = file(...list)
            .toString()
            .replaceAll(/,"time":"[^"]*"\}$/gm, (end) => `,"x":1${end}`);
          assert.equal(fast, new LogFormatter(format).write(Buffer.from(slow)).toString());
          assert.equal(fast, naiveOutput(list, format));
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe("a damaged log", () => {
  const whole = (at: number): string =>
    dockerLine({
      stream: at % 2 === 0 ? "stdout" : "stderr",
      text: `${at} "é\u001b[0m\\"\n`,
      time: `2026-01-01T00:00:00.${String(at).padStart(9, "0")}Z`,
    });

  test("never hides the whole records around the damage", () => {
    const damage = fc.oneof(
      fc.uint8Array({ maxLength: 80 }).map((bytes) => Buffer.from(bytes)),
      fc.nat(200).map((size) => Buffer.from(whole(7).slice(0, size))),
      fc.nat(200).map((size) => Buffer.from(whole(7).slice(size))),
      fc.nat(30).map((size) => Buffer.alloc(size)),
    );
    fc.assert(
      fc.property(damage, fc.boolean(), (bytes, timestamps) => {
        const file = Buffer.concat([
          Buffer.from(`${whole(0)}\n`),
          bytes,
          Buffer.from(`\n${whole(1)}\n`),
        ]);
        const format = { stream: "all", since: undefined, limitBytes: undefined } as const;
        const text = new LogFormatter({ ...format, timestamps }).write(file).toString();
        const parts = text.split('"é\u001b[0m\\"\n').filter((part) => part !== "");
        assert.match(parts[0] ?? "", timestamps ? /^2026-\S+ 0 $/ : /^0 $/);
        assert.match(parts.at(-1) ?? "", timestamps ? /2026-\S+ 1 $/ : /1 $/);
      }),
      { numRuns: 1000 },
    );
  });
});

function naiveOutput(records: readonly LogRecord[], format: LogFormat): string {
  const open = new Set<string>();
  let text = "";
  for (const record of records) {
    if (format.since !== undefined && record.time < format.since) continue;
    if (format.stream !== "all" && format.stream !== record.stream) continue;
    if (format.timestamps && !open.has(record.stream)) text += `${record.time} `;
    text += record.text;
    if (record.text.endsWith("\n")) open.delete(record.stream);
    else open.add(record.stream);
  }
  // What Docker could not keep either: half of a surrogate pair.
  return Buffer.from(text).toString();
}
