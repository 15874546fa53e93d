import { createHash } from "node:crypto";

import { type Cidr, cidrAddress, type IPFamily, ipFamily, parseIP } from "../lib/cidr.ts";
import { ExecError, SetupError, errorCode } from "../lib/errors.ts";
import { execResult } from "../lib/exec.ts";
import { isRecord } from "../lib/guard.ts";
import { readIfThere } from "../lib/read-if-there.ts";

/** Host side of a pod's interface pair: 15 characters at most, never reused, because sandbox IDs are not. */
export function vethName(sandboxID: string): string {
  return `rmv${createHash("sha256").update(sandboxID).digest("hex").slice(0, 11)}`;
}

/**
 * A bridge otherwise takes the lowest address of its ports, which changes as pods come and go, and pods would keep
 * sending to the old one.
 */
export function bridgeMAC(gateway: string): string {
  const value = parseIP(gateway) & 0xffff_ffffn;
  const bytes = [24n, 16n, 8n, 0n].map((shift) => Number((value >> shift) & 255n));
  return ["0a", "58", ...bytes.map((byte) => byte.toString(16).padStart(2, "0"))].join(":");
}

/**
 * Runs one of the tools that come with `ip`.
 *
 * @throws {SetupError} there is none, or it may not; {ExecError} it failed; `AbortError`.
 */
export async function runTool(
  argv: readonly [string, ...string[]],
  stdin: string,
  signal: AbortSignal,
): Promise<string> {
  let result;
  try {
    result = await execResult(argv, { stdin, signal });
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
    throw new SetupError(
      `${argv[0]} is not installed: run \`apt-get install iproute2 util-linux\``,
      { cause: error },
    );
  }
  if (result.exitCode === 0) return result.stdout;
  if (/Operation not permitted/.test(result.stderr)) {
    throw new SetupError(
      "network interfaces may not be changed: run remora as root (CAP_NET_ADMIN and CAP_SYS_ADMIN on the host)",
    );
  }
  throw new ExecError(argv, result.exitCode, result.stderr);
}

/** Runs `ip` commands in one process; the first failing line ends the batch. */
export async function ipBatch(lines: readonly string[], signal: AbortSignal): Promise<void> {
  await runTool(["ip", "-batch", "-"], `${lines.join("\n")}\n`, signal);
}

/** What {@link ipBatchInside} sets of the namespace before it runs the commands. */
export interface InsideOptions {
  /** Some engines switch IPv6 off in containers without a network. */
  readonly enableIPv6: boolean;
  /**
   * `eth0` listens to no router advertisements and redirects: another pod on its network could send them (CVE-2020-10749).
   */
  readonly isolateIPv6?: boolean;
}

const enableIPv6Script =
  "for f in all default lo; do echo 0 > /proc/sys/net/ipv6/conf/$f/disable_ipv6; done";
/** On a kernel without IPv6 there are no such files, and nobody to protect from. */
const isolateIPv6Script =
  "for f in accept_ra accept_redirects; do echo 0 > /proc/sys/net/ipv6/conf/eth0/$f; done 2>/dev/null";

/** The same inside the network namespace of a process. */
export async function ipBatchInside(
  pid: number,
  lines: readonly string[],
  options: InsideOptions,
  signal: AbortSignal,
): Promise<void> {
  const inside = ["nsenter", "-t", String(pid), "-n"] as const;
  // /proc/sys/net shows the namespace of who opens it, so this takes a shell inside.
  const script = [
    ...(options.enableIPv6 ? [enableIPv6Script] : []),
    ...(options.isolateIPv6 === true ? [isolateIPv6Script] : []),
    "exec ip -batch -",
  ];
  const argv =
    script.length > 1
      ? ([...inside, "sh", "-c", script.join("; ")] as const)
      : ([...inside, "ip", "-batch", "-"] as const);
  await runTool(argv, `${lines.join("\n")}\n`, signal);
}

export interface Link {
  readonly name: string;
  readonly master: string | undefined;
  readonly up: boolean;
  readonly mtu: number;
  readonly mac: string;
  readonly kind: string | undefined;
  /** Of a bridge's port: whether packets may leave by it that came in by it. */
  readonly hairpin?: boolean;
  readonly addresses: readonly { readonly ip: string; readonly prefix: number }[];
}

/** Interfaces with their addresses, of the host or of a process's network namespace. */
export async function listLinks(signal: AbortSignal, pid?: number): Promise<readonly Link[]> {
  const show = ["ip", "-j", "-d", "addr", "show"] as const;
  const argv = pid === undefined ? show : (["nsenter", "-t", String(pid), "-n", ...show] as const);
  return parseLinks(JSON.parse(await runTool(argv, "", signal)));
}

/** Reads `ip -j -d addr show`. */
export function parseLinks(value: unknown): readonly Link[] {
  if (!Array.isArray(value)) return [];
  return value.flatMap((item: unknown): Link[] => {
    if (!isRecord(item) || typeof item["ifname"] !== "string") return [];
    const { ifname, master, flags, mtu, address, linkinfo, addr_info: infos } = item;
    const port: unknown = isRecord(linkinfo) ? linkinfo["info_slave_data"] : undefined;
    const hairpin: unknown = isRecord(port) ? port["hairpin"] : undefined;
    return [
      {
        name: ifname,
        master: typeof master === "string" ? master : undefined,
        up: Array.isArray(flags) && flags.includes("UP"),
        mtu: typeof mtu === "number" ? mtu : 1500,
        mac: typeof address === "string" ? address : "",
        kind:
          isRecord(linkinfo) && typeof linkinfo["info_kind"] === "string"
            ? linkinfo["info_kind"]
            : undefined,
        ...(typeof hairpin === "boolean" ? { hairpin } : {}),
        addresses: Array.isArray(infos) ? infos.flatMap(parseAddress) : [],
      },
    ];
  });
}

function parseAddress(value: unknown): { ip: string; prefix: number }[] {
  if (!isRecord(value)) return [];
  const { local, prefixlen } = value;
  return typeof local === "string" && typeof prefixlen === "number"
    ? [{ ip: local, prefix: prefixlen }]
    : [];
}

/**
 * Sandboxes whose interface is not on the bridge, or down. None while there is no bridge: that has to come first.
 * Pure.
 */
export function cutOff(
  sandboxIDs: readonly string[],
  links: readonly Link[],
  bridge: string,
): readonly string[] {
  if (!links.some(({ name }) => name === bridge)) return [];
  const attached = new Set(
    links.flatMap(({ master, name, up }) => (master === bridge && up ? [name] : [])),
  );
  return sandboxIDs.filter((id) => !attached.has(vethName(id)));
}

/** The interface of the default route. */
export async function findUplink(links: readonly Link[]): Promise<Link | undefined> {
  // Read from procfs, not asked of `ip`: this runs every half minute.
  const [v4, v6] = await Promise.all([
    readIfThere("/proc/self/net/route"),
    readIfThere("/proc/self/net/ipv6_route"),
  ]);
  const device = defaultRouteDevice(v4 ?? "", v6 ?? "");
  return links.find((link) => link.name === device);
}

/** The interface of the default route with the lowest metric, IPv4's first. Pure; takes the two procfs tables. */
export function defaultRouteDevice(v4: string, v6: string): string | undefined {
  // Iface Destination Gateway Flags RefCnt Use Metric Mask; numbers are hexadecimal, the metric is not.
  const fours = v4
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter((field) => field[1] === "00000000" && field[7] === "00000000")
    .map((field) => ({ device: field[0], metric: Number(field[6]) }));
  // Destination prefix source prefix nexthop metric refcount use flags device.
  const sixes = v6
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter((field) => /^0{32}$/.test(field[0] ?? "") && field[1] === "00" && field[9] !== "lo")
    .map((field) => ({ device: field[9], metric: Number.parseInt(field[5] ?? "", 16) }));
  const [best] = (fours.length > 0 ? fours : sixes).toSorted((a, b) => a.metric - b.metric);
  return best?.device;
}

/** Deletes an interface of the host; with it goes its peer. Not there is success. */
export async function deleteLink(name: string, signal: AbortSignal): Promise<void> {
  const result = await execResult(["ip", "link", "del", "dev", name], { signal });
  if (result.exitCode === 0 || /Cannot find device/.test(result.stderr)) return;
  throw new ExecError(["ip", "link", "del", name], result.exitCode, result.stderr);
}

/** Host width: pods hold single addresses, so that everything they send passes the node. */
export function hostPrefix(family: IPFamily): 32 | 128 {
  return family === "IPv4" ? 32 : 128;
}

/** Commands inside the pod's namespace, safe to repeat. `gateways` are the bridge's addresses, one per family. */
export function podCommands(ips: readonly string[], gateways: readonly string[]): string[] {
  const lines = ["link set dev lo up"];
  for (const ip of ips) {
    const family = ipFamily(ip) ?? "IPv4";
    lines.push(
      `addr replace ${ip}/${hostPrefix(family)} dev eth0${family === "IPv6" ? " nodad" : ""}`,
    );
  }
  lines.push("link set dev eth0 up");
  for (const gateway of gateways) {
    const family = ipFamily(gateway) ?? "IPv4";
    // Spelled as prefixes, because a batch line has no -6: `ip` takes the family from the address.
    lines.push(`route replace ${gateway}/${hostPrefix(family)} dev eth0`);
    lines.push(
      family === "IPv6"
        ? `route replace ::/0 via ${gateway} dev eth0`
        : `route replace 0.0.0.0/0 via ${gateway} dev eth0`,
    );
  }
  return lines;
}

/** What the bridge is to hold: the gateways of pods, and what else the node answers on. */
export interface BridgeAddresses {
  readonly podCIDRs: readonly Cidr[];
  readonly local: readonly string[];
}

/** Commands that give the bridge its addresses and take away those of former times. */
export function bridgeAddressCommands(
  { podCIDRs, local }: BridgeAddresses,
  found: Link | undefined,
  bridge: string,
): readonly string[] {
  const lines: string[] = [];
  const gateways = podCIDRs.map((cidr) => ({
    ip: cidrAddress(cidr, 1),
    prefix: cidr.prefix,
    family: cidr.family,
  }));
  const others = local.map((ip) => {
    const family = ipFamily(ip) ?? "IPv4";
    return { ip, prefix: hostPrefix(family), family };
  });
  const wanted = [...gateways, ...others];
  for (const address of found?.addresses ?? []) {
    const keep =
      address.ip.startsWith("fe80:") ||
      wanted.some(({ ip, prefix }) => ip === address.ip && prefix === address.prefix);
    if (!keep) lines.push(`addr del ${address.ip}/${address.prefix} dev ${bridge}`);
  }
  for (const { ip, prefix, family } of wanted) {
    if (found?.addresses.some((address) => address.ip === ip && address.prefix === prefix) === true)
      continue;
    lines.push(`addr replace ${ip}/${prefix} dev ${bridge}${family === "IPv6" ? " nodad" : ""}`);
  }
  return lines;
}
