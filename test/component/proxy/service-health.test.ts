import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import { afterEach, beforeEach, describe, it } from "node:test";

import type { IPFamily } from "../../../src/lib/cidr.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { parseService, parseSlice, type ServiceView } from "../../../src/proxy/parse.ts";
import { localReadyOf, ServiceHealthPorts } from "../../../src/proxy/service-health.ts";
import { SliceIndex } from "../../../src/proxy/slice-index.ts";
import { ask, freePort, isRefused } from "./ask.ts";

describe("health check ports of Services", () => {
  let port = 0;
  let healthy = true;
  let said: string[] = [];
  let addresses: Partial<Record<IPFamily, readonly string[]>> = {};
  let ports: ServiceHealthPorts;

  const service = (change: Record<string, unknown> = {}): ServiceView =>
    parseService({
      metadata: { namespace: "ns", name: "lb", uid: "u" },
      spec: {
        type: "LoadBalancer",
        externalTrafficPolicy: "Local",
        healthCheckNodePort: port,
        clusterIP: "172.30.0.1",
        ports: [{ port: 80 }],
        ...change,
      },
    });
  const set = (view: ServiceView | undefined, IPv4?: number, IPv6?: number): void => {
    const counts = new Map<IPFamily, number>();
    if (IPv4 !== undefined) counts.set("IPv4", IPv4);
    if (IPv6 !== undefined) counts.set("IPv6", IPv6);
    ports.set("ns/lb", view, counts);
  };

  beforeEach(async () => {
    port = await freePort();
    healthy = true;
    said = [];
    addresses = {};
    ports = new ServiceHealthPorts({
      nodeName: "here",
      healthy: () => healthy,
      addresses: (family) => addresses[family],
      events: {
        event: (_target, type, reason, message) => said.push(`${type} ${reason}: ${message}`),
      },
      logger: silentLogger,
    });
  });
  afterEach(async () => {
    await ports.close();
  });

  it("answer with the count of local endpoints, on any path and to any method", async () => {
    set(service(), 2);
    await ports.sync();
    const response = await ask(port, "/any");
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("X-Load-Balancing-Endpoint-Weight"), "2");
    assert.equal(response.headers.get("X-Content-Type-Options"), "nosniff");
    assert.equal(response.headers.get("Content-Type"), "application/json");
    assert.equal(response.headers.get("Transfer-Encoding"), null);
    assert.equal(
      await response.text(),
      '{\n\t"service": {\n\t\t"namespace": "ns",\n\t\t"name": "lb"\n\t},\n\t"localEndpoints": 2,\n\t"serviceProxyHealthy": true\n}',
    );
    assert.equal((await ask(port, "/", { method: "POST" })).status, 200);
  });

  it("are 503 without a local endpoint, and while the rules are late", async () => {
    set(service(), 0);
    await ports.sync();
    assert.equal((await ask(port)).status, 503);
    set(service(), 1);
    assert.equal((await ask(port)).status, 200);
    healthy = false;
    const late = await ask(port);
    assert.equal(late.status, 503);
    assert.match(await late.text(), /"serviceProxyHealthy": false/);
  });

  it("close when the policy becomes Cluster or the Service goes, and open anew", async () => {
    set(service(), 1);
    await ports.sync();
    set(service({ externalTrafficPolicy: "Cluster" }), 1);
    await ports.sync();
    assert.ok(await isRefused(port));
    set(service(), 1);
    await ports.sync();
    assert.equal((await ask(port)).status, 200);
    set(undefined);
    await ports.sync();
    assert.ok(await isRefused(port));
  });

  it("move when the Service gets another port, and give it to another Service", async () => {
    set(service(), 1);
    await ports.sync();
    const old = port;
    port = await freePort();
    set(service(), 1);
    const other = { ...service(), name: "other", key: "ns/other", healthCheckNodePort: old };
    ports.set("ns/other", other, new Map([["IPv4", 7]]));
    await ports.sync();
    assert.equal((await ask(port)).status, 200);
    const taken = await ask(old);
    assert.equal(taken.headers.get("X-Load-Balancing-Endpoint-Weight"), "7");
    assert.deepEqual(new Set(ports.ports), new Set([port, old]));
  });

  it("tell a taken port once as an event and come back when it is free", async () => {
    const other = createServer().listen(port, "::");
    await once(other, "listening");
    set(service(), 1);
    await ports.sync();
    await ports.sync();
    assert.equal(said.length, 1);
    assert.ok(
      said[0]?.startsWith(
        `Warning FailedToStartServiceHealthcheck: node here failed to start healthcheck "ns/lb" on port ${port}: `,
      ),
      said[0],
    );
    assert.equal(ports.incomplete, true);
    other.close();
    await once(other, "close");
    await ports.sync();
    assert.equal(ports.incomplete, false);
    assert.equal((await ask(port)).status, 200);
  });

  it("count each family by itself, on one port", async () => {
    set(service(), 1, 2);
    await ports.sync();
    const weight = async (host: string): Promise<string | null> =>
      (await ask(port, "/", { host })).headers.get("X-Load-Balancing-Endpoint-Weight");
    assert.equal(await weight("127.0.0.1"), "1");
    assert.equal(await weight("[::1]"), "2");
    set(service(), undefined, 2);
    await ports.sync();
    assert.ok(await isRefused(port));
    assert.equal(await weight("[::1]"), "2");
  });

  it("answer on the addresses of nodePortAddresses only, and follow them", async () => {
    addresses = { IPv4: ["127.0.0.2", "127.0.0.3"] };
    set(service(), 1);
    await ports.sync();
    assert.equal((await ask(port, "/", { host: "127.0.0.2" })).status, 200);
    assert.equal((await ask(port, "/", { host: "127.0.0.3" })).status, 200);
    assert.ok(await isRefused(port));
    addresses = { IPv4: ["127.0.0.3"] };
    await ports.sync();
    assert.ok(await isRefused(port, "127.0.0.2"));
    assert.equal((await ask(port, "/", { host: "127.0.0.3" })).status, 200);
    addresses = {};
    await ports.sync();
    assert.equal((await ask(port)).status, 200);
  });

  it("open all of their addresses or none", async () => {
    const other = createServer().listen(port, "127.0.0.3");
    await once(other, "listening");
    addresses = { IPv4: ["127.0.0.2", "127.0.0.3"] };
    set(service(), 1);
    await ports.sync();
    assert.ok(await isRefused(port, "127.0.0.2"));
    other.close();
    await once(other, "close");
    await ports.sync();
    assert.equal((await ask(port, "/", { host: "127.0.0.2" })).status, 200);
  });

  it("count ready endpoints of this node in slices with ports, each address once, by family", () => {
    const index = new SliceIndex("here");
    const slice = (name: string, addressType: string, ip: string, change: object = {}): void => {
      index.set(
        parseSlice({
          metadata: { namespace: "ns", name, labels: { "kubernetes.io/service-name": "lb" } },
          addressType,
          ports: [{ port: 8080 }],
          endpoints: [
            { addresses: [ip], nodeName: "here" },
            { addresses: [`${ip}1`], nodeName: "there" },
            { addresses: [`${ip}2`], nodeName: "here", conditions: { ready: false } },
          ],
          ...change,
        }),
      );
    };
    slice("a", "IPv4", "10.0.0.1");
    slice("b", "IPv4", "10.0.0.1");
    slice("c", "IPv6", "fd00::1");
    slice("d", "IPv4", "10.0.0.9", { ports: [] });
    const dual = service({ clusterIPs: ["172.30.0.1", "fd00:1::1"] });
    const both = [{ family: "IPv4" as const }, { family: "IPv6" as const }];
    assert.deepEqual(
      [...localReadyOf(dual, both, index)],
      [
        ["IPv4", 1],
        ["IPv6", 1],
      ],
    );
    assert.deepEqual([...localReadyOf(service(), both, index)], [["IPv4", 1]]);
    assert.deepEqual([...localReadyOf(undefined, both, index)], []);
  });
});
