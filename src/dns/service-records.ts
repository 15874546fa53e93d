import { ipFamily } from "../lib/cidr.ts";
import { dashedIP, isHostName } from "./names.ts";
import type { DnsEndpoint, DnsPort, DnsRecord, DnsService, DnsSlice } from "./types.ts";

/** Seconds; what CoreDNS gives cluster names. */
export const recordTTL = 5;

/** What the names of one Service stand for. */
export interface ServiceRecords {
  /**
   * @param below What stands before the Service's own name: "" is the Service itself, then `web-0`, `_http._tcp`, `_tcp`.
   * @param type Of the question. Others may be among the records.
   * @returns an empty list for a name that exists without any, undefined for one that does not.
   */
  get(below: string, type: string): readonly DnsRecord[] | undefined;
}

function addressRecord(name: string, ip: string): DnsRecord {
  const type = ipFamily(ip) === "IPv6" ? "AAAA" : "A";
  return { name, type, ttl: recordTTL, data: ip };
}

/** A port and the name at which something answers it. */
interface Offer {
  readonly port: DnsPort;
  readonly target: string;
}

/** Offers by the name below the Service's own at which they are found, each once. */
function offersByName(offers: readonly Offer[]): ReadonlyMap<string, ReadonlyMap<string, Offer>> {
  const byName = new Map<string, Map<string, Offer>>();
  const put = (below: string, offer: Offer): void => {
    const found = byName.get(below) ?? new Map<string, Offer>();
    found.set(`${offer.port.port} ${offer.target}`, offer);
    byName.set(below, found);
  };
  for (const offer of offers) {
    const { name, protocol } = offer.port;
    // All ports at once, also those without a name, for who asks for SRV of the Service itself.
    put("", offer);
    if (name !== "") put(`_${name}._${protocol}`, offer);
  }
  return byName;
}

function srvRecords(service: string, offers: readonly Offer[]): RecordMap {
  const records = new Map<string, readonly DnsRecord[]>();
  for (const [below, distinct] of offersByName(offers)) {
    const name = below === "" ? service : `${below}.${service}`;
    // All of one name are worth the same.
    const weight = Math.max(1, Math.floor(100 / distinct.size));
    // `_tcp` exists as soon as something is below it (RFC 8020).
    if (below !== "") records.set(below.slice(below.lastIndexOf(".") + 1), []);
    records.set(
      below,
      [...distinct.values()].map(({ port, target }) => {
        const data = { priority: 0, weight, port: port.port, target };
        return { name, type: "SRV", ttl: recordTTL, data };
      }),
    );
  }
  return records;
}

/** The label under which an endpoint is found below its Service. */
export function endpointLabel(endpoint: DnsEndpoint): string {
  return endpoint.hostname === "" ? dashedIP(endpoint.ip) : endpoint.hostname;
}

type RecordMap = ReadonlyMap<string, readonly DnsRecord[]>;

const none: RecordMap = new Map();

/**
 * A Service with addresses, its own or those of its endpoints. What thousands of endpoints stand for is worked out when
 * somebody asks for it: nearly all questions are for addresses of the Service, and each change of an endpoint begins anew.
 */
class AddressedService implements ServiceRecords {
  readonly #service: DnsService;
  readonly #slices: readonly DnsSlice[];
  readonly #name: string;
  #own: readonly DnsRecord[] | undefined;
  #srv: RecordMap | undefined;
  #byLabel: RecordMap | undefined;

  constructor(service: DnsService, slices: readonly DnsSlice[], name: string) {
    this.#service = service;
    this.#slices = slices;
    this.#name = name;
  }

  get(below: string, type: string): readonly DnsRecord[] | undefined {
    if (below !== "") {
      const offered = below.startsWith("_") ? this.#offered().get(below) : undefined;
      return offered ?? this.#endpoints().get(below);
    }
    const own = (this.#own ??= this.#addresses());
    // DNS specification 2.4.1: without a ready endpoint a headless Service has no name.
    if (own.length === 0) return undefined;
    if (type !== "SRV" && type !== "ANY") return own;
    const srv = this.#offered().get("") ?? [];
    return type === "SRV" ? srv : [...own, ...srv];
  }

  #addresses(): readonly DnsRecord[] {
    const { clusterIPs, headless } = this.#service;
    const endpoints = headless ? this.#slices.flatMap((slice) => slice.endpoints) : [];
    // Slices overlap while endpoints move from one to the other.
    const ips = new Set([...clusterIPs, ...endpoints.map(({ ip }) => ip)]);
    return [...ips].map((ip) => addressRecord(this.#name, ip));
  }

  #offered(): RecordMap {
    if (this.#srv !== undefined) return this.#srv;
    const { clusterIPs, headless, ports } = this.#service;
    const offers: Offer[] = clusterIPs.length > 0 ? ports.map((port) => this.#offer(port)) : [];
    for (const slice of headless ? this.#slices : []) {
      for (const endpoint of slice.endpoints) {
        for (const port of slice.ports) offers.push(this.#offer(port, endpoint));
      }
    }
    this.#srv = offers.length === 0 ? none : srvRecords(this.#name, offers);
    return this.#srv;
  }

  #offer(port: DnsPort, endpoint?: DnsEndpoint): Offer {
    const target = endpoint === undefined ? this.#name : `${endpointLabel(endpoint)}.${this.#name}`;
    return { port, target };
  }

  #endpoints(): RecordMap {
    if (this.#byLabel !== undefined) return this.#byLabel;
    const byLabel = new Map<string, DnsRecord[]>();
    for (const slice of this.#slices) {
      for (const endpoint of slice.endpoints) {
        const label = endpointLabel(endpoint);
        const records = byLabel.get(label) ?? [];
        if (records.some(({ data }) => data === endpoint.ip)) continue;
        records.push(addressRecord(`${label}.${this.#name}`, endpoint.ip));
        byLabel.set(label, records);
      }
    }
    this.#byLabel = byLabel;
    return byLabel;
  }
}

/** An alias; undefined for a target that nobody could follow: an address, or no name at all. There CoreDNS says NXDOMAIN. */
function aliasRecord(name: string, target: string): DnsRecord | undefined {
  return isHostName(target) && ipFamily(target) === undefined
    ? { name, type: "CNAME", ttl: recordTTL, data: target }
    : undefined;
}

/**
 * What one Service's names stand for (Kubernetes DNS specification 1.1.0, sections 2.3 to 2.5).
 *
 * @param name Of the Service, with the cluster's domain.
 */
export function serviceRecords(
  service: DnsService,
  slices: readonly DnsSlice[],
  name: string,
): ServiceRecords {
  if (service.externalName === undefined) return new AddressedService(service, slices, name);
  const alias = aliasRecord(name, service.externalName);
  const records = alias === undefined ? undefined : [alias];
  return { get: (below) => (below === "" ? records : undefined) };
}
