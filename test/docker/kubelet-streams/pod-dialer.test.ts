// The relay into a network namespace, against a real one. Needs root.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";

import { DialError, dialPod, type PodLoopback } from "../../../src/kubelet/server/streams/pod-dialer.ts";

/** Echoes what it gets when the client has closed its half; one server on each family's loopback only. */
const servers = `
const { createServer } = require("node:net");
const serve = (socket) => { let all = ""; socket.on("data", (c) => all += c); socket.on("end", () => socket.end("got " + all)); };
const four = createServer({ allowHalfOpen: true }, serve).listen(8080, "127.0.0.1");
const six = createServer({ allowHalfOpen: true }, serve).listen(8086, "::1");
Promise.all([four, six].map((s) => new Promise((r) => s.once("listening", r)))).then(() => console.log("up"));
`;

const root = process.getuid?.() === 0;

describe("dialing into a network namespace", { skip: root ? false : "needs root" }, () => {
  const stop = new AbortController();
  let pod: ChildProcess;
  let at: PodLoopback;

  before(async () => {
    pod = spawn(
      "unshare",
      ["-n", "sh", "-c", 'ip link set lo up && exec "$0" -e "$1"', process.execPath, servers],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    assert.ok(pod.stdout);
    await once(pod.stdout, "data");
    at = { kind: "namespace", pid: pod.pid ?? 0 };
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

  test("a pod that is gone is an error in words", async () => {
    await assert.rejects(
      dialPod({ kind: "namespace", pid: 2 ** 22 + 1 }, 8080, stop.signal),
      (error) => error instanceof DialError && /nsenter/.test(error.message),
    );
  });
});
