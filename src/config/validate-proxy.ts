import { formatCidr, ipFamily, isCidr, parseCidr } from "../lib/cidr.ts";
import { formatGoDuration } from "./go-duration.ts";
import { type KubeProxyConfiguration, sectionFields } from "./proxy-configuration.ts";
import { broken, type Finding, type Rule } from "./finding.ts";
import { validateLogging } from "./validate-kubelet.ts";

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

/** It stands in packet rules as it is. */
const interfaceName = /^[\w.@-]{1,15}$/;

/** Upstream judges the section of the mode; a mode that is left open takes what both say. */
function syncRules(c: KubeProxyConfiguration): readonly Rule[] {
  const used = (["iptables", "nftables"] as const).filter(
    (mode) => c.mode === mode || c.mode === "",
  );
  return used.flatMap((mode): readonly Rule[] => {
    const { minSyncPeriod, syncPeriod } = c[mode];
    const invalid = (ms: number, why: string): string =>
      `Invalid value: ${JSON.stringify(formatGoDuration(ms))}: ${why}`;
    return [
      [syncPeriod <= 0, `${mode}.syncPeriod`, invalid(syncPeriod, "must be greater than 0")],
      [
        minSyncPeriod < 0,
        `${mode}.minSyncPeriod`,
        invalid(minSyncPeriod, "must be greater than or equal to 0"),
      ],
      [
        minSyncPeriod > syncPeriod && syncPeriod > 0,
        `${mode}.syncPeriod`,
        invalid(syncPeriod, `must be greater than or equal to ${mode}.minSyncPeriod`),
      ],
    ];
  });
}

/** kube-proxy's third mode, whose end has been announced. */
const noIPVS =
  '"ipvs" is not supported: Kubernetes gives this mode up (KEP-5495); say "nftables" or "iptables", or leave it out. What kube-proxy left of it on the node is removed at the start';

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
  const noInterface =
    "must be the name of an interface: at most 15 letters, digits and any of . _ - @";
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
    ...syncRules(c),
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
      invalid(c.mode, "must be nftables, iptables or blank (blank means the best-available proxy)"),
    ],
    [c.mode === "ipvs", "mode", noIPVS],
    [
      !localModes.includes(c.detectLocalMode),
      "detectLocalMode",
      `Unsupported value: ${JSON.stringify(c.detectLocalMode)}: supported values: ${localModes.map((word) => JSON.stringify(word)).join(", ")}`,
    ],
    ...(
      [
        ["BridgeInterface", "bridgeInterface"],
        ["InterfaceNamePrefix", "interfaceNamePrefix"],
      ] as const
    ).map(([mode, field]): Rule => {
      const name = c.detectLocal[field];
      return [
        c.detectLocalMode === mode && !interfaceName.test(name),
        `detectLocal.${field}`,
        invalid(name, name === "" ? "must not be empty" : noInterface),
      ];
    }),
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

/** Node ports on localhost, where the mode has none. */
function loopbackNodePorts(c: KubeProxyConfiguration): Finding[] {
  if (c.mode !== "nftables") return [];
  return c.nodePortAddresses
    .filter((text) => isCidr(text) && /^(127\.|::1\/128$)/.test(formatCidr(parseCidr(text))))
    .map((text) => ({
      path: "nodePortAddresses",
      severity: "ignored",
      text: `${text} has no effect: there are no node ports on localhost with mode: nftables`,
    }));
}

type Said = (path: string) => boolean;

function unused(path: string, because: string): Finding {
  return { path, severity: "ignored", text: `has no effect: ${because}` };
}

/**
 * Fields that mean something, but not together with others: settings of the mode that is not used, of a way to tell pods
 * that is not used.
 *
 * @param said Whether a field is set to something else than its default, by a file or by a flag of its own.
 */
export function unusedProxyFields(c: KubeProxyConfiguration, said: Said): readonly Finding[] {
  const out: Finding[] = [];
  if (c.mode === "iptables" || c.mode === "nftables") {
    const idle =
      c.mode === "iptables"
        ? sectionFields.map((field) => `nftables.${field}`)
        : [...sectionFields, "localhostNodePorts"].map((field) => `iptables.${field}`);
    out.push(...idle.filter(said).map((path) => unused(path, `mode is ${c.mode}`)));
  }
  for (const field of c.mode === "" ? sectionFields : []) {
    const both = said(`iptables.${field}`) && said(`nftables.${field}`);
    if (both && c.iptables[field] !== c.nftables[field]) {
      out.push(unused(`iptables.${field}`, `no mode is set, and nftables.${field} counts`));
    }
  }
  for (const [mode, field] of [
    ["BridgeInterface", "detectLocal.bridgeInterface"],
    ["InterfaceNamePrefix", "detectLocal.interfaceNamePrefix"],
  ] as const) {
    if (c.detectLocalMode !== mode && said(field))
      out.push(unused(field, `detectLocalMode is ${c.detectLocalMode}`));
  }
  if (c.conntrack.maxPerCore === 0 && said("conntrack.min"))
    out.push(unused("conntrack.min", "conntrack.maxPerCore is 0"));
  return out;
}

/** Everything about a KubeProxyConfiguration that upstream's own validation refuses (1.36, on Linux). */
export function validateProxy(c: KubeProxyConfiguration): readonly Finding[] {
  return [
    ...broken(scalars(c), ""),
    ...hostPortFinding("healthzBindAddress", c.healthzBindAddress),
    ...hostPortFinding("metricsBindAddress", c.metricsBindAddress),
    ...clusterCIDR(c),
    ...nodePorts(c),
    ...loopbackNodePorts(c),
    ...validateLogging(c),
  ];
}
