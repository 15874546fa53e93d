import { canonicalIP, ipFamily } from "../../lib/cidr.ts";
import { errorMessage } from "../../lib/errors.ts";
import { isRecord, type JsonRecord } from "../../lib/guard.ts";
import { CniError } from "./errors.ts";
import { atLeast, isSpoken } from "./versions.ts";

/** What a plug-in answered to ADD, every member kept: the next plug-in of the chain is given all of it. */
export type CniResult = Readonly<JsonRecord>;

/** Enough of what somebody said to find it again. */
export function excerpt(text: string): string {
  const limit = 200;
  const shown = text.trim();
  return JSON.stringify(shown.length > limit ? `${shown.slice(0, limit)}…` : shown);
}

/**
 * Reads a plug-in's answer to ADD.
 *
 * @param version Of the configuration: what an answer without a version has.
 * @throws {CniError}
 */
export function parseResult(stdout: string, version: string): CniResult {
  let value: unknown;
  try {
    value = JSON.parse(stdout);
  } catch (error) {
    throw new CniError(`its result ${excerpt(stdout)} is no JSON: ${errorMessage(error)}`);
  }
  if (!isRecord(value)) throw new CniError(`its result ${excerpt(stdout)} is no JSON object`);
  const given = value["cniVersion"];
  const cniVersion = typeof given === "string" && given !== "" ? given : version;
  if (!isSpoken(cniVersion)) {
    throw new CniError(`unsupported CNI result version ${JSON.stringify(cniVersion)}`);
  }
  const result = { ...value, cniVersion };
  // Whoever reads it later must not be the first to find out.
  resultAddresses(result, "");
  return result;
}

function addressOf(value: unknown): string {
  const [text = ""] = typeof value === "string" ? value.split("/") : [];
  if (ipFamily(text) === undefined) {
    throw new CniError(`its result has ${JSON.stringify(value)} for an address`);
  }
  return canonicalIP(text);
}

/** `ip4` and `ip6` of versions before 0.3.0. */
function oldAddresses(result: CniResult): readonly string[] {
  return ["ip4", "ip6"].flatMap((key) => {
    const entry = result[key];
    return isRecord(entry) && entry["ip"] !== undefined ? [addressOf(entry["ip"])] : [];
  });
}

/** The name of the interface that an entry of `ips` is about; undefined when it does not say. */
function interfaceOf(result: CniResult, index: unknown): string | undefined {
  if (index === undefined || index === null) return undefined;
  const list: readonly unknown[] = Array.isArray(result["interfaces"]) ? result["interfaces"] : [];
  const found = typeof index === "number" ? list[index] : undefined;
  if (!isRecord(found)) {
    throw new CniError(
      `invalid IP configuration (interface number ${JSON.stringify(index)} is > number of interfaces ${list.length})`,
    );
  }
  return typeof found["name"] === "string" ? found["name"] : "";
}

/**
 * Addresses of the pod: those on `ifName`, and those that name no interface. In the result's order.
 *
 * @param ifName Empty: those on any interface.
 * @throws {CniError} for what is no address.
 */
export function resultAddresses(result: CniResult, ifName: string): readonly string[] {
  const { cniVersion, ips } = result;
  if (typeof cniVersion === "string" && !atLeast(cniVersion, "0.3.0")) return oldAddresses(result);
  if (!Array.isArray(ips)) return [];
  return ips.flatMap((entry: unknown) => {
    if (!isRecord(entry)) return [];
    const name = interfaceOf(result, entry["interface"]);
    const address = addressOf(entry["address"]);
    return ifName === "" || name === undefined || name === ifName ? [address] : [];
  });
}

/**
 * At most one address of each family, IPv4 first: what a Pod may show. The kubelet puts the node's own family first.
 */
export function podAddresses(addresses: readonly string[]): readonly string[] {
  return (["IPv4", "IPv6"] as const).flatMap((family) => {
    const first = addresses.find((ip) => ipFamily(ip) === family);
    return first === undefined ? [] : [first];
  });
}
