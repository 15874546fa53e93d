import assert from "node:assert/strict";
import { describe, it } from "node:test";

import {
  kubeProxyServers,
  parseNodePorts,
  parseVirtualServers,
} from "../../../src/proxy/left-overs/ipvs.ts";
import { unusedTables } from "../../../src/proxy/left-overs/left-overs.ts";
import { listenersOn } from "../../../src/proxy/other-proxy.ts";

describe("virtual servers that a kube-proxy made", () => {
  const servers = parseVirtualServers(
    [
      "-A -t 10.96.0.1:443 -s rr",
      "-a -t 10.96.0.1:443 -r 192.0.2.1:6443 -m -w 1",
      "-A -u 10.96.0.10:53 -s rr",
      "-A -t 192.0.2.1:30080 -s rr",
      "-A -t 192.0.2.1:8443 -s wlc -p 300",
      "-A -t [fd00:30::1]:80 -s rr",
      "-A --sctp-service 192.0.2.1:30090 -s rr",
      "-A -f 7 -s rr",
    ].join("\n"),
  );
  const nodePorts = parseNodePorts(
    [
      "create KUBE-NODE-PORT-TCP bitmap:port range 0-65535",
      "add KUBE-NODE-PORT-TCP 30080",
      "create KUBE-NODE-PORT-SCTP-HASH hash:ip,port family inet hashsize 1024 maxelem 65536",
      "add KUBE-NODE-PORT-SCTP-HASH 192.0.2.1,sctp:30090",
      "add KUBE-6-NODE-PORT-LOCAL-UDP 30053",
      "add KUBE-CLUSTER-IP 10.96.0.1,tcp:443",
    ].join("\n"),
  );

  it("are known by the addresses of its device and by its node ports; others stay", () => {
    const addresses = new Set(["10.96.0.1", "10.96.0.10", "fd00:30::1"]);
    assert.deepEqual(
      kubeProxyServers(servers, addresses, nodePorts).map(({ deletion }) => deletion.join(" ")),
      [
        "-D -t 10.96.0.1:443",
        "-D -u 10.96.0.10:53",
        "-D -t 192.0.2.1:30080",
        "-D -t [fd00:30::1]:80",
        "-D --sctp-service 192.0.2.1:30090",
      ],
    );
  });
  it("node ports are read of sets of both kinds and families", () => {
    assert.deepEqual([...nodePorts].toSorted(), ["sctp 30090", "tcp 30080", "udp 30053"]);
  });
});

describe("tables that nobody uses any more", () => {
  const inUse = { tableName: "remora-proxy", families: ["IPv4"] } as const;
  it("are kube-proxy's, and ours of a family that is not served", () => {
    assert.deepEqual(unusedTables({ ...inUse, mode: "nftables" }), [
      "ip kube-proxy",
      "ip6 kube-proxy",
      "ip6 remora-proxy",
    ]);
  });
  it("are all of them in mode iptables", () => {
    assert.equal(unusedTables({ ...inUse, mode: "iptables" }).length, 4);
  });
});

describe("who listens on a port", () => {
  it("is read by inode, of both families' tables, without connections", () => {
    const table = [
      "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
      "   0: 0100007F:2809 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0",
      "   1: 0100007F:2809 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0",
      "   2: 00000000000000000000000000000000:2809 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0",
      "   3: 0100007F:2810 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4714 1 0 100 0 0 10 0",
    ].join("\n");
    assert.deepEqual(listenersOn(10_249, table), ["4711", "4713"]);
  });
});
