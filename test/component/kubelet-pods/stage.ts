import assert from "node:assert/strict";

import { PODS } from "../../../src/api/resources.ts";
import type {
  Container,
  ContainerStatus,
  Pod,
  PodSpec,
  PodStatus,
  Probe,
} from "../../../src/api/types.gen.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { type Instance, JumpingClock, makeWorld, podManifest, type World } from "./fixture.ts";

/** A container of the image that the node has. */
export function app(name: string, more: Partial<Container> = {}): Container {
  return { name, image: "app:1", imagePullPolicy: "IfNotPresent", ...more };
}

/** One pod on a node whose time is the test's. */
export class Stage {
  readonly world: World;
  readonly clock: JumpingClock;

  agent: Instance;

  constructor(world: World, clock: JumpingClock) {
    this.world = world;
    this.clock = clock;
    this.agent = world.start();
  }

  /** The agent is stopped, and another one begins. */
  async restart(): Promise<void> {
    await this.agent.stop();
    this.agent = this.world.start();
  }

  put(spec: Partial<PodSpec> = {}): void {
    this.world.api.put(PODS, podManifest("web", spec));
  }

  /** A client changes the spec. */
  change(spec: Partial<PodSpec>): void {
    const pod = this.world.pod("web");
    assert(pod?.spec !== undefined);
    this.world.api.put<Pod>(PODS, {
      ...pod,
      metadata: { ...pod.metadata, generation: (pod.metadata.generation ?? 0) + 1 },
      spec: { ...pod.spec, ...spec },
    });
  }

  get status(): PodStatus {
    return this.world.pod("web")?.status ?? {};
  }

  of(name: string): ContainerStatus | undefined {
    const { containerStatuses = [], ephemeralContainerStatuses = [] } = this.status;
    const { initContainerStatuses = [] } = this.status;
    const all = [...initContainerStatuses, ...containerStatuses, ...ephemeralContainerStatuses];
    return all.find((status) => status.name === name);
  }

  starts(name: string): number {
    return this.world.runtime.starts.get(name) ?? 0;
  }

  condition(type: string): string {
    const { conditions = [] } = this.status;
    return conditions.find((condition) => condition.type === type)?.status ?? "";
  }

  calls(verb: string): readonly string[] {
    return this.world.runtime.calls.filter((call) => call.startsWith(verb));
  }

  told(text: string): boolean {
    return this.world.events.some(({ message, reason }) => message === text || reason === text);
  }

  until(what: string, condition: () => boolean): Promise<unknown> {
    return this.world.until(what, condition);
  }

  ready(): Promise<unknown> {
    return this.until("ready", () => this.condition("Ready") === "True");
  }

  /** Enough for a look that nothing was to come of. */
  async pause(): Promise<void> {
    await systemClock.sleep(30, AbortSignal.timeout(1000));
  }
}

/** An exec probe that decides at once. */
export function probe(word: string, more: Partial<Probe> = {}): Probe {
  return { exec: { command: [word] }, periodSeconds: 1, failureThreshold: 1, ...more };
}

/** Runs `work` with an agent that has just begun. */
export async function onStage(work: (stage: Stage) => Promise<void>): Promise<void> {
  const clock = new JumpingClock();
  const world = await makeWorld({ clock });
  try {
    const stage = new Stage(world, clock);
    await work(stage);
  } finally {
    await world.close();
  }
}
