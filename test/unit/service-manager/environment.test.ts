import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { parseServiceEnvironment } from "../../../src/agent/service-manager/environment.ts";

const pid = 4711;

describe("what a service manager leaves in the environment", () => {
  test("nothing, when a person starts the agent", () => {
    assert.deepEqual(parseServiceEnvironment({}, pid), {
      notifySocket: undefined,
      notifyFd: undefined,
      watchdogMs: undefined,
      sockets: [],
    });
  });

  test("all of it, as systemd passes it", () => {
    const variables = {
      NOTIFY_SOCKET: "/run/systemd/notify",
      REMORA_NOTIFY_FD: "6",
      WATCHDOG_USEC: "120000000",
      WATCHDOG_PID: "4711",
      LISTEN_PID: "4711",
      LISTEN_FDS: "3",
      LISTEN_FDNAMES: "kubelet:dns:dns",
    };
    assert.deepEqual(parseServiceEnvironment(variables, pid), {
      notifySocket: "/run/systemd/notify",
      notifyFd: 6,
      watchdogMs: 120_000,
      sockets: [
        { fd: 3, name: "kubelet" },
        { fd: 4, name: "dns" },
        { fd: 5, name: "dns" },
      ],
    });
  });

  const others: readonly (readonly [string, Record<string, string>])[] = [
    ["sockets of another process", { LISTEN_PID: "4712", LISTEN_FDS: "2" }],
    ["sockets of nobody in particular", { LISTEN_FDS: "2" }],
    ["no number of sockets", { LISTEN_PID: "4711", LISTEN_FDS: "-1" }],
    ["a watchdog of another process", { WATCHDOG_PID: "4712", WATCHDOG_USEC: "1000000" }],
    ["a watchdog that never bites", { WATCHDOG_USEC: "0" }],
    ["no number of microseconds", { WATCHDOG_USEC: "soon" }],
    ["a descriptor without a socket to tell", { REMORA_NOTIFY_FD: "6" }],
  ];
  for (const [what, variables] of others) {
    test(`${what} counts for nothing`, () => {
      assert.deepEqual(parseServiceEnvironment(variables, pid), parseServiceEnvironment({}, pid));
    });
  }

  test("sockets without names have systemd's word for that", () => {
    const { sockets } = parseServiceEnvironment({ LISTEN_PID: "4711", LISTEN_FDS: "1" }, pid);
    assert.deepEqual(sockets, [{ fd: 3, name: "unknown" }]);
  });
});
