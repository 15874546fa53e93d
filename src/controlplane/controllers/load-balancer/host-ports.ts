import { canonicalIP, ipFamily } from "../../../lib/cidr.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { isPodTerminal } from "../shared/pod-state.ts";

export type Protocol = "SCTP" | "TCP" | "UDP";

/** A port of a node that a pod has. */
export interface HostPort {
  /** Undefined = on all addresses. */
  readonly ip: string | undefined;
  readonly port: number;
  readonly protocol: Protocol;
}

/** Host ports that the pod declares; with hostNetwork the API server has made all its ports that. */
export function hostPortsOf({ spec }: StoredPod): readonly HostPort[] {
  const sidecars = spec?.initContainers?.filter((each) => each.restartPolicy === "Always") ?? [];
  const containers = [...(spec?.containers ?? []), ...sidecars];
  return containers
    .flatMap(({ ports }) => ports ?? [])
    .flatMap(({ hostIP = "", hostPort = 0, protocol = "TCP" }): HostPort[] => {
      if (hostPort === 0) return [];
      const everywhere = ipFamily(hostIP) === undefined || ["0.0.0.0", "::"].includes(hostIP);
      return [{ ip: everywhere ? undefined : canonicalIP(hostIP), port: hostPort, protocol }];
    });
}

/** Whether the pod has its host ports: it is on a node, and its containers have not stopped for good. */
export function holdsHostPorts(pod: StoredPod): boolean {
  return (pod.spec?.nodeName ?? "") !== "" && !isPodTerminal(pod);
}
