import assert from "node:assert/strict";
import { describe, it, test } from "node:test";

import * as fc from "fast-check";

import type { IPFamily } from "../../../src/lib/cidr.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { RuleBackend, RulesContext } from "../../../src/proxy/backend.ts";
import { FamilyRules } from "../../../src/proxy/family-rules.ts";
import { NftBackend } from "../../../src/proxy/nftables/backend.ts";
import { DesiredTable } from "../../../src/proxy/nftables/desired-table.ts";
import { serviceLayout } from "../../../src/proxy/nftables/layout.ts";
import {
  parseService,
  parseSlice,
  type ServiceView,
  type SliceView,
} from "../../../src/proxy/parse.ts";
import { SliceIndex } from "../../../src/proxy/slice-index.ts";
import { KernelModel } from "./nftables/kernel-model.ts";

const node = { name: "here", zone: "", ips: ["192.0.2.1"] };

function contextOf(family: IPFamily): RulesContext {
  return {
    family,
    local: { kind: "cidrs", cidrs: [family === "IPv4" ? "10.244.0.0/16" : "fd00:244::/64"] },
    nodePortIPs: undefined,
    localhostNodePorts: false,
    serviceCIDRs: [],
    mark: 0x4000,
    masqueradeAll: false,
  };
}

function rules(): FamilyRules {
  const context = contextOf("IPv4");
  return new FamilyRules({
    context,
    backend: new NftBackend({
      context,
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
  externalLocal: fc.boolean(),
  externalIP: fc.boolean(),
  loadBalancer: fc.boolean(),
  onePort: fc.boolean(),
});
const endpoint = fc.record({
  last: fc.integer({ min: 1, max: 400 }),
  here: fc.boolean(),
  ready: fc.boolean(),
  serving: fc.boolean(),
  terminating: fc.boolean(),
});
const sliceChange = fc.record({
  kind: fc.constant("slice" as const),
  id: fc.integer({ min: 0, max: 3 }),
  part: fc.integer({ min: 0, max: 1 }),
  endpoints: fc.oneof(
    { weight: 4, arbitrary: fc.array(endpoint, { maxLength: 5 }) },
    // Larger ones change by one or two, as in a rolling update: the seed's list, cut.
    {
      weight: 1,
      arbitrary: fc.integer({ min: 280, max: 300 }).map((count) =>
        Array.from({ length: count }, (_, at) => ({
          last: at + 1 + (count % 3),
          here: at % 50 === 0,
          ready: true,
          serving: true,
          terminating: false,
        })),
      ),
    },
  ),
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
  externalLocal?: boolean;
  externalIP: boolean;
  loadBalancer?: boolean;
  onePort?: boolean;
}): ServiceView {
  const { id, vip, loadBalancer = false, onePort = false } = change;
  return parseService({
    metadata: {
      namespace: "ns",
      name: `s${id}`,
      creationTimestamp: `2026-01-0${id + 1}T00:00:00Z`,
    },
    spec: {
      type: loadBalancer ? "LoadBalancer" : "NodePort",
      clusterIP: `172.30.0.${vip}`,
      clusterIPs: [`172.30.0.${vip}`, `fd00:30::${vip}`],
      sessionAffinity: change.sticky ? "ClientIP" : "None",
      internalTrafficPolicy: change.local ? "Local" : "Cluster",
      externalTrafficPolicy: (change.externalLocal ?? change.local) ? "Local" : "Cluster",
      externalIPs: change.externalIP ? ["198.51.100.1", "2001:db8::1"] : [],
      loadBalancerSourceRanges: loadBalancer ? ["203.0.113.0/24", "2001:db8:5::/48"] : [],
      ports: [
        { name: "a", port: 80, nodePort: 30_000 + id },
        ...(onePort ? [] : [{ name: "b", port: 53, protocol: "UDP" }]),
      ],
    },
    status: {
      loadBalancer: {
        ingress: loadBalancer ? [{ ip: "198.51.100.1" }, { ip: "2001:db8::2" }] : [],
      },
    },
  });
}

function sliceOf(
  change: {
    id: number;
    part?: number;
    endpoints: readonly {
      last: number;
      here: boolean;
      ready: boolean;
      serving: boolean;
      terminating: boolean;
    }[];
  },
  family: IPFamily,
): SliceView {
  const { id, part = 0 } = change;
  return parseSlice({
    metadata: {
      namespace: "ns",
      name: `s${id}-${part}-${family.toLowerCase()}`,
      labels: { "kubernetes.io/service-name": `s${id}` },
    },
    addressType: family,
    ports: [
      { name: "a", port: 8080 },
      { name: "b", port: 5353, protocol: "UDP" },
    ],
    endpoints: change.endpoints.map(({ last, here, ready, serving, terminating }) => ({
      addresses: [
        family === "IPv4" ? `10.244.${last >> 8}.${last & 255}` : `fd00:244::${last.toString(16)}`,
      ],
      nodeName: here ? "here" : "there",
      conditions: { ready, serving, terminating },
    })),
  });
}

const usable = { here: true, ready: true, serving: true, terminating: false };

/** Rules of one family over a kernel that is not there. */
class ModelRules {
  readonly #table: DesiredTable;
  readonly kernel = new KernelModel();
  readonly rules: FamilyRules;
  #listing = true;

  constructor(family: IPFamily) {
    const context = contextOf(family);
    const table = new DesiredTable(serviceLayout(context));
    this.#table = table;
    const backend: RuleBackend = {
      mode: "nftables",
      setContext: (changed) => table.setLayout(serviceLayout(changed)),
      set: (key, plan) => table.set(key, plan),
      setHealthPorts: () => undefined,
      conflicts: (key) => table.conflicts(key),
      isClusterIP: (ip) => table.hasClusterIP(ip),
      sync: () => Promise.reject(new Error("not here")),
      distrust: () => undefined,
      concerns: () => false,
      hasGarbage: false,
      render: () => "",
      snapshot: () => table.snapshot(),
    };
    this.rules = new FamilyRules({ context, backend, logger: silentLogger });
  }

  /** Brings the kernel to what is wanted; returns how many elements it took. */
  async sync(): Promise<number> {
    const nothing = { chains: new Map(), containers: new Map() };
    await this.kernel.take(this.#table, this.#listing ? nothing : undefined);
    this.#listing = false;
    return this.kernel.touched;
  }

  collect(): void {
    this.kernel.collect(this.#table);
  }
}

async function fromScratch(world: World, family: IPFamily): Promise<Map<string, string>> {
  const fresh = new ModelRules(family);
  const index = new SliceIndex("here");
  for (const slice of world.slices.values()) index.set(slice);
  for (const [key, service] of world.services) fresh.rules.update(key, service, index, node);
  await fresh.sync();
  return fresh.kernel.contents();
}

const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

describe(`a kernel that followed any sequence of changes (seed ${seed})`, () => {
  for (const family of ["IPv4", "IPv6"] as const) {
    it(`holds what the final state gives from scratch (${family})`, async () => {
      const change = fc.record({
        change: fc.oneof(serviceChange, sliceChange),
        sync: fc.boolean(),
      });
      await fc.assert(
        fc.asyncProperty(fc.array(change, { maxLength: 25 }), async (changes) => {
          const world: World = { services: new Map(), slices: new Map() };
          const incremental = new ModelRules(family);
          const index = new SliceIndex("here");
          for (const { change, sync } of changes) {
            const key = `ns/s${change.id}`;
            if (change.kind === "service") {
              if (change.present) world.services.set(key, serviceOf(change));
              else world.services.delete(key);
            } else {
              const slice = sliceOf(change, family);
              const previous = world.slices.get(slice.key);
              if (previous !== undefined) index.delete(previous);
              index.set(slice);
              world.slices.set(slice.key, slice);
            }
            incremental.rules.update(key, world.services.get(key), index, node);
            if (sync) await incremental.sync();
          }
          await incremental.sync();
          incremental.collect();
          const scratch = await fromScratch(world, family);
          assert.deepEqual(incremental.kernel.contents(), scratch);
        }),
        { numRuns: 150, seed },
      );
    });
  }

  it("took one or three elements for each step of a rolling update of 300 endpoints", async () => {
    const roll = new ModelRules("IPv4");
    const index = new SliceIndex("here");
    const service = serviceOf({ id: 0, vip: 1, sticky: false, local: false, externalIP: false });
    let pods = Array.from({ length: 300 }, (_, at) => at + 1);
    const step = async (next: readonly number[]): Promise<number> => {
      index.set(sliceOf({ id: 0, endpoints: next.map((last) => ({ last, ...usable })) }, "IPv4"));
      roll.rules.update("ns/s0", service, index, node);
      return roll.sync();
    };
    await step(pods);
    // Three frontends (ClusterIP of both ports, node port of one), and each endpoint may ask itself.
    for (let turn = 0; turn < 20; turn += 1) {
      const [first = 0, ...rest] = pods;
      const next = 301 + turn;
      assert.equal(await step([...pods, next]), 3 * 1 + 2);
      pods = [...rest, next];
      assert.equal(await step(pods), 3 * 3 + 2, `without ${first}`);
    }
  });
});

test("every chain that something goes to exists, and every map that a rule reads", () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(serviceChange, sliceChange), { maxLength: 15 }), (changes) => {
      const world: World = { services: new Map(), slices: new Map() };
      for (const change of changes) {
        if (change.kind === "service") world.services.set(`ns/s${change.id}`, serviceOf(change));
        else world.slices.set(`${change.id} ${change.part}`, sliceOf(change, "IPv4"));
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
    { numRuns: 100, seed },
  );
});

test("two claims on one address and port: the older Service has it, and its end hands over", () => {
  const table = rules();
  const index = new SliceIndex("here");
  const shared = { vip: 1, sticky: false, local: false, externalIP: true };
  const [old, young] = [serviceOf({ ...shared, id: 0 }), serviceOf({ ...shared, id: 1, vip: 2 })];
  const pods = (...last: number[]) => last.map((number) => ({ last: number, ...usable }));
  index.set(sliceOf({ id: 0, endpoints: pods(2) }, "IPv4"));
  index.set(sliceOf({ id: 1, endpoints: pods(3, 4) }, "IPv4"));
  table.update("ns/s1", young, index, node);
  table.update("ns/s0", old, index, node);
  const id = "e|svc|198.51.100.1 . tcp . 80";
  assert.equal(table.snapshot().get(id), "goto x-c1");
  table.update("ns/s0", undefined, index, node);
  assert.equal(table.snapshot().get(id), "goto x-c2");
});
