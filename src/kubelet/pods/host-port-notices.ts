import { networkInterfaces } from "node:os";

import { canonicalIP, type IPFamily, ipFamily } from "../../lib/cidr.ts";
import {
  type ListeningSocket,
  listensOn,
  readListeningSockets,
} from "../../lib/listening-sockets.ts";
import type { HostPort } from "../../network/types.ts";

/** What is to be known of this machine to judge a host port. */
export interface HostPortFacts {
  /** The pod's addresses. */
  readonly podIPs: readonly string[];
  /** Those of the machine's interfaces. */
  readonly addresses: ReadonlySet<string>;
  readonly sockets: readonly ListeningSocket[];
}

/** An event about a host port. */
export interface HostPortNotice {
  readonly reason: "HostPortNotServed" | "HostPortHidesListener";
  readonly message: string;
}

const families: readonly IPFamily[] = ["IPv4", "IPv6"];
const everywhere: Readonly<Record<IPFamily, string>> = { IPv4: "0.0.0.0", IPv6: "::" };

function portName({ hostIP, hostPort, protocol }: HostPort): string {
  const at = hostIP === "" ? "" : ` of ${hostIP}`;
  return `hostPort ${hostPort}/${protocol}${at}`;
}

function isLoopback(ip: string): boolean {
  return ip === "::1" || ip.startsWith("127.");
}

/** Why a host port answers nobody, or not all. */
function notServed(port: HostPort, { addresses, podIPs }: HostPortFacts): string | undefined {
  if (port.hostIP === "") return undefined;
  const family = ipFamily(port.hostIP);
  if (family === undefined) return "hostIP is no IP address";
  if (!podIPs.some((ip) => ipFamily(ip) === family)) return `the pod has no ${family} address`;
  const ip = canonicalIP(port.hostIP);
  if (ip === "::1") {
    return "IPv6 has no way from ::1 to a pod: only clients on the node that ask from another of its addresses get an answer";
  }
  if (isLoopback(ip) || ip === everywhere[family] || addresses.has(ip)) return undefined;
  return "no interface of the node has this address: it is served as soon as one has";
}

/** A program of the node that listens where packets go to the pod from now on. */
function hidden(port: HostPort, { podIPs, sockets }: HostPortFacts): ListeningSocket | undefined {
  const { hostIP, hostPort, protocol } = port;
  return families
    .filter((family) => podIPs.some((ip) => ipFamily(ip) === family))
    .filter((family) => hostIP === "" || ipFamily(hostIP) === family)
    .flatMap((family) => {
      const ip = hostIP === "" ? everywhere[family] : canonicalIP(hostIP);
      const target = { family, port: hostPort, protocol };
      if (ip !== everywhere[family]) {
        return sockets.filter((socket) => listensOn(socket, { ...target, ip }));
      }
      // Of the loopback addresses only the first is served by host ports of all addresses, and ::1 is not.
      return sockets.filter(
        (socket) =>
          listensOn(socket, { ...target, ip: socket.ip }) &&
          (!isLoopback(socket.ip) || socket.ip === "127.0.0.1"),
      );
    })
    .at(0);
}

/**
 * What whoever looks at a pod should know of its host ports: upstream says nothing, and a port that is served by nobody,
 * or taken from a program such as ssh, is hard to find. Pure.
 */
export function hostPortNotices(
  ports: readonly HostPort[],
  facts: HostPortFacts,
): readonly HostPortNotice[] {
  return ports.flatMap((port): HostPortNotice[] => {
    const why = notServed(port, facts);
    if (why !== undefined) {
      return [{ reason: "HostPortNotServed", message: `${portName(port)} is not served: ${why}` }];
    }
    const socket = hidden(port, facts);
    if (socket === undefined) return [];
    const at = socket.ip.includes(":") ? `[${socket.ip}]` : socket.ip;
    const message = `${portName(port)} leads to this pod, no longer to the program of user ${socket.uid} that listens on ${at}:${socket.port}`;
    return [{ reason: "HostPortHidesListener", message }];
  });
}

/** Looks at this machine. */
export async function hostPortFacts(podIPs: readonly string[]): Promise<HostPortFacts> {
  const all = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
  return {
    podIPs,
    addresses: new Set(all.map(({ address }) => canonicalIP(address.replace(/%.*$/, "")))),
    sockets: await readListeningSockets(),
  };
}
