import { ipFamily } from "../../lib/cidr.ts";
import type { FieldError, JsonObject } from "../types.ts";
import { record, records, text } from "./access.ts";
import {
  at,
  forbiddenField,
  invalidAll,
  invalidValue,
  notSupported,
  required,
} from "./field-error.ts";
import { dns1123Subdomain, ipAddress } from "./names.ts";

const path = "status.loadBalancer.ingress";
const ipModes = ["Proxy", "VIP"] as const;

/** ValidateLoadBalancerStatus: what controllers of load balancers may say. */
export function validateServiceStatus(service: Readonly<JsonObject>): FieldError[] {
  const balancer = record(record(service["status"])["loadBalancer"]);
  const ingress = records(balancer["ingress"]);
  if (ingress.length === 0) return [];
  if (record(service["spec"])["type"] !== "LoadBalancer") {
    return [forbiddenField(path, "may only be used when `spec.type` is 'LoadBalancer'")];
  }
  return ingress.flatMap((entry, index) => ingressErrors(entry, at(path, index)));
}

function ingressErrors(entry: Readonly<JsonObject>, field: string): FieldError[] {
  const ip = text(entry["ip"]);
  const hostname = text(entry["hostname"]);
  const named = hostname === "" ? [] : hostnameErrors(hostname, `${field}.hostname`);
  const addressed = ip === "" ? [] : ipAddress(ip, `${field}.ip`);
  return [...addressed, ...modeErrors(entry["ipMode"], ip, `${field}.ipMode`), ...named];
}

function modeErrors(mode: unknown, ip: string, field: string): FieldError[] {
  if (mode === undefined || mode === null) {
    return ip === "" ? [] : [required(field, "must be specified when `ip` is set")];
  }
  if (ip === "") return [forbiddenField(field, "may not be specified when `ip` is not set")];
  return ipModes.some((known) => known === mode) ? [] : [notSupported(field, mode, ipModes)];
}

function hostnameErrors(hostname: string, field: string): FieldError[] {
  const errors = invalidAll(field, hostname, dns1123Subdomain(hostname));
  return ipFamily(hostname) === undefined
    ? errors
    : [...errors, invalidValue(field, hostname, "must be a DNS name, not an IP address")];
}
