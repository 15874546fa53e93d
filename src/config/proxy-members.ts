import type { Configuration } from "./configuration.ts";
import { gateEnabled } from "./feature-gates.ts";
import { type KubeProxyConfiguration, sectionFields } from "./proxy-configuration.ts";
import type { ProxySettings } from "./types.ts";

type Section = Pick<KubeProxyConfiguration["nftables"], (typeof sectionFields)[number]>;

function said({ KubeProxyConfiguration }: Configuration["settings"], path: string): boolean {
  return KubeProxyConfiguration.get(path)?.origin !== undefined;
}

/**
 * What the sections of both modes say. A mode that is left open is chosen at the start, so what one section says counts
 * whatever is chosen; what both say, nftables' counts, which is chosen first.
 */
function sectionOf({ proxy, settings }: Pick<Configuration, "proxy" | "settings">): Section {
  if (proxy.mode === "iptables") return proxy.iptables;
  if (proxy.mode === "nftables") return proxy.nftables;
  const fields = sectionFields.map((field) => {
    const byIptables = !said(settings, `nftables.${field}`) && said(settings, `iptables.${field}`);
    const mode = byIptables ? "iptables" : "nftables";
    return [field, proxy[mode][field]] as const;
  });
  return { ...proxy.nftables, ...Object.fromEntries(fields) };
}

function modeOf({ mode }: KubeProxyConfiguration): ProxySettings["mode"] {
  return mode === "nftables" || mode === "iptables" ? mode : "";
}

function localModeOf({
  detectLocalMode,
}: KubeProxyConfiguration): ProxySettings["detectLocalMode"] {
  switch (detectLocalMode) {
    case "NodeCIDR":
    case "BridgeInterface":
    case "InterfaceNamePrefix":
      return detectLocalMode;
    default:
      return "ClusterCIDR";
  }
}

/** What a configuration without errors says about the rules of Services. */
export function proxySettings(
  configuration: Pick<Configuration, "proxy" | "settings">,
): ProxySettings {
  const { proxy, settings } = configuration;
  const { conntrack } = proxy;
  const section = sectionOf(configuration);
  return {
    mode: modeOf(proxy),
    masqueradeBit: section.masqueradeBit,
    masqueradeAll: section.masqueradeAll,
    localhostNodePorts: proxy.iptables.localhostNodePorts,
    syncPeriodMs: section.syncPeriod,
    minSyncPeriodMs: section.minSyncPeriod,
    nodePortAddresses: proxy.nodePortAddresses,
    detectLocalMode: localModeOf(proxy),
    bridgeInterface: proxy.detectLocal.bridgeInterface,
    interfaceNamePrefix: proxy.detectLocal.interfaceNamePrefix,
    bindAddress: proxy.bindAddress,
    bindAddressHardFail: proxy.bindAddressHardFail,
    externalIPs: gateEnabled("AllowServiceExternalIPs", proxy.featureGates),
    conntrack: {
      maxPerCore: conntrack.maxPerCore,
      min: conntrack.min,
      onlyRaiseMax: !said(settings, "conntrack.maxPerCore") && !said(settings, "conntrack.min"),
      tcpEstablishedTimeoutMs: conntrack.tcpEstablishedTimeout,
      tcpCloseWaitTimeoutMs: conntrack.tcpCloseWaitTimeout,
      tcpBeLiberal: conntrack.tcpBeLiberal,
      udpTimeoutMs: conntrack.udpTimeout,
      udpStreamTimeoutMs: conntrack.udpStreamTimeout,
    },
  };
}
