import { canonicalIP, type IPFamily } from "../../lib/cidr.ts";
import { familyArgs, listConntrack } from "../../netfilter/conntrack.ts";

/** One address and port that flows are counted for. */
export interface FlowTarget {
  readonly ip: string;
  readonly protocol: string;
  readonly port: number;
}

/** A flow as conntrack knows it. */
export interface TrackedFlow extends FlowTarget {
  /** Who answers, `address:port`: the endpoint, or the target itself when nothing was translated. */
  readonly answeredBy: string;
  /** Both directions; undefined while the kernel does not count (sysctl net.netfilter.nf_conntrack_acct). */
  readonly packets: number | undefined;
  readonly bytes: number | undefined;
}

/** Flows from one target to one endpoint. */
export interface FlowCount {
  readonly target: FlowTarget;
  readonly answeredBy: string;
  readonly flows: number;
  readonly packets: number | undefined;
  readonly bytes: number | undefined;
}

/** Reads one line of `conntrack -L`; undefined for anything that has no ports. */
export function parseTrackedFlow(line: string): TrackedFlow | undefined {
  const protocol = /^(tcp|udp|sctp)\s/.exec(line)?.[1];
  if (protocol === undefined) return undefined;
  const all = (name: string): readonly string[] =>
    [...line.matchAll(new RegExp(`\\b${name}=(\\S+)`, "g"))].map((match) => match[1] ?? "");
  const [, from] = all("src");
  const [to] = all("dst");
  const [, fromPort] = all("sport");
  const [port] = all("dport");
  if (to === undefined || from === undefined) return undefined;
  if (port === undefined || fromPort === undefined) return undefined;
  return {
    protocol,
    ip: canonicalIP(to),
    port: Number(port),
    answeredBy: hostPort(canonicalIP(from), fromPort),
    packets: sum(all("packets")),
    bytes: sum(all("bytes")),
  };
}

export function hostPort(ip: string, port: number | string): string {
  return ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`;
}

function sum(texts: readonly string[]): number | undefined {
  return texts.length === 0 ? undefined : texts.reduce((total, text) => total + Number(text), 0);
}

function plus(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined ? b : a + (b ?? 0);
}

function idOf({ ip, protocol, port }: FlowTarget): string {
  return `${protocol} ${hostPort(ip, port)}`;
}

/** Counts flows to some targets by who answers them. */
export class FlowTally {
  readonly #targets: ReadonlyMap<string, FlowTarget>;
  readonly #counts = new Map<string, FlowCount>();

  constructor(targets: Iterable<FlowTarget>) {
    this.#targets = new Map([...targets].map((target) => [idOf(target), target]));
  }

  add(flow: TrackedFlow): void {
    const target = this.#targets.get(idOf(flow));
    if (target === undefined) return;
    const id = `${idOf(target)} ${flow.answeredBy}`;
    const known = this.#counts.get(id);
    this.#counts.set(id, {
      target,
      answeredBy: flow.answeredBy,
      flows: (known?.flows ?? 0) + 1,
      packets: plus(known?.packets, flow.packets),
      bytes: plus(known?.bytes, flow.bytes),
    });
  }

  counts(): readonly FlowCount[] {
    return [...this.#counts].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, count]) => count);
  }
}

/** Lists the kernel's flows of one family. @throws as {@link listConntrack}. */
export async function listTrackedFlows(
  family: IPFamily,
  onFlow: (flow: TrackedFlow) => void,
  signal: AbortSignal,
): Promise<void> {
  const onLine = (line: string): void => {
    const flow = parseTrackedFlow(line);
    if (flow !== undefined) onFlow(flow);
  };
  await listConntrack(familyArgs(family), onLine, signal);
}
