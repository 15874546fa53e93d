import { ENDPOINT_SLICES, SERVICES } from "../../../src/api/resources.ts";
import type { LoadBalancerIngress, ServiceSpec } from "../../../src/api/types.gen.ts";
import type { ProxyMode } from "../../../src/proxy/backend.ts";
import type { Addresses } from "./addresses.ts";
import { type PortName, portOf, serviceObject, sliceObject, type Target } from "./objects.ts";
import type { Peer } from "./peer.ts";
import { eventually, type World } from "./world.ts";

/** What a case says about a Service; the rest is given out. */
export interface ServiceWish {
  readonly targets?: readonly Target[];
  readonly ports?: readonly PortName[];
  /** Default ClusterIP; others get node ports. */
  readonly type?: "ClusterIP" | "NodePort" | "LoadBalancer";
  readonly spec?: ServiceSpec;
  /** With an external address. */
  readonly external?: boolean;
  /** Of its load balancer address; default VIP. */
  readonly ipMode?: "VIP" | "Proxy";
  readonly targetPort?: number;
  readonly port?: number;
  readonly labels?: Readonly<Record<string, string>>;
  readonly sliceLabels?: Readonly<Record<string, string>>;
  readonly createdAt?: string;
  /** Without: it is not written. */
  readonly withSlice?: boolean;
}

function address(ip: string, port: number): string {
  return `${ip.includes(":") ? `[${ip}]` : ip}:${port}`;
}

/** A Service of one case. */
export class TestService {
  readonly name: string;
  readonly clusterIP: string;
  readonly externalIP: string;
  readonly loadBalancerIP: string;
  readonly #world: World;
  readonly #addresses: Addresses;
  readonly #nodePorts: number;
  #wish: ServiceWish;

  constructor(world: World, addresses: Addresses, name: string, wish: ServiceWish) {
    this.#world = world;
    this.#addresses = addresses;
    const number = world.takeNumber();
    this.#nodePorts = world.takeNodePorts();
    this.#wish = wish;
    this.name = name;
    this.clusterIP = addresses.clusterIP(number);
    this.externalIP = addresses.external(2 * number);
    this.loadBalancerIP = addresses.external(2 * number + 1);
  }

  get nodePort(): number {
    return this.nodePortOf("t");
  }

  nodePortOf(kind: PortName): number {
    return this.#nodePorts + (kind === "t" ? 0 : kind === "u" ? 1 : kind === "e" ? 2 : 3);
  }

  get #ports(): readonly PortName[] {
    return this.#wish.ports ?? ["t", "u"];
  }

  /** Where clients find a port of it. */
  at(kind: PortName = "t"): string {
    return address(this.clusterIP, this.#wish.port ?? portOf(kind));
  }

  atExternal(kind: PortName = "t"): string {
    return address(this.externalIP, this.#wish.port ?? portOf(kind));
  }

  atLoadBalancer(kind: PortName = "t"): string {
    return address(this.loadBalancerIP, this.#wish.port ?? portOf(kind));
  }

  atNode(kind: PortName = "t", ip: string = this.#addresses.node): string {
    return address(ip, this.nodePortOf(kind));
  }

  /** Changes some of it; what is not named stays. */
  change(wish: ServiceWish): void {
    this.#wish = { ...this.#wish, ...wish };
    this.put();
  }

  put(): void {
    const { type = "ClusterIP", external, ipMode, spec, port, labels, createdAt } = this.#wish;
    const ingress: LoadBalancerIngress[] =
      type === "LoadBalancer"
        ? [{ ip: this.loadBalancerIP, ...(ipMode === undefined ? {} : { ipMode }) }]
        : [];
    const nodePorts = Object.fromEntries(this.#ports.map((kind) => [kind, this.nodePortOf(kind)]));
    if (this.#wish.withSlice !== false) this.#putSlice();
    this.#world.api.put(
      SERVICES,
      serviceObject(this.name, this.#addresses, {
        clusterIP: this.clusterIP,
        ports: this.#ports,
        ingress,
        spec: {
          type,
          ...(external === true ? { externalIPs: [this.externalIP] } : {}),
          ...spec,
        },
        ...(type === "ClusterIP" ? {} : { nodePorts }),
        ...(port === undefined ? {} : { port }),
        ...(labels === undefined ? {} : { labels }),
        ...(createdAt === undefined ? {} : { createdAt }),
      }),
    );
  }

  #putSlice(): void {
    const { targets = [], targetPort, sliceLabels } = this.#wish;
    this.#world.api.put(
      ENDPOINT_SLICES,
      sliceObject(this.name, this.#addresses, {
        targets,
        ports: this.#ports,
        ...(targetPort === undefined ? {} : { targetPort }),
        ...(sliceLabels === undefined ? {} : { labels: sliceLabels }),
      }),
    );
  }

  /** Other endpoints; the Service is not written. */
  setTargets(...targets: readonly Target[]): void {
    this.#wish = { ...this.#wish, targets };
    this.#putSlice();
  }

  /** Only the Service; its slice stays. */
  removeService(): void {
    this.#world.api.remove(SERVICES, `default/${this.name}`);
  }

  remove(): void {
    this.removeService();
    const { suffix } = this.#addresses;
    this.#world.api.remove(ENDPOINT_SLICES, `default/${this.name}-${suffix}-0`);
  }
}

/** What one case works with: the world, one family's addresses, and Services that go with it. */
export class Stage {
  readonly world: World;
  readonly at: Addresses;
  readonly #label: string;
  readonly #services: TestService[] = [];
  readonly #undo: (() => Promise<unknown>)[] = [];

  constructor(world: World, addresses: Addresses, label: string) {
    this.world = world;
    this.at = addresses;
    this.#label = label;
  }

  get mode(): ProxyMode {
    return this.world.mode;
  }

  get peers(): Readonly<Record<"node" | "a" | "b" | "c" | "remote" | "client", Peer>> {
    return this.world.peers;
  }

  /** Writes a Service; {@link settled} waits for its rules. */
  service(wish: ServiceWish = {}): TestService {
    const name = `${this.#label}-${this.#services.length}`;
    const service = new TestService(this.world, this.at, name, wish);
    this.#services.push(service);
    service.put();
    return service;
  }

  /** Writes a Service and waits for its rules. */
  async served(wish: ServiceWish = {}): Promise<TestService> {
    const service = this.service(wish);
    await this.settled();
    return service;
  }

  settled(): Promise<void> {
    return this.world.settled(this.at);
  }

  /** Source addresses of what left the node for there. */
  leftFor(to: string, port: number): Promise<readonly string[]> {
    return this.world.topology.leftFor(this.at, to, port);
  }

  /** Waits until something has left the node for there. */
  assertLeft(to: string, port: number): Promise<void> {
    const seen = async (): Promise<boolean> => (await this.leftFor(to, port)).length > 0;
    return eventually(seen, `a packet to ${to} port ${port} on the uplink`);
  }

  /** The many addresses that the client has, `count` that nobody else uses. */
  clients(count: number): readonly string[] {
    return Array.from({ length: count }, () => this.at.many(this.world.takeClient()));
  }

  /** A source port that no other flow has. */
  flowPort(): number {
    return 20_000 + this.world.takeNumber();
  }

  /** Done when the case ends, however. */
  atEnd(undo: () => Promise<unknown>): void {
    this.#undo.push(undo);
  }

  async close(): Promise<void> {
    for (const undo of this.#undo.toReversed()) await undo();
    for (const service of this.#services) service.remove();
  }
}
