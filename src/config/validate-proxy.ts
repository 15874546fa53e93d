import { ipFamily, parseCidr } from "../lib/cidr.ts";
import { formatGoDuration } from "./go-duration.ts";
import type { KubeProxyConfiguration } from "./proxy-configuration.ts";
import { broken, type Finding, type Rule } from "./finding.ts";
import { validateLogging } from "./validate-kubelet.ts";

function isCidr(text: string): boolean {
  try {
    parseCidr(text);
    return true;
  } catch {
    return false;
  }
}

/** Address and port of `1.2.3.4:80` or `[::]:80`; undefined when it is neither. */
export function hostPort(
  text: string,
): { readonly host: string; readonly port: number } | undefined {
  const [, v6, v4, port = ""] = /^(?:\[([^\]]*)\]|([^:]*)):(\d+)$/.exec(text) ?? [];
  const host = v6 ?? v4;
  return host === undefined ? undefined : { host, port: Number(port) };
}

function hostPortFinding(path: string, text: string): Finding[] {
  if (text === "") return [];
  const parts = hostPort(text);
  const invalid = (value: string, why: string): Finding => ({
    path,
    text: `Invalid value: ${JSON.stringify(value)}: ${why}`,
  });
  if (parts === undefined) return [invalid(text, "must be IP:port")];
  if (ipFamily(parts.host) === undefined) return [invalid(parts.host, "must be a valid IP")];
  return parts.port < 1 || parts.port > 65_535
    ? [invalid(String(parts.port), "must be a valid port")]
    : [];
}

const modes = ["", "iptables", "ipvs", "nftables"];
const localModes = ["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix", ""];
const pair =
  "must be a either a single CIDR or dual-stack pair of CIDRs (e.g. [10.100.0.0/16, fde4:8dba:82e1::/48]";

function clusterCIDR(c: KubeProxyConfiguration): Finding[] {
  if (c.clusterCIDR === "") return [];
  const all = c.clusterCIDR.split(",");
  const path = "clusterCIDR";
  const wrong = all.find((text) => !isCidr(text));
  if (wrong !== undefined) {
    const why = "must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)";
    return [{ path, text: `Invalid value: ${JSON.stringify(wrong)}: ${why}` }];
  }
  const families = new Set(all.map((text) => parseCidr(text).family));
  return all.length === families.size
    ? []
    : [{ path, text: `Invalid value: ${JSON.stringify(all)}: ${pair}` }];
}

function scalars(c: KubeProxyConfiguration): readonly Rule[] {
  const bit = "must be within the range [0, 31]";
  const invalid = (value: unknown, why: string): string =>
    `Invalid value: ${JSON.stringify(value)}: ${why}`;
  const unsigned = (path: string, ms: number): Rule => [
    ms < 0,
    path,
    invalid(formatGoDuration(ms), "must be greater than or equal to 0"),
  ];
  const outside = (value: number, min: number, max: number): boolean => value < min || value > max;
  const { iptables, nftables, conntrack, configSyncPeriod, bindAddress } = c;
  return [
    [
      outside(iptables.masqueradeBit, 0, 31),
      "iptables.masqueradeBit",
      invalid(iptables.masqueradeBit, bit),
    ],
    [
      outside(nftables.masqueradeBit, 0, 31),
      "nftables.masqueradeBit",
      invalid(nftables.masqueradeBit, bit),
    ],
    [
      outside(c.oomScoreAdj, -1000, 1000),
      "oomScoreAdj",
      invalid(c.oomScoreAdj, "must be within the range [-1000, 1000]"),
    ],
    [
      conntrack.maxPerCore < 0,
      "conntrack.maxPerCore",
      invalid(conntrack.maxPerCore, "must be greater than or equal to 0"),
    ],
    [
      conntrack.min < 0,
      "conntrack.min",
      invalid(conntrack.min, "must be greater than or equal to 0"),
    ],
    unsigned("conntrack.tcpEstablishedTimeout", conntrack.tcpEstablishedTimeout),
    unsigned("conntrack.tcpCloseWaitTimeout", conntrack.tcpCloseWaitTimeout),
    unsigned("conntrack.udpTimeout", conntrack.udpTimeout),
    unsigned("conntrack.udpStreamTimeout", conntrack.udpStreamTimeout),
    [
      configSyncPeriod <= 0,
      "configSyncPeriod",
      invalid(formatGoDuration(configSyncPeriod), "must be greater than 0"),
    ],
    [
      nftables.syncPeriod <= 0,
      "nftables.syncPeriod",
      invalid(formatGoDuration(nftables.syncPeriod), "must be greater than 0"),
    ],
    unsigned("nftables.minSyncPeriod", nftables.minSyncPeriod),
    [
      c.clientConnection.burst < 0,
      "clientConnection.burst",
      invalid(c.clientConnection.burst, "must be greater than or equal to 0"),
    ],
    [
      ipFamily(bindAddress) === undefined,
      "bindAddress",
      invalid(bindAddress, "not a valid textual representation of an IP address"),
    ],
    [
      !modes.includes(c.mode),
      "mode",
      invalid(
        c.mode,
        "must be iptables, ipvs, nftables or blank (blank means the best-available proxy)",
      ),
    ],
    [
      !localModes.includes(c.detectLocalMode),
      "detectLocalMode",
      `Unsupported value: ${JSON.stringify(c.detectLocalMode)}: supported values: ${localModes.map((word) => JSON.stringify(word)).join(", ")}`,
    ],
    [
      c.detectLocalMode === "BridgeInterface" && c.detectLocal.bridgeInterface === "",
      "detectLocal.bridgeInterface",
      invalid("", "must not be empty"),
    ],
    [
      c.detectLocalMode === "InterfaceNamePrefix" && c.detectLocal.interfaceNamePrefix === "",
      "detectLocal.interfaceNamePrefix",
      invalid("", "must not be empty"),
    ],
  ];
}

function nodePorts(c: KubeProxyConfiguration): Finding[] {
  const path = "nodePortAddresses";
  return c.nodePortAddresses.flatMap((text, index) => {
    const alone = c.nodePortAddresses.length === 1;
    if (text === "primary" && alone) return [];
    if (text !== "primary" && isCidr(text)) return [];
    const why = text === "primary" ? "can't use both 'primary' and CIDRs" : "must be a valid CIDR";
    return [{ path, text: `[${index}]: Invalid value: ${JSON.stringify(text)}: ${why}` }];
  });
}

/** Everything about a KubeProxyConfiguration that upstream's own validation refuses (1.36, on Linux). */
export function validateProxy(c: KubeProxyConfiguration): readonly Finding[] {
  return [
    ...broken(scalars(c), ""),
    ...hostPortFinding("healthzBindAddress", c.healthzBindAddress),
    ...hostPortFinding("metricsBindAddress", c.metricsBindAddress),
    ...clusterCIDR(c),
    ...nodePorts(c),
    ...validateLogging(c),
  ];
}
