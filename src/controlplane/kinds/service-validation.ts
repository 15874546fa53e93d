import { cidrContains, ipFamily, parseCidr, parseIP } from "../../lib/cidr.ts";
import type { FieldError, JsonObject } from "../types.ts";
import { int, mapOf, metadataOf, record, records, strings, text } from "./access.ts";
import {
  at,
  duplicate,
  enumeration,
  forbiddenField,
  invalidAll,
  invalidValue,
  notSupported,
  required,
} from "./field-error.ts";
import {
  dns1123Label,
  dns1123Subdomain,
  ipAddress,
  portNumberMessages,
  portOrName,
  qualifiedName,
  validateLabels,
} from "./names.ts";
import { isExternallyAccessible, isHeadless, needsHealthCheck } from "./service-defaults.ts";

/** Ranges an endpoint or an external IP may not be in, with the words for it. */
const unusable = [
  ["127.0.0.0/8", "may not be in the loopback range (127.0.0.0/8, ::1/128)"],
  ["::1/128", "may not be in the loopback range (127.0.0.0/8, ::1/128)"],
  ["169.254.0.0/16", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"],
  ["fe80::/10", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"],
  ["224.0.0.0/24", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"],
  ["ff02::/16", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"],
] as const;

/** An address packets can be sent to: endpoints and external IPs. */
export function endpointAddress(address: string, field: string): FieldError[] {
  if (ipFamily(address) === undefined) return ipAddress(address, field);
  if (parseIP(address) === 0n) {
    return [invalidValue(field, address, `may not be unspecified (${address})`)];
  }
  return unusable
    .filter(([cidr]) => cidrContains(parseCidr(cidr), address))
    .map(([, message]) => invalidValue(field, address, message));
}

function portErrors(spec: Readonly<JsonObject>): FieldError[] {
  const ports = records(spec["ports"]);
  const out: FieldError[] = [];
  const names = new Set<string>();
  ports.forEach((port, index) => {
    const path = at("spec.ports", index);
    const name = text(port["name"]);
    const number = int(port["port"]) ?? 0;
    if (name === "") {
      if (ports.length > 1) out.push(required(`${path}.name`));
    } else {
      out.push(...invalidAll(`${path}.name`, name, dns1123Label(name)));
      if (names.has(name)) out.push(duplicate(`${path}.name`, name));
      names.add(name);
    }
    out.push(...invalidAll(`${path}.port`, number, portNumberMessages(number)));
    out.push(...enumeration(`${path}.protocol`, port["protocol"], ["SCTP", "TCP", "UDP"]));
    out.push(...portOrName(port["targetPort"], `${path}.targetPort`));
    const protocol = port["appProtocol"];
    if (typeof protocol === "string") {
      out.push(...invalidAll(`${path}.appProtocol`, protocol, qualifiedName(protocol)));
    }
  });
  return out;
}

function portConflicts(spec: Readonly<JsonObject>): FieldError[] {
  const ports = records(spec["ports"]);
  const out: FieldError[] = [];
  const nodePorts = new Set<string>();
  const servicePorts = new Set<string>();
  ports.forEach((port, index) => {
    const path = `${at("spec.ports", index)}.nodePort`;
    const nodePort = int(port["nodePort"]) ?? 0;
    if (nodePort === 0) return;
    if (spec["type"] === "ClusterIP") {
      out.push(forbiddenField(path, "may not be used when `type` is 'ClusterIP'"));
    }
    const key = `${text(port["protocol"])}/${nodePort}`;
    if (nodePorts.has(key)) out.push(duplicate(path, nodePort));
    nodePorts.add(key);
  });
  ports.forEach((port, index) => {
    const protocol = text(port["protocol"]);
    const number = int(port["port"]) ?? 0;
    const key = `${protocol}/${number}`;
    if (servicePorts.has(key)) {
      out.push(duplicate(at("spec.ports", index), { protocol, port: number }));
    }
    servicePorts.add(key);
  });
  return out;
}

function clusterIPErrors(spec: Readonly<JsonObject>): FieldError[] {
  if (spec["type"] === "ExternalName") return [];
  const out: FieldError[] = [];
  const single = text(spec["clusterIP"]);
  const many = strings(spec["clusterIPs"]);
  if (single !== "") {
    if (many.length === 0) out.push(required("spec.clusterIPs"));
    else if (many[0] !== single) {
      out.push(invalidValue("spec.clusterIPs", many, "first value must match `clusterIP`"));
    }
  } else if (many.length > 0) {
    out.push(
      invalidValue("spec.clusterIPs", many, "must be empty when `clusterIP` is not specified"),
    );
  }
  out.push(...familyErrors(spec));
  many.forEach((address, index) => {
    if (index === 0 && address === "None") {
      if (many.length > 1) {
        out.push(invalidValue("spec.clusterIPs", many, "'None' must be the first and only value"));
      }
      return;
    }
    out.push(...ipAddress(address, at("spec.clusterIPs", index)));
  });
  if (many.length > 2) {
    out.push(invalidValue("spec.clusterIPs", many, "may only hold up to 2 values"));
  }
  const families = many.map((address) => ipFamily(address));
  if (many.length > 1 && new Set(families).size < many.length) {
    out.push(
      invalidValue("spec.clusterIPs", many, "may specify no more than one IP for each IP family"),
    );
  }
  strings(spec["ipFamilies"]).forEach((family, index) => {
    const actual = families[index];
    if (actual === undefined || actual === family) return;
    out.push(
      invalidValue(
        at("spec.clusterIPs", index),
        many[index],
        `expected an ${family} value as indicated by \`ipFamilies[${index}]\``,
      ),
    );
  });
  return out;
}

function familyErrors(spec: Readonly<JsonObject>): FieldError[] {
  const out: FieldError[] = [];
  const seen = new Set<string>();
  strings(spec["ipFamilies"]).forEach((family, index) => {
    const path = at("spec.ipFamilies", index);
    if (family !== "IPv4" && family !== "IPv6") {
      out.push(notSupported(path, family, ["IPv4", "IPv6"]));
    }
    if (seen.has(family)) out.push(duplicate(path, family));
    seen.add(family);
  });
  if (spec["ipFamilyPolicy"] !== undefined) {
    out.push(
      ...enumeration("spec.ipFamilyPolicy", spec["ipFamilyPolicy"], [
        "PreferDualStack",
        "RequireDualStack",
        "SingleStack",
      ]),
    );
  }
  return out;
}

function typeErrors(spec: Readonly<JsonObject>): FieldError[] {
  const type = text(spec["type"]);
  const out: FieldError[] = [];
  if ((type === "LoadBalancer" || type === "NodePort") && isHeadless(spec)) {
    out.push(
      invalidValue("spec.clusterIPs[0]", "None", `may not be set to 'None' for ${type} services`),
    );
  }
  if (type !== "ExternalName") return out;
  for (const key of ["clusterIPs", "ipFamilies", "ipFamilyPolicy"]) {
    const value = spec[key];
    if (value === undefined || (Array.isArray(value) && value.length === 0)) continue;
    out.push(forbiddenField(`spec.${key}`, "may not be set for ExternalName services"));
  }
  const name = text(spec["externalName"]).replace(/\.$/, "");
  if (name === "") out.push(required("spec.externalName"));
  else out.push(...invalidAll("spec.externalName", name, dns1123Subdomain(name)));
  return out;
}

function affinityErrors(spec: Readonly<JsonObject>): FieldError[] {
  const out = enumeration("spec.sessionAffinity", spec["sessionAffinity"], ["ClientIP", "None"]);
  const field = "spec.sessionAffinityConfig";
  const config = spec["sessionAffinityConfig"];
  if (spec["sessionAffinity"] === "None" && config !== undefined) {
    out.push(forbiddenField(field, "must not be set when session affinity is None"));
  }
  if (spec["sessionAffinity"] !== "ClientIP") return out;
  const timeout = int(record(record(config)["clientIP"])["timeoutSeconds"]);
  if (timeout === undefined) {
    out.push(
      required(`${field}.clientIP.timeoutSeconds`, "when session affinity type is ClientIP"),
    );
  } else if (timeout <= 0 || timeout > 86_400) {
    out.push(
      invalidValue(
        `${field}.clientIP.timeoutSeconds`,
        timeout,
        "must be greater than 0 and less than 86400",
      ),
    );
  }
  return out;
}

function trafficErrors(spec: Readonly<JsonObject>): FieldError[] {
  const out: FieldError[] = [];
  const external = text(spec["externalTrafficPolicy"]);
  if (isExternallyAccessible(spec)) {
    out.push(...enumeration("spec.externalTrafficPolicy", external, ["Cluster", "Local"]));
  } else if (external !== "") {
    out.push(
      invalidValue(
        "spec.externalTrafficPolicy",
        external,
        "may only be set for externally-accessible services",
      ),
    );
  }
  const port = int(spec["healthCheckNodePort"]) ?? 0;
  if (!needsHealthCheck(spec) && port !== 0) {
    out.push(
      invalidValue(
        "spec.healthCheckNodePort",
        port,
        "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
      ),
    );
  }
  const internal = spec["internalTrafficPolicy"];
  if (internal !== undefined) {
    out.push(...enumeration("spec.internalTrafficPolicy", internal, ["Cluster", "Local"]));
  }
  const distribution = spec["trafficDistribution"];
  if (distribution !== undefined) {
    out.push(
      ...enumeration("spec.trafficDistribution", distribution, [
        "PreferClose",
        "PreferSameZone",
        "PreferSameNode",
      ]),
    );
  }
  return out;
}

function loadBalancerErrors(spec: Readonly<JsonObject>): FieldError[] {
  const balanced = spec["type"] === "LoadBalancer";
  const out: FieldError[] = [];
  const ranges = strings(spec["loadBalancerSourceRanges"]);
  // Upstream capitalises this path.
  const field = "spec.LoadBalancerSourceRanges";
  if (ranges.length > 0 && !balanced) {
    out.push(forbiddenField(field, "may only be used when `type` is 'LoadBalancer'"));
  }
  ranges.forEach((range, index) => {
    try {
      parseCidr(range.trim());
    } catch {
      out.push(
        invalidValue(
          at(field, index),
          range.trim(),
          "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ),
      );
    }
  });
  for (const key of ["allocateLoadBalancerNodePorts", "loadBalancerClass"]) {
    if (spec[key] !== undefined && !balanced) {
      out.push(forbiddenField(`spec.${key}`, "may only be used when `type` is 'LoadBalancer'"));
    }
  }
  const name = spec["loadBalancerClass"];
  if (typeof name === "string" && balanced) {
    out.push(...invalidAll("spec.loadBalancerClass", name, qualifiedName(name)));
  }
  return out;
}

/** Rules for a Service that hold at create and at update, before addresses and ports are allocated. */
export function validateService(service: Readonly<JsonObject>): FieldError[] {
  const spec = record(service["spec"]);
  const out: FieldError[] = [];
  const annotations = mapOf(metadataOf(service)["annotations"]);
  const hints = annotations["service.kubernetes.io/topology-aware-hints"];
  const mode = annotations["service.kubernetes.io/topology-mode"];
  if (hints !== undefined && mode !== undefined && hints !== mode) {
    out.push(
      invalidValue(
        "metadata.annotations[service.kubernetes.io/topology-mode]",
        mode,
        "must match annotations[service.kubernetes.io/topology-aware-hints] when both are specified",
      ),
    );
  }
  const noPorts = records(spec["ports"]).length === 0;
  if (noPorts && !isHeadless(spec) && spec["type"] !== "ExternalName") {
    out.push(required("spec.ports"));
  }
  out.push(
    ...typeErrors(spec),
    ...portErrors(spec),
    ...validateLabels(record(spec["selector"]), "spec.selector"),
    ...affinityErrors(spec),
    ...clusterIPErrors(spec),
  );
  strings(spec["externalIPs"]).forEach((address, index) => {
    out.push(...endpointAddress(address, at("spec.externalIPs", index)));
  });
  return [
    ...out,
    ...enumeration("spec.type", spec["type"], [
      "ClusterIP",
      "ExternalName",
      "LoadBalancer",
      "NodePort",
    ]),
    ...portConflicts(spec),
    ...loadBalancerErrors(spec),
    ...trafficErrors(spec),
  ];
}

/**
 * Addresses stay; a second one may come, and may go (validateUpgradeDowngradeClusterIPs). That families fit to addresses
 * is checked with them, and that the second one may go with the policy.
 */
function addressChangeErrors(
  spec: Readonly<JsonObject>,
  old: Readonly<JsonObject>,
): readonly FieldError[] {
  if (isHeadless(spec) && isHeadless(old)) return [];
  const before = strings(old["clusterIPs"]);
  const after = strings(spec["clusterIPs"]);
  const fixed = before.length === after.length ? before : before.slice(0, 1);
  return fixed.flatMap((address, index) =>
    address === after[index]
      ? []
      : [invalidValue(at("spec.clusterIPs", index), after, "may not change once set")],
  );
}

/** What an update may not change: a cluster IP once given, the class of a load balancer, the health check port. */
export function validateServiceChange(
  service: Readonly<JsonObject>,
  oldService: Readonly<JsonObject>,
): FieldError[] {
  const spec = record(service["spec"]);
  const old = record(oldService["spec"]);
  const out: FieldError[] = [];
  const external = spec["type"] === "ExternalName" || old["type"] === "ExternalName";
  if (!external) out.push(...addressChangeErrors(spec, old));
  const stays = spec["type"] === "LoadBalancer" && old["type"] === "LoadBalancer";
  if (stays && spec["loadBalancerClass"] !== old["loadBalancerClass"]) {
    out.push(
      invalidValue("spec.loadBalancerClass", spec["loadBalancerClass"], "may not change once set"),
    );
  }
  const checked = needsHealthCheck(spec) && needsHealthCheck(old);
  if (checked && spec["healthCheckNodePort"] !== old["healthCheckNodePort"]) {
    out.push(forbiddenField("spec.healthCheckNodePort", "field is immutable"));
  }
  return out;
}
