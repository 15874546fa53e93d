import assert from "node:assert/strict";
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { readFileSync } from "node:fs";
import { get } from "node:http";
import { createConnection } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { inTemporary } from "../../fakes/temporary.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));

function hasPerl(): boolean {
  try {
    execFileSync("perl", ["-MSocket", "-MPOSIX", "-e", "1"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

const skip = hasPerl()
  ? false
  : "there is no perl, which has the datagram sockets that Node has not";

/** systemd as the agent sees it: it holds three sockets, starts and ends a process, and hears what that tells. */
class Manager implements AsyncDisposable {
  readonly #perl: ChildProcessWithoutNullStreams;
  readonly #lines: string[] = [];
  readonly #complaints: string[] = [];
  readonly #closed: Promise<void>;
  #changed = Promise.withResolvers<void>();
  #ended = false;
  http = 0;
  dns = 0;

  constructor(directory: string, command: readonly string[]) {
    const script = join(root, "test/fakes/service-manager.pl");
    this.#perl = spawn("perl", [script, directory, ...command]);
    this.#closed = new Promise((resolve) => {
      this.#perl.once("close", () => {
        this.#ended = true;
        this.#changed.resolve();
        resolve();
      });
    });
    // One that has ended is told by its lines.
    this.#perl.stdin.on("error", () => undefined);
    createInterface(this.#perl.stderr).on("line", (line) => this.#complaints.push(line));
    createInterface(this.#perl.stdout).on("line", (line) => {
      this.#lines.push(line);
      this.#changed.resolve();
    });
  }

  /** Takes the first line that begins so, once it is there. */
  async line(begin: string): Promise<string> {
    const timer = setTimeout(() => this.#changed.reject(this.#missing(begin)), 20_000);
    try {
      for (;;) {
        const at = this.#lines.findIndex((line) => line.startsWith(begin));
        const [line] = at < 0 ? [] : this.#lines.splice(at, 1);
        if (line !== undefined) return line.slice(begin.length).trim();
        if (this.#ended) throw this.#missing(begin);
        this.#changed = Promise.withResolvers();
        await this.#changed.promise;
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #missing(begin: string): Error {
    return new Error(`no "${begin}"; ${[...this.#lines, ...this.#complaints].join("\n")}`);
  }

  async open(): Promise<void> {
    [this.http = 0, this.dns = 0] = (await this.line("listening")).split(" ").map(Number);
  }

  say(command: "start" | "stop" | "kill"): void {
    this.#perl.stdin.write(`${command}\n`);
  }

  async started(): Promise<void> {
    this.say("start");
    await this.line("started");
    await this.line("notify READY=1");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#perl.stdin.end();
    await this.#closed;
  }
}

/** One request on a connection of its own. */
function fetchText(port: number, path = "/"): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get(
      { host: "127.0.0.1", port, path, agent: false, timeout: 15_000 },
      (answer) => {
        let text = "";
        answer.on("data", (chunk: Buffer) => (text += chunk.toString()));
        answer.on("end", () => resolve(text));
      },
    );
    request.on("timeout", () => request.destroy(new Error("no answer")));
    request.on("error", reject);
  });
}

const question = Buffer.from("a question of sixteen bytes and more");

function askUDP(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createSocket("udp4");
    const timer = setTimeout(() => done(new Error("no reply by UDP")), 15_000);
    const done = (error?: Error): void => {
      clearTimeout(timer);
      socket.close();
      if (error === undefined) resolve();
      else reject(error);
    };
    socket.on("error", done);
    socket.on("message", () => done());
    socket.send(question, port, "127.0.0.1");
  });
}

function askTCP(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(port, "127.0.0.1");
    socket.on("close", () => reject(new Error("closed without a reply by TCP")));
    socket.setTimeout(15_000, () => socket.destroy(new Error("no reply by TCP")));
    socket.on("error", reject);
    socket.on("data", () => {
      socket.destroy();
      resolve();
    });
    socket.write(Buffer.concat([Buffer.from([0, question.length]), question]));
  });
}

/** Asks until told to stop. @returns how often, and each failure. */
async function askOn(ask: () => Promise<unknown>, signal: AbortSignal) {
  const asked: Promise<readonly PromiseSettledResult<unknown>[]>[] = [];
  while (!signal.aborted) {
    asked.push(Promise.allSettled([ask()]));
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const results = (await Promise.all(asked)).flat();
  const failures = results.flatMap((result) =>
    result.status === "rejected" ? [String(result.reason)] : [],
  );
  return { count: results.length, failures };
}

/** How many may wait in a socket for somebody who accepts. */
function backlogOf(port: number): number {
  const line = execFileSync("ss", ["-Hltn", `sport = :${port}`], { encoding: "utf8" });
  return Number(line.trim().split(/\s+/)[2]);
}

async function withManager(work: (manager: Manager) => Promise<void>): Promise<void> {
  await inTemporary(async (directory) => {
    const child = join(root, "test/component/service-manager/held-ports-child.ts");
    // The manager chooses the ports.
    const script = `exec "${root}systemd/as-service" "${process.execPath}" "${child}" $HTTP_PORT $DNS_PORT`;
    await using manager = new Manager(directory, ["sh", "-c", script]);
    await manager.open();
    await manager.started();
    await work(manager);
  });
}

describe("a process on sockets that a service manager holds", { skip }, () => {
  test("uses all of them, tells its state through one of its own, and passes nothing on", async () => {
    await withManager(async (manager) => {
      const facts: unknown = JSON.parse(await fetchText(manager.http, "/facts"));
      assert.deepEqual(facts, { unused: [], socketsOfChild: 0, variablesOfChild: [] });
      await Promise.all([askUDP(manager.dns), askTCP(manager.dns)]);
      const most = Number(readFileSync("/proc/sys/net/core/somaxconn", "utf8"));
      const room = Math.min(4096, most);
      assert.deepEqual([backlogOf(manager.http), backlogOf(manager.dns)], [room, room]);
      manager.say("stop");
      assert.equal(await manager.line("notify STOPPING=1"), "|STATUS=stopping; pods keep running");
      assert.equal(await manager.line("ended"), "0");
    });
  });

  test("is replaced without one request refused or question lost", async () => {
    await withManager(async (manager) => {
      const end = new AbortController();
      const asking = [
        askOn(() => fetchText(manager.http), end.signal),
        askOn(() => askUDP(manager.dns), end.signal),
        askOn(() => askTCP(manager.dns), end.signal),
      ];
      try {
        for (let round = 0; round < 2; round += 1) {
          manager.say("stop");
          assert.equal(await manager.line("ended"), "0");
          await manager.started();
        }
      } finally {
        end.abort();
      }
      for (const { count, failures } of await Promise.all(asking)) {
        assert.ok(count > 20, `asked ${count} times`);
        assert.deepEqual(failures, []);
      }
    });
  });

  test("answers again after it was killed: who asked meanwhile has waited", async () => {
    await withManager(async (manager) => {
      manager.say("kill");
      assert.equal(await manager.line("ended"), "9");
      const waiting = [fetchText(manager.http), askUDP(manager.dns), askTCP(manager.dns)];
      await manager.started();
      await Promise.all(waiting);
    });
  });

  test("has copies for a name server that is made anew, and ends when they are used up", async () => {
    await withManager(async (manager) => {
      for (let round = 0; round < 7; round += 1) {
        await fetchText(manager.http, "/again");
        await Promise.all([askUDP(manager.dns), askTCP(manager.dns)]);
      }
      await assert.rejects(fetchText(manager.http, "/again"));
      // The next process has all of them again.
      manager.say("kill");
      await manager.line("ended");
      await manager.started();
      await askUDP(manager.dns);
    });
  });
});
