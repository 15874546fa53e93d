import assert from "node:assert/strict";
import { describe, it } from "node:test";

import {
  type HostPortFacts,
  hostPortNotices,
} from "../../../src/kubelet/pods/host-port-notices.ts";
import type { ListeningSocket } from "../../../src/lib/listening-sockets.ts";
import type { HostPort } from "../../../src/network/types.ts";

function socket(ip: string, port: number, more: Partial<ListeningSocket> = {}): ListeningSocket {
  return { protocol: "TCP", family: ip.includes(":") ? "IPv6" : "IPv4", ip, port, uid: 0, ...more };
}

const facts: HostPortFacts = {
  podIPs: ["10.244.0.2", "fd00:244::2"],
  addresses: new Set(["127.0.0.1", "192.0.2.1", "2001:db8::1"]),
  sockets: [],
};

function told(port: Partial<HostPort>, more: Partial<HostPortFacts> = {}): readonly string[] {
  const whole = { protocol: "TCP", hostIP: "", hostPort: 22, containerPort: 80, ...port } as const;
  return hostPortNotices([whole], { ...facts, ...more }).map(
    ({ message, reason }) => `${reason}: ${message}`,
  );
}

describe("what is said of host ports", () => {
  it("nothing, where they are served and nobody listens", () => {
    for (const hostIP of ["", "0.0.0.0", "::", "127.0.0.1", "192.0.2.1", "2001:DB8:0::1"]) {
      assert.deepEqual(told({ hostIP }), [], hostIP);
    }
    const sockets = [socket("0.0.0.0", 23), socket("0.0.0.0", 22, { protocol: "UDP" })];
    assert.deepEqual(told({}, { sockets }), []);
  });

  it("that nobody serves them, and why", () => {
    for (const [hostIP, podIPs, why] of [
      ["nonsense", facts.podIPs, /of nonsense is not served: hostIP is no IP address$/],
      ["2001:db8::1", ["10.244.0.2"], /the pod has no IPv6 address$/],
      ["192.0.2.77", facts.podIPs, /no interface of the node has this address/],
      ["::1", facts.podIPs, /IPv6 has no way from ::1/],
    ] as const) {
      const [text = "", ...others] = told({ hostIP }, { podIPs });
      assert.match(text, /^HostPortNotServed: hostPort 22\/TCP of /);
      assert.match(text, why);
      assert.deepEqual(others, []);
    }
  });

  it("that a program of the node is cut off", () => {
    const rows: readonly (readonly [string, string, boolean])[] = [
      ["", "0.0.0.0", true],
      ["", "::", true],
      ["", "192.0.2.1", true],
      ["", "127.0.0.1", true],
      // Not served by host ports of all addresses.
      ["", "127.0.0.53", false],
      ["", "::1", false],
      ["0.0.0.0", "2001:db8::1", false],
      ["::", "2001:db8::1", true],
      ["127.0.0.53", "127.0.0.53", true],
      ["192.0.2.1", "0.0.0.0", true],
      ["192.0.2.1", "127.0.0.1", false],
      ["192.0.2.1", "192.0.2.1", true],
    ];
    for (const [hostIP, ip, cut] of rows) {
      const found = told({ hostIP }, { sockets: [socket(ip, 22)] });
      assert.equal(found.length, cut ? 1 : 0, `${hostIP} ${ip}: ${found.join()}`);
    }
    assert.deepEqual(told({}, { sockets: [socket("::", 22, { uid: 7 })] }), [
      "HostPortHidesListener: hostPort 22/TCP leads to this pod, no longer to the program of user 7 that listens on [::]:22",
    ]);
  });
});
