import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { PodSpec } from "../../../src/api/types.gen.ts";
import { type AdmissionInput, decideAdmission } from "../../../src/kubelet/pods/admission.ts";
import { choosePreempted, isCritical } from "../../../src/kubelet/pods/preemption.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";
import { container, pod } from "./builders.ts";

type Amounts = Readonly<Record<string, string>>;

function named(
  name: string,
  resources: { readonly requests?: Amounts; readonly limits?: Amounts } = {},
  more: Partial<PodSpec> = {},
): AssignedPod {
  const base = pod({ containers: [container("web", { resources })], ...more });
  return { ...base, metadata: { ...base.metadata, name, uid: name } };
}

const burstable = (name: string, memory: string, cpu = "0"): AssignedPod =>
  named(name, { requests: { memory, cpu } });
const guaranteed = (name: string, memory: string): AssignedPod =>
  named(name, { requests: { memory, cpu: "1" }, limits: { memory, cpu: "1" } });
const critical = (resources = {}): AssignedPod =>
  named("critical", resources, { priority: 2_000_000_000 });

const mi = 1024 * 1024;
const memory = (amount: number) => [{ resource: "memory", amount: amount * mi }];

describe("who makes room for a critical pod", () => {
  const rows: readonly {
    readonly name: string;
    readonly running: readonly AssignedPod[];
    readonly missing: readonly { readonly resource: string; readonly amount: number }[];
    readonly victims: readonly string[];
  }[] = [
    {
      name: "nobody, when nothing is missing",
      running: [burstable("a", "1Gi")],
      missing: [],
      victims: [],
    },
    {
      name: "the smallest that suffices alone",
      running: [burstable("big", "1Gi"), burstable("fits", "200Mi"), burstable("small", "50Mi")],
      missing: memory(100),
      victims: ["fits"],
    },
    {
      name: "few rather than many",
      running: [burstable("a", "60Mi"), burstable("b", "60Mi"), burstable("c", "100Mi")],
      missing: memory(100),
      victims: ["c"],
    },
    {
      name: "several, when none suffices alone",
      running: [burstable("a", "60Mi"), burstable("b", "50Mi"), burstable("c", "10Mi")],
      missing: memory(100),
      victims: ["a", "b"],
    },
    {
      name: "burstable before guaranteed, even if that takes more of them",
      running: [guaranteed("g", "100Mi"), burstable("a", "60Mi"), burstable("b", "50Mi")],
      missing: memory(100),
      victims: ["a", "b"],
    },
    {
      name: "a guaranteed one only for what the others cannot give",
      running: [guaranteed("g", "100Mi"), burstable("a", "60Mi"), burstable("b", "10Mi")],
      missing: memory(120),
      victims: ["a", "g"],
    },
    {
      name: "best effort, when it is the number of pods",
      running: [named("idle"), burstable("a", "60Mi")],
      missing: [{ resource: "pods", amount: 1 }],
      victims: ["idle"],
    },
    {
      name: "no critical pod",
      running: [critical({ requests: { memory: "1Gi" } }), burstable("a", "200Mi")],
      missing: memory(100),
      victims: ["a"],
    },
    {
      name: "each resource weighs the same",
      running: [burstable("memory", "1Gi", "10m"), burstable("both", "90Mi", "900m")],
      missing: [...memory(90), { resource: "cpu", amount: 900 }],
      victims: ["both"],
    },
  ];
  for (const { missing, name, running, victims } of rows) {
    test(name, () => {
      const choice = choosePreempted(critical(), running, missing);
      assert(choice.kind === "victims");
      assert.deepEqual(
        choice.pods.map(({ metadata }) => metadata.name).toSorted(),
        [...victims].toSorted(),
      );
    });
  }

  test("says what no set of pods can give", () => {
    assert.deepEqual(choosePreempted(critical(), [burstable("a", "1Mi")], memory(2)), {
      kind: "impossible",
      message: `preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: [(res: memory, q: ${mi}), ]`,
    });
  });
});

describe("a critical pod", () => {
  const annotated = (annotations: Readonly<Record<string, string>>): AssignedPod => {
    const base = pod();
    return { ...base, metadata: { ...base.metadata, annotations } };
  };

  test("is static, a mirror, or has the priority of the system", () => {
    assert(isCritical(annotated({ "kubernetes.io/config.source": "file" })));
    assert(isCritical(annotated({ "kubernetes.io/config.mirror": "x" })));
    assert(isCritical(pod({ priority: 2_000_000_000 })));
    assert(!isCritical(annotated({ "kubernetes.io/config.source": "api" })));
    assert(!isCritical(pod({ priority: 1_999_999_999 })));
    assert(!isCritical(pod()));
  });

  const node = {
    metadata: { labels: {} },
    spec: { taints: [{ key: "out", effect: "NoExecute" as const }] },
    status: { allocatable: { cpu: "1", memory: "100Mi", pods: "10" } },
  };
  const tolerant: Partial<PodSpec> = { tolerations: [{ operator: "Exists" }] };
  const input: AdmissionInput = {
    node,
    nodeName: "worker",
    others: [burstable("a", "60Mi")],
    allowedUnsafeSysctls: [],
    features: new Set(),
  };
  const asks = { requests: { memory: "80Mi" } };

  test("that lacks nothing but resources asks others to go", () => {
    const subject = named("critical", asks, { priority: 2_000_000_000, ...tolerant });
    assert.deepEqual(decideAdmission(subject, input), {
      kind: "preempt",
      shortages: [{ resource: "memory", amount: 40 * mi }],
    });
  });

  test("that may not be here for another reason costs nobody anything", () => {
    const subject = named("critical", asks, { priority: 2_000_000_000 });
    assert.deepEqual(decideAdmission(subject, input), {
      kind: "refuse",
      refusal: {
        reason: "TaintToleration",
        message:
          "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
      },
      onlyNodeAffinity: false,
    });
    const odd = named("critical", asks, {
      priority: 2_000_000_000,
      ...tolerant,
      hostUsers: false,
    });
    assert.equal(decideAdmission(odd, input).kind, "refuse");
  });

  test("that comes from this machine is not driven away by taints", () => {
    const subject = annotated({ "kubernetes.io/config.source": "file" });
    assert.deepEqual(decideAdmission(subject, { ...input, others: [] }), { kind: "admit" });
  });
});

describe("the reason that is told of several", () => {
  const node = {
    metadata: { labels: {} },
    status: {
      allocatable: {
        cpu: "1",
        memory: "100Mi",
        pods: "1",
        "ephemeral-storage": "1Gi",
        "hugepages-2Mi": "4Mi",
        "example.com/gpu": "1",
      },
    },
  };
  const of = (subject: AssignedPod, others: readonly AssignedPod[] = []) => {
    const admission = decideAdmission(subject, {
      node,
      nodeName: "worker",
      others,
      allowedUnsafeSysctls: [],
      features: new Set(),
    });
    return admission.kind === "refuse" ? admission : undefined;
  };
  const asking = (requests: Amounts, more = {}): AssignedPod => named("new", { requests }, more);
  const lost = { nodeName: "elsewhere", nodeSelector: { a: "b" } };

  const rows: readonly (readonly [string, AssignedPod, string | undefined])[] = [
    ["cpu before memory", asking({ memory: "1Gi", cpu: "2" }), "OutOfcpu"],
    ["memory before storage", asking({ "ephemeral-storage": "2Gi", memory: "1Gi" }), "OutOfmemory"],
    ["storage", asking({ "ephemeral-storage": "2Gi" }), "OutOfephemeral-storage"],
    ["huge pages", asking({ "hugepages-2Mi": "8Mi" }), "OutOfhugepages-2Mi"],
    [
      "huge pages of a size that is not there",
      asking({ "hugepages-1Gi": "1Gi" }),
      "OutOfhugepages-1Gi",
    ],
    ["extended resources", asking({ "example.com/gpu": "2" }), "OutOfexample.com/gpu"],
    [
      "extended resources that the node does not know",
      asking({ "example.com/fpga": "2" }),
      undefined,
    ],
    ["resources before affinity", asking({ cpu: "2" }, lost), "OutOfcpu"],
    ["affinity before the node's name", asking({}, lost), "NodeAffinity"],
    [
      "the operating system before resources",
      asking({ cpu: "2" }, { os: { name: "windows" } }),
      "PodOSNotSupported",
    ],
    [
      "sysctls before all",
      asking(
        { cpu: "2" },
        {
          os: { name: "windows" },
          securityContext: { sysctls: [{ name: "kernel.shmmax", value: "1" }] },
        },
      ),
      "SysctlForbidden",
    ],
    ["resources before features", asking({ cpu: "2" }, { hostUsers: false }), "OutOfcpu"],
    ["overhead counts", asking({ cpu: "900m" }, { overhead: { cpu: "200m" } }), "OutOfcpu"],
    [
      "pod-level requests count",
      named("new", {}, { resources: { requests: { cpu: "2" } } }),
      "OutOfcpu",
    ],
    [
      "sidecars count beside what follows them",
      named(
        "new",
        { requests: { cpu: "600m" } },
        {
          initContainers: [
            container("side", {
              restartPolicy: "Always",
              resources: { requests: { cpu: "600m" } },
            }),
          ],
        },
      ),
      "OutOfcpu",
    ],
    [
      "init containers only as far as they need more",
      named(
        "new",
        { requests: { cpu: "600m" } },
        {
          initContainers: [container("first", { resources: { requests: { cpu: "600m" } } })],
        },
      ),
      undefined,
    ],
  ];
  for (const [name, subject, reason] of rows) {
    test(`${name}: ${reason ?? "admitted"}`, () => {
      assert.equal(of(subject)?.refusal.reason, reason);
    });
  }

  test("the number of pods comes first and counts from the pods that are there", () => {
    assert.deepEqual(of(asking({ cpu: "2" }), [named("other")])?.refusal, {
      reason: "OutOfpods",
      message: "Node didn't have enough resource: pods, requested: 1, used: 1, capacity: 1",
    });
  });

  test("affinity alone is worth another look at the node", () => {
    assert.equal(of(asking({}, { nodeSelector: { a: "b" } }))?.onlyNodeAffinity, true);
    assert.equal(of(asking({}, lost))?.onlyNodeAffinity, false);
    assert.equal(of(asking({ cpu: "2" }, lost))?.onlyNodeAffinity, false);
  });
});
