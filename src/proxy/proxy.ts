import type { ApiClient } from "../api/client.ts";
import type { EventRecorder } from "../api/event-types.ts";
import { createInformer, type StreamingSupport } from "../api/informer.ts";
import type { Informer } from "../api/informer-types.ts";
import { ENDPOINT_SLICES, NODES, SERVICES } from "../api/resources.ts";
import type { AgentConfig } from "../config/types.ts";
import { jitteredBackoffMs } from "../lib/backoff.ts";
import { type IPFamily, ipFamily, parseCidr } from "../lib/cidr.ts";
import { type Clock, deadline } from "../lib/clock.ts";
import { SetupError, errorMessage, isAbort } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { monitorDeletions } from "../netfilter/monitor.ts";
import { probeNft } from "../netfilter/probe.ts";
import { deleteFlows } from "./conntrack.ts";
import { FamilyRules } from "./family-rules.ts";
import { type HealthState, serveHealth } from "./health.ts";
import { parseService, parseSlice, type ServiceView, type SliceView } from "./parse.ts";
import { type NodeCondition, parseNode } from "./node-condition.ts";
import { SliceIndex } from "./slice-index.ts";
import { Wake } from "./wake.ts";

export interface ProxyOptions {
  readonly config: Pick<AgentConfig, "clusterCIDRs" | "bindAddress" | "proxyHealthzPort">;
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
  readonly streaming?: StreamingSupport;
}

export interface ServiceProxy {
  /**
   * Follows Services and EndpointSlices and keeps the kernel's rules right until `signal` aborts. Rules stay in the
   * kernel afterwards: a restart must not interrupt anybody.
   *
   * @throws {SetupError} when the machine cannot do it at all.
   */
  run(signal: AbortSignal): Promise<void>;
  /** The rules as they should be, as nft text. */
  renderServiceRules(): string;
}

/** Mark bit of flows that get a new source address; the network's FORWARD rules accept it. */
export const serviceMark = 0x4000;

export const defaultTableName = "remora-proxy";

const retry = { baseMs: 100, maxMs: 30_000 };
/** Between the end of one synchronisation and the start of the next: twice its duration, within these. */
const gapMs = { least: 10, most: 1000 };
const garbageDelayMs = 1000;

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
  readonly #index: SliceIndex;
  readonly #families: readonly FamilyRules[];
  readonly #dirty = new Set<string>();
  readonly #wake = new Wake();
  readonly #health: HealthState;
  readonly #reported = new Map<string, string>();
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
    };
    this.#services = createInformer({
      ...shared,
      resource: SERVICES,
      labelSelector: "!service.kubernetes.io/service-proxy-name",
      project: parseService,
    });
    this.#slices = createInformer({
      ...shared,
      resource: ENDPOINT_SLICES,
      labelSelector: "!service.kubernetes.io/headless",
      project: parseSlice,
    });
    this.#node = createInformer({
      ...shared,
      resource: NODES,
      fieldSelector: `metadata.name=${options.nodeName}`,
      project: parseNode,
    });
    this.#index = new SliceIndex(options.nodeName);
    this.#families = familiesOf(options).map((family) => this.#familyRules(family));
    this.#health = {
      startedAt: clock.now(),
      lastSuccess: new Map(),
      pendingSince: new Map(),
      node: () => this.#node.get(options.nodeName),
    };
  }

  #familyRules(family: IPFamily): FamilyRules {
    const { config, nodeIPs, tableName } = this.#options;
    return new FamilyRules({
      context: {
        family,
        clusterCIDRs: config.clusterCIDRs.filter((cidr) => parseCidr(cidr).family === family),
        nodePortIPs: nodeIPs.filter((ip) => ipFamily(ip) === family),
        mark: serviceMark,
      },
      tableName: tableName ?? defaultTableName,
      logger: this.#logger,
    });
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
      this.#watchTables(all),
      this.#serveHealth(all),
      this.#synchronise(all),
    ];
    try {
      await Promise.all(parts);
    } catch (error) {
      if (!signal.aborted || !isAbort(error)) throw error;
    } finally {
      stop.abort();
      await Promise.allSettled(parts);
    }
  }

  #subscribe(): void {
    this.#services.subscribe((change) => {
      this.#markDirty(change.key);
    });
    this.#slices.subscribe((change) => {
      if (change.kind !== "added") this.#index.delete(change.previous);
      if (change.kind !== "deleted") this.#index.set(change.object);
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

  #markDirty(serviceKey: string): void {
    this.#dirty.add(serviceKey);
    this.#wake.set();
  }

  /** Applies changes: the first after idle at once, later ones together behind the running synchronisation. */
  async #synchronise(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#services.whenSynced(signal), this.#slices.whenSynced(signal)]);
    await this.#waitForNode(signal);
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
    const dirty = [...this.#dirty];
    this.#dirty.clear();
    for (const key of dirty) {
      const service = this.#services.get(key);
      this.#reportProblems(key, service);
      for (const rules of this.#families) rules.update(key, service, this.#index, node);
    }
  }

  /** Says once per change what of a Service is not in the rules. */
  #reportProblems(key: string, service: ServiceView | undefined): void {
    const problems = [...(service?.problems ?? [])];
    if (service !== undefined && service.healthCheckNodePort > 0 && service.externalLocal) {
      problems.push("spec.healthCheckNodePort");
    }
    const text = problems.join(", ");
    if ((this.#reported.get(key) ?? "") === text) return;
    if (text === "") {
      this.#reported.delete(key);
      return;
    }
    this.#reported.set(key, text);
    this.#logger.log("warn", "parts of a Service are not served", { service: key, fields: text });
    if (service === undefined) return;
    this.#options.events.event(
      {
        kind: "Service",
        apiVersion: "v1",
        namespace: service.namespace,
        name: service.name,
        uid: service.uid,
      },
      "Warning",
      "ServiceNotFullyServed",
      `node ${this.#options.nodeName} does not serve ${text}`,
    );
  }

  /** @returns whether a family failed. One family must not stop the other. */
  async #applyAll(signal: AbortSignal): Promise<boolean> {
    const results = await Promise.all(this.#families.map((rules) => this.#applyOne(rules, signal)));
    return results.includes(false);
  }

  async #applyOne(rules: FamilyRules, signal: AbortSignal): Promise<boolean> {
    const { family } = rules;
    if (!this.#health.pendingSince.has(family)) {
      this.#health.pendingSince.set(family, this.#clock.now());
    }
    const startedAt = this.#clock.monotonic();
    try {
      const result = await rules.sync(signal);
      this.#health.pendingSince.delete(family);
      this.#health.lastSuccess.set(family, this.#clock.now());
      if (result.changes > 0) {
        this.#logger.log("debug", "service rules applied", {
          ipFamily: family,
          changes: result.changes,
          transactions: result.transactions,
          durationMs: Math.round(this.#clock.monotonic() - startedAt),
        });
      }
      await deleteFlows(rules.takeStaleFlows(), signal);
      return true;
    } catch (error) {
      // What the machine lacks at the start it lacks for ever; later it is an accident that may pass.
      if (isAbort(error)) throw error;
      if (error instanceof SetupError && !this.#health.lastSuccess.has(family)) throw error;
      this.#logger.log("error", "service rules could not be applied; will retry", {
        ipFamily: family,
        error: errorMessage(error),
      });
      return false;
    }
  }

  /** Puts our tables back at once when somebody flushes all rules. */
  async #watchTables(signal: AbortSignal): Promise<void> {
    let ended = 0;
    while (!signal.aborted) {
      await monitorDeletions((event) => {
        const lost = this.#families.find(
          ({ table }) => table.family === event.family && table.name === event.table,
        );
        if (lost === undefined) return;
        this.#logger.log("warn", "service rules were deleted by another program", {
          table: event.table,
        });
        lost.distrust();
        this.#wake.set();
      }, signal);
      if (signal.aborted) return;
      ended += 1;
      // Nobody watched for a moment, so nobody knows.
      for (const rules of this.#families) rules.distrust();
      this.#wake.set();
      await this.#clock.sleep(
        jitteredBackoffMs(ended, { baseMs: 1000, maxMs: 60_000 }, this.#options.random),
        signal,
      );
    }
  }

  async #serveHealth(signal: AbortSignal): Promise<void> {
    const { config } = this.#options;
    await serveHealth({
      address: config.bindAddress,
      port: config.proxyHealthzPort,
      state: this.#health,
      clock: this.#clock,
      logger: this.#logger,
      signal,
    });
  }
}

/** Families this node has addresses or pods of. */
function familiesOf(options: ProxyOptions): readonly IPFamily[] {
  const found = new Set<IPFamily>();
  for (const ip of options.nodeIPs) {
    const family = ipFamily(ip);
    if (family !== undefined) found.add(family);
  }
  for (const cidr of options.config.clusterCIDRs) found.add(parseCidr(cidr).family);
  return found.size === 0 ? ["IPv4"] : [...found].toSorted();
}
