import { podRequests } from "../../api/pod-requests.ts";
import { matchesNodeAffinity } from "../../api/selectors.ts";
import type { Node } from "../../api/types.gen.ts";
import { untoleratedTaint } from "../../api/tolerations.ts";
import type { RuntimeFeature } from "../../runtime/types.ts";
import { allContainers, initContainers, isHostNetwork } from "../spec/containers.ts";
import { milliUnits, wholeUnits } from "../spec/quantities.ts";
import type { ResizePending } from "../status/conditions.ts";
import type { AssignedPod } from "../types.ts";
import { refuseUnsupported } from "./unsupported.ts";

/** Why a pod cannot run here; final. `reason` is the kubelet's. */
export interface Refusal {
  readonly reason: string;
  readonly message: string;
}

export interface AdmissionInput {
  readonly node: Node | undefined;
  readonly nodeName: string;
  /** Pods already admitted that still hold their resources. */
  readonly others: readonly AssignedPod[];
  /** Patterns of sysctls allowed beside the safe ones, such as `kernel.msg*`. */
  readonly allowedUnsafeSysctls: readonly string[];
  readonly features: ReadonlySet<RuntimeFeature>;
}

type Check = (pod: AssignedPod, input: AdmissionInput) => Refusal | undefined;

const safeSysctls = new Set([
  "kernel.shm_rmid_forced",
  "net.ipv4.ip_local_port_range",
  "net.ipv4.tcp_syncookies",
  "net.ipv4.ping_group_range",
  "net.ipv4.ip_unprivileged_port_start",
  "net.ipv4.ip_local_reserved_ports",
  "net.ipv4.tcp_keepalive_time",
  "net.ipv4.tcp_fin_timeout",
  "net.ipv4.tcp_keepalive_intvl",
  "net.ipv4.tcp_keepalive_probes",
  "net.ipv4.tcp_rmem",
  "net.ipv4.tcp_wmem",
]);

function isIpcSysctl(name: string): boolean {
  return /^(kernel\.shm|kernel\.msg|fs\.mqueue\.)/.test(name) || name === "kernel.sem";
}

function sysctlAllowed(name: string, patterns: readonly string[]): boolean {
  if (safeSysctls.has(name)) return true;
  return patterns.some((pattern) => {
    const dotted = pattern.replaceAll("/", ".");
    return dotted.endsWith("*") ? name.startsWith(dotted.slice(0, -1)) : name === dotted;
  });
}

const checkSysctls: Check = (pod, { allowedUnsafeSysctls }) => {
  for (const { name: written } of pod.spec?.securityContext?.sysctls ?? []) {
    const name = written.replaceAll("/", ".");
    const forbid = (why: string): Refusal => ({
      reason: "SysctlForbidden",
      message: `forbidden sysctl: "${written}" ${why}`,
    });
    if (isHostNetwork(pod) && name.startsWith("net.")) {
      return forbid("not allowed with host net enabled");
    }
    if (pod.spec?.hostIPC === true && isIpcSysctl(name)) {
      return forbid("not allowed with host ipc enabled");
    }
    if (!sysctlAllowed(name, allowedUnsafeSysctls)) return forbid("not allowlisted");
  }
  return undefined;
};

const checkNodeName: Check = (pod, { nodeName }) => {
  if (pod.spec?.nodeName === undefined || pod.spec.nodeName === nodeName) return undefined;
  return {
    reason: "NodeName",
    message: "Predicate NodeName failed: node(s) didn't match the requested node name",
  };
};

const checkNodeAffinity: Check = (pod, { node, nodeName }) => {
  if (matchesNodeAffinity(pod, { name: nodeName, labels: node?.metadata?.labels })) {
    return undefined;
  }
  return {
    reason: "NodeAffinity",
    message: "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
  };
};

interface UsedPort {
  readonly ip: string;
  readonly protocol: string;
  readonly port: number;
}

function usedPorts(pod: AssignedPod): readonly UsedPort[] {
  const host = isHostNetwork(pod);
  return allContainers(pod).flatMap(({ container, role }) =>
    role === "init"
      ? []
      : (container.ports ?? []).flatMap((port): readonly UsedPort[] => {
          const number = port.hostPort ?? (host ? port.containerPort : 0);
          if (number === 0) return [];
          const ip = port.hostIP ?? "";
          const wildcard = ip === "" || ip === "0.0.0.0" || ip === "::";
          return [{ ip: wildcard ? "" : ip, protocol: port.protocol ?? "TCP", port: number }];
        }),
  );
}

const checkNodePorts: Check = (pod, { others }) => {
  const taken = others.flatMap(usedPorts);
  const clash = usedPorts(pod).some((port) =>
    taken.some(
      (other) =>
        other.port === port.port &&
        other.protocol === port.protocol &&
        (other.ip === port.ip || other.ip === "" || port.ip === ""),
    ),
  );
  if (!clash) return undefined;
  return {
    reason: "NodePorts",
    message:
      "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
  };
};

const checkTaints: Check = (pod, { node }) => {
  const { tolerations = [] } = pod.spec ?? {};
  const untolerated = untoleratedTaint(node?.spec?.taints ?? [], tolerations, ["NoExecute"]);
  if (untolerated === undefined) return undefined;
  const text = `{${untolerated.key}: ${untolerated.value ?? ""}}`;
  return {
    reason: "TaintToleration",
    message: `Predicate TaintToleration failed: node(s) had untolerated taint ${text}`,
  };
};

/** Pods have one resource that no container asks for: their number. */
function requestsOf(pod: AssignedPod): ReadonlyMap<string, number> {
  return new Map([["pods", 1], ...podRequests(pod)]);
}

const checkResources: Check = (pod, { node, others }) => {
  const allocatable = node?.status?.allocatable ?? {};
  for (const [name, requested] of requestsOf(pod)) {
    const quantity = allocatable[name];
    const extended = name.includes("/");
    // Resources that the node has never heard of may belong to a device plug-in of another day.
    if (requested === 0 || (quantity === undefined && extended)) continue;
    const capacity =
      quantity === undefined ? 0 : name === "cpu" ? milliUnits(quantity) : wholeUnits(quantity);
    const used = others.reduce((sum, other) => sum + (requestsOf(other).get(name) ?? 0), 0);
    if (used + requested > capacity) {
      return {
        reason: `OutOf${name}`,
        message: `Node didn't have enough resource: ${name}, requested: ${requested}, used: ${used}, capacity: ${capacity}`,
      };
    }
  }
  return undefined;
};

/**
 * Whether a running pod may have the cpu and memory that its spec asks for now (KEP-1287). Pure.
 *
 * @param others The other pods of the node, with what they were granted.
 */
export function admitResize(
  pod: AssignedPod,
  { node, others }: { readonly node: Node | undefined; readonly others: readonly AssignedPod[] },
): ResizePending | undefined {
  const allocatable = node?.status?.allocatable ?? {};
  let deferred: ResizePending | undefined;
  for (const name of ["cpu", "memory"]) {
    const requested = requestsOf(pod).get(name) ?? 0;
    const quantity = allocatable[name];
    if (requested === 0 || quantity === undefined) continue;
    const capacity = name === "cpu" ? milliUnits(quantity) : wholeUnits(quantity);
    if (requested > capacity) {
      const message = `Node didn't have enough capacity: ${name}, requested: ${requested}, capacity: ${capacity}`;
      return { reason: "Infeasible", message };
    }
    const used = others.reduce((sum, other) => sum + (requestsOf(other).get(name) ?? 0), 0);
    if (used + requested > capacity) {
      const message = `Node didn't have enough resource: ${name}, requested: ${requested}, used: ${used}, capacity: ${capacity}`;
      deferred ??= { reason: "Deferred", message };
    }
  }
  return deferred;
}

const checkOS: Check = (pod) => {
  const label = pod.metadata.labels?.["kubernetes.io/os"];
  if (label !== undefined && label !== "linux") {
    return {
      reason: "PodOSSelectorNodeLabelDoesNotMatch",
      message: "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
    };
  }
  const name = pod.spec?.os?.name;
  if (name === undefined || name === "linux") return undefined;
  return {
    reason: "PodOSNotSupported",
    message: "Failed to admit pod as the OS field doesn't match node OS",
  };
};

const checkSupplementalGroups: Check = (pod, { features }) => {
  const policy = pod.spec?.securityContext?.supplementalGroupsPolicy;
  if (policy !== "Strict" || features.has("supplementalGroupsStrict")) return undefined;
  return {
    reason: "SupplementalGroupsPolicyNotSupported",
    message: `SupplementalGroupsPolicy=${policy} is not supported in this node`,
  };
};

const checkInitContainers: Check = (pod) => {
  const wrong = initContainers(pod).find(({ container }) => {
    const policy = container.restartPolicy;
    return policy !== undefined && !["Always", "OnFailure", "Never"].includes(policy);
  });
  if (wrong === undefined) return undefined;
  return {
    reason: "InitContainerRestartPolicyForbidden",
    message: `Init container "${wrong.container.name}" may not have a non-default restartPolicy`,
  };
};

const checks: readonly Check[] = [
  checkSysctls,
  checkNodeName,
  checkNodePorts,
  checkNodeAffinity,
  checkTaints,
  checkResources,
  checkOS,
  checkSupplementalGroups,
  checkInitContainers,
  (pod, { features }) => refuseUnsupported(pod, features),
];

/** Whether the pod may run on this node: the first reason against it, in the kubelet's order. Pure. */
export function admitPod(pod: AssignedPod, input: AdmissionInput): Refusal | undefined {
  for (const check of checks) {
    const refusal = check(pod, input);
    if (refusal !== undefined) return refusal;
  }
  return undefined;
}
