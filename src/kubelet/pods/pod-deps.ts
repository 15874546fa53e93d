import type { ApiClient } from "../../api/client.ts";
import type { EventRecorder } from "../../api/event-types.ts";
import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import type { PodNetwork } from "../../network/types.ts";
import type { ContainerRuntime, ImageService, RuntimeInfo } from "../../runtime/types.ts";
import type { PodCgroups } from "../cgroups/pod-cgroups.ts";
import type { ImagePuller } from "../images/puller.ts";
import type { RuntimeClasses } from "../objects/runtime-classes.ts";
import type { ReferencedObjects } from "../objects/referenced-objects.ts";
import type { Resources } from "../spec/quantities.ts";
import type { ServiceEnvSource } from "../spec/service-env.ts";
import type { StatusWriter } from "../status/status-writer.ts";
import type { StepHook } from "../steps.ts";
import type { NodeView } from "../types.ts";
import type { ImageVolumes } from "../volumes/image-volumes.ts";
import type { ServiceAccountTokens } from "../volumes/service-account-token.ts";
import type { Volumes } from "../volumes/volumes.ts";
import type { KeptLogs } from "./kept-logs.ts";
import type { Prober } from "./prober.ts";
import type { PodRecorders } from "./recorders.ts";

/** Everything the loop of one pod works with. */
export interface PodDeps {
  readonly config: AgentConfig;
  readonly client: ApiClient;
  readonly runtime: ContainerRuntime;
  readonly images: ImageService;
  readonly network: PodNetwork;
  readonly node: NodeView;
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
  readonly step: StepHook;
  /** Told after each look at all pods. */
  readonly onTurn?: () => void;
  /** Aborts when the agent stops. What outlives one look at a pod is bound by it. */
  readonly signal: AbortSignal;
  readonly objects: ReferencedObjects;
  readonly tokens: Pick<ServiceAccountTokens, "refreshAt">;
  readonly runtimeClasses: RuntimeClasses;
  readonly volumes: Volumes;
  readonly puller: ImagePuller;
  readonly imageVolumes: ImageVolumes;
  readonly prober: Prober;
  readonly writer: StatusWriter;
  readonly cgroups: PodCgroups;
  readonly keptLogs: KeptLogs;
  readonly metrics?: PodRecorders;
  /** What the runtime last said about itself and its host. */
  readonly runtimeInfo: () => RuntimeInfo;
  /** All Services; undefined until they were listed once. */
  readonly services: () => Iterable<ServiceEnvSource> | undefined;
  /** The node's allocatable resources; empty until known. */
  readonly allocatable: () => Resources;
}
