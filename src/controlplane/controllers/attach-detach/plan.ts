import { createHash } from "node:crypto";

import { objectKey, type Stored } from "../../../api/object.ts";
import type { CSIDriver, Node, Pod, VolumeAttachment } from "../../../api/types.gen.ts";
import {
  claimNameOf,
  isBoundTo,
  type StoredClaim,
  type StoredVolume,
} from "../persistent-volume-binder/claims.ts";
import { isPodTerminal } from "../shared/pod-state.ts";
import {
  diskKey,
  type DiskPlan,
  isNetworkDisk,
  networkDiskName,
  planDisks,
  type WantedDisk,
} from "./network-disks.ts";

export type StoredAttachment = Stored<VolumeAttachment>;
export type StoredNode = Stored<Node>;

/** How long a volume waits to be unmounted by a node that is not Ready (--attach-detach-reconcile-max-wait-unmount-duration). */
export const forceDetachMs = 6 * 60_000;

const managedAnnotation = "volumes.kubernetes.io/controller-managed-attach-detach";
const outOfServiceTaint = "node.kubernetes.io/out-of-service";
const uniquePrefix = "kubernetes.io/csi/";
/** What {@link attachmentNameOf} makes. */
const ownName = /^csi-[0-9a-f]{64}$/;

/** What the cluster looks like. */
export interface AttachView {
  readonly pods: Iterable<Stored<Pod>>;
  readonly nodes: ReadonlyMap<string, StoredNode>;
  readonly attachments: Iterable<StoredAttachment>;
  readonly claim: (key: string) => StoredClaim | undefined;
  readonly volume: (name: string) => StoredVolume | undefined;
  readonly driver: (name: string) => Stored<CSIDriver> | undefined;
  /** Monotonic ms. */
  readonly now: number;
  /** Since when an attachment, by its name, is not wanted any more; undefined when that is news. */
  readonly unwantedSince: (attachment: string) => number | undefined;
}

/** A volume on a node. */
export interface Placement {
  /** Name of the VolumeAttachment. */
  readonly attachment: string;
  readonly volume: StoredVolume;
  readonly driver: string;
  readonly node: string;
  readonly pods: readonly Stored<Pod>[];
}

export interface Detachment {
  readonly attachment: StoredAttachment;
  /** As the node's status names the volume; undefined when its PersistentVolume is gone. */
  readonly uniqueName: string | undefined;
  /** The node is given up: whether it still has the volume mounted does not count any more. */
  readonly forced: boolean;
}

export interface AttachPlan {
  readonly attach: readonly Placement[];
  /** Bound to wait, because the volume is on another node; `message` is the event of its pods. */
  readonly refused: readonly {
    readonly placement: Placement;
    readonly messages: readonly (readonly [Stored<Pod>, string])[];
  }[];
  readonly detach: readonly Detachment[];
  /** Unwanted, and still mounted: looked at again when something changes, or `recheckMs` are over. */
  readonly unwanted: readonly string[];
  /** What the status of nodes has to say, where it says something else. */
  readonly report: readonly { readonly node: string; readonly names: readonly string[] }[];
  /** All that pods want, attached or not. */
  readonly wanted: readonly Placement[];
  readonly recheckMs: number | undefined;
}

/** As the node's kubelet names a CSI volume in its status. */
export function uniqueNameOf(volume: StoredVolume): string | undefined {
  const csi = volume.spec?.csi;
  return csi === undefined ? undefined : `${uniquePrefix}${csi.driver}^${csi.volumeHandle}`;
}

/** Name of the VolumeAttachment of a volume on a node; both sides compute it. */
export function attachmentNameOf(handle: string, driver: string, node: string): string {
  return `csi-${createHash("sha256").update(`${handle}${driver}${node}`).digest("hex")}`;
}

function volumesOf(pod: Stored<Pod>, view: AttachView): StoredVolume[] {
  return (pod.spec?.volumes ?? []).flatMap((each) => {
    const claimName = claimNameOf(pod, each);
    if (claimName === undefined) return [];
    const claim = view.claim(objectKey(pod.metadata.namespace, claimName));
    const volume = view.volume(claim?.spec?.volumeName ?? "");
    // Half bound is not bound: it may still become another claim's.
    if (claim?.status?.phase !== "Bound" || volume === undefined) return [];
    return isBoundTo(volume, claim) ? [volume] : [];
  });
}

/** Disks that pods of managed nodes want. */
function wantedDisks(view: AttachView): WantedDisk[] {
  const wanted = new Map<string, WantedDisk>();
  for (const pod of view.pods) {
    const node = pod.spec?.nodeName ?? "";
    if (node === "" || isPodTerminal(pod) || (pod.spec?.volumes ?? []).length === 0) continue;
    if (view.nodes.get(node)?.metadata.annotations?.[managedAnnotation] !== "true") continue;
    for (const volume of volumesOf(pod, view)) {
      const uniqueName = networkDiskName(volume);
      if (uniqueName === undefined) continue;
      const key = diskKey(uniqueName, node);
      const pods = [...(wanted.get(key)?.pods ?? []), pod];
      wanted.set(key, { uniqueName, volume, node, pods });
    }
  }
  return [...wanted.values()];
}

/** As those of drivers, for what is told to pods. */
function diskPlacement({ node, pods, uniqueName, volume }: WantedDisk): Placement {
  return { attachment: diskKey(uniqueName, node), volume, driver: "", node, pods };
}

/** By name of the VolumeAttachment. */
function wantedPlacements(view: AttachView): Map<string, Placement> {
  const wanted = new Map<string, Placement>();
  for (const pod of view.pods) {
    const node = pod.spec?.nodeName ?? "";
    if (node === "" || isPodTerminal(pod) || (pod.spec?.volumes ?? []).length === 0) continue;
    if (view.nodes.get(node)?.metadata.annotations?.[managedAnnotation] !== "true") continue;
    for (const volume of volumesOf(pod, view)) {
      const csi = volume.spec?.csi;
      // A driver that nobody described is attached, as upstream does.
      if (csi === undefined || view.driver(csi.driver)?.spec.attachRequired === false) continue;
      const attachment = attachmentNameOf(csi.volumeHandle, csi.driver, node);
      const before = wanted.get(attachment);
      wanted.set(attachment, {
        attachment,
        volume,
        driver: csi.driver,
        node,
        pods: [...(before?.pods ?? []), pod],
      });
    }
  }
  return wanted;
}

function allowsSeveralNodes(volume: StoredVolume): boolean {
  const modes = volume.spec?.accessModes ?? [];
  return modes.length === 0 || modes.includes("ReadWriteMany") || modes.includes("ReadOnlyMany");
}

function isReady(node: StoredNode): boolean {
  return (
    node.status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True") ??
    false
  );
}

function isOutOfService(node: StoredNode): boolean {
  return node.spec?.taints?.some(({ key }) => key === outOfServiceTaint) ?? false;
}

type Verdict =
  | { readonly kind: "detach"; readonly forced: boolean }
  | { readonly kind: "wait"; readonly ms: number };

/** Whether an attachment that nobody wants can go. */
function judge(
  node: StoredNode | undefined,
  uniqueName: string | undefined,
  waitedMs: number,
): Verdict {
  if (node === undefined) return { kind: "detach", forced: true };
  if (isOutOfService(node)) return { kind: "detach", forced: true };
  const inUse = uniqueName !== undefined && (node.status?.volumesInUse ?? []).includes(uniqueName);
  if (!inUse) return { kind: "detach", forced: false };
  // A node that works will unmount it, however long that takes: what is mounted twice is destroyed.
  if (!isReady(node) && waitedMs >= forceDetachMs) return { kind: "detach", forced: true };
  return { kind: "wait", ms: Math.max(forceDetachMs - waitedMs, 1000) };
}

/** Compares what pods want with what is attached. */
export function planAttachments(view: AttachView): AttachPlan {
  const wanted = wantedPlacements(view);
  const attachments = [...view.attachments];
  const existing = new Set(attachments.map(({ metadata }) => metadata.name));
  const detach: Detachment[] = [];
  const unwanted: string[] = [];
  const shown = new Map<string, string[]>();
  let recheckMs: number | undefined;
  for (const attachment of attachments) {
    const { name, deletionTimestamp } = attachment.metadata;
    // Others may make attachments of their own, under other names.
    if (!ownName.test(name)) continue;
    const volume = view.volume(attachment.spec.source.persistentVolumeName ?? "");
    const uniqueName = volume === undefined ? undefined : uniqueNameOf(volume);
    const node = attachment.spec.nodeName;
    let leaving = deletionTimestamp !== undefined;
    if (!leaving && !wanted.has(name)) {
      const verdict = judge(
        view.nodes.get(node),
        uniqueName,
        view.now - (view.unwantedSince(name) ?? view.now),
      );
      unwanted.push(name);
      leaving = verdict.kind === "detach";
      if (verdict.kind === "detach")
        detach.push({ attachment, uniqueName, forced: verdict.forced });
      else recheckMs = Math.min(recheckMs ?? verdict.ms, verdict.ms);
    }
    if (!leaving && uniqueName !== undefined && attachment.status?.attached === true)
      shown.set(node, [...(shown.get(node) ?? []), uniqueName]);
  }
  const { attach, refused } = planNew(wanted, existing, attachments);
  const disks = planDisksOf(view);
  const waits = [recheckMs, disks.recheckMs].filter((ms) => ms !== undefined);
  return {
    attach,
    refused: [...refused, ...disks.refused],
    detach,
    unwanted: [...unwanted, ...disks.unwanted],
    report: reports(view.nodes.values(), [shown, disks.attached]),
    wanted: [...wanted.values()],
    recheckMs: waits.length === 0 ? undefined : Math.min(...waits),
  };
}

function planDisksOf(view: AttachView): Omit<DiskPlan, "refused"> & Pick<AttachPlan, "refused"> {
  const wanted = wantedDisks(view);
  const plan = planDisks(view.nodes.values(), wanted, {
    leaves: (node, uniqueName) => {
      const since = view.unwantedSince(diskKey(uniqueName, node.metadata.name)) ?? view.now;
      const verdict = judge(node, uniqueName, view.now - since);
      return verdict.kind === "detach" ? undefined : verdict.ms;
    },
    isExclusive: (volume) => !allowsSeveralNodes(volume),
  });
  const placements = wanted.map(diskPlacement);
  const refused = plan.refused.map((disk) => {
    const placement = diskPlacement(disk);
    return { placement, messages: multiAttachMessages(placement, placements) };
  });
  return { ...plan, refused };
}

function planNew(
  wanted: ReadonlyMap<string, Placement>,
  existing: ReadonlySet<string>,
  attachments: readonly StoredAttachment[],
): Pick<AttachPlan, "attach" | "refused"> {
  const attach: Placement[] = [];
  const refused: AttachPlan["refused"][number][] = [];
  /** Volumes that go to one node in this very plan. */
  const begun = new Set<string>();
  for (const placement of wanted.values()) {
    // One that is being deleted has to be gone before there can be another of its name.
    if (existing.has(placement.attachment)) continue;
    const { name } = placement.volume.metadata;
    const elsewhere = attachments.filter(
      ({ spec }) => spec.source.persistentVolumeName === name && spec.nodeName !== placement.node,
    );
    const exclusive = !allowsSeveralNodes(placement.volume);
    if (exclusive && (elsewhere.length > 0 || begun.has(name))) {
      refused.push({ placement, messages: multiAttachMessages(placement, wanted.values()) });
      continue;
    }
    begun.add(name);
    attach.push(placement);
  }
  return { attach, refused };
}

/** One message for each pod that waits: it names pods of its own namespace only. */
function multiAttachMessages(
  placement: Placement,
  wanted: Iterable<Placement>,
): (readonly [Stored<Pod>, string])[] {
  const { name } = placement.volume.metadata;
  const users = [...wanted].flatMap((other) =>
    other.volume.metadata.name === name && other.node !== placement.node ? other.pods : [],
  );
  return placement.pods.map((pod) => {
    const { namespace } = pod.metadata;
    const local = users.filter(({ metadata }) => metadata.namespace === namespace);
    const others = users.length - local.length;
    return [pod, `Multi-Attach error for volume "${name}" ${whoHasIt(local, others)}`] as const;
  });
}

function whoHasIt(local: readonly Stored<Pod>[], others: number): string {
  if (local.length === 0 && others === 0)
    return "Volume is already exclusively attached to one node and can't be attached to another";
  const elsewhere = `${others} pod(s) in different namespaces`;
  if (local.length === 0) return `Volume is already used by ${elsewhere}`;
  const names = local.map(({ metadata }) => metadata.name).join(", ");
  return `Volume is already used by pod(s) ${names}${others > 0 ? ` and ${elsewhere}` : ""}`;
}

/** Other plug-ins' volumes in a node's status are left as they are. */
function reports(
  nodes: Iterable<StoredNode>,
  shown: readonly ReadonlyMap<string, readonly string[]>[],
): AttachPlan["report"] {
  return [...nodes].flatMap((node) => {
    const { name } = node.metadata;
    const says = (node.status?.volumesAttached ?? []).map((each) => each.name);
    const wanted = [
      ...says.filter((each) => !each.startsWith(uniquePrefix) && !isNetworkDisk(each)),
      ...shown.flatMap((names) => names.get(name) ?? []),
    ];
    const same = JSON.stringify(says.toSorted()) === JSON.stringify(wanted.toSorted());
    return same ? [] : [{ node: name, names: wanted }];
  });
}
