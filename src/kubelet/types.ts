import type { Stored } from "../api/object.ts";
import type { Node, Pod, PodStatus } from "../api/types.gen.ts";
import type { PullProgress } from "../runtime/types.ts";

/** A pod assigned to this node, as the API server last told. */
export type AssignedPod = Stored<Pod>;

/** What the pod half reads of the node half. */
export interface NodeView {
  /** The Node object as last seen; undefined before registration. */
  node(): Stored<Node> | undefined;
  /** The node's addresses, primary family first; empty until known. */
  hostIPs(): readonly string[];
  /** Whether these are gone from the machine, so that nothing answers at them; default no. */
  addressLost?(): boolean;
  /** Wakes when podCIDRs, labels, taints or addresses may have changed. Returns the function that ends it. */
  subscribe(listener: () => void): () => void;
}

/** How full a volume is; what is not known is absent. */
export interface VolumeFigures {
  readonly capacityBytes: number;
  readonly availableBytes?: number;
  readonly usedBytes?: number;
  readonly inodes?: { readonly total: number; readonly free: number; readonly used: number };
}

/** A volume of a pod that has room of its own: not a directory of the node. */
export interface PodVolume {
  /** In the pod. */
  readonly name: string;
  /** Of the PersistentVolumeClaim behind it, if it is one. */
  readonly claim: string | undefined;
  /** Where it is shown; tells it from others. */
  readonly path: string;
  /**
   * Asks how full it is. Hangs as long as the signal lets it; undefined when the volume cannot tell.
   *
   * @throws When it cannot be asked.
   */
  figures(signal: AbortSignal): Promise<VolumeFigures | undefined>;
}

/** An image on its way. */
export interface ImagePull {
  /** As the registry is asked for it. */
  readonly image: string;
  /** Since when somebody waits for it, milliseconds since the epoch. */
  readonly startedAt: number;
  /** Others are pulled before it (`serializeImagePulls`, `maxParallelImagePulls`). */
  readonly queued: boolean;
  /** Undefined while the registry has said nothing yet. */
  readonly progress: PullProgress | undefined;
  /** Who waits, as `namespace/name`. */
  readonly pods: readonly string[];
}

/** What the node's HTTP server and status read of the pod half. */
export interface PodView {
  /** All pods this node knows, terminal ones included. */
  pods(): readonly AssignedPod[];
  /** Runtime id of a container, newest attempt; undefined when it never ran. */
  findContainer(
    at: {
      readonly namespace: string;
      readonly pod: string;
      readonly uid?: string;
      readonly container: string;
    },
    options: { readonly previous: boolean },
  ): Promise<ContainerLookup>;
  /** Volumes of a pod with room of their own, as last set up. */
  volumes?(podUID: string): readonly PodVolume[];
  /** How a pod is as this node knows it: the server may not have it yet. Undefined for a pod that it has not seen. */
  status?(podUID: string): PodStatus | undefined;
  /** Images that pods wait for. */
  pulls?(): readonly ImagePull[];
  /** Fails with a sentence while something the node's Ready condition depends on is broken; undefined when well. */
  healthy(): string | undefined;
}

/** Answers of {@link PodView.findContainer}. The three failures are distinct texts in the kubelet's API. */
export type ContainerLookup =
  | {
      readonly kind: "found";
      readonly containerID: string;
      readonly running: boolean;
      readonly tty: boolean;
      readonly stdin: boolean;
      /** Somebody removed it: it can have no sessions any more, and its log may have been kept. */
      readonly removed?: { readonly logPath: string | undefined };
    }
  | { readonly kind: "podNotFound" }
  | { readonly kind: "containerNotFound" }
  /** Known, but no instance exists (yet, or no previous one). */
  | { readonly kind: "notStarted"; readonly reason: string };
