import { addAmounts } from "../../api/pod-requests.ts";
import { matchesNodeAffinity } from "../../api/selectors.ts";
import type { Node } from "../../api/types.gen.ts";
import { untoleratedTaint } from "../../api/tolerations.ts";
import type { RuntimeFeature } from "../../runtime/types.ts";
import { allContainers, initContainers, isHostNetwork } from "../spec/containers.ts";
import { milliUnits, type Resources, wholeUnits } from "../spec/quantities.ts";
import { qosClass } from "../spec/resources.ts";
import type { ResizePending } from "../status/conditions.ts";
import type { AssignedPod } from "../types.ts";
import { isCritical, isStatic, requestsOf } from "./preemption.ts";
import { refuseUnsupported } from "./unsupported.ts";

/** Why a pod cannot run here; final. `reason` is the kubelet's. */
export interface Refusal {
  readonly reason: string;
  readonly message: string;
}

/** How much of a resource is missing; millicores of cpu, else whole units. */
export interface Shortage {
  readonly resource: string;
  readonly amount: number;
}

/** One of the reasons against a pod; a lack of resources can be mended by preemption. */
interface Failure extends Refusal {
  readonly shortage?: Shortage;
}

/** What is to be done about a new pod. */
export type Admission =
  | { readonly kind: "admit" }
  | { readonly kind: "refuse"; readonly refusal: Refusal; readonly onlyNodeAffinity: boolean }
  /** A critical pod that lacks nothing but resources: others make room for it. */
  | { readonly kind: "preempt"; readonly shortages: readonly Shortage[] };

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

/** Ports of containers that run as long as the pod does; who is done before the others start takes nobody's. */
function usedPorts(pod: AssignedPod): readonly UsedPort[] {
  const host = isHostNetwork(pod);
  return allContainers(pod).flatMap(({ container, role }) =>
    role === "init"
      ? []
      : (container.ports ?? []).flatMap((port): readonly UsedPort[] => {
          const own = port.hostPort ?? 0;
          // The API server fills this in, for files of static pods nobody does.
          const number = own === 0 && host ? port.containerPort : own;
          if (number === 0) return [];
          const ip = port.hostIP ?? "";
          return [
            { ip: ip === "" ? anyAddress : ip, protocol: port.protocol ?? "TCP", port: number },
          ];
        }),
  );
}

/** All addresses of both families; `::` is an address like others to the scheduler, and so it is here. */
const anyAddress = "0.0.0.0";

const checkNodePorts: Check = (pod, { others }) => {
  const taken = others.flatMap(usedPorts);
  const clash = usedPorts(pod).some((port) =>
    taken.some(
      (other) =>
        other.port === port.port &&
        other.protocol === port.protocol &&
        (other.ip === port.ip || other.ip === anyAddress || port.ip === anyAddress),
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
  if (isStatic(pod)) return undefined;
  const { tolerations = [] } = pod.spec ?? {};
  const untolerated = untoleratedTaint(node?.spec?.taints ?? [], tolerations, ["NoExecute"]);
  if (untolerated === undefined) return undefined;
  return {
    reason: "TaintToleration",
    message: "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
  };
};

/** Named by whom they belong to, and not by Kubernetes itself (v1helper.IsExtendedResourceName). */
function isExtended(name: string): boolean {
  return name.includes("/") && !name.includes("kubernetes.io/") && !name.startsWith("requests.");
}

function capacityOf(name: string, allocatable: Resources): number {
  const quantity = allocatable[name];
  if (quantity === undefined) return 0;
  return name === "cpu" ? milliUnits(quantity) : wholeUnits(quantity);
}

/** In the order in which they are reported: what all pods have first. */
const resourceOrder = ["pods", "cpu", "memory", "ephemeral-storage"];

function rank(name: string): number {
  const at = resourceOrder.indexOf(name);
  return at < 0 ? resourceOrder.length : at;
}

function shortages(pod: AssignedPod, { node, others }: AdmissionInput): readonly Failure[] {
  const allocatable = node?.status?.allocatable ?? {};
  const used = new Map<string, number>();
  for (const other of others) addAmounts(used, requestsOf(other));
  return [...requestsOf(pod)]
    .toSorted(([a], [b]) => rank(a) - rank(b) || a.localeCompare(b, "en"))
    .flatMap(([resource, requested]): readonly Failure[] => {
      // Resources that the node has never heard of may belong to a device plug-in of another day.
      const unknown = allocatable[resource] === undefined && isExtended(resource);
      const capacity = capacityOf(resource, allocatable);
      const taken = used.get(resource) ?? 0;
      if (requested === 0 || unknown || requested <= capacity - taken) return [];
      const message = `Node didn't have enough resource: ${resource}, requested: ${requested}, used: ${taken}, capacity: ${capacity}`;
      const shortage = { resource, amount: requested - (capacity - taken) };
      return [{ reason: `OutOf${resource}`, message, shortage }];
    });
}

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

/** Conditions of a node that keep pods away, in the order in which they are told. */
const pressures = ["MemoryPressure", "DiskPressure", "PIDPressure"];
const memoryPressureTaint = {
  key: "node.kubernetes.io/memory-pressure",
  effect: "NoSchedule",
} as const;

/** Critical pods come in even then; under memory pressure so do all that have asked for something. */
const checkPressure: Check = (pod, { node }) => {
  const under = pressures.filter((type) =>
    (node?.status?.conditions ?? []).some((each) => each.type === type && each.status === "True"),
  );
  if (under.length === 0 || isCritical(pod)) return undefined;
  if (under.length === 1 && under[0] === "MemoryPressure") {
    const { tolerations = [] } = pod.spec ?? {};
    const tolerated =
      untoleratedTaint([memoryPressureTaint], tolerations, ["NoSchedule"]) === undefined;
    if (tolerated || qosClass(pod) !== "BestEffort") return undefined;
  }
  return { reason: "Evicted", message: `The node had condition: [${under.join(" ")}]. ` };
};

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

/** What the node must have declared (KEP-5328) and has not: of that, pods can ask for this alone. */
const checkDeclaredFeatures: Check = (pod) => {
  if (!isHostNetwork(pod) || pod.spec?.hostUsers !== false) return undefined;
  return {
    reason: "PodFeatureUnsupported",
    message: "Pod requires node features that are not available: UserNamespacesHostNetworkSupport",
  };
};

/** What no preemption can help. */
const firstChecks: readonly Check[] = [
  checkPressure,
  checkSysctls,
  checkOS,
  checkSupplementalGroups,
];
const placeChecks: readonly Check[] = [
  checkNodeAffinity,
  checkNodeName,
  checkNodePorts,
  checkTaints,
];
const lastChecks: readonly Check[] = [
  (pod, { features }) => refuseUnsupported(pod, features),
  checkInitContainers,
  checkDeclaredFeatures,
];

function firstOf(
  checks: readonly Check[],
  pod: AssignedPod,
  input: AdmissionInput,
): Refusal | undefined {
  for (const check of checks) {
    const refusal = check(pod, input);
    if (refusal !== undefined) return refusal;
  }
  return undefined;
}

function asList<T>(value: T | undefined): readonly T[] {
  return value === undefined ? [] : [value];
}

function refuse(refusal: Refusal, onlyNodeAffinity = false): Admission {
  const { message, reason } = refusal;
  return { kind: "refuse", refusal: { reason, message }, onlyNodeAffinity };
}

/**
 * Whether the pod may run on this node, by the kubelet's rules in the kubelet's order: the first reason against it is
 * the one that is told. Pure.
 */
export function decideAdmission(pod: AssignedPod, input: AdmissionInput): Admission {
  const early = firstOf(firstChecks, pod, input);
  if (early !== undefined) return refuse(early);
  const places = placeChecks.flatMap((check): readonly Failure[] => asList(check(pod, input)));
  const failures = [...shortages(pod, input), ...places];
  const missing = failures.flatMap(({ shortage }) => asList(shortage));
  const preempts = isCritical(pod) && missing.length > 0;
  const [first] = preempts ? places : failures;
  if (first !== undefined) {
    return refuse(
      first,
      failures.every(({ reason }) => reason === "NodeAffinity"),
    );
  }
  const late = firstOf(lastChecks, pod, input);
  if (late !== undefined) return refuse(late);
  return preempts ? { kind: "preempt", shortages: missing } : { kind: "admit" };
}

/** The first reason against a pod, whether or not others could make room for it. Pure. */
export function admitPod(pod: AssignedPod, input: AdmissionInput): Refusal | undefined {
  const admission = decideAdmission(pod, input);
  return admission.kind === "refuse" ? admission.refusal : undefined;
}
