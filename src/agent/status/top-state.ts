import type { EventSummary, NodeSnapshot, PodSummary, ServiceSummary } from "../local/types.ts";
import type { Key } from "./keys.ts";

export const tabs = ["pods", "services", "events"] as const;
export type Tab = (typeof tabs)[number];
export type PodOrder = "cpu" | "memory" | "name" | "restarts";

/** What the person at the keyboard has chosen. */
export interface TopState {
  readonly tab: Tab;
  readonly order: PodOrder;
  /** Shows only what has this in it, in whatever case. */
  readonly filter: string;
  /** The filter is being typed. */
  readonly typing: boolean;
  /** Key of the row; it stays on what it was when rows move. Undefined = the first. */
  readonly selected: string | undefined;
}

export const firstState: TopState = {
  tab: "pods",
  order: "cpu",
  filter: "",
  typing: false,
  selected: undefined,
};

export function podKey({ namespace, name, uid }: PodSummary): string {
  return uid === "" ? `${namespace}/${name}` : uid;
}

function eventKey({ message, object, reason }: EventSummary): string {
  return `${object} ${reason} ${message}`;
}

function serviceKey({ name, namespace }: ServiceSummary): string {
  return `${namespace}/${name}`;
}

function contains(filter: string, ...texts: readonly string[]): boolean {
  const wanted = filter.toLowerCase();
  return texts.some((text) => text.toLowerCase().includes(wanted));
}

type Compare = (a: PodSummary, b: PodSummary) => number;

const byName: Compare = (a, b) => {
  if (a.namespace !== b.namespace) return a.namespace < b.namespace ? -1 : 1;
  if (a.name === b.name) return 0;
  return a.name < b.name ? -1 : 1;
};

const orders: Readonly<Record<PodOrder, Compare>> = {
  cpu: (a, b) => (b.cpu ?? -1) - (a.cpu ?? -1),
  memory: (a, b) => (b.memory ?? -1) - (a.memory ?? -1),
  restarts: (a, b) => b.restarts - a.restarts,
  name: byName,
};

/** The pods to show, in the order chosen; equal ones by name, so that they stay where they are. */
export function shownPods(
  { pods, unscheduled = [] }: Pick<NodeSnapshot, "pods" | "unscheduled">,
  { filter, order }: Pick<TopState, "filter" | "order">,
): readonly PodSummary[] {
  return [...pods, ...unscheduled]
    .filter(({ name, namespace, status }) => contains(filter, `${namespace}/${name}`, status))
    .toSorted((a, b) => orders[order](a, b) || byName(a, b));
}

/** The Services to show: those that nobody answers for first. */
export function shownServices(
  { services }: Pick<NodeSnapshot, "services">,
  { filter }: Pick<TopState, "filter">,
): readonly ServiceSummary[] {
  const isDead = ({ ready, total }: ServiceSummary): number => (total > 0 && ready === 0 ? 0 : 1);
  return services.list
    .filter(({ name, namespace, type }) => contains(filter, `${namespace}/${name}`, type))
    .toSorted((a, b) => isDead(a) - isDead(b) || (serviceKey(a) < serviceKey(b) ? -1 : 1));
}

/** The events to show, the newest first. */
export function shownEvents(
  { events }: Pick<NodeSnapshot, "events">,
  { filter }: Pick<TopState, "filter">,
): readonly EventSummary[] {
  return events
    .filter(({ message, object, reason }) => contains(filter, object, reason, message))
    .toReversed();
}

/** Keys of the rows of the tab that is open, in their order. */
export function rowKeys(snapshot: NodeSnapshot, state: TopState): readonly string[] {
  switch (state.tab) {
    case "pods":
      return shownPods(snapshot, state).map(podKey);
    case "services":
      return shownServices(snapshot, state).map(serviceKey);
    case "events":
      return shownEvents(snapshot, state).map(eventKey);
  }
}

/** Where the chosen row is now; 0 when it has gone. */
export function selectedIndex(keys: readonly string[], { selected }: TopState): number {
  return Math.max(selected === undefined ? 0 : keys.indexOf(selected), 0);
}

const orderKeys: ReadonlyMap<Key, PodOrder> = new Map([
  ["c", "cpu"],
  ["m", "memory"],
  ["n", "name"],
  ["r", "restarts"],
]);
const maxFilter = 100;

function typed(state: TopState, key: Key): TopState | undefined {
  const { filter } = state;
  switch (key) {
    case "ctrl-c":
      return undefined;
    case "escape":
      return { ...state, filter: "", typing: false };
    case "enter":
      return { ...state, typing: false };
    case "backspace":
      return filter === ""
        ? { ...state, typing: false }
        : { ...state, filter: filter.replace(/.$/su, "") };
    case "ctrl-u":
      return { ...state, filter: "" };
    default:
      return /^.$/su.test(key) && filter.length < maxFilter
        ? { ...state, filter: filter + key }
        : state;
  }
}

function moved(state: TopState, by: number, snapshot: NodeSnapshot): TopState {
  const keys = rowKeys(snapshot, state);
  const index = selectedIndex(keys, state) + by;
  return { ...state, selected: keys[Math.min(Math.max(index, 0), keys.length - 1)] };
}

function turned(state: TopState, by: number): TopState {
  const index = (tabs.indexOf(state.tab) + by + tabs.length) % tabs.length;
  return { ...state, tab: tabs[index] ?? "pods", selected: undefined };
}

/** Far further than any list is long. */
const all = 1_000_000;

/** How far a key moves, as a multiple of a page or in rows. */
const moves: ReadonlyMap<Key, (page: number) => number> = new Map([
  ["down", () => 1],
  ["j", () => 1],
  ["up", () => -1],
  ["k", () => -1],
  ["pagedown", (page: number) => page],
  [" ", (page: number) => page],
  ["pageup", (page: number) => -page],
  ["home", () => -all],
  ["g", () => -all],
  ["end", () => all],
  ["G", () => all],
]);
const turns: ReadonlyMap<Key, number> = new Map([
  ["tab", 1],
  ["right", 1],
  ["l", 1],
  ["shift-tab", -1],
  ["left", -1],
  ["h", -1],
]);
const quits: ReadonlySet<Key> = new Set(["q", "ctrl-c", "ctrl-d"]);

/**
 * What a key makes of the state. Pure.
 *
 * @param page Rows that are shown at once.
 * @returns Undefined when it ends the view.
 */
export function pressed(
  state: TopState,
  key: Key,
  snapshot: NodeSnapshot,
  page: number,
): TopState | undefined {
  if (state.typing) return typed(state, key);
  if (quits.has(key)) return undefined;
  const order = orderKeys.get(key);
  if (order !== undefined) return { ...state, order, selected: undefined };
  const turn = turns.get(key);
  if (turn !== undefined) return turned(state, turn);
  const move = moves.get(key);
  if (move !== undefined) return moved(state, move(page), snapshot);
  const tab = /^[1-3]$/.test(key) ? tabs[Number(key) - 1] : undefined;
  if (tab !== undefined) return { ...state, tab, selected: undefined };
  if (key === "escape") return { ...state, filter: "" };
  return key === "/" ? { ...state, typing: true } : state;
}
