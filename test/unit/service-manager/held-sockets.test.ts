import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { HeldSockets } from "../../../src/agent/service-manager/held-sockets.ts";
import { findSockets } from "../../../src/agent/service-manager/socket-table.ts";
import { SetupError } from "../../../src/lib/errors.ts";

const tcp6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:280A 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 000000FD000000000000000001000000:0035 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0
`;
const udp = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  120: 0A00600A:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4713 2 0 0
  121: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4714 2 0 0
`;

describe("what passed descriptors are bound to", () => {
  test("is read from the kernel's tables, by inode", () => {
    assert.deepEqual(
      [...findSockets(tcp6, "tcp", new Set(["4711", "4712", "9"]))],
      [
        ["4711", { protocol: "tcp", address: "::", port: 10_250 }],
        ["4712", { protocol: "tcp", address: "fd00::1", port: 53 }],
      ].map(([inode, socket]) => [inode, socket]),
    );
    assert.deepEqual(
      [...findSockets(udp, "udp", new Set(["4713"]))],
      [["4713", { protocol: "udp", address: "10.96.0.10", port: 53 }]],
    );
  });
});

function held(): HeldSockets {
  return new HeldSockets([
    { protocol: "tcp", address: "::", port: 10_250, fds: [3] },
    { protocol: "udp", address: "10.96.0.10", port: 53, fds: [4, 6] },
    { protocol: "tcp", address: "fd00::1", port: 53, fds: [5] },
  ]);
}

describe("sockets that the service manager holds", () => {
  test("are found by where one wants to listen, however that is written", () => {
    const sockets = held();
    assert.equal(sockets.holds({ address: "0.0.0.0", port: 10_250 }), true);
    assert.equal(sockets.holds({ address: "::", port: 10_250 }), true);
    assert.equal(sockets.holds({ address: "fd00:0::1", port: 53 }), true);
    assert.equal(sockets.holds({ address: "192.0.2.1", port: 10_250 }), false);
    assert.equal(sockets.holds({ address: "0.0.0.0", port: 10_251 }), false);
    // A port of UDP need not be free of anything.
    assert.equal(sockets.holds({ address: "10.96.0.10", port: 53 }), false);
  });

  test("are given once for each copy, and then a new process is needed", () => {
    const sockets = held();
    const place = { address: "10.96.0.10", port: 53 };
    assert.deepEqual([sockets.take("udp", place), sockets.take("udp", place)], [6, 4]);
    assert.throws(() => sockets.take("udp", place), SetupError);
    assert.equal(sockets.take("tcp", place), undefined);
  });

  test("are compared with what is used", () => {
    const sockets = held();
    sockets.take("tcp", { address: "0.0.0.0", port: 10_250 });
    sockets.take("udp", { address: "10.43.0.10", port: 53 });
    assert.deepEqual(sockets.unused, ["10.96.0.10:53/udp", "[fd00::1]:53/tcp"]);
    assert.deepEqual(sockets.missed, ["10.43.0.10:53/udp"]);
  });

  test("on other addresses of the same port are refused with the remedy", () => {
    assert.throws(
      () => held().refuseConflicts([{ address: "192.0.2.1", port: 10_250 }], "remora.socket"),
      {
        name: "SetupError",
        message:
          "remora.socket holds [::]:10250, but the configuration says 192.0.2.1:10250: give the socket that address (systemctl edit remora.socket: an empty ListenStream=, then ListenStream=192.0.2.1:10250), or do without it (systemctl mask --now remora.socket)",
      },
    );
    held().refuseConflicts([{ address: "0.0.0.0", port: 10_250 }], "remora.socket");
    held().refuseConflicts([{ address: "192.0.2.1", port: 10_251 }], "remora.socket");
  });

  test("are none when nobody passed any, and nobody misses them", () => {
    const none = new HeldSockets([]);
    assert.equal(none.take("tcp", { address: "0.0.0.0", port: 10_250 }), undefined);
    assert.deepEqual([none.unused, none.missed], [[], []]);
  });
});
