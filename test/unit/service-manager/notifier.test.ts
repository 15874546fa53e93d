import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { createNotifier } from "../../../src/agent/service-manager/notifier.ts";
import type { Logger } from "../../../src/lib/log.ts";

interface Told {
  readonly written: string[];
  readonly byTool: string[];
  readonly said: string[];
}

function bench(notifyFd: number | undefined, failures: readonly string[] = []) {
  const told: Told = { written: [], byTool: [], said: [] };
  const left = [...failures];
  const logger: Logger = { log: (_level, msg) => told.said.push(msg), child: () => logger };
  const notify = createNotifier({
    environment: { notifySocket: "/run/systemd/notify", notifyFd },
    pid: 4711,
    logger,
    runTool: async (args) => {
      told.byTool.push(args.join(" "));
    },
    write: (fd, text) => {
      const code = left.shift();
      if (code !== undefined) throw Object.assign(new Error(code), { code });
      told.written.push(`${fd} ${text}`);
    },
  });
  return { notify, told };
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe("what the service manager is told", () => {
  test("goes out as one datagram, a line each", () => {
    const { notify, told } = bench(7);
    notify(["READY=1", "STATUS=waiting for\n  nobody"]);
    assert.deepEqual(told.written, ["7 READY=1\nSTATUS=waiting for nobody"]);
  });

  test("goes through systemd-notify, in order, when nobody opened a socket", async () => {
    const { notify, told } = bench(undefined);
    notify(["READY=1"]);
    notify(["WATCHDOG=1"]);
    await settled();
    assert.deepEqual(told.byTool, ["--pid=4711 READY=1", "--pid=4711 WATCHDOG=1"]);
  });

  test("takes the long way once while the manager's queue is full", async () => {
    const { notify, told } = bench(7, ["EAGAIN"]);
    notify(["READY=1"]);
    notify(["WATCHDOG=1"]);
    await settled();
    assert.deepEqual([told.byTool, told.written], [["--pid=4711 READY=1"], ["7 WATCHDOG=1"]]);
  });

  test("takes the long way for good when the socket is gone", async () => {
    const { notify, told } = bench(7, ["ECONNREFUSED"]);
    notify(["READY=1"]);
    notify(["WATCHDOG=1"]);
    await settled();
    assert.deepEqual(told.byTool, ["--pid=4711 READY=1", "--pid=4711 WATCHDOG=1"]);
  });

  test("is said once to be lost, and troubles nobody", async () => {
    const said: string[] = [];
    const logger: Logger = { log: (_level, msg) => said.push(msg), child: () => logger };
    const notify = createNotifier({
      environment: { notifySocket: "@notify", notifyFd: undefined },
      pid: 1,
      logger,
      runTool: async () => Promise.reject(new Error("spawn systemd-notify ENOENT")),
    });
    notify(["READY=1"]);
    notify(["WATCHDOG=1"]);
    await settled();
    assert.deepEqual(said, ["the service manager cannot be told anything"]);
  });

  test("is nothing when there is none", () => {
    const { told } = bench(7);
    const environment = { notifySocket: undefined, notifyFd: 7 };
    const write = (): void => void told.written.push("written");
    const runTool = async (): Promise<void> => void told.byTool.push("run");
    const logger: Logger = { log: () => undefined, child: () => logger };
    createNotifier({ environment, write, runTool, pid: 1, logger })(["READY=1"]);
    assert.deepEqual([told.written, told.byTool], [[], []]);
  });
});
