import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { systemClock } from "../../../../src/lib/clock.ts";
import { silentLogger } from "../../../../src/lib/log.ts";
import type { RulesContext } from "../../../../src/proxy/backend.ts";
import { IptablesBackend } from "../../../../src/proxy/iptables/backend.ts";
import { endpointText, portChain, portTitle } from "../../../../src/proxy/iptables/names.ts";
import type { PlannedPort } from "../../../../src/proxy/plan.ts";
import { context, endpoint, plan } from "./samples.ts";

const title = "ns/web:http";
const svc = portChain("KUBE-SVC-", title, "tcp");
const svl = portChain("KUBE-SVL-", title, "tcp");
const ext = portChain("KUBE-EXT-", title, "tcp");
const fw = portChain("KUBE-FW-", title, "tcp");

function sep(ip: string): string {
  return portChain("KUBE-SEP-", title, "tcp", endpointText({ ip, port: 8080 }));
}

function lines(
  plans: readonly PlannedPort[],
  over: Partial<RulesContext> = {},
  largeThreshold = 1000,
): { readonly nat: readonly string[]; readonly filter: readonly string[]; readonly text: string } {
  const backend = new IptablesBackend({
    context: { ...context, ...over },
    logger: silentLogger,
    clock: systemClock,
    largeThreshold,
  });
  for (const one of plans) backend.set(one.key, one);
  const text = backend.render();
  const table = (name: string): string[] =>
    (text.split(`*${name}\n`)[1]?.split("COMMIT")[0] ?? "").split("\n");
  return { nat: table("nat"), filter: table("filter"), text };
}

function rulesOf(table: readonly string[], chain: string): string[] {
  return table
    .filter((line) => line.startsWith(`-A ${chain} `))
    .map((line) => line.slice(4 + chain.length));
}

describe("names of chains", () => {
  test("are a prefix and 16 characters that depend on name, protocol and endpoint", () => {
    // What users of kube-proxy know as the chain of these.
    assert.equal(portChain("KUBE-SVC-", "ns1/svc1:p80", "tcp"), "KUBE-SVC-XPGD46QRK7WJZT7O");
    assert.equal(
      portChain("KUBE-SEP-", "ns1/svc1:p80", "tcp", "10.180.0.1:80"),
      "KUBE-SEP-SXIVWICOYRO3J4NJ",
    );
    assert.equal(endpointText({ ip: "fd00::1", port: 80 }), "[fd00::1]:80");
  });

  test("a port without a name has no colon", () => {
    assert.equal(portTitle(plan({ key: "ns/web:/tcp", portName: "" }, [])), "ns/web");
    assert.equal(portTitle(plan({}, [])), "ns/web:http");
  });
});

describe("rules of one port", () => {
  test("a ClusterIP is spread evenly over endpoints sorted by text; what is not from pods gets a new source", () => {
    const { nat, filter } = lines([
      plan({}, [endpoint("10.244.1.2"), endpoint("10.244.1.10"), endpoint("10.244.1.3")]),
    ]);
    assert.deepEqual(rulesOf(nat, "KUBE-SERVICES").slice(0, -1), [
      `-m comment --comment "ns/web:http cluster IP" -m tcp -p tcp -d 10.96.0.10 --dport 80 -j ${svc}`,
    ]);
    assert.deepEqual(rulesOf(nat, svc), [
      `-m comment --comment "ns/web:http cluster IP" -m tcp -p tcp -d 10.96.0.10 --dport 80 ! -s 10.244.0.0/24 -j KUBE-MARK-MASQ`,
      `-m comment --comment "ns/web:http -> 10.244.1.10:8080" -m statistic --mode random --probability 0.3333333333 -j ${sep("10.244.1.10")}`,
      `-m comment --comment "ns/web:http -> 10.244.1.2:8080" -m statistic --mode random --probability 0.5000000000 -j ${sep("10.244.1.2")}`,
      `-m comment --comment "ns/web:http -> 10.244.1.3:8080" -j ${sep("10.244.1.3")}`,
    ]);
    assert.deepEqual(rulesOf(nat, sep("10.244.1.3")), [
      "-m comment --comment ns/web:http -s 10.244.1.3 -j KUBE-MARK-MASQ",
      "-m comment --comment ns/web:http -m tcp -p tcp -j DNAT --to-destination 10.244.1.3:8080",
    ]);
    assert.deepEqual(rulesOf(filter, "KUBE-SERVICES"), []);
  });

  test("without an endpoint TCP gets a reset, because the kernel limits ICMP errors; the rest gets those", () => {
    const udp = { key: "ns/web:dns/udp", portName: "dns", protocol: "udp", port: 53 } as const;
    const { nat, filter } = lines([
      plan({ nodePort: 30_080, externalIPs: ["198.51.100.1"] }, []),
      plan(udp, []),
    ]);
    assert.deepEqual(rulesOf(filter, "KUBE-SERVICES"), [
      '-m comment --comment "ns/web:dns has no endpoints" -m udp -p udp -d 10.96.0.10 --dport 53 -j REJECT',
      '-m comment --comment "ns/web:http has no endpoints" -m tcp -p tcp -d 10.96.0.10 --dport 80 -j REJECT --reject-with tcp-reset',
    ]);
    assert.deepEqual(rulesOf(filter, "KUBE-EXTERNAL-SERVICES"), [
      '-m comment --comment "ns/web:http has no endpoints" -m tcp -p tcp -d 198.51.100.1 --dport 80 -j REJECT --reject-with tcp-reset',
      '-m comment --comment "ns/web:http has no endpoints" -m addrtype --dst-type LOCAL -m tcp -p tcp --dport 30080 -j REJECT --reject-with tcp-reset',
    ]);
    assert.equal(nat.filter((line) => line.startsWith(":KUBE-S")).length, 1, "KUBE-SERVICES alone");
  });

  test("external traffic of policy Cluster gets a new source", () => {
    const { nat } = lines([
      plan({ nodePort: 30_080, externalIPs: ["198.51.100.1"] }, [endpoint("10.244.1.2")]),
    ]);
    assert.deepEqual(rulesOf(nat, ext), [
      '-m comment --comment "masquerade traffic for ns/web:http external destinations" -j KUBE-MARK-MASQ',
      `-j ${svc}`,
    ]);
    assert.deepEqual(rulesOf(nat, "KUBE-NODEPORTS"), [
      `-m comment --comment ns/web:http -m tcp -p tcp --dport 30080 -j ${ext}`,
    ]);
    assert.equal(
      rulesOf(nat, "KUBE-SERVICES")[1],
      `-m comment --comment "ns/web:http external IP" -m tcp -p tcp -d 198.51.100.1 --dport 80 -j ${ext}`,
    );
  });

  test("external traffic of policy Local: pods and the node go everywhere, the rest to local endpoints, untouched", () => {
    const { nat, filter } = lines([
      plan({ nodePort: 30_080, externalLocal: true }, [
        endpoint("10.244.1.2"),
        endpoint("10.244.0.2", { local: true }),
      ]),
    ]);
    assert.deepEqual(rulesOf(nat, ext), [
      `-m comment --comment "pod traffic for ns/web:http external destinations" -s 10.244.0.0/24 -j ${svc}`,
      '-m comment --comment "masquerade LOCAL traffic for ns/web:http external destinations" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ',
      `-m comment --comment "route LOCAL traffic for ns/web:http external destinations" -m addrtype --src-type LOCAL -j ${svc}`,
      `-j ${svl}`,
    ]);
    assert.deepEqual(rulesOf(nat, svl), [
      `-m comment --comment "ns/web:http -> 10.244.0.2:8080" -j ${sep("10.244.0.2")}`,
    ]);
    assert.deepEqual(rulesOf(filter, "KUBE-EXTERNAL-SERVICES"), []);
  });

  test("external traffic of policy Local without a local endpoint is dropped, but for pods and the node", () => {
    const { nat, filter } = lines([
      plan({ nodePort: 30_080, loadBalancerIPs: ["203.0.113.9"], externalLocal: true }, [
        endpoint("10.244.1.2"),
      ]),
    ]);
    assert.equal(rulesOf(nat, ext).length, 3);
    assert.deepEqual(rulesOf(filter, "KUBE-EXTERNAL-SERVICES"), [
      '-m comment --comment "ns/web:http has no local endpoints" -m tcp -p tcp -d 203.0.113.9 --dport 80 -j DROP',
      '-m comment --comment "ns/web:http has no local endpoints" -m addrtype --dst-type LOCAL -m tcp -p tcp --dport 30080 -j DROP',
    ]);
  });

  test("internal traffic of policy Local: local endpoints, or silence", () => {
    const both = [endpoint("10.244.1.2"), endpoint("10.244.0.2", { local: true })];
    const { nat } = lines([plan({ internalLocal: true }, both)]);
    assert.equal(rulesOf(nat, "KUBE-SERVICES")[0]?.endsWith(`-j ${svl}`), true);
    assert.equal(rulesOf(nat, svl).length, 2, "the masquerade rule and one endpoint");
    assert.equal(nat.includes(`:${svc} - [0:0]`), false);
    assert.deepEqual(rulesOf(nat, sep("10.244.1.2")), [], "nobody goes there");

    const { filter } = lines([plan({ internalLocal: true }, [endpoint("10.244.1.2")])]);
    assert.deepEqual(rulesOf(filter, "KUBE-SERVICES"), [
      '-m comment --comment "ns/web:http has no local endpoints" -m tcp -p tcp -d 10.96.0.10 --dport 80 -j DROP',
    ]);
  });

  test("source ranges: who is not in one falls off the chain, and meets the firewall", () => {
    const { nat, filter } = lines([
      plan({ loadBalancerIPs: ["203.0.113.9"], sourceRanges: ["192.0.2.0/24"], nodePort: 30_080 }, [
        endpoint("10.244.1.2"),
      ]),
    ]);
    assert.deepEqual(rulesOf(nat, fw), [
      `-m comment --comment "ns/web:http loadbalancer IP" -s 192.0.2.0/24 -j ${ext}`,
      '-m comment --comment "other traffic to ns/web:http will be dropped by KUBE-PROXY-FIREWALL"',
    ]);
    assert.equal(
      rulesOf(nat, "KUBE-SERVICES")[1],
      `-m comment --comment "ns/web:http loadbalancer IP" -m tcp -p tcp -d 203.0.113.9 --dport 80 -j ${fw}`,
    );
    assert.deepEqual(rulesOf(filter, "KUBE-PROXY-FIREWALL"), [
      `-m comment --comment "ns/web:http traffic not accepted by ${fw}" -m tcp -p tcp -d 203.0.113.9 --dport 80 -j DROP`,
    ]);
    assert.equal(
      rulesOf(nat, "KUBE-NODEPORTS")[0]?.endsWith(`-j ${ext}`),
      true,
      "node ports are not asked",
    );
  });

  test("affinity: who is remembered is asked first, and every new flow is remembered", () => {
    const { nat } = lines([
      plan({ affinitySeconds: 90 }, [endpoint("10.244.1.2"), endpoint("10.244.1.3")]),
    ]);
    const [first, second] = [sep("10.244.1.2"), sep("10.244.1.3")];
    assert.deepEqual(rulesOf(nat, svc).slice(1), [
      `-m comment --comment "ns/web:http -> 10.244.1.2:8080" -m recent --name ${first} --rcheck --seconds 90 --reap -j ${first}`,
      `-m comment --comment "ns/web:http -> 10.244.1.3:8080" -m recent --name ${second} --rcheck --seconds 90 --reap -j ${second}`,
      `-m comment --comment "ns/web:http -> 10.244.1.2:8080" -m statistic --mode random --probability 0.5000000000 -j ${first}`,
      `-m comment --comment "ns/web:http -> 10.244.1.3:8080" -j ${second}`,
    ]);
    assert.equal(
      rulesOf(nat, first)[1],
      `-m comment --comment ns/web:http -m recent --name ${first} --set -m tcp -p tcp -j DNAT --to-destination 10.244.1.2:8080`,
    );
  });

  test("with more endpoints than the threshold their rules have no comments, those of addresses keep theirs", () => {
    const two = [endpoint("10.244.1.2"), endpoint("10.244.1.3")];
    const { nat } = lines([plan({}, two)], {}, 1);
    assert.equal(
      rulesOf(nat, sep("10.244.1.2"))[1],
      "-m tcp -p tcp -j DNAT --to-destination 10.244.1.2:8080",
    );
    assert.equal(rulesOf(nat, svc)[2], `-j ${sep("10.244.1.3")}`);
    assert.match(rulesOf(nat, "KUBE-SERVICES")[0] ?? "", /cluster IP/);
  });

  test("of two Services with one address the older one has it, and its owner is told", () => {
    const backend = new IptablesBackend({ context, logger: silentLogger, clock: systemClock });
    const older = plan({ externalIPs: ["198.51.100.1"] }, [endpoint("10.244.1.2")]);
    const newer = plan(
      {
        key: "ns/aaa:http/tcp",
        service: "ns/aaa",
        clusterIP: "10.96.0.11",
        externalIPs: ["198.51.100.1"],
        rank: "2026-02-01T00:00:00Z ns/aaa",
      },
      [endpoint("10.244.1.3")],
    );
    backend.set(newer.key, newer);
    assert.deepEqual(backend.conflicts(newer.key), []);
    backend.set(older.key, older);
    assert.deepEqual(backend.conflicts(older.key), [[newer.key, older.key]]);
    assert.deepEqual(backend.conflicts(newer.key), [[newer.key, older.key]]);
    const to = (): string[] =>
      (backend.snapshot().get("nat KUBE-SERVICES") ?? "")
        .split("\n")
        .filter((rule) => rule.includes("198.51.100.1"));
    assert.deepEqual(to(), [`-m tcp -p tcp -d 198.51.100.1 --dport 80 -j ${ext}`]);
    backend.set(older.key, undefined);
    assert.match(
      to().join("\n"),
      new RegExp(`-j ${portChain("KUBE-EXT-", "ns/aaa:http", "tcp")}$`),
    );
    assert.equal(backend.isClusterIP("10.96.0.11"), true);
    assert.equal(backend.isClusterIP("10.96.0.10"), false);
  });
});

describe("rules for pods", () => {
  const two = [endpoint("10.244.1.2")];
  const from = (over: Partial<RulesContext>): readonly [string | undefined, string | undefined] => {
    const { nat } = lines([plan({ nodePort: 30_080, externalLocal: true }, two)], over);
    return [rulesOf(nat, svc)[0], rulesOf(nat, ext)[0]];
  };
  const toVIP =
    '-m comment --comment "ns/web:http cluster IP" -m tcp -p tcp -d 10.96.0.10 --dport 80';
  const podTraffic = '-m comment --comment "pod traffic for ns/web:http external destinations"';

  test("by interface", () => {
    assert.deepEqual(from({ local: { kind: "interface", name: "br0" } }), [
      `${toVIP} ! -i br0 -j KUBE-MARK-MASQ`,
      `${podTraffic} -i br0 -j ${svc}`,
    ]);
  });

  test("by the beginning of an interface's name", () => {
    assert.deepEqual(from({ local: { kind: "interface-prefix", prefix: "veth" } }), [
      `${toVIP} ! -i veth+ -j KUBE-MARK-MASQ`,
      `${podTraffic} -i veth+ -j ${svc}`,
    ]);
  });

  test("nobody can tell: no source is changed, and policy Local holds for pods too", () => {
    const [internal, external] = from({ local: { kind: "none" } });
    assert.equal(internal?.includes("KUBE-MARK-MASQ"), false);
    assert.match(external ?? "", /masquerade LOCAL traffic/);
  });

  test("by several networks, which one rule cannot exclude", () => {
    const cidrs = ["10.244.0.0/24", "10.245.0.0/24"];
    const { nat } = lines([plan({}, two)], { local: { kind: "cidrs", cidrs } });
    assert.equal(rulesOf(nat, svc)[0], `${toVIP} -j KUBE-MARK-NOT-PODS`);
    assert.deepEqual(rulesOf(nat, "KUBE-MARK-NOT-PODS"), [
      "-s 10.244.0.0/24 -j RETURN",
      "-s 10.245.0.0/24 -j RETURN",
      "-j KUBE-MARK-MASQ",
    ]);
  });

  test("masqueradeAll spares nobody", () => {
    assert.equal(from({ masqueradeAll: true })[0], `${toVIP} -j KUBE-MARK-MASQ`);
  });
});

describe("rules that are there without Services", () => {
  const last = "kubernetes service nodeports; NOTE: this must be the last rule in this chain";
  const nodePorts = (over: Partial<RulesContext>): string[] =>
    rulesOf(lines([], over).nat, "KUBE-SERVICES").map((rule) =>
      rule.replace(`-m comment --comment "${last}" `, ""),
    );

  test("node ports answer on all addresses, on loopback only where that is asked for, in IPv4", () => {
    assert.deepEqual(nodePorts({}), [
      "-m addrtype --dst-type LOCAL ! -d 127.0.0.0/8 -j KUBE-NODEPORTS",
    ]);
    assert.deepEqual(nodePorts({ localhostNodePorts: true }), [
      "-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
    ]);
    assert.deepEqual(nodePorts({ family: "IPv6", localhostNodePorts: true }), [
      "-m addrtype --dst-type LOCAL ! -d ::1/128 -j KUBE-NODEPORTS",
    ]);
    const nodePortIPs = ["192.0.2.1", "127.0.0.1"];
    assert.deepEqual(nodePorts({ nodePortIPs }), ["-d 192.0.2.1 -j KUBE-NODEPORTS"]);
    assert.deepEqual(nodePorts({ nodePortIPs, localhostNodePorts: true }), [
      "-d 192.0.2.1 -j KUBE-NODEPORTS",
      "-d 127.0.0.1 -j KUBE-NODEPORTS",
    ]);
  });

  test("the mark is set, asked for and cleared by its bit", () => {
    const { nat, filter } = lines([], { mark: 0x100 });
    assert.deepEqual(rulesOf(nat, "KUBE-MARK-MASQ"), ["-j MARK --or-mark 0x100"]);
    assert.deepEqual(rulesOf(nat, "KUBE-POSTROUTING"), [
      "-m mark ! --mark 0x100/0x100 -j RETURN",
      "-j MARK --xor-mark 0x100",
      '-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
    ]);
    assert.deepEqual(rulesOf(filter, "KUBE-FORWARD"), [
      "-m conntrack --ctstate INVALID -j DROP",
      '-m comment --comment "kubernetes forwarding rules" -m mark --mark 0x100/0x100 -j ACCEPT',
      '-m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
    ]);
  });

  test("packets from outside for 127.0.0.0/8 are dropped, in IPv4", () => {
    assert.deepEqual(rulesOf(lines([]).filter, "KUBE-FIREWALL"), [
      '-m comment --comment "block incoming localnet connections" -d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP',
    ]);
    assert.deepEqual(rulesOf(lines([], { family: "IPv6" }).filter, "KUBE-FIREWALL"), []);
  });

  test("health check ports are let in, the canary stands in all tables, and the jumps end in kube-proxy's order", () => {
    const backend = new IptablesBackend({ context, logger: silentLogger, clock: systemClock });
    backend.setHealthPorts([31_001, 31_000]);
    const text = backend.render();
    assert.deepEqual(
      text.split("\n").filter((line) => line.startsWith("-A KUBE-NODEPORTS")),
      [31_000, 31_001].map(
        (port) =>
          `-A KUBE-NODEPORTS -m comment --comment "health check node port" -m tcp -p tcp --dport ${port} -j ACCEPT`,
      ),
    );
    assert.equal(text.match(/^:KUBE-PROXY-CANARY - \[0:0\]$/gm)?.length, 3);
    const order = (from: string): string[] =>
      text
        .split("\n")
        .filter((line) => line.startsWith(`-I ${from} `))
        .map((line) => line.split(" -j ")[1] ?? "")
        .toReversed();
    assert.deepEqual(order("INPUT"), [
      "KUBE-FIREWALL",
      "KUBE-PROXY-FIREWALL",
      "KUBE-NODEPORTS",
      "KUBE-EXTERNAL-SERVICES",
    ]);
    assert.deepEqual(order("FORWARD"), [
      "KUBE-PROXY-FIREWALL",
      "KUBE-FORWARD",
      "KUBE-SERVICES",
      "KUBE-EXTERNAL-SERVICES",
    ]);
    assert.deepEqual(order("PREROUTING"), ["KUBE-SERVICES"]);
    assert.deepEqual(order("POSTROUTING"), ["KUBE-POSTROUTING"]);
  });
});
