import assert from "node:assert/strict";
import { access, readdir, readFile } from "node:fs/promises";
import { after, before, describe, it } from "node:test";

import { isRuntimeFailure } from "../../../src/runtime/errors.ts";
import type { SandboxRecord, StreamSession } from "../../../src/runtime/types.ts";
import {
  createFixture,
  eventually,
  type Fixture,
  runScript,
  sandboxConfig,
  sleeper,
  testSignal,
} from "./fixture.ts";

let fixture: Fixture;
let sandbox: SandboxRecord;
let container = "";
before(async () => {
  fixture = await createFixture();
  sandbox = await fixture.runtime.runPodSandbox(sandboxConfig(), testSignal());
  container = await runScript(fixture, sandbox, sleeper);
});
after(async () => {
  await fixture[Symbol.asyncDispose]();
});

const shell = (script: string): string[] => ["/bin/busybox", "sh", "-c", script];

async function collect(session: StreamSession): Promise<{ stdout: string; stderr: string }> {
  const text = { stdout: "", stderr: "" };
  for await (const { stream, chunk } of session.output)
    text[stream] += Buffer.from(chunk).toString();
  return text;
}

/** Reads until the output contains `want`; the session goes on. */
async function readUntil(
  output: AsyncIterator<{ chunk: Uint8Array }>,
  want: RegExp,
): Promise<string> {
  let text = "";
  while (!want.test(text)) {
    const next = await output.next();
    if (next.done === true) throw new Error(`the output ended without ${String(want)}: ${text}`);
    text += Buffer.from(next.value.chunk).toString();
  }
  return text;
}

describe("execSync on Docker", () => {
  const limits = { timeoutMs: 10_000, maxBytes: 1 << 16 };
  const run = (
    script: string,
    over: Partial<typeof limits> = {},
  ): Promise<{ code: number; out: string; err: string; timedOut: boolean }> =>
    fixture.runtime
      .execSync(container, shell(script), { ...limits, ...over }, testSignal())
      .then(({ exitCode, stdout, stderr, timedOut }) => ({
        code: exitCode,
        out: Buffer.from(stdout).toString(),
        err: Buffer.from(stderr).toString(),
        timedOut,
      }));

  it("gives both streams and the exit code", async () => {
    assert.deepEqual(await run("echo out; echo err >&2; exit 7"), {
      code: 7,
      out: "out\n",
      err: "err\n",
      timedOut: false,
    });
  });

  it("keeps 126 and 127 of commands that cannot be started", async () => {
    const missing = await fixture.runtime.execSync(container, ["/nope"], limits, testSignal());
    assert.ok([126, 127].includes(missing.exitCode), String(missing.exitCode));
    assert.match(Buffer.from(missing.stderr).toString(), /OCI runtime exec failed/);
    assert.equal(missing.stdout.length, 0);
  });

  it("kills the process on the host at the deadline", async () => {
    const result = await run("exec busybox sleep 600", {
      timeoutMs: 400,
    });
    assert.equal(result.timedOut, true);
    assert.equal(result.code, 137);
    await eventually(async () => {
      const left = await run("busybox ps | busybox grep -c '[s]leep 600'");
      return left.out.trim() === "0" ? true : undefined;
    }, "the process is gone");
  });

  it("kills what the process has started, too", async () => {
    const result = await run("busybox sleep 601 & (busybox sleep 602; true) & wait", {
      timeoutMs: 400,
    });
    assert.equal(result.timedOut, true);
    await eventually(async () => {
      const left = await run("busybox ps | busybox grep -c '[s]leep 60[12]'");
      return left.out.trim() === "0" ? true : undefined;
    }, "all of them are gone");
  });

  it("lets a command in a paused container time out", async () => {
    const pause = (verb: string): Promise<unknown> =>
      fixture.client.call(
        { op: verb, method: "POST", path: `/containers/${container}/${verb}` },
        testSignal(),
      );
    await pause("pause");
    try {
      const result = await run("true", { timeoutMs: 400 });
      assert.deepEqual(result, { code: 137, out: "", err: "", timedOut: true });
    } finally {
      await pause("unpause");
    }
    assert.equal((await run("true")).code, 0);
  });

  it("does not wait for a child that keeps the output open", async () => {
    const started = performance.now();
    const result = await run("busybox sleep 30 & echo done");
    assert.equal(result.out, "done\n");
    assert.equal(result.timedOut, false);
    assert.ok(performance.now() - started < 10_000);
  });

  it("keeps no more output than asked", async () => {
    assert.equal(
      (await run("busybox head -c 100000 /dev/zero", { maxBytes: 1000 })).out.length,
      1000,
    );
  });

  it("refuses a container that does not run", async () => {
    const ended = await runScript(fixture, sandbox, "exit 0", { name: "ended" });
    await eventually(async () => {
      const { containers } = await fixture.runtime.podRecord(sandbox.metadata.uid, testSignal());
      return containers.some(({ id, state }) => id === ended && state.kind === "exited")
        ? true
        : undefined;
    }, "the container ends");
    await assert.rejects(
      fixture.runtime.execSync(ended, shell("true"), limits, testSignal()),
      (error) => isRuntimeFailure(error, "WrongState"),
    );
    await assert.rejects(
      fixture.runtime.attach(ended, { stdin: false, tty: false }, testSignal()),
      (error) => isRuntimeFailure(error, "WrongState"),
    );
  });
});

describe("exec sessions on Docker", () => {
  it("half-closes stdin and still gets all output", async () => {
    const session = await fixture.runtime.exec(
      container,
      { command: ["/bin/busybox", "wc", "-c"], stdin: true, tty: false },
      testSignal(),
    );
    for (let i = 0; i < 64; i += 1) await session.writeStdin(Buffer.alloc(16_384, "x"));
    session.closeStdin();
    assert.equal((await collect(session)).stdout.trim(), String(64 * 16_384));
    assert.equal(await session.exitCode, 0);
  });

  it("has a terminal of the size that was asked for", async () => {
    const session = await fixture.runtime.exec(
      container,
      { command: shell("read go; busybox stty size"), stdin: true, tty: true },
      testSignal(),
    );
    await session.resize({ width: 123, height: 45 });
    await session.writeStdin(Buffer.from("go\n"));
    assert.match((await collect(session)).stdout, /45 123/);
  });

  it("takes the detach keys of Docker for what they are to a program: input", async () => {
    const session = await fixture.runtime.exec(
      container,
      {
        command: shell(
          "busybox stty raw -echo; echo ready; busybox head -c 2 | busybox hexdump -C",
        ),
        stdin: true,
        tty: true,
      },
      testSignal(),
    );
    const output = session.output[Symbol.asyncIterator]();
    await readUntil(output, /ready/);
    await session.writeStdin(Buffer.from([0x10, 0x11]));
    await readUntil(output, /10 11/);
    await session.abort();
  });

  it("passes many frames on without losing a byte", async () => {
    const session = await fixture.runtime.exec(
      container,
      {
        command: shell("i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done"),
        stdin: false,
        tty: false,
      },
      testSignal(),
    );
    const want = Array.from({ length: 3000 }, (_, i) => `${i}\n`).join("");
    assert.equal((await collect(session)).stdout, want);
  });
});

describe("exec sessions on Docker that are given up", () => {
  /** How many processes of this container have `word` among their arguments. */
  const running = async (word: string): Promise<number> => {
    let found = 0;
    for (const pid of await readdir("/proc")) {
      if (!/^\d+$/.test(pid)) continue;
      const read = (file: string): Promise<string> =>
        readFile(`/proc/${pid}/${file}`, "utf8").catch(() => "");
      if ((await read("cgroup")).includes(container) && (await read("cmdline")).includes(word)) {
        found += 1;
      }
    }
    return found;
  };
  const gone = (word: string): Promise<true> =>
    eventually(async () => ((await running(word)) === 0 ? true : undefined), `${word} is gone`);

  for (const tty of [false, true]) {
    it(`end the process and what it has started${tty ? ", with a terminal" : ""}`, async () => {
      const word = `7${tty ? 1 : 2}0711`;
      const leave = new AbortController();
      const session = await fixture.runtime.exec(
        container,
        // Deaf to signals that can be ignored, and always starting something new.
        {
          command: shell(`trap '' HUP INT TERM; while :; do busybox sleep ${word}; done`),
          stdin: true,
          tty,
        },
        leave.signal,
      );
      await eventually(async () => ((await running(word)) > 0 ? true : undefined), "it runs");
      leave.abort();
      await gone(word);
      assert.equal(await session.exitCode, 137);
    });
  }

  it("while they are being started: nothing runs on that nobody asked for any more", async () => {
    const word = "730711";
    for (let wait = 0; wait < 120; wait += 8) {
      const leave = new AbortController();
      const opening = fixture.runtime.exec(
        container,
        { command: ["/bin/busybox", "sleep", word], stdin: false, tty: false },
        leave.signal,
      );
      const settled = opening.catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, wait));
      leave.abort();
      await settled;
    }
    // The engine may only now be starting the last of them.
    await new Promise((resolve) => setTimeout(resolve, 300));
    await gone(word);
  });
});

describe("attach on Docker", () => {
  it("talks to the main process and leaves it running", async () => {
    const echo = await runScript(fixture, sandbox, "while read line; do echo got $line; done", {
      name: "echo",
      stdin: true,
    });
    const session = await fixture.runtime.attach(echo, { stdin: true, tty: false }, testSignal());
    await session.writeStdin(Buffer.from("hello\n"));
    await readUntil(session.output[Symbol.asyncIterator](), /got hello/);
    await session.abort();
    assert.equal(await session.exitCode, undefined);
    const { containers } = await fixture.runtime.podRecord(sandbox.metadata.uid, testSignal());
    const state = containers.find(({ id }) => id === echo)?.state;
    assert.equal(state?.kind, "running");
    await access(`/proc/${state.kind === "running" ? state.pid : 0}`);
  });
});

describe("the end of the input of an attach on Docker", () => {
  const script = "read line; echo got $line; read more || echo end of input; echo done";

  it("is that of a container with stdinOnce, whose output goes on", async () => {
    const options = { name: "once", stdin: true, stdinOnce: true };
    const id = await runScript(fixture, sandbox, script, options);
    const session = await fixture.runtime.attach(id, { stdin: true, tty: false }, testSignal());
    await session.writeStdin(Buffer.from("hello\n"));
    session.closeStdin();
    assert.equal((await collect(session)).stdout, "got hello\nend of input\ndone\n");
  });

  it("ends the session with one without, when it has said what it has to say", async () => {
    const options = { name: "open", stdin: true, stdinOnce: false };
    const id = await runScript(fixture, sandbox, script, options);
    const attach = (): Promise<StreamSession> =>
      fixture.runtime.attach(id, { stdin: true, tty: false }, testSignal());
    const first = await attach();
    await first.writeStdin(Buffer.from("hello\n"));
    first.closeStdin();
    assert.equal((await collect(first)).stdout, "got hello\n");
    const second = await attach();
    await second.writeStdin(Buffer.from("more\n"));
    second.closeStdin();
    assert.equal((await collect(second)).stdout, "done\n");
  });
});

describe("images on Docker", () => {
  it("knows the imported image by every spelling, and nothing by the beginning of its id", async () => {
    const { runtime } = fixture;
    const byName = await runtime.imageStatus(fixture.busyboxName, testSignal());
    assert.equal(byName?.id, fixture.busybox);
    const byID = await runtime.imageStatus(fixture.busybox, testSignal());
    assert.deepEqual(byID, byName);
    const prefix = fixture.busybox.slice("sha256:".length, "sha256:".length + 8);
    assert.equal(await runtime.imageStatus(prefix, testSignal()), undefined);
  });

  it("marks the pause image as pinned in the list", async () => {
    const images = await fixture.runtime.listImages(testSignal());
    const pause = images.find(({ tags }) =>
      tags.some((tag) => tag.startsWith("remora.local/pause:")),
    );
    assert.equal(pause?.pinned, true);
  });

  it("does not remove an image in use", async () => {
    await assert.rejects(fixture.runtime.removeImage(fixture.busybox, testSignal()), (error) =>
      isRuntimeFailure(error, "WrongState"),
    );
    assert.ok(await fixture.runtime.imageStatus(fixture.busybox, testSignal()));
  });

  it("says that the registry cannot be reached", async () => {
    await assert.rejects(
      fixture.runtime.pullImage(
        "127.0.0.1:1/nothing:1",
        { auth: undefined, stallMs: 20_000 },
        testSignal(),
      ),
      (error) =>
        isRuntimeFailure(error, "ImagePullFailed") &&
        /registry cannot be reached/.test(String(error)),
    );
  });
});
