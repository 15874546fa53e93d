import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { networkError } from "../../../src/kubelet/node/conditions.ts";
import { networkRequest } from "../../../src/kubelet/spec/network-request.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";

const resolvConf = { nameservers: ["10.96.0.10"], searches: ["svc"], options: ["ndots:5"] };

function pod(annotations: Record<string, string>): AssignedPod {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "p", namespace: "n", uid: "u", resourceVersion: "1", annotations },
  };
}

describe("what a pod asks of its network", () => {
  test("is its annotations and names, and no bandwidth when it says none", () => {
    assert.deepEqual(networkRequest(pod({ a: "b" }), resolvConf), {
      annotations: { a: "b" },
      dns: { servers: ["10.96.0.10"], searches: ["svc"], options: ["ndots:5"] },
    });
  });

  test("is bandwidths in bits a second", () => {
    const { bandwidth } = networkRequest(
      pod({
        "kubernetes.io/ingress-bandwidth": "10M",
        "kubernetes.io/egress-bandwidth": "1Ki",
      }),
      resolvConf,
    );
    assert.deepEqual(bandwidth, { ingressBits: 10_000_000, egressBits: 1024 });
  });

  for (const [text, message] of [
    ["999", /resource is unreasonably small \(< 1kbit\)/],
    ["1001T", /resource is unreasonably large \(> 1Pbit\)/],
    ["fast", /^reading pod bandwidth annotations: .*ingress-bandwidth/],
    ["-1M", /unreasonably small/],
  ] as const) {
    test(`is refused with a bandwidth of ${text}`, () => {
      const asking = pod({ "kubernetes.io/ingress-bandwidth": text });
      assert.throws(() => networkRequest(asking, resolvConf), {
        code: "REMORA_BANDWIDTH",
        message,
      });
    });
  }
});

describe("a network that is not ready", () => {
  test("is told of in the kubelet's words", () => {
    assert.equal(networkError(undefined), undefined);
    assert.equal(
      networkError("cni config uninitialized"),
      "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:cni config uninitialized",
    );
  });
});
