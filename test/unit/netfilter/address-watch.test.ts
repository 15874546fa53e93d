import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { concernsAddresses, parseAddressListing } from "../../../src/netfilter/address-watch.ts";

test("addresses are read from what ip prints, with what is wrong with them", () => {
  const text = [
    "1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever",
    "4: eth0    inet 192.0.2.2/24 brd 192.0.2.255 scope global eth0\\       valid_lft forever",
    "7: tun0    inet 10.0.0.1 peer 10.0.0.2/32 scope global tun0\\       valid_lft forever",
    "4: eth0    inet6 FE80::1/64 scope link \\       valid_lft forever preferred_lft forever",
    "4: eth0    inet6 fd00::7/64 scope global temporary dynamic \\       valid_lft 10sec",
    "4: eth0    inet6 fd00::8/64 scope global tentative mngtmpaddr \\       valid_lft forever",
    "4: eth0    inet6 fd00::9/64 scope global deprecated \\       valid_lft 1sec preferred_lft 0sec",
    "9: nothing to see",
    "",
  ].join("\n");
  assert.deepEqual(
    parseAddressListing(text).map(({ interfaceName, address, temporary, doubtful }) =>
      [interfaceName, address, ...(temporary ? ["t"] : []), ...(doubtful ? ["d"] : [])].join(" "),
    ),
    [
      "lo 127.0.0.1",
      "eth0 192.0.2.2",
      "tun0 10.0.0.1",
      "eth0 fe80::1",
      "eth0 fd00::7 t",
      "eth0 fd00::8 d",
      "eth0 fd00::9 d",
    ],
  );
});

describe("a line of ip monitor", () => {
  const news = [
    "3: eth0    inet 10.9.0.1/24 scope global eth0\\       valid_lft forever",
    "Deleted 3: eth0    inet 10.9.0.1/24 scope global eth0\\       valid_lft forever",
    "3: eth0    inet6 fd00::5/64 scope global \\       valid_lft forever",
    "5: docker0    inet 172.17.0.1/16 scope global docker0\\       valid_lft forever",
    "3: eth0@if2: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1500 qdisc noqueue state DOWN group default",
    "Deleted 8: wg0: <POINTOPOINT,NOARP> mtu 1420 qdisc noop state DOWN group default",
    "default via 10.9.0.2 dev eth0 proto dhcp src 10.9.0.1 metric 100 ",
    "Deleted default via 10.9.0.2 dev eth0 ",
    "0.0.0.0/1 via 10.8.0.1 dev tun0 ",
    "default dev wg0 table 51820 scope link ",
    "Deleted unreachable default dev lo metric 4294967295 ",
    "32765:\tnot from all fwmark 0xca6c lookup 51820 ",
  ];
  for (const line of news) {
    test(`may mean other addresses: ${line}`, () => {
      assert.equal(concernsAddresses(line), true);
    });
  }
  const noNews = [
    "9: rmv1a2b3c4@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue master remora0",
    "Deleted 9: veth12ab34c@NONE: <BROADCAST,MULTICAST> mtu 1500 qdisc noop state DOWN",
    "7: remora0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP group default",
    "9: rmv1a2b3c4    inet6 fe80::42:acff:fe11:2/64 scope link \\       valid_lft forever",
    "10.244.1.0/24 via 172.30.0.2 dev eth0 proto 82 metric 2048 ",
    "local 10.9.0.1 dev eth0 table local proto kernel scope host src 10.9.0.1 ",
    "Deleted fe80::/64 dev rmv1a2b3c4 proto kernel metric 256 pref medium",
    "multicast ff00::/8 dev eth0 table local proto kernel metric 256 pref medium",
    "",
  ];
  for (const line of noNews) {
    test(`is none of that: ${line}`, () => {
      assert.equal(concernsAddresses(line), false);
    });
  }
});
