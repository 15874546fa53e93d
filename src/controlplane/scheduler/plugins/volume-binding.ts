import { classOfClaim } from "../../controllers/persistent-volume-binder/claims.ts";
import type { PodInfo } from "../pod-info.ts";
import { prepareClaims, volumesOn } from "../volumes/find-volumes.ts";
import { claimKey, claimNotFound, claimsRefusal, sortClaims } from "../volumes/pod-claims.ts";
import type { FilterPlugin } from "./plugin.ts";
import { objection } from "./plugin.ts";

/** A change of a claim of the pod's, and of no other. */
export function claimEvents(pod: PodInfo): readonly `claim:${string}`[] {
  return pod.claims.map((claim) => `claim:${claimKey(pod, claim)}` as const);
}

/** The pod's claims are bound to volumes that the node reaches, or can be bound or provisioned there. */
export const volumeBinding: FilterPlugin = {
  name: "VolumeBinding",
  helpedBy: [
    "node-labels",
    "volume-changed",
    "storage-class-changed",
    "csi-node-changed",
    "csi-driver-changed",
    "csi-capacity-changed",
  ],
  helpedByFor: claimEvents,
  rejects: (pod, { storage }) => {
    if (pod.claims.length === 0) return undefined;
    const refusal = claimsRefusal(pod, storage);
    if (refusal !== undefined) return refusal;
    return sortClaims(pod, storage).immediate.length > 0
      ? "pod has unbound immediate PersistentVolumeClaims"
      : undefined;
  },
  prepare: (pod, { storage }) => {
    if (pod.claims.length === 0) return undefined;
    const claims = prepareClaims(sortClaims(pod, storage), storage);
    return {
      check: ({ node }) => {
        const found = volumesOn(node, claims, storage);
        return found.kind === "plan" ? undefined : { reasons: found.reasons, final: true };
      },
    };
  },
};

const betaLabels: Readonly<Record<string, string>> = {
  "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
  "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
};
const zoneLabels = [...Object.keys(betaLabels), ...Object.values(betaLabels)];

/** The values of a zone label of a volume, `a__b` being two; undefined when it cannot be read. */
function zones(value: string): ReadonlySet<string> | undefined {
  const values = value.split("__").map((each) => each.trim());
  return values.includes("") ? undefined : new Set(values);
}

/** Volumes with labels of zones and regions are used in those. */
export const volumeZone: FilterPlugin = {
  name: "VolumeZone",
  helpedBy: ["node-labels", "volume-changed", "storage-class-changed"],
  helpedByFor: claimEvents,
  rejects: (pod, { storage }) => {
    for (const wanted of pod.claims) {
      if (wanted.isEphemeral) continue;
      const claim = storage.claim(claimKey(pod, wanted));
      if (claim === undefined) return claimNotFound(wanted.name);
      const volume = claim.spec?.volumeName ?? "";
      if (volume !== "") {
        if (storage.volume(volume) === undefined) return `persistentvolume "${volume}" not found`;
        continue;
      }
      const className = classOfClaim(claim);
      if (className === "") return "PersistentVolumeClaim had no pv name and storageClass name";
      const storageClass = storage.storageClass(className);
      if (storageClass === undefined) {
        return `storageclass.storage.k8s.io "${className}" not found`;
      }
      if (storageClass.volumeBindingMode !== "WaitForFirstConsumer") {
        return "PersistentVolume had no name";
      }
    }
    return undefined;
  },
  prepare: (pod, { storage }) => {
    const required = pod.claims
      .filter(({ isEphemeral }) => !isEphemeral)
      .flatMap((wanted) => {
        const claim = storage.claim(claimKey(pod, wanted));
        const labels = storage.volume(claim?.spec?.volumeName ?? "")?.metadata.labels ?? {};
        return zoneLabels.flatMap((key) => {
          const values = zones(labels[key] ?? "");
          return values === undefined ? [] : [{ key, values }];
        });
      });
    if (required.length === 0) return undefined;
    const refusal = objection("node(s) had no available volume zone", true);
    return {
      check: ({ node }) => {
        const labels = node.metadata.labels ?? {};
        // A cluster of one zone need not label its nodes.
        if (!zoneLabels.some((key) => labels[key] !== undefined)) return undefined;
        const fits = required.every(({ key, values }) => {
          const value = labels[key] ?? labels[betaLabels[key] ?? key];
          return value !== undefined && values.has(value);
        });
        return fits ? undefined : refusal;
      },
    };
  },
};
