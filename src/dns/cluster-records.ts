import { type Cidr, cidrContains, ipFamily } from "../lib/cidr.ts";
import { Grouped } from "./grouped.ts";
import { reverseAddress, undashedIP } from "./names.ts";
import type { Records } from "./records-file.ts";
import {
  endpointLabel,
  recordTTL,
  serviceRecords,
  type ServiceRecords,
} from "./service-records.ts";
import { specialRecords } from "./special-names.ts";
import type { DnsRecord, DnsService, DnsSlice, RecordsUpdate } from "./types.ts";

/** What the cluster knows of a name. */
export type Lookup =
  /** Not ours: whoever is upstream knows. */
  | { readonly kind: "outside" }
  /** Ours, but nobody has told us yet what there is. */
  | { readonly kind: "unknown" }
  | { readonly kind: "nxdomain"; readonly soa: DnsRecord }
  /** The name exists; without records it has none of the wanted type. */
  | {
      readonly kind: "found";
      readonly records: readonly DnsRecord[];
      readonly additionals: readonly DnsRecord[];
      readonly soa: DnsRecord;
    };

export interface ClusterRecordsOptions {
  /** `cluster.local` */
  readonly domain: string;
  /** Where this name server answers. */
  readonly serverIPs: readonly string[];
  /** Addresses of pods and Services: nobody else knows their names. */
  readonly ownNetworks: readonly Cidr[];
}

/** DNS specification that the answers follow. */
const specVersion = { name: "dns-version", data: "1.1.0", ttl: 28_800 } as const;

/**
 * The cluster's names: Services and EndpointSlices as they were last told, answered by the Kubernetes DNS specification
 * 1.1.0. Reads cost the same however many Services there are.
 */
export class ClusterRecords {
  readonly #domain: string;
  readonly #suffix: string;
  readonly #options: ClusterRecordsOptions;
  readonly #services = new Map<string, DnsService>();
  readonly #slices = new Map<string, DnsSlice>();
  readonly #slicesOf = new Grouped<DnsSlice>();
  /** Keys of Services by their addresses, and by those of their endpoints. */
  readonly #byClusterIP = new Grouped<string>();
  readonly #byEndpointIP = new Grouped<string>();
  readonly #servicesIn = new Map<string, number>();
  readonly #compiled = new Map<string, ServiceRecords>();
  /** Long lists of records by type. */
  readonly #long = new WeakMap<readonly DnsRecord[], Map<string, readonly DnsRecord[]>>();
  #namespaces: ReadonlySet<string> | undefined;
  #known = false;
  #serial = 1;
  /** Most answers are denials. */
  #domainSOA: DnsRecord | undefined;

  constructor(options: ClusterRecordsOptions) {
    this.#options = options;
    this.#domain = options.domain.toLowerCase();
    this.#suffix = `.${this.#domain}`;
  }

  apply(update: RecordsUpdate): void {
    const { services, slices } = update;
    if (update.full) {
      const keptServices = new Set(services.map(({ key }) => key));
      const keptSlices = new Set(slices.map(({ key }) => key));
      for (const key of this.#services.keys()) if (!keptServices.has(key)) this.#dropService(key);
      for (const key of this.#slices.keys()) if (!keptSlices.has(key)) this.#dropSlice(key);
      this.#known = true;
    }
    for (const key of update.removedServices) this.#dropService(key);
    for (const key of update.removedSlices) this.#dropSlice(key);
    for (const service of services) this.#addService(service);
    for (const slice of slices) this.#addSlice(slice);
    if (update.namespaces === "unknown") this.#namespaces = undefined;
    else if (update.namespaces !== undefined) this.#namespaces = new Set(update.namespaces);
    this.#serial = (this.#serial % 0xffff_ffff) + 1;
    this.#domainSOA = undefined;
  }

  /**
   * All that it was told, undefined before it was told everything once. It lives: what changes while somebody walks over it
   * may or may not be seen.
   */
  contents(): Records | undefined {
    if (!this.#known) return undefined;
    return {
      services: this.#services.values(),
      slices: this.#slices.values(),
      namespaces: this.#namespaces === undefined ? "unknown" : [...this.#namespaces],
    };
  }

  #addService(service: DnsService): void {
    this.#dropService(service.key);
    this.#services.set(service.key, service);
    for (const ip of service.clusterIPs) this.#byClusterIP.add(ip, service.key);
    const { namespace } = service;
    this.#servicesIn.set(namespace, (this.#servicesIn.get(namespace) ?? 0) + 1);
  }

  #dropService(key: string): void {
    const service = this.#services.get(key);
    if (service === undefined) return;
    this.#services.delete(key);
    this.#compiled.delete(key);
    for (const ip of service.clusterIPs) this.#byClusterIP.remove(ip, key);
    const left = (this.#servicesIn.get(service.namespace) ?? 1) - 1;
    if (left > 0) this.#servicesIn.set(service.namespace, left);
    else this.#servicesIn.delete(service.namespace);
  }

  #addSlice(slice: DnsSlice): void {
    this.#dropSlice(slice.key);
    this.#slices.set(slice.key, slice);
    if (slice.service === undefined) return;
    this.#slicesOf.add(slice.service, slice);
    this.#compiled.delete(slice.service);
    for (const { ip } of slice.endpoints) this.#byEndpointIP.add(ip, slice.service);
  }

  #dropSlice(key: string): void {
    const slice = this.#slices.get(key);
    this.#slices.delete(key);
    if (slice?.service === undefined) return;
    this.#slicesOf.remove(slice.service, key);
    this.#compiled.delete(slice.service);
    const left = new Set(this.#slicesOf.get(slice.service).flatMap(endpointIPs));
    for (const { ip } of slice.endpoints) {
      if (!left.has(ip)) this.#byEndpointIP.remove(ip, slice.service);
    }
  }

  /** @param name In lower case, without a trailing dot. @param type `A`, `SRV`, ...; `ANY` for all. */
  lookup(name: string, type: string): Lookup {
    if (name === this.#domain) return this.#found(this.#domain, this.#apex(), type);
    if (name.endsWith(this.#suffix)) {
      return this.#below(name.slice(0, -this.#suffix.length), name, type);
    }
    const special = specialRecords(name);
    if (special === "nxdomain") return this.#nxdomain(name.slice(name.lastIndexOf(".") + 1));
    return special === undefined ? this.#reverse(name, type) : this.#found(name, special, type);
  }

  #below(relative: string, name: string, type: string): Lookup {
    if (relative === specVersion.name) {
      const record = { ...specVersion, name, type: "TXT" } as const;
      return this.#found(this.#domain, [record], type);
    }
    if (relative === "svc" || relative === "pod" || relative === "dns") {
      return this.#found(this.#domain, [], type);
    }
    if (relative === "ns.dns") return this.#found(this.#domain, this.#serverAddresses(), type);
    // By offsets: split() costs more than all the rest of an answer.
    const kindDot = relative.lastIndexOf(".");
    const kind = relative.slice(kindDot + 1);
    if (kindDot < 0 || (kind !== "svc" && kind !== "pod")) return this.#nxdomain(this.#domain);
    if (!this.#known) return { kind: "unknown" };
    const namespaceDot = relative.lastIndexOf(".", kindDot - 1);
    const namespace = relative.slice(namespaceDot + 1, kindDot);
    if (namespaceDot < 0) {
      return this.#namespaceExists(namespace)
        ? this.#found(this.#domain, [], type)
        : this.#nxdomain(this.#domain);
    }
    const owners = relative.slice(0, namespaceDot);
    const records =
      kind === "svc"
        ? this.#serviceRecordsAt(owners, namespace, type)
        : this.#podRecords(namespace, owners, name);
    return records === undefined
      ? this.#nxdomain(this.#domain)
      : this.#found(this.#domain, records, type);
  }

  /** @param owners The Service, and what stands below its name. */
  #serviceRecordsAt(
    owners: string,
    namespace: string,
    type: string,
  ): readonly DnsRecord[] | undefined {
    // `example.com.svc.DOMAIN`: most of what the search path asks for is in no namespace at all.
    if (!this.#servicesIn.has(namespace)) return undefined;
    const dot = owners.lastIndexOf(".");
    const records = this.#recordsOf(`${namespace}/${owners.slice(dot + 1)}`);
    return records.get(dot < 0 ? "" : owners.slice(0, dot), type);
  }

  #recordsOf(key: string): ServiceRecords {
    const known = this.#compiled.get(key);
    if (known !== undefined) return known;
    const service = this.#services.get(key);
    if (service === undefined) return noRecords;
    const name = `${service.name}.${service.namespace}.svc.${this.#domain}`;
    const records = serviceRecords(service, this.#slicesOf.get(key), name);
    this.#compiled.set(key, records);
    return records;
  }

  /** 10-1-2-3.NAMESPACE.pod: says what it is asked, as CoreDNS does with `pods insecure`. */
  #podRecords(namespace: string, label: string, name: string): readonly DnsRecord[] | undefined {
    const ip = label.includes(".") ? undefined : undashedIP(label);
    if (ip === undefined || !this.#namespaceExists(namespace, true)) {
      return undefined;
    }
    return [{ name, type: typeOf(ip), ttl: recordTTL, data: ip }];
  }

  #namespaceExists(namespace: string, whenUnknown = false): boolean {
    return this.#namespaces?.has(namespace) ?? (whenUnknown || this.#servicesIn.has(namespace));
  }

  #reverse(name: string, type: string): Lookup {
    const ip = reverseAddress(name);
    if (ip === undefined) return { kind: "outside" };
    const zone = ip.includes(":") ? "ip6.arpa" : "in-addr.arpa";
    const ours = this.#options.ownNetworks.some((network) => cidrContains(network, ip));
    if (!this.#known) return ours ? { kind: "unknown" } : { kind: "outside" };
    const records = this.#namesOf(ip).map((target) => {
      return { name, type: "PTR", ttl: recordTTL, data: target } as const;
    });
    if (records.length > 0) return this.#found(zone, records, type);
    return ours ? this.#nxdomain(zone) : { kind: "outside" };
  }

  #namesOf(ip: string): readonly string[] {
    const services = this.#byClusterIP.get(ip);
    if (services.length > 0) return services.map((key) => this.#serviceName(key));
    const named: string[] = [];
    const headless: string[] = [];
    const behind: string[] = [];
    for (const key of this.#byEndpointIP.get(ip)) {
      const service = this.#services.get(key);
      if (service === undefined || service.externalName !== undefined) continue;
      for (const slice of this.#slicesOf.get(key)) {
        for (const endpoint of slice.endpoints) {
          if (endpoint.ip !== ip) continue;
          const name = `${endpointLabel(endpoint)}.${this.#serviceName(key)}`;
          if (endpoint.hostname !== "") named.push(name);
          else (service.headless ? headless : behind).push(name);
        }
      }
    }
    // A pod that was given a name is known by it, and many use only the first: its other Services add nothing.
    const best = [named, headless, behind].find((names) => names.length > 0) ?? [];
    return [...new Set(best)];
  }

  #serviceName(key: string): string {
    const [namespace = "", name = ""] = key.split("/");
    return `${name}.${namespace}.svc.${this.#domain}`;
  }

  #serverAddresses(): readonly DnsRecord[] {
    return this.#options.serverIPs.map((ip) => {
      return { name: `ns.dns.${this.#domain}`, type: typeOf(ip), ttl: recordTTL, data: ip };
    });
  }

  #apex(): readonly DnsRecord[] {
    const data = `ns.dns.${this.#domain}`;
    return [this.#soa(this.#domain), { name: this.#domain, type: "NS", ttl: recordTTL, data }];
  }

  #soa(zone: string): DnsRecord {
    if (zone === this.#domain && this.#domainSOA !== undefined) return this.#domainSOA;
    const data = {
      mname: `ns.dns.${this.#domain}`,
      rname: `hostmaster.${this.#domain}`,
      serial: this.#serial,
      refresh: 7200,
      retry: 1800,
      expire: 86_400,
      minimum: recordTTL,
    };
    const soa: DnsRecord = { name: zone, type: "SOA", ttl: recordTTL, data };
    if (zone === this.#domain) this.#domainSOA = soa;
    return soa;
  }

  #nxdomain(zone: string): Lookup {
    return { kind: "nxdomain", soa: this.#soa(zone) };
  }

  #found(zone: string, all: readonly DnsRecord[], type: string): Lookup {
    const records = type === "ANY" ? all : this.#ofType(all, type);
    return {
      kind: "found",
      records,
      additionals: this.#additionals(records),
      soa: this.#soa(zone),
    };
  }

  /** Those of the type, and an alias in their place. Long lists are gone through once, not for each question. */
  #ofType(all: readonly DnsRecord[], type: string): readonly DnsRecord[] {
    const filtered = (): readonly DnsRecord[] =>
      all.filter((record) => record.type === type || record.type === "CNAME");
    if (all.length < longList) return filtered();
    const byType = this.#long.get(all) ?? new Map<string, readonly DnsRecord[]>();
    this.#long.set(all, byType);
    const known = byType.get(type) ?? filtered();
    // Anybody can ask for types that nothing has.
    if (known.length > 0) byType.set(type, known);
    return known;
  }

  /** Addresses of the targets, so that nobody has to ask again (RFC 2782). */
  #additionals(records: readonly DnsRecord[]): readonly DnsRecord[] {
    if (records.length > mostWithAdditionals || !records.some(hasTarget)) return none;
    const found = new Set<DnsRecord>();
    for (const record of records) {
      if (record.type === "NS") {
        for (const address of this.#serverAddresses()) found.add(address);
      } else if (record.type === "SRV") {
        const labels = record.data.target.slice(0, -this.#suffix.length).split(".");
        const key = `${labels.at(-2) ?? ""}/${labels.at(-3) ?? ""}`;
        const below = labels.slice(0, -3).join(".");
        for (const address of this.#recordsOf(key).get(below, "A") ?? []) {
          if (address.type === "A" || address.type === "AAAA") found.add(address);
        }
      }
    }
    return [...found];
  }
}

const none: readonly DnsRecord[] = [];

function hasTarget({ type }: DnsRecord): boolean {
  return type === "NS" || type === "SRV";
}

const noRecords: ServiceRecords = { get: () => undefined };
const longList = 32;
/** Beside so many answers there is no room for their targets' addresses, not even by TCP. */
const mostWithAdditionals = 1000;

function typeOf(ip: string): "A" | "AAAA" {
  return ipFamily(ip) === "IPv6" ? "AAAA" : "A";
}

function endpointIPs(slice: DnsSlice): readonly string[] {
  return slice.endpoints.map(({ ip }) => ip);
}
