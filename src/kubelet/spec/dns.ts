import type { Pod, PodDNSConfig } from "../../api/types.gen.ts";
import { isHostNetwork } from "./containers.ts";
import { podLabel } from "./pod-name.ts";

export interface ResolvConf {
  readonly nameservers: readonly string[];
  readonly searches: readonly string[];
  readonly options: readonly string[];
}

export interface PodResolvConf extends ResolvConf {
  /** Warning events to raise: `DNSConfigForming`, `MissingClusterDNS`. */
  readonly warnings: readonly { readonly reason: string; readonly message: string }[];
}

const maxNameservers = 3;
const maxSearches = 32;
const maxSearchLine = 2048;
const maxDomain = 253;

function mergeOptions(
  base: readonly string[],
  more: readonly (readonly [string, string])[],
): readonly string[] {
  const out = new Map<string, string>();
  for (const option of base) {
    const colon = option.indexOf(":");
    if (colon < 0) out.set(option, "");
    else out.set(option.slice(0, colon), option.slice(colon + 1));
  }
  for (const [name, value] of more) out.set(name, value);
  return [...out].map(([name, value]) => (value === "" ? name : `${name}:${value}`));
}

/** What pods get instead of the node's own settings when it is told to have none: nobody to ask but themselves. */
function localResolvConf(nodeIPs: readonly string[]): ResolvConf {
  const own = nodeIPs.map((ip) => (ip.includes(":") ? "::1" : "127.0.0.1"));
  return { nameservers: own.length === 0 ? ["127.0.0.1"] : own, searches: ["."], options: [] };
}

/** Reads a resolv.conf: nameservers add up, the last `search` wins, options merge by name. */
export function parseResolvConf(text: string): ResolvConf {
  const nameservers: string[] = [];
  let searches: string[] = [];
  let options: readonly string[] = [];
  for (const line of text.split("\n")) {
    const [keyword = "", ...fields] = line.trim().split(/\s+/);
    if (keyword === "nameserver" && fields[0] !== undefined) nameservers.push(fields[0]);
    if (keyword === "search") {
      searches = fields.filter((field) => field !== ".").map((field) => field.replace(/\.$/, ""));
    }
    if (keyword === "options") {
      options = mergeOptions(
        options,
        fields.map((field) => {
          const [name = "", ...value] = field.split(":");
          return [name, value.join(":")] as const;
        }),
      );
    }
  }
  return { nameservers, searches, options };
}

/** The text of a resolv.conf. */
export function formatResolvConf(conf: ResolvConf): string {
  const lines: string[] = [];
  if (conf.searches.length > 0) lines.push(`search ${conf.searches.join(" ")}`);
  for (const server of conf.nameservers) lines.push(`nameserver ${server}`);
  if (conf.options.length > 0) lines.push(`options ${conf.options.join(" ")}`);
  return lines.length === 0 ? "" : `${lines.join("\n")}\n`;
}

function withDNSConfig(conf: ResolvConf, config: PodDNSConfig | undefined): ResolvConf {
  if (config === undefined) return conf;
  return {
    nameservers: [...new Set([...conf.nameservers, ...(config.nameservers ?? [])])],
    searches: [...new Set([...conf.searches, ...(config.searches ?? [])])],
    options: mergeOptions(
      conf.options,
      (config.options ?? []).map(({ name = "", value = "" }) => [name, value] as const),
    ),
  };
}

/**
 * What pods cannot have of the node's own search line, in the kubelet's words; undefined when they can have all of it.
 *
 * @param clusterDomain Three searches of its own are before the node's; "" when there is none.
 */
export function searchLimitsTrouble(
  { searches }: Pick<ResolvConf, "searches">,
  path: string,
  clusterDomain: string,
): string | undefined {
  const most = clusterDomain === "" ? maxSearches : maxSearches - 3;
  if (searches.length > most) {
    return `Resolv.conf file '${path}' contains search line consisting of more than ${most} domains!`;
  }
  if (searches.some((search) => search.length > maxDomain)) {
    return `Resolv.conf file ${JSON.stringify(path)} contains a search path which length is more than allowed ${maxDomain} chars!`;
  }
  return searches.join(" ").length > maxSearchLine
    ? `Resolv.conf file '${path}' contains search line which length is more than allowed ${maxSearchLine} chars!`
    : undefined;
}

function fitSearches(searches: readonly string[]): readonly string[] {
  const fitting = searches.slice(0, maxSearches).filter((search) => search.length <= maxDomain);
  while (fitting.join(" ").length > maxSearchLine) fitting.pop();
  return fitting;
}

function fitLimits(conf: ResolvConf): PodResolvConf {
  const warnings: { reason: string; message: string }[] = [];
  const nameservers = conf.nameservers.slice(0, maxNameservers);
  if (nameservers.length < conf.nameservers.length) {
    warnings.push({
      reason: "DNSConfigForming",
      message: `Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: ${nameservers.join(" ")}`,
    });
  }
  const searches = fitSearches(conf.searches);
  if (searches.length < conf.searches.length) {
    warnings.push({
      reason: "DNSConfigForming",
      message: `Search Line limits were exceeded, some search paths have been omitted, the applied search line is: ${searches.join(" ")}`,
    });
  }
  return { nameservers, searches, options: conf.options, warnings };
}

/**
 * The resolv.conf of a pod, by its dnsPolicy and dnsConfig.
 *
 * @param host The node's own; undefined when it is told to give pods none (`resolvConf: ""`).
 */
export function podResolvConf(
  pod: Pod,
  host: ResolvConf | undefined,
  cluster: {
    readonly dns: readonly string[];
    readonly domain: string;
    readonly nodeIPs?: readonly string[];
  },
): PodResolvConf {
  const policy: string = pod.spec?.dnsPolicy ?? "ClusterFirst";
  const { dnsConfig } = pod.spec ?? {};
  if (policy === "None") {
    return fitLimits(withDNSConfig({ nameservers: [], searches: [], options: [] }, dnsConfig));
  }
  const ofHost = host ?? localResolvConf(cluster.nodeIPs ?? []);
  // What is no policy counts as one for the cluster; on the node's network that takes more than the default one.
  const wantsCluster = policy !== "Default" && !(policy === "ClusterFirst" && isHostNetwork(pod));
  if (!wantsCluster) return fitLimits(withDNSConfig(ofHost, dnsConfig));
  if (cluster.dns.length === 0) {
    const fallback = fitLimits(withDNSConfig(ofHost, dnsConfig));
    const message = `pod: ${JSON.stringify(podLabel(pod))}. kubelet does not have ClusterDNS IP configured and cannot create Pod using "ClusterFirst" policy. Falling back to "Default" policy.`;
    return {
      ...fallback,
      warnings: [{ reason: "MissingClusterDNS", message }, ...fallback.warnings],
    };
  }
  const { domain } = cluster;
  const namespace = pod.metadata?.namespace ?? "";
  const hostSearches = host?.searches ?? [];
  const searches =
    domain === ""
      ? hostSearches
      : [...new Set([`${namespace}.svc.${domain}`, `svc.${domain}`, domain, ...hostSearches])];
  return fitLimits(
    withDNSConfig({ nameservers: cluster.dns, searches, options: ["ndots:5"] }, dnsConfig),
  );
}
