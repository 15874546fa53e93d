import type { Stored } from "../../../api/object.ts";
import { objectKey } from "../../../api/object.ts";
import { parseQuantity, type Quantity } from "../../../api/quantity.ts";
import type {
  ObjectReference,
  PersistentVolume,
  PersistentVolumeClaim,
  Pod,
  StorageClass,
  Volume,
} from "../../../api/types.gen.ts";

export type StoredClaim = Stored<PersistentVolumeClaim>;
export type StoredVolume = Stored<PersistentVolume>;
export type StoredClass = Stored<StorageClass>;

/** Annotations by which the binder, the scheduler, provisioners and people talk about claims and volumes. */
export const annotations = {
  /** On a claim: it was bound once. From then on a missing volume means lost data. */
  bindCompleted: "pv.kubernetes.io/bind-completed",
  /** On either: the binding was made by the controller, not by a person. */
  boundByController: "pv.kubernetes.io/bound-by-controller",
  /** On a claim: the node for which the scheduler wants a volume. */
  selectedNode: "volume.kubernetes.io/selected-node",
  /** On a claim: who is to provision its volume. */
  provisioner: "volume.kubernetes.io/storage-provisioner",
  betaProvisioner: "volume.beta.kubernetes.io/storage-provisioner",
  /** On a volume: who provisioned it. */
  provisionedBy: "pv.kubernetes.io/provisioned-by",
  /** On a volume or claim: a CSI driver is responsible in place of a former built-in type. */
  migratedTo: "pv.kubernetes.io/migrated-to",
  /** On a volume: its capacity before an expansion whose file system part is still to be done on the node. */
  preResizeCapacity: "volume.alpha.kubernetes.io/pre-resize-capacity",
  /** The class, in the words of old objects. */
  betaStorageClass: "volume.beta.kubernetes.io/storage-class",
  /** On a class: claims that name none get it. */
  defaultClass: "storageclass.kubernetes.io/is-default-class",
  betaDefaultClass: "storageclass.beta.kubernetes.io/is-default-class",
} as const;

/** Keep an object from vanishing while it is in use. */
export const finalizers = {
  volume: "kubernetes.io/pv-protection",
  claim: "kubernetes.io/pvc-protection",
} as const;

/** An absent amount of storage counts as none. */
export function storageOf(
  amounts: Readonly<Record<string, string | number>> | undefined,
): Quantity {
  return parseQuantity(String(amounts?.["storage"] ?? "0"));
}

export function hasAnnotation(
  object: { readonly metadata: { readonly annotations?: Record<string, string> | undefined } },
  name: string,
): boolean {
  return Object.hasOwn(object.metadata.annotations ?? {}, name);
}

/** The class a claim names, an empty one included; undefined when it leaves the choice to the cluster. */
export function namedClass(claim: Stored<PersistentVolumeClaim>): string | undefined {
  return claim.metadata.annotations?.[annotations.betaStorageClass] ?? claim.spec?.storageClassName;
}

/** The class of a claim; empty when there is none. */
export function classOfClaim(claim: StoredClaim): string {
  return namedClass(claim) ?? "";
}

/** The class of a volume; empty when there is none. */
export function classOfVolume(volume: StoredVolume): string {
  return (
    volume.metadata.annotations?.[annotations.betaStorageClass] ??
    volume.spec?.storageClassName ??
    ""
  );
}

/** Whether a volume is this claim's, or reserved for a claim of its name. */
export function isBoundTo(volume: StoredVolume, claim: StoredClaim): boolean {
  const ref = volume.spec?.claimRef;
  if (ref === undefined) return false;
  const { namespace, name, uid } = claim.metadata;
  if (ref.name !== name || ref.namespace !== namespace) return false;
  return !isComplete(ref) || ref.uid === uid;
}

/** Whether a reference means one very claim rather than whichever has the name. */
export function isComplete(ref: ObjectReference): boolean {
  return ref.uid !== undefined && ref.uid !== "";
}

/** The informer key of the claim that a volume refers to. */
export function claimKeyOf(ref: ObjectReference): string {
  return objectKey(ref.namespace, ref.name ?? "");
}

/** The class that claims get which name none: of several defaults the newest, then the first by name. */
export function defaultClass(classes: Iterable<StoredClass>): StoredClass | undefined {
  const isDefault = ({ metadata }: StoredClass): boolean =>
    metadata.annotations?.[annotations.defaultClass] === "true" ||
    metadata.annotations?.[annotations.betaDefaultClass] === "true";
  const createdMs = ({ metadata }: StoredClass): number =>
    Date.parse(metadata.creationTimestamp ?? "") || 0;
  return [...classes]
    .filter(isDefault)
    .toSorted(
      (a, b) => createdMs(b) - createdMs(a) || (a.metadata.name < b.metadata.name ? -1 : 1),
    )[0];
}

/** The claim behind a volume of a pod; undefined for other types of volumes. */
export function claimNameOf(pod: Stored<Pod>, volume: Volume): string | undefined {
  if (volume.persistentVolumeClaim !== undefined) return volume.persistentVolumeClaim.claimName;
  return volume.ephemeral === undefined ? undefined : `${pod.metadata.name}-${volume.name}`;
}

/** Informer keys of all claims that a pod names. */
export function claimKeysOf(pod: Stored<Pod>): string[] {
  return (pod.spec?.volumes ?? []).flatMap((volume) => {
    const name = claimNameOf(pod, volume);
    return name === undefined ? [] : [objectKey(pod.metadata.namespace, name)];
  });
}

/** Whether the claim was made for this pod, by its controller reference. */
export function isOwnedByPod(claim: StoredClaim, pod: Stored<Pod>): boolean {
  return (claim.metadata.ownerReferences ?? []).some(
    ({ uid, controller }) => controller === true && uid === pod.metadata.uid,
  );
}
