import { createHash, randomBytes, sign, type KeyObject } from "node:crypto";

import { familyBits, ipFamily, parseIP } from "../../lib/cidr.ts";
import {
  bitString,
  boolean,
  explicit,
  implicit,
  integer,
  objectIdentifier,
  octetString,
  sequence,
  set,
  time,
  utf8String,
} from "./der.ts";

/** A distinguished name: organizations first, then the common name. */
export interface Subject {
  readonly organizations: readonly string[];
  readonly commonName: string;
}

export type Usage = "server" | "client";

export interface CertificateRequest {
  readonly subject: Subject;
  readonly publicKey: KeyObject;
  readonly issuer: {
    readonly subject: Subject;
    readonly key: KeyObject;
    readonly publicKey: KeyObject;
  };
  /** Milliseconds since the epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** DNS names and IP addresses in text form. */
  readonly names: readonly string[];
  /** Empty for a certificate authority. */
  readonly usages: readonly Usage[];
}

const oids = {
  commonName: "2.5.4.3",
  organization: "2.5.4.10",
  ecdsaWithSHA256: "1.2.840.10045.4.3.2",
  subjectKeyIdentifier: "2.5.29.14",
  keyUsage: "2.5.29.15",
  subjectAltName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  authorityKeyIdentifier: "2.5.29.35",
  extKeyUsage: "2.5.29.37",
  server: "1.3.6.1.5.5.7.3.1",
  client: "1.3.6.1.5.5.7.3.2",
} as const;

function distinguishedName(subject: Subject): Buffer {
  const attribute = (oid: string, value: string): Buffer =>
    set(sequence(objectIdentifier(oid), utf8String(value)));
  return sequence(
    ...subject.organizations.map((name) => attribute(oids.organization, name)),
    attribute(oids.commonName, subject.commonName),
  );
}

/** RFC 5280 4.2.1.2 method 1: SHA-1 of the public key bits (65 bytes of an uncompressed P-256 point). */
function keyIdentifier(key: KeyObject): Buffer {
  const point = key.export({ type: "spki", format: "der" }).subarray(-65);
  return createHash("sha1").update(point).digest();
}

function extension(oid: string, critical: boolean, value: Uint8Array): Buffer {
  return sequence(objectIdentifier(oid), ...(critical ? [boolean(true)] : []), octetString(value));
}

function addressBytes(address: string): Buffer {
  const family = ipFamily(address) ?? "IPv4";
  const hex = parseIP(address).toString(16);
  return Buffer.from(hex.padStart(familyBits(family) / 4, "0"), "hex");
}

function alternativeName(name: string): Buffer {
  return ipFamily(name) === undefined
    ? implicit(2, Buffer.from(name, "ascii"))
    : implicit(7, addressBytes(name));
}

function extensions(request: CertificateRequest): Buffer {
  const authority = request.usages.length === 0;
  // keyCertSign and cRLSign for an authority, digitalSignature for everything else.
  const usage = authority ? bitString(Buffer.from([0x06]), 1) : bitString(Buffer.from([0x80]), 7);
  return sequence(
    extension(oids.basicConstraints, true, sequence(...(authority ? [boolean(true)] : []))),
    extension(oids.keyUsage, true, usage),
    extension(oids.subjectKeyIdentifier, false, octetString(keyIdentifier(request.publicKey))),
    extension(
      oids.authorityKeyIdentifier,
      false,
      sequence(implicit(0, keyIdentifier(request.issuer.publicKey))),
    ),
    ...(authority
      ? []
      : [
          extension(
            oids.extKeyUsage,
            false,
            sequence(...request.usages.map((name) => objectIdentifier(oids[name]))),
          ),
        ]),
    ...(request.names.length === 0
      ? []
      : [
          extension(
            oids.subjectAltName,
            false,
            sequence(...request.names.map((name) => alternativeName(name))),
          ),
        ]),
  );
}

/** PEM text (RFC 7468) of DER bytes. */
export function pem(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString("base64")
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}

/** Signs an X.509 v3 certificate (RFC 5280) with an EC P-256 key; returns PEM. */
export function createCertificate(request: CertificateRequest): string {
  const algorithm = sequence(objectIdentifier(oids.ecdsaWithSHA256));
  const serial = randomBytes(16);
  // A positive number of full length: neither a leading zero byte nor the sign bit.
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40;
  const body = sequence(
    explicit(0, integer(Buffer.from([2]))),
    integer(serial),
    algorithm,
    distinguishedName(request.issuer.subject),
    sequence(time(request.notBefore), time(request.notAfter)),
    distinguishedName(request.subject),
    request.publicKey.export({ type: "spki", format: "der" }),
    explicit(3, extensions(request)),
  );
  const signature = sign("sha256", body, request.issuer.key);
  return pem("CERTIFICATE", sequence(body, algorithm, bitString(signature)));
}
