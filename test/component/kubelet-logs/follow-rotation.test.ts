import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { setImmediate as tick } from "node:timers/promises";

import * as fc from "fast-check";

import { readLogs, type ReadLogsOptions } from "../../../src/kubelet/logs/read-logs.ts";
import { type Clock, systemClock } from "../../../src/lib/clock.ts";
import { JsonLogWriter } from "./json-log-writer.ts";

const root = mkdtempSync(join(tmpdir(), "remora-follow-"));
after(() => {
  rmSync(root, { recursive: true, force: true });
});

/** A generator of numbers that a seed decides (mulberry32), so that a failure can be repeated. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Polls more often than the real one, so that the end of a container is noticed at once. */
const hasty: Clock = {
  ...systemClock,
  sleep: async (ms, signal) => systemClock.sleep(Math.min(ms, 5), signal),
};

interface Plan {
  readonly seed: number;
  readonly lines: number;
  readonly maxSize: number;
  readonly maxFiles: number;
  readonly compress: boolean;
  /** Lines there are before the reader comes. */
  readonly before: number;
  readonly tailLines: number | undefined;
}

const plans = fc.record({
  seed: fc.integer(),
  lines: fc.integer({ min: 1, max: 150 }),
  maxSize: fc.constantFrom(200, 700, 3000, 40_000),
  maxFiles: fc.integer({ min: 2, max: 6 }),
  compress: fc.boolean(),
  before: fc.integer({ min: 0, max: 30 }),
  tailLines: fc.option(fc.integer({ min: 0, max: 10 }), { nil: undefined }),
});

function textOf(line: number, random: () => number): string {
  const kind = random();
  const size = kind < 0.9 ? Math.floor(random() * 60) : Math.floor(random() * 40_000);
  return `${line}:${"x".repeat(size)}`;
}

function lastLines(text: string, count: number | undefined): string {
  if (count === undefined) return text;
  const lines = text.split("\n").slice(0, -1);
  return count === 0
    ? ""
    : lines
        .slice(-count)
        .map((line) => `${line}\n`)
        .join("");
}

/** Lets a writer and a follower run at the same time, and compares what went in with what came out. */
async function run(plan: Plan): Promise<void> {
  const random = randomFrom(plan.seed);
  const path = join(mkdtempSync(join(root, "log-")), "c-json.log");
  const signal = AbortSignal.timeout(5_000);
  let received = "";
  let expected: () => string = () => "";
  let caughtUpAt = Number.POSITIVE_INFINITY;
  const writer = new JsonLogWriter(path, {
    ...plan,
    random,
    beforeRotation: async () => {
      // A reader slower than the engine removes files loses what was in them; this one is not.
      if (writer.rotations - caughtUpAt < plan.maxFiles - 2) return;
      while (received.length < expected().length && !signal.aborted) await tick();
      caughtUpAt = writer.rotations;
    },
  });
  let count = 0;
  const writeLines = async (number: number): Promise<void> => {
    for (const end = count + number; count < end; count += 1) {
      await writer.writeLine(textOf(count, random), random() < 0.5 ? "stdout" : "stderr");
    }
  };
  await writeLines(plan.before);
  const already = writer.text.length;
  const tail = lastLines(writer.kept, plan.tailLines);
  expected = () => tail + writer.text.slice(already);

  let running = true;
  const opened = Promise.withResolvers<void>();
  const options: ReadLogsOptions = {
    path,
    follow: true,
    tailLines: plan.tailLines,
    since: undefined,
    limitBytes: undefined,
    timestamps: false,
    stream: "all",
    running: async () => {
      opened.resolve();
      return running;
    },
    clock: hasty,
  };
  const follow = async (): Promise<void> => {
    for await (const chunk of readLogs(options, signal)) {
      received += Buffer.from(chunk).toString();
      if (random() < 0.3) await tick();
    }
  };
  const following = follow();
  await opened.promise;
  caughtUpAt = writer.rotations;
  await writeLines(plan.lines);
  running = false;
  await following;
  assert.deepEqual(received.split("\n"), expected().split("\n"));
}

describe("following a log that is rotated", () => {
  test("loses nothing, repeats nothing and keeps the order", async () => {
    await fc.assert(fc.asyncProperty(plans, run), { numRuns: 15, endOnFailure: true });
  });
});
