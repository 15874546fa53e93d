import type { PodSandboxMetadata } from "../types.ts";

/** Version of the label layout below. One newer than ours is refused, never touched. */
export const schemaVersion = 1;

/** Labels on everything we make. All state is here and in the names: there is no other record of pods. */
export const label = {
  podName: "io.kubernetes.pod.name",
  podNamespace: "io.kubernetes.pod.namespace",
  podUID: "io.kubernetes.pod.uid",
  containerName: "io.kubernetes.container.name",
  type: "io.kubernetes.docker.type",
  sandboxID: "io.kubernetes.sandbox.id",
  logPath: "io.kubernetes.container.logpath",
  node: "remora.io/node",
  scope: "remora.io/scope",
  schema: "remora.io/schema",
  attempt: "remora.io/attempt",
  specHash: "remora.io/spec-hash",
  record: "remora.io/pod",
  /** On containers: as whom the first process starts, JSON. */
  user: "remora.io/user",
  /** The next three are on sandboxes: what containers of the pod must repeat. */
  ipc: "remora.io/ipc",
  cgroupParent: "remora.io/cgroup-parent",
  runtimeHandler: "remora.io/runtime-handler",
  /** On our pause image: hash of its program. */
  pause: "remora.io/pause",
} as const;

/** Values of {@link label.type}. `accounts` is a never started container whose passwd and group files are read. */
export type ObjectType = "podsandbox" | "container" | "accounts";

/** Whose containers these are. Several agents may share an engine. */
export interface Owner {
  readonly nodeName: string;
  /** Tells agents of the same node name apart (tests); empty normally. */
  readonly scope: string;
}

export type Labels = Readonly<Record<string, string>>;

/** The labels that make an object ours. */
export function ownerLabels(owner: Owner): Record<string, string> {
  return {
    [label.node]: owner.nodeName,
    [label.schema]: String(schemaVersion),
    ...(owner.scope === "" ? {} : { [label.scope]: owner.scope }),
  };
}

/** `label` filters of list and events. They do not name the schema, so that a newer one is seen. */
export function ownerFilters(owner: Owner): string[] {
  const filters = [`${label.node}=${owner.nodeName}`];
  if (owner.scope !== "") filters.push(`${label.scope}=${owner.scope}`);
  return filters;
}

/** Whether an object is ours, somebody else's, or ours by a version that we do not understand. */
export function ownership(labels: Labels, owner: Owner): "ours" | "foreign" | "newer" {
  const schema = Number(labels[label.schema]);
  if (
    labels[label.node] !== owner.nodeName ||
    (labels[label.scope] ?? "") !== owner.scope ||
    !Number.isInteger(schema) ||
    schema < 1
  ) {
    return "foreign";
  }
  return schema > schemaVersion ? "newer" : "ours";
}

/** `k8s_<ctr>_<pod>_<ns>_<uid>_<attempt>`; `_` cannot occur in the parts. People grep for it, we parse labels only. */
export function containerName(pod: PodSandboxMetadata, container: string, attempt: number): string {
  return `k8s_${container}_${pod.name}_${pod.namespace}_${pod.uid}_${attempt}`;
}

/** Name of a sandbox; a collision means that this (uid, attempt) exists already. */
export function sandboxName(pod: PodSandboxMetadata): string {
  return containerName(pod, "POD", pod.attempt);
}

/** The standard labels of a pod's object, which log shippers read. */
export function podLabels(
  pod: PodSandboxMetadata,
  container: string,
  type: ObjectType,
): Record<string, string> {
  return {
    [label.podName]: pod.name,
    [label.podNamespace]: pod.namespace,
    [label.podUID]: pod.uid,
    [label.containerName]: container,
    [label.type]: type,
  };
}

/**
 * The name for one more try after the engine called `name` taken by a container that it does not have (a known fault,
 * kubernetes#40443): names only help people, labels tell what is what.
 */
export function alternativeName(name: string, random: () => number): string {
  return `${name}_${Math.floor(random() * 0x1_0000_0000).toString(16)}`;
}
