import assert from "node:assert/strict";
import { test } from "node:test";

import { type AdmissionInput, admitPod } from "../../../src/kubelet/pods/admission.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";
import { container, pod } from "./builders.ts";

const node = {
  metadata: { labels: { disk: "ssd", "kubernetes.io/os": "linux", cores: "8" } },
  spec: { taints: [] },
  status: { allocatable: { cpu: "2", memory: "1Gi", pods: "2" } },
};

function input(more: Partial<AdmissionInput> = {}): AdmissionInput {
  return {
    node,
    nodeName: "worker",
    others: [],
    allowedUnsafeSysctls: ["kernel.msg*"],
    features: new Set(["stopSignal"]),
    ...more,
  };
}

function asking(cpu: string): AssignedPod {
  return pod({ containers: [container("web", { resources: { requests: { cpu } } })] });
}

const port = { containerPort: 80, hostPort: 8080 };
const withPorts = (name: string, more = {}, hostPort = 8080) =>
  container(name, { ports: [{ ...port, hostPort }], ...more });
const withPort = (more = {}): AssignedPod =>
  pod({ containers: [container("web", { ports: [{ ...port, ...more }] })] });
const sysctl = (name: string, more = {}): AssignedPod =>
  pod({ securityContext: { sysctls: [{ name, value: "1" }] }, ...more });
const tainted = {
  ...node,
  spec: { taints: [{ key: "out", value: "yes", effect: "NoExecute" as const }] },
};
const pressed = (...types: readonly string[]): AdmissionInput => {
  const conditions = ["Ready", ...types].map((type) => ({ type, status: "True" as const }));
  return input({ node: { ...node, status: { ...node.status, conditions } } });
};
const tolerant = (key: string): AssignedPod =>
  pod({ tolerations: [{ key: `node.kubernetes.io/${key}`, operator: "Exists" }] });
const affinity = (operator: "Gt" | "In" | "NotIn", values: string[], key = "cores"): AssignedPod =>
  pod({
    affinity: {
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: {
          nodeSelectorTerms: [{ matchExpressions: [{ key, operator, values }] }],
        },
      },
    },
  });

const table: readonly (readonly [string, AssignedPod, AdmissionInput, string | undefined])[] = [
  ["an ordinary pod", pod(), input(), undefined],
  ["another node's pod", pod({ nodeName: "other" }), input(), "NodeName"],
  ["a matching nodeSelector", pod({ nodeSelector: { disk: "ssd" } }), input(), undefined],
  [
    "a nodeSelector that does not match",
    pod({ nodeSelector: { disk: "hdd" } }),
    input(),
    "NodeAffinity",
  ],
  ["affinity Gt that holds", affinity("Gt", ["4"]), input(), undefined],
  ["affinity Gt that does not", affinity("Gt", ["8"]), input(), "NodeAffinity"],
  [
    "affinity NotIn on a label that is absent",
    affinity("NotIn", ["x"], "none"),
    input(),
    undefined,
  ],
  ["enough cpu", asking("1"), input({ others: [asking("1")] }), undefined],
  ["too much cpu", asking("1001m"), input({ others: [asking("1")] }), "OutOfcpu"],
  ["too many pods", pod(), input({ others: [pod(), pod()] }), "OutOfpods"],
  ["a free host port", withPort(), input({ others: [withPort({ hostPort: 81 })] }), undefined],
  ["a taken host port", withPort(), input({ others: [withPort()] }), "NodePorts"],
  [
    "the same port, other protocol",
    withPort(),
    input({ others: [withPort({ protocol: "UDP" })] }),
    undefined,
  ],
  [
    "the same port, other address",
    withPort({ hostIP: "127.0.0.1" }),
    input({ others: [withPort({ hostIP: "127.0.0.2" })] }),
    undefined,
  ],
  [
    "the same port, wildcard",
    withPort({ hostIP: "127.0.0.1" }),
    input({ others: [withPort()] }),
    "NodePorts",
  ],
  [
    "the same port, all addresses of IPv6 and one of them: two addresses to the scheduler",
    withPort({ hostIP: "::" }),
    input({ others: [withPort({ hostIP: "2001:db8::1" })] }),
    undefined,
  ],
  [
    "the same port, all addresses of IPv6 and all there are",
    withPort({ hostIP: "::" }),
    input({ others: [withPort({ hostIP: "0.0.0.0" })] }),
    "NodePorts",
  ],
  [
    "the port of a sidecar",
    withPort(),
    input({ others: [pod({ initContainers: [withPorts("s", { restartPolicy: "Always" })] })] }),
    "NodePorts",
  ],
  [
    "the port of an init container that has ended when others run",
    withPort(),
    input({ others: [pod({ initContainers: [withPorts("s")] })] }),
    undefined,
  ],
  [
    "the port of a pod on the node's network, also when nobody filled in which",
    withPort({ hostPort: 80 }),
    input({ others: [pod({ hostNetwork: true, containers: [withPorts("w", {}, 0)] })] }),
    "NodePorts",
  ],
  ["a NoExecute taint", pod(), input({ node: tainted }), "TaintToleration"],
  [
    "a tolerated taint",
    pod({ tolerations: [{ operator: "Exists" }] }),
    input({ node: tainted }),
    undefined,
  ],
  ["a safe sysctl", sysctl("net.ipv4.tcp_syncookies"), input(), undefined],
  ["an allowed unsafe sysctl", sysctl("kernel/msgmax"), input(), undefined],
  ["a forbidden sysctl", sysctl("kernel.shmmax"), input(), "SysctlForbidden"],
  [
    "a net sysctl on the node's network",
    sysctl("net.ipv4.tcp_syncookies", { hostNetwork: true }),
    input(),
    "SysctlForbidden",
  ],
  [
    "a pod that asks for nothing under memory pressure",
    pod(),
    pressed("MemoryPressure"),
    "Evicted",
  ],
  ["a Burstable pod under memory pressure", asking("1"), pressed("MemoryPressure"), undefined],
  [
    "a pod that tolerates memory pressure",
    tolerant("memory-pressure"),
    pressed("MemoryPressure"),
    undefined,
  ],
  [
    "a pod that tolerates another pressure",
    tolerant("disk-pressure"),
    pressed("MemoryPressure"),
    "Evicted",
  ],
  ["any pod under disk pressure", asking("1"), pressed("DiskPressure"), "Evicted"],
  [
    "any pod under two pressures",
    tolerant("memory-pressure"),
    pressed("MemoryPressure", "PIDPressure"),
    "Evicted",
  ],
  [
    "a critical pod under all of them",
    pod({ priority: 2_000_000_000 }),
    pressed("MemoryPressure", "DiskPressure", "PIDPressure"),
    undefined,
  ],
  [
    "a sysctl that is forbidden, under pressure",
    sysctl("kernel.shmmax"),
    pressed("DiskPressure"),
    "Evicted",
  ],
  ["another OS", pod({ os: { name: "windows" } }), input(), "PodOSNotSupported"],
  [
    "strict groups",
    pod({ securityContext: { supplementalGroupsPolicy: "Strict" } }),
    input(),
    "SupplementalGroupsPolicyNotSupported",
  ],
  ["user namespaces", pod({ hostUsers: false }), input(), "PodFeatureUnsupported"],
  [
    "user namespaces on the node's network, which no engine can do",
    pod({ hostUsers: false, hostNetwork: true }),
    input({ features: new Set(["userNamespaces"]) }),
    "PodFeatureUnsupported",
  ],
  [
    "a resource claim",
    pod({ resourceClaims: [{ name: "gpu" }] }),
    input(),
    "PodFeatureUnsupported",
  ],
  [
    "privileged where the engine is not",
    pod({ containers: [container("web", { securityContext: { privileged: true } })] }),
    input(),
    "PodFeatureUnsupported",
  ],
];

for (const [name, subject, given, reason] of table) {
  test(`admission: ${name} ${reason === undefined ? "passes" : `is refused with ${reason}`}`, () => {
    assert.equal(admitPod(subject, given)?.reason, reason);
  });
}

test("a refusal for lack of cpu gives the numbers in thousandths", () => {
  assert.equal(
    admitPod(asking("1500m"), input({ others: [asking("1")] }))?.message,
    "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000",
  );
});

test("a refusal under pressure names the conditions", () => {
  const refusal = admitPod(pod(), pressed("PIDPressure", "DiskPressure"));
  assert.equal(refusal?.message, "The node had condition: [DiskPressure PIDPressure]. ");
});
