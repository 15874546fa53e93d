import { createHash } from "node:crypto";

import type { Link } from "./links.ts";
import type { PodBandwidth } from "./types.ts";

/** How long a packet may wait for its turn, as of CNI's plug-in `bandwidth`; also what may be sent at once after a rest. */
const waitSeconds = 0.025;
/** Below it a sender gets no window open; kernels want room for one packet at least. */
const leastBurstBytes = 10 * 1500;
/** What CNI's plug-in is told by runtimes, 2^32 - 1 bits. The kernel counts a burst in 64 ns, 275 s at most. */
const mostBurstBytes = 536_870_911;
const mostBurstSeconds = 270;
/** Ours among the disciplines and filters of an interface, hexadecimal. */
const handle = "82:";
const preference = "82";

function hash(text: string, digits: number): string {
  return createHash("sha256").update(text).digest("hex").slice(0, digits);
}

/** What names of {@link intermediateName} begin with. Two agents on one machine have two bridges. */
export function intermediatePrefix(bridge: string): string {
  return `rmb${hash(bridge, 4)}`;
}

/** The device that what a pod sends is queued on: 15 characters at most, never reused. */
export function intermediateName(bridge: string, sandboxID: string): string {
  return `${intermediatePrefix(bridge)}${hash(sandboxID, 8)}`;
}

/** A token bucket filter (tc-tbf(8)). */
export interface TokenBucket {
  readonly bitsPerSecond: number;
  readonly burstBytes: number;
  /** What may wait, burst included. */
  readonly limitBytes: number;
}

/**
 * The filter of a rate. Limit and latency are those of CNI's plug-in `bandwidth`. The burst is not: runtimes tell that one
 * 512 MB, and a pod feels no limit before it has sent as much.
 */
export function tokenBucket(bitsPerSecond: number, mtu: number): TokenBucket {
  const bytesPerSecond = bitsPerSecond / 8;
  const wanted = Math.max(bytesPerSecond * waitSeconds, leastBurstBytes, 2 * mtu);
  const burstBytes = Math.floor(
    Math.min(wanted, mostBurstBytes, bytesPerSecond * mostBurstSeconds),
  );
  const waiting = Math.min(bytesPerSecond * waitSeconds, mostBurstBytes);
  return { bitsPerSecond, burstBytes, limitBytes: Math.ceil(waiting) + burstBytes };
}

/** A pod whose bandwidth is limited. */
export interface LimitedPod {
  /** Host side of its interface pair: what leaves by it comes to the pod. */
  readonly veth: string;
  /** Where what the pod sends is queued. */
  readonly intermediate: string;
  readonly bandwidth: PodBandwidth;
  readonly mtu: number;
}

/** What the kernel has of limits. */
export interface Shaping {
  readonly links: readonly Link[];
  /** By interface: the handle and kind of its root discipline. */
  readonly roots: ReadonlyMap<string, { readonly handle: string; readonly kind: string }>;
  /** Interfaces with a hook for what comes in. */
  readonly entrances: ReadonlySet<string>;
  /** Interfaces that filters send packets to. */
  readonly redirectedTo: ReadonlySet<string>;
}

/** Reads `tc qdisc show` and `tc filter show dev X ingress` of any number of interfaces. Pure. */
export function parseShaping(
  links: readonly Link[],
  { qdiscs, filters }: { readonly qdiscs: string; readonly filters: string },
): Shaping {
  const roots = new Map<string, { readonly handle: string; readonly kind: string }>();
  const entrances = new Set<string>();
  for (const line of qdiscs.split("\n")) {
    const [, kind = "", mark = "", device = "", parent = ""] =
      /^qdisc (\S+) (\S+) dev (\S+) (?:parent )?(\S+)/.exec(line) ?? [];
    if (parent === "root") roots.set(device, { handle: mark, kind });
    // Somebody's clsact has the same hook, and there can only be one of the two.
    if (kind === "ingress" || kind === "clsact") entrances.add(device);
  }
  const redirects = filters.matchAll(/\(Egress Redirect to device ([^\s)]+)\)/g);
  return {
    links,
    roots,
    entrances,
    redirectedTo: new Set([...redirects].map(([, to = ""]) => to)),
  };
}

/** Lines for `ip` and, after them, for `tc`. */
export interface ShapingCommands {
  readonly ip: readonly string[];
  readonly tc: readonly string[];
}

function rootCommands(device: string, bucket: TokenBucket, { roots }: Shaping): readonly string[] {
  const root = roots.get(device);
  if (root?.handle === handle && root.kind === "tbf") return [];
  const { bitsPerSecond, burstBytes, limitBytes } = bucket;
  const add = `qdisc add dev ${device} root handle ${handle} tbf rate ${bitsPerSecond}bit burst ${burstBytes}b limit ${limitBytes}b`;
  // The kernel's own has no number, and cannot be taken away.
  return root === undefined || root.handle === "0:" ? [add] : [`qdisc del dev ${device} root`, add];
}

/** What is missing of the limits of a pod; nothing when its interface is gone. Pure. */
export function shapingCommands(pod: LimitedPod, shaping: Shaping): ShapingCommands {
  const { bandwidth, intermediate, mtu, veth } = pod;
  const { entrances, links, redirectedTo } = shaping;
  const ip: string[] = [];
  const tc: string[] = [];
  if (!links.some(({ name }) => name === veth)) return { ip, tc };
  const { egressBits, ingressBits } = bandwidth;
  if (ingressBits !== undefined) {
    tc.push(...rootCommands(veth, tokenBucket(ingressBits, mtu), shaping));
  }
  if (egressBits === undefined) return { ip, tc };
  const found = links.find(({ name }) => name === intermediate);
  if (found === undefined) ip.push(`link add name ${intermediate} mtu ${mtu} up type ifb`);
  // What is sent to one that is down is lost.
  else if (!found.up) ip.push(`link set dev ${intermediate} up`);
  tc.push(...rootCommands(intermediate, tokenBucket(egressBits, mtu), shaping));
  if (!entrances.has(veth)) tc.push(`qdisc add dev ${veth} ingress`);
  if (!redirectedTo.has(intermediate)) {
    tc.push(
      `filter replace dev ${veth} ingress protocol all pref ${preference} handle 800::800 u32 match u32 0 0 action mirred egress redirect dev ${intermediate}`,
    );
  }
  return { ip, tc };
}
