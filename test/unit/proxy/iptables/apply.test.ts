import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { systemClock } from "../../../../src/lib/clock.ts";
import type { Fields, Logger } from "../../../../src/lib/log.ts";
import { silentLogger } from "../../../../src/lib/log.ts";
import { IptablesError } from "../../../../src/netfilter/iptables.ts";
import { missingHints } from "../../../../src/netfilter/kubelet-hints.ts";
import type { Deletion } from "../../../../src/netfilter/monitor.ts";
import { IptablesBackend } from "../../../../src/proxy/iptables/backend.ts";
import { removalText } from "../../../../src/proxy/iptables/cleanup.ts";
import { canonicalRule, parseSave } from "../../../../src/proxy/iptables/listing.ts";
import type { PlannedPort } from "../../../../src/proxy/plan.ts";
import { FakeIptables } from "./restore-model.ts";
import { context, endpoint, plan } from "./samples.ts";

const signal = new AbortController().signal;

function on(
  fake: FakeIptables,
  options: { readonly logger?: Logger; readonly clock?: typeof systemClock } = {},
): IptablesBackend {
  return new IptablesBackend({
    context,
    logger: options.logger ?? silentLogger,
    clock: options.clock ?? systemClock,
    host: fake.host(),
  });
}

/** Ports `ns/s0` and up, with two endpoints each. */
function fill(backend: IptablesBackend, from: number, to: number): void {
  for (let id = from; id < to; id += 1) {
    const one = plan(
      {
        key: `ns/s${id}:http/tcp`,
        service: `ns/s${id}`,
        clusterIP: `10.96.${id >> 8}.${id & 255}`,
        rank: `2026 ${String(id).padStart(6, "0")}`,
      },
      [endpoint(`10.244.${id >> 8}.${id & 255}`), endpoint(`10.245.${id >> 8}.${id & 255}`)],
    );
    backend.set(one.key, one);
  }
}

describe("a synchronisation", () => {
  test("sends only what changed: an endpoint's chains, and not the chain of all Services", async () => {
    const fake = new FakeIptables();
    const backend = on(fake);
    fill(backend, 0, 50);
    await backend.sync(signal);
    const one = plan(
      { key: "ns/s7:http/tcp", service: "ns/s7", clusterIP: "10.96.0.7", rank: "2026 000007" },
      [endpoint("10.244.0.7")],
    );
    backend.set(one.key, one);
    await backend.sync(signal);
    const text = fake.texts.at(-1) ?? "";
    assert.equal(text.includes("KUBE-SERVICES"), false);
    assert.equal(
      text.match(/^:/gm)?.length,
      2,
      "the port's chain, and that of the endpoint that went",
    );
    assert.equal(text.match(/^-X KUBE-SEP-/gm)?.length, 1);
    assert.equal(text.includes("*filter"), false);
  });

  test("puts a new Service on top, where nothing must be searched for", async () => {
    const fake = new FakeIptables();
    const backend = on(fake);
    fill(backend, 0, 5);
    await backend.sync(signal);
    fill(backend, 5, 6);
    await backend.sync(signal);
    assert.match(
      fake.texts.at(-1) ?? "",
      /^-I KUBE-SERVICES -m comment --comment "ns\/s5:http cluster IP"/m,
    );
  });

  test("with many changes writes the chain of all Services anew, once", async () => {
    const fake = new FakeIptables();
    const backend = on(fake);
    fill(backend, 0, 5);
    await backend.sync(signal);
    fill(backend, 5, 100);
    await backend.sync(signal);
    const text = fake.texts.at(-1) ?? "";
    assert.equal(text.match(/^:KUBE-SERVICES - \[0:0\]$/gm)?.length, 1);
    assert.equal(text.includes("-I KUBE-SERVICES"), false);
    assert.equal(fake.chain("nat", "KUBE-SERVICES").length, 101);
  });

  test("nf_tables takes a large start in many transactions, and packets are sent to no Service before it is whole", async () => {
    const fake = new FakeIptables("nf_tables");
    const backend = on(fake);
    fill(backend, 0, 3000);
    const { transactions } = await backend.sync(signal);
    assert.ok(transactions > 8);
    assert.equal(fake.texts.length, 1, "one program");
    const parts = (fake.texts[0] ?? "").split(/(?<=^COMMIT\n)(?=\*nat)/m);
    const first = parts.findIndex((text) => text.includes("-A KUBE-SERVICES"));
    const ways = parts.findIndex((text) => text.includes("-I PREROUTING"));
    assert.ok(parts.slice(first + 1).every((text) => !text.includes("-A KUBE-SEP-")));
    assert.equal(ways, parts.length - 1);
    assert.ok(Math.max(...parts.map((text) => text.split("\n").length)) < 4100);
    assert.equal(fake.chain("nat", "KUBE-SERVICES").length, 3001);
  });

  test("a chain that packets go through already is never parted", async () => {
    const fake = new FakeIptables("nf_tables");
    const backend = on(fake);
    fill(backend, 0, 10);
    await backend.sync(signal);
    fill(backend, 10, 3000);
    await backend.sync(signal);
    const parts = fake.texts.at(-1)?.split("COMMIT\n") ?? [];
    assert.ok(parts.length > 5);
    assert.equal(parts.filter((text) => text.includes("-A KUBE-SERVICES")).length, 1);
  });

  test("legacy takes it in one", async () => {
    const fake = new FakeIptables("legacy");
    const backend = on(fake);
    fill(backend, 0, 1500);
    assert.equal((await backend.sync(signal)).transactions, 1);
  });

  test("lists once at the start, never after that, and again when it failed", async () => {
    const fake = new FakeIptables();
    const backend = on(fake);
    fill(backend, 0, 3);
    await backend.sync(signal);
    assert.equal(fake.saves, 3, "three tables");
    fill(backend, 3, 4);
    assert.equal((await backend.sync(signal)).drift, undefined);
    assert.equal(fake.saves, 3);

    fill(backend, 4, 5);
    fake.failures.push(new IptablesError("iptables-restore", { exitCode: 4, stderr: "busy" }));
    await assert.rejects(backend.sync(signal), { code: "REMORA_IPTABLES", failure: "busy" });
    const { changes, drift } = await backend.sync(signal);
    assert.equal(fake.saves, 6);
    assert.equal(drift, false, "all that differs is what was wanted");
    assert.equal(changes, 4, "three chains of its own and the one of all Services");
  });

  test("says what stands around a line that was refused", async () => {
    const fake = new FakeIptables();
    const said: { readonly msg: string; readonly fields: Fields | undefined }[] = [];
    const logger: Logger = {
      log: (_level, msg, fields) => void said.push({ msg, fields }),
      child: () => logger,
    };
    const backend = on(fake, { logger });
    fill(backend, 0, 3);
    fake.failures.push(
      new IptablesError("iptables-restore", {
        exitCode: 1,
        stderr: "iptables-restore v1.8.9 (nf_tables): \nline 6: CHAIN_ADD failed",
      }),
    );
    await assert.rejects(backend.sync(signal), IptablesError);
    const rules = String(said[0]?.fields?.["rules"]).split("\n");
    assert.deepEqual(
      rules.map((rule) => Number(rule.split(":")[0])),
      [3, 4, 5, 6, 7, 8, 9],
    );
    assert.equal(rules[3]?.slice(3), fake.texts[0]?.split("\n")[5]);
  });

  test("that fails twice writes everything anew: comparing did not see what is wrong", async () => {
    const fake = new FakeIptables();
    const backend = on(fake);
    fill(backend, 0, 3);
    await backend.sync(signal);
    fill(backend, 3, 4);
    fake.failures.push(new Error("one"), new Error("two"));
    await assert.rejects(backend.sync(signal), /one/);
    await assert.rejects(backend.sync(signal), /two/);
    await backend.sync(signal);
    assert.ok((fake.texts.at(-1)?.match(/^:KUBE-SEP-/gm)?.length ?? 0) === 8);
  });

  test("distrust while it is under way is not forgotten", async () => {
    const fake = new FakeIptables();
    const backend = on(fake);
    fill(backend, 0, 3);
    await backend.sync(signal);
    fill(backend, 3, 4);
    const restore = fake.restore.bind(fake);
    fake.restore = async (text) => {
      backend.distrust();
      await restore(text);
    };
    assert.equal((await backend.sync(signal)).drift, undefined);
    fake.restore = restore;
    assert.notEqual((await backend.sync(signal)).drift, undefined);
  });

  test("chains of Services that nobody knows any more are removed, chains of others are not", async () => {
    const fake = new FakeIptables();
    for (const name of [
      "KUBE-SVC-AAAAAAAAAAAAAAAA",
      "KUBE-XLB-AAAAAAAAAAAAAAAA",
      "KUBE-ROUTER-X",
    ]) {
      fake.tables.get("nat")?.set(name, []);
    }
    fake.tables.get("nat")?.set("KUBE-SEP-AAAAAAAAAAAAAAAA", ["-j KUBE-SVC-AAAAAAAAAAAAAAAA"]);
    await on(fake).sync(signal);
    const names = [...(fake.tables.get("nat")?.keys() ?? [])];
    assert.equal(
      names.some((name) => name.endsWith("AAAAAAAAAAAAAAAA")),
      false,
    );
    assert.ok(names.includes("KUBE-ROUTER-X"));
  });

  test("a rule that was another Service's before the start is written anew, so that it can be deleted", async () => {
    const fake = new FakeIptables();
    const refused = (name: string): PlannedPort =>
      plan({ key: `ns/${name}:http/tcp`, service: `ns/${name}`, rank: name }, []);
    const former = on(fake);
    former.set("ns/a:http/tcp", refused("a"));
    await former.sync(signal);
    const backend = on(fake);
    backend.set("ns/b:http/tcp", refused("b"));
    await backend.sync(signal);
    backend.set("ns/b:http/tcp", undefined);
    await backend.sync(signal);
    assert.deepEqual(fake.chain("filter", "KUBE-SERVICES"), []);
  });

  test("node ports are asked before Docker's, whoever came first", async () => {
    const fake = new FakeIptables();
    fake.tables.get("nat")?.set("DOCKER", []);
    fake.chain("nat", "PREROUTING").push("-m addrtype --dst-type LOCAL -j DOCKER");
    const backend = on(fake);
    await backend.sync(signal);
    assert.match(fake.chain("nat", "PREROUTING")[0] ?? "", /-j KUBE-SERVICES$/);
    fake.chain("nat", "PREROUTING").reverse();
    assert.equal(await backend.check(signal), false);
    backend.distrust();
    await backend.sync(signal);
    assert.equal(fake.chain("nat", "PREROUTING").length, 2);
    assert.match(fake.chain("nat", "PREROUTING")[0] ?? "", /-j KUBE-SERVICES$/);
  });

  test("connections whose packets come out of order are let through where the kernel is told to be liberal", async () => {
    const fake = new FakeIptables();
    fake.sysctls.set("net/netfilter/nf_conntrack_tcp_be_liberal", "1\n");
    await on(fake).sync(signal);
    assert.equal(fake.chain("filter", "KUBE-FORWARD").length, 2);
  });
});

describe("deletions that the kernel reports", () => {
  const deletion = (over: Partial<Deletion>): Deletion => ({
    kind: "rule",
    family: "ip",
    table: "nat",
    name: "KUBE-SERVICES",
    ...over,
  });

  test("concern us when they are of our chains, or of what leads there, and not our own work", async () => {
    let now = 0;
    const clock = { ...systemClock, monotonic: () => now };
    const fake = new FakeIptables();
    const backend = on(fake, { clock });
    assert.equal(backend.concerns(deletion({})), false, "nothing is known before the start");
    fill(backend, 0, 2);
    await backend.sync(signal);
    assert.equal(backend.concerns(deletion({})), false, "our own, a moment ago");
    now = 5000;
    assert.equal(backend.concerns(deletion({})), true);
    assert.equal(backend.concerns(deletion({ kind: "table", name: "" })), true);
    assert.equal(backend.concerns(deletion({ table: "filter", name: "INPUT" })), true);
    assert.equal(backend.concerns(deletion({ name: "DOCKER" })), false);
    assert.equal(backend.concerns(deletion({ table: "raw" })), false);
    assert.equal(backend.concerns(deletion({ family: "ip6" })), false);
    assert.equal(backend.concerns(deletion({ kind: "element" })), false);
  });

  test("of a rule that others had in a chain of the system's cost no listing", async () => {
    let now = 0;
    const fake = new FakeIptables();
    const backend = on(fake, { clock: { ...systemClock, monotonic: () => now } });
    await backend.sync(signal);
    now = 5000;
    const saves = fake.saves;
    assert.equal(backend.concerns(deletion({ name: "POSTROUTING" })), true);
    backend.distrust();
    assert.equal((await backend.sync(signal)).changes, 0);
    assert.equal(fake.saves, saves);

    fake.chain("nat", "POSTROUTING").length = 0;
    now = 10_000;
    assert.equal(backend.concerns(deletion({ name: "POSTROUTING" })), true);
    backend.distrust();
    assert.equal((await backend.sync(signal)).changes, 1);
  });

  test("of legacy tables are not heard of", async () => {
    const fake = new FakeIptables("legacy");
    const backend = on(fake);
    await backend.sync(signal);
    assert.equal(backend.concerns(deletion({ kind: "table", name: "" })), false);
  });
});

describe("a listing", () => {
  const same: readonly (readonly [string, string])[] = [
    [
      '-m comment --comment "a b" -m tcp -p tcp -d 10.0.0.1 --dport 80 ! -s 10.0.0.0/8 -j X',
      '! -s 10.0.0.0/8 -d 10.0.0.1/32 -p tcp -m comment --comment "a b" -m tcp --dport 80 -j X',
    ],
    ["-j MARK --or-mark 0x4000", "-j MARK --set-xmark 0x4000/0x4000"],
    ["-j MARK --xor-mark 0x4000", "-j MARK --set-xmark 0x4000/0x0"],
    [
      "-m statistic --mode random --probability 0.3333333333 -j X",
      "-m statistic --mode random --probability 0.33333333349 -j X",
    ],
    [
      "-m recent --name X --rcheck --seconds 60 --reap -j X",
      "-m recent --rcheck --seconds 60 --reap --name X --mask 255.255.255.255 --rsource -j X",
    ],
    [
      "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
      "-m conntrack ! --ctstate DNAT,ESTABLISHED,RELATED -j DROP",
    ],
    ["-d fd00::1 -j REJECT", "-d fd00::1/128 -j REJECT --reject-with icmp6-port-unreachable"],
  ];
  for (const [ours, listed] of same) {
    test(`has ${listed} for ${ours}`, () => {
      assert.equal(canonicalRule(ours), canonicalRule(listed));
    });
  }

  test("tells rules apart that differ", () => {
    const all = [
      "-s 10.0.0.1 -j X",
      "! -s 10.0.0.1 -j X",
      "-d 10.0.0.1 -j X",
      "-s 10.0.0.1 -j Y",
      "-s 10.0.0.0/24 -j X",
      "-s fd00::/32 -j X",
      "-s fd00:: -j X",
      "-p tcp --dport 80 -j X",
      "-p udp --dport 80 -j X",
      "-m statistic --mode random --probability 0.0010000000 -j X",
      "-m statistic --mode random --probability 0.0009990010 -j X",
      "-p tcp -j REJECT --reject-with tcp-reset",
      "-p tcp -j REJECT",
    ];
    assert.equal(new Set(all.map(canonicalRule)).size, all.length);
  });

  test("of which all goes that is the proxy's, and the kubelet's only when asked", () => {
    const chains = parseSave(
      [
        ":INPUT ACCEPT [0:0]",
        ":KUBE-FIREWALL - [0:0]",
        ":KUBE-SERVICES - [0:0]",
        ":KUBE-POD-FW-X - [0:0]",
        "-A INPUT -j KUBE-FIREWALL",
        '-A INPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        "-A INPUT -j KUBE-POD-FW-X",
      ].join("\n"),
    );
    assert.deepEqual(removalText("filter", chains, true).split("\n"), [
      "*filter",
      ":KUBE-SERVICES - [0:0]",
      '-D INPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
      "-X KUBE-SERVICES",
      "COMMIT",
      "",
    ]);
    assert.match(removalText("filter", chains, false), /-D INPUT -j KUBE-FIREWALL/);
    assert.equal(removalText("filter", parseSave(":INPUT ACCEPT [0:0]"), false), "");
  });
});

describe("the kubelet's chains", () => {
  test("are made where they are missing, and nothing is done twice", async () => {
    const fake = new FakeIptables();
    await fake.restore(await missingHints("IPv4", fake, signal));
    assert.deepEqual(fake.chain("filter", "INPUT"), ["-j KUBE-FIREWALL"]);
    assert.equal(fake.chain("filter", "KUBE-FIREWALL").length, 1);
    assert.equal(fake.chain("mangle", "KUBE-IPTABLES-HINT").length, 0);
    assert.equal(await missingHints("IPv4", fake, signal), "");

    fake.chain("filter", "KUBE-FIREWALL").push("-s 192.0.2.1 -j DROP");
    fake.chain("filter", "OUTPUT").length = 0;
    assert.equal(
      await missingHints("IPv4", fake, signal),
      "*filter\n-I OUTPUT -j KUBE-FIREWALL\nCOMMIT\n",
      "a rule that others put there stays",
    );
  });

  test("of IPv6 have no rule: nothing from outside reaches ::1", async () => {
    const text = await missingHints("IPv6", new FakeIptables(), signal);
    assert.equal(text.includes("KUBE-FIREWALL"), false);
    assert.match(text, /^:KUBE-IPTABLES-HINT - \[0:0\]$/m);
  });
});
