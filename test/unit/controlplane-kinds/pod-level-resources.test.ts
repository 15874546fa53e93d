import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { record } from "../../../src/controlplane/kinds/access.ts";
import { StatusError } from "../../../src/controlplane/status-error.ts";
import type { JsonObject } from "../../../src/controlplane/types.ts";
import { createCluster } from "./harness.ts";

function container(name: string, resources: JsonObject = {}, more: JsonObject = {}): JsonObject {
  return { name, image: "i", resources, ...more };
}

/** The resources of a pod as a whole as they are stored, or why there is no such pod. */
function created(resources: JsonObject, spec: JsonObject = {}): unknown {
  const pod = {
    metadata: { name: "p", namespace: "default" },
    spec: { containers: [container("c")], resources, ...spec },
  };
  try {
    return record(createCluster().create("pods", "default", pod)["spec"])["resources"];
  } catch (error) {
    assert(error instanceof StatusError);
    return error.message.replace('Pod "p" is invalid: ', "");
  }
}

// Each of these was seen to come out so of a kube-apiserver 1.36.
describe("resources of a pod as a whole", () => {
  test("a limit without a request is one", () => {
    assert.deepEqual(created({ limits: { cpu: "1000m", memory: "1024Mi" } }), {
      limits: { cpu: "1", memory: "1Gi" },
      requests: { cpu: "1", memory: "1Gi" },
    });
  });

  test("unless containers ask for something: then that, or what a step of their initialisation needs", () => {
    const containers = [
      container("c", { requests: { cpu: "100m", memory: "1Mi" } }),
      container("d", { requests: { cpu: "200m" } }),
    ];
    const initContainers = [
      container("i", { requests: { cpu: "700m" } }),
      container("s", { requests: { cpu: "50m" } }, { restartPolicy: "Always" }),
    ];
    assert.deepEqual(created({ limits: { cpu: "1" } }, { containers, initContainers }), {
      limits: { cpu: "1" },
      requests: { cpu: "700m", memory: "1Mi" },
    });
  });

  test("without limits nothing is added, and without anything at all neither", () => {
    assert.deepEqual(created({ requests: { cpu: "1" } }), { requests: { cpu: "1" } });
    assert.deepEqual(created({}), {});
  });

  test("huge pages of containers are the pod's, too", () => {
    const pages = { "hugepages-2Mi": "4Mi" };
    const containers = [container("c", { requests: { cpu: "1m", ...pages }, limits: pages })];
    assert.deepEqual(created({ limits: { cpu: "1" } }, { containers }), {
      limits: { cpu: "1", ...pages },
      requests: { cpu: "1m", ...pages },
    });
  });

  for (const [what, resources, spec, message] of [
    [
      "a request above its limit",
      { limits: { cpu: "1" }, requests: { cpu: "2" } },
      {},
      'spec.resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1',
    ],
    [
      "less than containers ask for",
      { requests: { cpu: "100m" } },
      { containers: [container("c", { requests: { cpu: "200m" } })] },
      'spec.resources.requests[cpu]: Invalid value: "100m": must be greater than or equal to aggregate container requests of 200m',
    ],
    [
      "less than a container may use",
      { limits: { cpu: "100m" } },
      { containers: [container("c", { limits: { cpu: "200m" }, requests: { cpu: "1m" } })] },
      'spec.resources.containers[0][cpu].limits: Invalid value: "200m": must be less than or equal to pod limits of 100m',
    ],
    [
      "storage",
      { limits: { "ephemeral-storage": "1Gi" } },
      {},
      'spec.resources.limits[ephemeral-storage]: Unsupported value: "ephemeral-storage": supported values: "cpu", "hugepages-", "memory"',
    ],
    [
      "a resource of nobody",
      { limits: { foo: "1" } },
      {},
      'spec.resources.limits[foo]: Invalid value: "foo": must be a standard resource type or fully qualified',
    ],
    [
      "huge pages without a limit",
      { requests: { cpu: "1", "hugepages-2Mi": "4Mi" } },
      {},
      "spec.resources.limits: Required value: Limit must be set for non overcommitable resources",
    ],
    [
      "claims",
      { claims: [{ name: "x" }] },
      {},
      "spec.resources.claims: Forbidden: claims may not be set for Resources at pod-level",
    ],
    [
      "another system",
      { limits: { cpu: "1" } },
      { os: { name: "windows" } },
      "spec.resources: Forbidden: may not be set for a windows pod",
    ],
  ] as const) {
    test(`${what} is refused`, () => {
      const told = String(created(resources, spec));
      assert(told.includes(message), told);
    });
  }
});
