import { networkInterfaces } from "node:os";

import { canonicalIP, type IPFamily, ipFamily } from "../lib/cidr.ts";
import { errorCode } from "../lib/errors.ts";
import { execResult } from "../lib/exec.ts";
import type { HostPortMapping } from "./host-ports.ts";

/** @returns What it printed; empty without such a tool. Exit code 1 means that there was no such flow. */
async function conntrack(args: readonly string[], signal: AbortSignal): Promise<string> {
  try {
    return (await execResult(["conntrack", ...args], { signal })).stdout;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return "";
    throw error;
  }
}

function udpOf(family: IPFamily): readonly string[] {
  return ["-p", "udp", "-f", family === "IPv4" ? "ipv4" : "ipv6"];
}

/** Flows to a pod that is gone would otherwise swallow datagrams for as long as the client keeps sending. */
export async function forgetUDPFlows(podIP: string, signal: AbortSignal): Promise<void> {
  await conntrack(["-D", ...udpOf(ipFamily(podIP) ?? "IPv4"), "--reply-src", podIP], signal);
}

// Each line has two tuples, the original one and that of the answers.
const tuples = /^udp\s.*? src=\S+ dst=(\S+) sport=\d+ dport=\d+\s.*?src=(\S+) dst=\S+ sport=/;

/**
 * Addresses that flows in a listing of conntrack were sent to and went on to untranslated: those that a host port did
 * not take, because it was not there yet. Flows that others translated, as Services do, are theirs. Pure.
 *
 * @param bound Where the host port is served.
 */
export function untranslatedTo(
  listing: string,
  bound: (address: string) => boolean,
): readonly string[] {
  const found = listing.split("\n").flatMap((line) => {
    const [, to, from] = tuples.exec(line) ?? [];
    return to !== undefined && to === from && bound(canonicalIP(to)) ? [canonicalIP(to)] : [];
  });
  return [...new Set(found)];
}

function nodeAddresses(): ReadonlySet<string> {
  const all = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
  return new Set(all.map(({ address }) => canonicalIP(address.replace(/%.*$/, ""))));
}

/**
 * A client that kept sending to a port of the node while nobody served it would go on to be sent there, past the host
 * port that is open now: the kernel asks the rules only about a flow's first datagram.
 */
export async function forgetFlowsPastHostPorts(
  family: IPFamily,
  udp: readonly HostPortMapping[],
  signal: AbortSignal,
): Promise<void> {
  if (udp.length === 0) return;
  const own = nodeAddresses();
  for (const { address, hostPort } of udp) {
    const port = [...udpOf(family), "--dport", String(hostPort)];
    const bound = (to: string): boolean => (address === "" ? own.has(to) : to === address);
    for (const to of untranslatedTo(await conntrack(["-L", ...port], signal), bound)) {
      await conntrack(["-D", ...port, "--orig-dst", to, "--reply-src", to], signal);
    }
  }
}
