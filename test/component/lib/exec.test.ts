import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { ExecError } from "../../../src/lib/errors.ts";
import { exec, execResult, spawnStreaming, whenClosed } from "../../../src/lib/exec.ts";

const never = new AbortController().signal;

describe("programs that are run to their end", () => {
  test("get their words and their input as they are, whatever a shell would make of them", async () => {
    const odd = 'a\'b $HOME `id` \\n "x" ; exit 3 \n two';
    assert.deepEqual(await execResult(["printf", "%s", odd], { signal: never }), {
      exitCode: 0,
      stdout: odd,
      stderr: "",
    });
    const stdin = "a'b $HOME `id`\n\\n\nEOF\n\n";
    assert.equal((await execResult(["cat"], { signal: never, stdin })).stdout, stdin);
    assert.equal(
      (await execResult(["cat"], { signal: never, stdin: "no end of line" })).stdout,
      "no end of line",
    );
    const big = `${"x".repeat(99)}\n`.repeat(20_000);
    assert.equal((await execResult(["cat"], { signal: never, stdin: big })).stdout, big);
  });

  test("have an environment of their own", async () => {
    const env = { GREETING: "it's" };
    const argv = ["sh", "-c", 'echo "$GREETING $LC_ALL"'] as const;
    assert.equal(await exec(argv, { signal: never, env }), "it's C\n");
    assert.equal(await exec(argv, { signal: never }), " C\n");
  });

  test("report exit codes, both outputs, signals and programs that do not exist", async () => {
    const script = "echo out; echo err >&2; exit 3";
    assert.deepEqual(await execResult(["sh", "-c", script], { signal: never }), {
      exitCode: 3,
      stdout: "out\n",
      stderr: "err\n",
    });
    await assert.rejects(exec(["sh", "-c", script], { signal: never }), ExecError);
    const killed = await execResult(["sh", "-c", "kill -9 $$"], { signal: never });
    assert.equal(killed.exitCode, undefined);
    await assert.rejects(execResult(["no-such-program"], { signal: never }), { code: "ENOENT" });
    const missing = await execResult(["sh", "-c", "exit 127"], { signal: never });
    assert.equal(missing.exitCode, 127, "an exit code is no missing program");
  });

  test("run beside each other without mixing their outputs", async () => {
    const results = await Promise.all(
      Array.from({ length: 12 }, (_, at) =>
        exec(["sh", "-c", `echo ${at}; head -c 200000 /dev/zero | tr '\\0' x`], { signal: never }),
      ),
    );
    for (const [at, text] of results.entries()) {
      assert.equal(text, `${at}\n${"x".repeat(200_000)}`);
    }
  });

  test("are ended when nobody waits any more, and the next one has its turn", async () => {
    const stop = new AbortController();
    const marker = String(86_400 + process.pid);
    const waiting = execResult(["sleep", marker], { signal: stop.signal });
    setTimeout(() => stop.abort(), 20);
    await assert.rejects(waiting, { name: "AbortError" });
    assert.equal(await exec(["echo", "next"], { signal: never }), "next\n");
    const left = await exec(
      ["sh", "-c", `while pgrep -xf 'sleep ${marker}' >/dev/null; do sleep 0.01; done; echo none`],
      { signal: AbortSignal.timeout(5000) },
    );
    assert.equal(left, "none\n");
  });

  test("that kill their own starter are a failure, not a hang", async () => {
    const outcome = await execResult(["sh", "-c", "kill -9 $PPID; sleep 0.01"], { signal: never })
      .then(() => "ended")
      .catch((error: unknown) => (error instanceof Error ? error.message : ""));
    assert.equal(outcome, "the shell that starts programs has ended");
    assert.equal(await exec(["echo", "again"], { signal: never }), "again\n");
  });

  test("wait for each other in a crowd, and never have this process start them", async () => {
    const starters = await Promise.all(
      Array.from({ length: 40 }, async () => exec(["sh", "-c", "echo $PPID"], { signal: never })),
    );
    assert.equal(starters.includes(`${process.pid}\n`), false);
    assert.ok(new Set(starters).size <= 4, starters.join(""));
  });

  test("that do not end hold up no others", async () => {
    const stop = new AbortController();
    const stuck = Array.from({ length: 6 }, async () =>
      execResult(["sleep", "60"], { signal: stop.signal }),
    );
    const starter = await exec(["sh", "-c", "echo $PPID"], { signal: AbortSignal.timeout(30_000) });
    assert.notEqual(starter, "");
    stop.abort();
    const ends = await Promise.allSettled(stuck);
    assert.deepEqual(new Set(ends.map(({ status }) => status)), new Set(["rejected"]));
    assert.equal(await exec(["echo", "after"], { signal: never }), "after\n");
  });

  test("that nobody waits for any more leave the crowd", async () => {
    const stop = new AbortController();
    const crowd = Array.from({ length: 12 }, async () =>
      execResult(["sleep", "0.05"], { signal: stop.signal }),
    );
    stop.abort();
    const ends = await Promise.allSettled(crowd);
    assert.deepEqual(new Set(ends.map(({ status }) => status)), new Set(["rejected"]));
    assert.equal(await exec(["echo", "after"], { signal: never }), "after\n");
  });
});

test("the end of a child that is aborted while its streams are read is no error of its own", async () => {
  const stop = new AbortController();
  const child = spawnStreaming(["sleep", "60"], { signal: stop.signal });
  // Nobody waits for it when the abort comes: a rejection would end the whole agent.
  const closed = whenClosed(child);
  stop.abort();
  for await (const _ of child.stdout) assert.fail("sleep says nothing");
  await closed;
  assert.equal(child.signalCode, "SIGTERM");
});
