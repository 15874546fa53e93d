import { asRecord, asString, isRecord, optionalString } from "../../lib/guard.ts";
import { ParseError } from "../../lib/errors.ts";
import type { LocalDetector, ProxyMode, RulesContext } from "../backend.ts";
import type { AgentFacts } from "./model.ts";

/** The page of the metrics port on which an agent says what its rules depend on. */
export const factsPath = "/debug/remora/proxy";

/** The answer of {@link factsPath}. */
export function factsText(facts: AgentFacts): string {
  return JSON.stringify(facts);
}

function texts(value: unknown, path: string): readonly string[] {
  if (!Array.isArray(value)) throw new ParseError(path, "a list");
  return value.map((item, index) => asString(item, `${path}[${index}]`));
}

function modeOf(value: unknown, path: string): ProxyMode {
  if (value === "nftables" || value === "iptables") return value;
  throw new ParseError(path, "nftables or iptables");
}

function detector(value: unknown, path: string): LocalDetector {
  const record = asRecord(value, path);
  switch (record["kind"]) {
    case "none":
      return { kind: "none" };
    case "cidrs":
      return { kind: "cidrs", cidrs: texts(record["cidrs"], `${path}.cidrs`) };
    case "interface":
      return { kind: "interface", name: asString(record["name"], `${path}.name`) };
    case "interface-prefix":
      return { kind: "interface-prefix", prefix: asString(record["prefix"], `${path}.prefix`) };
    default:
      throw new ParseError(`${path}.kind`, "a kind of detector");
  }
}

function context(value: unknown, path: string): RulesContext {
  const record = asRecord(value, path);
  const family = record["family"];
  if (family !== "IPv4" && family !== "IPv6") throw new ParseError(`${path}.family`, "a family");
  const { mark, nodePortIPs } = record;
  if (typeof mark !== "number") throw new ParseError(`${path}.mark`, "a number");
  return {
    family,
    local: detector(record["local"], `${path}.local`),
    nodePortIPs: nodePortIPs === undefined ? undefined : texts(nodePortIPs, `${path}.nodePortIPs`),
    localhostNodePorts: record["localhostNodePorts"] === true,
    serviceCIDRs: texts(record["serviceCIDRs"], `${path}.serviceCIDRs`),
    mark,
    masqueradeAll: record["masqueradeAll"] === true,
  };
}

/** Reads it. @throws {ParseError} when another program answers there, or another version. */
export function parseFacts(value: unknown): AgentFacts {
  if (!isRecord(value)) throw new ParseError("$", "an object");
  const families = value["families"];
  if (!Array.isArray(families)) throw new ParseError("$.families", "a list");
  return {
    nodeName: asString(value["nodeName"], "$.nodeName"),
    nodeIPs: texts(value["nodeIPs"], "$.nodeIPs"),
    kubeconfig: optionalString(value["kubeconfig"]) ?? "",
    mode: modeOf(value["mode"], "$.mode"),
    table: asString(value["table"], "$.table"),
    externalIPs: value["externalIPs"] === true,
    ...(value["keepsSource"] === true ? { keepsSource: true } : {}),
    families: families.map((one, index) => context(one, `$.families[${index}]`)),
  };
}
