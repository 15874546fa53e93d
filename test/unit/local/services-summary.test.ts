import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { servicesSummary } from "../../../src/agent/local/services-summary.ts";
import { parseService, parseSlice } from "../../../src/proxy/parse.ts";

function service(name: string, spec: object = {}): ReturnType<typeof parseService> {
  const metadata = { namespace: "a", name };
  const ports = [{ port: 80, protocol: "TCP" }];
  return parseService({ metadata, spec: { clusterIP: "10.96.0.9", ports, ...spec } });
}

function slice(
  service: string,
  name: string,
  endpoints: readonly object[],
  addressType = "IPv4",
): ReturnType<typeof parseSlice> {
  const labels = { "kubernetes.io/service-name": service };
  return parseSlice({ metadata: { namespace: "a", name, labels }, addressType, endpoints });
}

describe("services of a snapshot", () => {
  test("endpoints are counted once, ready ones apart, and this node's pods are named", () => {
    const summary = servicesSummary({
      services: [
        service("empty"),
        service("shop", {
          type: "NodePort",
          ports: [
            { port: 80, nodePort: 30080 },
            { port: 53, protocol: "UDP" },
          ],
        }),
      ],
      slices: [
        slice("shop", "one", [
          { addresses: ["10.0.0.1"], nodeName: "here" },
          { addresses: ["10.0.0.2"], nodeName: "here", conditions: { ready: false } },
          { addresses: ["10.0.0.3"], nodeName: "there" },
        ]),
        // While a slice is split its endpoints are in both.
        slice("shop", "two", [{ addresses: ["10.0.0.1"], nodeName: "here" }]),
        slice("shop", "six", [{ addresses: ["fd00::1"], nodeName: "here" }], "IPv6"),
        slice("gone", "three", [{ addresses: ["10.0.0.9"] }]),
      ],
      nodeName: "here",
      podsByIP: new Map([
        ["10.0.0.1", "a/one"],
        ["fd00::1", "a/one"],
        ["10.0.0.2", "a/two"],
        ["10.0.0.3", "a/not-mine"],
      ]),
      mode: "nftables",
      lastSync: { at: 1000, seconds: 0.004 },
    });
    assert.deepEqual(summary, {
      mode: "nftables",
      services: 2,
      endpoints: 3,
      lastSync: "1970-01-01T00:00:01.000Z",
      lastSyncSeconds: 0.004,
      list: [
        {
          namespace: "a",
          name: "shop",
          type: "NodePort",
          clusterIPs: ["10.96.0.9"],
          ports: ["80:30080/TCP", "53/UDP"],
          ready: 2,
          total: 3,
          localPods: ["a/one", "a/two"],
        },
        {
          namespace: "a",
          name: "empty",
          type: "ClusterIP",
          clusterIPs: ["10.96.0.9"],
          ports: ["80/TCP"],
          ready: 0,
          total: 0,
          localPods: [],
        },
      ],
    });
  });

  test("five hundred are listed, and all are counted", () => {
    const services = Array.from({ length: 600 }, (_, index) => service(`s${index}`));
    const summary = servicesSummary({
      services,
      slices: [],
      nodeName: "here",
      podsByIP: new Map(),
      mode: "nftables",
      lastSync: undefined,
    });
    assert.equal(summary.services, 600);
    assert.equal(summary.list.length, 500);
  });
});
