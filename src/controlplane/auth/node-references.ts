import { isRecord } from "../../lib/guard.ts";
import type { JsonObject } from "../types.ts";

/** `kind/namespace/name` of what a pod lets its node read. */
export type ReferenceKey = string;

/** Kinds of references; plural resource names. */
export type ReferenceKind =
  | "secrets"
  | "configmaps"
  | "serviceaccounts"
  | "persistentvolumeclaims"
  | "persistentvolumes"
  | "volumeattachments";

export function referenceKey(kind: ReferenceKind, namespace: string, name: string): ReferenceKey {
  return `${kind}/${namespace}/${name}`;
}

function records(value: unknown): JsonObject[] {
  return Array.isArray(value) ? value.filter(isRecord) : [];
}

function nameIn(value: unknown, field: string): string {
  if (!isRecord(value)) return "";
  const name = value[field];
  return typeof name === "string" ? name : "";
}

type Reference = readonly [ReferenceKind, string];

/** Sources of a projected volume, or the volume itself: both have the same two members for objects by name. */
function projectedReferences(source: JsonObject): Reference[] {
  return [
    ["secrets", nameIn(source["secret"], "name")],
    ["configmaps", nameIn(source["configMap"], "name")],
  ];
}

/** Volume sources that name a Secret next to where they mount from (v1.VolumeSource, `secretRef`). */
const secretRefSources = [
  "azureFile",
  "cephfs",
  "csi",
  "flexVolume",
  "iscsi",
  "rbd",
  "scaleIO",
  "storageos",
];

function podVolumeReferences(volume: JsonObject): Reference[] {
  const projected = volume["projected"];
  const ephemeral = volume["ephemeral"];
  return [
    ["secrets", nameIn(volume["secret"], "secretName")],
    ["configmaps", nameIn(volume["configMap"], "name")],
    ["persistentvolumeclaims", nameIn(volume["persistentVolumeClaim"], "claimName")],
    ...(isRecord(projected) ? records(projected["sources"]).flatMap(projectedReferences) : []),
    ...secretRefSources.flatMap((source): Reference[] => {
      const value = volume[source];
      if (!isRecord(value)) return [];
      return [
        ["secrets", nameIn(value["secretRef"], "name")],
        ["secrets", nameIn(value["nodePublishSecretRef"], "name")],
        ["secrets", typeof value["secretName"] === "string" ? value["secretName"] : ""],
      ];
    }),
    // The claim of an ephemeral volume is named after pod and volume; see podReferences.
    ...(isRecord(ephemeral)
      ? [["persistentvolumeclaims", `\0${nameIn(volume, "name")}`] as const]
      : []),
  ];
}

function containerReferences(container: JsonObject): Reference[] {
  const env = records(container["env"]).flatMap((variable): Reference[] => {
    const from = variable["valueFrom"];
    if (!isRecord(from)) return [];
    return [
      ["secrets", nameIn(from["secretKeyRef"], "name")],
      ["configmaps", nameIn(from["configMapKeyRef"], "name")],
    ];
  });
  const envFrom = records(container["envFrom"]).flatMap((source): Reference[] => [
    ["secrets", nameIn(source["secretRef"], "name")],
    ["configmaps", nameIn(source["configMapRef"], "name")],
  ]);
  return [...env, ...envFrom];
}

/**
 * What the node of a pod may read because of it: the edges of upstream's node authorizer graph. Empty for pods that are
 * not bound, and for mirror pods, which a node may create and must not widen its own rights with.
 */
export function podReferences(pod: Readonly<JsonObject>): ReferenceKey[] {
  const metadata = isRecord(pod["metadata"]) ? pod["metadata"] : {};
  const spec = isRecord(pod["spec"]) ? pod["spec"] : {};
  const namespace = nameIn(metadata, "namespace");
  const annotations = metadata["annotations"];
  if (nameIn(spec, "nodeName") === "") return [];
  if (isRecord(annotations) && annotations["kubernetes.io/config.mirror"] !== undefined) return [];
  const containers = ["containers", "initContainers", "ephemeralContainers"].flatMap((field) =>
    records(spec[field]),
  );
  const references: Reference[] = [
    ["serviceaccounts", nameIn(spec, "serviceAccountName")],
    ...records(spec["imagePullSecrets"]).map((secret): Reference => [
      "secrets",
      nameIn(secret, "name"),
    ]),
    ...records(spec["volumes"]).flatMap(podVolumeReferences),
    ...containers.flatMap(containerReferences),
  ];
  const keys = references
    .filter(([, name]) => name !== "")
    .map(([kind, name]) =>
      referenceKey(
        kind,
        namespace,
        name.startsWith("\0") ? `${nameIn(metadata, "name")}-${name.slice(1)}` : name,
      ),
    );
  return [...new Set(keys)];
}

/** What a PersistentVolume lets the nodes read that run pods with its claim. */
export interface VolumeReferences {
  readonly claim: ReferenceKey;
  /** Secrets that mounting needs; not those of attaching and expanding, which are the controllers' business. */
  readonly secrets: readonly ReferenceKey[];
}

/** Sources with one `secretRef`, whose namespace is the claim's unless they say otherwise. */
const secretOwners = [
  "cephfs",
  "cinder",
  "flexVolume",
  "iscsi",
  "rbd",
  "scaleIO",
  "storageos",
] as const;
const nodeSecrets = ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"] as const;

/** The edges of a PersistentVolume in upstream's graph; undefined for one that no claim has. */
export function volumeReferences(volume: Readonly<JsonObject>): VolumeReferences | undefined {
  const spec = isRecord(volume["spec"]) ? volume["spec"] : {};
  const claimRef = spec["claimRef"];
  if (!isRecord(claimRef)) return undefined;
  const namespace = nameIn(claimRef, "namespace");
  const secrets: (readonly [string, string])[] = [];
  const azureFile = spec["azureFile"];
  secrets.push([
    nameIn(azureFile, "secretNamespace") || namespace,
    nameIn(azureFile, "secretName"),
  ]);
  for (const key of secretOwners) {
    const source = spec[key];
    const reference = isRecord(source) ? source["secretRef"] : undefined;
    secrets.push([nameIn(reference, "namespace") || namespace, nameIn(reference, "name")]);
  }
  const csi = spec["csi"];
  for (const key of nodeSecrets) {
    const reference = isRecord(csi) ? csi[key] : undefined;
    secrets.push([nameIn(reference, "namespace"), nameIn(reference, "name")]);
  }
  return {
    claim: referenceKey("persistentvolumeclaims", namespace, nameIn(claimRef, "name")),
    secrets: secrets
      .filter(([, name]) => name !== "")
      .map(([owner, name]) => referenceKey("secrets", owner, name)),
  };
}
