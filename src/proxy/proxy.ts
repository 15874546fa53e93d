import type { ApiClient } from "../api/client.ts";
import type { EventRecorder } from "../api/event-types.ts";
import { createInformer, type StreamingSupport } from "../api/informer.ts";
import type { Informer } from "../api/informer-types.ts";
import { NODES, SERVICE_CIDRS } from "../api/resources.ts";
import type { AgentConfig } from "../config/types.ts";
import { jitteredBackoffMs } from "../lib/backoff.ts";
import type { IPFamily } from "../lib/cidr.ts";
import { type Clock, deadline } from "../lib/clock.ts";
import { SetupError, errorMessage, isAbort } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { type Deletion, DeletionWatch } from "../netfilter/monitor.ts";
import { probeNft } from "../netfilter/probe.ts";
import { deleteFlows } from "./conntrack.ts";
import { ConntrackReconciler } from "./conntrack-reconciler.ts";
import type { ApplyResult } from "./backend.ts";
import type { FamilyRules } from "./family-rules.ts";
import { defaultTableName, makeFamilyRules } from "./make-family-rules.ts";
import { type HealthState, rulesHealthy } from "./health.ts";
import { ProxyMetrics } from "./metrics.ts";
import { type ProgramPages, runOwnServers } from "./own-servers.ts";
import { ownInformers, type ProxyInformers } from "./own-informers.ts";
import type { ServiceView, SliceView } from "./parse.ts";
import { familiesOf, nodePortAddresses } from "./node-addresses.ts";
import { type NodeCondition, parseNode } from "./node-condition.ts";
import { ProblemReport } from "./problem-report.ts";
import { localReadyOf, ServiceHealthPorts } from "./service-health.ts";
import { parseServiceCIDR, ServiceNetworks } from "./service-networks.ts";
import { SliceIndex } from "./slice-index.ts";
import { TriggerTimes } from "./trigger-times.ts";
import { Wake } from "./wake.ts";

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
  /** Addresses of this node; node ports answer on them. */
  readonly nodeIPs: readonly string[];
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
  /** Somebody else's, run by them. Default: its own. */
  readonly informers?: ProxyInformers;
  readonly pages?: ProgramPages;
}

export interface ServiceProxy {
  /**
   * Follows Services and EndpointSlices and keeps the kernel's rules right until `signal` aborts. Rules stay in the
   * kernel afterwards: a restart must not interrupt anybody.
   *
   * @throws {SetupError} when the machine cannot do it at all, or a port of its own servers is taken.
   */
  run(signal: AbortSignal): Promise<void>;
  /** The rules as they should be, as nft text. */
  renderServiceRules(): string;
}

const retry = { baseMs: 100, maxMs: 30_000 };
/** Between the end of one synchronisation and the start of the next: twice its duration, within these. */
const gapMs = { least: 10, most: 1000 };
const garbageDelayMs = 1000;
const servicePortRetryMs = 30_000;
const defaultSyncPeriodMs = 30_000;

/** The node's own identity may not read these (Node authorizer), so this is what a lone kubeconfig runs into. */
export const missingBinding =
  "bind ClusterRole system:node-proxier to that user (kubectl create clusterrolebinding NAME --clusterrole=system:node-proxier --user=USER), or give --proxy-kubeconfig credentials that have it";

/** The Service proxy: ClusterIPs, node ports and external addresses of Services in nftables. */
export function createProxy(options: ProxyOptions): ServiceProxy {
  return new Proxier(options);
}

class Proxier implements ServiceProxy {
  readonly #options: ProxyOptions;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #services: Informer<ServiceView>;
  readonly #slices: Informer<SliceView>;
  readonly #node: Informer<NodeCondition>;
  readonly #networks: ServiceNetworks;
  readonly #index: SliceIndex;
  readonly #families: readonly FamilyRules[];
  readonly #dirty = new Set<string>();
  readonly #wake = new Wake();
  readonly #health: HealthState;
  readonly #metrics = new ProxyMetrics();
  readonly #servicePorts: ServiceHealthPorts;
  readonly #conntrack: ConntrackReconciler;
  readonly #problems: ProblemReport;
  readonly #triggers = new TriggerTimes();
  /** Families whose table was brought in order since the start: from then on a difference is the work of others. */
  readonly #adopted = new Set<IPFamily>();
  #serviceCIDRs: readonly string[] = [];
  #zone = "";
  #failures = 0;

  constructor(options: ProxyOptions) {
    this.#options = options;
    this.#clock = options.clock;
    this.#logger = options.logger.child({ component: "proxy" });
    const { client, clock, random, streaming } = options;
    const shared = {
      client,
      clock,
      random,
      logger: this.#logger,
      ...(streaming === undefined ? {} : { streaming }),
      whenForbidden: missingBinding,
    };
    const { services, slices } = options.informers ?? ownInformers(shared);
    this.#services = services;
    this.#slices = slices;
    this.#node = createInformer({
      ...shared,
      resource: NODES,
      fieldSelector: `metadata.name=${options.nodeName}`,
      project: parseNode,
    });
    this.#networks = new ServiceNetworks({
      client,
      fixed: options.serviceCIDRs ?? [],
      informer: createInformer({ ...shared, resource: SERVICE_CIDRS, project: parseServiceCIDR }),
      clock,
      random,
      logger: this.#logger,
      onChange: (cidrs) => {
        // Planned with the rest: the table must not change while a synchronisation is under way.
        this.#serviceCIDRs = cidrs;
        this.#wake.set();
      },
    });
    this.#index = new SliceIndex(options.nodeName);
    this.#families = familiesOf(options.nodeIPs, options.config.clusterCIDRs).map((family) =>
      makeFamilyRules(family, options, this.#logger),
    );
    this.#health = {
      startedAt: clock.now(),
      families: this.#families.map(({ family }) => family),
      lastSuccess: new Map(),
      pendingSince: new Map(),
      staleMs: 2 * (options.config.proxy?.syncPeriodMs ?? defaultSyncPeriodMs),
      node: () => this.#node.get(options.nodeName),
    };
    this.#servicePorts = new ServiceHealthPorts({
      nodeName: options.nodeName,
      healthy: () => rulesHealthy(this.#health, clock.now()),
      addresses: (family) => this.#families.find((r) => r.family === family)?.context.nodePortIPs,
      events: options.events,
      logger: this.#logger,
    });
    this.#problems = new ProblemReport({
      nodeName: options.nodeName,
      logger: this.#logger,
      events: options.events,
    });
    const isNodePortIP = nodePortAddresses(options.nodeIPs);
    this.#conntrack = new ConntrackReconciler({
      judges: new Map(
        this.#families.map((rules) => [rules.family, (flow) => rules.judge(flow, isNodePortIP)]),
      ),
      clock,
      logger: this.#logger,
      metrics: this.#metrics,
    });
    for (const { family, mode } of this.#families) this.#metrics.addFamily(family, mode);
  }

  renderServiceRules(): string {
    return this.#families.map((rules) => rules.render()).join("\n");
  }

  async run(signal: AbortSignal): Promise<void> {
    const version = await probeNft(signal);
    this.#logger.log("info", "service proxy starts", { nft: version });
    this.#subscribe();
    // When one part ends with an error the others must end too.
    const stop = new AbortController();
    const all = AbortSignal.any([signal, stop.signal]);
    const parts = [
      this.#services.run(all),
      this.#slices.run(all),
      this.#node.run(all),
      this.#networks.run(all),
      this.#conntrack.run(all),
      this.#runServers(all),
      this.#synchronise(all),
    ];
    const deletions = this.#options.deletions ?? this.#ownDeletionWatch(all, parts);
    const unsubscribe = deletions.subscribe((deletion) => {
      this.#onDeletion(deletion);
    });
    try {
      await Promise.all(parts);
    } catch (error) {
      if (!signal.aborted || !isAbort(error)) throw error;
    } finally {
      stop.abort();
      unsubscribe();
      await Promise.allSettled(parts);
      await this.#servicePorts.close();
    }
  }

  async #runServers(signal: AbortSignal): Promise<void> {
    const { config, clock, nodeName, nodeIPs, pages, tableName = defaultTableName } = this.#options;
    await runOwnServers(
      {
        config,
        state: this.#health,
        metrics: this.#metrics,
        families: this.#families,
        node: { nodeName, nodeIPs, table: tableName },
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

  #subscribe(): void {
    this.#services.subscribe((change) => {
      this.#metrics.serviceChanged();
      this.#markDirty(change.key);
    });
    this.#slices.subscribe((change) => {
      this.#metrics.endpointsChanged();
      if (change.kind !== "added") this.#index.delete(change.previous);
      if (change.kind === "deleted") this.#forgetTrigger(change.previous);
      if (change.kind !== "deleted") {
        this.#index.set(change.object);
        this.#noteTrigger(change.object);
      }
      for (const slice of [
        change.kind === "added" ? undefined : change.previous,
        change.kind === "deleted" ? undefined : change.object,
      ]) {
        if (slice?.service !== undefined) this.#markDirty(slice.service);
      }
    });
    this.#node.subscribe((change) => {
      const zone = change.kind === "deleted" ? "" : change.object.zone;
      if (zone === this.#zone) return;
      this.#zone = zone;
      for (const { key } of this.#services.values()) this.#markDirty(key);
    });
  }

  #noteTrigger({ family, service, triggeredAt }: SliceView): void {
    // What changed before we started says nothing about our speed.
    if (family === undefined || service === undefined || triggeredAt === undefined) return;
    if (triggeredAt > this.#health.startedAt) this.#triggers.note(family, service, triggeredAt);
  }

  #forgetTrigger({ family, service }: SliceView): void {
    if (family !== undefined && service !== undefined) this.#triggers.forget(family, service);
  }

  #markDirty(serviceKey: string): void {
    if (this.#dirty.size === 0) {
      const now = this.#clock.now();
      this.#metrics.queued(
        now,
        this.#families.map(({ family }) => family),
      );
      // Before the first time it is not late, only busy.
      for (const family of this.#health.lastSuccess.keys()) {
        if (!this.#health.pendingSince.has(family)) this.#health.pendingSince.set(family, now);
      }
    }
    this.#dirty.add(serviceKey);
    this.#wake.set();
  }

  /** Applies changes: the first after idle at once, later ones together behind the running synchronisation. */
  async #synchronise(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#services.whenSynced(signal), this.#slices.whenSynced(signal)]);
    // A restart would otherwise take the rules of unallocated ClusterIPs away and put them back a moment later.
    await Promise.all([this.#waitForNode(signal), this.#networks.whenKnown(signal)]);
    this.#wake.set();
    while (!signal.aborted) {
      await this.#wake.wait(signal);
      const startedAt = this.#clock.monotonic();
      this.#planDirty();
      const failed = await this.#applyAll(signal);
      const tookMs = this.#clock.monotonic() - startedAt;
      if (failed) {
        this.#failures += 1;
        this.#wake.set();
        await this.#clock.sleep(
          jitteredBackoffMs(this.#failures, retry, this.#options.random),
          signal,
        );
        continue;
      }
      this.#failures = 0;
      await this.#servicePorts.sync();
      if (this.#servicePorts.incomplete) {
        void this.#wake.setAfter(this.#clock, servicePortRetryMs, signal);
      }
      if (this.#families.some((rules) => rules.hasGarbage)) {
        void this.#wake.setAfter(this.#clock, garbageDelayMs, signal);
      }
      await this.#clock.sleep(Math.min(Math.max(2 * tookMs, gapMs.least), gapMs.most), signal);
    }
  }

  /** Zone hints need the Node; a moment is enough, because a proxy without them is right, only less near. */
  async #waitForNode(signal: AbortSignal): Promise<void> {
    try {
      await this.#node.whenSynced(deadline(signal, 2000));
    } catch (error) {
      if (signal.aborted) throw error;
      this.#logger.log("warn", "own Node is not readable yet; topology zones are not used", {});
    }
  }

  #planDirty(): void {
    const { nodeName, nodeIPs } = this.#options;
    const node = { name: nodeName, zone: this.#zone, ips: nodeIPs };
    for (const rules of this.#families) rules.setServiceCIDRs(this.#serviceCIDRs);
    const dirty = [...this.#dirty];
    this.#dirty.clear();
    for (const key of dirty) {
      const service = this.#services.get(key);
      this.#problems.report(key, service);
      this.#servicePorts.set(key, service, localReadyOf(service, this.#families, this.#index));
      for (const rules of this.#families) rules.update(key, service, this.#index, node);
    }
    this.#metrics.planned();
    this.#triggers.planned();
  }

  /** @returns whether a family failed. One family must not stop the other. */
  async #applyAll(signal: AbortSignal): Promise<boolean> {
    const results = await Promise.all(this.#families.map((rules) => this.#applyOne(rules, signal)));
    return results.includes(false);
  }

  async #applyOne(rules: FamilyRules, signal: AbortSignal): Promise<boolean> {
    const { family } = rules;
    const first = !this.#health.lastSuccess.has(family);
    if (!this.#health.pendingSince.has(family)) {
      this.#health.pendingSince.set(family, this.#clock.now());
    }
    const startedAt = this.#clock.monotonic();
    try {
      const result = await rules.sync(signal);
      this.#health.pendingSince.delete(family);
      this.#health.lastSuccess.set(family, this.#clock.now());
      this.#record(rules, result, (this.#clock.monotonic() - startedAt) / 1000);
      if (result.changes > 0) {
        this.#logger.log("debug", "service rules applied", {
          ipFamily: family,
          changes: result.changes,
          transactions: result.transactions,
          durationMs: Math.round(this.#clock.monotonic() - startedAt),
        });
      }
      await deleteFlows(rules.takeStaleFlows(), signal);
      // What changed while nobody watched has left flows that no plan of ours ever knew.
      if (result.drift !== undefined && (first || result.drift)) this.#conntrack.request(family);
      return true;
    } catch (error) {
      // What the machine lacks at the start it lacks for ever; later it is an accident that may pass.
      if (isAbort(error)) throw error;
      if (error instanceof SetupError && !this.#health.lastSuccess.has(family)) throw error;
      this.#logger.log("error", "service rules could not be applied; will retry", {
        ipFamily: family,
        error: errorMessage(error),
      });
      this.#metrics.syncFailed(family, rules.mode, !first);
      return false;
    }
  }

  #record(rules: FamilyRules, result: ApplyResult, seconds: number): void {
    const { family } = rules;
    const { changes, bytes, drift, cleanupFailed } = result;
    const now = this.#clock.now();
    const full = drift !== undefined;
    const counted = result.rules === undefined ? {} : { rules: result.rules };
    this.#metrics.synced({ family, seconds, full, bytes, changes, ...counted }, now);
    if (cleanupFailed) this.#metrics.cleanupFailed(family);
    for (const at of this.#triggers.applied(family)) {
      this.#metrics.programmed((now - at) / 1000, family);
    }
    if (drift === true && this.#adopted.has(family)) {
      this.#metrics.driftRepaired(family);
      this.#logger.log("warn", "service rules were changed by another program and are put back", {
        ipFamily: family,
        changes,
      });
    }
    this.#adopted.add(family);
  }

  /** Compares our tables at once when the kernel reports a deletion that was not ours. */
  #onDeletion(deletion: Deletion | "unwatched"): void {
    for (const rules of this.#families) {
      if (deletion !== "unwatched" && !rules.concerns(deletion)) continue;
      if (deletion !== "unwatched" && deletion.kind === "table") {
        this.#metrics.tableLost(rules.family);
      }
      rules.distrust();
      this.#wake.set();
    }
  }
}
