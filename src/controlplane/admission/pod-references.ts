import { isEmpty, record, records, text } from "../kinds/access.ts";
import type { JsonObject } from "../types.ts";

/** API objects that a pod spec names; all are in the pod's namespace. */
export interface PodReferences {
  readonly secrets: ReadonlySet<string>;
  readonly configMaps: ReadonlySet<string>;
  readonly persistentVolumeClaims: ReadonlySet<string>;
  readonly serviceAccount: string;
}

function containersOf(spec: Readonly<JsonObject>): JsonObject[] {
  return ["initContainers", "containers", "ephemeralContainers"].flatMap((key) =>
    records(spec[key]),
  );
}

/** Volume sources that log in with a secret, and the member that names it. */
const secretMembers: Readonly<Record<string, readonly string[]>> = {
  secret: ["secretName"],
  azureFile: ["secretName"],
};
const secretReferences = ["secretRef", "nodePublishSecretRef"] as const;

/** Collects the Secrets, ConfigMaps, claims and the service account that a pod may read through its node. */
export function podReferences(podName: string, spec: Readonly<JsonObject>): PodReferences {
  const secrets = new Set<string>();
  const configMaps = new Set<string>();
  const claims = new Set<string>();
  for (const secret of records(spec["imagePullSecrets"])) secrets.add(text(secret["name"]));
  for (const container of containersOf(spec)) {
    for (const source of records(container["envFrom"])) {
      secrets.add(text(record(source["secretRef"])["name"]));
      configMaps.add(text(record(source["configMapRef"])["name"]));
    }
    for (const variable of records(container["env"])) {
      const from = record(variable["valueFrom"]);
      secrets.add(text(record(from["secretKeyRef"])["name"]));
      configMaps.add(text(record(from["configMapKeyRef"])["name"]));
    }
  }
  for (const volume of records(spec["volumes"])) {
    for (const [name, value] of Object.entries(volume)) {
      const source = record(value);
      for (const member of secretMembers[name] ?? []) secrets.add(text(source[member]));
      for (const member of secretReferences) secrets.add(text(record(source[member])["name"]));
    }
    configMaps.add(text(record(volume["configMap"])["name"]));
    claims.add(text(record(volume["persistentVolumeClaim"])["claimName"]));
    if (volume["ephemeral"] !== undefined) claims.add(`${podName}-${text(volume["name"])}`);
    for (const source of records(record(volume["projected"])["sources"])) {
      secrets.add(text(record(source["secret"])["name"]));
      configMaps.add(text(record(source["configMap"])["name"]));
    }
  }
  for (const names of [secrets, configMaps, claims]) names.delete("");
  return {
    secrets,
    configMaps,
    persistentVolumeClaims: claims,
    serviceAccount: text(spec["serviceAccountName"]),
  };
}

/**
 * The first kind of API object (plural) that a pod needs, or undefined: mirror pods may need none, because their node
 * runs them without asking the API.
 */
export function apiObjectReference(
  podName: string,
  spec: Readonly<JsonObject>,
): string | undefined {
  const references = podReferences(podName, spec);
  if (references.serviceAccount !== "") return "serviceaccounts";
  if (references.secrets.size > 0) return "secrets";
  if (references.configMaps.size > 0) return "configmaps";
  if (references.persistentVolumeClaims.size > 0) return "persistentvolumeclaims";
  if (!isEmpty(spec["resourceClaims"])) return "resourceclaims";
  const projected = records(spec["volumes"]).flatMap((volume) =>
    records(record(volume["projected"])["sources"]),
  );
  if (projected.some((source) => source["serviceAccountToken"] !== undefined)) {
    return "serviceaccounts";
  }
  if (projected.some((source) => source["clusterTrustBundle"] !== undefined)) {
    return "clustertrustbundles";
  }
  return undefined;
}
