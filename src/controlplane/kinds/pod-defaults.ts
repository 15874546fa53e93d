import { isRecord } from "../../lib/guard.ts";
import type { JsonObject } from "../types.ts";
import { podLevelDefaults } from "./pod-level-resources.ts";
import { canonicalQuantity } from "./quantity.ts";
import { defaultTo, ensureRecord, int, isEmpty, record, records, text } from "./access.ts";

const defaultFileMode = 0o644;

/** Tag of an image reference, `latest` when it has neither tag nor digest. */
export function imageTag(image: string): string {
  const [name = "", digest] = image.split("@");
  const tag = /:([^:/]+)$/.exec(name)?.[1];
  if (tag !== undefined) return tag;
  return digest === undefined ? "latest" : "";
}

function pullPolicy(image: string): string {
  return imageTag(image) === "latest" ? "Always" : "IfNotPresent";
}

/** Stores every quantity of a resource list in its canonical text. */
export function canonicalizeResources(owner: JsonObject, key: string): void {
  const resources = owner[key];
  if (!isRecord(resources)) return;
  for (const [name, value] of Object.entries(resources)) resources[name] = canonicalQuantity(value);
}

function probeDefaults(probe: unknown): void {
  if (!isRecord(probe)) return;
  const fallbacks = {
    timeoutSeconds: 1,
    periodSeconds: 10,
    successThreshold: 1,
    failureThreshold: 3,
  };
  for (const [key, value] of Object.entries(fallbacks)) {
    if ((int(probe[key]) ?? 0) === 0) probe[key] = value;
  }
  handlerDefaults(probe);
  if (isRecord(probe["grpc"]) && probe["grpc"]["service"] === undefined) {
    probe["grpc"]["service"] = "";
  }
}

function handlerDefaults(handler: unknown): void {
  if (!isRecord(handler) || !isRecord(handler["httpGet"])) return;
  defaultTo(handler["httpGet"], "path", "/");
  defaultTo(handler["httpGet"], "scheme", "HTTP");
}

function envDefaults(container: JsonObject): void {
  for (const variable of records(container["env"])) {
    const source = variable["valueFrom"];
    if (!isRecord(source)) continue;
    if (isRecord(source["fieldRef"])) defaultTo(source["fieldRef"], "apiVersion", "v1");
    if (isRecord(source["resourceFieldRef"])) divisorDefault(source["resourceFieldRef"]);
    if (isRecord(source["fileKeyRef"])) {
      if (source["fileKeyRef"]["optional"] === undefined) source["fileKeyRef"]["optional"] = false;
    }
  }
}

function divisorDefault(reference: JsonObject): void {
  defaultTo(reference, "divisor", "0");
  reference["divisor"] = canonicalQuantity(reference["divisor"]);
}

/** Defaults of a container that hold in pods and in templates. */
function containerDefaults(container: JsonObject): void {
  defaultTo(container, "terminationMessagePath", "/dev/termination-log");
  defaultTo(container, "terminationMessagePolicy", "File");
  defaultTo(container, "imagePullPolicy", pullPolicy(text(container["image"])));
  const resources = ensureRecord(container, "resources");
  canonicalizeResources(resources, "limits");
  canonicalizeResources(resources, "requests");
  for (const port of records(container["ports"])) defaultTo(port, "protocol", "TCP");
  envDefaults(container);
  for (const key of ["livenessProbe", "readinessProbe", "startupProbe"]) {
    probeDefaults(container[key]);
  }
  const lifecycle = record(container["lifecycle"]);
  handlerDefaults(lifecycle["postStart"]);
  handlerDefaults(lifecycle["preStop"]);
  const security = container["securityContext"];
  if (isRecord(security) && security["procMount"] === "") delete security["procMount"];
}

function downwardItems(source: JsonObject): void {
  for (const item of records(source["items"])) {
    if (isRecord(item["fieldRef"])) defaultTo(item["fieldRef"], "apiVersion", "v1");
    if (isRecord(item["resourceFieldRef"])) divisorDefault(item["resourceFieldRef"]);
  }
}

function projectedDefaults(source: JsonObject): void {
  // The API prints a list that is not there.
  if (records(source["sources"]).length === 0) source["sources"] = null;
  for (const entry of records(source["sources"])) {
    if (isRecord(entry["downwardAPI"])) downwardItems(entry["downwardAPI"]);
    const token = entry["serviceAccountToken"];
    if (isRecord(token)) defaultTo(token, "expirationSeconds", 3600);
  }
}

/** Members of a volume source that upstream fills in, by source. */
export const volumeFallbacks: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  secret: { defaultMode: defaultFileMode },
  configMap: { defaultMode: defaultFileMode },
  downwardAPI: { defaultMode: defaultFileMode },
  projected: { defaultMode: defaultFileMode },
  iscsi: { iscsiInterface: "default" },
  rbd: { pool: "rbd", user: "admin", keyring: "/etc/ceph/keyring" },
  azureDisk: { cachingMode: "ReadWrite", fsType: "ext4", readOnly: false, kind: "Shared" },
  scaleIO: { storageMode: "ThinProvisioned", fsType: "xfs" },
};

/** Fills the spec of a PersistentVolumeClaim, or of a template of one. */
export function claimSpecDefaults(spec: JsonObject): void {
  spec["volumeMode"] ??= "Filesystem";
  const resources = ensureRecord(spec, "resources");
  canonicalizeResources(resources, "limits");
  canonicalizeResources(resources, "requests");
}

function volumeDefaults(volume: JsonObject): void {
  const sources = Object.keys(volume).filter((key) => key !== "name" && isRecord(volume[key]));
  if (sources.length === 0) volume["emptyDir"] = {};
  for (const name of sources) {
    const source = ensureRecord(volume, name);
    for (const [key, value] of Object.entries(volumeFallbacks[name] ?? {})) {
      if (source[key] === undefined || source[key] === null) source[key] = value;
    }
    if (name === "downwardAPI") downwardItems(source);
    if (name === "projected") projectedDefaults(source);
    if (name === "hostPath" && typeof source["type"] !== "string") source["type"] = "";
    if (name === "image") defaultTo(source, "pullPolicy", pullPolicy(text(source["reference"])));
    if (name === "emptyDir" && source["sizeLimit"] !== undefined) {
      source["sizeLimit"] = canonicalQuantity(source["sizeLimit"]);
    }
    if (name === "ephemeral") {
      const template = source["volumeClaimTemplate"];
      if (isRecord(template)) claimSpecDefaults(ensureRecord(template, "spec"));
    }
  }
}

/** Fills what both a Pod and a pod template get (SetDefaults_PodSpec and the nested defaulters). */
export function podSpecDefaults(spec: JsonObject): void {
  defaultTo(spec, "restartPolicy", "Always");
  defaultTo(spec, "dnsPolicy", "ClusterFirst");
  defaultTo(spec, "schedulerName", "default-scheduler");
  defaultTo(spec, "terminationGracePeriodSeconds", 30);
  ensureRecord(spec, "securityContext");
  // The deprecated alias is always kept equal to serviceAccountName.
  if (text(spec["serviceAccountName"]) === "" && text(spec["serviceAccount"]) !== "") {
    spec["serviceAccountName"] = spec["serviceAccount"];
  }
  if (text(spec["serviceAccountName"]) !== "") spec["serviceAccount"] = spec["serviceAccountName"];
  for (const key of ["initContainers", "containers", "ephemeralContainers"]) {
    for (const container of records(spec[key])) containerDefaults(container);
  }
  for (const volume of records(spec["volumes"])) volumeDefaults(volume);
  canonicalizeResources(spec, "overhead");
  if (isRecord(spec["resources"])) {
    canonicalizeResources(spec["resources"], "limits");
    canonicalizeResources(spec["resources"], "requests");
  }
}

function requestsFromLimits(resources: JsonObject): void {
  const limits = resources["limits"];
  if (!isRecord(limits) || isEmpty(limits)) return;
  const requests = ensureRecord(resources, "requests");
  for (const [name, value] of Object.entries(limits)) {
    if (requests[name] === undefined) requests[name] = value;
  }
}

/** Fills what only a Pod gets, after {@link podSpecDefaults} (SetDefaults_Pod). */
export function podDefaults(pod: JsonObject): void {
  const spec = ensureRecord(pod, "spec");
  podSpecDefaults(spec);
  for (const key of ["initContainers", "containers"]) {
    for (const container of records(spec[key])) {
      requestsFromLimits(ensureRecord(container, "resources"));
      if (spec["hostNetwork"] !== true) continue;
      for (const port of records(container["ports"])) {
        if ((int(port["hostPort"]) ?? 0) === 0) port["hostPort"] = port["containerPort"];
      }
    }
  }
  podLevelDefaults(spec);
  if (typeof spec["enableServiceLinks"] !== "boolean") spec["enableServiceLinks"] = true;
  // The API always prints these times, null when they are unknown.
  for (const condition of records(record(pod["status"])["conditions"])) {
    condition["lastProbeTime"] ??= null;
    condition["lastTransitionTime"] ??= null;
  }
}

/** Fills a pod template: metadata and the spec, without what only pods get. */
export function podTemplateDefaults(template: JsonObject): void {
  ensureRecord(template, "metadata");
  podSpecDefaults(ensureRecord(template, "spec"));
}
