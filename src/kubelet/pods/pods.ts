import { statfs } from "node:fs/promises";

import type { ApiClient } from "../../api/client.ts";
import type { EventRecorder } from "../../api/event-types.ts";
import { createInformer } from "../../api/informer.ts";
import type { Informer } from "../../api/informer-types.ts";
import { parseStored } from "../../api/object.ts";
import { PODS, SERVICES } from "../../api/resources.ts";
import type { Pod, Service } from "../../api/types.gen.ts";
import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import type { PodNetwork } from "../../network/types.ts";
import type { ContainerRuntime, ImageService, RuntimeInfo } from "../../runtime/types.ts";
import { cgroupTree, type CgroupTree } from "../cgroups/cgroup-tree.ts";
import { PodCgroups } from "../cgroups/pod-cgroups.ts";
import type { Csi } from "../csi/csi.ts";
import type { CredentialProvider } from "../images/credential-provider-config.ts";
import { CredentialProviders } from "../images/credential-providers.ts";
import { ImageCollector } from "../images/image-gc.ts";
import { PullRecords } from "../images/pull-records.ts";
import { ImagePuller } from "../images/puller.ts";
import { ClusterTrustBundles } from "../objects/cluster-trust-bundles.ts";
import { type Reference, ReferencedObjects } from "../objects/referenced-objects.ts";
import { RuntimeClasses } from "../objects/runtime-classes.ts";
import { ServiceAccounts } from "../objects/service-accounts.ts";
import type { ServiceEnvSource } from "../spec/service-env.ts";
import { measuredCgroups } from "../stats/measured-cgroups.ts";
import { StatusWriter } from "../status/status-writer.ts";
import type { StepHook } from "../steps.ts";
import type { AssignedPod, NodeView, PodView } from "../types.ts";
import { Claims } from "../volumes/claims.ts";
import { ImageVolumes, mountedImages } from "../volumes/image-volumes.ts";
import { type Mounter, systemMounter } from "../volumes/mounter.ts";
import { volumePlugins } from "../volumes/plugins.ts";
import { fsGroupApplier } from "../volumes/ownership.ts";
import { removeTree } from "../volumes/remove-tree.ts";
import { ServiceAccountTokens } from "../volumes/service-account-token.ts";
import { podsWithVolume } from "../volumes/volume-users.ts";
import { Volumes } from "../volumes/volumes.ts";
import { KeptLogs } from "./kept-logs.ts";
import type { PodDeps } from "./pod-deps.ts";
import { PodLoop } from "./pod-loop.ts";
import { findContainer } from "./pod-view.ts";
import { Prober } from "./prober.ts";
import type { PodRecorders } from "./recorders.ts";

export interface PodsOptions {
  readonly config: AgentConfig;
  readonly client: ApiClient;
  readonly runtime: ContainerRuntime;
  readonly images: ImageService;
  readonly network: PodNetwork;
  /** What the engine last said about itself. Default: it is connected and asked at the start. */
  readonly runtimeInfo?: () => RuntimeInfo;
  readonly node: NodeView;
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly logger: Logger;
  /** In [0, 1). */
  readonly random: () => number;
  readonly step: StepHook;
  /** Default: the machine's own mount table. */
  readonly mounter?: Mounter;
  /** Default: /sys/fs/cgroup. */
  readonly cgroups?: CgroupTree;
  /** Default: nothing is counted. */
  readonly metrics?: PodRecorders;
  /** Drivers of volumes; somebody else runs it. Default: volumes of CSI drivers are refused. */
  readonly csi?: Csi;
  /** Programs that know credentials for images; default: none. */
  readonly credentialProviders?: readonly CredentialProvider[];
  /** What these programs find in their environment: proxies, regions, homes. Default: nothing of the agent's. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Called after each look at all pods, also one that failed: the loop is alive. */
  readonly onTurn?: () => void;
}

/** The pod half of the node agent. */
export interface Pods {
  /** Runs until `signal` aborts; containers keep running. Rejects when a step hook throws. */
  run(signal: AbortSignal): Promise<void>;
  readonly view: PodView;
}

/** What environment variables need of a Service. */
function projectService(value: unknown): ServiceEnvSource {
  const service = parseStored<Service>(value);
  return {
    namespace: service.metadata.namespace ?? "",
    name: service.metadata.name,
    clusterIP: service.spec?.clusterIP ?? "",
    ports: (service.spec?.ports ?? []).map(({ name = "", port, protocol = "TCP" }) => ({
      name,
      port,
      protocol,
    })),
  };
}

const lookupMs = 10_000;
const notStarted = "the container runtime has not been asked yet";

class PodHalf implements Pods {
  readonly view: PodView;
  readonly #options: PodsOptions;
  readonly #pods: Informer<AssignedPod>;
  readonly #services: Informer<ServiceEnvSource>;
  readonly #records: PullRecords;
  readonly #keptLogs: KeptLogs;
  readonly #mounter: Mounter;
  #loop: PodLoop | undefined;
  #deps: PodDeps | undefined;
  #trustBundles: ClusterTrustBundles | undefined;

  constructor(options: PodsOptions) {
    this.#options = options;
    this.#mounter = options.mounter ?? systemMounter;
    const { client, clock, config, logger, random } = options;
    this.#keptLogs = new KeptLogs({ config, logger });
    this.#records = new PullRecords(config.rootDir, () => clock.now());
    this.#pods = createInformer<AssignedPod>({
      client,
      resource: PODS,
      fieldSelector: `spec.nodeName=${config.nodeName}`,
      project: (value) => parseStored<Pod>(value),
      clock,
      logger,
      random,
    });
    this.#services = createInformer<ServiceEnvSource>({
      client,
      resource: SERVICES,
      project: projectService,
      clock,
      logger,
      random,
    });
    this.view = {
      pods: () => [...this.#pods.values()],
      findContainer: async (at, { previous }) => {
        const pod = this.#pods.get(`${at.namespace}/${at.pod}`);
        const wanted = at.uid === undefined || at.uid === pod?.metadata.uid ? pod : undefined;
        const signal = AbortSignal.timeout(lookupMs);
        const sources = { runtime: options.runtime, keptLogs: this.#keptLogs };
        return findContainer(sources, wanted, at, previous, signal);
      },
      volumes: (uid) => this.#deps?.volumes.withFigures(uid) ?? [],
      status: (uid) => this.#deps?.writer.current(uid),
      pulls: () => this.#deps?.puller.pulls() ?? [],
      healthy: () => (this.#loop === undefined ? notStarted : this.#loop.healthy()),
    };
  }

  async run(signal: AbortSignal): Promise<void> {
    const fatal = new AbortController();
    const failure: { error?: Error } = {};
    const stop = AbortSignal.any([signal, fatal.signal]);
    const fail = (error: unknown): void => {
      failure.error ??= error instanceof Error ? error : new Error(String(error));
      fatal.abort();
    };
    const deps = await this.#buildDeps(stop, fail);
    this.#deps = deps;
    const collector = this.#imageCollector(deps);
    const informers = [this.#services.run(stop), this.#pods.run(stop), collector.run(stop)];
    const loop = new PodLoop({ deps, pods: this.#pods, signal: stop, onFatal: fail });
    this.#loop = loop;
    this.#wake = (uid) => loop.wake(uid);
    this.#stale = (uid, reference) => {
      deps.volumes.contentChanged(uid);
      loop.contentChanged(uid, reference);
    };
    this.#written = (pod) => loop.statusWritten(pod);
    const unsubscribe = this.#options.csi?.onDriver((uid) => this.#stale(uid));
    try {
      await loop.run();
    } finally {
      unsubscribe?.();
      fatal.abort();
      await Promise.allSettled(informers);
      const { objects, prober, volumes, writer } = deps;
      await Promise.all([objects.idle(), prober.idle(), volumes.idle(), writer.idle()]);
      await this.#trustBundles?.idle();
    }
    if (failure.error !== undefined) throw failure.error;
  }

  #wake: (uid: string) => void = () => undefined;
  #stale: (uid: string, reference?: Reference) => void = () => undefined;
  #written: (pod: AssignedPod) => void = () => undefined;

  async #connect(signal: AbortSignal): Promise<() => RuntimeInfo> {
    const info = await this.#options.runtime.connect(signal);
    return () => info;
  }

  #credentialProviders(signal: AbortSignal): CredentialProviders | undefined {
    const { credentialProviders: providers = [], environment = {} } = this.#options;
    if (providers.length === 0) return undefined;
    const accounts = new ServiceAccounts(this.#options);
    return new CredentialProviders({ ...this.#options, providers, accounts, environment, signal });
  }

  /** Undefined: the node is not to show any. */
  #followTrustBundles(signal: AbortSignal): ClusterTrustBundles | undefined {
    if (this.#options.config.clusterTrustBundles !== true) return undefined;
    const wake = (uid: string): void => this.#stale(uid);
    this.#trustBundles = new ClusterTrustBundles({ ...this.#options, signal, wake });
    return this.#trustBundles;
  }

  #imageCollector(deps: PodDeps): ImageCollector {
    return new ImageCollector({
      ...deps,
      records: this.#records,
      mountedImages: () => mountedImages(this.#mounter.table(), this.#options.config.rootDir),
      disk: async () => {
        const { imageRootDir, rootDir } = deps.runtimeInfo();
        const { bavail, blocks, bsize } = await statfs(imageRootDir ?? rootDir);
        return { capacityBytes: blocks * bsize, availableBytes: bavail * bsize };
      },
    });
  }

  async #buildDeps(signal: AbortSignal, fail: (error: unknown) => void): Promise<PodDeps> {
    const options = this.#options;
    const { client, clock, config, events, images, logger, node, random, runtime } = options;
    // A hook that throws stands for a crash: nothing may run after it.
    const step: StepHook = async (name) => {
      try {
        await options.step(name);
      } catch (error) {
        fail(error);
        throw error;
      }
    };
    const runtimeInfo = options.runtimeInfo ?? (await this.#connect(signal));
    const allocatable = (): Record<string, string | number> =>
      node.node()?.status?.allocatable ?? {};
    const objects = new ReferencedObjects({
      client,
      clock,
      logger,
      random,
      signal,
      wake: (uid, reference) => this.#stale(uid, reference),
    });
    const { metrics } = options;
    const measured = (tree: CgroupTree): CgroupTree =>
      metrics === undefined ? tree : measuredCgroups(tree, metrics.pods, clock);
    const tokens = new ServiceAccountTokens({ client, clock, random, logger });
    const mounter = this.#mounter;
    const claims = new Claims({
      client,
      clock,
      node: () => node.node()?.metadata,
      podsWith: async (name) => podsWithVolume(config.rootDir, name),
    });
    const trustBundles = this.#followTrustBundles(signal);
    const forVolumes = {
      ...options,
      step,
      mounter,
      objects,
      tokens,
      trustBundles,
      allocatable,
      removeTree,
    };
    const puller = new ImagePuller({
      config,
      images,
      events,
      clock,
      step,
      records: this.#records,
      credentialProviders: this.#credentialProviders(signal),
    });
    return {
      ...options,
      step,
      signal,
      runtimeInfo,
      allocatable,
      keptLogs: this.#keptLogs,
      objects,
      tokens,
      runtimeClasses: new RuntimeClasses(client),
      cgroups: new PodCgroups({
        config,
        tree: measured(options.cgroups ?? cgroupTree("/sys/fs/cgroup")),
        runtimeInfo,
        capacity: () => node.node()?.status?.capacity ?? {},
        logger,
      }),
      services: () => (this.#services.synced ? this.#services.values() : undefined),
      volumes: new Volumes({
        ...forVolumes,
        plugins: volumePlugins(forVolumes),
        applyOwnership: fsGroupApplier(options),
        resolveClaim: async (pod, volume, stop) => claims.resolve(pod, volume, stop),
        released: (uid) => {
          claims.forget(uid);
          trustBundles?.forget(uid);
        },
        signal,
        wake: (uid) => this.#wake(uid),
      }),
      puller,
      imageVolumes: new ImageVolumes({
        config,
        images,
        puller,
        mounter,
        step,
        runtimeInfo,
        ...(metrics === undefined ? {} : { metrics: metrics.pods }),
      }),
      prober: new Prober({
        runtime,
        events,
        clock,
        random,
        signal,
        wake: (uid) => this.#wake(uid),
        ...(metrics === undefined ? {} : { metrics: metrics.probes }),
      }),
      writer: new StatusWriter({
        client,
        clock,
        logger,
        random,
        step,
        signal,
        onWritten: (pod) => this.#written(pod),
        ...(metrics === undefined ? {} : { metrics: metrics.pods }),
        onGone: (uid) => this.#wake(uid),
      }),
    };
  }
}

/** Looks after the pods that the API server assigns to this node. */
export function createPods(options: PodsOptions): Pods {
  return new PodHalf(options);
}
