import { type IPFamily, ipFamily } from "../../lib/cidr.ts";
import type { FieldError, JsonObject } from "../types.ts";
import { mapOf, record, strings } from "./access.ts";
import { at, invalidValue } from "./field-error.ts";
import { isHeadless } from "./service-defaults.ts";

const policyField = "spec.ipFamilyPolicy";

function other(family: string): IPFamily {
  return family === "IPv4" ? "IPv6" : "IPv4";
}

function same(spec: Readonly<JsonObject>, old: Readonly<JsonObject>, key: string): boolean {
  return JSON.stringify(strings(spec[key])) === JSON.stringify(strings(old[key]));
}

/** A cluster that gains or loses a family changes no Service that prefers both, unless somebody asks for it. */
function staysAsItIs(spec: Readonly<JsonObject>, old: Readonly<JsonObject>): boolean {
  return (
    spec["type"] === old["type"] &&
    [spec, old].every((each) => each["ipFamilyPolicy"] === "PreferDualStack") &&
    same(spec, old, "clusterIPs") &&
    same(spec, old, "ipFamilies")
  );
}

/** Without a selector endpoints are written by hand, and may be of either family. */
function hasNoSelector(spec: Readonly<JsonObject>): boolean {
  return isHeadless(spec) && Object.keys(mapOf(spec["selector"])).length === 0;
}

/** What an update to one family gives up, and what it may not give up without saying so. */
function downgrade(spec: JsonObject, old: Readonly<JsonObject>): FieldError[] {
  const keys = [
    ["clusterIPs", "must be 'SingleStack' to release the secondary cluster IP"],
    ["ipFamilies", "must be 'SingleStack' to release the secondary IP family"],
  ] as const;
  return keys.flatMap(([key, message]) => {
    const after = strings(spec[key]);
    if (spec["ipFamilyPolicy"] === "SingleStack") {
      if (after.length > 1 && same(spec, old, key)) spec[key] = after.slice(0, 1);
      return [];
    }
    return after.length > 0 && after.length < strings(old[key]).length
      ? [invalidValue(policyField, spec["ipFamilyPolicy"], message)]
      : [];
  });
}

function tooMany(spec: Readonly<JsonObject>): FieldError[] {
  if (spec["ipFamilyPolicy"] !== "SingleStack") return [];
  const keys = [
    ["clusterIPs", "cluster IPs"],
    ["ipFamilies", "IP families"],
  ] as const;
  return keys.flatMap(([key, what]) => {
    const message = `must be 'RequireDualStack' or 'PreferDualStack' when multiple ${what} are specified`;
    return strings(spec[key]).length === 2
      ? [invalidValue(policyField, spec["ipFamilyPolicy"], message)]
      : [];
  });
}

/** Families that only follow from addresses. */
function infer(spec: JsonObject, configured: readonly IPFamily[]): FieldError[] {
  const families = strings(spec["ipFamilies"]);
  const addresses = isHeadless(spec) ? [] : strings(spec["clusterIPs"]);
  const errors: FieldError[] = [];
  for (const [index, address] of addresses.entries()) {
    const family = ipFamily(address);
    if (family === undefined || index < families.length) continue;
    if (configured.includes(family)) families.push(family);
    else {
      const message = `${family} is not configured on this cluster`;
      errors.push(invalidValue(at("spec.clusterIPs", index), addresses, message));
    }
  }
  if (families.length > 0) spec["ipFamilies"] = families;
  return errors;
}

/** What is asked for and the cluster does not have. */
function unavailable(spec: Readonly<JsonObject>, configured: readonly IPFamily[]): FieldError[] {
  const policy = spec["ipFamilyPolicy"];
  const errors: FieldError[] = [];
  if (policy === "RequireDualStack" && configured.length < 2) {
    const message = "this cluster is not configured for dual-stack services";
    errors.push(invalidValue(policyField, policy, message));
  }
  for (const [index, family] of strings(spec["ipFamilies"]).entries()) {
    if (configured.some((each) => each === family)) continue;
    const message = "not configured on this cluster";
    errors.push(invalidValue(at("spec.ipFamilies", index), family, message));
  }
  return errors;
}

/**
 * Fills `ipFamilyPolicy` and `ipFamilies` in, and drops the second family of what becomes single-stack, as
 * kube-apiserver does it (KEP-563).
 *
 * @param configured The cluster's families, its primary one first.
 * @param old The stored spec; undefined for a new Service.
 * @returns why the cluster cannot give what is asked for.
 */
export function settleFamilies(
  spec: JsonObject,
  old: Readonly<JsonObject> | undefined,
  configured: readonly IPFamily[],
): FieldError[] {
  if (spec["type"] === "ExternalName") return [];
  if (old !== undefined && staysAsItIs(spec, old)) return [];
  const anyFamily = hasNoSelector(spec);
  spec["ipFamilyPolicy"] ??=
    record(old)["ipFamilyPolicy"] ?? (anyFamily ? "RequireDualStack" : "SingleStack");
  const errors = [...(old === undefined ? [] : downgrade(spec, old)), ...tooMany(spec)];
  errors.push(...infer(spec, configured));
  if (errors.length > 0) return errors;

  const missing = anyFamily ? [] : unavailable(spec, configured);
  if (missing.length > 0) return missing;
  const [first = configured[0] ?? "IPv4", second] = strings(spec["ipFamilies"]);
  const both = spec["ipFamilyPolicy"] !== "SingleStack" && (anyFamily || configured.length === 2);
  const families = [first, second ?? (both ? other(first) : undefined)];
  spec["ipFamilies"] = families.filter((family) => family !== undefined);
  return [];
}
