import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";

import { record, records } from "../../../src/controlplane/kinds/access.ts";
import { StatusError } from "../../../src/controlplane/status-error.ts";
import type { JsonObject } from "../../../src/controlplane/types.ts";
import { createCluster, type Cluster } from "./harness.ts";

const resize = { subresource: "resize" };

let cluster: Cluster;

beforeEach(() => {
  cluster = createCluster();
  cluster.objects.put("nodes", {
    metadata: { name: "n1", labels: { "kubernetes.io/os": "linux" } },
    status: { allocatable: { cpu: "2", memory: "4Gi" } },
  });
});

function container(name: string, resources: JsonObject = {}, more: JsonObject = {}): JsonObject {
  return { name, image: "nginx", resources, ...more };
}

const some = { requests: { cpu: "100m", memory: "64Mi" }, limits: { cpu: "200m" } };

/** A pod that runs on n1. */
function running(spec: JsonObject, status: JsonObject = {}): JsonObject {
  const pod = cluster.create("pods", "default", {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "p", namespace: "default", labels: { app: "web" } },
    spec: { nodeName: "n1", ...spec },
  });
  pod["status"] = { ...record(pod["status"]), phase: "Running", ...status };
  cluster.objects.put("pods", pod);
  return pod;
}

type Edit = (spec: JsonObject, pod: JsonObject) => void;

function resized(old: JsonObject, edit: Edit): JsonObject {
  const wanted = structuredClone(old);
  const spec: unknown = wanted["spec"];
  assert(typeof spec === "object" && spec !== null);
  edit(spec as JsonObject, wanted);
  return cluster.update("pods", old, wanted, resize);
}

function refusal(old: JsonObject, edit: Edit): string {
  try {
    resized(old, edit);
    return "";
  } catch (error) {
    assert(error instanceof StatusError);
    return `${error.status} ${error.message}`;
  }
}

/** Sets members of the resources of the container at `index`. */
function give(resources: JsonObject, index = 0, key = "containers"): Edit {
  return (spec) => {
    const own = records(spec[key])[index];
    assert(own !== undefined);
    const now = record(own["resources"]);
    own["resources"] = Object.fromEntries(
      [...new Set([...Object.keys(now), ...Object.keys(resources)])].map((name) => [
        name,
        { ...record(now[name]), ...record(resources[name]) },
      ]),
    );
  };
}

function resourcesOf(pod: JsonObject, index = 0): unknown {
  return records(record(pod["spec"])["containers"])[index]?.["resources"];
}

describe("pods/resize", () => {
  test("changes cpu and memory, counts as a generation, and leaves everything else alone", () => {
    const old = running({ containers: [container("c", some), container("d")] });
    const pod = resized(old, (spec, whole) => {
      give({ requests: { cpu: "150m", memory: "128Mi" }, limits: { cpu: "300m" } })(spec, whole);
      spec["activeDeadlineSeconds"] = 5;
      records(spec["containers"]).forEach((each) => {
        each["image"] = "other";
      });
      whole["status"] = { phase: "Failed" };
      whole["metadata"] = { ...record(whole["metadata"]), labels: { app: "stolen" } };
    });
    assert.deepEqual(resourcesOf(pod), {
      requests: { cpu: "150m", memory: "128Mi" },
      limits: { cpu: "300m" },
    });
    assert.equal(record(pod["metadata"])["generation"], 2);
    assert.deepEqual(record(pod["metadata"])["labels"], { app: "web" });
    assert.equal(record(pod["status"])["phase"], "Running");
    assert.equal(record(pod["spec"])["activeDeadlineSeconds"], undefined);
    assert.equal(records(record(pod["spec"])["containers"])[0]?.["image"], "nginx");
  });

  test("nothing new is no new generation, however the amounts are written", () => {
    const old = running({ containers: [container("c", some)] });
    const pod = resized(old, () => undefined);
    assert.equal(record(pod["metadata"])["generation"], 1);
    assert.equal(
      refusal(
        running({
          containers: [container("c", { limits: { "ephemeral-storage": "1Gi", ...some.limits } })],
        }),
        give({ limits: { "ephemeral-storage": "1024Mi" } }),
      ),
      "",
    );
  });

  test("amounts may be given to resources that had none, as long as the class stays", () => {
    const old = running({ containers: [container("c", { requests: { cpu: "100m" } })] });
    const pod = resized(old, give({ requests: { memory: "1Gi" } }));
    assert.deepEqual(resourcesOf(pod), { requests: { cpu: "100m", memory: "1Gi" } });
  });

  for (const [what, spec, edit, message] of [
    [
      "another class of pod",
      { containers: [container("c")] },
      give({ requests: { cpu: "1m" } }),
      'spec: Invalid value: "BestEffort": Pod QOS Class may not change as a result of resizing',
    ],
    [
      "a request that goes",
      { containers: [container("c", some)] },
      ((spec) => {
        const [own] = records(spec["containers"]);
        if (own !== undefined) own["resources"] = { ...some, requests: { cpu: "100m" } };
      }) satisfies Edit,
      "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
    ],
    [
      "a limit that goes",
      { containers: [container("c", some)] },
      ((spec) => {
        const [own] = records(spec["containers"]);
        if (own !== undefined) own["resources"] = { requests: some.requests };
      }) satisfies Edit,
      "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
    ],
    [
      "another resource",
      { containers: [container("c", some)] },
      give({ requests: { "ephemeral-storage": "1Gi" } }),
      "spec: Forbidden: only cpu and memory resources are mutable",
    ],
    [
      "another resize policy",
      { containers: [container("c", some)] },
      ((spec) => {
        const [own] = records(spec["containers"]);
        if (own === undefined) return;
        own["resizePolicy"] = [{ resourceName: "cpu", restartPolicy: "RestartContainer" }];
      }) satisfies Edit,
      "spec: Forbidden: only cpu and memory resources are mutable",
    ],
    [
      "a container more",
      { containers: [container("c", some)] },
      ((spec) => {
        spec["containers"] = [...records(spec["containers"]), container("e", some)];
      }) satisfies Edit,
      "spec.containers: Forbidden: containers may not be added or removed on resize",
    ],
    [
      "another order",
      { containers: [container("c", some), container("d", some)] },
      ((spec) => {
        spec["containers"] = records(spec["containers"]).toReversed();
      }) satisfies Edit,
      "[spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize, spec.containers[1].name: Forbidden: containers may not be renamed or reordered on resize]",
    ],
    [
      "a request above its limit",
      { containers: [container("c", some)] },
      give({ requests: { cpu: "300m" } }),
      'spec.containers[0].resources.requests: Invalid value: "300m": must be less than or equal to cpu limit of 200m',
    ],
    [
      "an amount that is none",
      { containers: [container("c", some)] },
      give({ requests: { cpu: "-1" } }),
      'spec.containers[0].resources.requests[cpu]: Invalid value: "-1": must be greater than or equal to 0',
    ],
    [
      "another resource of a sidecar",
      {
        containers: [container("c", some)],
        initContainers: [container("s", some, { restartPolicy: "Always" })],
      },
      give({ requests: { "ephemeral-storage": "1Gi" } }, 0, "initContainers"),
      "spec.initContainers[0]: Forbidden: only cpu and memory resources for init or sidecar containers are mutable",
    ],
    [
      "pod-level resources that go",
      { containers: [container("c")], resources: { requests: { cpu: "1" } } },
      ((spec) => {
        delete spec["resources"];
      }) satisfies Edit,
      "spec.resources: Forbidden: pod-level resources cannot be removed",
    ],
  ] as const) {
    test(`${what} is refused`, () => {
      const told = refusal(running(spec), edit);
      assert(told.startsWith('422 Pod "p" is invalid: '), told);
      assert(told.includes(message), told);
    });
  }

  test("sidecars, init containers and the pod as a whole are resized", () => {
    const sidecar = container("s", some, { restartPolicy: "Always" });
    const old = running({
      containers: [container("c", some)],
      initContainers: [sidecar, container("i", some)],
    });
    const more = { requests: { cpu: "150m" } };
    assert.equal(refusal(old, give(more, 0, "initContainers")), "");
    assert.equal(refusal(old, give(more, 1, "initContainers")), "");
    const whole = running({
      containers: [container("c")],
      resources: { requests: { cpu: "500m", memory: "1Gi" }, limits: { cpu: "1", memory: "2Gi" } },
    });
    const pod = resized(whole, (spec) => {
      spec["resources"] = {
        requests: { cpu: "600m", memory: "1Gi" },
        limits: { cpu: "1", memory: "3Gi" },
      };
    });
    assert.deepEqual(record(record(pod["spec"])["resources"])["limits"], {
      cpu: "1",
      memory: "3Gi",
    });
  });

  test("an init container that would have to be restarted is not", () => {
    const old = running({
      containers: [container("c", some)],
      initContainers: [
        container("i", some, {
          resizePolicy: [{ resourceName: "cpu", restartPolicy: "RestartContainer" }],
        }),
      ],
    });
    assert.match(
      refusal(old, give({ requests: { cpu: "1m" } }, 0, "initContainers")),
      /spec\.initContainers\[0\]: Forbidden: non-sidecar init containers with a resize policy of RestartContainer cannot be resized$/,
    );
  });

  test("mirror pods are not, nor pods on a node that reports no resources", () => {
    const old = running({ containers: [container("c", some)] });
    const mirror = structuredClone(old);
    mirror["metadata"] = {
      ...record(mirror["metadata"]),
      annotations: { "kubernetes.io/config.mirror": "x" },
    };
    assert.equal(
      refusal(mirror, give({ requests: { cpu: "1m" } })),
      '422 Pod "p" is invalid: []: Forbidden: static pods cannot be resized',
    );
    const state = { running: { startedAt: "2026-01-01T00:00:00Z" } };
    const silent = running(
      { containers: [container("c", some)] },
      { containerStatuses: [{ name: "c", state }] },
    );
    assert.match(
      refusal(silent, give({ requests: { cpu: "1m" } })),
      /spec: Forbidden: Pod running on node without support for resize$/,
    );
    const telling = running(
      { containers: [container("c", some)] },
      { containerStatuses: [{ name: "c", state, resources: some }] },
    );
    assert.equal(refusal(telling, give({ requests: { cpu: "1m" } })), "");
  });
});

describe("PodResizeValidator", () => {
  const large = give({ requests: { cpu: "3", memory: "5Gi" }, limits: { cpu: "3" } });

  test("what the node could never give is refused, with the amounts", () => {
    const old = running({ containers: [container("c", some)] });
    assert.equal(
      refusal(old, large),
      '403 pods "p" is forbidden: node didn\'t have enough allocatable resources: cpu, requested: 3000, allocatable: 2000; memory, requested: 5368709120, allocatable: 4294967296',
    );
  });

  test("a pod without a node may ask for anything, one whose node went for nothing", () => {
    assert.equal(refusal(running({ containers: [container("c", some)], nodeName: "" }), large), "");
    cluster.objects.remove("nodes", "", "n1");
    const old = running({ containers: [container("c", some)] });
    assert.equal(refusal(old, large), '403 pods "p" is forbidden: node "n1" not found');
    assert.equal(
      refusal(old, () => undefined),
      "",
    );
  });

  test("a node of another system resizes nothing", () => {
    cluster.objects.put("nodes", {
      metadata: { name: "n1", labels: { "kubernetes.io/os": "plan9" } },
      status: { allocatable: { cpu: "2", memory: "4Gi" } },
    });
    const old = running({ containers: [container("c", some)] });
    assert.match(
      refusal(old, give({ requests: { cpu: "1m" } })),
      /pod resize is only supported on linux nodes, node "n1" is "plan9"$/,
    );
  });
});
