import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import type { Affinity, PodAffinityTerm, PodSpec } from "../../../src/api/types.gen.ts";
import type { StoredPod } from "../../../src/controlplane/controllers/shared/pod-state.ts";
import type { FitFailure } from "../../../src/controlplane/scheduler/place-pod.ts";
import { placePod } from "../../../src/controlplane/scheduler/place-pod.ts";
import type { PodInfo } from "../../../src/controlplane/scheduler/pod-info.ts";
import { podInfo } from "../../../src/controlplane/scheduler/pod-info.ts";
import { findPreemption } from "../../../src/controlplane/scheduler/preemption.ts";
import { defaultProfile, profiles } from "../../../src/controlplane/scheduler/profiles.ts";
import type { NodeParts } from "../controlplane-controllers/builders.ts";
import { now, pod } from "../controlplane-controllers/builders.ts";
import type { World } from "./world.ts";
import { snapshot } from "./world.ts";

const app = fc.constantFrom("a", "b", "c");
const zone = fc.constantFrom("x", "y", undefined);

const nodeParts: fc.Arbitrary<Omit<NodeParts, "name">> = fc
  .record({
    zone,
    cpu: fc.integer({ min: 1, max: 4 }),
    pods: fc.integer({ min: 1, max: 4 }),
    tainted: fc.boolean(),
    cordoned: fc.boolean(),
  })
  .map(({ zone: value, cpu, pods, tainted, cordoned }) => ({
    labels: value === undefined ? {} : { zone: value },
    allocatable: { cpu: String(cpu), memory: "8Gi", pods: String(pods) },
    spec: {
      ...(cordoned ? { unschedulable: true } : {}),
      ...(tainted ? { taints: [{ key: "t", effect: "NoSchedule" as const }] } : {}),
    },
  }));

const terms: fc.Arbitrary<PodAffinityTerm[]> = fc
  .array(app, { maxLength: 1 })
  .map((apps) =>
    apps.map((value) => ({ topologyKey: "zone", labelSelector: { matchLabels: { app: value } } })),
  );

interface Shape {
  readonly app: string;
  readonly spec: PodSpec;
}

const shape: fc.Arbitrary<Shape> = fc
  .record({
    app,
    cpu: fc.integer({ min: 0, max: 4 }),
    port: fc.boolean(),
    tolerant: fc.boolean(),
    joins: terms,
    avoids: terms,
    spreads: fc.boolean(),
    priority: fc.integer({ min: 0, max: 3 }),
  })
  .map((each) => {
    const required = "requiredDuringSchedulingIgnoredDuringExecution";
    const affinity: Affinity = {
      podAffinity: { [required]: each.joins },
      podAntiAffinity: { [required]: each.avoids },
    };
    const spec: PodSpec = {
      priority: each.priority,
      affinity,
      tolerations: each.tolerant ? [{ operator: "Exists" }] : [],
      containers: [
        {
          name: "c",
          image: "i",
          resources: { requests: { cpu: String(each.cpu) } },
          ports: each.port ? [{ containerPort: 80, hostPort: 80 }] : [],
        },
      ],
      topologySpreadConstraints: each.spreads
        ? [
            {
              maxSkew: 1,
              topologyKey: "zone",
              whenUnsatisfiable: "DoNotSchedule",
              labelSelector: { matchLabels: { app: each.app } },
            },
          ]
        : [],
    };
    return { app: each.app, spec };
  });

const cluster = fc.record({
  nodes: fc.array(nodeParts, { minLength: 1, maxLength: 4 }),
  pods: fc.array(fc.record({ shape, at: fc.nat() }), { maxLength: 8 }),
  incoming: shape,
  profile: fc.constantFrom(...profiles),
  random: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
});

interface Drawn {
  readonly nodes: readonly Omit<NodeParts, "name">[];
  readonly pods: readonly { readonly shape: Shape; readonly at: number }[];
}

function worldOf({ nodes, pods }: Drawn): World {
  return {
    nodes: nodes.map((each, index) => ({ ...each, name: `n${index}` })),
    pods: pods.map(({ shape: drawn, at }, index) =>
      pod({
        name: `p${index}`,
        labels: { app: drawn.app },
        spec: { ...drawn.spec, nodeName: `n${at % nodes.length}` },
      }),
    ),
  };
}

function wanted(drawn: Shape): StoredPod {
  return pod({ name: "new", labels: { app: drawn.app }, spec: drawn.spec });
}

// The rules once more, in the plainest words, over raw objects: what the plugins must agree with.

interface Plain {
  readonly world: World;
  readonly what: StoredPod;
}

function nodeOf(world: World, name: string | undefined): NodeParts | undefined {
  return world.nodes.find((each) => each.name === name);
}

const zoneOf = (node: NodeParts | undefined): string | undefined => node?.labels?.["zone"];
const appOf = ({ metadata }: StoredPod): string | undefined => metadata.labels?.["app"];
const cpuOf = ({ spec }: StoredPod): number =>
  Number(spec?.containers[0]?.resources?.requests?.["cpu"] ?? 0);
const portsOf = ({ spec }: StoredPod): number => spec?.containers[0]?.ports?.length ?? 0;

function appsOf(what: StoredPod, kind: "podAffinity" | "podAntiAffinity"): (string | undefined)[] {
  const rules = what.spec?.affinity?.[kind]?.requiredDuringSchedulingIgnoredDuringExecution ?? [];
  return rules.map(({ labelSelector }) => labelSelector?.matchLabels?.["app"]);
}

function podsWhere(world: World, test: (node: NodeParts | undefined) => boolean): StoredPod[] {
  return (world.pods ?? []).filter(({ spec }) => test(nodeOf(world, spec?.nodeName)));
}

function opensTo({ what }: Plain, node: NodeParts): boolean {
  const tolerant = (what.spec?.tolerations ?? []).length > 0;
  const closed = node.spec?.unschedulable === true || (node.spec?.taints ?? []).length > 0;
  return tolerant || !closed;
}

function hasRoom({ world, what }: Plain, node: NodeParts): boolean {
  const there = podsWhere(world, (each) => each === node);
  const cpu = there.reduce((sum, each) => sum + cpuOf(each), 0) + cpuOf(what);
  const ports = there.reduce((sum, each) => sum + portsOf(each), 0);
  return (
    (cpuOf(what) === 0 || cpu <= Number(node.allocatable?.["cpu"])) &&
    there.length < Number(node.allocatable?.["pods"]) &&
    (portsOf(what) === 0 || ports === 0)
  );
}

function hasCompany({ world, what }: Plain, node: NodeParts): boolean {
  const [friend] = appsOf(what, "podAffinity");
  const here = zoneOf(node);
  const inZone = here === undefined ? [] : podsWhere(world, (each) => zoneOf(each) === here);
  const enemies = appsOf(what, "podAntiAffinity");
  if (inZone.some((each) => enemies.includes(appOf(each)))) return false;
  if (inZone.some((each) => appsOf(each, "podAntiAffinity").includes(appOf(what)))) return false;
  if (friend === undefined) return true;
  if (here === undefined) return false;
  if (inZone.some((each) => appOf(each) === friend)) return true;
  const anywhere = podsWhere(world, (each) => zoneOf(each) !== undefined);
  return appOf(what) === friend && !anywhere.some((each) => appOf(each) === friend);
}

function isEven({ world, what }: Plain, node: NodeParts): boolean {
  if ((what.spec?.topologySpreadConstraints ?? []).length === 0) return true;
  const here = zoneOf(node);
  if (here === undefined) return false;
  const zones = new Set(world.nodes.map(zoneOf).filter((each) => each !== undefined));
  const copies = [...zones].map(
    (each) =>
      podsWhere(world, (other) => zoneOf(other) === each).filter(
        (other) => appOf(other) === appOf(what),
      ).length + (each === here ? 1 : 0),
  );
  const before = copies.map((count, index) => count - ([...zones][index] === here ? 1 : 0));
  const mine = copies[[...zones].indexOf(here)] ?? 0;
  return mine - Math.min(...before) <= 1;
}

function fits(plain: Plain, node: NodeParts): boolean {
  return (
    opensTo(plain, node) && hasRoom(plain, node) && hasCompany(plain, node) && isEven(plain, node)
  );
}

function failureOf(info: PodInfo, world: World): FitFailure | undefined {
  const turn = { random: () => 0, previous: undefined };
  const result = placePod(info, snapshot(world), defaultProfile, turn);
  return result.kind === "unschedulable" ? result.failure : undefined;
}

describe("over random clusters", () => {
  test("a pod is placed exactly where the rules allow it, by every profile", () => {
    fc.assert(
      fc.property(cluster, ({ incoming, profile, random, ...drawn }) => {
        const world = worldOf(drawn);
        const what = wanted(incoming);
        const allowed = world.nodes.filter((node) => fits({ world, what }, node));
        const turn = { random: () => random, previous: undefined };
        const result = placePod(podInfo(what), snapshot(world), profile, turn);
        if (result.kind === "node") assert.ok(allowed.some(({ name }) => name === result.node));
        else {
          assert.deepEqual(allowed, []);
          assert.ok(result.kind === "unschedulable");
          assert.equal(result.failure.objections.size, world.nodes.length);
        }
      }),
      { numRuns: 3000 },
    );
  });

  test("preemption takes less important pods only, makes the pod fit, and takes none in vain", () => {
    let preemptions = 0;
    fc.assert(
      fc.property(cluster, ({ incoming, random, ...drawn }) => {
        const world = worldOf(drawn);
        const what = wanted(incoming);
        const info = podInfo(what);
        const failure = failureOf(info, world);
        if (failure === undefined) return;
        const context = {
          pod: info,
          snapshot: snapshot(world),
          failure,
          nominated: undefined,
          budgets: [],
          random: () => random,
          now,
        };
        const found = findPreemption(context);
        const without = (gone: ReadonlySet<string>): World => ({
          ...world,
          pods: (world.pods ?? []).filter(({ metadata }) => !gone.has(metadata.name)),
        });
        const fitsOn = (name: string, gone: ReadonlySet<string>): boolean => {
          const after = without(gone);
          const node = nodeOf(after, name);
          return node !== undefined && fits({ world: after, what }, node);
        };
        if (found.kind === "none") {
          // Not even all less important pods of any one node were enough, but for company they may have been.
          for (const { name = "" } of world.nodes) {
            const lower = (world.pods ?? []).filter(
              ({ spec }) => spec?.nodeName === name && (spec.priority ?? 0) < info.priority,
            );
            const gone = new Set(lower.map(({ metadata }) => metadata.name));
            const final = failure.objections.get(name)?.final === true;
            assert.ok(final || !fitsOn(name, gone) || gone.size === 0);
          }
          return;
        }
        preemptions += 1;
        const names = new Set(found.victims.map((each) => each.pod.metadata.name));
        assert.ok(found.victims.every(({ priority }) => priority < info.priority));
        assert.ok(found.victims.every(({ pod: each }) => each.spec?.nodeName === found.node));
        assert.ok(fitsOn(found.node, names));
        for (const each of names) {
          const rest = names.difference(new Set([each]));
          assert.ok(!fitsOn(found.node, rest), `${each} need not leave`);
        }
      }),
      { numRuns: 4000 },
    );
    assert.ok(preemptions > 100, `only ${preemptions} preemptions were seen`);
  });
});
