import type { ApiClient } from "../../api/client.ts";
import type { EventRecorder, EventType } from "../../api/event-types.ts";
import { createInformer } from "../../api/informer.ts";
import type { Informer } from "../../api/informer-types.ts";
import { parseStored, type Stored } from "../../api/object.ts";
import { objectPath } from "../../api/resource.ts";
import { NODES } from "../../api/resources.ts";
import type { Node, NodeStatus } from "../../api/types.gen.ts";
import type { AgentConfig } from "../../config/types.ts";
import type { IPFamily } from "../../lib/cidr.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { ImageService, RuntimeInfo } from "../../runtime/types.ts";
import type { NodeView } from "../types.ts";
import type { VolumesInUse } from "../volumes/in-use.ts";
import { conditionEvents } from "./conditions.ts";
import { type Host, type HostIdentity, systemHost } from "./host.ts";
import { resolvConfTrouble } from "./host-resolv-conf.ts";
import { type HardwareReader, readHardware } from "./hardware.ts";
import { hardwareLabelPatch } from "./hardware-labels.ts";
import { NodeLease } from "./lease.ts";
import { platformLabels, registerNode } from "./registration.ts";
import { StatusSource } from "./status-source.ts";
import { StatusSync } from "./status-sync.ts";

/**
 * How long a restarted agent may take to be ready before it says that it is not. Its node was ready, its pods run on, and
 * the control plane would take all of them out of their Services at once.
 */
const startingMs = 30_000;
/** Until the node is first Ready: look this often, for so long. */
const fastPath = { intervalMs: 100, limitMs: 120_000, afterFailureMs: 1000 };

export interface NodeOptions {
  readonly config: AgentConfig;
  /** Identity `system:node:NAME`. */
  readonly client: ApiClient;
  /** The same identity on a connection of its own, for the heartbeat. */
  readonly leaseClient: ApiClient;
  /** Undefined while the container engine does not answer. */
  readonly runtime: () => RuntimeInfo | undefined;
  readonly images: Pick<ImageService, "listImages">;
  /** Why the node cannot be Ready; undefined when it can. */
  readonly health: () => string | undefined;
  /** Why pods cannot have a network of their own; undefined when they can. Default: they can. */
  readonly networkNotReady?: () => string | undefined;
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** `nodeInfo.kubeletVersion`, semver with a leading `v`. */
  readonly version: string;
  /** What the status says of attachable volumes. Default: nothing. */
  readonly inUse?: VolumesInUse;
  /** Called once, when the server has taken the first status with Ready=True. */
  readonly onReady?: () => void;
  /** Called at each look at the status, also one that failed: the loop is alive. */
  readonly onTurn?: () => void;
  /** The machine; default the real one. */
  readonly host?: Host;
  /** Hardware inventory at start; default systeminformation in a child process. */
  readonly hardware?: HardwareReader;
}

/** What is known of the heartbeat, for metrics. */
export interface NodeHeartbeat {
  readonly leaseAgeSeconds: number | undefined;
  readonly leaseRenewals: number;
}

/** The node half of the agent: registration, status, lease. */
export interface NodeAgent {
  /** Ends when `signal` aborts; never rejects for the server's sake. */
  run(signal: AbortSignal): Promise<void>;
  readonly view: NodeView;
  heartbeat(): NodeHeartbeat;
  /** Something that the status tells has changed: look now, not at the next tick. */
  refresh(): void;
}

/** Makes the node half. Does nothing before {@link NodeAgent.run}. */
export function createNode(options: NodeOptions): NodeAgent {
  return new NodeWorker(options);
}

class NodeWorker implements NodeAgent {
  readonly #options: NodeOptions;
  readonly #host: Host;
  readonly #lease: NodeLease;
  readonly #listeners = new Set<() => void>();
  readonly #informer: Informer<Stored<Node>>;
  readonly #source: StatusSource;
  #node: Stored<Node> | undefined;
  #hostIPs: readonly string[] = [];
  #addressLost = false;
  #wasReady = false;
  /** Ends the wait between two looks. */
  #pause = new AbortController();
  readonly view: NodeView;

  constructor(options: NodeOptions) {
    this.#options = options;
    this.#host = options.host ?? systemHost();
    const { config, client, clock, logger, random } = options;
    this.#lease = new NodeLease({
      nodeName: config.nodeName,
      durationSeconds: config.nodeLeaseDurationSeconds,
      client: options.leaseClient,
      nodeUID: () => this.#node?.metadata.uid,
      clock,
      logger,
      random,
    });
    this.#informer = createInformer<Stored<Node>>({
      client,
      resource: NODES,
      fieldSelector: `metadata.name=${config.nodeName}`,
      project: (object) => parseStored<Node>(object),
      clock,
      logger,
      random,
    });
    this.#source = new StatusSource({
      ...options,
      host: this.#host,
      onAddresses: (ips) => {
        this.#setHostIPs(ips, this.#source.addressLost);
      },
      podFamilies: () => this.#podFamilies(),
    });
    this.view = {
      node: () => this.#node,
      hostIPs: () => this.#hostIPs,
      addressLost: () => this.#addressLost,
      subscribe: (listener) => {
        this.#listeners.add(listener);
        return () => {
          this.#listeners.delete(listener);
        };
      },
    };
  }

  heartbeat(): NodeHeartbeat {
    return { leaseAgeSeconds: this.#lease.ageSeconds(), leaseRenewals: this.#lease.renewals };
  }

  refresh(): void {
    this.#pause.abort();
  }

  async run(signal: AbortSignal): Promise<void> {
    const identity = this.#host.identity();
    this.#source.start(identity);
    this.#event("Normal", "Starting", "Starting kubelet.");
    const { clusterDomain, resolvConf } = this.#options.config;
    const trouble = await resolvConfTrouble(resolvConf, clusterDomain);
    if (trouble !== undefined) this.#event("Warning", "CheckLimitsForResolvConf", trouble);
    const unsubscribe = this.#options.inUse?.subscribe(() => this.refresh());
    try {
      await this.#register(identity, signal);
      await Promise.all([
        this.#follow(signal),
        this.#lease.run(signal),
        this.#reportStatus(signal),
        this.#labelHardware(signal),
      ]);
    } catch (error) {
      if (!signal.aborted || !isAbort(error)) throw error;
    } finally {
      unsubscribe?.();
    }
  }

  async #register(identity: HostIdentity, signal: AbortSignal): Promise<void> {
    const { config, client, clock, logger } = this.#options;
    const { node, created } = await registerNode(
      {
        config,
        client,
        clock,
        logger,
        identity,
        status: () => this.#source.compute({}),
      },
      signal,
    );
    this.#reportReboot(node, identity);
    this.#accept(node);
    // What a former run wrote is neither news nor proof that this one is ready.
    if (created) this.#announce({}, node.status ?? {});
  }

  #reportReboot(node: Stored<Node>, identity: HostIdentity): void {
    const before = node.status?.nodeInfo?.bootID;
    if (before === undefined || before === "" || before === identity.bootID) return;
    const { nodeName } = this.#options.config;
    this.#event(
      "Warning",
      "Rebooted",
      `Node ${nodeName} has been rebooted, boot id: ${identity.bootID}`,
    );
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const unsubscribe = this.#informer.subscribe((change) => {
      if (change.kind === "deleted") return;
      this.#accept(change.object);
      // Given up while the network was away: each second of it keeps pods off a node that is well.
      if (isDoubted(change.object)) this.refresh();
    });
    try {
      await this.#informer.run(signal);
    } finally {
      unsubscribe();
    }
  }

  /** Takes a newer version of our Node object, whoever brought it. */
  #accept(node: Stored<Node>): void {
    const held = this.#node;
    if (held !== undefined && held.metadata.uid === node.metadata.uid && !isNewer(node, held))
      return;
    const families = this.#podFamilies();
    this.#node = node;
    this.#wake();
    // Pods with addresses of both families want a node that has both.
    if (this.#podFamilies().join() !== families.join()) this.refresh();
  }

  #podFamilies(): readonly IPFamily[] {
    const { podCIDRs = [] } = this.#node?.spec ?? {};
    const cidrs = podCIDRs.length > 0 ? podCIDRs : this.#options.config.podCIDRs;
    return [...new Set(cidrs.map((cidr) => (cidr.includes(":") ? "IPv6" : "IPv4")))];
  }

  #setHostIPs(ips: readonly string[], lost: boolean): void {
    const same = ips.join() === this.#hostIPs.join();
    // A pod in the node's network is asked elsewhere from now on, before its probes have failed.
    if (same && lost === this.#addressLost) return;
    this.#hostIPs = ips;
    this.#addressLost = lost;
    if (!same) this.#options.logger.log("info", "node addresses", { ips: ips.join(",") });
    this.#wake();
  }

  #wake(): void {
    for (const listener of this.#listeners) listener();
  }

  async #reportStatus(signal: AbortSignal): Promise<void> {
    const { config, client, clock, logger, random } = this.#options;
    const startingUntil = clock.monotonic() + startingMs;
    const sync = new StatusSync({
      nodeName: config.nodeName,
      reportFrequencyMs: config.nodeStatusReportFrequencyMs,
      client,
      clock,
      logger,
      random,
      current: () => this.#node,
      compute: (previous) => this.#source.compute(previous),
      isTooEarly: (before, next) =>
        !this.#wasReady &&
        clock.monotonic() < startingUntil &&
        before.nodeInfo?.bootID === next.nodeInfo?.bootID &&
        isReady(before) &&
        !isReady(next),
      onWritten: (before, after) => {
        this.#accept(after);
        this.#announce(before, after.status ?? {});
      },
    });
    const fastUntil = clock.monotonic() + fastPath.limitMs;
    while (!signal.aborted) {
      const pause = new AbortController();
      this.#pause = pause;
      const written = await sync.sync(signal);
      this.#options.onTurn?.();
      const fast = !this.#wasReady && clock.monotonic() < fastUntil;
      const fastMs = written === undefined ? fastPath.afterFailureMs : fastPath.intervalMs;
      const waitMs = Math.min(
        fast ? fastMs : config.nodeStatusUpdateFrequencyMs,
        this.#source.lookAgainMs ?? Number.POSITIVE_INFINITY,
      );
      const stop = AbortSignal.any([signal, pause.signal]);
      await clock.sleep(waitMs, stop).catch(() => undefined);
    }
  }

  /** Events, and the one call of `onReady`, for a status that the server has taken. */
  #announce(before: NodeStatus, after: NodeStatus): void {
    const { nodeName } = this.#options.config;
    for (const reason of conditionEvents(before.conditions ?? [], after.conditions ?? [])) {
      this.#event("Normal", reason, `Node ${nodeName} status is now: ${reason}`);
    }
    if (this.#wasReady || !isReady(after)) return;
    this.#wasReady = true;
    this.#options.onReady?.();
  }

  #event(type: EventType, reason: string, message: string): void {
    const { nodeName } = this.#options.config;
    // The uid of a Node's events is its name: that is what every consumer of them looks up.
    this.#options.events.event(
      { kind: "Node", apiVersion: "v1", namespace: "", name: nodeName, uid: nodeName },
      type,
      reason,
      message,
    );
  }

  async #labelHardware(signal: AbortSignal): Promise<void> {
    const { client, config, logger } = this.#options;
    const read = this.#options.hardware ?? readHardware;
    try {
      const hardware = await read(signal);
      const node = this.#node;
      if (node === undefined) return;
      const wanted = platformLabels(this.#host.identity().architecture);
      const patch = hardwareLabelPatch(hardware, wanted, node.metadata.labels ?? {});
      if (patch === undefined) return;
      const answer = await client.request({
        method: "PATCH",
        path: objectPath(NODES, { name: config.nodeName }),
        body: patch,
        contentType: "application/merge-patch+json",
        signal,
      });
      this.#accept(parseStored<Node>(answer));
    } catch (error) {
      if (signal.aborted) return;
      logger.log("warn", "hardware labels could not be set", { error: errorMessage(error) });
    }
  }
}

function isReady({ conditions }: NodeStatus): boolean {
  return conditions?.find(({ type }) => type === "Ready")?.status === "True";
}

/** Whether the control plane no longer believes that the node is alive. */
function isDoubted(node: Stored<Node>): boolean {
  return (
    node.status?.conditions?.some(
      ({ type, status }) => type === "Ready" && status === "Unknown",
    ) === true
  );
}

/** Resource versions of one object are comparable decimal numbers (KEP-5504). */
function isNewer(candidate: Stored<Node>, held: Stored<Node>): boolean {
  const [next, now] = [candidate.metadata.resourceVersion, held.metadata.resourceVersion];
  return next.length === now.length ? next > now : next.length > now.length;
}
