import type { Taint } from "../../../api/types.gen.ts";
import { podRequests } from "../../../api/pod-requests.ts";
import { matchesNodeAffinity } from "../../../api/selectors.ts";
import { tolerates, untoleratedTaint } from "../../../api/tolerations.ts";
import type { StoredPod } from "../../controllers/shared/pod-state.ts";
import type { NodeInfo } from "../snapshot.ts";
import type { FilterPlugin } from "./plugin.ts";

const unschedulableTaint: Taint = {
  key: "node.kubernetes.io/unschedulable",
  effect: "NoSchedule",
};

/** Cordoned nodes take only pods that tolerate it. */
export const nodeUnschedulable: FilterPlugin = {
  name: "NodeUnschedulable",
  prepare: (pod) => {
    const tolerated = (pod.spec?.tolerations ?? []).some((each) =>
      tolerates(each, unschedulableTaint),
    );
    return ({ node }) =>
      node.spec?.unschedulable === true && !tolerated ? ["node(s) were unschedulable"] : [];
  },
};

export const taintToleration: FilterPlugin = {
  name: "TaintToleration",
  prepare: (pod) => {
    const tolerations = pod.spec?.tolerations ?? [];
    return ({ node }) =>
      untoleratedTaint(node.spec?.taints ?? [], tolerations, ["NoSchedule", "NoExecute"]) ===
      undefined
        ? []
        : ["node(s) had untolerated taint(s)"];
  },
};

export const nodeAffinity: FilterPlugin = {
  name: "NodeAffinity",
  prepare:
    (pod) =>
    ({ node }) =>
      matchesNodeAffinity(pod, node.metadata)
        ? []
        : ["node(s) didn't match Pod's node affinity/selector"],
};

interface HostPort {
  readonly ip: string;
  readonly protocol: string;
  readonly port: number;
}

function hostPorts(pod: StoredPod): readonly HostPort[] {
  const containers = [
    ...(pod.spec?.containers ?? []),
    ...(pod.spec?.initContainers ?? []).filter((each) => each.restartPolicy === "Always"),
  ];
  return containers
    .flatMap((container) => container.ports ?? [])
    .filter((port) => (port.hostPort ?? 0) > 0)
    .map((port) => ({
      ip: port.hostIP === undefined || port.hostIP === "" ? "0.0.0.0" : port.hostIP,
      protocol: port.protocol ?? "TCP",
      port: port.hostPort ?? 0,
    }));
}

function collide(left: HostPort, right: HostPort): boolean {
  if (left.port !== right.port || left.protocol !== right.protocol) return false;
  return left.ip === right.ip || left.ip === "0.0.0.0" || right.ip === "0.0.0.0";
}

export const nodePorts: FilterPlugin = {
  name: "NodePorts",
  prepare: (pod) => {
    const wanted = hostPorts(pod);
    if (wanted.length === 0) return () => [];
    return ({ pods }) => {
      const used = pods.flatMap((each) => hostPorts(each));
      return wanted.some((port) => used.some((other) => collide(port, other)))
        ? ["node(s) didn't have free ports for the requested pod ports"]
        : [];
    };
  },
};

export const nodeResourcesFit: FilterPlugin = {
  name: "NodeResourcesFit",
  prepare: (pod) => {
    const requests = podRequests(pod);
    return (info: NodeInfo) => {
      const reasons: string[] = [];
      if (info.pods.length + 1 > (info.allocatable.get("pods") ?? 0)) reasons.push("Too many pods");
      for (const [name, value] of requests) {
        const free = (info.allocatable.get(name) ?? 0) - (info.requested.get(name) ?? 0);
        if (value > 0 && value > free) reasons.push(`Insufficient ${name}`);
      }
      return reasons;
    };
  },
};

/** Claims live in kinds that this server does not serve, so none can ever be found. */
export const volumeBinding: FilterPlugin = {
  name: "VolumeBinding",
  rejects: (pod) => {
    for (const volume of pod.spec?.volumes ?? []) {
      const claim = volume.persistentVolumeClaim?.claimName;
      if (claim !== undefined) return `persistentvolumeclaim "${claim}" not found`;
      if (volume.ephemeral !== undefined)
        return `waiting for ephemeral volume controller to create the persistentvolumeclaim "${pod.metadata.name}-${volume.name}"`;
    }
    return undefined;
  },
  prepare: () => () => [],
};

/** Dynamic resource allocation: as with volumes, no claim can exist. */
export const dynamicResources: FilterPlugin = {
  name: "DynamicResources",
  rejects: (pod) => {
    const [claim] = pod.spec?.resourceClaims ?? [];
    if (claim === undefined) return undefined;
    return `resourceclaim "${claim.resourceClaimName ?? claim.resourceClaimTemplateName ?? claim.name}" not found`;
  },
  prepare: () => () => [],
};
