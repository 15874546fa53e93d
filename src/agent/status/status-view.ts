import type { EventSummary, NodeSnapshot, PodSummary, PullSummary } from "../local/types.ts";
import {
  bar,
  type Cell,
  type Column,
  columnWidths,
  cutLine,
  type Glyphs,
  type Line,
  line,
  span,
  type Style,
  tableLine,
} from "./lines.ts";
import { cutMiddle, pad, plain, widthOf, wrap } from "./text.ts";
import { bytes, cores, counted, percent, shareOf, since } from "./words.ts";

/** How much room a view has, and when "now" is. */
export interface ViewOptions {
  readonly columns: number;
  /** Lines; Infinity where there is no end. */
  readonly rows: number;
  /** Milliseconds since the epoch. */
  readonly now: number;
  readonly glyphs: Glyphs;
}

/** In trouble, or not there yet: what people look for. Pods that have done their work are neither. */
export function isInTrouble({ phase, ready }: PodSummary): boolean {
  return !ready && phase !== "Succeeded";
}

/** Worst first: what does not mend itself before what only takes its time. */
const patience: ReadonlyMap<string, number> = new Map([
  ["ContainerCreating", 1],
  ["PodInitializing", 1],
  ["Pending", 1],
  ["Running", 1],
  ["Terminating", 2],
]);

function byUrgency(a: PodSummary, b: PodSummary): number {
  const of = ({ status }: PodSummary): number =>
    patience.get(status) ?? (status.startsWith("Init:") ? 1 : 0);
  return of(a) - of(b);
}

/** Everything on one label, so that values stand below each other. */
function labelled(label: string, pieces: Line): Line {
  return [span(pad(label, 9), "dim"), ...pieces];
}

/** The head: who this is, whether it is Ready and why not. */
export function nodeLines(
  { agent, node }: NodeSnapshot,
  { columns, glyphs, now }: ViewOptions,
): Line[] {
  const { kubernetesVersion, rssBytes, started, version } = agent;
  const what = `up ${since(started, now)}, ${bytes(rssBytes)}, remora ${plain(version)}, Kubernetes ${plain(kubernetesVersion)}, ${plain(node.runtime)}`;
  const lines: Line[] = [
    labelled("node", [
      span(plain(node.name), "bold"),
      span("  "),
      node.ready ? span(`${glyphs.good} Ready`, "good") : span(`${glyphs.bad} not Ready`, "bad"),
      span(`  ${what}`, "dim"),
    ]),
  ];
  if (!node.ready) {
    const why = plain(node.message === "" ? node.reason : node.message);
    for (const text of wrap(why, Math.max(columns - 9, 20), 3, glyphs.ellipsis))
      lines.push(labelled("", line(text, "bad")));
  }
  for (const { message, reason, status, type } of node.conditions) {
    // All others of the kubelet's are well when they are False; foreign ones may mean anything.
    if (!type.endsWith("Pressure") || status !== "True") continue;
    lines.push(labelled("", line(plain(`${type}: ${message === "" ? reason : message}`), "bad")));
  }
  const { lastHeartbeat, reachable, url } = node.apiServer;
  const beat = since(lastHeartbeat, now);
  const heartbeat = beat === "" ? "no heartbeat yet" : `last heartbeat ${beat} ago`;
  lines.push(
    labelled("API", [
      reachable ? span("answers", "good") : span("does not answer", "bad"),
      span(`  ${plain(url)}, ${heartbeat}`, "dim"),
    ]),
  );
  return lines;
}

const barWidth = 20;
const narrow = 80;

function gauge(label: string, share: number, text: string, more: string, glyphs: Glyphs): Line {
  return labelled(label, [
    ...bar(share, barWidth, glyphs),
    span(` ${pad(percent(share), 5, "right")}  ${text}`),
    span(more === "" ? "" : `, ${more}`, "dim"),
  ]);
}

/** How full the machine is. */
export function usageLines({ node, usage }: NodeSnapshot, { glyphs }: ViewOptions): Line[] {
  const { cpu, cpuCapacity, disk, memory, memoryCapacity, network } = usage;
  const { requested } = node;
  return [
    gauge(
      "cpu",
      shareOf(cpu, cpuCapacity),
      `${cores(cpu)} of ${counted(cpuCapacity, "core")}`,
      `pods ask for ${cores(requested.cpu)}`,
      glyphs,
    ),
    gauge(
      "memory",
      shareOf(memory, memoryCapacity),
      `${bytes(memory)} of ${bytes(memoryCapacity)}`,
      `pods ask for ${bytes(requested.memory)}`,
      glyphs,
    ),
    gauge(
      "disk",
      shareOf(disk.used, disk.capacity),
      `${bytes(disk.used)} of ${bytes(disk.capacity)}`,
      "",
      glyphs,
    ),
    labelled("network", line(`${bytes(network.received)}/s in, ${bytes(network.sent)}/s out`)),
  ];
}

/** `34 MiB of 58 MiB`, as far as it is known. */
export function pullWords({ doneBytes, queued, totalBytes, unpacking }: PullSummary): string {
  if (queued === true) return "waits for others";
  if (unpacking === true) return `unpacking ${bytes(totalBytes ?? doneBytes)}`;
  if (doneBytes === 0 && totalBytes === undefined) return "asks the registry";
  return totalBytes === undefined
    ? `${bytes(doneBytes)} so far`
    : `${bytes(doneBytes)} of ${bytes(totalBytes)}`;
}

/** Images on their way. */
export function pullLines({ pulls }: NodeSnapshot, { columns, glyphs, now }: ViewOptions): Line[] {
  const table: readonly Column[] = [
    { title: "image", grow: 2 },
    { title: "bar" },
    { title: "size", max: 22 },
    { title: "time", align: "right", drop: 1 },
    { title: "pods", grow: 1, drop: 2 },
  ];
  const rows = pulls.map((pull): readonly Cell[] => [
    { text: plain(pull.image), cut: cutMiddle },
    { text: "x".repeat(columns < narrow ? barWidth / 2 : barWidth) },
    { text: pullWords(pull) },
    { text: since(pull.started, now) },
    { text: plain(pull.pods.join(", ")), style: "dim" },
  ]);
  const widths = columnWidths(table, rows, columns - 2, false);
  return pulls.map((pull, index) => {
    const cells = tableLine(rows[index] ?? [], table, widths, glyphs);
    const share = pull.totalBytes === undefined ? 0 : shareOf(pull.doneBytes, pull.totalBytes);
    const drawn = [...bar(share, widths[1] ?? 0, glyphs, "accent"), span("  ")];
    return [span("  "), ...cells.slice(0, 1), ...drawn, ...cells.slice(2)];
  });
}

/** Colour of a pod's status. */
export function statusStyle(pod: PodSummary): Style {
  if (pod.ready) return "good";
  if (pod.phase === "Succeeded") return "dim";
  return byUrgency(pod, { ...pod, status: "Pending" }) < 0 ? "bad" : "warn";
}

function fullName({ name, namespace }: PodSummary): string {
  return plain(`${namespace}/${name}`);
}

/** Each pod with its whole sentence below. */
function longTroubles(
  pods: readonly PodSummary[],
  { columns, glyphs, now }: ViewOptions,
): readonly Line[] {
  const nameWidth = Math.min(
    Math.max(0, ...pods.map((pod) => widthOf(fullName(pod)))),
    Math.max(Math.floor(columns / 3), 12),
  );
  return pods.flatMap((pod): Line[] => {
    const age = since(pod.created, now);
    const restarts = pod.restarts === 0 ? "" : `, ${counted(pod.restarts, "restart")}`;
    const lines: Line[] = [
      [
        span("  "),
        span(pad(cutMiddle(fullName(pod), nameWidth, glyphs.ellipsis), nameWidth)),
        span("  "),
        span(plain(pod.status), statusStyle(pod)),
        span(age === "" ? "" : `  ${age}${restarts}`, "dim"),
      ],
    ];
    for (const text of wrap(plain(pod.why), Math.max(columns - 6, 20), 2, glyphs.ellipsis))
      lines.push([span("      "), span(text)]);
    return lines;
  });
}

const troubleColumns: readonly Column[] = [
  { title: "pod", max: 26 },
  { title: "status", max: 18 },
  { title: "why", grow: 1 },
];
/** With less, why a pod is in trouble is worth more than what the trouble is called. */
const roomForStatus = 110;

/** Each pod on one line, where there are too many for more. */
function shortTroubles(
  pods: readonly PodSummary[],
  { columns, glyphs }: ViewOptions,
): readonly Line[] {
  const hasStatus = columns >= roomForStatus;
  const rows = pods.map((pod): readonly Cell[] => [
    { text: fullName(pod), cut: cutMiddle, style: statusStyle(pod) },
    { text: hasStatus ? plain(pod.status) : "", style: statusStyle(pod) },
    { text: pod.why === "" ? plain(pod.status) : plain(pod.why) },
  ]);
  return tableLines(rows, troubleColumns, columns, glyphs);
}

/** A table without titles, a little to the right. */
function tableLines(
  rows: readonly (readonly Cell[])[],
  columns: readonly Column[],
  width: number,
  glyphs: Glyphs,
): readonly Line[] {
  const widths = columnWidths(columns, rows, width - 2, false);
  return rows.map((row): Line => [span("  "), ...tableLine(row, columns, widths, glyphs)]);
}

/** How many pods there are, and why those that are not ready are not. */
function podLines(snapshot: NodeSnapshot, options: ViewOptions, room: number): readonly Line[] {
  const { pods, unscheduled = [] } = snapshot;
  const ready = pods.filter((pod) => pod.ready).length;
  const done = pods.filter(({ phase }) => phase === "Succeeded").length;
  const troubled = [...pods, ...unscheduled].filter(isInTrouble).toSorted(byUrgency);
  const more = [
    done === 0 ? "" : `${done} done`,
    unscheduled.length === 0 ? "" : `${unscheduled.length} without a node`,
  ].filter((text) => text !== "");
  const head: Line = [
    span(`${ready} of ${pods.length} ready`, troubled.length === 0 ? "good" : "warn"),
    span(more.map((text) => `, ${text}`).join("")),
    span(
      `, room for ${Math.max(snapshot.node.allocatable.pods - pods.length + done, 0)} more`,
      "dim",
    ),
  ];
  const long = longTroubles(troubled, options);
  const lines =
    long.length < room ? long : limited(shortTroubles(troubled, options), room - 1, "pods");
  return [labelled("pods", head), ...lines];
}

function serviceLines({ services }: NodeSnapshot, { now }: ViewOptions): Line[] {
  if (services.mode === "off") return [labelled("services", line("none are served here", "dim"))];
  const { lastSync, lastSyncSeconds, list, mode } = services;
  const at = since(lastSync, now);
  const took = lastSyncSeconds === undefined ? "" : `, it took ${milliseconds(lastSyncSeconds)}`;
  const lines = [
    labelled("services", [
      span(`${counted(services.services, "Service")}, ${counted(services.endpoints, "endpoint")}`),
      span(`, ${mode}${at === "" ? "" : `, last change ${at} ago${took}`}`, "dim"),
    ]),
  ];
  const dead = list.filter(({ ready, total }) => total > 0 && ready === 0);
  for (const { name, namespace, total } of dead)
    lines.push([
      span("  "),
      span(plain(`${namespace}/${name}`)),
      span(`  none of its ${counted(total, "endpoint")} is ready`, "warn"),
    ]);
  return lines;
}

/** `4 ms`, `1.2 s` */
export function milliseconds(seconds: number): string {
  return seconds < 1 ? `${Math.max(Math.round(seconds * 1000), 1)} ms` : `${seconds.toFixed(1)} s`;
}

/** Warnings of one reason about one thing are told as one, with the newest words; the newest first. */
export function gatheredWarnings(events: readonly EventSummary[]): readonly EventSummary[] {
  const gathered = new Map<string, EventSummary>();
  for (const event of events.toReversed()) {
    if (event.type !== "Warning") continue;
    const key = `${event.object} ${event.reason}`;
    const newer = gathered.get(key);
    gathered.set(key, newer === undefined ? event : { ...newer, count: newer.count + event.count });
  }
  return [...gathered.values()];
}

const warningColumns: readonly Column[] = [
  { title: "age", align: "right" },
  { title: "object", grow: 1, max: 40 },
  { title: "reason", max: 30 },
  { title: "message", grow: 2 },
];

function warningLines(
  { events, pods }: NodeSnapshot,
  { columns, glyphs, now }: ViewOptions,
): readonly Line[] {
  const explained = new Set(
    pods.filter(isInTrouble).map(({ name, namespace }) => `Pod ${namespace}/${name}`),
  );
  const later = ({ object }: EventSummary): number => (explained.has(object) ? 1 : 0);
  // What stands above with the whole reason comes last.
  const warnings = gatheredWarnings(events).toSorted((a, b) => later(a) - later(b));
  const rows = warnings.map(({ count, message, object, reason, time }): readonly Cell[] => [
    { text: since(time, now), style: "dim" },
    { text: plain(object), cut: cutMiddle },
    { text: `${plain(reason)}${count === 1 ? "" : ` x${count}`}`, style: "warn" },
    { text: plain(message) },
  ]);
  return tableLines(rows, warningColumns, columns, glyphs);
}

/** The first lines of a list that has more than there is room for, and how many those are. */
function limited(lines: readonly Line[], room: number, what: string): readonly Line[] {
  if (lines.length <= room) return lines;
  if (room <= 0) return [];
  const shown = lines.slice(0, room - 1);
  return [...shown, [span(`  and ${lines.length - shown.length} more ${what}`, "dim")]];
}

/** `remora status`: one screenful of a node, the most urgent first. Pure. */
export function statusLines(snapshot: NodeSnapshot, options: ViewOptions): Line[] {
  const { columns, glyphs, rows } = options;
  const head = [...nodeLines(snapshot, options), ...usageLines(snapshot, options)];
  const services = serviceLines(snapshot, options);
  const pulls = pullLines(snapshot, options);
  const warnings = warningLines(snapshot, options);
  let room = rows - head.length - 2;
  const take = (lines: readonly Line[], atMost: number, what: string): readonly Line[] => {
    const taken = limited(lines, Math.max(Math.min(atMost, room), 0), what);
    room -= taken.length;
    return taken;
  };
  const shownPulls = take(pulls, Math.max(3, Math.floor(room / 4)), "images");
  // What is the matter comes before what is well, and some of each before all of one.
  const podRoom = Math.min(Math.max(room - Math.min(services.length, 3) - 4, 3), room);
  const shownPods = podLines(snapshot, options, podRoom);
  room -= shownPods.length;
  const shownServices = take(services, Math.max(room - 4, 1), "Services");
  const shownWarnings = room < 2 ? [] : take(warnings, Math.min(room - 1, 10), "warnings");
  const all = [
    ...head,
    ...(shownPulls.length === 0 ? [] : [labelled("pulling", []), ...shownPulls]),
    ...shownPods,
    ...shownServices,
    ...(shownWarnings.length === 0 ? [] : [labelled("warnings", []), ...shownWarnings]),
  ];
  return all.map((each) => cutLine(each, columns, glyphs.ellipsis));
}
