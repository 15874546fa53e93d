import type { ApiClient } from "../api/client.ts";
import type { AgentConfig } from "../config/types.ts";
import { systemHost } from "../kubelet/node/host.ts";
import type { NodeHeartbeat } from "../kubelet/node/node.ts";
import type { Figures } from "../kubelet/server/route.ts";
import { findPodContainer } from "../kubelet/spec/containers.ts";
import { ClientMetrics, measuredClient } from "../kubelet/stats/client-metrics.ts";
import { kernelFiles } from "../kubelet/stats/kernel-files.ts";
import { KubeletMetrics } from "../kubelet/stats/kubelet-metrics.ts";
import { measuredRuntime } from "../kubelet/stats/measured-runtime.ts";
import { PodInventory } from "../kubelet/stats/pod-inventory.ts";
import { containerType, type ContainerType } from "../kubelet/stats/runtime-metrics.ts";
import { Statistics } from "../kubelet/stats/statistics.ts";
import type { NodeView, PodView } from "../kubelet/types.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { ContainerRuntime, ImageService, RuntimeInfo } from "../runtime/types.ts";

export interface MeasurementOptions {
  readonly config: AgentConfig;
  readonly runtime: ContainerRuntime & ImageService;
  /** Made later than this. */
  readonly pods: () => Pick<PodView, "pods" | "volumes">;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** What is measured of the node half: the recorders, the runtime and the clients that record, and the pages. */
export interface Measurements {
  readonly metrics: KubeletMetrics;
  /** What everybody uses, in the place of the one that was given. */
  readonly runtime: ContainerRuntime & ImageService;
  client(client: ApiClient, server: string): ApiClient;
  /** The Service proxy's client, counted by itself, and what its page says of the program. */
  proxy(
    client: ApiClient,
    server: string,
    node: Pick<NodeView, "node">,
  ): { readonly client: ApiClient; readonly text: () => string };
  pages(sources: {
    readonly node: NodeView;
    readonly runtimeInfo: () => RuntimeInfo;
    readonly heartbeat: () => NodeHeartbeat;
  }): {
    readonly stats: Statistics;
    readonly figures: Figures;
  };
}

/** Puts the recorders between the parts of the agent; nothing is measured yet. */
export function createMeasurements(options: MeasurementOptions): Measurements {
  const { clock, config, logger } = options;
  const metrics = new KubeletMetrics();
  const files = kernelFiles();
  const pods = (): ReturnType<PodView["pods"]> => options.pods().pods();
  const typeOf = (podUID: string, container: string): ContainerType => {
    const pod = pods().find(({ metadata }) => metadata.uid === podUID);
    return containerType(pod === undefined ? undefined : findPodContainer(pod, container)?.role);
  };
  const inventory = new PodInventory((container) => {
    metrics.runtime.containerEnded(typeOf(container.podUID, container.name), container);
  });
  const runtime = measuredRuntime({
    runtime: options.runtime,
    inventory,
    metrics: metrics.runtime,
    typeOf,
    clock,
  });
  return {
    metrics,
    runtime,
    client: (client, server) => {
      const host = URL.parse(server)?.host ?? server;
      return measuredClient(client, { metrics: metrics.client, host, clock });
    },
    proxy: (client, server, node) => {
      const recorder = new ClientMetrics();
      const host = URL.parse(server)?.host ?? server;
      return {
        client: measuredClient(client, { metrics: recorder, host, clock }),
        text: () => metrics.programText({ files, node }, recorder),
      };
    },
    pages({ heartbeat, node, runtimeInfo }) {
      const lists = { inventory, pods, node, runtimeInfo, heartbeat };
      const sources = { config, files, clock, ...lists };
      const stats = new Statistics({
        config,
        records: () => inventory.records(),
        pods,
        volumes: (uid) => options.pods().volumes?.(uid) ?? [],
        runtimeInfo,
        images: options.runtime,
        identity: () => systemHost().identity(),
        files,
        onDisksMeasured: (seconds) => metrics.pods.disksMeasured(seconds),
        clock,
        logger,
      });
      const figures = {
        http: metrics.http,
        kubelet: () => metrics.text({ ...sources, claims: () => stats.claims() }),
        probes: () => metrics.probesText(files),
      };
      return { stats, figures };
    },
  };
}
