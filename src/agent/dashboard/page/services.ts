import type { PodSummary, ServiceSummary } from "../../local/types.ts";
import { draw, make, mark, part, type Row, Rows, say, show } from "./elements.ts";
import { counted } from "./model/format.ts";
import { curve, type Graph, keyOf, layOut } from "./model/graph.ts";
import { matchesService, podTone, serviceTone, type Tone } from "./model/pods.ts";
import type { View } from "./view.ts";

const rowHeight = 34;
const boxHeight = 26;

interface Box {
  readonly key: string;
  readonly side: "service" | "pod";
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly tone: Tone;
  readonly note: string;
}

/** Of a letter on average, in a wide font. */
const letterWidth = 7.6;

/** As many characters as fit; the whole name is in the title. */
function shortened(text: string, room: number): string {
  const most = Math.max(Math.floor(room / letterWidth), 4);
  return text.length <= most
    ? text
    : `${text.slice(0, Math.ceil(most / 2) - 1)}…${text.slice(-Math.floor(most / 2))}`;
}

function nameOf(key: string): string {
  return key.slice(key.indexOf("/") + 1);
}

/** By its shape too: not everybody tells red from green. */
function drawState(tone: Tone, x: number, y: number): SVGElement {
  const look = { class: "state", "data-tone": tone };
  if (tone === "bad") return draw("path", { ...look, d: `M${x} ${y - 5}l5 5l-5 5l-5 -5Z` });
  return draw("circle", { ...look, cx: x, cy: y, r: { good: 4, busy: 3, idle: 3 }[tone] });
}

function drawBox(box: Box, onSearch: (text: string) => void): SVGGElement {
  const { key, note, side, tone, width, x, y } = box;
  const top = y - boxHeight / 2;
  const noteRoom = note === "" ? 0 : note.length * letterWidth + 8;
  const group = draw(
    "g",
    {
      class: `box ${side}`,
      tabindex: 0,
      role: "button",
      "data-key": `${side}:${key}`,
      "aria-label": `${side} ${key}${note === "" ? "" : `, ${note} ready`}`,
    },
    draw("title", {}, key),
    draw("rect", { x, y: top, width, height: boxHeight, rx: 6 }),
    drawState(tone, x + 13, y),
    draw("text", { x: x + 24, y: y + 4 }, shortened(nameOf(key), width - 34 - noteRoom)),
  );
  if (note !== "") {
    group.append(
      draw("text", { class: "note", x: x + width - 10, y: y + 4, "text-anchor": "end" }, note),
    );
  }
  group.addEventListener("click", () => onSearch(nameOf(key)));
  group.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    onSearch(nameOf(key));
  });
  return group;
}

function drawGraph(graph: Graph, width: number, onSearch: (text: string) => void): SVGSVGElement {
  const column = Math.min(Math.round(width * 0.4), 320);
  const right = width - column;
  const edges = graph.edges.map(({ from, pod, service, to }) =>
    draw("path", {
      class: "edge",
      d: curve(column, from, right, to),
      "data-from": `service:${service}`,
      "data-to": `pod:${pod}`,
    }),
  );
  const services = graph.services.map(({ key, service, y }) =>
    drawBox(
      {
        key,
        side: "service",
        x: 0.5,
        y,
        width: column - 1,
        tone: serviceTone(service),
        note: `${service.ready}/${service.total}`,
      },
      onSearch,
    ),
  );
  const pods = graph.pods.map(({ key, pod, y }) =>
    drawBox(
      {
        key,
        side: "pod",
        x: right + 0.5,
        y,
        width: column - 1,
        tone: pod === undefined ? "idle" : podTone(pod),
        note: "",
      },
      onSearch,
    ),
  );
  const svg = draw(
    "svg",
    { class: "graph", width, height: graph.height, viewBox: `0 0 ${width} ${graph.height}` },
    draw("g", { class: "edges" }, ...edges),
    ...services,
    ...pods,
  );
  highlight(svg);
  return svg;
}

/** The neighbours of what the pointer or the focus is at stand out. */
function highlight(svg: SVGSVGElement): void {
  const edges = [...svg.querySelectorAll<SVGPathElement>(".edge")];
  const boxes = [...svg.querySelectorAll<SVGGElement>(".box")];
  const look = (target: EventTarget | null): void => {
    const key =
      target instanceof Element ? target.closest<SVGGElement>(".box")?.dataset["key"] : undefined;
    const lit = new Set<string | undefined>([key]);
    for (const edge of edges) {
      const { from, to } = edge.dataset;
      const on = key !== undefined && (from === key || to === key);
      edge.classList.toggle("lit", on);
      if (on) lit.add(from).add(to);
    }
    svg.classList.toggle("looking", key !== undefined);
    for (const box of boxes) box.classList.toggle("lit", lit.has(box.dataset["key"]));
  };
  svg.addEventListener("pointerover", ({ target }) => look(target));
  svg.addEventListener("pointerleave", () => look(null));
  svg.addEventListener("focusin", ({ target }) => look(target));
  svg.addEventListener("focusout", () => look(null));
}

function createRow(): Row<ServiceSummary> {
  const namespace = make("span", { class: "namespace" });
  const name = make("span", { class: "name" });
  const type = make("td", { "data-label": "Type" });
  const addresses = make("td", { class: "address", "data-label": "Addresses" });
  const ports = make("td", { "data-label": "Ports" });
  const ready = make("span", { class: "tone" });
  const here = make("td", { class: "number", "data-label": "Here" });
  return {
    element: make(
      "tr",
      {},
      make("th", { scope: "row" }, name, namespace),
      type,
      addresses,
      ports,
      make("td", { class: "number", "data-label": "Ready" }, ready),
      here,
    ),
    update: (service) => {
      say(namespace, service.namespace);
      say(name, service.name);
      say(type, service.type);
      say(addresses, service.clusterIPs.join(", ") || "-");
      say(ports, service.ports.join(", ") || "-");
      say(ready, `${service.ready}/${service.total}`);
      mark(ready, "data-tone", serviceTone(service));
      say(here, String(service.localPods.length));
    },
  };
}

/** What a graph looks like depends on nothing else. */
function signature(graph: Graph, width: number): string {
  return JSON.stringify([
    width,
    graph.services.map(({ key, service, y }) => [key, y, service.ready, service.total]),
    graph.pods.map(({ key, pod, y }) => [key, y, pod === undefined ? "" : podTone(pod)]),
    graph.edges.map(({ pod, service }) => [service, pod]),
  ]);
}

/** The Services and the pods behind them on this node, as a graph and as a table. */
export function createServices(onSearch: (text: string) => void, onChange: () => void): View {
  const count = part("services-count", HTMLElement);
  const empty = part("services-empty", HTMLElement);
  const place = part("services-graph", HTMLElement);
  const table = part("services-table", HTMLElement);
  const asGraph = part("services-as-graph", HTMLButtonElement);
  const asTable = part("services-as-table", HTMLButtonElement);
  const rows = new Rows(part("services-rows", HTMLElement), keyOf, createRow);
  let graphWanted = true;
  let drawn = "";
  for (const button of [asGraph, asTable]) {
    button.addEventListener("click", () => {
      graphWanted = button === asGraph;
      mark(asGraph, "aria-pressed", String(graphWanted));
      mark(asTable, "aria-pressed", String(!graphWanted));
      onChange();
    });
  }
  new ResizeObserver(onChange).observe(place);
  const redraw = (graph: Graph, width: number): void => {
    const wanted = signature(graph, width);
    // Drawn anew only when it looks different: focus and pointer stay where they are.
    if (wanted === drawn || width === 0) return;
    drawn = wanted;
    const focused = place.contains(document.activeElement)
      ? document.activeElement?.getAttribute("data-key")
      : undefined;
    place.replaceChildren(drawGraph(graph, width, onSearch));
    for (const box of place.querySelectorAll<SVGGElement>(".box")) {
      if (focused !== undefined && box.dataset["key"] === focused) box.focus();
    }
  };
  return ({ snapshot: { pods, services }, words }) => {
    const shown = services.list.filter((service) => matchesService(service, words));
    const graph = layOut(shown, pods, rowHeight);
    show(table, !graphWanted && shown.length > 0);
    show(place, graphWanted && graph.edges.length > 0);
    if (graphWanted) redraw(graph, place.clientWidth);
    else rows.update(shown);
    say(count, summary(services.services, services.endpoints, shown.length));
    const text = emptyText(shown, graph, pods, graphWanted);
    show(empty, text !== "");
    say(empty, services.mode === "off" ? "This node serves no Services." : text);
  };
}

function summary(services: number, endpoints: number, shown: number): string {
  const some = shown < services ? `${shown} of ` : "";
  return `${some}${counted(services, "Service")}, ${counted(endpoints, "endpoint")}`;
}

function emptyText(
  shown: readonly ServiceSummary[],
  graph: Graph,
  pods: readonly PodSummary[],
  graphWanted: boolean,
): string {
  if (shown.length === 0) return "No Services to show.";
  if (!graphWanted) return "";
  const elsewhere = shown.filter(({ localPods }) => localPods.length === 0).length;
  const parts = [
    ...(elsewhere > 0
      ? [`${counted(elsewhere, "Service has", "Services have")} no pod on this node`]
      : []),
    ...(graph.omitted > 0
      ? [
          `${counted(graph.omitted, "more does", "more do")} not fit here: filter, or look at the table`,
        ]
      : []),
  ];
  return parts.length === 0 || pods.length === 0 ? "" : `${parts.join("; ")}.`;
}
