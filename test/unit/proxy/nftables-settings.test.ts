import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { LocalDetector, RulesContext } from "../../../src/proxy/backend.ts";
import { NftBackend } from "../../../src/proxy/nftables/backend.ts";
import type { PlannedPort } from "../../../src/proxy/plan.ts";

const usual: RulesContext = {
  family: "IPv4",
  local: { kind: "cidrs", cidrs: ["10.244.0.0/16"] },
  nodePortIPs: ["192.0.2.1"],
  localhostNodePorts: false,
  serviceCIDRs: [],
  mark: 2 ** 14,
  masqueradeAll: false,
};

const external = {
  ip: "198.51.100.1",
  port: 80,
  verdict: "split",
  restricted: false,
  kind: "external",
} as const;
const backend = { ip: "10.244.0.2", port: 8080 };
const plan: PlannedPort = {
  key: "ns/web:/tcp",
  service: "ns/web",
  protocol: "tcp",
  clusterIP: "172.30.0.1",
  rank: "1",
  frontends: [external],
  cluster: [backend],
  local: [backend],
  serving: [backend],
  hairpin: [],
  affinitySeconds: 0,
  sourceRanges: [],
};

/** The rules of one chain, or of the first whose name begins like this. */
function chain(name: string, change: Partial<RulesContext>): readonly string[] {
  const tableName = "t";
  const context = { ...usual, ...change };
  const backendOf = new NftBackend({
    context,
    tableName,
    logger: silentLogger,
    clock: systemClock,
  });
  backendOf.set(plan.key, plan);
  const rules = [...backendOf.render().matchAll(/^add rule ip6? t (\S+) (.*) comment "\w+"$/gm)];
  const found = rules.find(([, at = ""]) => at.startsWith(name))?.[1];
  return rules.filter(([, at]) => at === found).map(([, , text = ""]) => text);
}

/** The rules that choose an endpoint under externalTrafficPolicy Local. */
function split(change: Partial<RulesContext>): readonly string[] {
  return chain("xl-", change);
}

describe("who is a pod, in nftables' words", () => {
  const cases: readonly (readonly [LocalDetector, others: string, pods: string | undefined])[] = [
    [
      { kind: "cidrs", cidrs: ["10.244.0.0/16"] },
      "ip saddr != 10.244.0.0/16 ",
      "ip saddr 10.244.0.0/16 ",
    ],
    [{ kind: "interface", name: "remora0" }, 'iifname != "remora0" ', 'iifname "remora0" '],
    [{ kind: "interface-prefix", prefix: "veth" }, 'iifname != "veth*" ', 'iifname "veth*" '],
  ];
  for (const [local, others, pods] of cases) {
    test(local.kind, () => {
      assert.equal(
        chain("services", { local })[0],
        `ip daddr @cluster-ips ${others}meta mark set meta mark or 0x4000`,
      );
      assert.equal(split({ local })[0], `${pods}goto c1`);
    });
  }

  test("nobody", () => {
    const local = { kind: "none" } as const;
    assert.equal(chain("services", { local })[0], "ip daddr . meta l4proto . th dport vmap @svc");
    assert.match(split({ local })[0] ?? "", /^fib saddr type local /);
  });

  test("IPv6 says ip6", () => {
    const local = { kind: "cidrs", cidrs: ["fd00:1::/48"] } as const;
    assert.equal(
      chain("services", { family: "IPv6", local })[0],
      "ip6 daddr @cluster-ips ip6 saddr != fd00:1::/48 meta mark set meta mark or 0x4000",
    );
  });
});

test("masqueradeAll is for everybody, with a detector and without", () => {
  for (const local of [usual.local, { kind: "none" } as const]) {
    assert.equal(
      chain("services", { local, masqueradeAll: true })[0],
      "ip daddr @cluster-ips meta mark set meta mark or 0x4000",
    );
  }
});

describe("the mark", () => {
  for (const [bit, hex] of [
    [0, "0x1"],
    [31, "0x80000000"],
  ] as const) {
    test(`bit ${bit}`, () => {
      const mark = 2 ** bit;
      assert.match(chain("services", { mark })[0] ?? "", new RegExp(`mark or ${hex}$`));
      assert.equal(
        chain("postrouting", { mark })[0],
        `meta mark and ${hex} != 0 meta mark set meta mark xor ${hex} masquerade fully-random`,
      );
      assert.equal(split({ mark })[1], `fib saddr type local meta mark set meta mark or ${hex}`);
    });
  }
});

describe("where node ports answer", () => {
  const last = (change: Partial<RulesContext>): string | undefined =>
    chain("services", change).at(-1);
  const refused = (change: Partial<RulesContext>): string | undefined =>
    chain("reject-in", change).find((rule) => rule.endsWith("@noep-np"));

  test("on some addresses, sorted", () => {
    const nodePortIPs = ["192.0.2.9", "192.0.2.1"];
    const match = "ip daddr { 192.0.2.1, 192.0.2.9 } meta l4proto . th dport vmap";
    assert.equal(last({ nodePortIPs }), `${match} @np`);
    assert.equal(refused({ nodePortIPs }), `ct state new ${match} @noep-np`);
  });

  test("on all of the node but loopback", () => {
    const nodePortIPs = undefined;
    const match = "fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap";
    assert.equal(last({ nodePortIPs }), `${match} @np`);
    assert.equal(refused({ nodePortIPs }), `ct state new ${match} @noep-np`);
    assert.match(last({ family: "IPv6", nodePortIPs }) ?? "", /ip6 daddr != ::1 /);
  });

  test("nowhere, when no address is left", () => {
    assert.equal(last({ nodePortIPs: [] }), "ip daddr . meta l4proto . th dport vmap @svc");
    assert.equal(refused({ nodePortIPs: [] }), undefined);
  });
});
