import assert from "node:assert/strict";
import { createPublicKey, sign, X509Certificate } from "node:crypto";
import { describe, test } from "node:test";

import * as der from "../../../src/lib/der.ts";
import { objectIdentifierText, readElements } from "../../../src/lib/der-read.ts";
import { ParseError } from "../../../src/lib/errors.ts";
import { certificationRequest, parseCertificationRequest } from "../../../src/lib/pkcs10.ts";
import {
  certificateAuthority,
  distinguishedName,
  generalNames,
  issueCertificate,
  newPrivateKey,
  pem,
  publicKeyInfo,
} from "../../../src/lib/x509.ts";

const key = newPrivateKey();
const subject = { commonName: "system:node:n1", organizations: ["system:nodes"] };

/** openssl req -new -newkey rsa:1024 -subj /O=a/O=b/CN=rsa -addext subjectAltName=DNS:x,IP:1.2.3.4,email:a@b,URI:http://x */
const byOpenssl = `-----BEGIN CERTIFICATE REQUEST-----
MIIBmjCCAQMCAQAwJjEKMAgGA1UECgwBYTEKMAgGA1UECgwBYjEMMAoGA1UEAwwD
cnNhMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCbqO2+kfocqWgJ+XOPv/SW
G2gz/V+cg2Igx6g0ioVqzKPzds7m+KrIcWx37BrjB2zAYyUh4YfHzFj3oNvNIeb7
gcn1wMXs78T9OspePjOz1YnvUSIjCiJ96acsQkhZMUJBz4HqMqye769W+fPQxs2A
UW58Ki41WRZNgDM7KO+UWwIDAQABoDQwMgYJKoZIhvcNAQkOMSUwIzAhBgNVHREE
GjAYggF4hwQBAgMEgQNhQGKGCGh0dHA6Ly94MA0GCSqGSIb3DQEBCwUAA4GBADnv
lO4xJ8Mqi4Y2ld/mItVmviMSiAHmPmpgICHu4BSnUpMJboUQE0Fnp90ulP9X3OxZ
CES1DxrX+xmvX356WebXIx9n9ciGJ0YdnXU5M+FSpMdGGe96pebFtj1OhjuNJfQR
S/+LvebBUxMlJt63Aqbfw5BI3Fp3aI5xdUbKIewR
-----END CERTIFICATE REQUEST-----
`;

describe("certification requests", () => {
  test("what is written is read", () => {
    const names = ["n1", "192.0.2.1", "2001:db8::1"];
    const request = parseCertificationRequest(
      certificationRequest(key, { subject, alternativeNames: names }),
    );
    assert.equal(request.commonName, "system:node:n1");
    assert.deepEqual(request.organizations, ["system:nodes"]);
    assert.deepEqual(request.dnsNames, ["n1"]);
    assert.deepEqual(request.ipAddresses, ["192.0.2.1", "2001:db8::1"]);
    assert.deepEqual(request.publicKey, publicKeyInfo(key));
    assert.deepEqual(request.subject, distinguishedName(subject));
  });

  test("another program's, for an RSA key, is read", () => {
    const request = parseCertificationRequest(byOpenssl);
    assert.equal(request.commonName, "rsa");
    assert.deepEqual(request.organizations, ["a", "b"]);
    assert.deepEqual(request.dnsNames, ["x"]);
    assert.deepEqual(request.ipAddresses, ["1.2.3.4"]);
    assert.deepEqual(request.emailAddresses, ["a@b"]);
    assert.deepEqual(request.uris, ["http://x"]);
    assert.equal(
      createPublicKey({ key: request.publicKey, format: "der", type: "spki" }).asymmetricKeyType,
      "rsa",
    );
  });

  /** A request over any name, signed by `key`. */
  function requestOver(name: Buffer): string {
    const body = der.sequence(
      der.integer(Buffer.from([0])),
      name,
      publicKeyInfo(key),
      der.explicit(0),
    );
    const algorithm = der.sequence(der.objectIdentifier("1.2.840.10045.4.3.2"));
    return pem(
      "CERTIFICATE REQUEST",
      der.sequence(body, algorithm, der.bitString(sign("sha256", body, key))),
    );
  }
  const attribute = (oid: string, value: string): Buffer =>
    der.sequence(der.objectIdentifier(oid), der.utf8String(value));
  const cn = "2.5.4.3";

  test("of several common names the last one counts, and only it gets into the certificate", () => {
    // Two in one set and one in another: programs differ in which of them they take.
    const name = der.sequence(
      der.set(attribute(cn, "admin"), attribute("2.5.4.10", "system:nodes")),
      der.set(attribute(cn, "system:node:n1")),
    );
    const request = parseCertificationRequest(requestOver(name));
    assert.equal(request.commonName, "system:node:n1");
    const authority = newPrivateKey();
    const text = issueCertificate(
      { ...request, keyUsages: [0, 8], extendedKeyUsages: [], notBefore: 0, notAfter: 1e12 },
      { name: { commonName: "ca" }, privateKey: authority },
    );
    assert.equal(new X509Certificate(text).subject, "O=system:nodes\nCN=system:node:n1");
  });

  test("a certificate that is issued is the authority's, for the request's key and names", () => {
    const request = parseCertificationRequest(
      certificationRequest(key, { subject, alternativeNames: ["n1", "192.0.2.1"] }),
    );
    const issuer = { name: { commonName: "ca" }, privateKey: newPrivateKey() };
    const validity = { notBefore: Date.UTC(2026, 0), notAfter: Date.UTC(2027, 0) };
    const ca = new X509Certificate(certificateAuthority(issuer.name, issuer.privateKey, validity));
    const text = issueCertificate(
      { ...request, ...validity, keyUsages: [0], extendedKeyUsages: ["1.3.6.1.5.5.7.3.1"] },
      issuer,
    );
    const issued = new X509Certificate(text);
    assert.ok(issued.checkIssued(ca));
    assert.ok(issued.verify(ca.publicKey));
    assert.ok(issued.checkPrivateKey(key));
    assert.equal(issued.ca, false);
    assert.equal(issued.subjectAltName, "DNS:n1, IP Address:192.0.2.1");
    assert.deepEqual(issued.keyUsage, ["1.3.6.1.5.5.7.3.1"]);
    assert.equal(issued.validToDate.getTime(), validity.notAfter);
  });

  const good = certificationRequest(key, { subject });
  const broken: readonly [string, string, RegExp][] = [
    ["no PEM", "QQ==", /^PEM block type must be CERTIFICATE REQUEST$/],
    [
      "something else in PEM",
      good.replaceAll("CERTIFICATE REQUEST", "CERTIFICATE"),
      /^PEM block type must be CERTIFICATE REQUEST$/,
    ],
    ["cut off", pem("CERTIFICATE REQUEST", Buffer.from([0x30, 0x82, 0x01])), /DER length/],
    ["empty", pem("CERTIFICATE REQUEST", Buffer.alloc(0)), /request: expected tag 0x30/],
    [
      "followed by more",
      pem("CERTIFICATE REQUEST", Buffer.concat([der.sequence(), der.sequence()])),
      /expected nothing after it/,
    ],
  ];
  for (const [title, text, message] of broken) {
    test(`refused: ${title}`, () => {
      assert.throws(
        () => parseCertificationRequest(text),
        (error) => {
          assert.ok(error instanceof ParseError);
          assert.match(error.message, message);
          return true;
        },
      );
    });
  }

  test("no byte can be changed, cut off or added unnoticed, and nothing crashes", () => {
    const bytes = Buffer.from(good.replaceAll(/-----[^-]+-----|\s/g, ""), "base64");
    for (let at = 0; at < bytes.length; at += 1) {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ 0x11;
      for (const wrong of [changed, bytes.subarray(0, at)])
        assert.throws(
          () => parseCertificationRequest(pem("CERTIFICATE REQUEST", wrong)),
          ParseError,
          `byte ${at}`,
        );
    }
  });
});

describe("reading DER", () => {
  test("lengths have one form only", () => {
    for (const bytes of [
      [0x30, 0x81, 0x01, 0x00],
      [0x30, 0x80],
      [0x30, 0x02, 0x00],
      [0x1f, 0x00],
    ])
      assert.throws(() => readElements(Buffer.from(bytes)), ParseError);
    assert.equal(readElements(der.octetString(Buffer.alloc(300)))[0]?.content.length, 300);
  });
  test("object identifiers come back as they were written", () => {
    for (const dotted of ["1.2.840.113549.1.9.14", "2.5.4.3", "1.3.101.112"]) {
      const [element] = readElements(der.objectIdentifier(dotted));
      assert.equal(objectIdentifierText(element?.content ?? Buffer.alloc(0)), dotted);
    }
  });
  test("general names have the tags of RFC 5280", () => {
    assert.deepEqual(
      generalNames(["n1", "192.0.2.1"]).map((name) => name[0]),
      [0x82, 0x87],
    );
  });
});
