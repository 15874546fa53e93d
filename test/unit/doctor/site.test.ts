import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { isBelow } from "../../../src/agent/doctor/checks/kernel.ts";
import { serversBehind } from "../../../src/agent/doctor/checks/names.ts";
import {
  earlyRules,
  natChains,
  takesServices,
} from "../../../src/agent/doctor/checks/translations.ts";
import { overlaps } from "../../../src/agent/doctor/checks/pod-network.ts";
import { parseListeners } from "../../../src/agent/doctor/processes.ts";
import { parseSelfTest } from "../../../src/agent/doctor/self-test.ts";
import { chooseDirectory, flagOf } from "../../../src/agent/doctor/site.ts";
import { firstAddress } from "../../../src/agent/doctor/throw-away-pod.ts";
import { parseCidr } from "../../../src/lib/cidr.ts";

describe("where the agent works", () => {
  const nobody = (): boolean => false;

  it("flags win, then who runs, then what is there", () => {
    const holder = { pid: 1, directory: "/srv/x", flag: "--root-dir" } as const;
    assert.deepEqual(chooseDirectory({ stateDir: "/a" }, holder, nobody), {
      mode: "up",
      directory: "/a",
    });
    assert.deepEqual(chooseDirectory({ rootDir: "/b" }, holder, nobody), {
      mode: "run",
      directory: "/b",
    });
    assert.deepEqual(chooseDirectory({}, holder, nobody), { mode: "run", directory: "/srv/x" });
    const ran = (path: string): boolean => path === "/var/lib/kubelet/places.json";
    assert.deepEqual(chooseDirectory({}, undefined, ran), {
      mode: "run",
      directory: "/var/lib/kubelet",
    });
    assert.deepEqual(chooseDirectory({}, undefined, nobody), {
      mode: "up",
      directory: "/var/lib/remora",
    });
  });

  it("flags are read in both ways of writing", () => {
    const line = "remora\0run\0--config\0/a.yaml\0--node-ip=10.0.0.1\0--config-dir\0/b\0";
    assert.equal(flagOf(line, "config"), "/a.yaml");
    assert.equal(flagOf(line, "node-ip"), "10.0.0.1");
    assert.equal(flagOf(line, "kubeconfig"), undefined);
  });
});

describe("rules that come before the agent's", () => {
  const services = [parseCidr("10.96.0.0/16")];

  it("are those before the jump of iptables", () => {
    const listing = [
      "*nat",
      "-A PREROUTING -d 10.96.0.7/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.9",
      "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
      "-A PREROUTING -m comment --comment x -j KUBE-SERVICES",
      "-A PREROUTING -p tcp -m tcp --dport 81 -j REDIRECT --to-ports 3128",
      "-A OUTPUT -p tcp -m tcp --dport 82 -j REDIRECT --to-ports 3128",
      "-A OUTPUT -j KUBE-SERVICES",
      "COMMIT",
      "",
    ].join("\n");
    assert.deepEqual(
      earlyRules(listing).map((rule) => /--dport (\d+)/.exec(rule)?.[1]),
      ["80", "82"],
    );
    assert.deepEqual(earlyRules("*filter\nCOMMIT\n"), []);
  });

  it("matter when they take packets to Services", () => {
    const takes = (rule: string): boolean => takesServices(rule, "remora0", services);
    assert.ok(takes("-A PREROUTING -d 10.96.0.7/32 -p tcp --dport 80 -j DNAT"));
    assert.ok(takes("-A PREROUTING -p tcp --dport 80 -j REDIRECT"));
    assert.ok(takes("-A PREROUTING -i eth0 -p tcp --dport 30080 -j DNAT"));
    assert.ok(takes('iifname "remora0" tcp dport 80 redirect to :3128'));
    assert.ok(!takes("-A PREROUTING -i eth0 -p tcp --dport 8080 -j DNAT"));
    assert.ok(!takes("-A PREROUTING -d 203.0.113.9/32 -p tcp --dport 80 -j DNAT"));
    assert.ok(!takes("ip daddr 203.0.113.9 tcp dport 80 dnat to 192.0.2.9"));
  });

  it("are in chains of type nat", () => {
    const chain = {
      family: "ip",
      table: "t",
      name: "pre",
      type: "nat",
      hook: "prerouting",
      prio: -200,
    };
    const filter = { ...chain, type: "filter" };
    const value = {
      nftables: [{ metainfo: {} }, { chain }, { chain: filter }, { chain: { name: "x" } }],
    };
    assert.deepEqual(natChains(value), [
      { family: "ip", table: "t", name: "pre", hook: "prerouting", prio: -200 },
    ]);
  });
});

describe("what is read", () => {
  it("versions are compared by their numbers", () => {
    assert.equal(isBelow("5.9.16-amd64", [5, 13]), true);
    assert.equal(isBelow("5.13.0", [5, 13]), false);
    assert.equal(isBelow("6.1", [5, 13]), false);
    assert.equal(isBelow("1.0.1", [1, 0, 1]), false);
    assert.equal(isBelow("1.0", [1, 0, 1]), true);
  });

  it("servers behind systemd-resolved take the stub's place", () => {
    assert.deepEqual(serversBehind("nameserver 127.0.0.53\n", "nameserver 9.9.9.9\n"), ["9.9.9.9"]);
    assert.deepEqual(serversBehind("nameserver 127.0.0.53\n", undefined), []);
    assert.deepEqual(serversBehind("nameserver 10.0.0.2\n", "nameserver 9.9.9.9\n"), ["10.0.0.2"]);
  });

  it("networks overlap when one holds the other", () => {
    const pair = (a: string, b: string): boolean => overlaps(parseCidr(a), parseCidr(b));
    assert.equal(pair("10.96.0.0/16", "10.96.5.0/24"), true);
    assert.equal(pair("10.96.5.0/24", "10.0.0.0/8"), true);
    assert.equal(pair("10.96.0.0/16", "10.97.0.0/16"), false);
    assert.equal(pair("10.96.0.0/16", "fd00::/8"), false);
  });

  it("listeners are those without a peer, on an address or on all", () => {
    const line = (local: string, state: string): string =>
      `  0: ${local} 00000000:0000 ${state} 00000000:00000000 00:00000000 00000000 0 0 4242 1`;
    const table = ["header", line("0100007F:280A", "0A"), line("00000000:0035", "01")].join("\n");
    assert.deepEqual(parseListeners(table, "tcp"), [
      { port: 10_250, address: "127.0.0.1", inode: "4242" },
    ]);
    const v6 = line("00000000000000000000000000000000:0035", "07");
    assert.deepEqual(parseListeners(v6, "udp"), [{ port: 53, address: "", inode: "4242" }]);
  });

  it("the self test says what failed and with which words", () => {
    const said = parseSelfTest("veth ok\nbridge no Error: Unknown device type.\nnft-nat no\n");
    assert.equal(said.veth, "");
    assert.equal(said.bridge, "Error: Unknown device type.");
    assert.equal(said["nft-nat"], "it failed without a word");
    assert.equal(said.iptables, "it was not tried");
  });

  it("a Service's first address, where it has one", () => {
    const spec = { clusterIP: "10.96.0.1", ports: [{ port: 443 }] };
    assert.deepEqual(firstAddress({ spec }), { ip: "10.96.0.1", port: 443 });
    assert.equal(firstAddress({ spec: { clusterIP: "None", ports: [{ port: 443 }] } }), undefined);
    assert.equal(firstAddress({}), undefined);
  });
});
