import { isRecord, type JsonRecord } from "../../lib/guard.ts";
import { label } from "../../runtime/docker/labels.ts";

/** The named members of an object, as far as it has them. */
function pick(value: unknown, names: readonly string[]): JsonRecord {
  if (!isRecord(value)) return {};
  return Object.fromEntries(
    names.flatMap((name) => (value[name] === undefined ? [] : [[name, value[name]]])),
  );
}

function records(value: unknown): readonly JsonRecord[] {
  return Array.isArray(value) ? value.filter(isRecord) : [];
}

/** Annotations hold anything, whole objects as they were applied among it: their names are enough. */
function metadataOf(object: JsonRecord): JsonRecord {
  const metadata = object["metadata"];
  const annotations = isRecord(metadata) ? metadata["annotations"] : undefined;
  return {
    ...pick(metadata, [
      "name",
      "namespace",
      "uid",
      "labels",
      "creationTimestamp",
      "deletionTimestamp",
      "deletionGracePeriodSeconds",
      "finalizers",
      "ownerReferences",
      "resourceVersion",
      "generation",
    ]),
    ...(isRecord(annotations) ? { annotationNames: Object.keys(annotations) } : {}),
  };
}

/** A Node without values of annotations. Pure. */
export function reducedNode(node: unknown): JsonRecord {
  if (!isRecord(node)) return {};
  return { metadata: metadataOf(node), spec: node["spec"], status: node["status"] };
}

const handlers = ["exec", "httpGet", "tcpSocket", "grpc"] as const;

/** How a probe asks and how often, without the command and headers that it asks with. */
function reducedProbe(probe: unknown): JsonRecord | undefined {
  if (!isRecord(probe)) return undefined;
  const { httpGet } = probe;
  return {
    by: handlers.filter((name) => probe[name] !== undefined),
    ...(httpGet === undefined ? {} : { httpGet: pick(httpGet, ["port", "scheme"]) }),
    ...pick(probe, [
      "tcpSocket",
      "grpc",
      "initialDelaySeconds",
      "periodSeconds",
      "timeoutSeconds",
      "successThreshold",
      "failureThreshold",
      "terminationGracePeriodSeconds",
    ]),
  };
}

/** A container without command, arguments and values of its environment. */
function reducedContainer(container: JsonRecord): JsonRecord {
  const probes = ["livenessProbe", "readinessProbe", "startupProbe"].flatMap((name) => {
    const probe = reducedProbe(container[name]);
    return probe === undefined ? [] : [[name, probe] as const];
  });
  return {
    ...pick(container, [
      "name",
      "image",
      "imagePullPolicy",
      "ports",
      "resources",
      "resizePolicy",
      "restartPolicy",
      "securityContext",
      "volumeMounts",
      "volumeDevices",
      "workingDir",
      "terminationMessagePath",
      "terminationMessagePolicy",
      "stdin",
      "tty",
    ]),
    environmentNames: records(container["env"]).map((one) => one["name"]),
    ...Object.fromEntries(probes),
  };
}

/** Which kind of volume it is, and which object it comes from. */
function reducedVolume(volume: JsonRecord): JsonRecord {
  const kind = Object.keys(volume).find((key) => key !== "name") ?? "emptyDir";
  const source = pick(volume[kind], [
    "claimName",
    "secretName",
    "name",
    "path",
    "medium",
    "driver",
  ]);
  return { name: volume["name"], kind, ...(Object.keys(source).length > 0 ? { source } : {}) };
}

/** A Pod without commands, arguments, values of environments and annotations. Pure. */
export function reducedPod(pod: unknown): JsonRecord {
  if (!isRecord(pod)) return {};
  const spec = isRecord(pod["spec"]) ? pod["spec"] : {};
  return {
    metadata: metadataOf(pod),
    spec: {
      ...pick(spec, [
        "nodeName",
        "restartPolicy",
        "terminationGracePeriodSeconds",
        "dnsPolicy",
        "hostNetwork",
        "hostPID",
        "hostIPC",
        "hostUsers",
        "priority",
        "priorityClassName",
        "runtimeClassName",
        "schedulerName",
        "serviceAccountName",
        "securityContext",
        "readinessGates",
        "tolerations",
        "nodeSelector",
        "enableServiceLinks",
        "resources",
        "os",
      ]),
      initContainers: records(spec["initContainers"]).map(reducedContainer),
      containers: records(spec["containers"]).map(reducedContainer),
      ephemeralContainers: records(spec["ephemeralContainers"]).map(reducedContainer),
      volumes: records(spec["volumes"]).map(reducedVolume),
    },
    status: pod["status"],
  };
}

const shownLabels = new Set<string>([
  label.podName,
  label.podNamespace,
  label.podUID,
  label.containerName,
  label.type,
  label.node,
  label.schema,
  label.attempt,
]);

/** The engine's list of containers: names, images and states; of labels only those that the agent needs. Pure. */
export function reducedContainers(list: unknown): readonly JsonRecord[] {
  return records(list).map((one) => {
    const labels = isRecord(one["Labels"]) ? one["Labels"] : {};
    return {
      ...pick(one, ["Id", "Names", "Image", "ImageID", "Created", "State", "Status"]),
      labels: Object.fromEntries(Object.entries(labels).filter(([key]) => shownLabels.has(key))),
    };
  });
}

/** What the engine says of itself, without labels that somebody gave it. Pure. */
export function reducedEngineInfo(info: unknown): JsonRecord {
  if (!isRecord(info)) return {};
  const { Labels: _labels, ...rest } = info;
  return rest;
}
