import { canonicalIP, type Cidr, cidrAddress, cidrContains } from "../lib/cidr.ts";
import { SetupError } from "../lib/errors.ts";
import { execResult } from "../lib/exec.ts";
import type { Logger } from "../lib/log.ts";
import { bridgeAddressCommands, bridgeMAC, ipBatch, type Link, listLinks } from "./links.ts";
import { ensureSysctl } from "./sysctls.ts";

/** How the bridge of pods is to stand. */
export interface BridgeDevice {
  readonly name: string;
  readonly podCIDRs: readonly Cidr[];
  /** What else the node answers on, as single addresses. */
  readonly local: readonly string[];
  readonly mtu: number;
}

function macOf({ podCIDRs }: BridgeDevice): string {
  const [first] = podCIDRs;
  return bridgeMAC(first === undefined ? "0.0.0.0" : cidrAddress(first, 1));
}

/**
 * Ours under another name: no two bridges have its MAC address, which is made of the gateway's address. Left as it is it
 * would keep the pods' gateway. Pure.
 */
export function renamedBridge(wanted: BridgeDevice, links: readonly Link[]): Link | undefined {
  if (links.some(({ name }) => name === wanted.name)) return undefined;
  return links.find(({ kind, mac }) => kind === "bridge" && mac === macOf(wanted));
}

/**
 * Interfaces of others with an address of the node's pod networks, as a network plug-in leaves them behind: packets for
 * pods may go there. Pure.
 */
export function rivals(wanted: BridgeDevice, links: readonly Link[]): readonly string[] {
  return links.flatMap(({ addresses, name }) => {
    if (name === wanted.name) return [];
    const rival = addresses.find(({ ip }) =>
      wanted.podCIDRs.some((cidr) => cidrContains(cidr, ip)),
    );
    return rival === undefined
      ? []
      : [
          `interface ${name} has ${rival.ip}/${rival.prefix}, which is of the pod network of this node, and packets for pods may go there: remove it with \`ip addr del ${rival.ip}/${rival.prefix} dev ${name}\``,
        ];
  });
}

/**
 * Makes the bridge, or mends what others did to it: renamed, down, another MTU or MAC address, addresses gone. Writes
 * nothing when `links` show it to be right.
 *
 * @returns The links as they are now.
 * @throws {SetupError}, {ExecError}, `AbortError`.
 */
export async function ensureBridgeDevice(
  wanted: BridgeDevice,
  links: readonly Link[],
  logger: Logger,
  signal: AbortSignal,
): Promise<readonly Link[]> {
  const { name } = wanted;
  const renamed = renamedBridge(wanted, links);
  if (renamed !== undefined) {
    logger.log("warn", "the bridge of pods was renamed and gets its name back", {
      device: name,
      was: renamed.name,
    });
    // An interface that is up keeps its name; going down costs it its IPv6 addresses.
    await ipBatch(
      [`link set dev ${renamed.name} down`, `link set dev ${renamed.name} name ${name}`],
      signal,
    );
    return ensureBridgeDevice(wanted, await listLinks(signal), logger, signal);
  }
  const found = links.find((link) => link.name === name);
  if (found !== undefined && found.kind !== "bridge") {
    throw new SetupError(
      `an interface named ${name} exists and is not a bridge: remove it (\`ip link del ${name}\`) or choose another name`,
    );
  }
  const mac = macOf(wanted);
  const lines: string[] = [];
  if (found === undefined) await ipBatch([`link add name ${name} type bridge`], signal);
  if (found?.mac !== mac) lines.push(`link set dev ${name} address ${mac}`);
  if (found?.mtu !== wanted.mtu) lines.push(`link set dev ${name} mtu ${wanted.mtu}`);
  // Before addresses: a device on which IPv6 is switched off takes none.
  await ensureBridgeSettings(wanted);
  lines.push(...bridgeAddressCommands(wanted, found, name));
  if (found?.up !== true) lines.push(`link set dev ${name} up`);
  else lines.push(...linkLocalCommands(wanted, found));
  if (lines.length > 0) await ipBatch(lines, signal);
  return found === undefined || lines.length > 0 ? listLinks(signal) : links;
}

/** The address that the kernel makes of a MAC address (RFC 4291, appendix A). Pure. */
export function linkLocalAddress(mac: string): string {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = mac
    .split(":")
    .map((byte) => Number.parseInt(byte, 16));
  const words = [
    [a ^ 2, b],
    [c, 0xff],
    [0xfe, d],
    [e, f],
  ] as const;
  return canonicalIP(
    `fe80::${words.map(([high, low]) => (high * 256 + low).toString(16)).join(":")}`,
  );
}

/** Without one the kernel asks for no neighbour on behalf of others, and makes one only when the device comes up. */
function linkLocalCommands(wanted: BridgeDevice, found: Link): readonly string[] {
  const needed = wanted.podCIDRs.some(({ family }) => family === "IPv6");
  if (!needed || found.addresses.some(({ ip }) => ip.startsWith("fe80:"))) return [];
  return [`addr replace ${linkLocalAddress(macOf(wanted))}/64 dev ${wanted.name} nodad`];
}

async function ensureBridgeSettings({ name, podCIDRs }: BridgeDevice): Promise<void> {
  // Pods that know another MAC address of it hear of this one.
  await ensureSysctl(`ipv4/conf/${name}/arp_notify`, "1");
  if (!podCIDRs.some(({ family }) => family === "IPv6")) return;
  const at = `ipv6/conf/${name}`;
  await ensureSysctl(`${at}/disable_ipv6`, "0");
  await ensureSysctl(`${at}/ndisc_notify`, "1");
  // Our addresses are ours alone; waiting a second to find that out would make the first packets of pods time out.
  await ensureSysctl(`${at}/accept_dad`, "0");
  // A pod that may send raw packets must not become the node's router.
  await ensureSysctl(`${at}/accept_ra`, "0");
  await ensureSysctl(`${at}/accept_redirects`, "0");
}

/** Commands that put interfaces of pods back on the bridge, and up. Pure. */
export function attachCommands(
  veths: ReadonlySet<string>,
  links: readonly Link[],
  bridge: string,
): readonly string[] {
  return links
    .filter(({ name }) => veths.has(name))
    .flatMap(({ hairpin, master, name, up }) => [
      ...(master === bridge ? [] : [`link set dev ${name} master ${bridge}`]),
      ...(master === bridge && hairpin === true
        ? []
        : [`link set dev ${name} type bridge_slave hairpin on`]),
      ...(up ? [] : [`link set dev ${name} up`]),
    ]);
}

/** Carries out what {@link attachCommands} says. One interface that goes meanwhile does not hold up the others. */
export async function attach(lines: readonly string[], signal: AbortSignal): Promise<void> {
  if (lines.length === 0) return;
  await execResult(["ip", "-force", "-batch", "-"], { stdin: `${lines.join("\n")}\n`, signal });
}
