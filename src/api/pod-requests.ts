import { milliValue, parseQuantity, value } from "./quantity.ts";
import type { Container, Pod, Quantity } from "./types.gen.ts";

/** Amounts by resource name: `cpu` in millicores, everything else in its unit (bytes, pieces). */
export type Amounts = ReadonlyMap<string, number>;

type ResourceList = Readonly<Record<string, Quantity>> | undefined;

function amount(name: string, text: Quantity): number {
  const quantity = parseQuantity(String(text), name);
  return Number(name === "cpu" ? milliValue(quantity) : value(quantity));
}

/** @throws {ParseError} for an amount that is not a quantity. */
export function amounts(list: ResourceList): Map<string, number> {
  return new Map(Object.entries(list ?? {}).map(([name, value]) => [name, amount(name, value)]));
}

/** Adds `more` to `sum` in place. */
export function addAmounts(sum: Map<string, number>, more: Amounts): void {
  for (const [name, value] of more) sum.set(name, (sum.get(name) ?? 0) + value);
}

function raise(highest: Map<string, number>, candidate: Amounts): void {
  for (const [name, value] of candidate)
    if (value > (highest.get(name) ?? 0)) highest.set(name, value);
}

/** What a container asks for; a limit without a request counts as one, as the API defaults it. */
export function containerRequests({ resources }: Container): Map<string, number> {
  return amounts({ ...resources?.limits, ...resources?.requests });
}

/** What the containers of a pod ask for together, or its init phase if that needs more. */
export function containersRequests(pod: Pod): Map<string, number> {
  return combined(pod, containerRequests);
}

/**
 * What a pod asks of its node: its containers together, or its init phase if that needs more; sidecars (KEP-753) count
 * in both; pod-level requests (KEP-2837) replace the sum; then the overhead.
 */
export function podRequests(pod: Pod): Map<string, number> {
  const total = containersRequests(pod);
  for (const [name, value] of amounts(pod.spec?.resources?.requests)) total.set(name, value);
  addAmounts(total, amounts(pod.spec?.overhead));
  return total;
}

/**
 * What a pod may use at most, of the resources that have limits: combined as in {@link podRequests}, with the overhead
 * only where there is a limit to add it to.
 */
export function podLimits(pod: Pod): Map<string, number> {
  const total = combined(pod, ({ resources }) => amounts(resources?.limits));
  for (const [name, value] of amounts(pod.spec?.resources?.limits)) total.set(name, value);
  for (const [name, value] of amounts(pod.spec?.overhead)) {
    const limit = total.get(name) ?? 0;
    if (limit > 0) total.set(name, limit + value);
  }
  return total;
}

/** The larger of what runs together and of what any step of the initialisation needs. */
function combined(
  pod: Pod,
  of: (container: Container) => Map<string, number>,
): Map<string, number> {
  const total = new Map<string, number>();
  for (const container of pod.spec?.containers ?? []) addAmounts(total, of(container));
  const sidecars = new Map<string, number>();
  const initPeak = new Map<string, number>();
  for (const container of pod.spec?.initContainers ?? []) {
    const own = of(container);
    if (container.restartPolicy === "Always") {
      addAmounts(total, own);
      addAmounts(sidecars, own);
      raise(initPeak, sidecars);
    } else {
      addAmounts(own, sidecars);
      raise(initPeak, own);
    }
  }
  raise(total, initPeak);
  return total;
}
