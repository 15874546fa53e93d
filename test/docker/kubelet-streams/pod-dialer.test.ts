// The relay into a network namespace, against a real one. Needs root.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { text } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";

import {
  DialError,
  createPodDialer,
  networkNamespace,
  type PodDialer,
  type PodLoopback,
} from "../../../src/kubelet/server/streams/pod-dialer.ts";
import { type Clock, systemClock } from "../../../src/lib/clock.ts";

/** Echoes what it gets when the client has closed its half; one server on each family's loopback only. */
const servers = `
const { createServer } = require("node:net");
const serve = (socket) => { let all = ""; socket.on("data", (c) => all += c); socket.on("end", () => socket.end("got " + all)); };
const four = createServer({ allowHalfOpen: true }, serve).listen(8080, "127.0.0.1");
createServer((socket) => socket.end("hello ".repeat(20000))).listen(8081, "127.0.0.1");
const six = createServer({ allowHalfOpen: true }, serve).listen(8086, "::1");
Promise.all([four, six].map((s) => new Promise((r) => s.once("listening", r)))).then(() => console.log("up"));
`;

const root = process.getuid?.() === 0;

describe("dialing into a network namespace", { skip: root ? false : "needs root" }, () => {
  const stop = new AbortController();
  let pod: ChildProcess;
  let at: PodLoopback;
  const dialPod: PodDialer = createPodDialer(systemClock, stop.signal);

  before(async () => {
    pod = spawn(
      "unshare",
      ["-n", "sh", "-c", 'ip link set lo up && exec "$0" -e "$1"', process.execPath, servers],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    assert.ok(pod.stdout);
    await once(pod.stdout, "data");
    const pid = pod.pid ?? 0;
    at = { kind: "namespace", pid, namespace: networkNamespace(pid) };
  });

  after(async () => {
    stop.abort();
    pod.kill("SIGKILL");
    await once(pod, "close");
  });

  for (const [port, where] of [
    [8080, "127.0.0.1"],
    [8086, "::1"],
  ] as const) {
    test(`reaches a server that listens on ${where} only, with half-close`, async () => {
      const connection = await dialPod(at, port, stop.signal);
      connection.end("hello");
      assert.equal(await text(connection), "got hello");
    });
  }

  test("a port nobody listens on is a refused connection", async () => {
    await assert.rejects(
      dialPod(at, 9, stop.signal),
      (error) => error instanceof DialError && /ECONNREFUSED/.test(error.message),
    );
  });

  test("a process that is not in that namespace is a pod that is gone, be it the node itself", async () => {
    const wrong = { kind: "namespace", namespace: "net:[1]" } as const;
    for (const pid of [process.pid, 2 ** 22 + 1]) {
      await assert.rejects(
        dialPod({ ...wrong, pid }, 8080, stop.signal),
        (error) => error instanceof DialError && /its sandbox has ended/.test(error.message),
      );
    }
  });

  test("a hundred connections at once each get their own answer", async () => {
    const answers = await Promise.all(
      Array.from({ length: 100 }, async (_, number) => {
        const connection = await dialPod(at, 8080, stop.signal);
        connection.end(`number ${number}`);
        return text(connection);
      }),
    );
    assert.deepEqual(
      answers,
      Array.from({ length: 100 }, (_, number) => `got number ${number}`),
    );
  });

  test("what the server says first is not lost on the way", async () => {
    const connection = await dialPod(at, 8081, stop.signal);
    assert.equal(await text(connection), "hello ".repeat(20_000));
  });

  test("a dial that is given up leaves no connection behind", async () => {
    const aborted = AbortSignal.abort(new Error("given up"));
    await assert.rejects(dialPod(at, 8080, aborted), /given up/);
    const late = new AbortController();
    const dialing = dialPod(at, 8080, late.signal);
    late.abort(new Error("too late"));
    await assert.rejects(dialing, /too late/);
  });
});

describe("the helper of a namespace", { skip: root ? false : "needs root" }, () => {
  test("ends when it has not been used for a while, and with the server", async () => {
    const stop = new AbortController();
    const pod = spawn("unshare", ["-n", "sh", "-c", "ip link set lo up; echo up; exec sleep 600"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    try {
      await once(pod.stdout, "data");
      const pid = pod.pid ?? 0;
      const namespace = networkNamespace(pid);
      const wakes: (() => void)[] = [];
      const clock: Clock = {
        ...systemClock,
        sleep: (_ms, signal) =>
          new Promise((resolve, reject) => {
            wakes.push(resolve);
            signal.addEventListener("abort", reject);
          }),
      };
      const dial = createPodDialer(clock, stop.signal);
      const helpers = (): number =>
        readdirSync("/proc").filter((entry) => {
          if (!/^\d+$/.test(entry) || Number(entry) === pid) return false;
          try {
            return networkNamespace(Number(entry)) === namespace;
          } catch {
            return false;
          }
        }).length;
      const refused = async (): Promise<void> => {
        await assert.rejects(dial({ kind: "namespace", pid, namespace }, 9, stop.signal));
      };
      const gone = async (): Promise<void> => {
        while (helpers() > 0) await systemClock.sleep(10, AbortSignal.timeout(10_000));
      };
      await Promise.all([refused(), refused(), refused()]);
      assert.equal(helpers(), 1);
      // Once because it was used since, then because it was not.
      for (let turn = 0; turn < 2; turn += 1) {
        wakes.shift()?.();
        await systemClock.sleep(5, stop.signal);
      }
      await gone();
      await refused();
      assert.equal(helpers(), 1);
      stop.abort();
      await gone();
    } finally {
      stop.abort();
      pod.kill("SIGKILL");
      await once(pod, "close");
    }
  });
});
