import assert from "node:assert/strict";
import { describe, it } from "node:test";

import type { Informer } from "../../../src/api/informer-types.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { type NodeCondition, parseNode } from "../../../src/proxy/node-condition.ts";
import { OwnNode } from "../../../src/proxy/own-node.ts";
import { parseService } from "../../../src/proxy/parse.ts";
import { type Frontend, planPort } from "../../../src/proxy/plan.ts";
import { servicePorts } from "../../../src/proxy/service-model.ts";
import type { Endpoint } from "../../../src/proxy/types.ts";
import { readyEndpoint } from "../../fakes/service-samples.ts";

const alone = { name: "here", zone: "z1", keepsSource: true };
const near = readyEndpoint("10.244.0.2", { local: true });
const far = readyEndpoint("10.244.1.2");

function verdicts(
  endpoints: readonly Endpoint[],
  node: { readonly name: string; readonly zone: string; readonly keepsSource?: boolean } = alone,
  spec: Readonly<Record<string, unknown>> = {},
): Record<string, Frontend["verdict"]> {
  const view = parseService({
    metadata: { namespace: "ns", name: "web", creationTimestamp: "2026-01-01T00:00:00Z" },
    spec: {
      type: "LoadBalancer",
      clusterIP: "172.30.0.1",
      externalIPs: ["192.0.2.9"],
      ports: [{ port: 80, protocol: "TCP", nodePort: 30_080 }],
      ...spec,
    },
    status: { loadBalancer: { ingress: [{ ip: "192.0.2.1" }] } },
  });
  const [port] = servicePorts(view, "IPv4", ["192.0.2.1"]);
  assert.ok(port !== undefined);
  const { frontends } = planPort(port, endpoints, node);
  return Object.fromEntries(frontends.map(({ ip, verdict }) => [ip || "node port", verdict]));
}

const everywhere = (verdict: Frontend["verdict"]): Record<string, Frontend["verdict"]> => ({
  "172.30.0.1": "cluster",
  "192.0.2.9": verdict,
  "192.0.2.1": verdict,
  "node port": verdict,
});

/** As much of Nodes as is asked for. */
function nodeInformer(names: readonly string[], synced = true): Informer<NodeCondition> {
  const condition = parseNode({ metadata: {}, spec: {} });
  const held = new Map(names.map((name) => [name, condition]));
  return {
    synced,
    size: held.size,
    get: (name) => held.get(name),
    values: () => held.values(),
    subscribe: () => () => undefined,
    whenSynced: () => Promise.resolve(),
    run: () => Promise.resolve(),
  };
}

describe("whether a node is alone", () => {
  const isAlone = (names: readonly string[], synced?: boolean): boolean =>
    new OwnNode(nodeInformer(names, synced), "here", silentLogger).isAlone;

  it("is known when all Nodes are known and no other is among them", () => {
    assert.equal(isAlone(["here"]), true);
    assert.equal(isAlone(["here", "there"]), false);
    assert.equal(isAlone(["there"]), false);
    // Its own Node is being made anew.
    assert.equal(isAlone([]), true);
    assert.equal(isAlone(["here"], false), false);
  });
});

describe("the source of clients from outside", () => {
  it("is kept where all endpoints are on the only node", () => {
    const second = readyEndpoint("10.244.0.3", { local: true });
    assert.deepEqual(verdicts([near, second]), everywhere("split"));
  });

  it("is a new one without the setting, and while there are other nodes", () => {
    const expected = everywhere("cluster-masqueraded");
    assert.deepEqual(verdicts([near], { name: "here", zone: "z1" }), expected);
    assert.deepEqual(verdicts([near], { ...alone, keepsSource: false }), expected);
  });

  it("is a new one where any endpoint is elsewhere: its answer would not come back this way", () => {
    assert.deepEqual(verdicts([near, far]), everywhere("cluster-masqueraded"));
    assert.deepEqual(verdicts([far]), everywhere("cluster-masqueraded"));
  });

  it("is kept towards a terminating endpoint when none is ready, as it was before", () => {
    const dying = readyEndpoint("10.244.0.3", { local: true, ready: false, terminating: true });
    assert.deepEqual(verdicts([dying]), everywhere("split"));
    // The ready one is what traffic goes to; it is elsewhere.
    assert.deepEqual(verdicts([dying, far]), everywhere("cluster-masqueraded"));
  });

  it("is a new one where hints choose among this node's endpoints: keeping it would undo them", () => {
    const hinted = readyEndpoint("10.244.0.2", { local: true, forZones: ["z1"] });
    const other = readyEndpoint("10.244.0.3", { local: true, forZones: ["z2"] });
    assert.deepEqual(verdicts([hinted, other]), everywhere("cluster-masqueraded"));
  });

  it("says nothing where there is no endpoint", () => {
    assert.deepEqual(verdicts([]), { ...everywhere("reject"), "172.30.0.1": "reject" });
  });
});
