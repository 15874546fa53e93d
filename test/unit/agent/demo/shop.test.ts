import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { previousTemplate } from "../../../../src/agent/demo/api-tool.ts";
import { buildError } from "../../../../src/agent/demo/engine.ts";
import { podWords } from "../../../../src/agent/demo/pod-words.ts";
import { readyEndpoints, rolledOut } from "../../../../src/agent/demo/shop.ts";
import type { Stored } from "../../../../src/api/object.ts";
import type { Deployment, Pod, ReplicaSet } from "../../../../src/api/types.gen.ts";

const spec = { containers: [], nodeName: "n" };
const condition = (type: string, status: string, message?: string) =>
  ({ type, status, ...(message === undefined ? {} : { message }) }) as const;
const waiting = (reason: string, message?: string): Pod => ({
  spec,
  status: {
    containerStatuses: [
      {
        name: "a",
        image: "i",
        imageID: "",
        ready: false,
        restartCount: 0,
        state: { waiting: { reason, ...(message === undefined ? {} : { message }) } },
      },
    ],
  },
});

describe("podWords", () => {
  const cases: readonly (readonly [string, Pod])[] = [
    ["waiting for a node", { spec: { containers: [] } }],
    [
      "no node yet: 0/1 nodes are available",
      {
        spec: { containers: [] },
        status: { conditions: [condition("PodScheduled", "False", "0/1 nodes are available")] },
      },
    ],
    ["starting", { spec }],
    ["ContainerCreating", waiting("ContainerCreating")],
    ["ErrImagePull: no such image", waiting("ErrImagePull", "no such image")],
    ["running, not ready yet", { spec, status: { phase: "Running" } }],
    ["ready", { spec, status: { phase: "Running", conditions: [condition("Ready", "True")] } }],
    [
      "ending",
      {
        metadata: { deletionTimestamp: "2026-01-01T00:00:00Z" },
        spec,
        status: { conditions: [condition("Ready", "True")] },
      },
    ],
  ];
  for (const [words, pod] of cases) {
    test(words, () => {
      assert.equal(podWords(pod), words);
    });
  }
});

describe("rolledOut", () => {
  const deployment = (status: object): Deployment => ({
    metadata: { generation: 2 },
    spec: { replicas: 3, selector: {}, template: {} },
    status: {
      observedGeneration: 2,
      updatedReplicas: 3,
      replicas: 3,
      availableReplicas: 3,
      ...status,
    },
  });
  test("when all copies are new and available", () => {
    assert.equal(rolledOut(deployment({})), true);
  });
  for (const status of [
    { observedGeneration: 1 },
    { updatedReplicas: 2 },
    { replicas: 4 },
    { availableReplicas: 2 },
  ]) {
    test(`not with ${JSON.stringify(status)}`, () => {
      assert.equal(rolledOut(deployment(status)), false);
    });
  }
});

describe("readyEndpoints", () => {
  test("are those that are ready, by name, with the port of their slice", () => {
    const endpoint = (name: string, address: string, ready?: boolean) => ({
      addresses: [address],
      targetRef: { name },
      ...(ready === undefined ? {} : { conditions: { ready } }),
    });
    const slice = {
      addressType: "IPv4" as const,
      ports: [{ port: 8080 }],
      endpoints: [
        endpoint("b", "10.0.0.2", true),
        endpoint("a", "10.0.0.1"),
        endpoint("c", "10.0.0.3", false),
      ],
    };
    assert.deepEqual(readyEndpoints([slice]), [
      { pod: "a", address: "10.0.0.1:8080" },
      { pod: "b", address: "10.0.0.2:8080" },
    ]);
  });
});

describe("previousTemplate", () => {
  const deployment = {
    metadata: { name: "web", uid: "d", resourceVersion: "1" },
  } as Stored<Deployment>;
  const replicaSet = (name: string, revision: string, owner = "d"): Stored<ReplicaSet> => ({
    metadata: {
      name,
      uid: name,
      resourceVersion: "1",
      annotations: { "deployment.kubernetes.io/revision": revision },
      ownerReferences: [
        { apiVersion: "apps/v1", kind: "Deployment", name: "web", uid: owner, controller: true },
      ],
    },
    spec: {
      selector: {},
      template: {
        metadata: { labels: { app: "web", "pod-template-hash": name } },
        spec: { containers: [{ name: "a", image: name }] },
      },
    },
  });
  test("is that of the second highest revision, counted as a number, without its hash", () => {
    const sets = [
      replicaSet("v9", "9"),
      replicaSet("v10", "10"),
      replicaSet("v8", "8"),
      replicaSet("other", "11", "another deployment"),
    ];
    assert.deepEqual(previousTemplate(deployment, sets), {
      metadata: { labels: { app: "web" } },
      spec: { containers: [{ name: "a", image: "v9" }] },
    });
  });
  test("a deployment of one revision has none", () => {
    assert.throws(() => previousTemplate(deployment, [replicaSet("v1", "1")]), {
      message: /no rollout history found for deployment "web"/,
    });
  });
});

describe("buildError", () => {
  test("is found in the stream of a build that answered 200", () => {
    const stream = [
      '{"stream":"Step 1/2 : FROM scratch\\n"}',
      '{"errorDetail":{"message":"COPY failed"},"error":"COPY failed: no such file"}',
      "",
    ].join("\r\n");
    assert.equal(buildError(stream), "COPY failed: no such file");
    assert.equal(buildError('{"stream":"Successfully built"}\r\n'), undefined);
  });
});
