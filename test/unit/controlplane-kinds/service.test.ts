import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  AddressAllocator,
  PortAllocator,
  staticBandSize,
} from "../../../src/controlplane/kinds/service-allocation.ts";
import type { JsonObject } from "../../../src/controlplane/types.ts";
import { parseCidr } from "../../../src/lib/cidr.ts";
import { context, createCluster, type Cluster } from "./harness.ts";

function service(name: string, spec: JsonObject = {}): JsonObject {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, namespace: "default" },
    spec: { ports: [{ port: 80 }], ...spec },
  };
}

function create(cluster: Cluster, name: string, spec: JsonObject = {}): JsonObject {
  const created = cluster.create("services", "default", service(name, spec));
  cluster.objects.put("services", created);
  return created;
}

function specOf(object: JsonObject): JsonObject {
  return object["spec"] as JsonObject;
}

function remove(cluster: Cluster, object: JsonObject, name: string): void {
  cluster.objects.remove("services", "default", name);
  cluster.kind("services").strategy.release?.(object);
}

describe("allocators", () => {
  test("the lower band is left for addresses that users pick", () => {
    assert.deepEqual([14, 62, 254, 4094, 65_534].map(staticBandSize), [0, 16, 16, 255, 256]);
    const allocator = new AddressAllocator(parseCidr("10.0.0.0/24"), () => 0);
    assert.deepEqual(allocator.next(), { kind: "taken", value: "10.0.0.17" });
    assert.deepEqual(allocator.take("10.0.0.1"), { kind: "taken", value: "10.0.0.1" });
  });

  test("when the upper band is full the lower one is used, then nothing is left", () => {
    const allocator = new AddressAllocator(parseCidr("10.0.0.0/27"), () => 0);
    const taken = Array.from({ length: 30 }, () => allocator.next());
    assert.equal(new Set(taken.map((item) => JSON.stringify(item))).size, 30);
    assert.equal(allocator.next().kind, "refused");
  });

  test("network and broadcast address, strangers and duplicates are refused", () => {
    const allocator = new AddressAllocator(parseCidr("10.0.0.0/24"), () => 0);
    for (const address of ["10.0.0.0", "10.0.0.255", "10.0.1.1"]) {
      assert.equal(allocator.take(address).kind, "refused");
    }
    allocator.take("10.0.0.5");
    assert.deepEqual(allocator.take("10.0.0.5"), {
      kind: "refused",
      message: "failed to allocate IP 10.0.0.5: provided IP is already allocated",
    });
  });

  test("ports outside the range are refused with the range", () => {
    const ports = new PortAllocator({ first: 30_000, last: 30_001 }, () => 0);
    assert.deepEqual(ports.take(80), {
      kind: "refused",
      message: "provided port is not in the valid range. The range of valid ports is 30000-30001",
    });
  });
});

describe("Services", () => {
  test("an address is unique, kept for life and free again after deletion", () => {
    const cluster = createCluster();
    const first = create(cluster, "a");
    const second = create(cluster, "b");
    const address = specOf(first)["clusterIP"];
    assert.notEqual(address, specOf(second)["clusterIP"]);
    const updated = cluster.update("services", first, service("a", { selector: { x: "y" } }));
    assert.equal(specOf(updated)["clusterIP"], address);
    remove(cluster, first, "a");
    assert.equal(specOf(create(cluster, "c", { clusterIP: address }))["clusterIP"], address);
  });

  test("a taken address and a taken port are refused; nothing is kept of the refused Service", () => {
    const cluster = createCluster();
    const first = create(cluster, "a", { type: "NodePort" });
    const port = (specOf(first)["ports"] as JsonObject[])[0]?.["nodePort"];
    assert.throws(
      () => create(cluster, "b", { clusterIP: specOf(first)["clusterIP"] }),
      /provided IP is already allocated/,
    );
    const taken = { type: "NodePort", ports: [{ port: 80, nodePort: port }] };
    assert.throws(
      () => create(cluster, "b", { ...taken, clusterIP: "10.43.0.9" }),
      /spec\.ports\[0\]\.nodePort: Invalid value: \d+: provided port is already allocated/,
    );
    assert.equal(
      specOf(create(cluster, "b", { clusterIP: "10.43.0.9" }))["clusterIP"],
      "10.43.0.9",
    );
  });

  test("a change of type gives ports back, and the address with ExternalName", () => {
    const cluster = createCluster();
    const first = create(cluster, "a", {
      type: "NodePort",
      ports: [{ port: 80, nodePort: 30_080 }],
    });
    const clusterIP = cluster.update("services", first, {
      ...first,
      spec: { ...specOf(first), type: "ClusterIP", externalTrafficPolicy: "Cluster" },
    });
    assert.equal((specOf(clusterIP)["ports"] as JsonObject[])[0]?.["nodePort"], undefined);
    assert.equal(specOf(clusterIP)["externalTrafficPolicy"], undefined);
    cluster.objects.put("services", clusterIP);
    create(cluster, "b", { type: "NodePort", ports: [{ port: 80, nodePort: 30_080 }] });
  });

  test("a cluster IP cannot be changed", () => {
    const cluster = createCluster();
    const first = create(cluster, "a");
    assert.throws(
      () =>
        cluster.update("services", first, {
          ...first,
          spec: { ...specOf(first), clusterIP: "10.43.0.77", clusterIPs: ["10.43.0.77"] },
        }),
      /spec\.clusterIPs\[0\]: Invalid value: \["10\.43\.0\.77"\]: may not change once set/,
    );
  });

  test("a dry run takes nothing", () => {
    const cluster = createCluster();
    const input = service("a", { clusterIP: "10.43.0.9" });
    cluster.create("services", "default", input, { ...context(), dryRun: true });
    create(cluster, "b", { clusterIP: "10.43.0.9" });
  });

  test("what failed to be stored is free again, and a failed update keeps what was held", () => {
    const cluster = createCluster();
    const { strategy } = cluster.kind("services");
    const lost = cluster.create("services", "default", service("a", { clusterIP: "10.43.0.9" }));
    strategy.release?.(lost);
    const held = create(cluster, "b", { clusterIP: "10.43.0.9" });
    strategy.release?.(held);
    assert.throws(() => create(cluster, "c", { clusterIP: "10.43.0.9" }), /already allocated/);
  });

  test("after a restart the stored Services still hold what they had", () => {
    const before = createCluster();
    const first = create(before, "a", {
      type: "NodePort",
      ports: [{ port: 80, nodePort: 30_080 }],
    });
    const after = createCluster();
    after.objects.put("services", first);
    assert.throws(
      () => create(after, "b", { type: "NodePort", ports: [{ port: 80, nodePort: 30_080 }] }),
      /already allocated/,
    );
  });

  test("TCP and UDP of the same port share a node port", () => {
    const ports = [
      { name: "t", port: 53, protocol: "TCP" },
      { name: "u", port: 53, protocol: "UDP" },
    ];
    const dns = specOf(create(createCluster(), "dns", { type: "NodePort", ports }));
    const [tcp, udp] = dns["ports"] as JsonObject[];
    assert.equal(tcp?.["nodePort"], udp?.["nodePort"]);
  });

  test("dual-stack is refused where there is none", () => {
    assert.throws(
      () => create(createCluster(), "a", { ipFamilyPolicy: "RequireDualStack" }),
      /spec\.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services/,
    );
  });
});
