import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { promisify } from "node:util";

import { ensurePKI, type PKIOptions } from "../../../src/controlplane/pki/ensure-pki.ts";

const run = promisify(execFile);
const dayMs = 86_400_000;
const now = Date.UTC(2026, 10, 21);

async function withOptions(use: (options: PKIOptions) => Promise<void>): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "remora-pki-"));
  try {
    await use({
      dir,
      nodeName: "n1",
      apiServerNames: ["10.96.0.1", "fd00::1"],
      nodeNames: ["192.0.2.1"],
      now,
    });
  } finally {
    await rm(dir, { recursive: true });
  }
}

describe("cluster certificates", () => {
  test("openssl accepts every one of them for its purpose, strictly", async () => {
    await withOptions(async (options) => {
      const pki = await ensurePKI(options);
      const purposes = [
        ["sslserver", pki.apiServer],
        ["sslserver", pki.kubeletServing],
        ["sslclient", pki.admin],
        ["sslclient", pki.node],
        ["sslclient", pki.proxy],
        ["sslclient", pki.kubeletClient],
      ] as const;
      const attime = String(now / 1000);
      for (const [purpose, pair] of purposes) {
        const argv = [
          "verify",
          "-x509_strict",
          "-attime",
          attime,
          "-purpose",
          purpose,
          "-CAfile",
          pki.caFile,
          pair.certFile,
        ];
        const { stdout } = await run("openssl", argv);
        assert.match(stdout, /OK/);
      }
      const server = new X509Certificate(pki.apiServer.certPEM);
      assert.equal(server.checkIP("10.96.0.1"), "10.96.0.1");
      assert.equal(server.checkIP("fd00::1"), "fd00::1");
      assert.equal(server.checkHost("kubernetes.default.svc"), "kubernetes.default.svc");
      assert.match(
        new X509Certificate(pki.node.certPEM).subject,
        /O=system:nodes\nCN=system:node:n1/,
      );
      const key = await stat(join(options.dir, "ca.key"));
      assert.equal(key.mode & 0o777, 0o600);
    });
  });

  test("a second call changes nothing; a new address renews only the certificate that names it", async () => {
    await withOptions(async (options) => {
      const first = await ensurePKI(options);
      const second = await ensurePKI(options);
      assert.deepEqual(second, first);
      const moved = await ensurePKI({ ...options, nodeNames: ["192.0.2.2"] });
      assert.notEqual(moved.kubeletServing.certPEM, first.kubeletServing.certPEM);
      assert.equal(moved.kubeletServing.keyPEM, first.kubeletServing.keyPEM);
      assert.equal(moved.apiServer.certPEM, first.apiServer.certPEM);
      assert.equal(moved.caPEM, first.caPEM);
    });
  });

  test("a certificate is renewed when a third of its life is left, and the authority stays", async () => {
    await withOptions(async (options) => {
      const first = await ensurePKI(options);
      const early = await ensurePKI({ ...options, now: now + 200 * dayMs });
      assert.equal(early.admin.certPEM, first.admin.certPEM);
      const late = await ensurePKI({ ...options, now: now + 250 * dayMs });
      assert.notEqual(late.admin.certPEM, first.admin.certPEM);
      assert.equal(late.caPEM, first.caPEM);
    });
  });

  test("over sixteen years nothing in use ever expires, and old and new authorities trust each other's", async () => {
    await withOptions(async (options) => {
      const first = await ensurePKI(options);
      let pki = first;
      let at = now;
      const end = now + 16 * 365 * dayMs;
      while (at < end) {
        // Asked when it says, or a month late: the machine was off.
        at = pki.renewAt + (at % 2 === 0 ? 0 : 30 * dayMs) + 1;
        const before = pki;
        pki = await ensurePKI({ ...options, now: at });
        assert.ok(pki.renewAt > at, "something was renewed");
        const authorities = [before, pki].map(({ caPEM }) => new X509Certificate(caPEM));
        for (const { certPEM } of [before.node, pki.node, pki.apiServer, pki.kubeletClient]) {
          const leaf = new X509Certificate(certPEM);
          for (const ca of authorities)
            assert.ok(leaf.checkIssued(ca) && leaf.verify(ca.publicKey));
        }
        for (const pem of [
          pki.caPEM,
          pki.admin.certPEM,
          pki.proxy.certPEM,
          pki.kubeletServing.certPEM,
        ]) {
          const { validFromDate, validToDate } = new X509Certificate(pem);
          assert.ok(validFromDate.getTime() <= at && at < validToDate.getTime());
          assert.ok(validToDate.getTime() <= pki.authority.notAfter);
        }
      }
      assert.notEqual(pki.caPEM, first.caPEM);
      assert.equal(pki.caFile, first.caFile);
    });
  });

  test("what was made while the clock ran ahead is made anew when it is set back", async () => {
    await withOptions(async (options) => {
      const ahead = await ensurePKI({ ...options, now: now + 1000 * dayMs });
      const back = await ensurePKI(options);
      for (const pem of [back.caPEM, back.apiServer.certPEM, back.node.certPEM])
        assert.ok(new X509Certificate(pem).validFromDate.getTime() <= now);
      assert.equal(back.apiServer.keyPEM, ahead.apiServer.keyPEM);
    });
  });

  test("another node name is another identity", async () => {
    await withOptions(async (options) => {
      await ensurePKI(options);
      const renamed = await ensurePKI({ ...options, nodeName: "n2" });
      assert.match(new X509Certificate(renamed.node.certPEM).subject, /CN=system:node:n2/);
    });
  });

  test("a damaged file is named together with the remedy, and nothing is overwritten", async () => {
    await withOptions(async (options) => {
      await ensurePKI(options);
      const path = join(options.dir, "ca.key");
      await writeFile(path, "garbage");
      await assert.rejects(ensurePKI(options), {
        name: "SetupError",
        message: new RegExp(`^${path} is not a private key .*; restore it from a backup`),
      });
      assert.equal(await readFile(path, "utf8"), "garbage");
    });
  });
});
