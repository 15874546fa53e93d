import type { ApiClient } from "../api/client.ts";
import type { EventRecorder } from "../api/event-types.ts";
import { createInformer } from "../api/informer.ts";
import type { Informer } from "../api/informer-types.ts";
import { NODES } from "../api/resources.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage, isAbort } from "../lib/errors.ts";
import { asRecord, isRecord, optionalString } from "../lib/guard.ts";
import type { Logger } from "../lib/log.ts";
import type { RemoteNode, RouteProblem } from "../network/route-plan.ts";
import type { ensureNodeRoutes, RouteReport, RouteWatchOptions } from "../network/node-routes.ts";
import type { Runner } from "./supervise.ts";

/** What routes need of a Node. */
export interface NodePlace extends RemoteNode {
  /** Milliseconds since the epoch. */
  readonly createdAt: number;
}

export interface NodeRoutesOptions {
  readonly nodeName: string;
  /** An identity that may list and watch all Nodes: the node's own may not. */
  readonly client: ApiClient;
  readonly events: EventRecorder;
  /** Used while the own Node has no podCIDRs. */
  readonly podCIDRs: readonly string[];
  readonly bridge: string;
  readonly ensure: typeof ensureNodeRoutes;
  /** Called with the other Nodes each time they may have changed. */
  readonly onRemotes?: (remotes: readonly RemoteNode[]) => void;
  /** Must not reject. */
  readonly watch: (options: RouteWatchOptions, signal: AbortSignal) => Promise<void>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** In [0, 1). */
  readonly random: () => number;
}

const retryMs = 5_000;
/** The monitor tells of disturbances; this is for what it may have missed. */
const repairMs = 60_000;
/** Links that flap must not make us look all the time. */
const gapMs = 1_000;

const missingBinding =
  "without it this node has no routes to the pods of others: bind ClusterRole system:node-proxier to that user";

/** @throws {ParseError} when it is no object at all. */
export function parseNodePlace(value: unknown): NodePlace {
  const object = asRecord(value, "$");
  const metadata = asRecord(object["metadata"], "$.metadata");
  const spec = isRecord(object["spec"]) ? object["spec"] : {};
  const status = isRecord(object["status"]) ? object["status"] : {};
  const addresses: readonly unknown[] = Array.isArray(status["addresses"])
    ? status["addresses"]
    : [];
  const created = Date.parse(optionalString(metadata["creationTimestamp"]) ?? "");
  return {
    name: optionalString(metadata["name"]) ?? "",
    podCIDRs: podCIDRsOf(spec),
    addresses: addresses.flatMap((address): string[] => {
      if (!isRecord(address) || address["type"] !== "InternalIP") return [];
      const text = optionalString(address["address"]);
      return text === undefined ? [] : [text];
    }),
    createdAt: Number.isNaN(created) ? 0 : created,
  };
}

function podCIDRsOf(spec: Readonly<Record<string, unknown>>): readonly string[] {
  const list: readonly unknown[] = Array.isArray(spec["podCIDRs"])
    ? spec["podCIDRs"]
    : [spec["podCIDR"]];
  return list.filter((cidr): cidr is string => typeof cidr === "string" && cidr !== "");
}

/** Keeps this machine's routes to the pods of other nodes in step with the Nodes, and in repair. */
export function nodeRoutesRunner(options: NodeRoutesOptions): Runner {
  return { name: "node routes", run: (signal) => new NodeRoutes(options).run(signal) };
}

class NodeRoutes {
  readonly #options: NodeRoutesOptions;
  readonly #logger: Logger;
  readonly #nodes: Informer<NodePlace>;
  /** Problems that were told, as text. */
  #told: ReadonlySet<string> = new Set();
  #wake = (): void => undefined;
  #changed = true;
  #watching: Promise<void> | undefined;

  constructor(options: NodeRoutesOptions) {
    this.#options = options;
    this.#logger = options.logger.child({ component: "node routes" });
    const { client, clock, random } = options;
    this.#nodes = createInformer({
      client,
      clock,
      random,
      logger: this.#logger,
      resource: NODES,
      project: parseNodePlace,
      whenForbidden: missingBinding,
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    const stop = new AbortController();
    const all = AbortSignal.any([signal, stop.signal]);
    this.#nodes.subscribe((change) => {
      // Heartbeats change Nodes all the time and are no news here.
      if (change.kind !== "updated" || !samePlace(change.previous, change.object)) this.#look();
    });
    const following = this.#nodes.run(all);
    try {
      // Routes of the run before stay until it is known which nodes there are.
      await this.#nodes.whenSynced(signal);
      await this.#keep(all);
    } finally {
      stop.abort();
      await Promise.allSettled([following, this.#watching]);
    }
  }

  #look(): void {
    this.#changed = true;
    this.#wake();
  }

  async #keep(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    while (!signal.aborted) {
      const pause = new AbortController();
      this.#wake = () => pause.abort();
      this.#changed = false;
      const remotes = this.#remotes();
      this.#options.onRemotes?.(remotes);
      const waitMs = await this.#ensure(remotes, signal);
      // One that is alone needs no second look.
      if (remotes.length > 0) this.#watching ??= this.#watch(signal);
      await sleep(clock, gapMs, signal);
      if (this.#changed) continue;
      await sleep(clock, waitMs, AbortSignal.any([signal, pause.signal]));
    }
  }

  #remotes(): readonly NodePlace[] {
    return [...this.#nodes.values()]
      .filter(({ name }) => name !== this.#options.nodeName)
      .toSorted((a, b) => a.createdAt - b.createdAt || (a.name < b.name ? -1 : 1));
  }

  /** @returns Milliseconds until the next look. */
  async #ensure(remotes: readonly NodePlace[], signal: AbortSignal): Promise<number> {
    const { ensure, nodeName, podCIDRs } = this.#options;
    const own = this.#nodes.get(nodeName)?.podCIDRs ?? [];
    try {
      this.#report(await ensure(remotes, own.length > 0 ? own : podCIDRs, signal), remotes);
      return repairMs;
    } catch (error) {
      if (isAbort(error)) throw error;
      this.#logger.log("error", "routes to other nodes could not be set, will retry", {
        error: errorMessage(error),
      });
      return retryMs;
    }
  }

  #report(report: RouteReport, remotes: readonly NodePlace[]): void {
    for (const { destination, gateway } of report.replaced) {
      const node = remotes.find(({ addresses }) => addresses.includes(gateway))?.name ?? "";
      this.#logger.log("info", "route to the pods of a node set", { node, destination, gateway });
    }
    for (const { destination, gateway } of report.removed) {
      this.#logger.log("info", "route to the pods of a node removed", { destination, gateway });
    }
    const now = new Set<string>(report.overruled);
    for (const text of report.overruled) {
      // Somebody may want it so, and then the pods are reached.
      if (!this.#told.has(text)) {
        this.#logger.log("info", "a route of somebody else comes before ours", { route: text });
      }
    }
    for (const problem of report.problems) {
      const text = describeProblem(problem);
      now.add(text);
      if (!this.#told.has(text)) this.#tell(problem, text);
    }
    this.#told = now;
  }

  /** Reason as that of the cloud route controller, which does the same work there. */
  #tell({ node, podCIDR }: RouteProblem, text: string): void {
    const { events, nodeName } = this.#options;
    this.#logger.log("warn", "the pods of a node cannot be reached from here", {
      node,
      podCIDR,
      error: text,
    });
    const target = { kind: "Node", apiVersion: "v1", namespace: "", name: nodeName, uid: nodeName };
    events.event(target, "Warning", "FailedToCreateRoute", text);
  }

  #watch(signal: AbortSignal): Promise<void> {
    const { bridge, watch } = this.#options;
    return watch({ bridge, onDisturbed: () => this.#look() }, signal);
  }
}

function samePlace(a: NodePlace, b: NodePlace): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function describeProblem({ node, podCIDR, message }: RouteProblem): string {
  return `Could not create a route to the pods ${podCIDR} of node ${node}: ${message}`;
}

async function sleep(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  try {
    await clock.sleep(ms, signal);
  } catch (error) {
    if (!isAbort(error)) throw error;
  }
}
