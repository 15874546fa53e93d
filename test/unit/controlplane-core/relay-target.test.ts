import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { relayTarget, type RelayRequest } from "../../../src/controlplane/http/relay-target.ts";
import type { RelayTarget } from "../../../src/controlplane/http/call.ts";
import type { JsonObject, ObjectReader } from "../../../src/controlplane/types.ts";
import { nodeKind, podKind, kindOf } from "../../component/controlplane-core/test-kinds.ts";

const serviceKind = kindOf("services", "Service");

function reader(objects: Readonly<Record<string, JsonObject>>): ObjectReader {
  return {
    get: (resource, _namespace, name) => objects[`${resource}/${name}`],
    list: (resource) =>
      Object.entries(objects)
        .filter(([key]) => key.startsWith(`${resource}/`))
        .map(([, object]) => object),
  };
}

function slice(address: string, ready = true): JsonObject {
  return {
    metadata: { name: "web-1", labels: { "kubernetes.io/service-name": "web" } },
    ports: [
      { name: "http", port: 8080 },
      { name: "admin", port: 9090 },
    ],
    endpoints: [{ addresses: [address], conditions: { ready } }],
  };
}

const web = {
  spec: {
    ports: [
      { name: "http", port: 80 },
      { name: "admin", port: 81 },
    ],
  },
};

function proxy(
  name: string,
  objects: Readonly<Record<string, JsonObject>>,
  more: Partial<RelayRequest> = {},
): RelayTarget | undefined {
  const request = { kind: serviceKind, namespace: "default", name, subresource: "proxy" };
  const query = new URLSearchParams("a=b");
  return relayTarget({ ...request, rest: "/x", query, ...more }, reader(objects));
}

describe("where a proxied request goes", () => {
  const served = {
    "services/web": web,
    "endpointslices.discovery.k8s.io/web-1": slice("10.244.0.7"),
  };

  test("to a ready endpoint, by the name or the number of the Service's port", () => {
    const expected = { kind: "pod-proxy", node: undefined, host: "10.244.0.7", path: "/x?a=b" };
    assert.deepEqual(proxy("web:http", served), { ...expected, port: 8080, scheme: "http" });
    assert.deepEqual(proxy("https:web:81", served), { ...expected, port: 9090, scheme: "https" });
  });

  const refused: readonly (readonly [
    string,
    string,
    Readonly<Record<string, JsonObject>>,
    number,
    RegExp,
  ])[] = [
    ["a missing Service", "no:http", served, 404, /services "no" not found/],
    ["an unknown port", "web:99", served, 503, /^no service port "99" found for service "web"$/],
    ["no port where there are several", "web", served, 503, /no service port ""/],
    [
      "a Service without ready endpoints",
      "web:http",
      { ...served, "endpointslices.discovery.k8s.io/web-1": slice("10.244.0.7", false) },
      503,
      /^no endpoints available for service "web"$/,
    ],
    ...["127.0.0.1", "169.254.169.254", "::1", "fe80::1"].map(
      (address) =>
        [
          `the address ${address}`,
          "web:http",
          { ...served, "endpointslices.discovery.k8s.io/web-1": slice(address) },
          400,
          /^address not allowed$/,
        ] as const,
    ),
  ];
  for (const [what, name, objects, status, message] of refused) {
    test(`refuses ${what}`, () => {
      assert.throws(() => proxy(name, objects), { status, message });
    });
  }

  test("to a pod's port, and not to a pod without an address", () => {
    const pod = {
      spec: { containers: [{ ports: [{ name: "web", containerPort: 8080 }] }] },
      status: { podIP: "10.244.0.9" },
    };
    const kind = podKind;
    assert.equal(proxy("p:web", { "pods/p": pod }, { kind })?.port, 8080);
    assert.equal(proxy("p", { "pods/p": pod }, { kind })?.host, "10.244.0.9");
    assert.throws(() => proxy("p", { "pods/p": { ...pod, status: {} } }, { kind }), {
      status: 400,
    });
  });

  test("to a node's kubelet port, or another one of its", () => {
    const node = {
      metadata: { name: "n1" },
      status: {
        addresses: [{ type: "InternalIP", address: "192.0.2.1" }],
        daemonEndpoints: { kubeletEndpoint: { Port: 10250 } },
      },
    };
    const kind = nodeKind;
    assert.equal(proxy("n1", { "nodes/n1": node }, { kind })?.port, 10_250);
    assert.equal(proxy("n1:10255", { "nodes/n1": node }, { kind })?.port, 10_255);
  });

  test("to this machine's own node over loopback, but for other ports of it and for other nodes", () => {
    const node = (address: string): JsonObject => ({
      status: {
        addresses: [{ type: "InternalIP", address }],
        daemonEndpoints: { kubeletEndpoint: { Port: 10_260 } },
      },
    });
    const pod = (nodeName: string): JsonObject => ({
      spec: { nodeName, containers: [{ name: "c" }] },
    });
    const objects = reader({
      "nodes/here": node("192.0.2.1"),
      "nodes/there": node("192.0.2.2"),
      "pods/mine": pod("here"),
      "pods/other": pod("there"),
    });
    const target = (kind: RelayRequest["kind"], name: string, subresource: string): string => {
      const request = { kind, namespace: "default", name, subresource, rest: "" };
      const query = new URLSearchParams("stdout=true");
      const found = relayTarget({ ...request, query }, objects, "here");
      return `${found?.node ?? ""} ${found?.host ?? ""}:${found?.port ?? 0}`;
    };
    assert.equal(target(podKind, "mine", "log"), "here 127.0.0.1:10260");
    assert.equal(target(podKind, "mine", "exec"), "here 127.0.0.1:10260");
    assert.equal(target(podKind, "other", "exec"), "there 192.0.2.2:10260");
    assert.equal(target(nodeKind, "here", "proxy"), "here 127.0.0.1:10260");
    assert.equal(target(nodeKind, "here:9100", "proxy"), "here 192.0.2.1:9100");
    assert.equal(target(nodeKind, "there", "proxy"), "there 192.0.2.2:10260");
  });
});
