import { dig, metadataOf, nameOf, record, records, text } from "../kinds/access.ts";
import type { JsonObject, ObjectReader } from "../types.ts";

/** The CSI driver behind a claim, "" where there is none (yet). */
function driverOfClaim(objects: ObjectReader, namespace: string, name: string): string {
  const claim = objects.get("persistentvolumeclaims", namespace, name);
  const volume = objects.get("persistentvolumes", "", text(dig(claim, "spec", "volumeName")));
  return text(dig(volume, "spec", "csi", "driver"));
}

function driverOf(
  volume: Readonly<JsonObject>,
  pod: Readonly<JsonObject>,
  objects: ObjectReader,
): string {
  const namespace = text(metadataOf(pod)["namespace"]);
  if (volume["ephemeral"] !== undefined)
    return driverOfClaim(objects, namespace, `${nameOf(pod)}-${text(volume["name"])}`);
  const claim = text(dig(volume, "persistentVolumeClaim", "claimName"));
  if (claim !== "") return driverOfClaim(objects, namespace, claim);
  return text(dig(volume, "csi", "driver"));
}

/**
 * The audiences that a pod's volumes are given tokens for: those it projects, and those its CSI drivers ask for
 * (`CSIDriver.spec.tokenRequests`). A node may ask for no others (KEP-4412).
 */
export function audiencesOf(pod: Readonly<JsonObject>, objects: ObjectReader): readonly string[] {
  return records(record(pod["spec"])["volumes"]).flatMap((volume) => {
    const projected = records(record(volume["projected"])["sources"])
      .filter((source) => source["serviceAccountToken"] !== undefined)
      .map((source) => text(dig(source, "serviceAccountToken", "audience")));
    const driver = driverOf(volume, pod, objects);
    if (driver === "") return projected;
    const stored = objects.get("csidrivers.storage.k8s.io", "", driver);
    const asked = records(dig(stored, "spec", "tokenRequests")).map(({ audience }) =>
      text(audience),
    );
    return [...projected, ...asked];
  });
}
