import { ipFamily } from "../lib/cidr.ts";
import { dashedIP, isHostName } from "./names.ts";
import type { DnsEndpoint, DnsPort, DnsRecord, DnsService, DnsSlice } from "./types.ts";

/** Seconds; what CoreDNS gives cluster names. */
export const recordTTL = 5;

/** Records by the name below the Service's own: "" is the Service itself, then `web-0`, `_http._tcp`, `_tcp`. */
export type ServiceRecords = ReadonlyMap<string, readonly DnsRecord[]>;

class RecordSets {
  readonly #sets = new Map<string, DnsRecord[]>();
  readonly #seen = new Set<string>();

  /** Makes the name exist: a query for a type it does not have is answered without error. */
  touch(below: string): DnsRecord[] {
    const records = this.#sets.get(below) ?? [];
    this.#sets.set(below, records);
    return records;
  }

  add(below: string, record: DnsRecord): void {
    const fingerprint = `${below} ${record.type} ${JSON.stringify(record.data)}`;
    if (this.#seen.has(fingerprint)) return;
    this.#seen.add(fingerprint);
    this.touch(below).push(record);
  }

  get sets(): ServiceRecords {
    return this.#sets;
  }
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

function addOffers(sets: RecordSets, service: string, offers: readonly Offer[]): void {
  for (const [below, distinct] of offersByName(offers)) {
    const name = below === "" ? service : `${below}.${service}`;
    // All of one name are worth the same.
    const weight = Math.max(1, Math.floor(100 / distinct.size));
    // `_tcp` exists as soon as something is below it (RFC 8020).
    if (below !== "") sets.touch(below.slice(below.lastIndexOf(".") + 1));
    for (const { port, target } of distinct.values()) {
      const data = { priority: 0, weight, port: port.port, target };
      sets.add(below, { name, type: "SRV", ttl: recordTTL, data });
    }
  }
}

/** The label under which an endpoint is found below its Service. */
export function endpointLabel(endpoint: DnsEndpoint): string {
  return endpoint.hostname === "" ? dashedIP(endpoint.ip) : endpoint.hostname;
}

function externalRecords(name: string, target: string): ServiceRecords {
  const sets = new RecordSets();
  // An address is no name, and nobody could follow an alias to it: there is no such name, as CoreDNS says.
  if (isHostName(target) && ipFamily(target) === undefined) {
    sets.add("", { name, type: "CNAME", ttl: recordTTL, data: target });
  }
  return sets.sets;
}

/**
 * What one Service's names stand for (Kubernetes DNS specification 1.1.0, sections 2.3 to 2.5). A headless Service
 * without ready endpoints has no names at all.
 *
 * @param name Of the Service, with the cluster's domain.
 */
export function serviceRecords(
  service: DnsService,
  slices: Iterable<DnsSlice>,
  name: string,
): ServiceRecords {
  if (service.externalName !== undefined) return externalRecords(name, service.externalName);
  const sets = new RecordSets();
  for (const ip of service.clusterIPs) sets.add("", addressRecord(name, ip));
  const offers: Offer[] = [];
  for (const slice of slices) {
    for (const endpoint of slice.endpoints) {
      const label = endpointLabel(endpoint);
      const target = `${label}.${name}`;
      sets.add(label, addressRecord(target, endpoint.ip));
      if (!service.headless) continue;
      sets.add("", addressRecord(name, endpoint.ip));
      for (const port of slice.ports) offers.push({ port, target });
    }
  }
  if (service.clusterIPs.length > 0) {
    for (const port of service.ports) offers.push({ port, target: name });
  }
  addOffers(sets, name, offers);
  return sets.sets;
}
