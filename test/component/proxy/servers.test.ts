import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer } from "node:net";
import { afterEach, beforeEach, describe, it } from "node:test";

import { type Clock, systemClock } from "../../../src/lib/clock.ts";
import { SetupError } from "../../../src/lib/errors.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { factsPath, factsText, parseFacts } from "../../../src/proxy/explain/facts.ts";
import type { AgentFacts } from "../../../src/proxy/explain/model.ts";
import { type HealthState, healthAnswer, serveHealth } from "../../../src/proxy/health.ts";
import { boundedServer, portBounds } from "../../../src/proxy/listen.ts";
import { ProxyMetrics } from "../../../src/proxy/metrics.ts";
import { type MetricsPages, serveMetrics } from "../../../src/proxy/metrics-server.ts";
import { parsePrometheus } from "../../fakes/prometheus-text.ts";
import { ask, freePort, isRefused } from "./ask.ts";

const facts: AgentFacts = {
  nodeName: "n1",
  nodeIPs: ["192.0.2.1"],
  kubeconfig: "/etc/proxy.conf",
  mode: "iptables",
  table: "remora-proxy",
  externalIPs: true,
  families: [
    {
      family: "IPv4",
      local: { kind: "cidrs", cidrs: ["10.244.0.0/16"] },
      nodePortIPs: undefined,
      localhostNodePorts: true,
      serviceCIDRs: ["10.96.0.0/12"],
      mark: 0x4000,
      masqueradeAll: false,
    },
  ],
};

/** Every wait is over at once, in the real order of things. */
const hasty: Clock = { ...systemClock, sleep: (_ms, signal) => systemClock.sleep(1, signal) };

describe("the proxy's own servers", () => {
  let stop = new AbortController();
  let port = 0;
  let metrics: ProxyMetrics;
  let pages: MetricsPages;
  const retry = undefined;

  beforeEach(async () => {
    stop = new AbortController();
    port = await freePort();
    metrics = new ProxyMetrics();
    pages = {
      metrics: () => metrics.render(),
      mode: () => "iptables",
      configuration: () => ({ kind: "KubeProxyConfiguration", mode: "iptables" }),
      flags: { v: "2", config: "/etc/p.yaml" },
      binaryVersion: "1.36.2+x",
      facts: () => facts,
      clock: { ...systemClock, now: () => 3_725_000 },
    };
  });
  afterEach(() => {
    stop.abort();
  });

  it("say the mode, how they are and the figures", async () => {
    metrics.addFamily("IPv4");
    const running = serveMetrics({ port, retry }, pages, stop.signal);
    assert.equal(await (await ask(port, "/proxyMode")).text(), "iptables");
    assert.equal(await (await ask(port, "/healthz")).text(), "ok");
    assert.equal(await (await ask(port, "/healthz/ping")).text(), "ok");
    assert.equal(
      await (await ask(port, "/healthz?verbose")).text(),
      "[+]ping ok\nhealthz check passed\n",
    );
    assert.equal(
      await (await ask(port, "/healthz?verbose&exclude=ping&exclude=x")).text(),
      '[+]ping excluded: ok\nwarn: some health checks cannot be excluded: no matches for "x"\nhealthz check passed\n',
    );
    const page = await ask(port, "/metrics");
    assert.equal(page.headers.get("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
    assert.ok(parsePrometheus(await page.text()).has("remora_proxy_table_lost_total"));
    const nothing = await ask(port, "/nothing");
    assert.equal(nothing.status, 404);
    assert.equal(await nothing.text(), "404 page not found\n");
    stop.abort();
    await running;
  });

  it("count their health checks for /metrics/slis until they are reset", async () => {
    const running = serveMetrics({ port, retry }, pages, stop.signal);
    await ask(port, "/healthz");
    await ask(port, "/healthz");
    const total = async (): Promise<number | undefined> =>
      parsePrometheus(await (await ask(port, "/metrics/slis")).text()).get(
        "kubernetes_healthchecks_total",
      )?.samples[0]?.value;
    assert.equal(await total(), 2);
    assert.equal((await ask(port, "/metrics/slis", { method: "DELETE" })).status, 200);
    assert.equal(await total(), undefined);
    stop.abort();
    await running;
  });

  it("show the configuration, the flags and what runs", async () => {
    const running = serveMetrics({ port, retry }, pages, stop.signal);
    assert.deepEqual(await (await ask(port, "/configz")).json(), {
      "kubeproxy.config.k8s.io": { kind: "KubeProxyConfiguration", mode: "iptables" },
    });
    assert.deepEqual(parseFacts(await (await ask(port, factsPath)).json()), facts);
    const flags = await (await ask(port, "/flagz")).text();
    assert.ok(flags.startsWith("\nkube-proxy flagz\nWarning: "), flags);
    assert.ok(flags.endsWith("\nconfig=/etc/p.yaml\nv=2\n"), flags);
    const accept = "application/json;g=config.k8s.io;v=v1beta1;as=Statusz";
    const status = await ask(port, "/statusz", { headers: { accept } });
    assert.deepEqual(await status.json(), {
      kind: "Statusz",
      apiVersion: "config.k8s.io/v1beta1",
      metadata: { name: "kube-proxy" },
      startTime: "1970-01-01T01:02:05Z",
      uptimeSeconds: 0,
      binaryVersion: "1.36.2+x",
      paths: [
        "/configz",
        "/debug/remora/proxy",
        "/flagz",
        "/healthz",
        "/healthz/ping",
        "/metrics",
        "/metrics/slis",
        "/proxyMode",
        "/statusz",
      ],
    });
    const other = await ask(port, "/statusz", { headers: { accept: "image/png" } });
    assert.equal(other.status, 406);
    stop.abort();
    await running;
  });

  it("answer 500 with the reason when a page cannot be made, and go on", async () => {
    const broken = { ...pages, metrics: () => Promise.reject(new Error("no figures")) };
    const running = serveMetrics({ port, retry }, broken, stop.signal);
    const response = await ask(port, "/metrics");
    assert.equal(response.status, 500);
    assert.equal(await response.text(), "no figures\n");
    assert.equal((await ask(port, "/healthz")).status, 200);
    stop.abort();
    await running;
  });

  it("refuse a port that is taken in one sentence with the port and the remedy", async () => {
    const other = createServer().listen(port, "127.0.0.1");
    await once(other, "listening");
    try {
      await assert.rejects(
        serveMetrics({ port, retry }, pages, stop.signal),
        (error: unknown) =>
          error instanceof SetupError &&
          error.message.includes(`proxy metrics port 127.0.0.1:${port} is in use`) &&
          error.message.endsWith("or choose another proxyMetricsPort"),
      );
      const state = health({});
      const at = { address: "127.0.0.1", port, retry, state, clock: systemClock, metrics };
      await assert.rejects(serveHealth(at, stop.signal), /proxy health port .* is in use/);
    } finally {
      other.close();
      await once(other, "close");
    }
  });

  it("wait for a port that is taken unless that is a hard failure, and tell it once", async () => {
    const other = createServer().listen(port, "127.0.0.1");
    await once(other, "listening");
    const lines: string[] = [];
    const waits: number[] = [];
    const logger = {
      ...silentLogger,
      log: (_level: string, message: string) => void lines.push(message),
    };
    const clock: Clock = {
      ...hasty,
      sleep: async (ms, signal) => {
        waits.push(ms);
        await hasty.sleep(ms, signal);
      },
    };
    const running = serveMetrics({ port, retry: { clock, logger } }, pages, stop.signal);
    while (waits.length < 3) await hasty.sleep(1, stop.signal);
    other.close();
    await once(other, "close");
    assert.equal((await ask(port, "/healthz")).status, 200);
    assert.deepEqual(lines, ["a port of the proxy's own cannot be opened; will retry"]);
    assert.deepEqual(waits.slice(0, 3), [5000, 5000, 5000]);
    stop.abort();
    await running;
    assert.ok(await isRefused(port));
  });

  it("are off with port 0", async () => {
    await serveMetrics({ port: 0, retry }, pages, stop.signal);
  });

  it("answer both families on a wildcard of either", async () => {
    for (const address of ["0.0.0.0", "::"]) {
      const ended = new AbortController();
      const state = health({});
      const at = { address, port, retry, state, clock: systemClock, metrics };
      const running = serveHealth(at, ended.signal);
      assert.equal((await ask(port, "/livez")).status, 200);
      assert.equal((await ask(port, "/livez", { host: "[::1]" })).status, 200);
      ended.abort();
      await running;
    }
  });

  it("hang up on who sends headers slowly, and on more callers than they have room for", async () => {
    const bounds = { ...portBounds, maxConnections: 2, headersTimeout: 20, requestTimeout: 20 };
    const server = boundedServer((_, response) => void response.end("hello"), {
      ...bounds,
      connectionsCheckingInterval: 5,
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const at = (server.address() as AddressInfo).port;
    const slow = [connect(at, "127.0.0.1"), connect(at, "127.0.0.1")];
    await Promise.all(slow.map((socket) => once(socket, "connect")));
    const third = connect(at, "127.0.0.1");
    third.on("error", () => undefined);
    await once(third, "close");
    const answers = slow.map(async (socket) => {
      socket.write("GET / HTTP/1.1\r\nHost: x\r\n");
      let text = "";
      socket.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
      await once(socket, "close");
      return text.split("\r\n")[0];
    });
    const late = "HTTP/1.1 408 Request Timeout";
    assert.deepEqual(await Promise.all(answers), [late, late]);
    assert.equal(await (await ask(at)).text(), "hello");
    server.close();
  });
});

function health(change: Partial<HealthState>): HealthState {
  return {
    startedAt: 1000,
    lastSuccess: new Map(),
    pendingSince: new Map(),
    node: () => ({ eligible: true }),
    ...change,
  };
}

describe("what an agent says its rules depend on", () => {
  it("is read back, whatever tells pods apart", () => {
    const [context] = facts.families;
    assert.ok(context !== undefined);
    for (const local of [
      { kind: "none" },
      { kind: "interface", name: "cni0" },
      { kind: "interface-prefix", prefix: "veth" },
    ] as const) {
      const said: AgentFacts = {
        ...facts,
        kubeconfig: "",
        families: [{ ...context, local, nodePortIPs: [] }],
      };
      assert.deepEqual(parseFacts(JSON.parse(factsText(said))), said);
    }
  });

  it("is refused when another program answers", () => {
    for (const answer of [{}, "ok", { ...facts, mode: "ipvs" }, { ...facts, families: [{}] }])
      assert.throws(() => parseFacts(answer), { name: "ParseError" });
  });
});

describe("health of the Service proxy", () => {
  const iso = (ms: number): string => new Date(ms).toISOString();

  it("is good from the start, for every family, and says now", () => {
    assert.deepEqual(healthAnswer(health({ families: ["IPv4", "IPv6"] }), 5000, true), {
      status: 200,
      body: {
        lastUpdated: iso(5000),
        currentTime: iso(5000),
        nodeEligible: true,
        healthy: true,
        status: {
          IPv4: { lastUpdated: iso(1000), healthy: true },
          IPv6: { lastUpdated: iso(1000), healthy: true },
        },
      },
    });
  });

  it("is bad when one family is later than twice the period, and says since when", () => {
    const state = health({
      staleMs: 20_000,
      lastSuccess: new Map([
        ["IPv4", 2000],
        ["IPv6", 3000],
      ]),
      pendingSince: new Map([["IPv4", 10_000]]),
    });
    assert.equal(healthAnswer(state, 29_999, false).status, 200);
    assert.deepEqual(healthAnswer(state, 30_000, false), {
      status: 503,
      body: {
        lastUpdated: iso(3000),
        currentTime: iso(30_000),
        healthy: false,
        status: {
          IPv4: { lastUpdated: iso(2000), healthy: false },
          IPv6: { lastUpdated: iso(3000), healthy: true },
        },
      },
    });
  });

  it("is bad on /healthz alone for a node that is unknown or about to go; the rules are still well", () => {
    for (const node of [undefined, { eligible: false }]) {
      const state = health({ node: () => node });
      const { status, body } = healthAnswer(state, 5000, true);
      assert.equal(status, 503);
      assert.equal(body["nodeEligible"], false);
      assert.equal(body["healthy"], true);
      assert.equal(healthAnswer(state, 5000, false).status, 200);
      assert.ok(!("nodeEligible" in healthAnswer(state, 5000, false).body));
    }
  });
});
