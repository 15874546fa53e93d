import type { PodSummary } from "../../local/types.ts";
import { make, mark, part, type Row, Rows, say, show } from "./elements.ts";
import { counted, formatBytes, formatPodCores, formatSince } from "./model/format.ts";
import {
  allPods,
  clicked,
  matchesPod,
  type PodColumn,
  podTone,
  sortPods,
  usualOrder,
} from "./model/pods.ts";
import type { View } from "./view.ts";

interface Column {
  readonly id: PodColumn;
  readonly title: string;
  readonly number: boolean;
}

const columns: readonly Column[] = [
  { id: "name", title: "Pod", number: false },
  { id: "status", title: "Status", number: false },
  { id: "ready", title: "Ready", number: true },
  { id: "restarts", title: "Restarts", number: true },
  { id: "cpu", title: "CPU", number: true },
  { id: "memory", title: "Memory", number: true },
  { id: "age", title: "Age", number: true },
  { id: "ip", title: "Address", number: false },
];

function figure(label: string, kind = "number"): HTMLTableCellElement {
  return make("td", { class: kind, "data-label": label });
}

/** One that says nothing is quiet, and left out where there is little room. */
function sayFigure(cell: HTMLElement, text: string, isNothing: boolean): void {
  say(cell, text);
  mark(cell, "data-nothing", String(isNothing));
}

interface PodRow {
  readonly pod: PodSummary;
  readonly now: number;
}

/** A body of its own for each pod: a line of figures, and one that says what it waits for. */
function createRow(onSearch: (text: string) => void): Row<PodRow> {
  const name = make("button", { type: "button", class: "name" });
  const namespace = make("span", { class: "namespace" });
  const status = make("span", { class: "tone" });
  const ready = figure("Ready");
  const restarts = figure("Restarts");
  const cpu = figure("CPU");
  const memory = figure("Memory");
  const age = figure("Age");
  const ip = figure("Address", "address");
  const why = make("td", { colspan: columns.length });
  const whyRow = make("tr", { class: "why" }, why);
  const element = make(
    "tbody",
    {},
    make(
      "tr",
      {},
      make("th", { scope: "row" }, name, namespace),
      make("td", { class: "status" }, status),
      ready,
      restarts,
      cpu,
      memory,
      age,
      ip,
    ),
    whyRow,
  );
  name.addEventListener("click", () => onSearch(name.textContent ?? ""));
  return {
    element,
    update: ({ now, pod }) => {
      say(name, pod.name);
      mark(name, "title", `Show what concerns ${pod.name}`);
      say(namespace, pod.namespace);
      say(status, pod.status);
      mark(status, "data-tone", podTone(pod));
      say(ready, `${pod.readyContainers}/${pod.containers}`);
      sayFigure(restarts, String(pod.restarts), pod.restarts === 0);
      sayFigure(cpu, pod.cpu === undefined ? "-" : formatPodCores(pod.cpu), pod.cpu === undefined);
      const { memory: bytes } = pod;
      sayFigure(memory, bytes === undefined ? "-" : formatBytes(bytes), bytes === undefined);
      say(age, formatSince(pod.created, now));
      sayFigure(ip, pod.ip === "" ? "-" : pod.ip, pod.ip === "");
      say(why, pod.why);
      show(whyRow, pod.why !== "");
    },
  };
}

/**
 * The table of pods.
 *
 * @param onSearch Called when somebody wants to see what concerns one.
 * @param onChange Called when the page has to be brought up to date.
 */
export function createPodsTable(onSearch: (text: string) => void, onChange: () => void): View {
  const table = part("pods", HTMLTableElement);
  const count = part("pods-count", HTMLElement);
  const empty = part("pods-empty", HTMLElement);
  const troubled = part("pods-troubled", HTMLInputElement);
  const head = part("pods-head", HTMLTableRowElement);
  let order = usualOrder;
  const heads = columns.map(({ id, number, title }) => {
    const button = make("button", { type: "button" }, title);
    button.addEventListener("click", () => {
      order = clicked(order, id);
      onChange();
    });
    return {
      id,
      cell: make("th", { scope: "col", ...(number ? { class: "number" } : {}) }, button),
    };
  });
  head.append(...heads.map(({ cell }) => cell));
  troubled.addEventListener("change", onChange);
  const rows = new Rows<PodRow>(
    table,
    ({ pod }) => pod.uid,
    () => createRow(onSearch),
    table.tHead,
  );
  return ({ snapshot, now, words }) => {
    const all = allPods(snapshot);
    const unready = all.filter((pod) => !["good", "idle"].includes(podTone(pod)));
    const shown = (troubled.checked ? unready : all).filter((pod) => matchesPod(pod, words));
    for (const { cell, id } of heads) {
      const direction = order.descending ? "descending" : "ascending";
      mark(cell, "aria-sort", id === order.column ? direction : "none");
    }
    rows.update(sortPods(shown, order).map((pod) => ({ pod, now })));
    const some = shown.length === all.length ? "" : `${shown.length} of `;
    const nowhere = snapshot.unscheduled?.length ?? 0;
    const notes = [
      ...(unready.length > 0 ? [`${unready.length} not ready`] : []),
      ...(nowhere > 0 ? [`${nowhere} without a node`] : []),
    ];
    say(count, [`${some}${counted(all.length, "pod")}`, ...notes].join(", "));
    show(table, shown.length > 0);
    show(empty, shown.length === 0);
    say(empty, all.length === 0 ? "No pods on this node yet." : emptyText(troubled.checked, words));
  };
}

function emptyText(troubledOnly: boolean, words: readonly string[]): string {
  if (words.length > 0) return "No pod has all of these words.";
  return troubledOnly ? "All pods are ready." : "";
}
