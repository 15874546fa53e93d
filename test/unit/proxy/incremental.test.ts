import assert from "node:assert/strict";
import { test } from "node:test";

import * as fc from "fast-check";

import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { RulesContext } from "../../../src/proxy/backend.ts";
import { FamilyRules } from "../../../src/proxy/family-rules.ts";
import { NftBackend } from "../../../src/proxy/nftables/backend.ts";
import {
  parseService,
  parseSlice,
  type ServiceView,
  type SliceView,
} from "../../../src/proxy/parse.ts";
import { SliceIndex } from "../../../src/proxy/slice-index.ts";

const node = { name: "here", zone: "", ips: ["192.0.2.1"] };

const testContext: RulesContext = {
  family: "IPv4",
  local: { kind: "cidrs", cidrs: ["10.244.0.0/16"] },
  nodePortIPs: undefined,
  localhostNodePorts: false,
  serviceCIDRs: [],
  mark: 0x4000,
  masqueradeAll: false,
};

function rules(): FamilyRules {
  return new FamilyRules({
    context: testContext,
    backend: new NftBackend({
      context: testContext,
      tableName: "remora-proxy",
      logger: silentLogger,
      clock: systemClock,
    }),
    logger: silentLogger,
  });
}

const serviceChange = fc.record({
  kind: fc.constant("service" as const),
  id: fc.integer({ min: 0, max: 3 }),
  present: fc.boolean(),
  vip: fc.integer({ min: 1, max: 4 }),
  sticky: fc.boolean(),
  local: fc.boolean(),
  externalIP: fc.boolean(),
});
const sliceChange = fc.record({
  kind: fc.constant("slice" as const),
  id: fc.integer({ min: 0, max: 3 }),
  endpoints: fc.array(fc.integer({ min: 2, max: 6 }), { maxLength: 4 }),
  terminating: fc.boolean(),
  here: fc.boolean(),
});

interface World {
  readonly services: Map<string, ServiceView>;
  readonly slices: Map<string, SliceView>;
}

function serviceOf(change: {
  id: number;
  vip: number;
  sticky: boolean;
  local: boolean;
  externalIP: boolean;
}): ServiceView {
  return parseService({
    metadata: {
      namespace: "ns",
      name: `s${change.id}`,
      creationTimestamp: `2026-01-0${change.id + 1}T00:00:00Z`,
    },
    spec: {
      type: "NodePort",
      clusterIP: `172.30.0.${change.vip}`,
      sessionAffinity: change.sticky ? "ClientIP" : "None",
      internalTrafficPolicy: change.local ? "Local" : "Cluster",
      externalTrafficPolicy: change.local ? "Local" : "Cluster",
      externalIPs: change.externalIP ? ["198.51.100.1"] : [],
      ports: [
        { name: "a", port: 80, nodePort: 30_000 + change.id },
        { name: "b", port: 53, protocol: "UDP" },
      ],
    },
  });
}

function sliceOf(change: {
  id: number;
  endpoints: readonly number[];
  terminating: boolean;
  here: boolean;
}): SliceView {
  return parseSlice({
    metadata: {
      namespace: "ns",
      name: `s${change.id}-x`,
      labels: { "kubernetes.io/service-name": `s${change.id}` },
    },
    addressType: "IPv4",
    ports: [
      { name: "a", port: 8080 },
      { name: "b", port: 5353, protocol: "UDP" },
    ],
    endpoints: change.endpoints.map((last) => ({
      addresses: [`10.244.0.${last}`],
      nodeName: change.here ? "here" : "there",
      conditions: { ready: !change.terminating, serving: true, terminating: change.terminating },
    })),
  });
}

function fromScratch(world: World): Map<string, string> {
  const fresh = rules();
  const index = new SliceIndex("here");
  for (const slice of world.slices.values()) index.set(slice);
  for (const [key, service] of world.services) fresh.update(key, service, index, node);
  return fresh.snapshot();
}

test("any sequence of changes ends in the table that the final state gives from scratch", () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(serviceChange, sliceChange), { maxLength: 25 }), (changes) => {
      const world: World = { services: new Map(), slices: new Map() };
      const incremental = rules();
      const index = new SliceIndex("here");
      for (const change of changes) {
        const key = `ns/s${change.id}`;
        if (change.kind === "service") {
          if (change.present) world.services.set(key, serviceOf(change));
          else world.services.delete(key);
        } else {
          const slice = sliceOf(change);
          const previous = world.slices.get(slice.key);
          if (previous !== undefined) index.delete(previous);
          index.set(slice);
          world.slices.set(slice.key, slice);
        }
        incremental.update(key, world.services.get(key), index, node);
      }
      assert.deepEqual(incremental.snapshot(), fromScratch(world));
    }),
    { numRuns: 300 },
  );
});

test("every chain that something goes to exists, and every map that a rule reads", () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(serviceChange, sliceChange), { maxLength: 15 }), (changes) => {
      const world: World = { services: new Map(), slices: new Map() };
      for (const change of changes) {
        if (change.kind === "service") world.services.set(`ns/s${change.id}`, serviceOf(change));
        else world.slices.set(`${change.id}`, sliceOf(change));
      }
      const fresh = rules();
      const index = new SliceIndex("here");
      for (const slice of world.slices.values()) index.set(slice);
      for (const [key, service] of world.services) fresh.update(key, service, index, node);
      const text = fresh.render();
      const chains = new Set(
        [...text.matchAll(/^add chain ip remora-proxy (\S+)/gm)].map((match) => match[1]),
      );
      const containers = new Set(
        [...text.matchAll(/^add (?:map|set) ip remora-proxy (\S+)/gm)].map((match) => match[1]),
      );
      for (const [, chain] of text.matchAll(/(?:goto|jump) ([\w-]+)/g))
        assert.ok(chains.has(chain), chain);
      for (const [, name] of text.matchAll(/@([\w-]+)/g)) assert.ok(containers.has(name), name);
    }),
    { numRuns: 100 },
  );
});

test("two claims on one address and port: the older Service has it, and its end hands over", () => {
  const table = rules();
  const index = new SliceIndex("here");
  const shared = { vip: 1, sticky: false, local: false, externalIP: true };
  const [old, young] = [serviceOf({ ...shared, id: 0 }), serviceOf({ ...shared, id: 1, vip: 2 })];
  index.set(sliceOf({ id: 0, endpoints: [2], terminating: false, here: true }));
  index.set(sliceOf({ id: 1, endpoints: [3, 4], terminating: false, here: true }));
  table.update("ns/s1", young, index, node);
  table.update("ns/s0", old, index, node);
  const id = "e|svc|198.51.100.1 . tcp . 80";
  assert.equal(table.snapshot().get(id), "goto x-c1");
  table.update("ns/s0", undefined, index, node);
  assert.equal(table.snapshot().get(id), "goto x-c2");
});
