import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { silentLogger } from "../../../../src/lib/log.ts";
import { systemClock } from "../../../../src/lib/clock.ts";
import type { ListedContainer, TableListing } from "../../../../src/netfilter/read-back.ts";
import type { RulesContext } from "../../../../src/proxy/backend.ts";
import { countingText, parseCounts } from "../../../../src/proxy/explain/count.ts";
import { claimsOf, indexOf, plansOf } from "../../../../src/proxy/explain/explain.ts";
import { FlowTally, parseTrackedFlow } from "../../../../src/proxy/explain/flows.ts";
import {
  compareIptables,
  parseCountedSave,
} from "../../../../src/proxy/explain/kernel-iptables.ts";
import { compareNftables } from "../../../../src/proxy/explain/kernel-nftables.ts";
import type { KernelView, WantedRules } from "../../../../src/proxy/explain/kernel.ts";
import { IptablesBackend } from "../../../../src/proxy/iptables/backend.ts";
import { fixedClaims, portClaims } from "../../../../src/proxy/nftables/layout.ts";
import { parseService } from "../../../../src/proxy/parse.ts";
import { ruleTag } from "../../../../src/proxy/rule-tag.ts";
import { rulesContext } from "../../../fakes/service-samples.ts";

const context: RulesContext = rulesContext();
const node = { nodeName: "here", nodeIPs: ["192.0.2.1"], zone: "" };

function object(name: string, spec: object = {}): object {
  return {
    metadata: { namespace: "ns", name, creationTimestamp: `2026-01-0${name.length}T00:00:00Z` },
    spec: {
      type: "NodePort",
      clusterIP: `10.96.0.${name.length}`,
      ports: [{ port: 80, nodePort: 30_000 + name.length }],
      ...spec,
    },
  };
}

function wantedOf(service: object, others: readonly object[] = []): WantedRules {
  const slice = {
    metadata: {
      namespace: "ns",
      name: "s",
      labels: { "kubernetes.io/service-name": parseService(service).name },
    },
    addressType: "IPv4",
    ports: [{ port: 8080 }],
    endpoints: [
      { addresses: ["10.244.0.1"], nodeName: "here" },
      { addresses: ["10.244.1.1"], nodeName: "there" },
      { addresses: ["10.244.1.2"], nodeName: "there" },
    ],
  };
  const input = { node, externalIPs: true, service, others: others.map(parseService) };
  const planned = plansOf(parseService(service), "IPv4", indexOf([slice], node), input);
  return {
    context,
    plans: planned.map(({ plan }) => plan),
    claims: claimsOf(input, "IPv4", planned),
  };
}

interface Table extends TableListing {
  readonly containers: Map<string, ListedContainer>;
}

/** A table in the kernel that has what these plans need. */
function tableOf({ plans, claims }: WantedRules): Table {
  const table: Table = { chains: new Map(), containers: new Map() };
  const all = [
    fixedClaims(context),
    ...plans.map((plan) => portClaims(claims.effective(plan), context)),
  ];
  for (const { chains, containers, elements } of all) {
    for (const { name, hook, rules } of chains)
      table.chains.set(name, { hook, tags: rules.map(ruleTag) });
    for (const { name, kind } of containers)
      table.containers.set(name, { kind, elements: new Map() });
    for (const { container, key, value } of elements)
      table.containers.get(container)?.elements.set(key, value);
  }
  return table;
}

function drift(view: Pick<KernelView, "drift">): readonly string[] {
  return view.drift.map(
    ({ where, key, wanted, found }) => `${where} ${key}: ${found ?? "-"} not ${wanted ?? "-"}`,
  );
}

describe("nftables compared with what should be there", () => {
  const wanted = wantedOf(object("web"));
  const at = (table: Table, name: string): Map<string, string> => {
    const elements = table.containers.get(name)?.elements;
    assert.ok(elements !== undefined, name);
    return elements;
  };

  it("is right when it is, and shows what carries the Service", () => {
    const view = compareNftables(tableOf(wanted), wanted);
    assert.deepEqual(drift(view), []);
    const shown = view.carried.map(({ where, rule }) => `${where}: ${rule}`);
    assert.ok(shown.includes("map svc: 10.96.0.3 . tcp . 80 : goto c4"), shown.join("\n"));
    assert.ok(shown.includes("map np: tcp . 30003 : goto x-nc4"), shown.join("\n"));
    assert.ok(shown.some((line) => line.startsWith("chain c4: meta l4proto tcp dnat")));
    assert.ok(!shown.some((line) => line.includes("l4proto udp")));
  });

  it("does not mind which endpoint has which slot, and minds one that stands twice", () => {
    const table = tableOf(wanted);
    const slots = at(table, "ep-c-tcp");
    const [one, two] = ["10.96.0.3 . 80 . 0", "10.96.0.3 . 80 . 1"] as const;
    const [first = "", second = ""] = [slots.get(one), slots.get(two)];
    slots.set(one, second);
    slots.set(two, first);
    assert.deepEqual(drift(compareNftables(table, wanted)), []);
    slots.set(one, first);
    assert.deepEqual(drift(compareNftables(table, wanted)), [
      `map ep-c-tcp ${two}: ${first} not ${second}`,
    ]);
  });

  it("tells what is missing, different and too much", () => {
    const table = tableOf(wanted);
    at(table, "svc").delete("10.96.0.3 . tcp . 80");
    at(table, "np").set("tcp . 30003", "goto x-nc1");
    at(table, "noep").set("10.96.0.3 . tcp . 80", "goto rej");
    at(table, "ep-c-tcp").set("10.96.0.3 . 80 . 3", "10.9.9.9 . 1");
    table.chains.delete("c4");
    table.chains.set("postrouting", { hook: undefined, tags: [] });
    const found = drift(compareNftables(table, wanted)).map((line) => line.split(" not ")[0]);
    assert.deepEqual(
      new Set(found),
      new Set([
        "map svc 10.96.0.3 . tcp . 80: -",
        "map np tcp . 30003: goto x-nc1",
        "map noep 10.96.0.3 . tcp . 80: goto rej",
        "map ep-c-tcp 10.96.0.3 . 80 . 3: 10.9.9.9 . 1",
        "chain c4 : -",
        "chain postrouting : other rules",
      ]),
    );
  });

  it("does not miss an address that an older Service has", () => {
    const spec = { externalIPs: ["198.51.100.1"] };
    const younger = wantedOf(object("young", spec), [object("old", spec)]);
    const view = compareNftables(tableOf(younger), younger);
    assert.deepEqual(drift(view), []);
    assert.ok(!view.carried.some(({ rule }) => rule.includes("198.51.100.1")));
  });

  it("takes rules of session affinity in any order of their endpoints", () => {
    const affine = wantedOf(object("web", { sessionAffinity: "ClientIP" }));
    const turned: WantedRules = {
      ...affine,
      plans: affine.plans.map((plan) => ({ ...plan, cluster: plan.cluster.toReversed() })),
    };
    const table = tableOf({ ...turned, claims: affine.claims });
    assert.deepEqual(drift(compareNftables(table, affine)), []);
  });
});

describe("iptables compared with what should be there", () => {
  const wanted = wantedOf(object("web"));
  /** What iptables-save -c prints when the backend's own text was restored. */
  const saved = (change: (line: string) => string = (line) => line): ReturnType<typeof parse> => {
    const backend = new IptablesBackend({ context, clock: systemClock, logger: silentLogger });
    for (const plan of wanted.plans) backend.set(plan.key, plan);
    return parse(
      backend
        .render()
        .split("\n")
        .map((line) => change(line.replace(/^-A/, "[7:420] -A"))),
    );
  };
  const parse = (lines: readonly string[]): Map<string, { text: string; packets: number }[]> => {
    const all = new Map<string, { text: string; packets: number }[]>();
    let table = "";
    let rest: string[] = [];
    for (const line of [...lines, "*end"]) {
      if (line.startsWith("*")) {
        for (const [name, rules] of parseCountedSave(table, rest.join("\n"))) {
          all.set(name, [...(all.get(name) ?? []), ...rules]);
        }
        table = line.slice(1);
        rest = [];
      } else rest.push(line);
    }
    return all;
  };

  it("is right when it is, and has counted", () => {
    const view = compareIptables(saved(), wanted);
    assert.deepEqual(drift(view), []);
    const dispatch = view.carried.find(({ where }) => where === "nat KUBE-SERVICES");
    assert.match(dispatch?.rule ?? "", /-d 10\.96\.0\.3(\/32)? .*-j KUBE-SVC-/);
    assert.equal(dispatch?.packets, 7);
    assert.ok(view.carried.some(({ rule }) => rule.includes("--to-destination 10.244.1.2:8080")));
  });

  it("tells what is missing, different and too much", () => {
    const missing = compareIptables(
      saved((line) => (/KUBE-SERVICES .*-d 10\.96\.0\.3/.test(line) ? "" : line)),
      wanted,
    );
    assert.equal(missing.drift.length, 1);
    assert.equal(missing.drift[0]?.where, "nat KUBE-SERVICES");
    assert.equal(missing.drift[0].found, undefined);
    const other = compareIptables(
      saved((line) => line.replace("10.244.1.2:8080", "10.9.9.9:1")),
      wanted,
    );
    assert.equal(other.drift.length, 1);
    assert.match(other.drift[0]?.found ?? "", /10\.9\.9\.9:1/);
    const tables = saved();
    tables
      .get("nat KUBE-SERVICES")
      ?.unshift({ text: "-d 10.96.0.3/32 -p tcp -m tcp --dport 80 -j ACCEPT", packets: 0 });
    const more = compareIptables(tables, wanted);
    assert.deepEqual(
      more.drift.map(({ wanted: text }) => text),
      [undefined],
    );
  });
});

describe("flows that conntrack knows", () => {
  it("are read with who answers and, where the kernel counts, with packets", () => {
    const line =
      "tcp      6 431999 ESTABLISHED src=10.244.0.5 dst=10.96.0.3 sport=4000 dport=80 packets=5 bytes=300 src=10.244.1.1 dst=10.244.0.5 sport=8080 dport=4000 packets=4 bytes=400 [ASSURED] mark=0 use=1";
    assert.deepEqual(parseTrackedFlow(line), {
      protocol: "tcp",
      ip: "10.96.0.3",
      port: 80,
      answeredBy: "10.244.1.1:8080",
      packets: 9,
      bytes: 700,
    });
    const six =
      "udp      17 20 src=fd00::5 dst=fd00:1::3 sport=4000 dport=53 [UNREPLIED] src=fd00::9 dst=fd00::5 sport=53 dport=4000 mark=0 use=1";
    assert.deepEqual(parseTrackedFlow(six)?.answeredBy, "[fd00::9]:53");
    assert.equal(parseTrackedFlow(six)?.packets, undefined);
    const icmp =
      "icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=1 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=1 mark=0 use=1";
    assert.equal(parseTrackedFlow(icmp), undefined);
  });

  it("are counted by address and endpoint", () => {
    const target = { ip: "10.96.0.3", protocol: "tcp", port: 80 };
    const tally = new FlowTally([target]);
    const flow = { ...target, answeredBy: "10.244.1.1:8080", packets: 2, bytes: 20 };
    tally.add(flow);
    tally.add(flow);
    tally.add({ ...flow, protocol: "udp" });
    tally.add({ ...flow, answeredBy: "10.244.1.2:8080", packets: undefined, bytes: undefined });
    assert.deepEqual(tally.counts(), [
      { target, answeredBy: "10.244.1.1:8080", flows: 2, packets: 4, bytes: 40 },
      {
        target,
        answeredBy: "10.244.1.2:8080",
        flows: 1,
        packets: undefined,
        bytes: undefined,
      },
    ]);
  });
});

describe("packets that are counted while somebody looks", () => {
  it("are counted in a table of their own", () => {
    const text = countingText({ family: "ip6", name: "t" }, "IPv6", [
      { ip: "fd00:1::3", protocol: "udp", port: 53 },
    ]);
    assert.ok(text.includes("elements = { udp . fd00:1::3 . 53 }"));
    assert.ok(!text.includes("ct original ip daddr"));
  });

  it("are read from the kernel's listing", () => {
    const elem = (concat: readonly unknown[], packets: number): object => ({
      elem: { val: { concat }, counter: { packets, bytes: packets * 10 } },
    });
    const set = (name: string, ...elems: object[]): object => ({ set: { name, elem: elems } });
    const flow = ["tcp", "10.96.0.3", 80, "10.244.1.1", 8080];
    const listing = {
      nftables: [
        { metainfo: {} },
        set("targets"),
        set("arrived", elem(["tcp", "10.96.0.3", 80], 9)),
        set("asked", elem(flow, 5)),
        set("answered", elem(flow, 4)),
      ],
    };
    const target = { protocol: "tcp", ip: "10.96.0.3", port: 80 };
    assert.deepEqual(parseCounts(listing), {
      arrived: [{ target, packets: 9 }],
      counts: [
        {
          target,
          endpoint: "10.244.1.1:8080",
          asked: { packets: 5, bytes: 50 },
          answered: { packets: 4, bytes: 40 },
        },
      ],
    });
  });
});
