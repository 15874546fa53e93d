import type { EventSummary, NodeSnapshot, PodSummary, ServiceSummary } from "../local/types.ts";
import {
  bar,
  type Cell,
  type Column,
  columnWidths,
  cutLine,
  type Glyphs,
  type Line,
  lineWidth,
  span,
  type Span,
  tableLine,
} from "./lines.ts";
import { nodeLines, pullLines, statusStyle, usageLines, type ViewOptions } from "./status-view.ts";
import { cutMiddle, pad, plain, wrap } from "./text.ts";
import {
  firstState,
  rowKeys,
  selectedIndex,
  shownEvents,
  shownPods,
  shownServices,
  tabs,
  type TopState,
} from "./top-state.ts";
import { bytes, cores, counted, shareOf, since } from "./words.ts";

/** A screen, and how many rows of the list it shows. */
export interface TopScreen {
  readonly lines: readonly Line[];
  readonly page: number;
}

interface Table {
  readonly columns: readonly Column[];
  readonly rows: readonly (readonly Cell[])[];
}

const miniBar = 6;

const podColumns: readonly Column[] = [
  { title: "NAMESPACE", grow: 1, max: 24, drop: 3 },
  { title: "POD", grow: 2 },
  { title: "READY", align: "right", drop: 2 },
  { title: "STATUS", max: 22 },
  { title: "RESTARTS", align: "right", drop: 4 },
  { title: "CPU", align: "right" },
  { title: "", drop: 5 },
  { title: "MEMORY", align: "right", drop: 1 },
  { title: "AGE", align: "right", drop: 4 },
  { title: "IP", drop: 6 },
];

/** What a row needs besides what it is about. */
interface Around {
  readonly now: number;
  readonly glyphs: Glyphs;
  readonly cpuCapacity: number;
}

function barText(share: number, glyphs: Glyphs): string {
  // A share of the machine that rounds to nothing is none.
  return bar(share < 0.005 ? 0 : share, miniBar, glyphs)
    .map(({ text }) => text)
    .join("");
}

function podCells(pod: PodSummary, around: Around): readonly Cell[] {
  const { containers, cpu, created, ip, memory, name, namespace, readyContainers, restarts } = pod;
  return [
    { text: plain(namespace), style: "dim", cut: cutMiddle },
    { text: plain(name), cut: cutMiddle },
    { text: `${readyContainers}/${containers}` },
    { text: plain(pod.status), style: statusStyle(pod) },
    { text: String(restarts), ...(restarts === 0 ? {} : { style: "warn" as const }) },
    { text: cpu === undefined ? "" : cores(cpu) },
    { text: cpu === undefined ? "" : barText(shareOf(cpu, around.cpuCapacity), around.glyphs) },
    { text: memory === undefined ? "" : bytes(memory) },
    { text: since(created, around.now) },
    { text: plain(ip), style: "dim" },
  ];
}

const serviceColumns: readonly Column[] = [
  { title: "NAMESPACE", grow: 1, max: 24, drop: 3 },
  { title: "SERVICE", grow: 2 },
  { title: "TYPE", drop: 4 },
  { title: "ADDRESS", grow: 3, max: 40, drop: 1 },
  { title: "PORTS", grow: 2, max: 40, drop: 2 },
  { title: "READY", align: "right" },
  { title: "PODS HERE", grow: 1, drop: 5 },
];

function serviceCells(service: ServiceSummary): readonly Cell[] {
  const { clusterIPs, localPods, name, namespace, ports, ready, total, type } = service;
  const style = total === 0 ? "dim" : ready === 0 ? "bad" : ready < total ? "warn" : "good";
  return [
    { text: plain(namespace), style: "dim", cut: cutMiddle },
    { text: plain(name), cut: cutMiddle },
    { text: plain(type), style: "dim" },
    { text: plain(clusterIPs.join(",")) },
    { text: plain(ports.join(",")) },
    { text: `${ready}/${total}`, style },
    {
      text: plain(localPods.map((pod) => pod.slice(pod.indexOf("/") + 1)).join(", ")),
      style: "dim",
    },
  ];
}

const eventColumns: readonly Column[] = [
  { title: "AGE", align: "right" },
  { title: "COUNT", align: "right", drop: 2 },
  { title: "OBJECT", grow: 2 },
  { title: "REASON", max: 22 },
  { title: "MESSAGE", grow: 1, drop: 1 },
];

function eventCells(event: EventSummary, now: number): readonly Cell[] {
  const { count, message, object, reason, time, type } = event;
  return [
    { text: since(time, now), style: "dim" },
    { text: count === 1 ? "" : `${count}`, style: "dim" },
    { text: plain(object), cut: cutMiddle },
    { text: plain(reason), style: type === "Warning" ? "warn" : "plain" },
    { text: plain(message) },
  ];
}

function tableOf(snapshot: NodeSnapshot, state: TopState, { glyphs, now }: ViewOptions): Table {
  switch (state.tab) {
    case "pods":
      return {
        columns: podColumns,
        rows: shownPods(snapshot, state).map((pod) => {
          const { cpuCapacity } = snapshot.usage;
          return podCells(pod, { now, glyphs, cpuCapacity });
        }),
      };
    case "services":
      return {
        columns: serviceColumns,
        rows: shownServices(snapshot, state).map((service) => serviceCells(service)),
      };
    case "events":
      return {
        columns: eventColumns,
        rows: shownEvents(snapshot, state).map((event) => eventCells(event, now)),
      };
  }
}

/** What is said of the row that is chosen, below the list. */
function detailOf(snapshot: NodeSnapshot, state: TopState, index: number): string {
  switch (state.tab) {
    case "pods": {
      const pod = shownPods(snapshot, state)[index];
      return pod === undefined ? "" : plain(pod.why);
    }
    case "services": {
      const service = shownServices(snapshot, state)[index];
      if (service === undefined) return "";
      const { localPods, ready, total } = service;
      if (total === 0) return "no endpoints: no pod has its labels and an address";
      const here = localPods.length === 0 ? "none of them here" : `here: ${localPods.join(", ")}`;
      return plain(`${ready} of ${counted(total, "endpoint")} ready; ${here}`);
    }
    case "events": {
      const event = shownEvents(snapshot, state)[index];
      return event === undefined ? "" : plain(event.message);
    }
  }
}

function tabLine(snapshot: NodeSnapshot, state: TopState, columns: number): Line {
  const sizes = {
    pods: snapshot.pods.length + (snapshot.unscheduled?.length ?? 0),
    services: snapshot.services.services,
    events: snapshot.events.length,
  };
  const pieces: Span[] = tabs.flatMap((tab, index) => [
    span(` ${index + 1} ${tab} ${sizes[tab]} `, tab === state.tab ? "inverse" : "plain"),
    span(" "),
  ]);
  if (state.typing || state.filter !== "") {
    pieces.push(span(`/${plain(state.filter)}`, "accent"), span(state.typing ? "_ " : " "));
  }
  const right = state.tab === "pods" ? `by ${state.order}` : "";
  const gap = columns - lineWidth(pieces) - right.length;
  if (gap > 0) pieces.push(span(" ".repeat(gap)), span(right, "dim"));
  return pieces;
}

/** Two lines side by side, where both have room. */
function beside(left: Line, right: Line, columns: number): readonly Line[] {
  const half = Math.floor(columns / 2);
  if (lineWidth(left) > half - 2 || lineWidth(right) > half) return [left, right];
  return [[...left, span(" ".repeat(half - lineWidth(left))), ...right]];
}

/** The head, as much of it as leaves the list half of the screen. */
function headLines(snapshot: NodeSnapshot, options: ViewOptions): readonly Line[] {
  const { columns, rows } = options;
  const [first = [], ...more] = nodeLines(snapshot, options);
  const [cpu = [], memory = [], disk = [], network = []] = usageLines(snapshot, options);
  const gauges = [...beside(cpu, memory, columns), ...beside(disk, network, columns)];
  const pulls = pullLines(snapshot, options);
  const room = Math.max(Math.floor(rows / 2) - 1, 1);
  // What is most wanted in a small window comes first when there is too little room, and in its place when there is enough.
  const urgent = snapshot.node.ready ? [] : more;
  const calm = snapshot.node.ready ? more : [];
  const lines: Line[] = [first];
  for (const each of [...urgent, ...gauges, ...pulls.slice(0, 4), ...calm])
    if (lines.length < room) lines.push(each);
  return lines;
}

const help: readonly (readonly [string, string])[] = [
  ["q", "quit"],
  ["tab", "next list"],
  ["j k", "move"],
  ["c m n r", "sort"],
  ["/", "filter"],
];

function helpLine(): Line {
  return help.flatMap(([key, what]) => [span(key, "bold"), span(` ${what}  `, "dim")]);
}

function inverted(pieces: Line, width: number): Line {
  const text = pieces.map((each) => each.text).join("");
  return [span(pad(text, width), "inverse")];
}

/** Which rows are shown: so that the chosen one is, in the middle where that is possible. */
export function firstShown(index: number, count: number, page: number): number {
  return Math.max(Math.min(index - Math.floor(page / 2), count - page), 0);
}

/** `remora top`: a screen of exactly `rows` lines at most. Pure. */
export function topScreen(
  snapshot: NodeSnapshot,
  state: TopState,
  options: ViewOptions,
): TopScreen {
  const { columns, glyphs, rows } = options;
  const head = headLines(snapshot, options);
  const { columns: table, rows: cells } = tableOf(snapshot, state, options);
  const index = selectedIndex(rowKeys(snapshot, state), state);
  const detail = wrap(detailOf(snapshot, state, index), columns - 2, 2, glyphs.ellipsis);
  // Always two lines, so that the list does not jump with what is chosen.
  const footer =
    rows < 12 ? [] : [0, 1].map((at): Line => [span(`  ${detail[at] ?? ""}`, "accent")]);
  // The tabs, the titles and the help.
  const page = Math.max(rows - head.length - footer.length - 3, 1);
  const from = firstShown(index, cells.length, page);
  const shown = cells.slice(from, from + page);
  const widths = columnWidths(table, shown, columns, true);
  const titles = table.map(({ title }) => ({ text: title }));
  const list = shown.map((row, at): Line => {
    const drawn = tableLine(row, table, widths, glyphs);
    return from + at === index ? inverted(drawn, columns) : drawn;
  });
  if (list.length === 0) {
    const nothing = state.filter === "" ? `no ${state.tab}` : `no ${state.tab} with that in them`;
    list.push([span(`  ${nothing}`, "dim")]);
  }
  while (list.length < page) list.push([]);
  const lines = [
    ...head,
    tabLine(snapshot, state, columns),
    tableLine(titles, table, widths, glyphs).map(({ text }) => span(text, "bold")),
    ...list,
    ...footer,
    helpLine(),
  ];
  return {
    lines: lines.slice(0, rows).map((each) => cutLine(each, columns, glyphs.ellipsis)),
    page,
  };
}

/** The same as a report, for files and pipes: the machine and all its pods. Pure. */
export function topReport(
  snapshot: NodeSnapshot,
  state: Pick<TopState, "order">,
  options: ViewOptions,
): readonly Line[] {
  const { columns, glyphs } = options;
  const { rows: cells } = tableOf(snapshot, { ...firstState, ...state }, options);
  const widths = columnWidths(podColumns, cells, columns, true);
  const titles = podColumns.map(({ title }) => ({ text: title }));
  return [
    ...nodeLines(snapshot, options),
    ...usageLines(snapshot, options),
    [],
    tableLine(titles, podColumns, widths, glyphs),
    ...cells.map((row) => tableLine(row, podColumns, widths, glyphs)),
  ];
}
