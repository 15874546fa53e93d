import { createInformer } from "../api/informer.ts";
import { NODES, SERVICE_CIDRS } from "../api/resources.ts";
import { proxyDefaults } from "../config/agent-config.ts";
import type { ProxySettings } from "../config/types.ts";
import { type IPFamily, ipFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { isAbort } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { type AddressSource, AddressWatch } from "../netfilter/address-watch.ts";
import { probeIptables } from "../netfilter/iptables.ts";
import { DeletionWatch } from "../netfilter/monitor.ts";
import { probeNft } from "../netfilter/probe.ts";
import type { ProxyMode, RuleBackend } from "./backend.ts";
import { type ChosenBackend, chooseBackend } from "./choose-backend.ts";
import type { ConntrackReconciler } from "./conntrack-reconciler.ts";
import { forgetFlows, makeConntrack } from "./forget-flows.ts";
import { applyConntrackSettings, systemConntrackIO } from "./conntrack-settings.ts";
import type { FamilyRules } from "./family-rules.ts";
import { rulesHealthy } from "./health.ts";
import { HealthPortLoop } from "./health-port-loop.ts";
import {
  contextFacts,
  defaultTableName,
  makeFamilyRules,
  type NodeFacts,
} from "./make-family-rules.ts";
import { ProxyMetrics } from "./metrics.ts";
import { familiesOf, nodePortRemarks, ownAddresses } from "./node-addresses.ts";
import { parseNode } from "./node-condition.ts";
import { nodeWarning } from "./node-event.ts";
import { findOtherProxy, twoProxies, whenAlone } from "./other-proxy.ts";
import { ownInformers, type ProxyInformers } from "./own-informers.ts";
import { runOwnServers } from "./own-servers.ts";
import { OwnNode } from "./own-node.ts";
import type { ProxyOptions } from "./proxy-options.ts";
import { RulesHealth } from "./rules-health.ts";
import { RulesLoop } from "./rules-loop.ts";
import { ServiceFeed } from "./service-feed.ts";
import { ServiceHealthPorts } from "./service-health.ts";
import { parseServiceCIDR, ServiceNetworks } from "./service-networks.ts";
import { serviceWarnings } from "./service-warnings.ts";
import { iptablesVariants, takeOver } from "./take-over.ts";
import type { NodeView } from "./types.ts";

export interface ServiceProxy {
  /**
   * Follows Services and EndpointSlices and keeps the kernel's rules right until `signal` aborts. Rules stay in the
   * kernel afterwards: a restart must not interrupt anybody.
   *
   * @throws {SetupError} when the machine cannot do it at all, or a port of its own servers is taken.
   */
  run(signal: AbortSignal): Promise<void>;
  /** The rules as they should be, in the words of the program that writes them; empty before one was chosen. */
  renderServiceRules(): string;
}

/** The node's own identity may not read these (Node authorizer), so this is what a lone kubeconfig runs into. */
export const missingBinding =
  "bind ClusterRole system:node-proxier to that user (kubectl create clusterrolebinding NAME --clusterrole=system:node-proxier --user=USER), or give --proxy-kubeconfig credentials that have it";

/** The Service proxy: ClusterIPs, node ports and external addresses of Services in nftables or iptables. */
export function createProxy(options: ProxyOptions): ServiceProxy {
  return new Proxier(options);
}

class Proxier implements ServiceProxy {
  readonly #options: ProxyOptions;
  readonly #settings: ProxySettings;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #families: readonly IPFamily[];
  readonly #informers: ProxyInformers;
  readonly #feed: ServiceFeed;
  readonly #node: OwnNode;
  readonly #networks: ServiceNetworks;
  readonly #addresses: AddressSource;
  /** Undefined when somebody else's is used. */
  readonly #ownAddresses: AddressWatch | undefined;
  readonly #health: RulesHealth;
  readonly #metrics: ProxyMetrics;
  readonly #healthPorts: HealthPortLoop;
  readonly #warnings: ReturnType<typeof serviceWarnings>;
  readonly #tableName: string;
  #backends: ReadonlyMap<IPFamily, RuleBackend> = new Map();
  #rules: readonly FamilyRules[] = [];
  #loops: readonly RulesLoop[] = [];
  #serviceCIDRs: readonly string[] = [];
  #seenNodeIPs = "";

  constructor(options: ProxyOptions) {
    this.#options = options;
    this.#metrics = options.metrics ?? new ProxyMetrics();
    this.#settings = options.config.proxy ?? proxyDefaults;
    this.#clock = options.clock;
    this.#logger = options.logger.child({ component: "proxy" });
    this.#tableName = options.tableName ?? defaultTableName;
    const { client, clock, config, nodeName, random, streaming } = options;
    const shared = {
      client,
      clock,
      random,
      logger: this.#logger,
      ...(streaming === undefined ? {} : { streaming }),
      whenForbidden: missingBinding,
    };
    this.#families = familiesOf(this.#nodeIPs(), config.clusterCIDRs);
    this.#informers = options.informers ?? ownInformers(shared);
    this.#feed = new ServiceFeed(this.#informers, nodeName);
    // Who keeps sources while it is alone must hear of others.
    const only =
      this.#settings.keepClientSource === true
        ? {}
        : { fieldSelector: `metadata.name=${nodeName}` };
    const node = createInformer({ ...shared, ...only, resource: NODES, project: parseNode });
    this.#node = new OwnNode(node, nodeName, this.#logger);
    this.#networks = new ServiceNetworks({
      client,
      fixed: options.serviceCIDRs ?? [],
      informer: createInformer({ ...shared, resource: SERVICE_CIDRS, project: parseServiceCIDR }),
      clock,
      random,
      logger: this.#logger,
      onChange: (cidrs) => {
        this.#serviceCIDRs = cidrs;
        this.#wakeAll();
      },
    });
    if (options.addresses === undefined) {
      this.#ownAddresses = new AddressWatch({ clock, random, logger: this.#logger });
      this.#addresses = this.#ownAddresses;
    } else this.#addresses = options.addresses;
    this.#health = new RulesHealth({
      families: this.#families,
      syncPeriodMs: this.#settings.syncPeriodMs,
      node: () => this.#node.condition,
      clock,
    });
    this.#warnings = serviceWarnings(this.#feed, {
      ...options,
      addresses: () => this.#addresses.addresses,
      externalIPs: this.#settings.externalIPs,
      logger: this.#logger,
    });
    this.#healthPorts = new HealthPortLoop({
      ports: new ServiceHealthPorts({
        nodeName,
        healthy: () => rulesHealthy(this.#health, clock.now()),
        addresses: (family) => this.#rulesOf(family)?.context.nodePortIPs,
        events: options.events,
        logger: this.#logger,
      }),
      feed: this.#feed,
      families: this.#families,
      clock,
      onChange: () => this.#wakeAll(),
    });
  }

  renderServiceRules(): string {
    return this.#rules.map((rules) => rules.render()).join("\n");
  }

  async run(signal: AbortSignal): Promise<void> {
    const chosen = await this.#choose(signal);
    const conntrack = this.#prepare(chosen.mode);
    this.#subscribe();
    // When one part ends with an error the others must end too.
    const stop = new AbortController();
    const all = AbortSignal.any([signal, stop.signal]);
    const { services, slices } = this.#informers;
    const parts = [
      services.run(all),
      slices.run(all),
      this.#node.run(all),
      this.#networks.run(all),
      ...(this.#ownAddresses === undefined ? [] : [this.#ownAddresses.run(all)]),
      conntrack.run(all),
      this.#runServers(all),
      this.#keepRules(chosen, all),
    ];
    const deletions = this.#options.deletions ?? this.#ownDeletionWatch(all, parts);
    const unsubscribe = deletions.subscribe((deletion) => {
      for (const loop of this.#loops) loop.onDeletion(deletion);
    });
    try {
      await Promise.all(parts);
    } catch (error) {
      if (!signal.aborted || !isAbort(error)) throw error;
    } finally {
      stop.abort();
      unsubscribe();
      await Promise.allSettled(parts);
    }
  }

  async #choose(signal: AbortSignal): Promise<ChosenBackend> {
    const probes = { nft: probeNft, iptables: probeIptables };
    const chosen = await chooseBackend(this.#settings.mode, probes, signal);
    const { mode, program, reason } = chosen;
    this.#logger.log("info", "service proxy starts", { mode, program, reason });
    const remarks = nodePortRemarks(this.#settings, mode, this.#families, this.#nodeIPs());
    for (const remark of remarks) {
      this.#logger.log("warn", "node ports", { remark });
    }
    return chosen;
  }

  /** Makes what depends on the mode. */
  #prepare(mode: ProxyMode): ConntrackReconciler {
    const { clock, events, nodeName, random } = this.#options;
    const settings = this.#settings;
    const made = this.#families.map((family) =>
      makeFamilyRules(
        { family, mode },
        {
          settings,
          facts: this.#nodeFacts(),
          tableName: this.#tableName,
          clock,
          logger: this.#logger,
        },
      ),
    );
    this.#rules = made.map(({ rules }) => rules);
    this.#backends = new Map(made.map(({ rules, backend }) => [rules.family, backend]));
    for (const { family } of this.#rules) this.#metrics.addFamily(family, mode);
    const conntrack = makeConntrack({
      rules: this.#rules,
      nodePortIPs: (rules) => this.#nodePortIPs(rules),
      nodeName,
      events,
      clock,
      logger: this.#logger,
      metrics: this.#metrics,
    });
    this.#loops = made.map(
      ({ rules, backend }) =>
        new RulesLoop({
          rules,
          backend,
          feed: this.#feed,
          facts: () => ({
            node: this.#view(),
            context: contextFacts({ family: rules.family, mode }, settings, this.#nodeFacts()),
            serviceCIDRs: this.#serviceCIDRs,
            healthPorts: this.#healthPorts.wanted,
          }),
          health: this.#health,
          metrics: this.#metrics,
          syncPeriodMs: settings.syncPeriodMs,
          minSyncPeriodMs: settings.minSyncPeriodMs,
          clock,
          logger: this.#logger,
          random,
          onPlanned: () => {
            if (!this.#loops.some(({ hasUnplanned }) => hasUnplanned)) this.#metrics.planned();
          },
          onApplied: (applied) => forgetFlows(conntrack, rules, applied),
          // As kube-proxy: without its first family a node has no Services at all.
          ...(rules.family === this.#primaryFamily
            ? {}
            : { onImpossible: (error) => this.#doWithout(rules.family, error) }),
        }),
    );
    return conntrack;
  }

  get #primaryFamily(): IPFamily | undefined {
    return ipFamily(this.#nodeIPs()[0] ?? "") ?? this.#families[0];
  }

  #doWithout(family: IPFamily, error: Error): void {
    this.#loops = this.#loops.filter((loop) => loop.family !== family);
    this.#rules = this.#rules.filter((rules) => rules.family !== family);
    const message = `running in single-stack mode: secondary ipFamily ${family} is not supported by this machine: ${error.message}`;
    this.#logger.log("warn", "Services have one IP family here", { message });
    nodeWarning(this.#options.events, this.#options.nodeName, "IPFamilyNotSupported", message);
  }

  #rulesOf(family: IPFamily): FamilyRules | undefined {
    return this.#rules.find((rules) => rules.family === family);
  }

  #nodeIPs(): readonly string[] {
    const { node, nodeIPs } = this.#options;
    const now = node?.hostIPs() ?? [];
    return ownAddresses(this.#settings, now.length > 0 ? now : nodeIPs);
  }

  #nodeFacts(): NodeFacts {
    return {
      clusterCIDRs: this.#options.config.clusterCIDRs,
      podCIDRs: this.#node.podCIDRs,
      nodeIPs: this.#nodeIPs(),
      interfaceIPs: this.#addresses.addresses,
    };
  }

  #answersElsewhere({ context, family, mode }: FamilyRules): boolean {
    const facts = contextFacts({ family, mode }, this.#settings, this.#nodeFacts());
    return facts.nodePortIPs?.join() !== context.nodePortIPs?.join();
  }

  #nodePortIPs({ context, family }: FamilyRules): readonly string[] {
    const all = this.#addresses.addresses;
    return context.nodePortIPs ?? all.filter((ip) => ipFamily(ip) === family);
  }

  #subscribe(): void {
    this.#feed.listen(this.#healthPorts);
    for (const loop of this.#loops) this.#feed.listen(loop);
    this.#feed.start({
      service: () => {
        this.#metrics.serviceChanged();
      },
      slice: () => {
        this.#metrics.endpointsChanged();
      },
    });
    this.#node.subscribe(() => this.#wakeAll());
    this.#options.node?.subscribe(() => {
      // Heartbeats are no news.
      const now = this.#nodeIPs().join();
      if (now === this.#seenNodeIPs) return;
      this.#seenNodeIPs = now;
      this.#wakeAll();
    });
    // Interfaces of pods come and go with addresses that no rule knows.
    this.#addresses.subscribe(() => {
      if (this.#rules.some((rules) => this.#answersElsewhere(rules))) this.#wakeAll();
    });
  }

  /** For what all rules depend on: the next synchronisation looks what of it changed. */
  #wakeAll(): void {
    for (const loop of this.#loops) loop.wake();
    this.#healthPorts.wake();
  }

  async #keepRules({ mode }: ChosenBackend, signal: AbortSignal): Promise<void> {
    const { findOtherProxy: probe = findOtherProxy } = this.#options;
    const alone = (): Promise<void> =>
      whenAlone(probe, (where) => this.#tellOtherProxy(where, mode), this.#clock, signal);
    // Before any rule: whether packets out of window are dropped depends on it.
    await this.#setConntrack(signal);
    await this.#feed.whenSynced(signal);
    // A restart would otherwise take the rules of unallocated ClusterIPs away and put them back a moment later.
    await Promise.all([
      this.#node.whenKnown(signal),
      this.#networks.whenKnown(signal),
      this.#addresses.whenKnown(signal),
    ]);
    if (this.#settings.detectLocalMode === "NodeCIDR") await this.#node.whenPodCIDRsKnown(signal);
    if (mode === "iptables") await alone();
    await Promise.all([
      ...this.#loops.map((loop) => loop.run(signal)),
      this.#afterwards(mode, alone, signal),
    ]);
  }

  /** What comes when all rules are in the kernel. */
  async #afterwards(
    mode: ProxyMode,
    alone: () => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    await Promise.all(this.#loops.map((loop) => loop.whenApplied(signal)));
    this.#options.onApplied?.();
    await Promise.all([
      this.#healthPorts.run(signal),
      this.#warnings.run(signal),
      (async () => {
        await alone();
        const { clock, random } = this.#options;
        const inUse = {
          mode,
          families: this.#families,
          tableName: this.#tableName,
          variants: iptablesVariants(this.#backends),
        };
        await takeOver(inUse, { clock, random, logger: this.#logger }, signal);
      })(),
    ]);
  }

  #tellOtherProxy(where: string, mode: ProxyMode): void {
    const message = twoProxies(where, mode);
    this.#logger.log("warn", "two service proxies", { message });
    nodeWarning(this.#options.events, this.#options.nodeName, "TwoServiceProxies", message);
  }

  async #setConntrack(signal: AbortSignal): Promise<void> {
    const troubles = await applyConntrackSettings(
      this.#settings.conntrack,
      this.#options.conntrack ?? systemConntrackIO,
      this.#logger,
    );
    if (signal.aborted || troubles.length === 0) return;
    const { events, nodeName } = this.#options;
    nodeWarning(events, nodeName, "ConntrackNotAsConfigured", troubles.join("; "));
  }

  #view(): Required<NodeView> {
    const keepsSource = this.#settings.keepClientSource === true && this.#node.isAlone;
    const { nodeName: name } = this.#options;
    return { name, zone: this.#node.zone, ips: this.#nodeIPs(), keepsSource };
  }

  async #runServers(signal: AbortSignal): Promise<void> {
    const { config, clock, nodeName, pages } = this.#options;
    await runOwnServers(
      {
        config,
        state: this.#health,
        metrics: this.#metrics,
        families: this.#rules,
        node: () => {
          const { ips: nodeIPs, ...view } = this.#view();
          return { nodeName, nodeIPs, table: this.#tableName, keepsSource: view.keepsSource };
        },
        pages,
        clock,
        logger: this.#logger,
      },
      signal,
    );
  }

  #ownDeletionWatch(signal: AbortSignal, parts: Promise<void>[]): DeletionWatch {
    const { random } = this.#options;
    const watch = new DeletionWatch({ clock: this.#clock, logger: this.#logger, random });
    parts.push(watch.run(signal));
    return watch;
  }
}
