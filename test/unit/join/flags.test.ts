import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { describe, test } from "node:test";

import {
  clientWish,
  requestName,
  servingWish,
} from "../../../src/agent/certificates/request-certificate.ts";
import { commonName, renewalTime } from "../../../src/agent/certificates/validity.ts";
import { checkGroups, joinCommand, parseDuration } from "../../../src/agent/commands/token.ts";
import { certificatesIn, parseHashes, publicKeyHash } from "../../../src/agent/join/ca-hash.ts";
import { readClusterConfiguration } from "../../../src/agent/join/cluster-configuration.ts";
import { parseServer } from "../../../src/agent/join/join-cluster.ts";
import { readToken } from "../../../src/agent/join/read-token.ts";
import { SetupError } from "../../../src/lib/errors.ts";
import { certificateAuthority, newPrivateKey } from "../../../src/lib/x509.ts";

const day = 24 * 3_600_000;
const key = newPrivateKey();
const pem = certificateAuthority({ commonName: "system:node:n1" }, key, {
  notBefore: Date.UTC(2026, 0, 1),
  notAfter: Date.UTC(2026, 0, 101),
});

test("--join is an address, with or without https", () => {
  for (const text of ["https://10.0.0.1:6443", "10.0.0.1:6443", "https://10.0.0.1:6443/"])
    assert.equal(parseServer(text), "https://10.0.0.1:6443");
  assert.equal(parseServer("[fd00::1]:6443"), "https://[fd00::1]:6443");
  for (const wrong of ["http://10.0.0.1", "https://a/b", "https://user@a", "", "a b"])
    assert.throws(() => parseServer(wrong), SetupError, wrong);
});

describe("the token", () => {
  const text = "abcdef.0123456789abcdef";
  const wanted = { id: "abcdef", secret: "0123456789abcdef" };
  test("comes from the flag, or the environment, or nowhere", async () => {
    assert.deepEqual(await readToken({ token: text, environment: undefined }), wanted);
    assert.deepEqual(await readToken({ environment: `${text}\n` }), wanted);
    assert.equal(await readToken({ environment: undefined }), undefined);
    assert.equal(await readToken({ environment: "" }), undefined);
  });
  test("is never repeated in a message", async () => {
    for (const sources of [
      { token: "abcdef.secretsecret", environment: undefined },
      { environment: "abcdef.secretsecret" },
    ]) {
      await assert.rejects(readToken(sources), (error) => {
        assert.ok(error instanceof SetupError);
        assert.ok(!error.message.includes("secretsecret"));
        return true;
      });
    }
    await assert.rejects(
      readToken({ tokenFile: "/nowhere", environment: undefined }),
      /--token-file \/nowhere cannot be read/,
    );
    await assert.rejects(
      readToken({ token: text, tokenFile: "/x", environment: undefined }),
      /both given/,
    );
  });
});

test("--ca-hash takes what kubeadm takes", () => {
  const [certificate] = certificatesIn(`${pem}\n${pem}`);
  assert.ok(certificate !== undefined);
  const hash = publicKeyHash(certificate);
  assert.match(hash, /^sha256:[0-9a-f]{64}$/);
  assert.deepEqual(parseHashes([hash.toUpperCase().replace("SHA256", "sha256")]), [hash]);
  for (const wrong of ["", "sha256:12", `md5:${"0".repeat(32)}`])
    assert.throws(() => parseHashes([wrong]), SetupError);
});

test("the command that is printed is the one that is taken", () => {
  assert.equal(
    joinCommand("https://10.0.0.1:6443", { id: "abcdef", secret: "0123456789abcdef" }, [
      "sha256:0",
    ]),
    "remora run --join https://10.0.0.1:6443 --token abcdef.0123456789abcdef --ca-hash sha256:0",
  );
});

test("durations are Go's, in whole units", () => {
  assert.equal(parseDuration("0"), 0);
  assert.equal(parseDuration("24h"), day);
  assert.equal(parseDuration("1h30m"), 5_400_000);
  for (const wrong of ["", "24", "-1h", "1.5h", "h"])
    assert.throws(() => parseDuration(wrong), SetupError, wrong);
});

test("groups of a token are those that an API server accepts with one", () => {
  checkGroups(["system:bootstrappers:kubeadm:default-node-token", "system:bootstrappers:rack-3"]);
  for (const wrong of ["", "rack-3", "system:masters", "system:bootstrappers:"])
    assert.throws(() => checkGroups([wrong]), SetupError, wrong);
});

describe("what the cluster says", () => {
  test("is read field by field", () => {
    assert.deepEqual(
      readClusterConfiguration(
        { clusterDNS: ["10.96.0.10"], clusterDomain: "example.org", serverTLSBootstrap: true },
        { networking: { podSubnet: "10.244.0.0/16,fd00::/48", serviceSubnet: "10.96.0.0/16" } },
      ),
      {
        clusterDNS: ["10.96.0.10"],
        clusterDomain: "example.org",
        serverTLSBootstrap: true,
        rotateCertificates: true,
        podCIDRs: ["10.244.0.0/16", "fd00::/48"],
        serviceCIDRs: ["10.96.0.0/16"],
      },
    );
  });
  test("counts as not said where it is missing or malformed", () => {
    const nothing = { serverTLSBootstrap: false, rotateCertificates: true };
    assert.deepEqual(readClusterConfiguration({}, {}), nothing);
    assert.deepEqual(
      readClusterConfiguration(
        { clusterDNS: ["none"], clusterDomain: "", serverTLSBootstrap: "yes" },
        { networking: { podSubnet: "pods" } },
      ),
      nothing,
    );
  });
});

test("a certificate is renewed between 70 and 90 % of its life", () => {
  const certificate = new X509Certificate(pem);
  assert.equal(commonName(certificate), "system:node:n1");
  const start = Date.UTC(2026, 0, 1);
  assert.equal(renewalTime(certificate, 0), start + 70 * day);
  assert.equal(renewalTime(certificate, 1), start + 90 * day);
});

test("the same wish with the same key has the same name, another has another", () => {
  const name = requestName(key, clientWish("n1"));
  assert.match(name, /^node-csr-[0-9a-f]{40}$/);
  assert.equal(requestName(key, clientWish("n1")), name);
  const names = new Set([
    name,
    requestName(key, clientWish("n2")),
    requestName(newPrivateKey(), clientWish("n1")),
    requestName(key, servingWish("n1", ["n1"])),
    requestName(key, servingWish("n1", ["n1", "192.0.2.1"])),
  ]);
  assert.equal(names.size, 5);
});
