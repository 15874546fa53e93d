import {
  canonicalIP,
  cidrAddress,
  cidrSize,
  type IPFamily,
  ipFamily,
  parseCidr,
} from "../lib/cidr.ts";
import { ExecError, SetupError, errorCode } from "../lib/errors.ts";
import { type ExecResult, execResult } from "../lib/exec.ts";
import { isRecord } from "../lib/guard.ts";
import {
  asPrinted,
  type NodeRoute,
  planRoutes,
  type RemoteNode,
  routeProtocol,
  type RouteProblem,
} from "./route-plan.ts";

const families: readonly IPFamily[] = ["IPv4", "IPv6"];

async function ip(
  args: readonly string[],
  stdin: string,
  signal: AbortSignal,
): Promise<ExecResult> {
  try {
    return await execResult(["ip", ...args], { stdin, signal });
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
    throw new SetupError("ip is not installed: run `apt-get install iproute2`", { cause: error });
  }
}

function familyFlag(family: IPFamily): "-4" | "-6" {
  return family === "IPv4" ? "-4" : "-6";
}

/** Reads `ip -j route show proto N`. */
export function parseRoutes(value: unknown): readonly NodeRoute[] {
  if (!Array.isArray(value)) return [];
  return value.flatMap((item: unknown): NodeRoute[] => {
    if (!isRecord(item)) return [];
    const { dst, gateway, dev, metric } = item;
    if (typeof dst !== "string") return [];
    return [
      {
        destination: dst,
        gateway: typeof gateway === "string" ? gateway : "",
        device: typeof dev === "string" ? dev : "",
        metric: typeof metric === "number" ? metric : 0,
      },
    ];
  });
}

async function listRoutes(family: IPFamily, signal: AbortSignal): Promise<readonly NodeRoute[]> {
  const args = [familyFlag(family), "-j", "route", "show", "proto", String(routeProtocol)];
  const result = await ip(args, "", signal);
  if (result.exitCode === 0) {
    return result.stdout.trim() === "" ? [] : parseRoutes(JSON.parse(result.stdout));
  }
  // A kernel without this family has no routes of it.
  if (/not supported/i.test(result.stderr)) return [];
  throw new ExecError(["ip", ...args], result.exitCode, result.stderr);
}

/** Our routes, for people. */
export async function listNodeRoutes(signal: AbortSignal): Promise<readonly string[]> {
  const routes = await Promise.all(families.map((family) => listRoutes(family, signal)));
  return routes.flat().map(({ destination, gateway }) => `route to ${destination} via ${gateway}`);
}

/** Removes every route of ours, whichever process made it. None there is success. */
export async function removeNodeRoutes(signal: AbortSignal): Promise<void> {
  for (const family of families) await change([], await listRoutes(family, signal), signal);
}

/** Where the kernel sends packets for an address. */
export interface RouteLookup {
  /** Empty when the address answers on a network of this machine. */
  readonly gateway: string;
  readonly device: string;
  /** One of this machine. */
  readonly local: boolean;
}

/**
 * Reads `ip -j -batch` with `route get ADDRESS` lines: one array per line, none for an unreachable address.
 *
 * @returns By address, of those that are reachable.
 */
export function parseLookups(text: string): ReadonlyMap<string, RouteLookup> {
  const found = new Map<string, RouteLookup>();
  for (const line of text.split("\n")) {
    if (!line.startsWith("[")) continue;
    const value: unknown = JSON.parse(line);
    const route: unknown = Array.isArray(value) ? value[0] : undefined;
    if (!isRecord(route)) continue;
    const { dst, dev, gateway, type, via } = route;
    if (typeof dst !== "string" || typeof dev !== "string") continue;
    if (type !== undefined && type !== "unicast" && type !== "local") continue;
    const host: unknown = isRecord(via) ? via["host"] : gateway;
    found.set(dst, {
      gateway: typeof host === "string" ? host : "",
      device: dev,
      local: type === "local" || dev === "lo",
    });
  }
  return found;
}

/** Asks the kernel, which knows on-link routes that no address of an interface shows (/32 addresses of clouds). */
async function lookUp(
  addresses: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, RouteLookup>> {
  if (addresses.size === 0) return new Map();
  const lines = [...addresses].map((address) => `route get ${address}\n`);
  // -force: one that is unreachable must not hide the rest. The exit code then says nothing.
  const { stdout } = await ip(["-j", "-force", "-batch", "-"], lines.join(""), signal);
  return parseLookups(stdout);
}

async function change(
  replace: readonly NodeRoute[],
  remove: readonly NodeRoute[],
  signal: AbortSignal,
): Promise<void> {
  if (replace.length + remove.length === 0) return;
  const text = ({ destination, gateway, device, metric }: NodeRoute): string =>
    `${destination}${gateway === "" ? "" : ` via ${gateway}`} dev ${device} proto ${routeProtocol} metric ${metric}`;
  const lines = [
    ...replace.map((route) => `route replace ${text(route)}\n`),
    ...remove.map((route) => `route del ${text(route)}\n`),
  ];
  const args = ["-force", "-batch", "-"];
  const result = await ip(args, lines.join(""), signal);
  if (result.exitCode === 0) return;
  if (/Operation not permitted/.test(result.stderr)) {
    throw new SetupError(
      "routes may not be changed: run remora as root (CAP_NET_ADMIN on the host)",
    );
  }
  const troubles = result.stderr
    .split("\n")
    .filter((line) => line !== "" && !/No such process|^Command failed/.test(line));
  // Gone already is what a deletion wants.
  if (troubles.length > 0) throw new ExecError(["ip", ...args], result.exitCode, result.stderr);
}

/** What one look did and found. */
export interface RouteReport {
  /** Destinations. */
  readonly replaced: readonly NodeRoute[];
  readonly removed: readonly NodeRoute[];
  readonly problems: readonly RouteProblem[];
  /** Routes of ours that stand and are not used: sentences that say what is used in their place. */
  readonly overruled: readonly string[];
}

/** A pod's address in each network of others, to see where its packets go. */
function probes(remotes: readonly RemoteNode[]): ReadonlyMap<string, string> {
  return new Map(
    remotes.flatMap(({ podCIDRs }) =>
      podCIDRs.map((text) => {
        const cidr = parseCidr(text, "podCIDR");
        return [asPrinted(cidr), cidrAddress(cidr, cidrSize(cidr) > 2n ? 2 : 0)] as const;
      }),
    ),
  );
}

/** Routes of ours that stand, and which a route or rule (`ip rule`) of somebody else comes before. Pure. */
export function overruledRoutes(
  standing: readonly NodeRoute[],
  probed: ReadonlyMap<string, string>,
  lookups: ReadonlyMap<string, RouteLookup>,
): readonly string[] {
  return standing.flatMap(({ destination, device, gateway }) => {
    const probe = probed.get(destination);
    if (probe === undefined) return [];
    const used = lookups.get(probe);
    if (used?.gateway === gateway && used.device === device) return [];
    const where =
      used === undefined
        ? "nowhere"
        : `${used.gateway === "" ? "" : `via ${used.gateway} `}dev ${used.device}`;
    return [
      `${destination} via ${gateway} dev ${device} is not used: a route or rule of somebody else sends ${probe} ${where} (\`ip route get ${probe}\`, \`ip rule\`)`,
    ];
  });
}

/**
 * Brings our routes to the pods of other nodes in order; other routes are neither changed nor replaced. Two listings and
 * one look-up when all is right.
 *
 * @param remotes Oldest first.
 * @throws {ExecError}, {SetupError}, `AbortError`.
 */
export async function ensureNodeRoutes(
  remotes: readonly RemoteNode[],
  ownPodCIDRs: readonly string[],
  signal: AbortSignal,
): Promise<RouteReport> {
  const known = remotes.map((remote) => ({
    ...remote,
    addresses: remote.addresses
      .filter((address) => ipFamily(address) !== undefined)
      .map((address) => canonicalIP(address)),
  }));
  const probed = probes(known);
  const asked = [...known.flatMap(({ addresses }) => addresses), ...probed.values()];
  const [lookups, ...listed] = await Promise.all([
    lookUp(new Set(asked), signal),
    ...families.map((family) => listRoutes(family, signal)),
  ]);
  const existing = listed.flat();
  const onLink = new Map(
    [...lookups].flatMap(([address, { device, gateway, local }]) =>
      gateway === "" && !local ? [[address, device] as const] : [],
    ),
  );
  const own = new Set([...lookups].flatMap(([address, { local }]) => (local ? [address] : [])));
  const plan = planRoutes({ remotes: known, ownPodCIDRs, onLink, own, existing });
  await change(plan.replace, plan.remove, signal);
  const standing = existing.filter(
    ({ destination }) =>
      ![...plan.replace, ...plan.remove].some((route) => route.destination === destination),
  );
  return {
    replaced: plan.replace,
    removed: plan.remove,
    problems: plan.problems,
    overruled: overruledRoutes(standing, probed, lookups),
  };
}

/**
 * Whether a line of `ip -o monitor link address route` may mean that a route of ours went or can come back. What pods'
 * interfaces do is none of that. Pure.
 */
export function disturbsRoutes(line: string, bridge: string): boolean {
  // Interfaces and addresses come as `3: eth0@if2: <...>` and `3: eth0    inet ...`. The kernel takes IPv4 routes with a
  // link that goes down and says nothing of them.
  const [, device] = /^(?:Deleted )?\d+: ([^\s:@]+)/.exec(line) ?? [];
  if (device !== undefined) return device !== bridge && !device.startsWith("rmv");
  return line.startsWith("Deleted ") && line.includes(` proto ${routeProtocol} `);
}

/** Who wants to hear of what disturbs our routes. */
export interface RouteWatchOptions {
  readonly bridge: string;
  /** Must not throw. */
  readonly onDisturbed: () => void;
}
