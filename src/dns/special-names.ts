import type { DnsRecord } from "./types.ts";

/** Loopback does not change; as long as anything else from outside the cluster. */
const specialTTL = 30;

const ptrNames = new Set(["1.0.0.127.in-addr.arpa", `1.${"0.".repeat(31)}ip6.arpa`]);

/**
 * Names with a fixed meaning, which must not leave the node (RFC 6761 `localhost` and `invalid`, RFC 7686 `onion`, RFC
 * 6303 for loopback's reverse names).
 *
 * @param name In lower case, without a trailing dot.
 * @returns all records of the name, an empty list where it exists without any, `nxdomain`; undefined for other names.
 */
export function specialRecords(name: string): readonly DnsRecord[] | "nxdomain" | undefined {
  const top = name.slice(name.lastIndexOf(".") + 1);
  if (top === "localhost") {
    return [
      { name, type: "A", ttl: specialTTL, data: "127.0.0.1" },
      { name, type: "AAAA", ttl: specialTTL, data: "::1" },
    ];
  }
  if (top === "invalid" || top === "onion") return "nxdomain";
  if (ptrNames.has(name)) return [{ name, type: "PTR", ttl: specialTTL, data: "localhost" }];
  return undefined;
}
