import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, it } from "node:test";

import { systemClock } from "../../../src/lib/clock.ts";
import { SetupError } from "../../../src/lib/errors.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { serveHealth } from "../../../src/proxy/health.ts";
import { ProxyMetrics } from "../../../src/proxy/metrics.ts";
import { serveMetrics } from "../../../src/proxy/metrics-server.ts";
import { parseService } from "../../../src/proxy/parse.ts";
import { ServiceHealthPorts } from "../../../src/proxy/service-health.ts";

/** A port that nobody has at the moment. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

async function get(port: number, path = "/"): Promise<Response> {
  for (let turn = 0; ; turn += 1) {
    try {
      // A new connection each time: the servers cut idle ones when they end.
      return await fetch(`http://127.0.0.1:${port}${path}`, { headers: { connection: "close" } });
    } catch (error) {
      if (turn === 20) throw error;
      await systemClock.sleep(5, new AbortController().signal);
    }
  }
}

describe("the proxy's own servers", () => {
  let stop = new AbortController();
  let port = 0;
  let metrics: ProxyMetrics;

  beforeEach(async () => {
    stop = new AbortController();
    port = await freePort();
    metrics = new ProxyMetrics();
  });

  it("say the mode, their health and the figures under kube-proxy's names", async () => {
    metrics.addFamily("IPv4");
    metrics.serviceChanged();
    metrics.synced({ family: "IPv4", seconds: 0.003, full: true, bytes: 10, changes: 2 }, 5000);
    metrics.programmed(0.3, "IPv4");
    const running = serveMetrics({ port }, () => metrics.render(), stop.signal);
    assert.equal(await (await get(port, "/proxyMode")).text(), "nftables");
    assert.equal(await (await get(port, "/healthz")).text(), "ok");
    assert.equal((await get(port, "/nothing")).status, 404);
    const text = await (await get(port, "/metrics")).text();
    const expected = [
      'kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.002"} 0',
      'kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.004"} 1',
      'kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"} 1',
      'kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} 5',
      'kubeproxy_network_programming_duration_seconds_bucket{ip_family="IPv4",le="0.5"} 1',
      "kubeproxy_sync_proxy_rules_service_changes_pending 1",
      "kubeproxy_sync_proxy_rules_service_changes_total 1",
      'kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv4"} 0',
      'remora_proxy_tx_elements{ip_family="IPv4"} 2',
    ];
    for (const line of expected) assert.ok(text.split("\n").includes(line), line);
    // Every sample belongs to a metric that was introduced, once.
    const types = [...text.matchAll(/^# TYPE (\S+) /gm)].map((match) => match[1] ?? "");
    assert.equal(new Set(types).size, types.length);
    for (const line of text.trim().split("\n")) {
      if (line.startsWith("#")) continue;
      assert.match(line, /^[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? -?[\d.e+-]+$/);
      assert.ok(
        types.some((name) => line.startsWith(name)),
        line,
      );
    }
    stop.abort();
    await running;
  });

  it("refuse a port that is taken in one sentence with the port and the remedy", async () => {
    const other = createServer().listen(port, "127.0.0.1");
    await once(other, "listening");
    try {
      await assert.rejects(
        serveMetrics({ port }, () => "", stop.signal),
        (error: unknown) =>
          error instanceof SetupError &&
          error.message.includes(`proxy metrics port 127.0.0.1:${port} is in use`) &&
          error.message.endsWith("or choose another proxyMetricsPort"),
      );
      const state = {
        startedAt: 0,
        lastSuccess: new Map(),
        pendingSince: new Map(),
        node: () => undefined,
      };
      const health = { address: "127.0.0.1", port, state, clock: systemClock, metrics };
      await assert.rejects(serveHealth(health, stop.signal), /proxy health port .* is in use/);
    } finally {
      other.close();
      await once(other, "close");
    }
  });

  it("are off with port 0", async () => {
    await serveMetrics({ port: 0 }, () => "", stop.signal);
  });

  afterEach(() => {
    stop.abort();
  });
});

describe("health check ports of Services", () => {
  let port = 0;
  let healthy = true;
  let said: string[] = [];
  let ports: ServiceHealthPorts;

  const service = (change: Record<string, unknown> = {}) =>
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

  beforeEach(async () => {
    port = await freePort();
    healthy = true;
    said = [];
    ports = new ServiceHealthPorts({
      nodeName: "here",
      healthy: () => healthy,
      events: { event: (_target, type, reason) => said.push(`${type} ${reason}`) },
      logger: silentLogger,
    });
  });
  afterEach(async () => {
    await ports.close();
  });

  it("answer with the count of local endpoints, on any path", async () => {
    ports.set("ns/lb", service(), 2);
    await ports.sync();
    const response = await get(port, "/any");
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("X-Load-Balancing-Endpoint-Weight"), "2");
    assert.equal(response.headers.get("X-Content-Type-Options"), "nosniff");
    assert.deepEqual(await response.json(), {
      service: { namespace: "ns", name: "lb" },
      localEndpoints: 2,
      serviceProxyHealthy: true,
    });
  });

  it("are 503 without a local endpoint, and while the rules are late", async () => {
    ports.set("ns/lb", service(), 0);
    await ports.sync();
    assert.equal((await get(port)).status, 503);
    ports.set("ns/lb", service(), 1);
    assert.equal((await get(port)).status, 200);
    healthy = false;
    const late = await get(port);
    assert.equal(late.status, 503);
    assert.match(await late.text(), /"serviceProxyHealthy": false/);
  });

  it("close when the policy becomes Cluster or the Service goes, and open anew", async () => {
    const refused = (): Promise<unknown> =>
      assert.rejects(fetch(`http://127.0.0.1:${port}/`, { headers: { connection: "close" } }));
    ports.set("ns/lb", service(), 1);
    await ports.sync();
    ports.set("ns/lb", service({ externalTrafficPolicy: "Cluster" }), 1);
    await ports.sync();
    await refused();
    ports.set("ns/lb", service(), 1);
    await ports.sync();
    assert.equal((await get(port)).status, 200);
    ports.set("ns/lb", undefined, 0);
    await ports.sync();
    await refused();
  });

  it("tell a taken port once as an event and come back when it is free", async () => {
    const other = createServer().listen(port, "::");
    await once(other, "listening");
    ports.set("ns/lb", service(), 1);
    await ports.sync();
    await ports.sync();
    assert.deepEqual(said, ["Warning FailedToStartServiceHealthcheck"]);
    assert.equal(ports.incomplete, true);
    other.close();
    await once(other, "close");
    await ports.sync();
    assert.equal(ports.incomplete, false);
    assert.equal((await get(port)).status, 200);
  });
});
