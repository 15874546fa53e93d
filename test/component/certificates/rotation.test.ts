import assert from "node:assert/strict";
import type { X509Certificate } from "node:crypto";
import { readdir } from "node:fs/promises";
import { describe, test } from "node:test";

import { clientRotation } from "../../../src/agent/certificates/client-rotation.ts";
import { PairStore } from "../../../src/agent/certificates/pair-store.ts";
import { clientWish } from "../../../src/agent/certificates/request-certificate.ts";
import {
  CertificateRotation,
  type RotationOptions,
} from "../../../src/agent/certificates/rotation.ts";
import {
  clientCertificateMetrics,
  servingCertificateMetrics,
} from "../../../src/agent/certificates/rotation-metrics.ts";
import { servingWishOf } from "../../../src/agent/certificates/serving-certificate.ts";
import { SetupError } from "../../../src/lib/errors.ts";
import { jsonLogger } from "../../../src/lib/log.ts";
import { eventually } from "../controlplane-controllers/world.ts";
import { CsrApi } from "./csr-api.ts";
import {
  afterwards,
  directoryFor,
  internalIP,
  NodeDouble,
  pairOf,
  PatientClock,
  type Test,
} from "./fixture.ts";

const secondMs = 1000;
const minuteMs = 60 * secondMs;
const dayMs = 24 * 60 * minuteMs;

/** One certificate that is kept good, with everything around it in the test's hands. */
async function rigFor(t: Test, other: Partial<RotationOptions> = {}) {
  const clock = new PatientClock();
  const api = new CsrApi(clock);
  const store = new PairStore(await directoryFor(t), "kubelet-client");
  const metrics = clientCertificateMetrics();
  const lines: string[] = [];
  const wish = clientWish("n1");
  const rotation = new CertificateRotation({
    certificate: "client",
    store,
    wish: () => wish,
    connect: () => Promise.resolve({ client: api, close: () => Promise.resolve() }),
    onReturn: (listener) => api.onReturn(listener),
    metrics,
    clock,
    logger: jsonLogger({
      write: (line) => lines.push(line),
      now: () => clock.now(),
      level: "info",
    }),
    random: () => 0.5,
    ...other,
  });
  const stop = new AbortController();
  let running: Promise<void> = Promise.resolve();
  afterwards(t, async () => {
    stop.abort();
    await running;
    assert.equal(api.openWatches, 0, "no watch is left open");
  });
  return {
    clock,
    api,
    store,
    metrics,
    lines,
    start: () => {
      running = rotation.run(stop.signal);
    },
  };
}

async function expiryIn(store: PairStore): Promise<number> {
  return (await store.read())?.certificate.validToDate.getTime() ?? 0;
}

async function issued(store: PairStore, other?: string): Promise<X509Certificate> {
  return eventually("a certificate", async () => {
    const pair = await store.read();
    return pair?.certificate.fingerprint256 === other ? undefined : pair?.certificate;
  });
}

describe("a certificate is kept good", () => {
  test("without one it is asked for at once", async (t) => {
    const { api, store, start, lines } = await rigFor(t);
    start();
    const certificate = await issued(store);
    assert.match(certificate.subject, /O=system:nodes\nCN=system:node:n1/);
    assert.deepEqual(certificate.keyUsage, ["1.3.6.1.5.5.7.3.2"]);
    assert.equal(api.requests.size, 1);
    assert.match(lines.join(""), /"why":"missing"/);
  });

  test("client and serving certificate of a node that runs for ten years, asleep twenty days at a time", async (t) => {
    const node = new NodeDouble();
    node.setAddresses(internalIP("192.0.2.1"));
    const client = await rigFor(t);
    const servingStore = new PairStore(await directoryFor(t), "kubelet-server");
    const serving = await rigFor(t, {
      certificate: "serving",
      store: servingStore,
      wish: () => servingWishOf("n1", node.node()?.status?.addresses ?? []),
      metrics: servingCertificateMetrics(),
    });
    const kept = [
      { ...client, store: client.store },
      { ...serving, store: servingStore },
    ];
    for (const { start, store } of kept) {
      start();
      await issued(store);
    }
    for (let day = 0; day < 3650; day += 20) {
      for (const { clock, store } of kept) {
        const before = await store.read();
        await clock.pass(20 * dayMs);
        assert.ok(before !== undefined);
        const { fingerprint256, validFromDate } = before.certificate;
        const due = validFromDate.getTime() + 0.8 * 365 * dayMs;
        if (clock.now() > due) await issued(store, fingerprint256);
        assert.ok((await expiryIn(store)) - clock.now() > 50 * dayMs, `good on day ${day}`);
      }
    }
    for (const { api, store } of kept) {
      assert.equal(api.requests.size, 13, "one request at 80 % of each life");
      const files = await readdir(store.directory);
      assert.ok(files.length <= 3, `expired pairs are removed: ${files.join(", ")}`);
    }
  });

  test("a server that is away is asked again with longer and longer pauses, and at once when it is back", async (t) => {
    const { api, clock, store, start, lines } = await rigFor(t);
    api.failure = "unauthorized";
    start();
    await eventually("the first try", () => Promise.resolve(api.calls > 0 || undefined));
    for (const pauseMs of [2, 4, 8, 16, 32, 32].map((seconds) => seconds * secondMs)) {
      const { calls } = api;
      await clock.pass(pauseMs * 0.9);
      assert.equal(api.calls, calls, `not before ${pauseMs} ms`);
      await clock.pass(pauseMs * 0.2);
      await eventually("the next try", () => Promise.resolve(api.calls > calls || undefined));
    }
    assert.equal(lines.filter((line) => line.includes("will retry")).length, 1, "said once");
    api.return();
    await issued(store);
  });

  test("heartbeats of the node do not hurry what was denied; another address does", async (t) => {
    const node = new NodeDouble();
    node.setAddresses(internalIP("192.0.2.1"));
    const { api, clock, store, start } = await rigFor(t, {
      wish: () => servingWishOf("n1", node.node()?.status?.addresses ?? []),
      onWishChange: (listener) => node.subscribe(listener),
    });
    api.decide = "deny";
    start();
    await eventually("the request", () => Promise.resolve(api.names[0]));
    for (let beat = 0; beat < 5; beat += 1) {
      await clock.pass(minuteMs);
      node.setAddresses(internalIP("192.0.2.1"));
    }
    await clock.idle();
    assert.equal(api.names.length, 1);
    api.decide = "approve";
    node.setAddresses(internalIP("192.0.2.2"));
    assert.equal((await issued(store)).subjectAltName, "IP Address:192.0.2.2");
  });

  test("a denied request is not repeated for ten minutes, and then with another key", async (t) => {
    const { api, clock, store, start, lines } = await rigFor(t);
    api.decide = "deny";
    start();
    await eventually("the denial", () =>
      Promise.resolve(lines.some((line) => line.includes("was denied (Policy)")) || undefined),
    );
    api.decide = "approve";
    await clock.pass(9 * minuteMs);
    assert.equal(api.requests.size, 1);
    await clock.pass(2 * minuteMs);
    await issued(store);
    assert.equal(api.requests.size, 2);
  });

  test("an approval that takes a weekend needs one request, and the failures are counted", async (t) => {
    const { api, clock, store, start, lines, metrics } = await rigFor(t);
    api.decide = "wait";
    start();
    await eventually("the request", () => Promise.resolve(api.openWatches > 0 || undefined));
    for (let round = 0; round < 4; round += 1) {
      await clock.pass(20 * minuteMs);
      await eventually("the next watch", () => Promise.resolve(api.openWatches > 0 || undefined));
    }
    assert.match(
      metrics.text(clock.now()),
      /kubelet_certificate_manager_client_expiration_renew_errors [1-9]\n/,
    );
    assert.match(lines.join(""), /kubectl certificate approve node-csr-/);
    const [name = ""] = api.names;
    api.approve(name);
    await issued(store);
    assert.deepEqual(api.names, [name]);
  });

  test("names that change while an approval is awaited are asked for instead", async (t) => {
    const node = new NodeDouble();
    node.setAddresses(internalIP("192.0.2.1"));
    const { api, store, start } = await rigFor(t, {
      wish: () => servingWishOf("n1", node.node()?.status?.addresses ?? []),
      onWishChange: (listener) => node.subscribe(listener),
    });
    api.decide = "wait";
    start();
    await eventually("the request", () => Promise.resolve(api.openWatches > 0 || undefined));
    // The same addresses again: a heartbeat.
    node.setAddresses(internalIP("192.0.2.1"));
    node.setAddresses(internalIP("192.0.2.1"), internalIP("192.0.2.2"));
    await eventually("the second request", () => Promise.resolve(api.names[1]));
    assert.equal(api.names.length, 2);
    api.approve(api.names[1] ?? "");
    const certificate = await issued(store);
    assert.equal(certificate.subjectAltName, "IP Address:192.0.2.1, IP Address:192.0.2.2");
    // An address that goes is no reason for another certificate; one that comes is.
    api.decide = "approve";
    node.setAddresses(internalIP("192.0.2.2"));
    node.setAddresses(internalIP("192.0.2.2"), internalIP("2001:db8::2"));
    const next = await issued(store, certificate.fingerprint256);
    assert.equal(next.subjectAltName, "IP Address:192.0.2.2, IP Address:2001:DB8:0:0:0:0:0:2");
    assert.equal(api.names.length, 3);
  });

  test("certificates that live for minutes are renewed for hours, without a circle", async (t) => {
    const { api, clock, store, start } = await rigFor(t);
    api.lifeSeconds = 600;
    start();
    await issued(store);
    for (let minute = 0; minute < 120; minute += 1) {
      await clock.pass(minuteMs);
      if ((await expiryIn(store)) - clock.now() < 3 * minuteMs) {
        const held = await store.read();
        await issued(store, held?.certificate.fingerprint256);
      }
      assert.ok((await expiryIn(store)) > clock.now());
    }
    // 15 minutes with the five before its beginning; 80 % of that are 12, of which 7 are to come.
    assert.ok(api.requests.size >= 12 && api.requests.size <= 20, `${api.requests.size} requests`);
    assert.ok((await store.ownFiles()).length < 6);
  });
});

describe("a client certificate that expired while the machine was suspended", () => {
  async function expired(t: Test) {
    const { api, clock, store, lines } = await rigFor(t);
    const { pem } = pairOf("system:node:n1", {
      notBefore: clock.now() - 10 * dayMs,
      notAfter: clock.now() + dayMs,
    });
    await store.write(pem, clock.now());
    clock.leap(2 * dayMs);
    return { api, clock, store, lines };
  }

  test("is asked for anew as at the first start", async (t) => {
    const { api, clock, store, lines } = await expired(t);
    const nobody = new CsrApi(clock);
    nobody.failure = "unauthorized";
    let bootstraps = 0;
    const rotation = clientRotation({
      nodeName: "n1",
      store,
      client: nobody,
      bootstrap: () => {
        bootstraps += 1;
        return Promise.resolve({ client: api, close: () => Promise.resolve() });
      },
      clock,
      logger: jsonLogger({ write: (line) => lines.push(line), now: Date.now, level: "info" }),
      random: () => 0,
    });
    const stop = new AbortController();
    const running = rotation.run(stop.signal);
    await eventually("the certificate", async () =>
      (await expiryIn(store)) > clock.now() ? true : undefined,
    );
    await eventually("new connections", () => Promise.resolve(nobody.resets > 0 || undefined));
    assert.match(
      rotation.metrics(),
      /^kubelet_certificate_manager_client_ttl_seconds 31535\d{3}$/m,
    );
    stop.abort();
    await running;
    assert.equal(bootstraps, 1);
    assert.equal(nobody.calls, 0, "nobody comes with an expired certificate");
  });

  test("says what to do while there is nothing to ask with, and goes on when there is", async (t) => {
    const { api, clock, store, lines } = await expired(t);
    let there = false;
    const rotation = clientRotation({
      nodeName: "n1",
      store,
      client: api,
      bootstrap: () =>
        there
          ? Promise.resolve({ client: api, close: () => Promise.resolve() })
          : Promise.reject(new SetupError("start again with a new token")),
      clock,
      logger: jsonLogger({ write: (line) => lines.push(line), now: Date.now, level: "info" }),
      random: () => 0,
    });
    const stop = new AbortController();
    const running = rotation.run(stop.signal);
    await eventually("the sentence", () =>
      Promise.resolve(lines.some((line) => line.includes("with a new token")) || undefined),
    );
    assert.match(rotation.metrics(), /client_ttl_seconds -8640\d$/m);
    there = true;
    await clock.pass(3 * secondMs);
    await eventually("the certificate", async () =>
      (await expiryIn(store)) > clock.now() ? true : undefined,
    );
    stop.abort();
    await running;
  });
});
