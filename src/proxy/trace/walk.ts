import {
  type BaseChain,
  type Branch,
  type Choose,
  Flow,
  type HookName,
  type Packet,
  type Remembered,
  type Ruleset,
  type Step,
} from "./flow.ts";
import { type Host, isLoopback } from "./host.ts";

/** Where a packet ends. */
export type End =
  | {
      readonly kind: "backend";
      readonly ip: string;
      readonly port: number;
      readonly masqueraded: boolean;
    }
  /** The node itself got it, as it was sent. */
  | { readonly kind: "host" }
  /** It goes on to where it was sent, past all Services. */
  | { readonly kind: "forwarded"; readonly masqueraded: boolean }
  | { readonly kind: "rejected"; readonly how: "tcp-reset" | "icmp" }
  /** `why` names a policy or the routing; empty when the last step is the rule that did it. */
  | { readonly kind: "dropped"; readonly why: string };

/** One of the ways that a packet may go. */
export interface Way {
  /** Of all ways together 1. */
  readonly probability: number;
  readonly end: End;
  /** Every rule that matched, in order. */
  readonly steps: readonly Step[];
  readonly remembered: readonly Remembered[];
  /** What the packet is marked with in the end. */
  readonly mark: number;
}

/** The kernel's own places of address translation: nat chains run there, whatever their priority says among others. */
const natPriority: Readonly<Record<HookName, number>> = {
  prerouting: -100,
  output: -100,
  input: 100,
  postrouting: 100,
  forward: 0,
};

function inOrder(bases: readonly BaseChain[], hook: HookName): readonly BaseChain[] {
  const place = ({ type, priority }: BaseChain): number =>
    type === "nat" ? natPriority[hook] : priority;
  return bases
    .filter((base) => base.hook === hook)
    .toSorted((a, b) => place(a) - place(b) || a.priority - b.priority);
}

/** One hook. @returns Undefined: the packet goes on. */
function pass(flow: Flow, hook: HookName, bases: readonly BaseChain[]): End | undefined {
  flow.hook = hook;
  for (const base of inOrder(bases, hook)) {
    if (base.type === "nat" && !asksNat(flow, hook)) continue;
    const ruled = base.evaluate(flow);
    const final = ruled ?? { kind: base.policy };
    if (final.kind === "reject") return { kind: "rejected", how: final.how };
    if (final.kind === "drop") {
      const why = ruled === undefined ? `policy of ${base.table} ${base.name}` : "";
      return { kind: "dropped", why };
    }
  }
  return undefined;
}

/** Only the first packet of a flow is asked about, and each side once. */
function asksNat(flow: Flow, hook: HookName): boolean {
  if (flow.state !== "new" && flow.state !== "related") return false;
  return hook === "prerouting" || hook === "output" ? !flow.destinationSet : !flow.sourceSet;
}

/** Sends one packet through; chance is decided by `choose`. */
function walkOnce(
  rules: Ruleset,
  packet: Packet,
  host: Host,
  choose: Choose,
): Omit<Way, "probability"> {
  const flow = new Flow(packet, host, choose);
  const end = packet.inInterface === "" ? fromNode(flow, rules) : fromOutside(flow, rules);
  return { end, steps: flow.steps, remembered: flow.remembered, mark: flow.mark };
}

function delivered(flow: Flow, otherwise: End): End {
  if (!flow.translated) return otherwise;
  const { destination: ip, destinationPort: port, masqueraded } = flow;
  return { kind: "backend", ip, port, masqueraded };
}

function route(flow: Flow): End | undefined {
  flow.outInterface = flow.host.deviceTo(flow.destination);
  if (flow.host.reaches(flow.destination)) return undefined;
  return { kind: "dropped", why: `routing: no way to ${flow.destination}` };
}

/** Loopback addresses do not leave the machine, nor come into it. */
function martian(flow: Flow): End | undefined {
  const inside = flow.packet.inInterface === "" || flow.packet.inInterface === "lo";
  const bad = inside
    ? isLoopback(flow.source) && !flow.host.isLocal(flow.destination)
    : isLoopback(flow.source) || isLoopback(flow.destination);
  const device = inside ? flow.host.deviceTo(flow.destination) : flow.packet.inInterface;
  const allowed = flow.packet.family === "IPv4" && flow.host.passesLocalnet(device);
  return bad && !allowed
    ? { kind: "dropped", why: "routing: a loopback address on another interface" }
    : undefined;
}

function fromOutside(flow: Flow, { bases }: Ruleset): End {
  const early = pass(flow, "prerouting", bases) ?? martian(flow);
  if (early !== undefined) return early;
  if (flow.host.isLocal(flow.destination)) {
    return pass(flow, "input", bases) ?? delivered(flow, { kind: "host" });
  }
  return (
    route(flow) ??
    pass(flow, "forward", bases) ??
    pass(flow, "postrouting", bases) ??
    delivered(flow, { kind: "forwarded", masqueraded: flow.masqueraded })
  );
}

function fromNode(flow: Flow, { bases }: Ruleset): End {
  // The way to what was asked for is looked for first, then the one to where rules sent it.
  const early = route(flow) ?? pass(flow, "output", bases) ?? martian(flow) ?? route(flow);
  if (early !== undefined) return early;
  const late = pass(flow, "postrouting", bases);
  if (late !== undefined) return late;
  if (!flow.host.isLocal(flow.destination))
    return delivered(flow, { kind: "forwarded", masqueraded: flow.masqueraded });
  // Over the loopback interface it comes in again; conntrack knows it, so nothing is translated once more.
  flow.inInterface = "lo";
  flow.destinationSet = true;
  flow.sourceSet = true;
  return (
    pass(flow, "prerouting", bases) ??
    pass(flow, "input", bases) ??
    delivered(flow, { kind: "host" })
  );
}

/**
 * Sends a packet through all hooks, once for every way that chance may take.
 *
 * @throws {UnknownRuleError}, {UnknownFactError}
 */
export function walk(rules: Ruleset, packet: Packet, host: Host): readonly Way[] {
  const ways: Way[] = [];
  /** Which branch was taken at each decision, and how many there are. */
  const taken: { at: number; readonly branches: readonly Branch<unknown>[] }[] = [];
  for (;;) {
    let asked = 0;
    const choose = <T>(branches: () => readonly Branch<T>[]): T => {
      if (asked === taken.length) taken.push({ at: 0, branches: branches() });
      const decision = taken[asked];
      asked += 1;
      // The same decisions come in the same order each time.
      return decision?.branches[decision.at]?.outcome as T;
    };
    const way = walkOnce(rules, packet, host, choose);
    const probability = taken.reduce(
      (product, { at, branches }) => product * (branches[at]?.weight ?? 0),
      1,
    );
    ways.push({ ...way, probability });
    while (taken.length > 0) {
      const last = taken.at(-1);
      if (last === undefined) break;
      last.at += 1;
      if (last.at < last.branches.length) break;
      taken.pop();
    }
    if (taken.length === 0) return ways;
  }
}
