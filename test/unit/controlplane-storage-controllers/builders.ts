import type { StoredMeta } from "../../../src/api/object.ts";
import type {
  Node,
  PersistentVolumeClaimSpec,
  PersistentVolumeSpec,
} from "../../../src/api/types.gen.ts";
import type { Stored } from "../../../src/api/object.ts";
import type {
  StoredClaim,
  StoredClass,
  StoredVolume,
} from "../../../src/controlplane/controllers/persistent-volume-binder/claims.ts";

function meta(name: string, more: Partial<StoredMeta> = {}): StoredMeta {
  return { name, uid: `uid-${name}`, resourceVersion: "1", ...more };
}

export interface Parts<Spec, Status> {
  readonly name?: string;
  readonly annotations?: Record<string, string>;
  readonly metadata?: Partial<StoredMeta>;
  readonly spec?: Partial<Spec>;
  readonly status?: Status;
}

export function claim(
  parts: Parts<PersistentVolumeClaimSpec, StoredClaim["status"]> & {
    readonly storage?: string;
  } = {},
): StoredClaim {
  const { name = "claim", annotations, metadata, spec, status, storage = "1Gi" } = parts;
  return {
    metadata: meta(name, { namespace: "default", annotations, ...metadata }),
    spec: {
      accessModes: ["ReadWriteOnce"],
      resources: { requests: { storage } },
      storageClassName: "",
      ...spec,
    },
    status: status ?? { phase: "Pending" },
  };
}

export function volume(
  parts: Parts<PersistentVolumeSpec, StoredVolume["status"]> & { readonly storage?: string } = {},
): StoredVolume {
  const { name = "volume", annotations, metadata, spec, status, storage = "1Gi" } = parts;
  return {
    metadata: meta(name, { annotations, ...metadata }),
    spec: {
      accessModes: ["ReadWriteOnce"],
      capacity: { storage },
      persistentVolumeReclaimPolicy: "Retain",
      ...spec,
    },
    status: status ?? { phase: "Available" },
  };
}

/** What a volume says that is bound to a claim. */
export function refTo({ metadata }: StoredClaim): NonNullable<PersistentVolumeSpec["claimRef"]> {
  const { namespace, name, uid } = metadata;
  return { kind: "PersistentVolumeClaim", apiVersion: "v1", namespace, name, uid };
}

export function storageClass(name: string, parts: Partial<StoredClass> = {}): StoredClass {
  return { provisioner: "example.com/disks", ...parts, metadata: meta(name, parts.metadata) };
}

export function node(name: string, annotations: Record<string, string> = {}): Stored<Node> {
  return { metadata: meta(name, { annotations, labels: { "kubernetes.io/hostname": name } }) };
}
