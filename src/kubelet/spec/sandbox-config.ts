import type { AssignedPod } from "../types.ts";
import type { NamespaceMode, PodSandboxConfig } from "../../runtime/types.ts";
import type { HostPort } from "../../network/types.ts";
import { allContainers, isHostNetwork, podGracePeriodSeconds } from "./containers.ts";
import type { PodCgroup } from "./pod-cgroup.ts";
import { podHostname } from "./pod-name.ts";
import type { SandboxNote } from "./records.ts";

/** Whose pid namespace the pod's containers see. */
export function pidNamespace(pod: AssignedPod): NamespaceMode {
  if (pod.spec?.hostPID === true) return "node";
  return pod.spec?.shareProcessNamespace === true ? "pod" : "container";
}

/**
 * Ports of the node that lead to this pod; a pod on the node's network needs none. Those of init containers that end
 * are nobody's, as for the scheduler: other pods may have them.
 */
export function hostPorts(pod: AssignedPod): readonly HostPort[] {
  if (isHostNetwork(pod)) return [];
  const lasting = allContainers(pod).filter(({ role }) => role === "regular" || role === "sidecar");
  return lasting.flatMap(({ container }) =>
    (container.ports ?? [])
      .filter((port) => (port.hostPort ?? 0) > 0)
      .map((port) => ({
        protocol: port.protocol ?? "TCP",
        hostIP: port.hostIP ?? "",
        hostPort: port.hostPort ?? 0,
        containerPort: port.containerPort,
      })),
  );
}

/**
 * What the runtime is asked for as the pod's sandbox.
 *
 * @throws {HostnameError} as podHostname does.
 */
export function sandboxConfig(
  pod: AssignedPod,
  options: {
    readonly attempt: number;
    readonly clusterDomain: string;
    readonly nodeName: string;
    readonly cgroup: PodCgroup | undefined;
    /** What the pod's RuntimeClass says; empty for the engine's default. */
    readonly runtimeHandler: string;
  },
): PodSandboxConfig {
  const { metadata } = pod;
  const host = isHostNetwork(pod);
  const note: SandboxNote = {
    gracePeriodSeconds: podGracePeriodSeconds(pod),
    cgroupPath: options.cgroup?.path ?? "",
  };
  return {
    metadata: {
      name: metadata.name,
      namespace: metadata.namespace ?? "",
      uid: metadata.uid,
      attempt: options.attempt,
    },
    hostname: host ? options.nodeName : podHostname(pod, options.clusterDomain).hostname,
    labels: {},
    record: JSON.stringify(note),
    network: host ? "node" : "pod",
    ipc: pod.spec?.hostIPC === true ? "node" : "pod",
    pid: pidNamespace(pod),
    sysctls: Object.fromEntries(
      (pod.spec?.securityContext?.sysctls ?? []).map(({ name, value }) => [
        name.replaceAll("/", "."),
        value,
      ]),
    ),
    cgroupParent: options.cgroup?.parent,
    runtimeHandler: options.runtimeHandler,
    shmBytes: undefined,
  };
}
