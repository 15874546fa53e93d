import { isDeepStrictEqual } from "node:util";

import type { Container, ResourceRequirements } from "../../api/types.gen.ts";
import type { ContainerLimits } from "../../runtime/types.ts";
import type { AssignedPod } from "../types.ts";
import { nanoUnits } from "./quantities.ts";
import { cgroupLimits } from "./resources.ts";

/** What the node has granted to each container of a pod, by name; the empty name is the pod as a whole (KEP-1287). */
export type Allocation = ReadonlyMap<string, ResourceRequirements>;

const resizable = ["cpu", "memory"] as const;

function containersOf(pod: AssignedPod): readonly Container[] {
  return [...(pod.spec?.initContainers ?? []), ...(pod.spec?.containers ?? [])];
}

interface Sized {
  readonly name: string;
  readonly resources?: ResourceRequirements | undefined;
}

/** Everything that has resources of its own: the pod where it has some, and its containers. */
function sized(pod: AssignedPod): readonly Sized[] {
  const whole = pod.spec?.resources;
  return [...(whole === undefined ? [] : [{ name: "", resources: whole }]), ...containersOf(pod)];
}

/** What the spec asks for. */
export function wantedAllocation(pod: AssignedPod): Allocation {
  return new Map(sized(pod).map(({ name, resources }) => [name, resources ?? {}]));
}

/** What the status says was granted, for an agent that has just started; the spec where it says nothing. */
export function recordedAllocation(pod: AssignedPod): Allocation {
  const { containerStatuses = [], initContainerStatuses = [] } = pod.status ?? {};
  const granted = new Map(
    [...initContainerStatuses, ...containerStatuses].map(({ name, resources }) => [
      name,
      resources,
    ]),
  );
  granted.set("", pod.status?.resources);
  return new Map(
    [...wantedAllocation(pod)].map(([name, wanted]) => [name, granted.get(name) ?? wanted]),
  );
}

function comparable(resources: ResourceRequirements | undefined): unknown {
  return [resources?.requests, resources?.limits].map((list) =>
    resizable.map((name) => {
      const quantity = list?.[name];
      return quantity === undefined ? undefined : nanoUnits(quantity);
    }),
  );
}

/** Whether the spec asks for other cpu or memory than was granted. */
export function wantsResize(pod: AssignedPod, allocation: Allocation): boolean {
  return sized(pod).some(
    ({ name, resources }) =>
      allocation.has(name) &&
      !isDeepStrictEqual(comparable(resources), comparable(allocation.get(name))),
  );
}

/** The pod with what was granted in place of what is asked for: this is what the node works on. */
export function allocatedPod(pod: AssignedPod, allocation: Allocation | undefined): AssignedPod {
  if (allocation === undefined || !wantsResize(pod, allocation)) return pod;
  const granted = (container: Container): Container => {
    const resources = allocation.get(container.name);
    return resources === undefined ? container : { ...container, resources };
  };
  const { spec } = pod;
  if (spec === undefined) return pod;
  const { initContainers } = spec;
  const whole = allocation.get("");
  return {
    ...pod,
    spec: {
      ...spec,
      ...(whole === undefined ? {} : { resources: whole }),
      containers: spec.containers.map(granted),
      ...(initContainers === undefined ? {} : { initContainers: initContainers.map(granted) }),
    },
  };
}

/** Resources whose limits the engine does not hold yet. Nothing, where it is not known what it holds. */
export function unappliedResources(
  pod: AssignedPod,
  container: Container,
  held: ContainerLimits | undefined,
): readonly ("cpu" | "memory")[] {
  if (held === undefined) return [];
  const wanted = cgroupLimits(pod, container);
  const cpu =
    wanted.cpuShares !== held.cpuShares ||
    (wanted.cpuQuotaMicros !== 0 && wanted.cpuQuotaMicros !== held.cpuQuotaMicros);
  const memory = wanted.memoryLimitBytes !== 0 && wanted.memoryLimitBytes !== held.memoryLimitBytes;
  return [...(cpu ? (["cpu"] as const) : []), ...(memory ? (["memory"] as const) : [])];
}

/** Whether these resources can only change with a restart (API field resizePolicy). */
export function needsRestart(container: Container, changed: readonly string[]): boolean {
  return (container.resizePolicy ?? []).some(
    ({ resourceName, restartPolicy }) =>
      restartPolicy === "RestartContainer" && changed.includes(resourceName),
  );
}

/** The text of a resize Event: what was granted or asked for, as JSON. */
export function resizeMessage(prefix: string, pod: AssignedPod, error = ""): string {
  const list = (containers: readonly Container[] | undefined): unknown =>
    containers?.map(({ name, resources = {} }) => ({ name, resources }));
  const whole = pod.spec?.resources;
  const summary = {
    ...(whole === undefined ? {} : { podResources: whole }),
    initContainers: list(pod.spec?.initContainers),
    containers: list(pod.spec?.containers),
    generation: pod.metadata.generation,
    ...(error === "" ? {} : { error }),
  };
  return `${prefix}: ${JSON.stringify(summary)}`;
}
