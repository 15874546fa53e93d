import { ipFamily } from "../lib/cidr.ts";
import { errorCode } from "../lib/errors.ts";
import { execResult } from "../lib/exec.ts";

/** Flows to a pod that is gone would otherwise swallow datagrams for as long as the client keeps sending. */
export async function forgetUDPFlows(podIP: string, signal: AbortSignal): Promise<void> {
  const family = ipFamily(podIP) === "IPv6" ? "ipv6" : "ipv4";
  try {
    await execResult(["conntrack", "-D", "-f", family, "-p", "udp", "--reply-src", podIP], {
      signal,
    });
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
  }
}
