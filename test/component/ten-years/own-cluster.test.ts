import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { promisify } from "node:util";

import * as fc from "fast-check";

import { ensurePKI, type PKI } from "../../../src/controlplane/pki/ensure-pki.ts";
import { PKIRenewal } from "../../../src/controlplane/pki/renewal.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { directoryFor, type Test } from "../certificates/fixture.ts";
import { dayMs, SetClock, type Spell, tenYears, unlucky } from "./schedule.ts";

const run = promisify(execFile);

const stepDays = 15;

const leaves = ["apiServer", "kubeletClient", "kubeletServing", "admin", "node", "proxy"] as const;

/** The certificates of a machine with `remora up`, and everybody who has ever seen its authority. */
class Cluster {
  readonly clock = new SetClock();
  readonly #dir: string;
  /** Every certificate of the authority that somebody may have copied. */
  readonly #authorities = new Map<string, X509Certificate>();
  readonly #seen = new Map<string, string>();
  readonly #lives = new Map<string, { readonly from: number; readonly to: number }>();
  #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #renewal: PKIRenewal | undefined;
  #now: PKI | undefined;
  renewals = 0;
  serviceAccountKey: string | undefined;

  constructor(dir: string) {
    this.#dir = dir;
  }

  async start(): Promise<void> {
    const ensure = (): Promise<PKI> =>
      ensurePKI({
        dir: this.#dir,
        nodeName: "n1",
        apiServerNames: ["10.96.0.1"],
        nodeNames: ["192.0.2.1"],
        now: this.clock.now(),
      });
    const first = await ensure();
    this.#use(first);
    this.#renewal = new PKIRenewal({
      first,
      ensure,
      use: (pki) => Promise.resolve(this.#use(pki)),
      clock: this.clock,
      logger: silentLogger,
    });
    this.#stop = new AbortController();
    this.#running = this.#renewal.run(this.#stop.signal);
    await this.clock.idle();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  #use(pki: PKI): void {
    this.#now = pki;
    const { fingerprint256 } = new X509Certificate(pki.caPEM);
    this.#authorities.set(fingerprint256, new X509Certificate(pki.caPEM));
    for (const name of ["ca", ...leaves] as const) {
      const pem = name === "ca" ? pki.caPEM : pki[name].certPEM;
      const { validFromDate, validToDate } = new X509Certificate(pem);
      this.#lives.set(name, { from: validFromDate.getTime(), to: validToDate.getTime() });
      if (name !== "ca" && this.#seen.get(name) !== pem) this.renewals += 1;
      this.#seen.set(name, pem);
      this.#knownToAll(name, pem);
    }
    // A ServiceAccount token outlives every certificate: its key never changes by itself.
    this.serviceAccountKey ??= pki.serviceAccountKeyPEM;
    assert.equal(pki.serviceAccountKeyPEM, this.serviceAccountKey);
  }

  /** Nothing of what is in use has ended or not begun. */
  check(when: string): void {
    const now = this.clock.now();
    assert.ok(this.#now !== undefined);
    assert.equal(this.#renewal?.current(), this.#now);
    for (const [name, { from, to }] of this.#lives) {
      assert.ok(from <= now && now < to, `${name} is good ${when}`);
      assert.ok(to - now > (to - from) / 3 - (stepDays + 1) * dayMs, `${name} in time ${when}`);
    }
  }

  /** Whatever somebody has copied of the authority leads to the certificate. */
  #knownToAll(name: string, pem: string): void {
    const certificate = new X509Certificate(pem);
    for (const authority of this.#authorities.values()) {
      const known = certificate.checkIssued(authority) && certificate.verify(authority.publicKey);
      assert.ok(known, `${name} is known to whoever has an earlier certificate of the authority`);
    }
  }

  get authorities(): number {
    return this.#authorities.size;
  }

  /** What openssl says of each of them at the simulated time. */
  async verifyByOpenSSL(): Promise<void> {
    const attime = String(Math.floor(this.clock.now() / 1000));
    const pki = this.#now;
    assert.ok(pki !== undefined);
    for (const name of leaves) {
      const { certFile } = pki[name];
      const argv = ["verify", "-x509_strict", "-attime", attime, "-CAfile", pki.caFile, certFile];
      assert.match((await run("openssl", argv)).stdout, /: OK/);
    }
    assert.equal(await readFile(join(this.#dir, "ca.crt"), "utf8"), pki.caPEM);
  }
}

async function live(t: Test, spells: readonly Spell[]): Promise<Cluster> {
  const cluster = new Cluster(await directoryFor(t));
  const { clock } = cluster;
  await cluster.start();
  try {
    for (const { kind, days } of spells) {
      if (kind === "off") {
        await cluster.stop();
        clock.leap(days * dayMs);
        await cluster.start();
      } else if (kind === "awake") {
        for (let day = 0; day < days; day += stepDays) {
          await clock.pass(Math.min(stepDays, days - day) * dayMs);
          cluster.check(`on day ${day} of being awake`);
        }
      } else {
        if (kind === "asleep") clock.leap(days * dayMs);
        else clock.set((kind === "clock set back" ? -1 : 1) * days * dayMs);
        // Whoever sleeps looks a minute later at the latest.
        await clock.pass(60_000);
      }
      cluster.check(`after ${days} days of ${kind}`);
    }
    return cluster;
  } finally {
    await cluster.stop();
  }
}

describe("the certificates of a cluster of one machine over ten years", () => {
  test("whatever happens to the machine: never expired, never of the future, never unknown to a client", async (t) => {
    await fc.assert(
      fc.asyncProperty(tenYears, async (spells) => {
        await live(t, spells);
      }),
      { numRuns: 4, endOnFailure: true, examples: [[unlucky]] },
    );
  });

  test("none is renewed before two thirds of its life", async (t) => {
    const cluster = await live(t, [{ kind: "awake", days: 3650 }]);
    // 365 days, renewed with a third left: at the first look after 243.3 days.
    assert.equal(cluster.renewals, leaves.length * Math.ceil(3650 / 255));
    assert.equal(cluster.authorities, 1, "the authority lives for twenty years");
    await cluster.verifyByOpenSSL();
  });

  test("the authority is renewed under way in forty years, and both of its certificates are good for everybody", async (t) => {
    const cluster = await live(t, [
      { kind: "awake", days: 4000 },
      // Fourteen months in a drawer.
      { kind: "off", days: 425 },
      { kind: "awake", days: 5000 },
      { kind: "awake", days: 5175 },
    ]);
    assert.equal(cluster.authorities, 4 - 1);
    await cluster.verifyByOpenSSL();
  });
});
