import type { IPFamily } from "../../lib/cidr.ts";
import type { ProxyMode } from "../backend.ts";
import type { PacketCount } from "./count.ts";
import { type FlowCount, type FlowTarget, hostPort } from "./flows.ts";
import type { KernelView, RuleDrift } from "./kernel.ts";
import type {
  AddressExplanation,
  EndpointExplanation,
  PortExplanation,
  ServiceExplanation,
} from "./model.ts";

/** All that `remora service` found out. What could not be looked at says why. */
export interface ServiceReport {
  readonly explanation: ServiceExplanation;
  readonly mode: ProxyMode | undefined;
  readonly kernel: Partial<Record<IPFamily, KernelView>>;
  readonly kernelMissing: string | undefined;
  /** Flows that the kernel knows now. */
  readonly flows: readonly FlowCount[] | undefined;
  readonly flowsMissing: string | undefined;
  readonly counted: CountedTraffic | undefined;
}

/** What `--count` counted. */
export interface CountedTraffic {
  readonly seconds: number;
  /** Packets that clients sent, whatever became of them. */
  readonly arrived: readonly { readonly target: FlowTarget; readonly packets: number }[];
  readonly counts: readonly PacketCount[];
}

/** Whether something in the kernel is not as it should be. */
export function hasDrift({ kernel }: ServiceReport): boolean {
  return Object.values(kernel).some(({ drift }) => drift.length > 0);
}

/** The report for people. */
export function reportLines(report: ServiceReport): readonly string[] {
  const { explanation, mode } = report;
  const { node, notServed, service, type } = explanation;
  const zone = node.zone === undefined || node.zone === "" ? "" : `, zone ${node.zone}`;
  const written = mode === undefined ? "" : `, rules in ${mode}`;
  return [
    `Service ${service} (${type}), as node ${node.nodeName} sees it${zone}${written}`,
    ...(notServed === undefined ? policies(explanation) : [`Not served: ${notServed}.`]),
    ...explanation.remarks.map((remark) => `Note: ${remark}.`),
    ...explanation.ports.flatMap((port) => ["", ...portLines(port, report)]),
    ...(notServed === undefined ? ["", ...kernelLines(report)] : []),
    ...countedLines(report),
  ];
}

function policies(explanation: ServiceExplanation): readonly string[] {
  const { externalTrafficPolicy, healthCheckNodePort, internalTrafficPolicy, ports } = explanation;
  const seconds = ports[0]?.affinitySeconds ?? 0;
  const isExternal = ports.some(({ addresses }) => addresses.length > 1);
  const counts = Object.entries(explanation.localReady)
    .map(([family, count]) => `${count} (${family})`)
    .join(", ");
  return [
    `internalTrafficPolicy ${internalTrafficPolicy}` +
      (isExternal ? `, externalTrafficPolicy ${externalTrafficPolicy}` : "") +
      (seconds === 0
        ? ""
        : `; a client stays with its endpoint for ${seconds} s (sessionAffinity)`),
    ...(healthCheckNodePort === 0
      ? []
      : [
          `Health check port ${healthCheckNodePort}: ready endpoints on this node ${counts === "" ? "0" : counts}`,
        ]),
  ];
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  return all.map((row) =>
    `  ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ")}`.trimEnd(),
  );
}

function portLines(port: PortExplanation, report: ServiceReport): readonly string[] {
  const name = port.name === "" ? "" : ` ${port.name}`;
  const shownFlows = new Set<string>();
  const endpoints = port.endpoints.map((endpoint) => {
    // A duplicate has none of its own.
    const first = !shownFlows.has(endpoint.address);
    shownFlows.add(endpoint.address);
    return endpointRow(port, endpoint, first ? report : { ...report, flows: [] });
  });
  return [
    `Port${name} (${port.protocol.toUpperCase()}, ${port.family})`,
    ...table(
      ["ADDRESS", "KIND", "FLOWS", "NEW FLOWS GO TO"],
      port.addresses.map((address) => addressRow(port, address, report)),
    ),
    "",
    ...(endpoints.length === 0
      ? ["  No endpoints in any slice."]
      : table(["ENDPOINT", "ON", "FLOWS", "INTERNAL", "EXTERNAL", "WHY"], endpoints)),
  ];
}

function shown({ ip, port }: { readonly ip: string; readonly port: number }): string {
  return hostPort(ip === "" ? "*" : ip, port);
}

function flowsOf({ flows }: ServiceReport, matches: (count: FlowCount) => boolean): string {
  if (flows === undefined) return "?";
  return String(flows.filter(matches).reduce((sum, count) => sum + count.flows, 0));
}

/** Flows to a node port have an address of the node where the port's address is empty. */
function isTo(address: AddressExplanation, port: PortExplanation, target: FlowTarget): boolean {
  if (target.protocol !== port.protocol || target.port !== address.port) return false;
  if (address.ip !== "") return target.ip === address.ip;
  return port.addresses.every((other) => other.ip !== target.ip || other.port !== target.port);
}

function addressRow(
  port: PortExplanation,
  address: AddressExplanation,
  report: ServiceReport,
): readonly string[] {
  const { kind, goesTo, sourceRanges, claimedBy, lostTo } = address;
  const to =
    lostTo === undefined ? goesTo : `another Service: ${lostTo} is older and has this address`;
  const rest = claimedBy.filter((key) => key !== lostTo);
  const sources = sourceRanges.length === 0 ? "" : `; only from ${sourceRanges.join(", ")}`;
  const claims = rest.length === 0 ? "" : `; also wanted by ${rest.join(", ")}`;
  const isOfFamily = ({ target }: FlowCount): boolean =>
    target.ip.includes(":") === (port.family === "IPv6");
  const flows = flowsOf(report, (count) => isOfFamily(count) && isTo(address, port, count.target));
  return [shown(address), kind, flows, `${to}${sources}${claims}`];
}

const externalWords = { true: "yes", false: "no", near: "near only" } as const;

function endpointRow(
  port: PortExplanation,
  endpoint: EndpointExplanation,
  report: ServiceReport,
): readonly string[] {
  const { address, external, hairpin, internal, node, why } = endpoint;
  const isExternal = port.addresses.length > 1;
  const here = node === report.explanation.node.nodeName;
  return [
    address,
    node === "" ? "-" : `${node}${here ? " (here)" : ""}`,
    flowsOf(
      report,
      ({ answeredBy, target }) => answeredBy === address && target.protocol === port.protocol,
    ),
    internal ? "yes" : "no",
    isExternal ? externalWords[`${external}`] : "-",
    `${why}${hairpin ? "; asked by itself it sees this node's address" : ""}`,
  ];
}

function kernelLines({ kernel, kernelMissing, flowsMissing }: ServiceReport): readonly string[] {
  return [
    ...Object.entries(kernel).flatMap(([family, view]) => [
      `Rules in the kernel, ${family} (${view.program}): ${verdictOn(view.drift)}`,
      ...view.carried.map(
        ({ where, rule, packets }) =>
          `  ${where}: ${rule}${packets === undefined ? "" : `   [${packets} packets]`}`,
      ),
      ...view.drift.flatMap(driftLines),
    ]),
    ...(kernelMissing === undefined ? [] : [`Rules in the kernel are not shown: ${kernelMissing}`]),
    ...(flowsMissing === undefined ? [] : [`Flows are not shown: ${flowsMissing}`]),
  ];
}

function verdictOn(drift: readonly RuleDrift[]): string {
  if (drift.length === 0) return "as they should be";
  return `${drift.length} ${drift.length === 1 ? "is" : "are"} not as they should be`;
}

function driftLines({ where, key, wanted, found }: RuleDrift): readonly string[] {
  const at = key === "" ? where : `${where}: ${key}`;
  if (found === undefined) return [`  MISSING ${at}${wanted === "" ? "" : ` : ${wanted}`}`];
  if (wanted === undefined) return [`  UNWANTED ${at} : ${found}`];
  return [`  DIFFERENT ${at} : ${found}`, `     wanted ${wanted}`];
}

function countedLines({ counted }: ServiceReport): readonly string[] {
  if (counted === undefined) return [];
  const { seconds, arrived, counts } = counted;
  const title = `Packets in ${seconds} s`;
  if (arrived.length === 0 && counts.length === 0) return ["", `${title}: none`];
  const rows = counts.map(({ target, endpoint, asked, answered }) => [
    hostPort(target.ip, target.port),
    endpoint,
    `${asked.packets} (${asked.bytes} B)`,
    `${answered.packets} (${answered.bytes} B)`,
  ]);
  const lines = arrived.map(
    ({ target, packets }) =>
      `  ${hostPort(target.ip, target.port)}/${target.protocol}: ${packets} arrived`,
  );
  return [
    "",
    title,
    ...lines,
    ...(rows.length === 0 ? [] : table(["ADDRESS", "ENDPOINT", "ASKED", "ANSWERED"], rows)),
  ];
}
