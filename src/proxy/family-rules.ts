import { cidrContains, formatCidr, type IPFamily, parseCidr } from "../lib/cidr.ts";
import type { Logger } from "../lib/log.ts";
import type { FlowEnds } from "../netfilter/conntrack.ts";
import type { Deletion } from "../netfilter/monitor.ts";
import type {
  ApplyResult,
  PacketCounters,
  ProxyMode,
  RuleBackend,
  RulesContext,
} from "./backend.ts";
import {
  type FlowTarget,
  type StaleFlows,
  type TouchedFrontend,
  touchedFrontends,
} from "./conntrack.ts";
import { judgeFlow } from "./flow-judge.ts";
import { FrontendIndex } from "./frontend-index.ts";
import type { ServiceView } from "./parse.ts";
import { type PlannedPort, planPort, samePlan } from "./plan.ts";
import { servicePorts } from "./service-model.ts";
import type { SliceIndex } from "./slice-index.ts";
import type { NodeView } from "./types.ts";

/** While nothing can be applied for hours; then to look at every flow is the least work. */
const mostTouched = 10_000;
/** Beyond, all are forgotten, and told again when they change. */
const mostReported = 10_000;

/** What changes have touched. */
export interface Touched {
  readonly frontends: readonly TouchedFrontend[];
  /** False: there were more. */
  readonly all: boolean;
}

/** The Service rules of one IP family: what is planned, and who writes it to the kernel. */
export class FamilyRules {
  readonly #family: IPFamily;
  #context: RulesContext;
  readonly #backend: RuleBackend;
  /** Ports by Service. Nearly always it is one, and then there is no list. */
  readonly #planned = new Map<string, PlannedPort | readonly PlannedPort[]>();
  readonly #reported = new Set<string>();
  readonly #logger: Logger;
  readonly #externalIPs: boolean;
  /** UDP ports: what conntrack's flows are compared with. */
  readonly #udp = new FrontendIndex();
  #touched: TouchedFrontend[] = [];

  /** @param options.context What `backend` was made with. */
  constructor(options: {
    readonly context: RulesContext;
    readonly backend: RuleBackend;
    readonly logger: Logger;
    /** Off: Services have no external IPs; default on. */
    readonly externalIPs?: boolean;
  }) {
    this.#context = options.context;
    this.#family = options.context.family;
    this.#backend = options.backend;
    this.#externalIPs = options.externalIPs ?? true;
    this.#logger = options.logger.child({ ipFamily: this.#family });
  }

  get family(): IPFamily {
    return this.#family;
  }

  get mode(): ProxyMode {
    return this.#backend.mode;
  }

  get context(): RulesContext {
    return this.#context;
  }

  /** Plans one Service anew. Cheap: independent of how many others there are. */
  update(
    serviceKey: string,
    service: ServiceView | undefined,
    slices: SliceIndex,
    node: NodeView,
  ): void {
    const ports =
      service === undefined ? [] : servicePorts(service, this.#family, node.ips, this.#externalIPs);
    const before = this.#plansOf(serviceKey);
    for (const plan of before) {
      if (!ports.some(({ key }) => key === plan.key)) this.#replace(plan.key, plan, undefined);
    }
    const now = ports.map((port) => {
      const previous = before.find(({ key }) => key === port.key);
      const plan = planPort(port, slices.endpoints(port), node);
      if (previous !== undefined && samePlan(previous, plan)) return previous;
      this.#replace(port.key, previous, plan);
      return plan;
    });
    const [only] = now;
    if (only === undefined) this.#planned.delete(serviceKey);
    else this.#planned.set(serviceKey, now.length === 1 ? only : now);
  }

  #plansOf(serviceKey: string): readonly PlannedPort[] {
    const held = this.#planned.get(serviceKey);
    if (held === undefined) return [];
    return "key" in held ? [held] : held;
  }

  *#plans(): Generator<PlannedPort, void, undefined> {
    for (const service of this.#planned.keys()) yield* this.#plansOf(service);
  }

  #replace(key: string, previous: PlannedPort | undefined, plan: PlannedPort | undefined): void {
    if (this.#touched.length < mostTouched) {
      for (const target of touchedFrontends(previous, plan)) this.#touched.push(target);
    }
    this.#indexUDP(previous, plan);
    this.#backend.set(key, plan);
    if (plan !== undefined) this.#reportConflicts(key);
  }

  #indexUDP(previous: PlannedPort | undefined, plan: PlannedPort | undefined): void {
    if ((previous ?? plan)?.protocol !== "udp") return;
    if (previous !== undefined) this.#udp.remove(previous);
    if (plan !== undefined) this.#udp.add(plan);
  }

  /** Networks of ClusterIPs, any family; those of the other one do not matter here. */
  setServiceCIDRs(cidrs: readonly string[]): void {
    const serviceCIDRs = outermost(cidrs, this.#family);
    if (serviceCIDRs.join() === this.#context.serviceCIDRs.join()) return;
    this.setContext({ ...this.#context, serviceCIDRs });
  }

  /** Changes what the rules depend on besides Services. */
  setContext(context: RulesContext): void {
    const replan = planBasis(context) !== planBasis(this.#context);
    this.#context = context;
    this.#backend.setContext(context);
    if (replan) for (const plan of this.#plans()) this.#backend.set(plan.key, plan);
  }

  /**
   * Whether a UDP flow goes where the plan says. Answers for the plan of the moment.
   *
   * @param wasFrontend Whether a Service had an address and port a moment ago; default: none had.
   */
  judge(
    flow: FlowEnds,
    isNodePortIP: (ip: string) => boolean,
    wasFrontend: (target: FlowTarget) => boolean = () => false,
    wasNodePortIP: (ip: string) => boolean = () => false,
  ): StaleFlows | undefined {
    return judgeFlow(flow, {
      family: this.#family,
      ownerOf: (target) => this.#udp.claimants("udp", target)[0],
      isServiceIP: (ip) =>
        this.#backend.isClusterIP(ip) ||
        this.#context.serviceCIDRs.some((cidr) => cidrContains(parseCidr(cidr), ip)),
      isNodePortIP,
      wasFrontend,
      wasNodePortIP,
    });
  }

  /** Whether an address belongs to a Service. */
  isClusterIP(ip: string): boolean {
    return this.#backend.isClusterIP(ip);
  }

  /** Ports with a Local policy and no endpoint here, by which policy. */
  noLocalEndpoints(): { readonly internal: number; readonly external: number } {
    let internal = 0;
    let external = 0;
    for (const { frontends, local } of this.#plans()) {
      if (frontends.some(({ verdict }) => verdict === "drop")) internal += 1;
      if (local.length === 0 && frontends.some(({ verdict }) => verdict === "split")) external += 1;
    }
    return { internal, external };
  }

  /** Whether a deletion that the kernel reported is in our table and not our own. */
  concerns(deletion: Deletion): boolean {
    return this.#backend.concerns(deletion);
  }

  #reportConflicts(key: string): void {
    for (const [loser, winner] of this.#backend.conflicts(key)) {
      const pair = `${loser} ${winner}`;
      if (this.#reported.has(pair)) continue;
      if (this.#reported.size >= mostReported) this.#reported.clear();
      this.#reported.add(pair);
      this.#logger.log(
        "warn",
        "two Services claim the same address and port; the older one has it",
        {
          service: loser,
          owner: winner,
        },
      );
    }
  }

  /** What the kernel counted at fixed rules; nothing where there are none. A page of metrics must not fail for it. */
  async packetCounters(signal: AbortSignal): Promise<PacketCounters> {
    const none = { invalidDropped: undefined, localhostNodePorts: undefined };
    return (await this.#backend.packetCounters?.(signal).catch(() => none)) ?? none;
  }

  distrust(): void {
    this.#backend.distrust();
  }

  get hasGarbage(): boolean {
    return this.#backend.hasGarbage;
  }

  /** @throws as {@link RuleBackend.sync}. */
  async sync(signal: AbortSignal): Promise<ApplyResult> {
    return this.#backend.sync(signal);
  }

  /** Frontends of which changes that are in the kernel by now may have made UDP flows wrong; each is returned once. */
  takeTouched(): Touched {
    const frontends = this.#touched;
    this.#touched = [];
    return { frontends, all: frontends.length < mostTouched };
  }

  render(): string {
    return this.#backend.render();
  }

  /** The desired table, id to value. */
  snapshot(): Map<string, string> {
    return this.#backend.snapshot();
  }
}

/** Networks of one family without those that lie in another, sorted. */
function outermost(cidrs: readonly string[], family: IPFamily): readonly string[] {
  const own = cidrs.map((text) => parseCidr(text)).filter((cidr) => cidr.family === family);
  const texts = own
    .filter(
      (cidr) =>
        !own.some(
          (o) => o.prefix < cidr.prefix && cidrContains(o, formatCidr(cidr).split("/")[0] ?? ""),
        ),
    )
    .map(formatCidr);
  return [...new Set(texts)].toSorted();
}

/** What the rules of each Service depend on; the rest stands in base rules. */
function planBasis({ local, localhostNodePorts, mark, masqueradeAll }: RulesContext): string {
  return JSON.stringify([local, localhostNodePorts, mark, masqueradeAll]);
}
