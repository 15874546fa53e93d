import type { ApiClient } from "../../api/client.ts";
import { createEventRecorder } from "../../api/event-recorder.ts";
import type { Cidr } from "../../lib/cidr.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import { Scheduler } from "../scheduler/scheduler.ts";
import { endpointSliceController } from "./endpoint-slices/endpoint-slice-controller.ts";
import { endpointsController } from "./endpoints/endpoints-controller.ts";
import { GarbageCollector } from "./garbage-collector/garbage-collector.ts";
import { namespaceController } from "./namespace/namespace-controller.ts";
import { nodeIpamController } from "./node-ipam/node-ipam-controller.ts";
import { nodeLifecycleController } from "./node-lifecycle/node-lifecycle-controller.ts";
import { taintEvictionController } from "./node-lifecycle/taint-eviction.ts";
import { podGCController } from "./pod-gc/pod-gc-controller.ts";
import { ReplicaController } from "./replication/replica-controller.ts";
import { replicationControllerKind } from "./replication/workload.ts";
import { rootCAPublisher } from "./service-accounts/root-ca-publisher.ts";
import { serviceAccountController } from "./service-accounts/service-account-controller.ts";
import type { Controller, ControllerContext } from "./shared/controller.ts";
import { createInformers } from "./shared/informers.ts";

export interface ControllersOptions {
  /** Identity of the controllers (`system:kube-controller-manager`). */
  readonly client: ApiClient;
  /** Identity of the scheduler (`system:kube-scheduler`). */
  readonly schedulerClient: ApiClient;
  /** Name of the machine, for the source of Events. */
  readonly host: string;
  readonly clusterCIDR: Cidr;
  /** Prefix length of one node's pod network. */
  readonly nodePrefix: number;
  /** The cluster's CA, published in every namespace. */
  readonly caPEM: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** In [0, 1). */
  readonly random: () => number;
}

/** All controllers and the scheduler over one set of caches. */
export function createControllers(options: ControllersOptions): {
  /** Works until `signal` aborts. Rejects when one of them fails for good; the others have then ended too. */
  run(signal: AbortSignal): Promise<void>;
} {
  const { client, schedulerClient, clock, logger, random, host } = options;
  const caches = createInformers({ client, clock, logger, random });
  const recorder = (component: string, of: ApiClient): ReturnType<typeof createEventRecorder> =>
    createEventRecorder({ client: of, component, host, clock, logger, random });
  const recorders = {
    replication: recorder("replication-controller", client),
    endpoints: recorder("endpoint-controller", client),
    slices: recorder("endpoint-slice-controller", client),
    node: recorder("node-controller", client),
    taints: recorder("taint-eviction-controller", client),
    collector: recorder("garbage-collector-controller", client),
    scheduler: recorder("default-scheduler", schedulerClient),
  };
  const { informers } = caches;
  const base = { client, informers, clock, random };
  const context = (name: keyof typeof recorders): ControllerContext => ({
    ...base,
    recorder: recorders[name],
    logger: logger.child({ component: name }),
  });
  const controllers: readonly Controller[] = [
    new ReplicaController({
      name: "replication",
      kind: replicationControllerKind,
      context: context("replication"),
      workloads: informers.replicationControllers,
    }),
    endpointsController(context("endpoints")),
    endpointSliceController(context("slices")),
    nodeIpamController(context("node"), {
      clusterCIDR: options.clusterCIDR,
      nodePrefix: options.nodePrefix,
    }),
    nodeLifecycleController(context("node")),
    taintEvictionController(context("taints")),
    podGCController(context("node")),
    namespaceController(context("collector")),
    new GarbageCollector(context("collector")),
    serviceAccountController(context("collector")),
    rootCAPublisher(context("collector"), { caPEM: options.caPEM }),
  ];
  const scheduler = new Scheduler({
    client: schedulerClient,
    informers,
    recorder: recorders.scheduler,
    clock,
    logger: logger.child({ component: "scheduler" }),
    random,
  });
  return {
    run: async (signal) => {
      const failed = new AbortController();
      const stop = AbortSignal.any([signal, failed.signal]);
      const parts = [
        caches.run(stop),
        ...Object.values(recorders).map((each) => each.run(stop)),
        ...controllers.map((each) => each.run(stop)),
        scheduler.run(stop),
      ].map(async (part) => {
        try {
          await part;
        } catch (error) {
          failed.abort(error);
          throw error;
        }
      });
      const results = await Promise.allSettled(parts);
      const rejected = results.find((result) => result.status === "rejected");
      if (rejected !== undefined && !signal.aborted) throw rejected.reason;
    },
  };
}
