import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import { clientRotation } from "../../../src/agent/certificates/client-rotation.ts";
import { PairStore } from "../../../src/agent/certificates/pair-store.ts";
import { CertificateRotation } from "../../../src/agent/certificates/rotation.ts";
import { servingCertificateMetrics } from "../../../src/agent/certificates/rotation-metrics.ts";
import { servingWishOf } from "../../../src/agent/certificates/serving-certificate.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { CsrApi } from "../certificates/csr-api.ts";
import { directoryFor, internalIP, type Test } from "../certificates/fixture.ts";
import { eventually } from "../controlplane-controllers/world.ts";
import { dayMs, SetClock, type Spell, tenYears, unlucky } from "./schedule.ts";

const stepDays = 15;

/** A node that joined, with both of its certificates, beside a cluster that issues them. */
class JoinedNode {
  readonly clock = new SetClock();
  readonly api = new CsrApi(this.clock);
  readonly #stores: readonly [PairStore, PairStore];
  #stop = new AbortController();
  #running: Promise<unknown> = Promise.resolve();
  /** How often the token was needed again. */
  bootstraps = 0;

  constructor(clientDir: string, servingDir: string) {
    this.#stores = [
      new PairStore(clientDir, "kubelet-client"),
      new PairStore(servingDir, "kubelet-server"),
    ];
  }

  async start(): Promise<void> {
    this.#stop = new AbortController();
    const { signal } = this.#stop;
    const [clientStore, servingStore] = this.#stores;
    const { clock, api } = this;
    const shared = { clock, logger: silentLogger, random: () => 0.5 };
    const open = { client: api, close: () => Promise.resolve() };
    const client = clientRotation({
      ...shared,
      nodeName: "n1",
      store: clientStore,
      client: api,
      bootstrap: () => {
        this.bootstraps += 1;
        return Promise.resolve(open);
      },
    });
    const serving = new CertificateRotation({
      ...shared,
      certificate: "serving",
      store: servingStore,
      wish: () => servingWishOf("n1", [internalIP("192.0.2.1")]),
      connect: () => Promise.resolve(open),
      onReturn: (listener) => api.onReturn(listener),
      metrics: servingCertificateMetrics(),
    });
    this.#running = Promise.all([client.run(signal), serving.run(signal)]);
    await this.good("at the start");
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  /** Both certificates are good now, or within a moment of real time, in which nothing of simulated time passes. */
  async good(when: string): Promise<void> {
    for (const store of this.#stores) {
      await eventually(`a good ${store.prefix} ${when}`, async () => {
        const certificate = (await store.read())?.certificate;
        if (certificate === undefined) return undefined;
        const [from, to] = [certificate.validFromDate.getTime(), certificate.validToDate.getTime()];
        const now = this.clock.now();
        // The cluster issues them by the same clock; one that was set back makes none of them worse for the cluster.
        const left = to - now;
        return left > 0.19 * (to - from) - (stepDays + 1) * dayMs ? true : undefined;
      });
    }
  }
}

async function live(t: Test, spells: readonly Spell[]): Promise<JoinedNode> {
  const node = new JoinedNode(await directoryFor(t), await directoryFor(t));
  const { clock } = node;
  await node.start();
  try {
    for (const { kind, days } of spells) {
      if (kind === "off") {
        await node.stop();
        clock.leap(days * dayMs);
        await node.start();
      } else if (kind === "awake") {
        for (let day = 0; day < days; day += stepDays) {
          await clock.pass(Math.min(stepDays, days - day) * dayMs);
          await node.good(`on day ${day} of being awake`);
        }
      } else {
        if (kind === "asleep") clock.leap(days * dayMs);
        else clock.set((kind === "clock set back" ? -1 : 1) * days * dayMs);
        await clock.pass(60_000);
      }
      await node.good(`after ${days} days of ${kind}`);
    }
    return node;
  } finally {
    await node.stop();
  }
}

describe("the certificates of a node that joined over ten years", () => {
  test("whatever happens to the machine, both are good a minute later", async (t) => {
    await fc.assert(
      fc.asyncProperty(tenYears, async (spells) => {
        await live(t, spells);
      }),
      { numRuns: 4, endOnFailure: true, examples: [[unlucky]] },
    );
  });

  test("one that is always on never needs its token again, and asks once in 80 % of a life", async (t) => {
    const node = await live(t, [{ kind: "awake", days: 3650 }]);
    assert.equal(node.bootstraps, 1, "at the first start");
    const each = node.api.requests.size / 2;
    assert.ok(each >= 12 && each <= 13, `${each} requests for each certificate`);
  });

  test("fourteen months in a drawer: it comes back by its token", async (t) => {
    const node = await live(t, [
      { kind: "awake", days: 100 },
      { kind: "off", days: 425 },
      { kind: "awake", days: 100 },
      { kind: "asleep", days: 425 },
    ]);
    assert.equal(node.bootstraps, 3);
  });
});
