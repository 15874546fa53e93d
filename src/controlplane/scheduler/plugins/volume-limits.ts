import type { Volume } from "../../../api/types.gen.ts";
import {
  classOfClaim,
  type StoredClaim,
} from "../../controllers/persistent-volume-binder/claims.ts";
import type { PodInfo } from "../pod-info.ts";
import type { NodeInfo } from "../snapshot.ts";
import { claimKey, claimNotFound } from "../volumes/pod-claims.ts";
import type { StorageView } from "../volumes/storage-view.ts";
import type { FilterPlugin, NodeFilter } from "./plugin.ts";
import { objection } from "./plugin.ts";
import { claimEvents } from "./volume-binding.ts";

const diskConflict = objection("node(s) had no available disk", false);
const claimInUse = objection(
  "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod",
  false,
);
const tooManyVolumes = objection("node(s) exceed max volume count", false);

function overlap(a: readonly string[], b: readonly string[]): boolean {
  return a.some((each) => b.includes(each));
}

/** Whether two pods cannot have these volumes on one node: the same disk, and not both only read it. */
function exclude(a: Volume, b: Volume): boolean {
  const bothRead = (
    left: { readonly readOnly?: boolean | undefined },
    right: { readonly readOnly?: boolean | undefined },
  ): boolean => left.readOnly === true && right.readOnly === true;
  if (a.gcePersistentDisk !== undefined && b.gcePersistentDisk !== undefined) {
    const [left, right] = [a.gcePersistentDisk, b.gcePersistentDisk];
    if (left.pdName === right.pdName && !bothRead(left, right)) return true;
  }
  if (a.awsElasticBlockStore?.volumeID !== undefined) {
    if (a.awsElasticBlockStore.volumeID === b.awsElasticBlockStore?.volumeID) return true;
  }
  if (a.iscsi !== undefined && b.iscsi !== undefined) {
    if (a.iscsi.iqn === b.iscsi.iqn && !bothRead(a.iscsi, b.iscsi)) return true;
  }
  if (a.rbd === undefined || b.rbd === undefined) return false;
  const [left, right] = [a.rbd, b.rbd];
  return (
    overlap(left.monitors, right.monitors) &&
    left.pool === right.pool &&
    left.image === right.image &&
    !bothRead(left, right)
  );
}

function isDisk(volume: Volume): boolean {
  return (
    volume.gcePersistentDisk !== undefined ||
    volume.awsElasticBlockStore !== undefined ||
    volume.iscsi !== undefined ||
    volume.rbd !== undefined
  );
}

/** Keys of the pod's claims that one pod at a time may use. */
function exclusiveClaims(pod: PodInfo, storage: StorageView): ReadonlySet<string> {
  return new Set(
    pod.claims.flatMap((wanted) => {
      const key = claimKey(pod, wanted);
      const modes = wanted.isEphemeral ? [] : (storage.claim(key)?.spec?.accessModes ?? []);
      return modes.includes("ReadWriteOncePod") ? [key] : [];
    }),
  );
}

function uses(pod: PodInfo, keys: ReadonlySet<string>): number {
  return pod.claims.filter((claim) => !claim.isEphemeral && keys.has(claimKey(pod, claim))).length;
}

function restrictions(
  disks: readonly Volume[],
  exclusive: ReadonlySet<string>,
  conflicts: number,
): NodeFilter {
  return {
    check: ({ pods }) => {
      const taken = pods.some(({ pod }) =>
        (pod.spec?.volumes ?? []).some((other) => disks.some((disk) => exclude(disk, other))),
      );
      if (disks.length > 0 && taken) return diskConflict;
      return conflicts > 0 ? claimInUse : undefined;
    },
    after: (pod, _node, sign) =>
      restrictions(disks, exclusive, conflicts + sign * uses(pod, exclusive)),
  };
}

/** Disks that only one node, and claims that only one pod may use at a time. */
export const volumeRestrictions: FilterPlugin = {
  name: "VolumeRestrictions",
  helpedBy: ["pod-left"],
  helpedByFor: claimEvents,
  rejects: (pod, { storage }) => {
    for (const wanted of pod.claims) {
      if (wanted.isEphemeral) continue;
      if (storage.claim(claimKey(pod, wanted)) === undefined) return claimNotFound(wanted.name);
    }
    return undefined;
  },
  prepare: (pod, { nodes, storage }) => {
    const disks = (pod.pod.spec?.volumes ?? []).filter(isDisk);
    const exclusive = pod.claims.length === 0 ? undefined : exclusiveClaims(pod, storage);
    if (exclusive === undefined || exclusive.size === 0)
      return disks.length === 0 ? undefined : restrictions(disks, new Set(), 0);
    const used = new Set<string>();
    for (const node of nodes)
      for (const other of node.pods)
        for (const claim of other.claims) if (!claim.isEphemeral) used.add(claimKey(other, claim));
    const conflicts = used.intersection(exclusive).size;
    return disks.length === 0 && conflicts === 0
      ? undefined
      : restrictions(disks, exclusive, conflicts);
  },
};

/** The driver of a claim's volume and the volume's name there; undefined when it is of no driver. */
function driverVolume(
  claim: StoredClaim,
  storage: StorageView,
): { readonly driver: string; readonly id: string } | undefined {
  const volume = storage.volume(claim.spec?.volumeName ?? "");
  if (volume !== undefined) {
    const { driver = "", volumeHandle = "" } = volume.spec?.csi ?? {};
    return driver === "" || volumeHandle === ""
      ? undefined
      : { driver, id: `${driver}/${volumeHandle}` };
  }
  // Not made yet: it will be one more of the provisioner's.
  const driver = storage.storageClass(classOfClaim(claim))?.provisioner ?? "";
  const { namespace = "", name } = claim.metadata;
  return driver === "" ? undefined : { driver, id: `${driver}//${namespace}/${name}` };
}

/** Volumes of drivers that a pod uses: id -> driver. */
function driverVolumes(pod: PodInfo, storage: StorageView): Map<string, string> {
  const volumes = new Map<string, string>();
  for (const wanted of pod.claims) {
    const claim = storage.claim(claimKey(pod, wanted));
    const found = claim === undefined ? undefined : driverVolume(claim, storage);
    if (found !== undefined) volumes.set(found.id, found.driver);
  }
  return volumes;
}

/** id -> driver of what is attached to each node. */
function attachedVolumes(storage: StorageView): Map<string, Map<string, string>> {
  const nodes = new Map<string, Map<string, string>>();
  for (const { spec } of storage.attachments()) {
    const volume = storage.volume(spec.source.persistentVolumeName ?? "");
    const handle = volume?.spec?.csi?.volumeHandle;
    if (handle === undefined || spec.attacher === "") continue;
    const attached = nodes.get(spec.nodeName) ?? new Map<string, string>();
    nodes.set(spec.nodeName, attached.set(`${spec.attacher}/${handle}`, spec.attacher));
  }
  return nodes;
}

function exceedsLimit(
  node: NodeInfo,
  wanted: ReadonlyMap<string, string>,
  storage: StorageView,
  attached: ReadonlyMap<string, string> | undefined,
): boolean {
  const limits = (storage.csiNode(node.name)?.spec.drivers ?? []).filter(
    ({ allocatable }) => allocatable?.count !== undefined,
  );
  if (limits.length === 0) return false;
  // One volume counts once, however many pods use it.
  const used = new Map(node.pods.flatMap((pod) => [...driverVolumes(pod, storage)]));
  const present = [...new Map([...(attached ?? []), ...used]).values()];
  const fresh = [...wanted].filter(([id]) => !used.has(id));
  return limits.some(({ name, allocatable }) => {
    const more = fresh.filter(([, driver]) => driver === name).length;
    const now = present.filter((driver) => driver === name).length;
    return more > 0 && now + more > (allocatable?.count ?? 0);
  });
}

/** How many volumes of each driver a node takes (CSINode). */
export const nodeVolumeLimits: FilterPlugin = {
  name: "NodeVolumeLimits",
  helpedBy: ["csi-node-changed", "pod-left", "attachment-left"],
  helpedByFor: claimEvents,
  prepare: (pod, { storage }) => {
    if (pod.claims.length === 0) return undefined;
    const wanted = driverVolumes(pod, storage);
    if (wanted.size === 0) return undefined;
    const attached = attachedVolumes(storage);
    return {
      check: (node) =>
        exceedsLimit(node, wanted, storage, attached.get(node.name)) ? tooManyVolumes : undefined,
    };
  },
};
