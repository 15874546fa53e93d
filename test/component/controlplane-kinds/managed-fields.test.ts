import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { dig, records } from "../../../src/controlplane/kinds/access.ts";
import { startServer, type Server } from "./server.ts";

let server: Server;
const { signal } = new AbortController();

before(async () => {
  server = startServer();
  const body = { metadata: { name: "default" } };
  await server.client.request({ method: "POST", path: "/api/v1/namespaces", body, signal });
});
after(() => server.close());

const listed = { ".": {} };
const leaf = {};

test("who creates a Deployment owns what is in it, and the structures that an empty one has not", async () => {
  const container = {
    name: "c",
    image: "nginx",
    env: [
      { name: "A", value: "1" },
      { name: "A", value: "2" },
      { name: "B", value: "3" },
    ],
    resources: { limits: { cpu: "1" } },
    ports: [{ containerPort: 80 }],
    livenessProbe: { httpGet: { path: "/", port: 80 } },
  };
  const body = {
    metadata: { name: "web", labels: { app: "web" } },
    spec: {
      selector: { matchLabels: { a: "b" } },
      template: {
        metadata: { labels: { a: "b" } },
        spec: { containers: [container], securityContext: { runAsUser: 1 } },
      },
    },
  };
  const path = "/apis/apps/v1/namespaces/default/deployments";
  const created = await server.client.request({ method: "POST", path, body, signal });
  // As a 1.36 API server enters it.
  assert.deepEqual(records(dig(created, "metadata", "managedFields"))[0]?.["fieldsV1"], {
    "f:metadata": { "f:labels": { ...listed, "f:app": leaf } },
    "f:spec": {
      "f:progressDeadlineSeconds": leaf,
      "f:replicas": leaf,
      "f:revisionHistoryLimit": leaf,
      "f:selector": leaf,
      "f:strategy": {
        "f:rollingUpdate": { ...listed, "f:maxSurge": leaf, "f:maxUnavailable": leaf },
        "f:type": leaf,
      },
      "f:template": {
        "f:metadata": { "f:labels": { ...listed, "f:a": leaf } },
        "f:spec": {
          "f:containers": {
            'k:{"name":"c"}': {
              ...listed,
              "f:env": {
                ...listed,
                'k:{"name":"A"}': leaf,
                'k:{"name":"B"}': { ...listed, "f:name": leaf, "f:value": leaf },
              },
              "f:image": leaf,
              "f:imagePullPolicy": leaf,
              "f:livenessProbe": {
                ...listed,
                "f:failureThreshold": leaf,
                "f:httpGet": { ...listed, "f:path": leaf, "f:port": leaf, "f:scheme": leaf },
                "f:periodSeconds": leaf,
                "f:successThreshold": leaf,
                "f:timeoutSeconds": leaf,
              },
              "f:name": leaf,
              "f:ports": {
                ...listed,
                'k:{"containerPort":80,"protocol":"TCP"}': {
                  ...listed,
                  "f:containerPort": leaf,
                  "f:protocol": leaf,
                },
              },
              "f:resources": { ...listed, "f:limits": { ...listed, "f:cpu": leaf } },
              "f:terminationMessagePath": leaf,
              "f:terminationMessagePolicy": leaf,
            },
          },
          "f:dnsPolicy": leaf,
          "f:restartPolicy": leaf,
          "f:schedulerName": leaf,
          "f:securityContext": { ...listed, "f:runAsUser": leaf },
          "f:terminationGracePeriodSeconds": leaf,
        },
      },
    },
  });
});
