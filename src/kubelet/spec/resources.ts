import { containerRequests, containersRequests } from "../../api/pod-requests.ts";
import type { Container, Pod, ResourceRequirements } from "../../api/types.gen.ts";
import type { ContainerLimits, LinuxResources } from "../../runtime/types.ts";
import { allContainers, isSidecar } from "./containers.ts";
import { milliUnits, nanoUnits, wholeUnits } from "./quantities.ts";

export type QosClass = "Guaranteed" | "Burstable" | "BestEffort";

function isPositive(quantity: string | number | undefined): boolean {
  return quantity !== undefined && nanoUnits(quantity) > 0n;
}

/** The parts of a pod whose cpu and memory decide its class: pod level resources where set, else every container. */
function qosSources(pod: Pod): readonly (ResourceRequirements | undefined)[] {
  const podLevel = pod.spec?.resources;
  if (podLevel?.limits !== undefined || podLevel?.requests !== undefined) return [podLevel];
  const containers = [...(pod.spec?.initContainers ?? []), ...(pod.spec?.containers ?? [])];
  return containers.map((container) => container.resources);
}

function isGuaranteed(resources: ResourceRequirements | undefined, name: string): boolean {
  const limit = resources?.limits?.[name];
  const request = resources?.requests?.[name] ?? limit;
  if (limit === undefined || request === undefined || !isPositive(limit)) return false;
  return nanoUnits(request) === nanoUnits(limit);
}

/** The pod's quality of service class, from cpu and memory of all init and regular containers. */
export function qosClass(pod: Pod): QosClass {
  const names = ["cpu", "memory"];
  const sources = qosSources(pod);
  const any = sources.some((resources) =>
    names.some(
      (name) => isPositive(resources?.requests?.[name]) || isPositive(resources?.limits?.[name]),
    ),
  );
  if (!any) return "BestEffort";
  const all = sources.every((resources) => names.every((name) => isGuaranteed(resources, name)));
  return all ? "Guaranteed" : "Burstable";
}

/** Shares from thousandths of a cpu (cgroup v1 scale). */
export function cpuShares(milli: number): number {
  return Math.min(Math.max(Math.floor((milli * 1024) / 1000), 2), 262_144);
}

const cpuPeriodMicros = 100_000;

/** Microseconds of each 100 ms from thousandths of a cpu; 0 = no limit. */
export function cpuQuotaMicros(milliLimit: number): number {
  return milliLimit === 0 ? 0 : Math.max(Math.floor((milliLimit * cpuPeriodMicros) / 1000), 1000);
}

/** Bytes for each container of what the pod asks for and no container does (KEP-2837). */
function spareMemory(pod: Pod): number {
  const shared = pod.spec?.resources?.requests?.["memory"];
  if (shared === undefined) return 0;
  const { containers = [], initContainers = [] } = pod.spec ?? {};
  const own = containersRequests(pod).get("memory") ?? 0;
  const count = Math.max(containers.length + initContainers.length, 1);
  return Math.floor((wholeUnits(shared) - own) / count);
}

function oomScoreOf(pod: Pod, container: Container, nodeMemoryBytes: number): number {
  const quality = qosClass(pod);
  if (quality === "Guaranteed" || pod.spec?.priorityClassName === "system-node-critical") {
    return -997;
  }
  if (quality === "BestEffort") return 1000;
  const request = (containerRequests(container).get("memory") ?? 0) + spareMemory(pod);
  const score = 1000 - Math.floor((1000 * request) / Math.max(nodeMemoryBytes, 1));
  if (score < 3) return 3;
  return score >= 1000 ? 999 : score;
}

/** The `oom_score_adj` of one container; a sidecar is never killed before the regular containers it serves. */
export function oomScoreAdj(pod: Pod, container: Container, nodeMemoryBytes: number): number {
  const own = oomScoreOf(pod, container, nodeMemoryBytes);
  const sidecar = (pod.spec?.initContainers ?? []).some(
    (other) => other.name === container.name && isSidecar(other),
  );
  if (!sidecar) return own;
  const regular = (pod.spec?.containers ?? []).map((other) =>
    oomScoreOf(pod, other, nodeMemoryBytes),
  );
  return Math.min(own, ...regular);
}

/** A container without a limit of its own is held to that of its pod (KEP-2837). */
function limitsOf(pod: Pod, container: Container): ResourceRequirements["limits"] {
  const shared = pod.spec?.resources?.limits;
  return shared === undefined
    ? container.resources?.limits
    : { ...shared, ...container.resources?.limits };
}

/** The settings of one container that may change while it runs. */
export function cgroupLimits(pod: Pod, container: Container): ContainerLimits {
  const requests = container.resources?.requests;
  const limits = limitsOf(pod, container);
  const milliLimit = limits?.["cpu"] === undefined ? 0 : milliUnits(limits["cpu"]);
  const milliRequest = requests?.["cpu"] === undefined ? milliLimit : milliUnits(requests["cpu"]);
  return {
    cpuShares: cpuShares(milliRequest),
    cpuQuotaMicros: cpuQuotaMicros(milliLimit),
    memoryLimitBytes: limits?.["memory"] === undefined ? 0 : wholeUnits(limits["memory"]),
  };
}

/** Cgroup settings of one container. */
export function linuxResources(
  pod: Pod,
  container: Container,
  node: { readonly memoryBytes: number; readonly podPidsLimit: number },
): LinuxResources {
  return {
    ...cgroupLimits(pod, container),
    cpuPeriodMicros,
    oomScoreAdj: oomScoreAdj(pod, container, node.memoryBytes),
    pidsLimit: Math.max(node.podPidsLimit, 0),
  };
}

/** The sum that the pod's memory-backed volumes may take, 0 when some container has no limit. */
export function podMemoryLimitBytes(pod: Pod): number {
  const podLimit = pod.spec?.resources?.limits?.["memory"];
  if (podLimit !== undefined) return wholeUnits(podLimit);
  let total = 0;
  for (const { container, role } of allContainers(pod)) {
    if (role === "init" || role === "ephemeral") continue;
    const limit = container.resources?.limits?.["memory"];
    if (limit === undefined) return 0;
    total += wholeUnits(limit);
  }
  return total;
}
