import { networkInterfaces } from "node:os";

import { canonicalIP, type IPFamily, ipFamily } from "../lib/cidr.ts";
import { errorCode, ExecError } from "../lib/errors.ts";
import { execResult } from "../lib/exec.ts";
import { familyArgs, type FlowEnds, listConntrack, parseFlow } from "../netfilter/conntrack.ts";
import type { HostPortMapping } from "./host-ports.ts";

/** Without such a tool, and when there is no such flow (exit code 1), nothing happens. @throws `AbortError`. */
async function forget(selection: readonly string[], signal: AbortSignal): Promise<void> {
  try {
    await execResult(["conntrack", "-D", ...selection], { signal });
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
  }
}

function udpOf(family: IPFamily): readonly string[] {
  return ["-p", "udp", ...familyArgs(family)];
}

/** Flows to a pod that is gone would otherwise swallow datagrams for as long as the client keeps sending. */
export async function forgetUDPFlows(podIP: string, signal: AbortSignal): Promise<void> {
  await forget([...udpOf(ipFamily(podIP) ?? "IPv4"), "--reply-src", podIP], signal);
}

/**
 * Whether a host port did not take the flow, because it was not there yet: it was sent to one of its addresses and went
 * on untranslated. Flows that others translated, as Services do, are theirs. Pure.
 *
 * @param bound Where the host port is served.
 */
export function isPastHostPort(flow: FlowEnds, bound: (address: string) => boolean): boolean {
  return flow.destination === flow.from && bound(canonicalIP(flow.destination));
}

function nodeAddresses(): ReadonlySet<string> {
  const all = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
  return new Set(all.map(({ address }) => canonicalIP(address.replace(/%.*$/, ""))));
}

/** Addresses of the flows to `port` that are past the host port; none without a tool that lists them. */
async function addressesPast(
  port: readonly string[],
  bound: (address: string) => boolean,
  signal: AbortSignal,
): Promise<ReadonlySet<string>> {
  const found = new Set<string>();
  const onLine = (line: string): void => {
    const flow = parseFlow(line);
    if (flow !== undefined && isPastHostPort(flow, bound)) found.add(flow.destination);
  };
  try {
    await listConntrack(port, onLine, signal);
  } catch (error) {
    // 127: no such tool. Another failure must not keep a pod from its network either.
    if (!(error instanceof ExecError)) throw error;
  }
  return found;
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
    for (const to of await addressesPast(port, bound, signal)) {
      await forget([...port, "--orig-dst", to, "--reply-src", to], signal);
    }
  }
}
