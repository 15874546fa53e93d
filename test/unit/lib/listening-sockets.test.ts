import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { listensOn, parseListeningSockets } from "../../../src/lib/listening-sockets.ts";

/** As the kernel prints them: a head, and addresses as words of the machine's byte order. */
const tcp = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14382 1 ffff8 100 0 0 10 0
   1: 0100007F:2801 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 14383 1 ffff8 100 0 0 10 0
   2: 010200C0:0016 020200C0:D431 01 00000000:00000000 02:000A7D1C 00000000     0        0 14384 2 ffff8 20 4 31 10 -1
`;
const tcp6 = `  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: B80D0120000000000000000002000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 2 1
   2: 0000000000000000FFFF0000010200C0:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1
`;
const udp = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  10: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 5 2 ffff8 0
  11: 010200C0:9C40 08080808:0035 01 00000000:00000000 00:00000000 00000000     0        0 6 2 ffff8 0
`;

describe("sockets that listen", () => {
  it("are those that wait for strangers, with their addresses in the usual form", () => {
    assert.deepEqual(parseListeningSockets(tcp, "TCP"), [
      { protocol: "TCP", family: "IPv4", ip: "0.0.0.0", port: 22, uid: 0 },
      { protocol: "TCP", family: "IPv4", ip: "127.0.0.1", port: 10_241, uid: 101 },
    ]);
    assert.deepEqual(parseListeningSockets(tcp6, "TCP"), [
      { protocol: "TCP", family: "IPv6", ip: "::", port: 80, uid: 0 },
      { protocol: "TCP", family: "IPv6", ip: "2001:db8::2", port: 443, uid: 33 },
      { protocol: "TCP", family: "IPv4", ip: "192.0.2.1", port: 8080, uid: 0 },
    ]);
    assert.deepEqual(parseListeningSockets(udp, "UDP"), [
      { protocol: "UDP", family: "IPv4", ip: "0.0.0.0", port: 53, uid: 0 },
    ]);
  });

  it("are none in what is no such file", () => {
    for (const text of [
      "",
      "\n",
      "garbage 0A",
      "0: ZZ:0016 00000000:0000 0A",
      "0: 00:16 00:0000 0A",
    ]) {
      assert.deepEqual(parseListeningSockets(text, "TCP"), []);
    }
  });

  it("have what is sent to their address, or to any when they have all", () => {
    const socket = { protocol: "TCP", family: "IPv4", ip: "192.0.2.1", port: 80, uid: 0 } as const;
    const target = { family: "IPv4", ip: "192.0.2.1", port: 80, protocol: "TCP" } as const;
    assert.equal(listensOn(socket, target), true);
    assert.equal(listensOn(socket, { ...target, ip: "192.0.2.2" }), false);
    assert.equal(listensOn(socket, { ...target, port: 81 }), false);
    assert.equal(listensOn(socket, { ...target, protocol: "UDP" }), false);
    assert.equal(listensOn({ ...socket, ip: "0.0.0.0" }, target), true);
    const six = { family: "IPv6", ip: "2001:db8::1", port: 80, protocol: "TCP" } as const;
    assert.equal(listensOn({ ...socket, ip: "0.0.0.0" }, six), false);
    const all = { ...socket, family: "IPv6", ip: "::" } as const;
    assert.equal(listensOn(all, six), true);
    assert.equal(listensOn(all, target), true);
  });
});
