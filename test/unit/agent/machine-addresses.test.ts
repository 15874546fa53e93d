import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  followRoutes,
  machineAddresses,
  resetWithAddresses,
  whenAddressKnown,
} from "../../../src/agent/machine-addresses.ts";
import { type Logger, silentLogger } from "../../../src/lib/log.ts";
import type { InterfaceAddress } from "../../../src/netfilter/address-watch.ts";

function on(
  interfaceName: string,
  address: string,
  more: Partial<InterfaceAddress> = {},
): InterfaceAddress {
  return { interfaceName, address, temporary: false, doubtful: false, ...more };
}

describe("what a control plane is told of its machine", () => {
  test("real interfaces apart from bridges; no loopback, link-local, doubtful or temporary address", () => {
    const interfaces = [
      on("lo", "127.0.0.1"),
      on("lo", "::1"),
      on("eth0", "192.0.2.5"),
      on("eth0", "fe80::1"),
      on("eth0", "169.254.7.7"),
      on("eth0", "2001:db8::5"),
      on("eth0", "2001:db8::9", { temporary: true }),
      on("eth0", "2001:db8::8", { doubtful: true }),
      on("tun0", "10.8.0.2"),
      on("docker0", "172.17.0.1"),
      on("remora0", "10.244.0.1"),
      on("br-1f2e", "172.18.0.1"),
    ];
    assert.deepEqual(machineAddresses(["192.0.2.5"], interfaces), {
      nodeIPs: ["192.0.2.5"],
      present: ["10.8.0.2", "192.0.2.5", "2001:db8::5"],
      local: ["10.244.0.1", "172.17.0.1", "172.18.0.1"],
    });
    const { present } = machineAddresses(["2001:db8::9"], interfaces);
    assert.ok(present.includes("2001:db8::9"), "the node's own address counts, temporary or not");
  });
});

describe("connections to an API server", () => {
  function setUp(server: string) {
    const watch = { interfaces: [on("lo", "127.0.0.1"), on("eth0", "192.0.2.5")] };
    const reachability = { isLost: false };
    let listener: () => void = () => undefined;
    const counts = { resets: 0, subscribed: 0 };
    const logger: Logger = silentLogger;
    resetWithAddresses({
      watch: {
        get interfaces() {
          return watch.interfaces;
        },
        subscribe: (each) => {
          counts.subscribed += 1;
          listener = () => each([]);
          return () => undefined;
        },
      },
      server,
      clients: [
        {
          reset: () => {
            counts.resets += 1;
          },
        },
      ],
      reachability,
      logger,
    });
    const become = (...interfaces: readonly InterfaceAddress[]): number => {
      watch.interfaces = [on("lo", "127.0.0.1"), ...interfaces];
      counts.resets = 0;
      listener();
      return counts.resets;
    };
    return { become, reachability, counts };
  }
  const first = on("eth0", "192.0.2.5");

  test("are opened anew when an address goes, not when one comes", () => {
    const { become } = setUp("https://192.0.2.1:6443");
    assert.equal(become(first), 0, "the first reading");
    assert.equal(become(first, on("eth1", "198.51.100.7")), 0, "another one came");
    assert.equal(become(on("eth1", "198.51.100.7")), 1, "the first one went");
  });

  test("are tried anew when an address comes while the server does not answer", () => {
    const { become, reachability } = setUp("https://192.0.2.1:6443");
    become();
    reachability.isLost = true;
    assert.equal(become(first), 1);
  });

  test("do not care for bridges and link-local addresses", () => {
    const { become } = setUp("https://192.0.2.1:6443");
    become(first, on("docker0", "172.17.0.1"), on("eth0", "fe80::1"));
    assert.equal(become(first), 0);
  });

  for (const server of ["https://127.0.0.1:6443", "https://localhost:6443", "https://[::1]:6443"]) {
    test(`to this machine itself go on whatever happens: ${server}`, () => {
      const { become, counts } = setUp(server);
      become(first);
      assert.deepEqual([become(), counts.subscribed], [0, 0]);
    });
  }
});

test("routes are looked at for the lines that disturb them, and when lines were missed", async () => {
  let told = 0;
  let line: (text: string | undefined) => void = () => undefined;
  let ended = false;
  const follow = followRoutes({
    onLine: (each) => {
      line = each;
      return () => {
        ended = true;
      };
    },
  });
  const stop = new AbortController();
  const following = follow(
    {
      bridge: "remora0",
      onDisturbed: () => {
        told += 1;
      },
    },
    stop.signal,
  );
  line("Deleted 10.244.1.0/24 via 172.30.0.2 dev eth0 proto 82 metric 2048 ");
  line("3: eth0@if2: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1500 state DOWN");
  assert.equal(told, 2);
  line("10: rmv12@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 master remora0");
  assert.equal(told, 2);
  line(undefined);
  assert.equal(told, 3);
  stop.abort();
  await following;
  assert.equal(ended, true);
});

test("who needs the node's first address waits for it, and for no longer", async () => {
  let ips: readonly string[] = [];
  const listeners = new Set<() => void>();
  const view = {
    hostIPs: () => ips,
    subscribe: (listener: () => void) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  const stop = new AbortController();
  const waiting = whenAddressKnown(view, stop.signal);
  for (const listener of listeners) listener();
  assert.equal(listeners.size, 1);
  ips = ["192.0.2.1"];
  for (const listener of listeners) listener();
  await waiting;
  await whenAddressKnown(view, stop.signal);
  ips = [];
  const another = whenAddressKnown(view, stop.signal);
  stop.abort();
  await assert.rejects(another, { name: "AbortError" });
  assert.equal(listeners.size, 0);
});
