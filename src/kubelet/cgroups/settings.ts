import { amounts, podLimits, podRequests } from "../../api/pod-requests.ts";
import type { Container, Pod } from "../../api/types.gen.ts";
import { wholeUnits } from "../spec/quantities.ts";
import { cpuShares, cpuQuotaMicros, qosClass } from "../spec/resources.ts";

/** What a cgroup is held to. Undefined: no limit. */
export interface CgroupSettings {
  /** cgroup v1 scale, 1024 = one cpu, at least 2. */
  readonly cpuShares: number;
  /** Microseconds of each 100 ms. */
  readonly cpuQuotaMicros: number | undefined;
  readonly memoryLimitBytes: number | undefined;
  readonly pidsLimit: number | undefined;
  /** Bytes by bytes of one page; sizes that are not named are not limited. */
  readonly hugePageLimits: ReadonlyMap<number, number>;
}

const hugePagePrefix = "hugepages-";

/** Bytes of one page by the name of its resource, `hugepages-2Mi`; undefined for other resources. */
export function hugePageSize(resource: string): number | undefined {
  return resource.startsWith(hugePagePrefix)
    ? wholeUnits(resource.slice(hugePagePrefix.length))
    : undefined;
}

/** What of these amounts are huge pages; 0 for each size of the machine that is not asked for. */
function hugePages(
  requests: ReadonlyMap<string, number>,
  sizes: readonly number[],
): ReadonlyMap<number, number> {
  const out = new Map<number, number>(sizes.map((size) => [size, 0]));
  for (const [name, bytes] of requests) {
    const size = hugePageSize(name);
    if (size !== undefined) out.set(size, bytes);
  }
  return out;
}

/** True when every container, or the pod as a whole, has a limit of this resource. */
function isLimited(pod: Pod, name: "cpu" | "memory"): boolean {
  const zero = (quantity: string | number | undefined): boolean =>
    quantity === undefined || Number.parseFloat(String(quantity)) === 0;
  if (!zero(pod.spec?.resources?.limits?.[name])) return true;
  const containers: readonly Container[] = [
    ...(pod.spec?.initContainers ?? []),
    ...(pod.spec?.containers ?? []),
  ];
  return containers.every(({ resources }) => !zero(resources?.limits?.[name]));
}

export interface Machine {
  /** Sizes of huge pages that the kernel knows, bytes. */
  readonly hugePageSizes: readonly number[];
}

/** The pod's cgroup (kubelet's ResourceConfigForPod): it holds all of its containers together, overhead included. */
export function podCgroupSettings(
  pod: Pod,
  { hugePageSizes, podPidsLimit }: Machine & { readonly podPidsLimit: number },
): CgroupSettings {
  const requests = podRequests(pod);
  const limits = podLimits(pod);
  const best = qosClass(pod) === "BestEffort";
  return {
    cpuShares: best ? 2 : cpuShares(requests.get("cpu") ?? 0),
    cpuQuotaMicros:
      !best && isLimited(pod, "cpu") ? cpuQuotaMicros(limits.get("cpu") ?? 0) : undefined,
    memoryLimitBytes: !best && isLimited(pod, "memory") ? limits.get("memory") : undefined,
    pidsLimit: podPidsLimit > 0 ? podPidsLimit : undefined,
    hugePageLimits: hugePages(requests, hugePageSizes),
  };
}

const unlimited = {
  cpuQuotaMicros: undefined,
  memoryLimitBytes: undefined,
  pidsLimit: undefined,
  hugePageLimits: new Map<number, number>(),
} as const;

/** The tier of Burstable pods: as heavy as what they ask for together. */
export function burstableSettings(pods: Iterable<Pod>): CgroupSettings {
  let milli = 0;
  for (const pod of pods) {
    if (qosClass(pod) === "Burstable") milli += podRequests(pod).get("cpu") ?? 0;
  }
  return { ...unlimited, cpuShares: cpuShares(milli) };
}

/** The tier of BestEffort pods gets what nobody else wants. */
export const bestEffortSettings: CgroupSettings = { ...unlimited, cpuShares: 2 };

/** All pods together: the node's capacity without what is reserved. Eviction thresholds are not part of it. */
export function kubepodsSettings(available: {
  readonly cpuMilli: number;
  readonly memoryBytes: number;
}): CgroupSettings {
  return {
    ...unlimited,
    cpuShares: cpuShares(available.cpuMilli),
    memoryLimitBytes: available.memoryBytes,
  };
}

/** Bytes of huge pages that one container may have, for every size of the machine. */
export function containerHugePages(
  container: Container,
  sizes: readonly number[],
): ReadonlyMap<number, number> {
  return hugePages(amounts(container.resources?.limits), sizes);
}
