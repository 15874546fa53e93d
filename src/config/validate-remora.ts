import { validateLabelValue, validateQualifiedName } from "../api/names.ts";
import { ipFamily, parseCidr } from "../lib/cidr.ts";
import { ParseError } from "../lib/errors.ts";
import type { Finding } from "./finding.ts";
import type { RemoraConfiguration } from "./remora-configuration.ts";

/** Labels in Kubernetes' own namespaces that a node may give itself (NodeRestriction refuses the others). */
const ownLabels = new Set([
  "beta.kubernetes.io/arch",
  "beta.kubernetes.io/instance-type",
  "beta.kubernetes.io/os",
  "failure-domain.beta.kubernetes.io/region",
  "failure-domain.beta.kubernetes.io/zone",
  "kubernetes.io/arch",
  "kubernetes.io/hostname",
  "kubernetes.io/os",
  "node.kubernetes.io/instance-type",
  "topology.kubernetes.io/region",
  "topology.kubernetes.io/zone",
]);
const ownNamespaces = ["kubelet.kubernetes.io", "node.kubernetes.io"];

function within(namespace: string, domain: string): boolean {
  return namespace === domain || namespace.endsWith(`.${domain}`);
}

function forbiddenLabel(key: string): boolean {
  const namespace = key.includes("/") ? (key.split("/", 1)[0] ?? "") : "";
  if (!within(namespace, "kubernetes.io") && !within(namespace, "k8s.io")) return false;
  return !ownLabels.has(key) && !ownNamespaces.some((domain) => within(namespace, domain));
}

function labels(c: RemoraConfiguration): Finding[] {
  const path = "nodeLabels";
  const entries = Object.entries(c.nodeLabels);
  const unknown = entries
    .map(([key]) => key)
    .filter(forbiddenLabel)
    .toSorted();
  const out = entries.flatMap(([key, value]) => {
    const wrongKey = validateQualifiedName(key);
    const wrongValue = validateLabelValue(value);
    return [
      ...(wrongKey.length === 0
        ? []
        : [{ path, text: `invalid node labels: '${key}' - ${wrongKey.join(", ")}` }]),
      ...(wrongValue.length === 0
        ? []
        : [{ path, text: `invalid node labels: '${value}' - ${wrongValue.join(", ")}` }]),
    ];
  });
  if (unknown.length === 0) return out;
  const text = `unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [${unknown.join(" ")}]; --node-labels in the 'kubernetes.io' namespace must begin with an allowed prefix (${ownNamespaces.join(", ")}) or be in the specifically allowed set (${[...ownLabels].join(", ")})`;
  return [{ path, text }, ...out];
}

function addresses(c: RemoraConfiguration): Finding[] {
  const path = "nodeIPs";
  const out: Finding[] = c.nodeIPs.flatMap((ip) => {
    if (ipFamily(ip) === undefined)
      return [{ path, text: `${JSON.stringify(ip)} is not an IP address` }];
    const any = ["0.0.0.0", "::"].includes(ip);
    return any
      ? [{ path, text: `${ip} is no address of a machine; leave it out to have the address found` }]
      : [];
  });
  const families = new Set(c.nodeIPs.map((ip) => ipFamily(ip)));
  if (out.length === 0 && families.size < c.nodeIPs.length) {
    out.push({ path, text: "must contain either a single IP or a dual-stack pair of IPs" });
  }
  return out;
}

function networks(path: "serviceCIDRs" | "kubeletPeerCIDRs", c: RemoraConfiguration): Finding[] {
  return (c[path] ?? []).flatMap((text) => {
    try {
      parseCidr(text, JSON.stringify(text));
      return [];
    } catch (error) {
      if (!(error instanceof ParseError)) throw error;
      return [{ path, text: error.message }];
    }
  });
}

/** Plug-ins are run from there as root, by whole paths. */
function pluginDirectories(c: RemoraConfiguration): Finding[] {
  const path = "cniBinDirs";
  if (c.cniBinDirs.length === 0) return [{ path, text: "must name a directory" }];
  return c.cniBinDirs
    .filter((directory) => !directory.startsWith("/") || directory.includes(":"))
    .map((directory) => ({
      path,
      text: `${JSON.stringify(directory)} is not an absolute path without colons`,
    }));
}

/** What no agent could work with. */
export function validateRemora(c: RemoraConfiguration): readonly Finding[] {
  const pull = c.imagePullProgressDeadline;
  return [
    ...labels(c),
    ...addresses(c),
    ...networks("serviceCIDRs", c),
    ...networks("kubeletPeerCIDRs", c),
    ...pluginDirectories(c),
    ...(pull > 0 ? [] : [{ path: "imagePullProgressDeadline", text: "must be greater than 0" }]),
  ];
}
