import assert from "node:assert/strict";
import { test } from "node:test";

import * as fc from "fast-check";

import type { Stored } from "../../../src/api/object.ts";
import type { Deployment, ReplicaSet } from "../../../src/api/types.gen.ts";
import { planDeployment } from "../../../src/controlplane/controllers/deployment/plan.ts";
import {
  viewDeployment,
  viewReplicaSet,
} from "../../../src/controlplane/controllers/deployment/view.ts";
import { ago, now } from "./builders.ts";
import { deployment, replicaSet, template } from "./deployment-builders.ts";

/** Pods of this image never become ready. */
const broken = "broken";

interface SimulatedSet {
  object: Stored<ReplicaSet>;
  readonly image: string;
  /** Ready or not, oldest first. */
  pods: boolean[];
}

/** A Deployment with ReplicaSets and pods, all of which move one step at a time in any order. */
class Simulation {
  object: Stored<Deployment>;
  readonly sets: SimulatedSet[] = [];
  #serial = 0;

  constructor(object: Stored<Deployment>, image: string) {
    this.object = object;
    const replicas = object.spec?.replicas ?? 0;
    this.sets.push({
      object: replicaSet("first", { image, replicas, createdAgo: 10_000 }),
      image,
      pods: Array.from({ length: replicas }, () => true),
    });
  }

  rollTo(image: string): void {
    const { metadata, spec } = this.object;
    assert.ok(spec !== undefined);
    this.object = {
      ...this.object,
      metadata: { ...metadata, generation: (metadata.generation ?? 0) + 1 },
      spec: { ...spec, template: template(image) },
    };
  }

  /** The Deployment controller looks once. */
  deploy(): void {
    const plan = planDeployment(
      viewDeployment(this.object),
      this.sets.map(({ object }) => viewReplicaSet(object)),
      { now, hasPods: () => false },
    );
    if (plan.create !== undefined) {
      this.#serial += 1;
      const image = plan.create.spec?.template?.spec?.containers[0]?.image ?? "";
      const name = plan.create.metadata?.name ?? "";
      const created = replicaSet(name, { image, createdAgo: 5000 - this.#serial });
      this.sets.push({
        object: {
          ...created,
          metadata: { ...created.metadata, annotations: plan.create.metadata?.annotations },
          spec: { ...created.spec, replicas: plan.create.spec?.replicas, selector: {} },
        },
        image,
        pods: [],
      });
    }
    for (const update of plan.updates) {
      const set = this.sets.find(({ object }) => object.metadata.uid === update.view.uid);
      assert.ok(set?.object.spec !== undefined);
      const { metadata, spec } = set.object;
      set.object = {
        ...set.object,
        metadata: {
          ...metadata,
          annotations: update.annotations,
          generation: (metadata.generation ?? 0) + 1,
        },
        spec: { ...spec, replicas: update.replicas },
      };
    }
    const { conditions, ...counts } = plan.status;
    this.object = { ...this.object, status: { ...counts, conditions: [...conditions] } };
  }

  /** The ReplicaSet controller brings one set to its size, pods that are not ready going first, and reports. */
  replicate(index: number): void {
    const set = this.sets[index % this.sets.length];
    assert.ok(set !== undefined);
    const wanted = set.object.spec?.replicas ?? 0;
    set.pods = set.pods.toSorted((left, right) => Number(right) - Number(left)).slice(0, wanted);
    while (set.pods.length < wanted) set.pods.push(false);
    const ready = set.pods.filter((each) => each).length;
    set.object = {
      ...set.object,
      status: {
        replicas: set.pods.length,
        readyReplicas: ready,
        availableReplicas: ready,
        terminatingReplicas: 0,
        observedGeneration: set.object.metadata.generation ?? 0,
      },
    };
  }

  /** One pod that can become ready does. Its ReplicaSet does not know yet. */
  ready(index: number): void {
    const candidates = this.sets.filter(
      ({ image, pods }) => image !== broken && pods.includes(false),
    );
    const set = candidates[index % Math.max(1, candidates.length)];
    if (set !== undefined) set.pods[set.pods.indexOf(false)] = true;
  }

  get wantedPods(): number {
    return this.sets.reduce((total, { object }) => total + (object.spec?.replicas ?? 0), 0);
  }

  get available(): number {
    return this.sets.reduce((total, { pods }) => total + pods.filter((each) => each).length, 0);
  }

  get complete(): boolean {
    const image = this.object.spec?.template.spec?.containers[0]?.image;
    const replicas = this.object.spec?.replicas ?? 0;
    const begun = this.sets.some((set) => set.image === image);
    return (
      begun &&
      this.sets.every(
        (set) =>
          set.pods.length === (set.image === image ? replicas : 0) &&
          set.pods.every((each) => each),
      )
    );
  }
}

const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("deploy" as const) }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("replicate" as const), of: fc.nat(7) }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("ready" as const), of: fc.nat(7) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("roll" as const),
      to: fc.constantFrom("v1", "v2", "v3", broken),
    }),
  },
);

const bound = fc.oneof(
  fc.integer({ min: 0, max: 5 }),
  fc.integer({ min: 0, max: 100 }).map((percent) => `${percent}%`),
);

test("a rolling update keeps its bounds whatever happens in whatever order, and comes to its end", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 12 }),
      bound,
      bound,
      fc.array(step, { maxLength: 120 }),
      (replicas, maxSurge, maxUnavailable, steps) => {
        const strategy = {
          type: "RollingUpdate",
          rollingUpdate: { maxSurge, maxUnavailable },
        } as const;
        const simulation = new Simulation(deployment(replicas, { spec: { strategy } }), "v1");
        const view = viewDeployment(simulation.object);
        const most = replicas + view.maxSurge;
        const fewest = replicas - view.maxUnavailable;
        const check = (): void => {
          assert.ok(simulation.wantedPods <= most, `${simulation.wantedPods} pods of ${most}`);
          assert.ok(simulation.available >= fewest, `${simulation.available} of ${fewest}`);
        };
        simulation.rollTo("v2");
        for (const each of steps) {
          if (each.kind === "deploy") simulation.deploy();
          else if (each.kind === "replicate") simulation.replicate(each.of);
          else if (each.kind === "ready") simulation.ready(each.of);
          else simulation.rollTo(each.to);
          check();
        }
        simulation.rollTo("v4");
        for (let round = 0; round < 200 && !simulation.complete; round += 1) {
          simulation.deploy();
          check();
          for (const index of simulation.sets.keys()) {
            simulation.replicate(index);
            simulation.ready(index);
            check();
          }
        }
        assert.ok(simulation.complete, "it never ends");
        for (const index of simulation.sets.keys()) simulation.replicate(index);
        simulation.deploy();
        const condition = simulation.object.status?.conditions?.find(
          ({ type }) => type === "Progressing",
        );
        assert.equal(condition?.reason, "NewReplicaSetAvailable");
        assert.ok(ago(0) >= (condition.lastUpdateTime ?? ""));
      },
    ),
    { numRuns: 300 },
  );
});
