import type { ApiClient } from "../api/client.ts";
import type { EventRecorder } from "../api/event-types.ts";
import type { StreamingSupport } from "../api/informer.ts";
import type { AgentConfig } from "../config/types.ts";
import type { Clock } from "../lib/clock.ts";
import type { ListeningSocket } from "../lib/listening-sockets.ts";
import type { Logger } from "../lib/log.ts";
import type { AddressSource } from "../netfilter/address-watch.ts";
import type { DeletionWatch } from "../netfilter/monitor.ts";
import type { ConntrackIO } from "./conntrack-settings.ts";
import type { ProxyMetrics } from "./metrics.ts";
import type { OtherProxyProbe } from "./other-proxy.ts";
import type { ProxyInformers } from "./own-informers.ts";
import type { ProgramPages } from "./own-servers.ts";

export interface ProxyOptions {
  readonly config: Pick<
    AgentConfig,
    | "clusterCIDRs"
    | "bindAddress"
    | "proxyHealthzPort"
    | "proxyHealthzAddress"
    | "proxyMetricsPort"
    | "proxyMetricsAddress"
  > &
    Partial<Pick<AgentConfig, "proxy">>;
  /** An identity that may list and watch Services, EndpointSlices and Nodes: system:node-proxier. */
  readonly client: ApiClient;
  readonly nodeName: string;
  /** Addresses of this node; node ports answer on them. Those at the start, when `node` is given. */
  readonly nodeIPs: readonly string[];
  /** Tells the node's addresses as they change; what it does not know yet is `nodeIPs`. */
  readonly node?: {
    hostIPs(): readonly string[];
    subscribe(listener: () => void): () => void;
  };
  /** Addresses of all interfaces; run by who made it. Without it the proxy follows them itself. */
  readonly addresses?: AddressSource;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
  readonly events: EventRecorder;
  /** nftables table, default `remora-proxy`. */
  readonly tableName?: string;
  /** Networks of ClusterIPs, besides those that the server's ServiceCIDRs say. */
  readonly serviceCIDRs?: readonly string[];
  /** Reports deletions in nftables and is run by who made it. Without it the proxy runs one of its own. */
  readonly deletions?: DeletionWatch;
  readonly streaming?: StreamingSupport;
  /** Default: its own. Whoever gives some shows them to others too; it runs them, which of a view only waits. */
  readonly informers?: ProxyInformers;
  readonly pages?: ProgramPages;
  /** Called once, when the kernel has all rules. */
  readonly onApplied?: () => void;
  /** Default: its own, seen on its metrics port alone. */
  readonly metrics?: ProxyMetrics;
  /** Default: those of this network namespace. */
  readonly listeners?: () => Promise<readonly ListeningSocket[]>;
  /** How settings of connection tracking are read and written. Default: directly. */
  readonly conntrack?: ConntrackIO;
  /** Default: asks kube-proxy's ports. */
  readonly findOtherProxy?: OtherProxyProbe;
}
