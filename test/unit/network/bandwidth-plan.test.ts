import assert from "node:assert/strict";
import { describe, it } from "node:test";

import {
  intermediateName,
  intermediatePrefix,
  type LimitedPod,
  parseShaping,
  shapingCommands,
  tokenBucket,
} from "../../../src/network/bandwidth-plan.ts";
import type { Link } from "../../../src/network/links.ts";

const link = (name: string, up = true): Link => {
  return { name, master: undefined, up, mtu: 1500, mac: "", kind: "veth", addresses: [] };
};

const pod: LimitedPod = {
  veth: "rmva",
  intermediate: "rmbx",
  bandwidth: { ingressBits: 1_000_000, egressBits: 8_000_000 },
  mtu: 1500,
};

/** As tc prints it. */
const ingressSet = "qdisc tbf 82: dev rmva root refcnt 3 rate 1Mbit burst 15000b lat 25ms \n";
const egressSet = "qdisc tbf 82: dev rmbx root refcnt 2 rate 8Mbit burst 25000b lat 25ms \n";
const entrance = "qdisc ingress ffff: dev rmva parent ffff:fff1 ---------------- \n";
const redirect = `filter protocol all pref 82 u32 chain 0 fh 800::800 order 2048 key ht 800 bkt 0 terminal flowid not_in_hw
  match 00000000/00000000 at 0
	action order 1: mirred (Egress Redirect to device rmbx) stolen
`;

describe("the bucket of a rate", () => {
  it("lets a packet wait 25 ms, and as much go at once after a rest", () => {
    assert.deepEqual(tokenBucket(80_000_000, 1500), {
      bitsPerSecond: 80_000_000,
      burstBytes: 250_000,
      limitBytes: 500_000,
    });
  });

  it("has room for packets at any rate and size that a pod may ask for", () => {
    for (const mtu of [1280, 1500, 9000]) {
      for (let bits = 1000; bits <= 1e15; bits *= 10) {
        const { burstBytes, limitBytes } = tokenBucket(bits, mtu);
        assert.ok(burstBytes >= mtu && limitBytes > burstBytes, `${bits} ${mtu}`);
        // What the kernel holds in 32 bits: bytes, and ticks of 64 ns.
        assert.ok(burstBytes < 2 ** 32 && limitBytes < 2 ** 32, `${bits} ${mtu}`);
        assert.ok((burstBytes * 8 * 1e9) / bits / 64 < 2 ** 32, `${bits} ${mtu}`);
      }
    }
  });
});

describe("names of devices", () => {
  it("fit, and tell the bridge they belong to", () => {
    const name = intermediateName("remora0", "a".repeat(64));
    assert.equal(name.length, 15);
    assert.ok(name.startsWith(intermediatePrefix("remora0")));
    assert.notEqual(intermediatePrefix("remora0"), intermediatePrefix("other0"));
    assert.notEqual(name, intermediateName("remora0", "b".repeat(64)));
  });
});

describe("what is missing of a pod's limits", () => {
  const missing = (
    links: readonly Link[],
    qdiscs: string,
    filters = "",
    bandwidth = pod.bandwidth,
  ) => shapingCommands({ ...pod, bandwidth }, parseShaping(links, { qdiscs, filters }));
  const both = [link("rmva"), link("rmbx")];

  it("is everything of a new interface", () => {
    const { ip, tc } = missing([link("rmva")], "qdisc noqueue 0: dev rmva root refcnt 2 \n");
    assert.deepEqual(ip, ["link add name rmbx mtu 1500 up type ifb"]);
    assert.deepEqual(tc, [
      "qdisc add dev rmva root handle 82: tbf rate 1000000bit burst 15000b limit 18125b",
      "qdisc add dev rmbx root handle 82: tbf rate 8000000bit burst 25000b limit 50000b",
      "qdisc add dev rmva ingress",
      "filter replace dev rmva ingress protocol all pref 82 handle 800::800 u32 match u32 0 0 action mirred egress redirect dev rmbx",
    ]);
  });

  it("is nothing where all is there", () => {
    const found = missing(both, ingressSet + egressSet + entrance, redirect);
    assert.deepEqual(found, { ip: [], tc: [] });
  });

  it("is nothing of an interface that is gone", () => {
    assert.deepEqual(missing([], ""), { ip: [], tc: [] });
  });

  it("is one direction where only one is limited", () => {
    const up = missing([link("rmva")], "", "", { ingressBits: 1_000_000 });
    assert.deepEqual([up.ip.length, up.tc.length], [0, 1]);
    const down = missing([link("rmva")], "", "", { egressBits: 1_000_000 });
    assert.deepEqual([down.ip.length, down.tc.length], [1, 3]);
  });

  it("is what others took away, and only that", () => {
    const { ip, tc } = missing(both, ingressSet + egressSet + entrance);
    assert.deepEqual(ip, []);
    assert.equal(tc.length, 1);
    assert.match(tc[0] ?? "", /^filter replace /);
  });

  it("takes away a discipline of somebody else, and uses somebody's entrance", () => {
    const foreign = "qdisc fq 8001: dev rmva root refcnt 2 limit 10000p \n";
    const clsact = "qdisc clsact ffff: dev rmva parent ffff:fff1 \n";
    const { tc } = missing(both, foreign + egressSet + clsact, redirect);
    assert.equal(tc[0], "qdisc del dev rmva root");
    assert.match(tc[1] ?? "", /^qdisc add dev rmva root handle 82: tbf/);
    assert.equal(tc.length, 2);
  });

  it("is a device that is down, and the filter to one that was made anew", () => {
    const down = missing([link("rmva"), link("rmbx", false)], ingressSet + egressSet, redirect);
    assert.deepEqual(down.ip, ["link set dev rmbx up"]);
    const lost = redirect.replace("rmbx", "*");
    const anew = missing([link("rmva")], ingressSet + entrance, lost);
    assert.equal(anew.ip.length, 1);
    assert.match(anew.tc.at(-1) ?? "", /^filter replace /);
  });
});
