import assert from "node:assert/strict";
import {
  appendFileSync,
  mkdtempSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { gzipSync } from "node:zlib";

import * as fc from "fast-check";

import { readLogs, type ReadLogsOptions } from "../../../src/kubelet/logs/read-logs.ts";
import { systemClock } from "../../../src/lib/clock.ts";

const root = mkdtempSync(join(tmpdir(), "remora-logs-"));
after(() => {
  rmSync(root, { recursive: true, force: true });
});
let directories = 0;

function newLog(): string {
  directories += 1;
  const directory = mkdtempSync(join(root, `log${directories}-`));
  return join(directory, "c-json.log");
}

function line(text: string, second = 0): string {
  const time = new Date(Date.UTC(2026, 0, 1, 0, 0, second)).toISOString();
  return `${JSON.stringify({ log: text, stream: "stdout", time })}\n`;
}

function options(path: string, more: Partial<ReadLogsOptions> = {}): ReadLogsOptions {
  return {
    path,
    follow: false,
    tailLines: undefined,
    since: undefined,
    limitBytes: undefined,
    timestamps: false,
    stream: "all",
    running: async () => false,
    clock: systemClock,
    ...more,
  };
}

async function readAll(given: ReadLogsOptions): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of readLogs(given, AbortSignal.timeout(20_000))) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

/** Follows until the text so far satisfies each condition in turn, then runs its step. */
async function followSteps(
  given: ReadLogsOptions,
  steps: readonly (readonly [(text: string) => boolean, () => void])[],
): Promise<string> {
  let text = "";
  let next = 0;
  for await (const chunk of readLogs(given, AbortSignal.timeout(20_000))) {
    text += Buffer.from(chunk).toString();
    const step = steps[next];
    if (step !== undefined && step[0](text)) {
      next += 1;
      step[1]();
    }
  }
  return text;
}

/** The last `count` lines the simple way: everything in memory. */
function naiveTail(texts: readonly string[], count: number): string {
  const lines: string[] = [];
  let open = false;
  for (const text of texts) {
    if (open) lines.push(`${lines.pop() ?? ""}${text}`);
    else lines.push(text);
    open = !text.endsWith("\n");
  }
  return count === 0 ? "" : lines.slice(-count).join("");
}

describe("container log", () => {
  test("tail equals the naive tail, whatever the lines, parts and rotations", async () => {
    const text = fc.oneof(
      fc.string({ maxLength: 20 }).map((body) => `${body.replaceAll("\n", " ")}\n`),
      fc.string({ minLength: 1, maxLength: 20 }).map((body) => `${body.replaceAll("\n", " ")}x`),
      fc.integer({ min: 1, max: 16_000 }).map((size) => `${"z".repeat(size)}\n`),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(text, { maxLength: 12 }), { minLength: 1, maxLength: 4 }),
        fc.integer({ min: 0, max: 30 }),
        fc.boolean(),
        async (files, count, compress) => {
          const path = newLog();
          files.forEach((texts, index) => {
            const age = files.length - 1 - index;
            const bytes = Buffer.from(texts.map((entry) => line(entry)).join(""));
            if (age === 0) writeFileSync(path, bytes);
            else if (compress) writeFileSync(`${path}.${age}.gz`, gzipSync(bytes));
            else writeFileSync(`${path}.${age}`, bytes);
          });
          const tail = await readAll(options(path, { tailLines: count }));
          assert.equal(tail, naiveTail(files.flat(), count));
        },
      ),
      { numRuns: 150 },
    );
  });

  test("is read from the oldest rotated file on, and whole files before `since` are skipped", async () => {
    const path = newLog();
    writeFileSync(`${path}.2`, line("a\n", 1));
    writeFileSync(`${path}.1`, line("b\n", 2));
    writeFileSync(path, line("c\n", 3));
    assert.equal(await readAll(options(path)), "a\nb\nc\n");
    assert.equal(
      await readAll(options(path, { since: "2026-01-01T00:00:02.000000000Z" })),
      "b\nc\n",
    );
  });

  test("a compressed file that was cut off gives what is whole in it", async () => {
    const path = newLog();
    const lines = Array.from({ length: 5000 }, (_, at) => line(`${at}\n`));
    const bytes = gzipSync(lines.join(""));
    writeFileSync(`${path}.2.gz`, gzipSync(line("old\n")));
    writeFileSync(`${path}.1.gz`, bytes.subarray(0, bytes.length - 2000));
    writeFileSync(path, line("new\n"));
    const text = await readAll(options(path));
    assert.match(text, /^old\n0\n1\n2\n3\n/);
    assert.match(text, /\n\d+\nnew\n$/);
  });

  test("of a file and its half-made compressed copy the file is read", async () => {
    const path = newLog();
    writeFileSync(`${path}.1.gz`, gzipSync(line("a\n")).subarray(0, 15));
    writeFileSync(`${path}.1`, line("a\n"));
    writeFileSync(path, line("b\n"));
    assert.equal(await readAll(options(path)), "a\nb\n");
  });

  test("an engine that stopped in the middle of a rotation leaves a readable log", async () => {
    const path = newLog();
    writeFileSync(`${path}.3`, line("a\n"));
    writeFileSync(`${path}.1`, line("b\n"));
    assert.equal(await readAll(options(path)), "a\nb\n");
  });

  test("other files in the directory are none of the log", async () => {
    const path = newLog();
    writeFileSync(path, line("a\n"));
    for (const suffix of [".1.tmp", ".x", "-2", ".1.gz.part", "."]) {
      writeFileSync(`${path}${suffix}`, line("no\n"));
    }
    assert.equal(await readAll(options(path)), "a\n");
  });

  test("torn lines, NUL bytes and endless garbage do not hide what follows", async () => {
    const path = newLog();
    const garbage = "g".repeat(3 * 1024 * 1024);
    writeFileSync(path, `${line("a\n")}{"log":"to\n\0\0\0${line("b\n")}${garbage}\n${line("c\n")}`);
    assert.equal(await readAll(options(path)), "a\nb\nc\n");
    assert.equal(await readAll(options(path, { tailLines: 2 })), "b\nc\n");
  });

  test("a last record without its newline is delivered when nothing more can come", async () => {
    const path = newLog();
    writeFileSync(path, line("a\n") + line("b\n").trimEnd());
    assert.equal(await readAll(options(path)), "a\nb\n");
  });

  test("a log that does not exist is empty", async () => {
    assert.equal(await readAll(options(newLog())), "");
  });

  test("following goes on across rotation and ends when the container has", async () => {
    const path = newLog();
    writeFileSync(path, line("one\n"));
    let running = true;
    const text = await followSteps(options(path, { follow: true, running: async () => running }), [
      [
        (seen) => seen.endsWith("one\n"),
        () => {
          appendFileSync(path, line("two\n"));
          renameSync(path, `${path}.1`);
          writeFileSync(path, line("three\n"));
        },
      ],
      [
        (seen) => seen.endsWith("three\n"),
        () => {
          appendFileSync(path, line("four\n"));
          renameSync(`${path}.1`, `${path}.2`);
          renameSync(path, `${path}.1`);
          writeFileSync(path, line("five\n"));
          running = false;
        },
      ],
    ]);
    assert.equal(text, "one\ntwo\nthree\nfour\nfive\n");
  });

  test("following shows what comes after a tail of none", async () => {
    const path = newLog();
    writeFileSync(path, line("old\n"));
    let asked = 0;
    const running = async (): Promise<boolean> => {
      asked += 1;
      if (asked === 2) appendFileSync(path, line("new\n"));
      return asked < 3;
    };
    assert.equal(await readAll(options(path, { follow: true, tailLines: 0, running })), "new\n");
  });

  test("a file that is truncated in place is read from its new beginning", async () => {
    const path = newLog();
    writeFileSync(path, line("first and long\n"));
    let running = true;
    const text = await followSteps(options(path, { follow: true, running: async () => running }), [
      [
        (seen) => seen.endsWith("long\n"),
        () => {
          truncateSync(path, 0);
          appendFileSync(path, line("x\n"));
          running = false;
        },
      ],
    ]);
    assert.equal(text, "first and long\nx\n");
  });

  test("an abort ends a follow without an error", async () => {
    const path = newLog();
    writeFileSync(path, line("a\n"));
    const client = new AbortController();
    let text = "";
    for await (const chunk of readLogs(
      options(path, { follow: true, running: async () => true }),
      client.signal,
    )) {
      text += Buffer.from(chunk).toString();
      client.abort();
    }
    assert.equal(text, "a\n");
  });

  test("the byte limit ends even a follow", async () => {
    const path = newLog();
    writeFileSync(path, line("abcdef\n"));
    const limited = options(path, { follow: true, limitBytes: 3, running: async () => true });
    assert.equal(await readAll(limited), "abc");
  });
});
