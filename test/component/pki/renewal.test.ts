import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { ensurePKI, type PKI } from "../../../src/controlplane/pki/ensure-pki.ts";
import { PKIRenewal } from "../../../src/controlplane/pki/renewal.ts";
import { jsonLogger, silentLogger } from "../../../src/lib/log.ts";
import { PatientClock } from "../certificates/fixture.ts";
import { eventually } from "../controlplane-controllers/world.ts";

const dayMs = 86_400_000;

interface Rig {
  readonly clock: PatientClock;
  readonly ensure: () => Promise<PKI>;
}

async function rigFor(t: { after: (end: () => Promise<void>) => void }): Promise<Rig> {
  const dir = await mkdtemp(join(tmpdir(), "remora-renewal-"));
  t.after(() => rm(dir, { recursive: true }));
  const clock = new PatientClock();
  return {
    clock,
    ensure: () =>
      ensurePKI({
        dir,
        nodeName: "n1",
        apiServerNames: ["10.96.0.1"],
        nodeNames: ["192.0.2.1"],
        now: clock.now(),
      }),
  };
}

function expiry(pem: string): number {
  return new X509Certificate(pem).validToDate.getTime();
}

test("a control plane that runs for ten years always has good certificates in use", async (t) => {
  const { clock, ensure } = await rigFor(t);
  const stop = new AbortController();
  let inUse = await ensure();
  let changes = 0;
  const renewal = new PKIRenewal({
    first: inUse,
    ensure,
    use: (pki) => {
      inUse = pki;
      return Promise.resolve();
    },
    clock,
    logger: silentLogger,
  });
  renewal.onChange(() => {
    changes += 1;
  });
  const running = renewal.run(stop.signal);
  const start = clock.now();
  while (clock.now() < start + 10 * 365 * dayMs) {
    const before = inUse;
    // asleep for twenty days at a time, without a timer that fires meanwhile.
    await clock.pass(20 * dayMs);
    if (before.renewAt <= clock.now())
      await eventually("the renewal", () => Promise.resolve(inUse === before ? undefined : true));
    for (const { certPEM } of [
      inUse.apiServer,
      inUse.kubeletClient,
      inUse.kubeletServing,
      inUse.node,
      inUse.proxy,
      inUse.admin,
    ])
      assert.ok(expiry(certPEM) - clock.now() > 90 * dayMs);
    assert.ok(expiry(inUse.caPEM) > clock.now());
  }
  stop.abort();
  await running;
  assert.ok(changes >= 14 && changes <= 16, `${changes} renewals`);
});

test("a renewal that fails is tried again each minute, and said once", async (t) => {
  const { clock, ensure } = await rigFor(t);
  const stop = new AbortController();
  const lines: string[] = [];
  let tries = 0;
  const renewal = new PKIRenewal({
    first: await ensure(),
    ensure: () => {
      tries += 1;
      return tries < 4 ? Promise.reject(new Error("no space left on device")) : ensure();
    },
    use: () => Promise.resolve(),
    clock,
    logger: jsonLogger({ write: (line) => lines.push(line), now: Date.now, level: "info" }),
  });
  const first = renewal.current();
  const running = renewal.run(stop.signal);
  await clock.pass(300 * dayMs);
  for (let minute = 0; minute < 3; minute += 1) await clock.pass(60_000);
  await eventually("the renewal", () =>
    Promise.resolve(renewal.current() === first ? undefined : true),
  );
  stop.abort();
  await running;
  assert.equal(tries, 4);
  assert.equal(lines.filter((line) => line.includes("no space left")).length, 1);
  assert.equal(lines.filter((line) => line.includes("certificates renewed")).length, 1);
});

test("other names make other certificates at once, and a failure is tried again", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "remora-renewal-"));
  t.after(() => rm(dir, { recursive: true }));
  const clock = new PatientClock();
  let [address, broken] = ["192.0.2.1", false];
  const ensure = (): Promise<PKI> => {
    if (broken) return Promise.reject(new Error("no room"));
    const names = { apiServerNames: [address], nodeNames: [address] };
    return ensurePKI({ dir, nodeName: "n1", ...names, now: clock.now() });
  };
  const first = await ensure();
  let inUse = first;
  const renewal = new PKIRenewal({
    first,
    ensure,
    use: async (pki) => {
      inUse = pki;
    },
    clock,
    logger: silentLogger,
  });
  const namesOf = ({ apiServer }: PKI): string =>
    new X509Certificate(apiServer.certPEM).subjectAltName ?? "";
  address = "192.0.2.2";
  await Promise.all([renewal.refresh(), renewal.refresh()]);
  assert.match(namesOf(inUse), /192\.0\.2\.2/);
  assert.equal(inUse.admin.certPEM, first.admin.certPEM, "whose names did not change stays");
  [address, broken] = ["192.0.2.3", true];
  await renewal.refresh();
  assert.match(namesOf(renewal.current()), /192\.0\.2\.2/);
  broken = false;
  const stop = new AbortController();
  const running = renewal.run(stop.signal);
  await eventually("the next certificate", async () =>
    namesOf(inUse).includes("192.0.2.3") ? true : undefined,
  );
  stop.abort();
  await running;
});
