import { type IPFamily, cidrContains, ipFamily, parseCidr } from "../lib/cidr.ts";

/** The first packet of a flow, as far as a firewall's rules can be judged without sending it. */
export interface PacketSketch {
  readonly hook: "forward" | "input";
  readonly family: IPFamily;
  readonly inDevice: string;
  /** Undefined on its way to the node itself. */
  readonly outDevice: string | undefined;
  readonly source: string;
  readonly destination: string;
  readonly protocol: "tcp" | "udp";
  /** Destination port. */
  readonly port: number;
  /** A Service, host port or node port gave it its destination. */
  readonly translated: boolean;
}

/** Whether a rule applies. Undefined: it depends on something that a sketch does not tell (sets, marks, rates). */
export type Truth = boolean | undefined;

/** All of `truths`: false beats not knowing. */
export function all(truths: Iterable<Truth>): Truth {
  let result: Truth = true;
  for (const truth of truths) {
    if (truth === false) return false;
    result &&= truth;
  }
  return result;
}

/** One of `truths`: true beats not knowing. */
export function some(truths: Iterable<Truth>): Truth {
  let result: Truth = false;
  for (const truth of truths) {
    if (truth === true) return true;
    if (truth === undefined) result = undefined;
  }
  return result;
}

export function not(truth: Truth): Truth {
  return truth === undefined ? undefined : !truth;
}

/** Whether an address is in a network (`10.0.0.0/8`) or is that address. */
export function addressMatches(address: string, text: string): Truth {
  const [network = "", prefix] = text.split("/");
  const family = ipFamily(network);
  if (family === undefined) return undefined;
  if (family !== ipFamily(address)) return false;
  // A netmask in place of a length is nothing that the programs print today.
  if (prefix !== undefined && !/^\d+$/.test(prefix)) return undefined;
  return cidrContains(parseCidr(`${network}/${prefix ?? (family === "IPv4" ? 32 : 128)}`), address);
}

/** Whether a device has this name; `wildcard` at the end stands for anything. */
export function deviceMatches(
  device: string | undefined,
  text: string,
  wildcard: "+" | "*",
): boolean {
  if (device === undefined) return false;
  return text.endsWith(wildcard) ? device.startsWith(text.slice(0, -1)) : device === text;
}

/** What a rule does with a packet that it applies to. */
export type Action =
  | { readonly kind: "accept" | "drop" | "return" | "go-on" }
  /** Hands it to a program or changes what later rules look at. */
  | { readonly kind: "unclear" }
  | { readonly kind: "jump" | "goto"; readonly chain: string };

/** One rule, for a given packet. */
export interface JudgedRule {
  readonly applies: Truth;
  readonly action: Action;
  /** How people find it. */
  readonly text: string;
}

/** What may become of a packet. */
export interface Fate {
  /** `drop` only when nothing that a sketch does not tell could change it. */
  readonly verdict: "accept" | "drop" | "unclear";
  /** What drops it: the text of a rule, or `policy`. */
  readonly by: string;
}

type Outcome = "accept" | "drop" | "end";

const maxDepth = 32;

interface Walk {
  readonly rulesOf: (chain: string) => readonly JudgedRule[];
  readonly droppers: string[];
}

/** Follows a packet through the chain: all ways it may leave by, when what is not known is taken both ways. */
function outcomes(walk: Walk, chain: string, depth: number): ReadonlySet<Outcome> {
  if (depth > maxDepth) return new Set(["accept", "drop"]);
  const found = new Set<Outcome>();
  for (const { action, applies, text } of walk.rulesOf(chain)) {
    if (applies === false || action.kind === "go-on") continue;
    const ends = actionOutcomes(walk, action, text, depth);
    for (const one of ends) if (one !== "end" || action.kind !== "jump") found.add(one);
    const passes = action.kind === "jump" && ends.has("end");
    if (applies === true && !passes) return found;
  }
  found.add("end");
  return found;
}

function actionOutcomes(
  walk: Walk,
  action: Action,
  text: string,
  depth: number,
): ReadonlySet<Outcome> {
  switch (action.kind) {
    case "accept":
      return new Set(["accept"]);
    case "drop":
      walk.droppers.push(text);
      return new Set(["drop"]);
    case "return":
    case "go-on":
      return new Set(["end"]);
    case "unclear":
      return new Set(["accept", "drop"]);
    case "jump":
    case "goto":
      return outcomes(walk, action.chain, depth + 1);
  }
}

/** What becomes of a packet in a chain that the kernel calls. Pure. */
export function judge(
  chain: string,
  policy: "accept" | "drop",
  rulesOf: (chain: string) => readonly JudgedRule[],
): Fate {
  const walk: Walk = { rulesOf, droppers: [] };
  const found = new Set(outcomes(walk, chain, 0));
  if (found.delete("end")) {
    found.add(policy);
    if (policy === "drop") walk.droppers.push("policy");
  }
  const by = walk.droppers.at(-1) ?? "";
  if (found.size !== 1) return { verdict: "unclear", by };
  return found.has("drop") ? { verdict: "drop", by } : { verdict: "accept", by: "" };
}
