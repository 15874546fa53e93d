import type { ApiClient } from "../../api/client.ts";
import type { EventRecorder } from "../../api/event-types.ts";
import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import type { Csi } from "../csi/csi.ts";
import type { ClusterTrustBundles } from "../objects/cluster-trust-bundles.ts";
import type { ReferencedObjects } from "../objects/referenced-objects.ts";
import type { Resources } from "../spec/quantities.ts";
import type { StepHook } from "../steps.ts";
import { type HostPrograms, systemPrograms } from "./host-programs.ts";
import type { Mounter } from "./mounter.ts";
import type { VolumePlugin } from "./plugin.ts";
import { csiPlugin } from "./plugins/csi.ts";
import { emptyDirPlugin } from "./plugins/empty-dir.ts";
import { fibreChannelPlugin } from "./plugins/fc.ts";
import { hostPathVolumePlugin } from "./plugins/host-path-pv.ts";
import { hostPathPlugin } from "./plugins/host-path.ts";
import { imagePlugin } from "./plugins/image.ts";
import { iscsiPlugin } from "./plugins/iscsi.ts";
import { localPlugin } from "./plugins/local.ts";
import { nfsPlugin } from "./plugins/nfs.ts";
import { payloadPlugin } from "./plugins/payload-volume.ts";
import { refusedPlugin } from "./plugins/refused.ts";
import type { RemoveTree } from "./remove-tree.ts";
import type { ServiceAccountTokens } from "./service-account-token.ts";

/** What plug-ins are made of. */
export interface PluginDeps {
  readonly config: AgentConfig;
  readonly client: ApiClient;
  readonly clock: Clock;
  readonly events?: EventRecorder;
  readonly logger: Logger;
  /** In [0, 1). */
  readonly random: () => number;
  /** Called before whatever changes something that outlives this process. */
  readonly step: StepHook;
  readonly mounter: Mounter;
  readonly objects: ReferencedObjects;
  readonly tokens: ServiceAccountTokens;
  /** Absent: the feature gate ClusterTrustBundleProjection is off. */
  readonly trustBundles?: ClusterTrustBundles | undefined;
  /** The node's allocatable resources; empty until known. */
  readonly allocatable: () => Resources;
  readonly removeTree: RemoveTree;
  /** Default: the machine's own. */
  readonly programs?: HostPrograms;
  /** Absent: volumes of CSI drivers are refused. */
  readonly csi?: Csi;
}

/** All types of volume that this node knows. The first that supports a volume has it. */
export function volumePlugins(deps: PluginDeps): readonly VolumePlugin[] {
  const forDisks = {
    ...deps,
    programs: deps.programs ?? systemPrograms,
    ...(deps.csi === undefined ? {} : { attachments: deps.csi.attachments }),
  };
  return [
    emptyDirPlugin(deps),
    hostPathPlugin(deps),
    payloadPlugin("configMap", deps),
    payloadPlugin("secret", deps),
    payloadPlugin("downwardAPI", deps),
    payloadPlugin("projected", deps),
    imagePlugin(),
    hostPathVolumePlugin(),
    localPlugin(forDisks),
    iscsiPlugin({
      ...forDisks,
      secret: async (at, signal) => (await deps.objects.get("Secret", at, signal))?.text,
    }),
    fibreChannelPlugin(forDisks),
    nfsPlugin(forDisks),
    ...(deps.csi === undefined ? [] : [csiPlugin(forDisks, deps.csi)]),
    refusedPlugin(),
  ];
}
