import type {
  EventSummary,
  NodeSnapshot,
  PodSummary,
  ServiceSummary,
} from "../../../local/types.ts";

/** How something is doing: shown by a colour, a shape and a word. */
export type Tone = "good" | "busy" | "bad" | "idle";

/** Waiting reasons of a pod that is on its way; every other reason of a pod that is not ready wants a person. */
const onTheWay = new Set([
  "Pending",
  "ContainerCreating",
  "PodInitializing",
  "Running",
  "Terminating",
  "SchedulingGated",
]);

/** Those of this node, and those that no node has where this machine is the whole cluster. */
export function allPods({
  pods,
  unscheduled = [],
}: Pick<NodeSnapshot, "pods" | "unscheduled">): readonly PodSummary[] {
  return [...pods, ...unscheduled];
}

export function podTone({ phase, ready, status }: PodSummary): Tone {
  if (status === "Terminating") return "busy";
  if (phase === "Succeeded") return "idle";
  if (ready) return "good";
  if (phase === "Failed") return "bad";
  return onTheWay.has(status) || /^Init:\d+\/\d+$/.test(status) ? "busy" : "bad";
}

export function serviceTone({ ready, total }: ServiceSummary): Tone {
  if (total === 0) return "idle";
  if (ready === 0) return "bad";
  return ready < total ? "busy" : "good";
}

const ranks: Readonly<Record<Tone, number>> = { bad: 0, busy: 1, good: 2, idle: 3 };

export type PodColumn = "name" | "status" | "ready" | "restarts" | "cpu" | "memory" | "age" | "ip";

export interface PodOrder {
  readonly column: PodColumn;
  readonly descending: boolean;
}

/** Those that want a person first. */
export const usualOrder: PodOrder = { column: "status", descending: false };

function compareText(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

function compareNumbers(a: number | undefined, b: number | undefined): number {
  return (a ?? -1) - (b ?? -1);
}

const byColumn: Readonly<Record<PodColumn, (a: PodSummary, b: PodSummary) => number>> = {
  name: () => 0,
  status: (a, b) => ranks[podTone(a)] - ranks[podTone(b)] || compareText(a.status, b.status),
  ready: (a, b) => a.readyContainers / a.containers - b.readyContainers / b.containers || 0,
  restarts: (a, b) => a.restarts - b.restarts,
  cpu: (a, b) => compareNumbers(a.cpu, b.cpu),
  memory: (a, b) => compareNumbers(a.memory, b.memory),
  // The younger is the smaller age.
  age: (a, b) => compareText(b.created, a.created),
  ip: (a, b) => compareNumbers(addressNumber(a.ip), addressNumber(b.ip)) || compareText(a.ip, b.ip),
};

/** IPv4 in the order of its numbers. */
function addressNumber(ip: string): number {
  const parts = ip.split(".");
  return parts.length === 4 ? parts.reduce((sum, part) => sum * 256 + Number(part), 0) : -1;
}

function compareNames(a: PodSummary, b: PodSummary): number {
  return compareText(a.namespace, b.namespace) || compareText(a.name, b.name);
}

/** In this order; equal ones by namespace and name, so that rows keep their places. */
export function sortPods(pods: readonly PodSummary[], order: PodOrder): readonly PodSummary[] {
  const compare = byColumn[order.column];
  const direction = order.descending ? -1 : 1;
  if (order.column === "name") return pods.toSorted((a, b) => direction * compareNames(a, b));
  return pods.toSorted((a, b) => direction * compare(a, b) || compareNames(a, b));
}

/** What a click on a column's head makes of the order: figures begin with the largest. */
export function clicked(order: PodOrder, column: PodColumn): PodOrder {
  if (order.column === column) return { column, descending: !order.descending };
  return { column, descending: ["restarts", "cpu", "memory"].includes(column) };
}

/** The words of a search: all must be found, in any order, in any case. */
export function wordsOf(search: string): readonly string[] {
  return search
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== "");
}

function hasWords(text: string, words: readonly string[]): boolean {
  const lower = text.toLowerCase();
  return words.every((word) => lower.includes(word));
}

export function matchesPod(pod: PodSummary, words: readonly string[]): boolean {
  return hasWords(
    `${pod.namespace}/${pod.name} ${pod.status} ${pod.phase} ${pod.ip} ${pod.why}`,
    words,
  );
}

/** Also by the pods behind it. */
export function matchesService(service: ServiceSummary, words: readonly string[]): boolean {
  const { clusterIPs, localPods, name, namespace, ports, type } = service;
  return hasWords(
    [`${namespace}/${name}`, type, ...clusterIPs, ...ports, ...localPods].join(" "),
    words,
  );
}

export function matchesEvent(event: EventSummary, words: readonly string[]): boolean {
  return hasWords(`${event.type} ${event.reason} ${event.object} ${event.message}`, words);
}
