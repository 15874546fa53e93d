import type { Packet, Step } from "./flow.ts";
import type { End, Way } from "./walk.ts";

/** Whether a packet arrives. */
export type Outcome = "delivered" | "not delivered" | "cannot tell";

/** One end, with all ways that lead to it. */
export interface ReportedEnd {
  readonly probability: number;
  readonly outcome: Outcome;
  readonly end: End;
  /** What happens, and why, in a sentence for people. */
  readonly text: string;
  /** The rules of one of the ways there. */
  readonly steps: readonly Step[];
}

/** Where a packet goes. */
export interface TraceReport {
  readonly from: string;
  readonly packet: Packet;
  readonly outcome: Outcome;
  readonly ends: readonly ReportedEnd[];
  readonly read: readonly string[];
  readonly notSimulated: readonly string[];
  readonly notOwn: readonly string[];
}

function outcomeOf({ kind }: End): Outcome {
  switch (kind) {
    case "backend":
    case "host":
      return "delivered";
    case "forwarded":
      return "cannot tell";
    case "rejected":
    case "dropped":
      return "not delivered";
  }
}

/** External traffic is dispatched although only pods and the node itself get further than that. */
function localPolicy(_: Packet, steps: readonly Step[]): string {
  const dispatched = steps.some(({ rule }) => rule.endsWith("vmap @svc"));
  const policy = dispatched ? "externalTrafficPolicy" : "internalTrafficPolicy";
  return `${policy} Local and no local endpoint (noep)`;
}

/** Maps and sets by what it means that a packet is in them. */
const meanings: readonly (readonly [
  pattern: RegExp,
  why: (packet: Packet, steps: readonly Step[]) => string,
])[] = [
  [
    /@noep-np\b.*drop$/,
    (): string => "externalTrafficPolicy Local and no local endpoint (noep-np)",
  ],
  [/@noep-np\b/, (): string => "the Service has no endpoint (noep-np)"],
  [/@noep\b.*drop$/, localPolicy],
  [/@noep\b/, (): string => "the Service has no endpoint (noep)"],
  [/@fw\b/, ({ source }): string => `loadBalancerSourceRanges do not hold ${source} (fw)`],
  [
    /daddr @cluster-ips .*goto/,
    ({ protocol, destinationPort }): string =>
      `the ClusterIP has no port ${destinationPort}/${protocol} (cluster-ips)`,
  ],
  [
    /fib daddr type != local drop/,
    (): string => "an address of the ServiceCIDRs that no Service has",
  ],
];

/** Why a packet does not get further: what the rules that decided mean, or what they say of themselves. */
function reason(way: Pick<Way, "steps" | "end">, packet: Packet): string {
  if (way.end.kind === "dropped" && way.end.why !== "") return way.end.why;
  const last = way.steps.at(-1);
  if (last === undefined) return "";
  const ofHook = way.steps.filter(({ hook, table }) => hook === last.hook && table === last.table);
  for (const { rule, results } of ofHook.toReversed()) {
    const said = [rule, ...results].join(" ");
    const known = meanings.find(([pattern]) => pattern.test(said));
    if (known !== undefined) return known[1](packet, way.steps);
  }
  const comment = last.tag.includes(" ") ? `${last.tag} ` : "";
  return `${comment}(${last.table} ${last.chain}: ${last.rule})`;
}

function address(ip: string, port: number): string {
  return ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`;
}

/** Whose rules sent a packet to where it goes: a Service's, or those of a pod's host port. */
function isHostPort({ steps }: Pick<Way, "steps">): boolean {
  const last = steps.findLast(({ rule }) => /\bdnat\b|-j DNAT\b/.test(rule));
  return (
    last !== undefined &&
    (last.table.endsWith(" remora-network") || last.chain === "REMORA-HOSTPORTS")
  );
}

function sentence(way: Pick<Way, "steps" | "end">, packet: Packet): string {
  const { end } = way;
  switch (end.kind) {
    case "backend": {
      const source = end.masqueraded
        ? "source rewritten to the node's address"
        : `source ${packet.source} kept`;
      const what = isHostPort(way) ? "host port of the pod at" : "backend";
      return `${what} ${address(end.ip, end.port)}, ${source}`;
    }
    case "host":
      return `the node itself, at ${address(packet.destination, packet.destinationPort)}; no Service has that`;
    case "forwarded": {
      const source = end.masqueraded ? ", source rewritten to the node's address" : "";
      return `leaves for ${address(packet.destination, packet.destinationPort)}${source}; no Service has that`;
    }
    case "rejected": {
      const how = end.how === "tcp-reset" ? "TCP reset" : "ICMP port unreachable";
      return `rejected (${how}): ${reason(way, packet)}`;
    }
    case "dropped":
      return `dropped: ${reason(way, packet)}`;
  }
}

/** Puts together the ways that end alike. */
export function reportWays(
  ways: readonly Way[],
  packet: Packet,
  about: Pick<TraceReport, "from" | "read" | "notSimulated" | "notOwn">,
): TraceReport {
  const ends = new Map<string, ReportedEnd>();
  for (const way of ways) {
    const text = sentence(way, packet);
    const known = ends.get(text);
    ends.set(text, {
      text,
      end: way.end,
      outcome: outcomeOf(way.end),
      steps: known?.steps ?? way.steps,
      probability: (known?.probability ?? 0) + way.probability,
    });
  }
  const all = [...ends.values()].toSorted((a, b) => b.probability - a.probability);
  const worst = (["not delivered", "cannot tell"] as const).find((outcome) =>
    all.some((end) => end.outcome === outcome),
  );
  return { ...about, packet, ends: all, outcome: worst ?? "delivered" };
}

const shownEnds = 20;

function percent(probability: number): string {
  const rounded =
    probability * 100 >= 10 ? Math.round(probability * 100) : (probability * 100).toFixed(1);
  return `${rounded} %`.padStart(6);
}

function stepLines(steps: readonly Step[]): readonly string[] {
  const width = Math.max(0, ...steps.map(({ chain }) => chain.length));
  const lines: string[] = [];
  let place = "";
  for (const { hook, table, chain, rule, results } of steps) {
    const here = `${hook}, ${table}`;
    if (here !== place) lines.push(here);
    place = here;
    lines.push(`  ${chain.padEnd(width)}  ${rule}`);
    for (const result of results) lines.push(`  ${" ".repeat(width)}    ${result}`);
  }
  return lines;
}

/** The report for people. The last line says where the packet ends. */
export function reportLines(report: TraceReport): readonly string[] {
  const { packet, ends } = report;
  const [likeliest] = ends;
  const way = packet.inInterface === "" ? "" : `, comes in through ${packet.inInterface}`;
  const shown = ends.slice(0, shownEnds);
  const rest = ends.slice(shownEnds);
  const others = ends.length > 1 ? ` (one of ${ends.length} ends; chance decides)` : "";
  return [
    `${packet.protocol} from ${report.from}${way}, to ${address(packet.destination, packet.destinationPort)}`,
    ...(report.read.length === 0 ? ["no rules of Remora or iptables were found"] : []),
    ...report.read.map((line) => `read: ${line}`),
    ...report.notSimulated.map((line) => `not simulated: ${line}`),
    ...report.notOwn.map((line) => `not as Remora writes it: ${line}`),
    "",
    ...(likeliest === undefined || likeliest.steps.length === 0
      ? ["no rule matches"]
      : [`rules that match${others}:`, ...stepLines(likeliest.steps)]),
    "",
    ...(ends.length > 1
      ? [
          ...shown.map(({ probability, text }) => `${percent(probability)}  ${text}`),
          ...(rest.length === 0
            ? []
            : [
                `${percent(rest.reduce((sum, { probability }) => sum + probability, 0))}  ${rest.length} more`,
              ]),
        ]
      : []),
    `${report.outcome}: ${verdictLine(report)}`,
  ];
}

function verdictLine({ ends, outcome }: TraceReport): string {
  const deciding = ends.filter((end) => end.outcome === outcome);
  const [first] = deciding;
  if (first === undefined) return "nothing is known";
  if (deciding.length === 1) return first.text;
  return outcome === "delivered"
    ? `one of ${deciding.length} backends`
    : `${first.text}, and ${deciding.length - 1} more`;
}
