import { join } from "node:path/posix";

import { localVolumes } from "../../../api/local-volumes.ts";
import type { Stored } from "../../../api/object.ts";
import type { Node, PersistentVolume, TopologySelectorTerm } from "../../../api/types.gen.ts";
import {
  annotations,
  classOfClaim,
  hasAnnotation,
  type StoredClaim,
  type StoredClass,
} from "../persistent-volume-binder/claims.ts";

const hostnameLabel = "kubernetes.io/hostname";

/** What is to be done for a claim that waits for a volume of ours. */
export type Provisioning =
  | { readonly kind: "none" }
  | {
      readonly kind: "create";
      readonly volume: PersistentVolume & { readonly metadata: { readonly name: string } };
      readonly node: string;
      readonly path: string;
      /** Why the capacity is only a number; undefined where the node enforces it. */
      readonly notEnforced: string | undefined;
    }
  /** `reschedule`: the scheduler may choose another node. */
  | { readonly kind: "fail"; readonly message: string; readonly reschedule: boolean };

/** Provisioned volumes have this name, so that a second try meets the first one's. */
export function volumeNameOf(claim: StoredClaim): string {
  return `pvc-${claim.metadata.uid}`;
}

/** Directory of a claim's data: starts with the volume's name, and tells a person whose it is. */
function directoryNameOf(claim: StoredClaim): string {
  const { namespace = "", name } = claim.metadata;
  // A file name has at most 255 bytes.
  return `${volumeNameOf(claim)}_${namespace}_${name.slice(0, 128)}`;
}

/** Where a node keeps volumes; undefined when it keeps none. */
export function directoryOf(node: Stored<Node>): string | undefined {
  const directory = node.metadata.annotations?.[localVolumes.directoryAnnotation];
  return directory?.startsWith("/") === true ? directory : undefined;
}

function inTopology(
  node: Stored<Node>,
  terms: readonly TopologySelectorTerm[] | undefined,
): boolean {
  if (terms === undefined || terms.length === 0) return true;
  return terms.some(({ matchLabelExpressions = [] }) =>
    matchLabelExpressions.every(({ key, values }) => {
      const value = node.metadata.labels?.[key];
      return value !== undefined && values.includes(value);
    }),
  );
}

/** What of the claim or its class can never be had of a directory; undefined when all can. */
function refusal(claim: StoredClaim, storageClass: StoredClass): string | undefined {
  const { spec = {} } = claim;
  const parameters = Object.keys(storageClass.parameters ?? {});
  if (parameters.length > 0) return `unknown parameters of the class: ${parameters.join(", ")}`;
  if ((storageClass.mountOptions ?? []).length > 0)
    return "mountOptions of the class are not supported: a local volume is a directory";
  if (spec.selector !== undefined) return "claim Selector is not supported";
  if (spec.dataSource !== undefined || spec.dataSourceRef !== undefined)
    return "claim dataSource is not supported: a local volume starts empty";
  if ((spec.volumeAttributesClassName ?? "") !== "")
    return "claim volumeAttributesClassName is not supported";
  if (spec.volumeMode === "Block")
    return "volumeMode Block is not supported: a local volume is a directory";
  const shared = (spec.accessModes ?? []).filter(
    (mode) => mode !== "ReadWriteOnce" && mode !== "ReadWriteOncePod",
  );
  if (shared.length > 0)
    return `access mode ${shared.join(", ")} is not supported: a local volume is on one node`;
  return undefined;
}

type Choice =
  | { readonly node: Stored<Node>; readonly directory: string; readonly hostname: string }
  | { readonly message: string };

function usable(node: Stored<Node>): Choice {
  const directory = directoryOf(node);
  const hostname = node.metadata.labels?.[hostnameLabel] ?? "";
  const { name } = node.metadata;
  if (directory === undefined) return { message: `node "${name}" does not keep local volumes` };
  if (hostname === "") return { message: `node "${name}" has no label ${hostnameLabel}` };
  return { node, directory, hostname };
}

function chooseNode(
  claim: StoredClaim,
  storageClass: StoredClass,
  nodes: Iterable<Stored<Node>>,
): Choice {
  const all = [...nodes];
  const selected = claim.metadata.annotations?.[annotations.selectedNode];
  if (selected !== undefined) {
    const node = all.find(({ metadata }) => metadata.name === selected);
    return node === undefined ? { message: `node "${selected}" not found` } : usable(node);
  }
  const candidates = all.filter(
    (node) =>
      node.metadata.deletionTimestamp === undefined &&
      directoryOf(node) !== undefined &&
      inTopology(node, storageClass.allowedTopologies),
  );
  const [only] = candidates;
  if (only === undefined) return { message: "no node keeps local volumes" };
  if (candidates.length === 1) return usable(only);
  return {
    message:
      `${candidates.length} nodes could keep the volume, and the class does not wait for a pod to choose ` +
      "(volumeBindingMode Immediate): use a class with WaitForFirstConsumer",
  };
}

interface ProvisioningView {
  readonly class: (name: string) => StoredClass | undefined;
  readonly nodes: () => Iterable<Stored<Node>>;
  readonly volumeExists: (name: string) => boolean;
}

/** The class of a claim whose volume is ours to make, now; undefined for every other claim. */
function classToServe(claim: StoredClaim, view: ProvisioningView): StoredClass | undefined {
  const { metadata, spec } = claim;
  const asked = metadata.annotations?.[annotations.provisioner] === localVolumes.provisioner;
  const settled =
    metadata.deletionTimestamp !== undefined ||
    (spec?.volumeName ?? "") !== "" ||
    hasAnnotation(claim, annotations.bindCompleted);
  if (!asked || settled) return undefined;
  const storageClass = view.class(classOfClaim(claim));
  if (storageClass?.provisioner !== localVolumes.provisioner) return undefined;
  if (view.volumeExists(volumeNameOf(claim))) return undefined;
  return waitsForPod(storageClass) && !hasAnnotation(claim, annotations.selectedNode)
    ? undefined
    : storageClass;
}

function waitsForPod(storageClass: StoredClass): boolean {
  return storageClass.volumeBindingMode === "WaitForFirstConsumer";
}

/** Decides for a claim that asks our provisioner, by annotation, for a volume. */
export function decideProvisioning(claim: StoredClaim, view: ProvisioningView): Provisioning {
  const storageClass = classToServe(claim, view);
  if (storageClass === undefined) return { kind: "none" };
  const refused = refusal(claim, storageClass);
  if (refused !== undefined) return { kind: "fail", message: refused, reschedule: false };
  const chosen = chooseNode(claim, storageClass, view.nodes());
  if ("message" in chosen)
    return { kind: "fail", message: chosen.message, reschedule: waitsForPod(storageClass) };
  const path = join(chosen.directory, directoryNameOf(claim));
  const capacity = chosen.node.metadata.annotations?.[localVolumes.capacityAnnotation];
  return {
    kind: "create",
    node: chosen.node.metadata.name,
    path,
    notEnforced:
      capacity === localVolumes.capacityEnforced
        ? undefined
        : (capacity ?? "the node does not say that it can"),
    volume: volumeOf(claim, storageClass, { path, hostname: chosen.hostname }),
  };
}

function volumeOf(
  claim: StoredClaim,
  storageClass: StoredClass,
  at: { readonly path: string; readonly hostname: string },
): PersistentVolume & { readonly metadata: { readonly name: string } } {
  const { namespace, name, uid, resourceVersion } = claim.metadata;
  const { accessModes, resources } = claim.spec ?? {};
  return {
    metadata: {
      name: volumeNameOf(claim),
      annotations: { [annotations.provisionedBy]: localVolumes.provisioner },
      finalizers: [localVolumes.finalizer],
    },
    spec: {
      accessModes,
      capacity: { storage: resources?.requests?.["storage"] ?? "0" },
      claimRef: {
        apiVersion: "v1",
        kind: "PersistentVolumeClaim",
        namespace,
        name,
        uid,
        resourceVersion,
      },
      local: { path: at.path },
      nodeAffinity: {
        required: {
          nodeSelectorTerms: [
            { matchExpressions: [{ key: hostnameLabel, operator: "In", values: [at.hostname] }] },
          ],
        },
      },
      persistentVolumeReclaimPolicy: storageClass.reclaimPolicy ?? "Delete",
      storageClassName: storageClass.metadata.name,
      volumeMode: "Filesystem",
    },
  };
}
