import assert from "node:assert/strict";
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { once } from "node:events";
import { access, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { LocalServer } from "../../../src/agent/local/local-server.ts";
import type { NodeSnapshot } from "../../../src/agent/local/types.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { emptySnapshot, podOf } from "../../fakes/node-snapshots.ts";
import { inTemporary } from "../../fakes/temporary.ts";

const main = fileURLToPath(new URL("../../../src/agent/main.ts", import.meta.url));
const node = process.execPath;

const escape = "\u001B";
const enter = `${escape}[?1049h`;
const leave = `${escape}[?7h${escape}[?25h${escape}[?1049l`;
const hostile = `evil${escape}]0;owned\u0007${escape}[2J`;

const snapshot: NodeSnapshot = emptySnapshot(
  {},
  {
    pods: [
      podOf({ uid: "1", name: "web-1", cpu: 0.5 }),
      podOf({
        uid: "2",
        name: "broken",
        cpu: 0.1,
        ready: false,
        status: "ErrImagePull",
        why: `image "${hostile}" of container "web" cannot be pulled`,
      }),
    ],
  },
);

async function withAgent(
  work: (stateDir: string) => Promise<void>,
  current: () => NodeSnapshot = () => snapshot,
): Promise<void> {
  await inTemporary(async (stateDir) => {
    const stop = new AbortController();
    const path = join(stateDir, "local.sock");
    const take = () => Promise.resolve({ snapshot: current(), at: 0, costMs: 1 });
    const server = new LocalServer({
      path,
      group: undefined,
      source: { take, forget: () => undefined },
      clock: systemClock,
      logger: silentLogger,
    });
    const running = server.run(stop.signal);
    try {
      await until(() =>
        access(path).then(
          () => true,
          () => false,
        ),
      );
      await work(stateDir);
    } finally {
      stop.abort();
      await running;
    }
  });
}

async function until(
  condition: () => Promise<boolean> | boolean,
  seen: () => string = () => "",
): Promise<void> {
  for (let tries = 0; tries < 1000; tries += 1) {
    if (await condition()) return;
    await systemClock.sleep(10, AbortSignal.timeout(1000));
  }
  assert.fail(`it never came to that: ${JSON.stringify(seen())}`);
}

interface Terminal {
  readonly child: ChildProcessWithoutNullStreams;
  /** All that was sent to it. */
  readonly sent: () => string;
  /** Its exit code. */
  readonly ended: Promise<number>;
}

interface TerminalOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Runs the command under a shell that has jobs: what it is told to do. */
  readonly shell?: (command: string) => string;
}

/** A command on a pseudo terminal of 24 rows and 100 columns. */
function onTerminal(args: readonly string[], { env = {}, shell }: TerminalOptions = {}): Terminal {
  const command = [node, main, ...args].join(" ");
  const run = shell === undefined ? `exec ${command}` : `set -m; ${shell(command)}`;
  const script = ["-qec", `stty rows 24 cols 100; ${run}`, "/dev/null"];
  const child = spawn("script", script, {
    env: { PATH: process.env["PATH"], TERM: "xterm", LANG: "C.UTF-8", SHELL: "/bin/bash", ...env },
  });
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
  const ended = once(child, "close").then(() => child.exitCode ?? 128);
  return { child, sent: () => text, ended };
}

/** All since the other screen was last entered. */
function lastScreen(sent: string): string {
  return sent.slice(sent.lastIndexOf(enter));
}

/** What a terminal shows after all that was sent, as far as we use one. */
function screen(sent: string): string {
  const rows: string[] = [];
  const frames = sent.matchAll(
    // oxlint-disable-next-line no-control-regex -- escape sequences are what it reads
    /\u001B\[(\d+);1H(.*?)\u001B\[K|\u001B\[2J/gs,
  );
  for (const [whole, row, text = ""] of frames) {
    if (whole === `${escape}[2J`) rows.length = 0;
    // oxlint-disable-next-line no-control-regex -- colours
    else rows[Number(row) - 1] = text.replaceAll(/\u001B\[\d*m/g, "");
  }
  return Array.from(rows, (row) => row ?? "").join("\n");
}

async function piped(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }> {
  const child = spawn(node, [main, ...args], {
    env: { PATH: process.env["PATH"], LANG: "C.UTF-8", TERM: "xterm", ...env },
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => (stdout += chunk));
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => (stderr += chunk));
  await once(child, "close");
  return { code: child.exitCode ?? 128, stdout, stderr };
}

describe("remora top on a terminal", () => {
  test("is drawn on a screen of its own, moved by keys, and gives the terminal back", async () => {
    await withAgent(async (stateDir) => {
      const { child, ended, sent } = onTerminal(["top", "--state-dir", stateDir]);
      await until(() => screen(sent()).includes("web-1"), sent);
      const first = screen(sent());
      assert.match(first, /host-1 {2}● Ready/);
      assert.equal(first.split("\n").length, 23, first);
      child.stdin.write("j");
      await until(() => screen(sent()).includes("cannot be pulled"));
      assert.ok(!sent().includes("owned"), "text of others steers no terminal");
      assert.equal(sent().split(`${escape}[2J`).length, 2, "cleared once, when it was opened");
      child.stdin.write("/web");
      await until(() => /\/web/.test(screen(sent())) && !screen(sent()).includes("broken"));
      child.stdin.write(`${escape}[`);
      child.stdin.write("B\rq");
      assert.equal(await ended, 0);
      const all = sent();
      assert.ok(all.includes(enter));
      assert.ok(all.endsWith(leave), JSON.stringify(all.slice(-80)));
    });
  });

  test("without colours where they are not wanted; ctrl-c gives the terminal back too", async () => {
    await withAgent(async (stateDir) => {
      const args = ["top", "--state-dir", stateDir];
      const { child, ended, sent } = onTerminal(args, { env: { NO_COLOR: "1" } });
      await until(() => screen(sent()).includes("web-1"), sent);
      assert.ok(!sent().includes(`${escape}[32m`));
      assert.ok(sent().includes(`${escape}[7m`), "the chosen row is still to be seen");
      child.stdin.write("\u0003");
      await ended;
      assert.ok(sent().endsWith(leave));
    });
  });

  test("ctrl-z gives the terminal to the shell; fg takes it again, on a screen of another size", async () => {
    await withAgent(async (stateDir) => {
      const shell = (command: string): string =>
        `${command}; echo "asleep $(stty -a | grep -ow -- -*icanon)"; stty rows 12 cols 60; fg`;
      const { child, ended, sent } = onTerminal(["top", "--state-dir", stateDir], { shell });
      await until(() => screen(sent()).includes("web-1"), sent);
      child.stdin.write("\u001A");
      await until(() => sent().includes("asleep"), sent);
      const [, after = ""] = sent().split("asleep");
      assert.match(after, /^ icanon/, "lines are edited again");
      assert.ok(sent().indexOf(leave) < sent().indexOf("asleep"));
      await until(() => sent().split(enter).length === 3, sent);
      await until(() => screen(lastScreen(sent())).includes("web-1"), sent);
      assert.equal(screen(lastScreen(sent())).split("\n").length, 11);
      child.stdin.write("q");
      assert.equal(await ended, 0);
    });
  });

  test("a window that gets another size is filled anew, and nothing stands beside it", async () => {
    await withAgent(async (stateDir) => {
      const go = join(stateDir, "go");
      const resize = `while [ ! -e ${go} ]; do sleep 0.02; done; stty -F /dev/tty rows 12 cols 60`;
      const shell = (command: string): string => `(${resize}) & ${command}`;
      const { child, ended, sent } = onTerminal(["top", "--state-dir", stateDir], { shell });
      await until(() => screen(sent()).includes("web-1"), sent);
      await writeFile(go, "");
      await until(() => {
        const rows = screen(sent()).split("\n");
        return rows.length === 11 && rows.every((row) => row.length < 60);
      }, sent);
      await until(() => screen(sent()).includes("web-1"), sent);
      child.stdin.write("q");
      assert.equal(await ended, 0);
    });
  });

  test("ctrl-z where no shell could wake it changes nothing", async () => {
    await withAgent(async (stateDir) => {
      const { child, ended, sent } = onTerminal(["top", "--state-dir", stateDir]);
      await until(() => screen(sent()).includes("web-1"), sent);
      child.stdin.write("\u001A");
      await until(() => sent().split(enter).length === 3, sent);
      await until(() => screen(lastScreen(sent())).includes("web-1"), sent);
      child.stdin.write("q");
      assert.equal(await ended, 0);
    });
  });

  test("ends with its terminal, also where nobody told it to (nohup)", async () => {
    await withAgent(async (stateDir) => {
      const pidFile = join(stateDir, "pid");
      const shell = (command: string): string =>
        `set +m; trap '' HUP; echo $$ > ${pidFile}; exec ${command}`;
      const { child, ended, sent } = onTerminal(["top", "--state-dir", stateDir], { shell });
      await until(() => screen(sent()).includes("web-1"), sent);
      const pid = (await readFile(pidFile, "utf8")).trim();
      child.kill("SIGKILL");
      await ended;
      await until(
        () =>
          access(`/proc/${pid}`).then(
            () => false,
            () => true,
          ),
        () => `${pid} is still there`,
      );
    });
  });

  test("an agent that ends: it says so on the terminal that people have back", async () => {
    await inTemporary(async (stateDir) => {
      const stop = new AbortController();
      const path = join(stateDir, "local.sock");
      const take = () => Promise.resolve({ snapshot, at: 0, costMs: 1 });
      const source = { take, forget: () => undefined };
      const options = { path, group: undefined, source, clock: systemClock, logger: silentLogger };
      const running = new LocalServer(options).run(stop.signal);
      const { ended, sent } = onTerminal(["top", "--state-dir", stateDir]);
      await until(() => screen(sent()).includes("web-1"), sent);
      stop.abort();
      await running;
      assert.equal(await ended, 3);
      const [, after = ""] = sent().split(leave);
      assert.match(after, /remora: /);
    });
  });
});

describe("remora status and top in a pipe", () => {
  test("status is text without control codes; the exit code tells whether the node is Ready", async () => {
    let ready = true;
    const { node: summary } = snapshot;
    const current = (): NodeSnapshot => ({
      ...snapshot,
      node: ready
        ? summary
        : { ...summary, ready, message: "the container engine does not answer" },
    });
    await withAgent(async (stateDir) => {
      const at = ["--state-dir", stateDir];
      const [good, top] = await Promise.all([
        piped(["status", ...at]),
        piped(["top", "--sort", "name", ...at]),
      ]);
      assert.equal(good.code, 0, good.stderr);
      assert.match(good.stdout, /default\/broken +ErrImagePull/);
      assert.match(good.stdout, /image "evil" of container "web" cannot be pulled/);
      assert.ok(!good.stdout.includes(escape));
      assert.equal(top.code, 0);
      assert.ok(!top.stdout.includes(escape));
      assert.ok(top.stdout.indexOf("broken") < top.stdout.indexOf("web-1"));
      ready = false;
      const [bad, json] = await Promise.all([
        piped(["status", ...at]),
        piped(["status", "--json", ...at]),
      ]);
      assert.equal(bad.code, 1);
      assert.match(bad.stdout, /not Ready[^]*the container engine does not answer/);
      assert.equal(json.code, 1);
      assert.deepEqual(JSON.parse(json.stdout), JSON.parse(JSON.stringify(current())));
    }, current);
  });

  test("fits where watch(1) shows it", async () => {
    await withAgent(async (stateDir) => {
      const { stdout } = await piped(["status", "--state-dir", stateDir], {
        COLUMNS: "50",
        LINES: "12",
      });
      const lines = stdout.trimEnd().split("\n");
      assert.ok(lines.length <= 12, stdout);
      for (const line of lines) assert.ok(line.length <= 50, line);
    });
  });

  test("no agent: exit code 3, and what to do", async () => {
    await inTemporary(async (stateDir) => {
      const answers = ["status", "top"].map((command) => piped([command, "--state-dir", stateDir]));
      for (const { code, stderr, stdout } of await Promise.all(answers)) {
        assert.equal(code, 3);
        assert.equal(stdout, "");
        assert.match(stderr, /^remora: no agent runs on this machine[^]*sudo remora up/);
      }
    });
  });

  test("--watch writes a report when something has changed, and no more", async () => {
    let pods = snapshot.pods;
    await withAgent(
      async (stateDir) => {
        const args = [main, "status", "--watch", "--state-dir", stateDir];
        const child = spawn(node, args, { env: { PATH: process.env["PATH"], LANG: "C.UTF-8" } });
        let stdout = "";
        child.stdout.setEncoding("utf8").on("data", (chunk: string) => (stdout += chunk));
        await until(() => stdout.includes("default/broken"));
        await systemClock.sleep(1200, AbortSignal.timeout(5000));
        assert.equal(stdout.split("API").length, 2, "nothing has changed");
        pods = pods.slice(0, 1);
        await until(() => stdout.split("API").length === 3);
        const ended = once(child, "close");
        child.kill("SIGTERM");
        await ended;
      },
      () => ({ ...snapshot, pods }),
    );
  });
});
