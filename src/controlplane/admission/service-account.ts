import {
  ensureRecord,
  isEmpty,
  mapOf,
  metadataOf,
  nameOf,
  record,
  records,
  text,
} from "../kinds/access.ts";
import { forbidden } from "../status-error.ts";
import type { AdmissionAttributes, AdmissionPlugin, JsonObject } from "../types.ts";
import { apiObjectReference } from "./pod-references.ts";

/** Where containers find their credentials. */
const mountPath = "/var/run/secrets/kubernetes.io/serviceaccount";
/** An hour and seven seconds: upstream's mark for tokens that it injected itself. */
const tokenSeconds = 3607;
const fileMode = 0o644;

/** Set by the node on the API's copy of a static pod. */
export const mirrorAnnotation = "kubernetes.io/config.mirror";

/** Whether the pod is the API's copy of a static pod. */
export function isMirrorPod(pod: Readonly<JsonObject>): boolean {
  return mirrorAnnotation in mapOf(metadataOf(pod)["annotations"]);
}

function tokenVolume(name: string): JsonObject {
  return {
    name,
    projected: {
      sources: [
        { serviceAccountToken: { expirationSeconds: tokenSeconds, path: "token" } },
        { configMap: { name: "kube-root-ca.crt", items: [{ key: "ca.crt", path: "ca.crt" }] } },
        {
          downwardAPI: {
            items: [
              {
                path: "namespace",
                fieldRef: { apiVersion: "v1", fieldPath: "metadata.namespace" },
              },
            ],
          },
        },
      ],
      defaultMode: fileMode,
    },
  };
}

function mountToken(spec: JsonObject, randomSuffix: () => string): void {
  const volumes = records(spec["volumes"]);
  const existing = volumes.find((volume) => text(volume["name"]).startsWith("kube-api-access-"));
  const name =
    existing === undefined ? `kube-api-access-${randomSuffix()}` : text(existing["name"]);
  let mounted = false;
  for (const key of ["initContainers", "containers"]) {
    for (const container of records(spec[key])) {
      const mounts = records(container["volumeMounts"]);
      if (mounts.some((mount) => mount["mountPath"] === mountPath)) continue;
      container["volumeMounts"] = [...mounts, { name, readOnly: true, mountPath }];
      mounted = true;
    }
  }
  if (mounted && existing === undefined) spec["volumes"] = [...volumes, tokenVolume(name)];
}

function findAccount(attributes: AdmissionAttributes, name: string): Readonly<JsonObject> {
  const { objects, namespace, kind } = attributes;
  const account = objects.get("serviceaccounts", namespace, name);
  if (account !== undefined) return account;
  throw forbidden(
    kind,
    attributes.name,
    `error looking up service account ${namespace}/${name}: serviceaccount "${name}" not found`,
  );
}

function wantsToken(spec: Readonly<JsonObject>, account: Readonly<JsonObject>): boolean {
  const own = spec["automountServiceAccountToken"];
  if (typeof own === "boolean") return own;
  return account["automountServiceAccountToken"] !== false;
}

function isPodCreate({ operation, kind, subresource }: AdmissionAttributes): boolean {
  return (
    operation === "CREATE" && kind.kind === "Pod" && kind.group === "" && subresource === undefined
  );
}

/** Only secrets that the account lists may be mounted, when its annotation says so. */
function checkSecrets(
  attributes: AdmissionAttributes,
  pod: Readonly<JsonObject>,
  account: Readonly<JsonObject>,
): void {
  const annotations = mapOf(metadataOf(account)["annotations"]);
  if (annotations["kubernetes.io/enforce-mountable-secrets"] !== "true") return;
  const allowed = new Set(records(account["secrets"]).map((secret) => text(secret["name"])));
  for (const volume of records(record(pod["spec"])["volumes"])) {
    const name = text(record(volume["secret"])["secretName"]);
    if (name === "" || allowed.has(name)) continue;
    throw forbidden(
      attributes.kind,
      attributes.name,
      `volume with secret.secretName="${name}" is not allowed because service account ${nameOf(account)} does not reference that secret`,
    );
  }
}

/**
 * Gives every pod a service account that exists, its pull secrets and, unless switched off, its token in a projected
 * volume. Mirror pods may not have one.
 */
export function createServiceAccountPlugin(randomSuffix: () => string): AdmissionPlugin {
  return {
    name: "ServiceAccount",
    mutate(attributes) {
      const pod = attributes.object;
      if (!isPodCreate(attributes) || pod === undefined || isMirrorPod(pod)) return;
      const spec = ensureRecord(pod, "spec");
      if (text(spec["serviceAccountName"]) === "") spec["serviceAccountName"] = "default";
      spec["serviceAccount"] = spec["serviceAccountName"];
      const account = findAccount(attributes, text(spec["serviceAccountName"]));
      if (wantsToken(spec, account)) mountToken(spec, randomSuffix);
      if (isEmpty(spec["imagePullSecrets"]) && !isEmpty(account["imagePullSecrets"])) {
        spec["imagePullSecrets"] = structuredClone(account["imagePullSecrets"]);
      }
    },
    validate(attributes) {
      const pod = attributes.object;
      if (!isPodCreate(attributes) || pod === undefined) return;
      const spec = record(pod["spec"]);
      if (!isMirrorPod(pod)) {
        checkSecrets(attributes, pod, findAccount(attributes, text(spec["serviceAccountName"])));
        return;
      }
      const reference = apiObjectReference(nameOf(pod), spec);
      if (reference === undefined) return;
      const what = reference === "serviceaccounts" ? "service accounts" : reference;
      throw forbidden(attributes.kind, attributes.name, `a mirror pod may not reference ${what}`);
    },
  };
}
