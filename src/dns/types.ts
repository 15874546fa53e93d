import type { Fields, Level } from "../lib/log.ts";
import type { SourceLimitsOptions } from "./source-limits.ts";

/** What the name server keeps of a Service. */
export interface DnsService {
  /** `namespace/name`. */
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  /** Empty for headless and ExternalName Services. */
  readonly clusterIPs: readonly string[];
  /** `spec.clusterIP: None`. */
  readonly headless: boolean;
  /** Target of an ExternalName Service, without a trailing dot. */
  readonly externalName: string | undefined;
  readonly ports: readonly DnsPort[];
  /** Label `service.kubernetes.io/service-proxy-name`: who does its packets; empty for the Service proxy. */
  readonly proxyName: string;
}

export interface DnsPort {
  /** Empty for a Service's only port. */
  readonly name: string;
  readonly protocol: "tcp" | "udp" | "sctp";
  readonly port: number;
}

/** What the name server keeps of an EndpointSlice. */
export interface DnsSlice {
  /** `namespace/name`. */
  readonly key: string;
  /** `namespace/name` of its Service; undefined when it has none. */
  readonly service: string | undefined;
  readonly ports: readonly DnsPort[];
  /** Ready ones only. A controller marks those of `publishNotReadyAddresses` as ready. */
  readonly endpoints: readonly DnsEndpoint[];
}

export interface DnsEndpoint {
  readonly ip: string;
  /** From the pod's `hostname` or by hand; empty when it has none. */
  readonly hostname: string;
}

/** A change of what the cluster's names stand for. */
export interface RecordsUpdate {
  /** The update holds everything there is: what it does not name is gone. */
  readonly full: boolean;
  readonly services: readonly DnsService[];
  readonly slices: readonly DnsSlice[];
  /** Keys. */
  readonly removedServices: readonly string[];
  readonly removedSlices: readonly string[];
  /** All namespaces; `unknown` when nobody may list them; undefined = as before. */
  readonly namespaces: readonly string[] | "unknown" | undefined;
}

/** A resource record, data in the shape of dns-packet. Names are in lower case, without a trailing dot. */
export type DnsRecord = { readonly name: string; readonly ttl: number } & (
  | { readonly type: "A" | "AAAA" | "NS" | "PTR" | "TXT"; readonly data: string }
  | { readonly type: "CNAME"; readonly data: string }
  | {
      readonly type: "SRV";
      readonly data: {
        readonly priority: number;
        readonly weight: number;
        readonly port: number;
        readonly target: string;
      };
    }
  | {
      readonly type: "SOA";
      readonly data: {
        readonly mname: string;
        readonly rname: string;
        readonly serial: number;
        readonly refresh: number;
        readonly retry: number;
        readonly expire: number;
        readonly minimum: number;
      };
    }
);

/** A socket that somebody else made and holds, for when we are not there. */
export interface PassedSocket {
  readonly protocol: "udp" | "tcp";
  readonly address: string;
  readonly fd: number;
}

/** How the name server's thread is set up; plain data. */
export interface NameServerSettings {
  /** `cluster.local` */
  readonly domain: string;
  /** Where it answers. */
  readonly addresses: readonly string[];
  /** 53 */
  readonly port: number;
  /** Networks of pods and Services: nobody else knows their names. */
  readonly ownNetworks: readonly string[];
  /** The host's file; empty = names outside the cluster have no answer. */
  readonly resolvConf: string;
  /** Where to count (`SharedCounts`); without it nobody reads the figures. */
  readonly counts?: SharedArrayBuffer;
  /** What one address may ask; without it the usual. */
  readonly sourceLimits?: SourceLimitsOptions;
  /** Sockets that are bound to `addresses` already; the thread that gets them closes them when it ends. */
  readonly passed?: readonly PassedSocket[];
  /** File of the last records, read when nobody tells any and written after changes; without it there is none. */
  readonly recordsFile?: string;
}

/** What the agent tells the name server's thread. */
export type ToNameServer =
  /** `more`: the update goes on with the next message. */
  | { readonly kind: "records"; readonly update: RecordsUpdate; readonly more?: boolean }
  | { readonly kind: "stop" };

/** What the name server's thread tells the agent. */
export type FromNameServer =
  | { readonly kind: "listening" }
  | { readonly kind: "log"; readonly level: Level; readonly msg: string; readonly fields: Fields };
