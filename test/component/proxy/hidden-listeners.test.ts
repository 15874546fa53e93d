import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { systemClock } from "../../../src/lib/clock.ts";
import type { Clock } from "../../../src/lib/clock.ts";
import type { ListeningSocket } from "../../../src/lib/listening-sockets.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { HiddenListeners } from "../../../src/proxy/hidden-listeners.ts";
import { parseService, parseSlice, type ServiceView } from "../../../src/proxy/parse.ts";
import { SliceIndex } from "../../../src/proxy/slice-index.ts";

/** Real time, in which nobody sleeps. */
const hasty: Clock = {
  now: () => systemClock.now(),
  monotonic: () => systemClock.monotonic(),
  sleep: async (_ms, signal) => {
    signal.throwIfAborted();
    await Promise.resolve();
  },
};

const ssh: ListeningSocket = { protocol: "TCP", family: "IPv4", ip: "0.0.0.0", port: 22, uid: 0 };

function balancer(port: number, change: Readonly<Record<string, unknown>> = {}): ServiceView {
  return parseService({
    metadata: { namespace: "default", name: "web", uid: "u1" },
    spec: {
      type: "LoadBalancer",
      clusterIP: "10.96.0.9",
      ports: [{ name: "p", port, protocol: "TCP" }],
      ...change,
    },
    status: { loadBalancer: { ingress: [{ ip: "192.0.2.1" }, { ip: "203.0.113.9" }] } },
  });
}

/** What is said when Services change one after another. */
async function said(
  services: readonly (ServiceView | undefined)[],
  options: { readonly externalIPs?: boolean; readonly slice?: unknown } = {},
): Promise<readonly string[]> {
  const lines: string[] = [];
  let current: ServiceView | undefined;
  const index = new SliceIndex("n1");
  if (options.slice !== undefined) index.set(parseSlice(options.slice));
  const hidden = new HiddenListeners({
    nodeName: "n1",
    feed: { service: () => current, index },
    addresses: () => ["127.0.0.1", "192.0.2.1"],
    listeners: () => Promise.resolve([ssh]),
    externalIPs: options.externalIPs ?? true,
    events: {
      event: ({ kind, name }, type, reason, message) =>
        lines.push(`${kind} ${name} ${type} ${reason} ${message}`),
    },
    clock: hasty,
    logger: silentLogger,
  });
  const stop = new AbortController();
  const running = hidden.run(stop.signal);
  for (const service of services) {
    current = service;
    hidden.changed("default/web");
    // All that it waits for is there already.
    for (let turn = 0; turn < 50; turn += 1) await Promise.resolve();
  }
  stop.abort();
  await running;
  return lines;
}

const warning =
  "Service web Warning ServiceHidesListener node n1: port 22/TCP of 192.0.2.1 leads to this Service, no longer to the program of user 0 that listens on 0.0.0.0:22";

describe("programs that a Service hides", () => {
  it("are named once, and again when the Service was made anew", async () => {
    assert.deepEqual(await said([balancer(22), balancer(22)]), [warning]);
    assert.deepEqual(await said([balancer(22), undefined, balancer(22)]), [warning, warning]);
    assert.deepEqual(await said([balancer(80), balancer(22)]), [warning]);
  });

  it("are none on other ports, on addresses that this machine does not have, and behind ClusterIPs", async () => {
    assert.deepEqual(await said([balancer(80)]), []);
    const away = parseService({
      metadata: { namespace: "default", name: "web", uid: "u1" },
      spec: {
        type: "LoadBalancer",
        clusterIP: "10.96.0.9",
        ports: [{ port: 22, protocol: "TCP" }],
      },
      status: { loadBalancer: { ingress: [{ ip: "203.0.113.9" }] } },
    });
    assert.deepEqual(await said([away]), []);
    assert.deepEqual(await said([balancer(22, { type: "ClusterIP" })]), []);
  });

  it("can be behind external addresses, unless those do not count", async () => {
    const external = balancer(22, { type: "ClusterIP", externalIPs: ["192.0.2.1"] });
    assert.deepEqual(await said([external]), [warning]);
    assert.deepEqual(await said([external], { externalIPs: false }), []);
  });

  it("are none when the Service leads back to the same port of this machine", async () => {
    const slice = {
      metadata: {
        namespace: "default",
        name: "web-1",
        labels: { "kubernetes.io/service-name": "web" },
      },
      addressType: "IPv4",
      endpoints: [{ addresses: ["192.0.2.1"], nodeName: "n1", conditions: { ready: true } }],
      ports: [{ name: "p", port: 22, protocol: "TCP" }],
    };
    assert.deepEqual(await said([balancer(22)], { slice }), []);
  });
});
