import type { Pod } from "../../api/types.gen.ts";
import type { Reachability } from "../../api/reachability.ts";
import type { NodeHeartbeat } from "../../kubelet/node/node.ts";
import type { NodeView, PodView } from "../../kubelet/types.ts";
import type { Clock } from "../../lib/clock.ts";
import type { PodNetwork } from "../../network/types.ts";
import type { ProxyMetrics } from "../../proxy/metrics.ts";
import type { ProxyInformers } from "../../proxy/own-informers.ts";
import type { RuntimeInfo } from "../../runtime/types.ts";
import { kubernetesVersion, remoraVersion } from "../version.ts";
import type { RecentEvents } from "./recent-events.ts";
import { servicesSummary } from "./services-summary.ts";
import { type KnownPod, nodeSnapshot } from "./snapshot.ts";
import type { NodeSnapshot, ServicesSummary } from "./types.ts";
import type { UsageMeter } from "./usage-meter.ts";

/** What a snapshot is made of. Nothing of it is kept. */
export interface SnapshotSources {
  readonly nodeName: string;
  readonly mode: "up" | "run";
  readonly stateDir: string;
  readonly pid: number;
  /** Resident memory of this process, bytes. */
  readonly rssBytes: () => number;
  readonly node: { readonly view: Pick<NodeView, "node">; heartbeat(): NodeHeartbeat };
  readonly pods: Pick<PodView, "healthy" | "pods" | "pulls" | "status">;
  /** Pods that no node has yet. Default: nobody here may know. */
  readonly unscheduled?: ((signal: AbortSignal) => Promise<readonly Pod[]>) | undefined;
  readonly engine: { info(): RuntimeInfo | undefined; last(): RuntimeInfo };
  readonly network: Pick<PodNetwork, "notReadyReason">;
  readonly services: ProxyInformers;
  readonly proxy: Pick<ProxyMetrics, "lastChange" | "mode">;
  readonly usage: Pick<UsageMeter, "read">;
  readonly events: Pick<RecentEvents, "list">;
  readonly reachability: Pick<Reachability, "isLost">;
  /** URL of the API server. */
  readonly server: string;
  readonly clock: Clock;
}

/** A snapshot, and when it was begun. */
export interface Taken {
  readonly snapshot: NodeSnapshot;
  /** Monotonic milliseconds. */
  readonly at: number;
  /** What it cost of this thread and what it waited for, milliseconds. */
  readonly costMs: number;
}

/** Whoever asks again within this time gets the same. */
const freshMs = 250;
/** Counting endpoints may take no more than this part of the time. */
const shareOfServices = 1 / 50;

/** Makes snapshots when somebody asks for one; of those who ask together each gets the same. */
export class SnapshotSource {
  readonly #sources: SnapshotSources;
  readonly #started: string;
  #last: Taken | undefined;
  #running: Promise<Taken> | undefined;
  #services: { readonly summary: ServicesSummary; readonly until: number } | undefined;

  constructor(sources: SnapshotSources) {
    this.#sources = sources;
    this.#started = new Date(sources.clock.now()).toISOString();
  }

  /** One that is no older than a quarter of a second. */
  async take(signal: AbortSignal): Promise<Taken> {
    const { clock } = this.#sources;
    const last = this.#last;
    if (last !== undefined && clock.monotonic() - last.at - last.costMs < freshMs) return last;
    this.#running ??= this.#make(signal).finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /** Lets go of what was kept for those who ask again. */
  forget(): void {
    this.#last = undefined;
    this.#services = undefined;
  }

  async #make(signal: AbortSignal): Promise<Taken> {
    const { clock, events, mode, pid, rssBytes, stateDir, unscheduled, usage } = this.#sources;
    const at = clock.monotonic();
    const [used, waiting] = await Promise.all([
      usage.read(signal),
      // It is asked of the API server: without an answer the rest is worth the more.
      unscheduled?.(signal).catch(() => undefined),
    ]);
    const pods = this.#pods();
    const snapshot = nodeSnapshot({
      now: clock.now(),
      agent: {
        version: remoraVersion,
        kubernetesVersion,
        mode,
        pid,
        started: this.#started,
        rssBytes: rssBytes(),
        stateDir,
      },
      node: this.#node(),
      pods,
      unscheduled: waiting,
      pulls: this.#sources.pods.pulls?.() ?? [],
      services: this.#countServices(pods),
      usage: used,
      events: events.list(),
    });
    this.#last = { snapshot, at, costMs: clock.monotonic() - at };
    return this.#last;
  }

  #pods(): readonly KnownPod[] {
    const { pods } = this.#sources;
    return pods.pods().map((pod) => {
      const status = pods.status?.(pod.metadata.uid) ?? pod.status ?? {};
      return { pod, status };
    });
  }

  #node(): Parameters<typeof nodeSnapshot>[0]["node"] {
    const { clock, engine, network, node, nodeName, pods, reachability, server } = this.#sources;
    const answering = engine.info();
    const { name, version } = answering ?? engine.last();
    const { leaseAgeSeconds } = node.heartbeat();
    return {
      name: nodeName,
      node: node.view.node(),
      runtime: `${name}://${version}`,
      troubles: [
        answering === undefined ? "the container engine does not answer" : undefined,
        pods.healthy(),
        network.notReadyReason,
      ].filter((trouble) => trouble !== undefined),
      apiServer: {
        url: server,
        reachable: !reachability.isLost,
        lastHeartbeat:
          leaseAgeSeconds === undefined
            ? undefined
            : new Date(clock.now() - leaseAgeSeconds * 1000).toISOString(),
      },
    };
  }

  /** A cluster has more endpoints than a node has anything, so they are not counted for each snapshot. */
  #countServices(pods: readonly KnownPod[]): ServicesSummary {
    const { clock, nodeName, proxy, services } = this.#sources;
    const begun = clock.monotonic();
    if (this.#services !== undefined && begun < this.#services.until) return this.#services.summary;
    const podsByIP = new Map<string, string>();
    for (const { pod, status } of pods) {
      const { name, namespace = "" } = pod.metadata;
      // An address of the node belongs to all pods on its network.
      if (pod.spec?.hostNetwork === true) continue;
      for (const { ip } of status.podIPs ?? []) podsByIP.set(ip, `${namespace}/${name}`);
    }
    const summary = servicesSummary({
      services: services.services.values(),
      slices: services.slices.values(),
      nodeName,
      podsByIP,
      mode: proxy.mode ?? "off",
      lastSync: proxy.lastChange,
    });
    const ended = clock.monotonic();
    this.#services = { summary, until: ended + (ended - begun) / shareOfServices };
    return summary;
  }
}
