import { formatIP } from "../../lib/cidr.ts";

/** A bound socket as /proc/net knows it. */
export interface BoundSocket {
  readonly protocol: "tcp" | "udp";
  readonly address: string;
  readonly port: number;
}

/** The kernel prints addresses as 32-bit words in the byte order of the machine, which is little endian wherever we run. */
function addressOf(hex: string): string | undefined {
  if (!/^(?:[0-9A-F]{8}|[0-9A-F]{32})$/.test(hex)) return undefined;
  const bytes = Buffer.from(hex, "hex");
  for (let at = 0; at < bytes.length; at += 4) bytes.subarray(at, at + 4).reverse();
  const value = BigInt(`0x${bytes.toString("hex")}`);
  return formatIP(value, bytes.length === 4 ? "IPv4" : "IPv6");
}

/**
 * Finds sockets by their inodes in the text of /proc/net/tcp, tcp6, udp or udp6: Node does not tell to what a descriptor
 * is bound before it has made the socket its own.
 */
export function findSockets(
  text: string,
  protocol: BoundSocket["protocol"],
  inodes: ReadonlySet<string>,
): ReadonlyMap<string, BoundSocket> {
  const found = new Map<string, BoundSocket>();
  for (const line of text.split("\n")) {
    const [, local = "", , , , , , , , inode = ""] = line.trim().split(/\s+/);
    if (!inodes.has(inode)) continue;
    const [hex = "", portHex = ""] = local.split(":");
    const address = addressOf(hex);
    if (address === undefined) continue;
    found.set(inode, { protocol, address, port: Number.parseInt(portHex, 16) });
  }
  return found;
}
