import type { ApiClient } from "../../api/client.ts";
import { createEventRecorder } from "../../api/event-recorder.ts";
import type { EventRecorder } from "../../api/event-types.ts";
import { localVolumes } from "../../api/local-volumes.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import { disruptionBudgets } from "../scheduler/preemption.ts";
import { Scheduler } from "../scheduler/scheduler.ts";
import { AttachDetachController } from "./attach-detach/attach-detach.ts";
import { clusterInfoSigner } from "./bootstrap-tokens/cluster-info-signer.ts";
import { tokenCleaner } from "./bootstrap-tokens/token-cleaner.ts";
import { kubeletClientApprover, kubeletServingApprover } from "./certificates/approver.ts";
import { certificateCleaner } from "./certificates/cleaner.ts";
import { certificateSigner, type SigningAuthority } from "./certificates/signer.ts";
import { DaemonSetController } from "./daemon-set/daemon-set-controller.ts";
import { DeploymentController } from "./deployment/deployment-controller.ts";
import { disruptionController } from "./disruption/disruption-controller.ts";
import { endpointSliceController } from "./endpoint-slices/endpoint-slice-controller.ts";
import { endpointsController } from "./endpoints/endpoints-controller.ts";
import { ephemeralVolumeController } from "./ephemeral-volume/ephemeral-volume.ts";
import { expandController } from "./expand/expand.ts";
import { GarbageCollector } from "./garbage-collector/garbage-collector.ts";
import { JobController } from "./job/job-controller.ts";
import { ttlAfterFinishedController } from "./job/ttl-after-finished.ts";
import type { KubernetesServiceOptions } from "./kubernetes-service/kubernetes-service-controller.ts";
import { kubernetesServiceController } from "./kubernetes-service/kubernetes-service-controller.ts";
import {
  loadBalancerController,
  type LoadBalancerOptions,
} from "./load-balancer/load-balancer-controller.ts";
import { LocalVolumesController } from "./local-volumes/local-volumes.ts";
import { namespaceController } from "./namespace/namespace-controller.ts";
import { nodeIpamController, type PodNetwork } from "./node-ipam/node-ipam-controller.ts";
import { nodeLifecycleController } from "./node-lifecycle/node-lifecycle-controller.ts";
import { taintEvictionController } from "./node-lifecycle/taint-eviction.ts";
import { PersistentVolumeBinder } from "./persistent-volume-binder/binder.ts";
import { podGCController } from "./pod-gc/pod-gc-controller.ts";
import { ReplicaController } from "./replication/replica-controller.ts";
import { replicaSetKind, replicationControllerKind } from "./replication/workload.ts";
import { type ClusterCA, rootCAPublisher } from "./service-accounts/root-ca-publisher.ts";
import { serviceAccountController } from "./service-accounts/service-account-controller.ts";
import type { Controller, ControllerContext } from "./shared/controller.ts";
import { createInformers } from "./shared/informers.ts";
import { attributesClassProtection } from "./volume-attributes-class/attributes-class-protection.ts";
import { claimProtection, volumeProtection } from "./volume-protection/volume-protection.ts";

/**
 * Whose name a part of the control plane works under: a ServiceAccount of kube-system (`replication-controller`), or a
 * user of its own. Each has exactly the bootstrap role of its job.
 */
export type Identity =
  | { readonly kind: "service-account"; readonly name: string }
  | {
      readonly kind: "user";
      readonly name:
        | "system:kube-controller-manager"
        | "system:kube-scheduler"
        | "system:apiserver";
    };

export interface ControllersOptions {
  readonly clientFor: (identity: Identity) => ApiClient;
  /** The cluster's, one of each family, the primary one first, and what a node gets of them. */
  readonly podNetworks: readonly PodNetwork[];
  /** The cluster's CA, published in every namespace. */
  readonly clusterCA: ClusterCA;
  /** Undefined where the server itself keeps `kubernetes.default`. */
  readonly kubernetesService: KubernetesServiceOptions | undefined;
  /** Signs certificates of nodes and users; absent where another control plane does. */
  readonly signingAuthority?: () => SigningAuthority;
  /** The machine that all this runs on, whose ports load balancers leave to those who have them. */
  readonly machine?: NonNullable<LoadBalancerOptions["machine"]>;
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
  const { clientFor, clock, logger, random } = options;
  const caches = createInformers({
    client: clientFor({ kind: "user", name: "system:kube-controller-manager" }),
    clock,
    logger: logger.child({ component: "controllers" }),
    random,
  });
  const { informers } = caches;
  const parts: ((signal: AbortSignal) => Promise<void>)[] = [(signal) => caches.run(signal)];

  function recorderFor(client: ApiClient, component: string): EventRecorder {
    const recorder = createEventRecorder({
      // Written in this process: nothing is gained by waiting.
      patience: { quietMs: 0, maxMs: 0 },
      client,
      component,
      // Controllers belong to the cluster, not to a node.
      host: "",
      clock,
      logger,
      random,
    });
    parts.push((signal) => recorder.run(signal));
    return recorder;
  }

  function context(identity: Identity, component: string = identity.name): ControllerContext {
    const client = clientFor(identity);
    return {
      client,
      recorder: recorderFor(client, component),
      informers,
      clock,
      random,
      logger: logger.child({ component: identity.name }),
    };
  }
  /** `component` is how its events are signed. */
  const account = (name: string, component = name): ControllerContext =>
    context({ kind: "service-account", name }, component);

  const nodes = account("node-controller");
  const controllers: Controller[] = [
    new ReplicaController({
      name: "replication",
      kind: replicationControllerKind,
      context: account("replication-controller"),
      workloads: informers.replicationControllers,
    }),
    new ReplicaController({
      name: "replicaset",
      kind: replicaSetKind,
      context: account("replicaset-controller"),
      workloads: informers.replicaSets,
    }),
    new DeploymentController(account("deployment-controller")),
    new DaemonSetController(account("daemon-set-controller", "daemonset-controller")),
    new JobController(account("job-controller")),
    ttlAfterFinishedController(account("ttl-after-finished-controller")),
    endpointsController(account("endpoint-controller")),
    endpointSliceController(account("endpointslice-controller")),
    loadBalancerController(account("service-controller"), options),
    nodeIpamController(nodes, options.podNetworks),
    nodeLifecycleController(nodes),
    taintEvictionController(nodes),
    disruptionController(account("disruption-controller")),
    podGCController(account("pod-garbage-collector")),
    namespaceController(account("namespace-controller")),
    new GarbageCollector(account("generic-garbage-collector")),
    serviceAccountController(account("service-account-controller")),
    rootCAPublisher(account("root-ca-cert-publisher"), options.clusterCA),
    new PersistentVolumeBinder(account("persistent-volume-binder", "persistentvolume-controller"), {
      ownProvisioners: new Set([localVolumes.provisioner]),
    }),
    volumeProtection(account("pv-protection-controller")),
    claimProtection(account("pvc-protection-controller")),
    attributesClassProtection(account("volumeattributesclass-protection-controller")),
    ephemeralVolumeController(account("ephemeral-volume-controller", "ephemeral_volume")),
    expandController(account("expand-controller", "volume_expand")),
    new AttachDetachController(account("attachdetach-controller")),
    new LocalVolumesController(account("local-volume-provisioner", localVolumes.provisioner)),
  ];
  if (options.kubernetesService !== undefined)
    controllers.push(
      kubernetesServiceController(
        context({ kind: "user", name: "system:apiserver" }),
        options.kubernetesService,
      ),
    );
  if (options.signingAuthority !== undefined) {
    const certificates = account("certificate-controller");
    controllers.push(
      kubeletClientApprover(certificates),
      certificateSigner(certificates, options.signingAuthority),
      certificateCleaner(certificates),
      kubeletServingApprover(account("kubelet-serving-approver"), {
        clusterIP: options.kubernetesService?.clusterIP,
      }),
      clusterInfoSigner(account("bootstrap-signer")),
      tokenCleaner(account("token-cleaner")),
    );
  }
  const scheduling = clientFor({ kind: "user", name: "system:kube-scheduler" });
  const scheduler = new Scheduler({
    client: scheduling,
    informers,
    storage: informers,
    owners: new Map([["apps/v1/ReplicaSet", informers.replicaSets]]),
    budgets: () => disruptionBudgets(informers.podDisruptionBudgets.values()),
    waitFor: [informers.podDisruptionBudgets],
    recorderFor: (profile) => recorderFor(scheduling, profile),
    clock,
    random,
    logger: logger.child({ component: "scheduler" }),
  });
  parts.push(...controllers.map((each) => (signal: AbortSignal) => each.run(signal)), (signal) =>
    scheduler.run(signal),
  );
  return { run: (signal) => runTogether(parts, signal) };
}

/** Runs all parts; when one fails, the others are stopped and its error is the result. */
async function runTogether(
  parts: readonly ((signal: AbortSignal) => Promise<void>)[],
  signal: AbortSignal,
): Promise<void> {
  const failed = new AbortController();
  const stop = AbortSignal.any([signal, failed.signal]);
  const results = await Promise.allSettled(
    parts.map(async (part) => {
      try {
        await part(stop);
      } catch (error) {
        failed.abort(error);
        throw error;
      }
    }),
  );
  const rejected = results.find((result) => result.status === "rejected");
  if (rejected !== undefined && !signal.aborted) throw rejected.reason;
}
