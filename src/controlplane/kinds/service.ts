import { type IPFamily, ipFamily, parseCidr } from "../../lib/cidr.ts";
import { invalid } from "../status-error.ts";
import type {
  FieldError,
  JsonObject,
  KindDefinition,
  ObjectReader,
  Strategy,
  TableDefinition,
} from "../types.ts";
import {
  ensureRecord,
  int,
  nameOf,
  namespaceOf,
  record,
  records,
  strings,
  text,
} from "./access.ts";
import { at, invalidValue } from "./field-error.ts";
import { labelName } from "./names.ts";
import {
  AddressAllocator,
  PortAllocator,
  type RandomInt,
  type Taken,
} from "./service-allocation.ts";
import {
  dropLeftovers,
  isHeadless,
  keepAllocated,
  needsHealthCheck,
  normalizeClusterIPs,
  serviceDefaults,
} from "./service-defaults.ts";
import { settleFamilies } from "./service-families.ts";
import { validateServiceStatus } from "./service-status.ts";
import { validateService, validateServiceChange } from "./service-validation.ts";
import { serviceWarnings } from "./service-warnings.ts";
import { allVerbs, defineStatusStrategy, defineStrategy, subresourceVerbs } from "./strategy.ts";
import { age, ageColumn, column, formatLabels, nameColumn } from "./table.ts";

const target = { plural: "services", kind: "Service", group: "" };

export interface ServiceDeps {
  /** Ranges of cluster IPs, one of each family, the primary one first: `10.96.0.0/16`, `fd00:96::/112`. */
  readonly serviceCidrs: readonly string[];
  /** Both ends included. */
  readonly nodePorts: { readonly first: number; readonly last: number };
  readonly randomInt: RandomInt;
  /** The stored Services, read once, when the first address is needed. */
  readonly stored: () => ObjectReader;
}

function clusterIPsOf(spec: Readonly<JsonObject>): string[] {
  return strings(spec["clusterIPs"]).filter((address) => address !== "None" && address !== "");
}

function portsOf(spec: Readonly<JsonObject>): number[] {
  const ports = records(spec["ports"]).map((port) => int(port["nodePort"]) ?? 0);
  return [...ports, int(spec["healthCheckNodePort"]) ?? 0].filter((port) => port !== 0);
}

function wantsNodePorts(spec: Readonly<JsonObject>): boolean {
  return (
    spec["type"] === "NodePort" ||
    (spec["type"] === "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] !== false)
  );
}

/** What one `allocate` call has taken so far, so that a refusal can give all of it back. */
interface Claims {
  readonly addresses: string[];
  readonly ports: number[];
}

interface Pools {
  /** The primary family first. */
  readonly addresses: ReadonlyMap<IPFamily, AddressAllocator>;
  readonly ports: PortAllocator;
}

/** Hands out cluster IPs and node ports; the only owner of both. */
class ServiceAllocator {
  readonly #deps: ServiceDeps;
  #pools: Pools | undefined;

  constructor(deps: ServiceDeps) {
    this.#deps = deps;
  }

  /** The pools, rebuilt from the store the first time: there is no allocation record beside the Services. */
  #load(): Pools {
    if (this.#pools !== undefined) return this.#pools;
    const { serviceCidrs, nodePorts, randomInt, stored } = this.#deps;
    const addresses = new Map<IPFamily, AddressAllocator>();
    for (const text of serviceCidrs) {
      const cidr = parseCidr(text, "serviceCidrs");
      addresses.set(cidr.family, new AddressAllocator(cidr, randomInt));
    }
    this.#pools = { addresses, ports: new PortAllocator(nodePorts, randomInt) };
    for (const service of stored().list("services")) this.#restore(record(service["spec"]));
    return this.#pools;
  }

  /** The allocator that an address belongs to; a cluster may have had another family before. */
  #owner(address: string): AddressAllocator | undefined {
    const family = ipFamily(address);
    return family === undefined ? undefined : this.#load().addresses.get(family);
  }

  #restore(spec: Readonly<JsonObject>): void {
    for (const address of clusterIPsOf(spec)) this.#owner(address)?.restore(address);
    for (const port of portsOf(spec)) this.#load().ports.restore(port);
  }

  allocate(service: JsonObject, old: Readonly<JsonObject> | undefined, dryRun: boolean): void {
    const { addresses, ports } = this.#load();
    const spec = ensureRecord(service, "spec");
    const before = record(old?.["spec"]);
    const claims: Claims = { addresses: [], ports: [] };
    const errors = settleFamilies(spec, old === undefined ? undefined : before, [
      ...addresses.keys(),
    ]);
    if (errors.length === 0) {
      errors.push(...this.#allocateAddresses(spec, before, claims));
      errors.push(...this.#allocatePorts(spec, before, claims));
    }
    if (errors.length > 0 || dryRun) {
      for (const address of claims.addresses) this.#owner(address)?.release(address);
      for (const port of claims.ports) ports.release(port);
    }
    if (errors.length > 0) throw invalid(target, nameOf(service), errors);
    if (!dryRun) this.#releaseDropped(before, spec);
  }

  /** An update may give addresses and ports up, for example by a change of type. */
  #releaseDropped(before: Readonly<JsonObject>, after: Readonly<JsonObject>): void {
    const { ports } = this.#load();
    const keptAddresses = new Set(clusterIPsOf(after));
    const keptPorts = new Set(portsOf(after));
    for (const address of clusterIPsOf(before)) {
      if (!keptAddresses.has(address)) this.#owner(address)?.release(address);
    }
    for (const port of portsOf(before)) if (!keptPorts.has(port)) ports.release(port);
  }

  /**
   * Frees what `service` holds, except what the stored Service of that name still uses: this is also called when an
   * update failed, and then the old one stays.
   */
  release(service: Readonly<JsonObject>): void {
    const { ports } = this.#load();
    const spec = record(service["spec"]);
    for (const address of clusterIPsOf(spec)) this.#owner(address)?.release(address);
    for (const port of portsOf(spec)) ports.release(port);
    const current = this.#deps.stored().get("services", namespaceOf(service), nameOf(service));
    this.#restore(record(current?.["spec"]));
  }

  /** One of each of the Service's families, those that it has or asks for among them. */
  #allocateAddresses(spec: JsonObject, before: Readonly<JsonObject>, claims: Claims): FieldError[] {
    if (spec["type"] === "ExternalName" || isHeadless(spec)) return [];
    const held = clusterIPsOf(before);
    const wanted = clusterIPsOf(spec);
    const families = strings(spec["ipFamilies"]);
    const given: string[] = [];
    for (const [index, family] of families.entries()) {
      const requested = wanted[index];
      const allocator = this.#load().addresses.get(family === "IPv6" ? "IPv6" : "IPv4");
      const keeps = requested !== undefined && held.includes(requested);
      // Of a family that the cluster had once: the address stays, and nobody else is given it.
      if (keeps || allocator === undefined) {
        if (requested !== undefined) given.push(requested);
        continue;
      }
      const taken = requested === undefined ? allocator.next() : allocator.take(requested);
      if (taken.kind === "refused") {
        const value = requested === undefined && wanted.length === 0 ? null : wanted;
        return [invalidValue("spec.clusterIPs", value, taken.message)];
      }
      claims.addresses.push(taken.value);
      given.push(taken.value);
    }
    spec["clusterIP"] = given[0];
    spec["clusterIPs"] = given;
    return [];
  }

  #allocatePorts(spec: JsonObject, before: Readonly<JsonObject>, claims: Claims): FieldError[] {
    const { ports } = this.#load();
    const held = new Set(portsOf(before));
    const errors: FieldError[] = [];
    /** TCP and UDP of one Service may share a node port. */
    const ours = new Set<number>();
    records(spec["ports"]).forEach((port, index) => {
      const requested = int(port["nodePort"]) ?? 0;
      if (requested === 0 && !wantsNodePorts(spec)) return;
      if (requested !== 0 && (held.has(requested) || ours.has(requested))) return;
      const shared =
        requested === 0 ? sharedPort(records(spec["ports"]).slice(0, index), port) : undefined;
      const taken: Taken<number> =
        shared === undefined
          ? requested === 0
            ? ports.next()
            : ports.take(requested)
          : { kind: "taken", value: shared };
      if (taken.kind === "refused") {
        errors.push(invalidValue(`${at("spec.ports", index)}.nodePort`, requested, taken.message));
        return;
      }
      if (shared === undefined) claims.ports.push(taken.value);
      ours.add(taken.value);
      port["nodePort"] = taken.value;
    });
    return [...errors, ...this.#allocateHealthCheck(spec, held, claims)];
  }

  #allocateHealthCheck(spec: JsonObject, held: ReadonlySet<number>, claims: Claims): FieldError[] {
    if (!needsHealthCheck(spec)) return [];
    const requested = int(spec["healthCheckNodePort"]) ?? 0;
    if (held.has(requested)) return [];
    const { ports } = this.#load();
    const taken = requested === 0 ? ports.next() : ports.take(requested);
    if (taken.kind === "refused") {
      return [invalidValue("spec.healthCheckNodePort", requested, taken.message)];
    }
    claims.ports.push(taken.value);
    spec["healthCheckNodePort"] = taken.value;
    return [];
  }
}

/** The node port of an earlier entry with the same service port and another protocol (DNS on TCP and UDP). */
function sharedPort(earlier: readonly JsonObject[], port: JsonObject): number | undefined {
  const twin = earlier.find(
    (candidate) => candidate["port"] === port["port"] && candidate["protocol"] !== port["protocol"],
  );
  return int(twin?.["nodePort"]);
}

function createServiceStrategy(allocator: ServiceAllocator): Strategy {
  const base = defineStrategy({
    applyDefaults: serviceDefaults,
    hasStatus: true,
    validateName: labelName,
    prepareForCreate(service) {
      service["status"] = { loadBalancer: {} };
      normalizeClusterIPs(ensureRecord(service, "spec"), undefined);
    },
    prepareForUpdate(service, old) {
      const spec = ensureRecord(service, "spec");
      const before = record(old["spec"]);
      normalizeClusterIPs(spec, before);
      keepAllocated(spec, before);
      dropLeftovers(spec, before);
      // Its controller works later; nobody needs to see that.
      if (spec["type"] !== "LoadBalancer") ensureRecord(service, "status")["loadBalancer"] = {};
    },
    validate: (service, old) => [
      ...(old === undefined ? [] : validateServiceChange(service, old)),
      ...validateService(service),
    ],
    warnings: serviceWarnings,
  });
  return {
    ...base,
    allocate: (service, old, context) => allocator.allocate(service, old, context.dryRun),
    release: (service) => allocator.release(service),
    returnsDeletedObject: true,
  };
}

function joined(values: readonly string[]): string {
  return values.length === 0 ? "<none>" : values.join(",");
}

function externalAddress(service: Readonly<JsonObject>): string {
  const spec = record(service["spec"]);
  const own = strings(spec["externalIPs"]);
  if (spec["type"] === "ExternalName") return text(spec["externalName"]);
  if (spec["type"] !== "LoadBalancer") return joined(own);
  const ingress = records(record(record(service["status"])["loadBalancer"])["ingress"]).map(
    (item) => text(item["ip"]) || text(item["hostname"]),
  );
  const all = [...[...new Set(ingress)].toSorted(), ...own];
  return all.length === 0 ? "<pending>" : all.join(",");
}

function portText(port: Readonly<JsonObject>): string {
  const nodePort = int(port["nodePort"]) ?? 0;
  const number = `${int(port["port"]) ?? 0}`;
  return `${nodePort === 0 ? number : `${number}:${nodePort}`}/${text(port["protocol"])}`;
}

const serviceTable: TableDefinition = {
  columns: [
    nameColumn,
    column("Type", "How the Service is exposed."),
    column("Cluster-IP", "Virtual address inside the cluster."),
    column("External-IP", "Addresses or name under which it is reached from outside."),
    column("Port(s)", "Service ports, with node port and protocol."),
    ageColumn,
    column("Selector", "Labels of the pods behind the Service.", true),
  ],
  row(service, now) {
    const spec = record(service["spec"]);
    return [
      nameOf(service),
      text(spec["type"]),
      strings(spec["clusterIPs"])[0] ?? "<none>",
      externalAddress(service),
      joined(records(spec["ports"]).map((port) => portText(port))),
      age(service, now),
      formatLabels(spec["selector"]),
    ];
  },
};

/** Kind Service with its allocators of cluster IPs and node ports. */
export function createServiceKind(deps: ServiceDeps): KindDefinition {
  const strategy = createServiceStrategy(new ServiceAllocator(deps));
  return {
    group: "",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    shortNames: ["svc"],
    categories: ["all"],
    namespaced: true,
    verbs: allVerbs,
    schema: "io.k8s.api.core.v1.Service",
    durability: "durable",
    strategy,
    subresources: {
      status: {
        kind: "stored",
        verbs: subresourceVerbs,
        strategy: defineStatusStrategy(strategy, { validate: validateServiceStatus }),
      },
      proxy: {
        kind: "custom",
        verbs: ["create", "delete", "get", "patch", "update"],
        gvk: { group: "", version: "v1", kind: "ServiceProxyOptions" },
      },
    },
    fieldSelectors: {
      "spec.clusterIP": (service) => text(record(service["spec"])["clusterIP"]),
      "spec.type": (service) => text(record(service["spec"])["type"]),
    },
    table: serviceTable,
  };
}
