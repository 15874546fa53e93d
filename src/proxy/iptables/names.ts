import { hash } from "node:crypto";

import type { PlannedPort } from "../plan.ts";
import type { Backend } from "../types.ts";

/** Chains of one Service port, in table nat: all endpoints, local ones, external traffic, source ranges, one endpoint. */
export const portChainPrefixes = [
  "KUBE-SVC-",
  "KUBE-SVL-",
  "KUBE-EXT-",
  "KUBE-FW-",
  "KUBE-SEP-",
] as const;

type PortChainPrefix = (typeof portChainPrefixes)[number];

/** Made by older proxies, and stale in any case. */
const formerPrefixes = ["KUBE-XLB-"];

/** Whether a chain of table nat belongs to a Service port, of ours or of another proxy with the same names. */
export function isPortChain(name: string): boolean {
  return (
    portChainPrefixes.some((prefix) => name.startsWith(prefix)) ||
    formerPrefixes.some((prefix) => name.startsWith(prefix))
  );
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** The first 16 characters of a text's SHA-256 in base32 (RFC 4648): 80 bits, so padding is never reached. */
function shortName(text: string): string {
  const digest = hash("sha256", text, "buffer");
  let out = "";
  let bits = 0;
  let held = 0;
  for (let at = 0; out.length < 16; at += 1) {
    held = ((held << 8) | (digest[at] ?? 0)) & 0xffff;
    bits += 8;
    for (; bits >= 5 && out.length < 16; bits -= 5) {
      out += alphabet[(held >> (bits - 5)) & 31] ?? "";
    }
  }
  return out;
}

/** `namespace/name:port`, as comments say it; a port without a name has no colon. */
export function portTitle({ key, service, protocol }: PlannedPort): string {
  const name = key.slice(service.length + 1, key.length - protocol.length - 1);
  return name === "" ? service : `${service}:${name}`;
}

/** `10.1.2.3:80` or `[fd00::1]:80`. */
export function endpointText({ ip, port }: Backend): string {
  return ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`;
}

/**
 * A chain's name. People search for these, and a proxy of the same names cleans up after this one and the other way
 * round, so they are exactly kube-proxy's: at most 28 characters.
 *
 * @param title Of {@link portTitle}.
 * @param endpoint For KUBE-SEP-, of {@link endpointText}.
 */
export function portChain(
  prefix: PortChainPrefix,
  title: string,
  protocol: PlannedPort["protocol"],
  endpoint = "",
): string {
  return prefix + shortName(title + protocol + endpoint);
}
