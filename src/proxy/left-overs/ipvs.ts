import { readFile } from "node:fs/promises";

import { errorMessage, isAbort } from "../../lib/errors.ts";
import { outputIfThere, runIfThere } from "./tool.ts";

/** The device that kube-proxy's mode ipvs gives the addresses of all Services. */
const device = "kube-ipvs0";
const nodePortSets = /^KUBE-(?:6-)?NODE-PORT-/;
/** The sets of kube-proxy; kube-router has others that begin with KUBE- too. */
const ownSets =
  /^KUBE-(?:6-)?(?:LOOP-BACK|CLUSTER-IP|EXTERNAL-IP(?:-LOCAL)?|LOAD-BALANCER(?:-FW|-LOCAL|-SOURCE-IP|-SOURCE-CIDR)?|NODE-PORT-(?:LOCAL-)?(?:TCP|UDP|SCTP-HASH)|HEALTH-CHECK-NODE-PORT|IPVS-IPS)$/;
const noIpvsadm =
  "IPVS has virtual servers of kube-proxy and ipvsadm is not installed: run `apt-get install ipvsadm` and start again, or reboot";

/** A virtual server of the kernel's IPVS, as `ipvsadm -Sn` writes it. */
export interface VirtualServer {
  readonly protocol: "tcp" | "udp" | "sctp";
  readonly address: string;
  readonly port: number;
  /** How to delete it: an argument list of ipvsadm. */
  readonly deletion: readonly string[];
}

/** Virtual servers in a listing of `ipvsadm -Sn`. */
export function parseVirtualServers(text: string): readonly VirtualServer[] {
  return text.split("\n").flatMap((line) => {
    const [, option, address = "", port = ""] =
      /^-A (-t|-u|--sctp-service) \[?([0-9a-fA-F.:]+?)\]?:(\d+)(?: |$)/.exec(line) ?? [];
    if (option === undefined) return [];
    const protocol = option === "-t" ? "tcp" : option === "-u" ? "udp" : "sctp";
    const where = address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
    return [{ protocol, address, port: Number(port), deletion: ["-D", option, where] }];
  });
}

/** Node ports in a listing of one set (`ipset save`), as `protocol port`. */
export function parseNodePorts(text: string): ReadonlySet<string> {
  const found = new Set<string>();
  for (const line of text.split("\n")) {
    const [, set = "", member = ""] = /^add (\S+) (\S+)/.exec(line) ?? [];
    if (!nodePortSets.test(set)) continue;
    const [, named = "", port = ""] = /(?:^|,)(?:(tcp|udp|sctp):)?(\d+)$/.exec(member) ?? [];
    const protocol = named === "" ? set.split("-").at(-1)?.toLowerCase() : named;
    if (port !== "") found.add(`${protocol} ${port}`);
  }
  return found;
}

/**
 * The virtual servers that kube-proxy made: those of the addresses on its device, and those of its node ports. All
 * others are somebody else's, such as keepalived's.
 */
export function kubeProxyServers(
  servers: readonly VirtualServer[],
  addresses: ReadonlySet<string>,
  nodePorts: ReadonlySet<string>,
): readonly VirtualServer[] {
  return servers.filter(
    ({ address, port, protocol }) => addresses.has(address) || nodePorts.has(`${protocol} ${port}`),
  );
}

async function deviceAddresses(signal: AbortSignal): Promise<ReadonlySet<string> | undefined> {
  const result = await runIfThere(["ip", "-o", "address", "show", "dev", device], { signal });
  if (result === undefined || result.exitCode !== 0) return undefined;
  return new Set([...result.stdout.matchAll(/ inet6? ([0-9a-fA-F.:]+)/g)].map(([, ip = ""]) => ip));
}

/** What kube-proxy's mode ipvs left: found, and how to remove it, each by its own tool. */
export interface IpvsFindings {
  readonly addresses: ReadonlySet<string> | undefined;
  readonly sets: readonly string[];
  readonly servers: readonly VirtualServer[];
  /** There are virtual servers, and no tool to tell whose. */
  readonly unknown: boolean;
}

/** Whether the kernel has any virtual server, whoever made it. */
async function hasServers(): Promise<boolean> {
  const text = await readFile("/proc/self/net/ip_vs", "utf8").catch(() => "");
  return /^(?:TCP|UDP|SCTP) /m.test(text);
}

/** @throws `AbortError`. A tool that is not there, or fails, has found nothing. */
export async function findIpvs(signal: AbortSignal): Promise<IpvsFindings> {
  const addresses = await deviceAddresses(signal);
  // Names alone: sets of others may have a million members.
  const names = (await runIfThere(["ipset", "list", "-n"], { signal }))?.stdout ?? "";
  const sets = names.split("\n").filter((name) => ownSets.test(name));
  if (addresses === undefined && sets.length === 0) {
    return { addresses, sets, servers: [], unknown: false };
  }
  const listed = (await runIfThere(["ipvsadm", "-Sn"], { signal }))?.stdout;
  let saved = "";
  for (const name of sets.filter((set) => nodePortSets.test(set))) {
    saved += (await runIfThere(["ipset", "save", name], { signal }))?.stdout ?? "";
  }
  const servers = kubeProxyServers(
    parseVirtualServers(listed ?? ""),
    addresses ?? new Set(),
    parseNodePorts(saved),
  );
  return { addresses, sets, servers, unknown: listed === undefined && (await hasServers()) };
}

/**
 * Removes what {@link findIpvs} found; no rule may name the sets any more. The virtual servers go first: by the device
 * they are known.
 *
 * @returns One sentence for what could not be removed.
 * @throws `AbortError`.
 */
export async function removeIpvs(
  { addresses, servers, sets, unknown }: IpvsFindings,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const failures: string[] = [];
  const attempt = async (argv: readonly [string, ...string[]]): Promise<void> => {
    try {
      await outputIfThere(argv, { signal });
    } catch (error) {
      if (isAbort(error)) throw error;
      failures.push(errorMessage(error));
    }
  };
  for (const { deletion } of servers) await attempt(["ipvsadm", ...deletion]);
  if (unknown) failures.push(noIpvsadm);
  // What says which servers are kube-proxy's stays until they are gone.
  if (failures.length > 0) return failures;
  for (const name of sets) await attempt(["ipset", "destroy", name]);
  if (addresses !== undefined) await attempt(["ip", "link", "delete", device]);
  return failures;
}
