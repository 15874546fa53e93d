import type { Container, ContainerRestartRule, Pod } from "../../api/types.gen.ts";

export type RestartPolicy = "Always" | "OnFailure" | "Never";

/** What part a container plays in its pod. A sidecar is an init container with `restartPolicy: Always` (KEP-753). */
export type ContainerRole = "init" | "sidecar" | "regular" | "ephemeral";

export interface PodContainer {
  readonly role: ContainerRole;
  readonly container: Container;
  /** Ephemeral containers only: whose pid namespace to join. */
  readonly targetContainerName?: string | undefined;
}

/** True for an init container that keeps running beside the regular ones. */
export function isSidecar(container: Container): boolean {
  return container.restartPolicy === "Always";
}

/** Init containers and sidecars, in spec order. */
export function initContainers(pod: Pod): readonly PodContainer[] {
  return (pod.spec?.initContainers ?? []).map((container) => ({
    role: isSidecar(container) ? "sidecar" : "init",
    container,
  }));
}

/** Regular containers, in spec order. */
export function regularContainers(pod: Pod): readonly PodContainer[] {
  return (pod.spec?.containers ?? []).map((container) => ({ role: "regular", container }));
}

/** Ephemeral containers, in spec order. */
export function ephemeralContainers(pod: Pod): readonly PodContainer[] {
  return (pod.spec?.ephemeralContainers ?? []).map((container) => ({
    role: "ephemeral",
    container,
    targetContainerName: container.targetContainerName,
  }));
}

/** Every container of the pod: init and sidecars, regular, ephemeral. */
export function allContainers(pod: Pod): readonly PodContainer[] {
  return [...initContainers(pod), ...regularContainers(pod), ...ephemeralContainers(pod)];
}

/** The container of that name, whatever its role. */
export function findPodContainer(pod: Pod, name: string): PodContainer | undefined {
  return allContainers(pod).find((entry) => entry.container.name === name);
}

/** `spec.containers{web}`, as events point at a container. */
export function containerFieldPath(entry: PodContainer): string {
  const { name } = entry.container;
  switch (entry.role) {
    case "init":
    case "sidecar":
      return `spec.initContainers{${name}}`;
    case "regular":
      return `spec.containers{${name}}`;
    case "ephemeral":
      return `spec.ephemeralContainers{${name}}`;
  }
}

/** The pod's own policy; the API defaults it to Always. */
export function podRestartPolicy(pod: Pod): RestartPolicy {
  return pod.spec?.restartPolicy ?? "Always";
}

/** The policy that counts for one container: its own (ContainerRestartRules) before the pod's. */
export function containerRestartPolicy(pod: Pod, container: Container): RestartPolicy {
  const own = container.restartPolicy;
  return own === "Always" || own === "OnFailure" || own === "Never" ? own : podRestartPolicy(pod);
}

/** The first rule that the exit code matches (ContainerRestartRules): it decides before any policy. */
export function matchingRestartRule(
  container: Container,
  exitCode: number,
): ContainerRestartRule | undefined {
  return (container.restartPolicyRules ?? []).find(({ exitCodes }) => {
    if (exitCodes === undefined) return false;
    const listed = (exitCodes.values ?? []).includes(exitCode);
    return exitCodes.operator === "In" ? listed : !listed;
  });
}

/** Whether a container that ended with `exitCode` by itself is to run again. */
export function shouldRestart(pod: Pod, entry: PodContainer, exitCode: number): boolean {
  if (entry.role === "ephemeral") return false;
  if (entry.role === "sidecar") return true;
  const { container } = entry;
  if (matchingRestartRule(container, exitCode) !== undefined) return true;
  const policy = containerRestartPolicy(pod, container);
  // An init container that succeeded is done for good, also under Always.
  if (entry.role === "init" && exitCode === 0) return false;
  if (policy === "Always") return true;
  return policy === "OnFailure" && exitCode !== 0;
}

/** Grace in seconds when nobody asked for another one. */
export function podGracePeriodSeconds(pod: Pod): number {
  return pod.spec?.terminationGracePeriodSeconds ?? 30;
}

export function isHostNetwork(pod: Pod): boolean {
  return pod.spec?.hostNetwork === true;
}

/** A phase that never changes any more. */
export function isTerminalPhase(phase: string | undefined): boolean {
  return phase === "Succeeded" || phase === "Failed";
}
