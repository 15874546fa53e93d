import {
  createHash,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  createPublicKey,
} from "node:crypto";

import { familyBits, ipFamily, parseIP } from "./cidr.ts";
import * as der from "./der.ts";
import { ParseError } from "./errors.ts";

/** Subject of a certificate. */
export interface DistinguishedName {
  readonly commonName: string;
  readonly organizations?: readonly string[];
}

export interface CertificateRequest {
  readonly subject: DistinguishedName;
  /** DNS names and IP addresses, in text form; which is which is seen from the text. */
  readonly alternativeNames?: readonly string[];
  readonly usages: readonly ("server" | "client")[];
  /** Milliseconds since the epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
}

/** Who signs: an EC P-256 key and the name that stands in its own certificate. */
export interface Issuer {
  readonly name: DistinguishedName;
  readonly privateKey: KeyObject;
}

const oids = {
  commonName: "2.5.4.3",
  organization: "2.5.4.10",
  subjectKeyIdentifier: "2.5.29.14",
  keyUsage: "2.5.29.15",
  subjectAltName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  authorityKeyIdentifier: "2.5.29.35",
  extendedKeyUsage: "2.5.29.37",
  serverAuth: "1.3.6.1.5.5.7.3.1",
  clientAuth: "1.3.6.1.5.5.7.3.2",
  ecdsaWithSHA256: "1.2.840.10045.4.3.2",
} as const;

/** A new EC P-256 key. */
export function newPrivateKey(): KeyObject {
  return generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
}

/** PKCS #8 text of a private key. */
export function privateKeyPEM(key: KeyObject): string {
  return key.export({ type: "pkcs8", format: "pem" }).toString();
}

/** The DER of a name. */
export function distinguishedName(name: DistinguishedName): Buffer {
  const attribute = (oid: string, value: string): Buffer =>
    der.set(der.sequence(der.objectIdentifier(oid), der.utf8String(value)));
  return der.sequence(
    ...(name.organizations ?? []).map((value) => attribute(oids.organization, value)),
    attribute(oids.commonName, name.commonName),
  );
}

function extension(oid: string, critical: boolean, value: Buffer): Buffer {
  return der.sequence(
    der.objectIdentifier(oid),
    ...(critical ? [der.boolean(true)] : []),
    der.octetString(value),
  );
}

function ipBytes(address: string): Buffer {
  const family = ipFamily(address);
  if (family === undefined) throw new ParseError("alternativeNames", "an IP address");
  const digits = familyBits(family) / 4;
  return Buffer.from(parseIP(address).toString(16).padStart(digits, "0"), "hex");
}

/** DNS names and IP addresses as GeneralName elements (RFC 5280, 4.2.1.6). */
export function generalNames(names: readonly string[]): Buffer[] {
  return names.map((name) =>
    ipFamily(name) === undefined
      ? der.implicit(2, Buffer.from(name, "ascii"))
      : der.implicit(7, ipBytes(name)),
  );
}

/** The extension subjectAltName of these GeneralName elements. */
export function alternativeNamesExtension(names: readonly Uint8Array[], critical = false): Buffer {
  return extension(oids.subjectAltName, critical, der.sequence(...names));
}

/** SubjectPublicKeyInfo (DER) of a key pair. */
export function publicKeyInfo(privateKey: KeyObject): Buffer {
  return createPublicKey(privateKey).export({ type: "spki", format: "der" });
}

/** RFC 5280, 4.2.1.2 method 1: SHA-1 of the key's bits. For P-256 these are the last 65 bytes. */
function keyIdentifier(privateKey: KeyObject): Buffer {
  return createHash("sha1").update(publicKeyInfo(privateKey).subarray(-65)).digest();
}

/** PEM text of DER bytes. */
export function pem(label: string, bytes: Buffer): string {
  const lines = bytes.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}

interface TbsFields {
  /** DER of the name. */
  readonly subject: Buffer;
  /** DER of SubjectPublicKeyInfo. */
  readonly publicKey: Buffer;
  readonly notBefore: number;
  readonly notAfter: number;
  readonly extensions: readonly Buffer[];
}

function signCertificate(fields: TbsFields, issuer: Issuer): string {
  const algorithm = der.sequence(der.objectIdentifier(oids.ecdsaWithSHA256));
  const serial = randomBytes(16);
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40;
  const tbs = der.sequence(
    der.explicit(0, der.integer(Buffer.from([2]))),
    der.integer(serial),
    algorithm,
    distinguishedName(issuer.name),
    der.sequence(der.time(fields.notBefore), der.time(fields.notAfter)),
    fields.subject,
    fields.publicKey,
    der.explicit(3, der.sequence(...fields.extensions)),
  );
  const signature = sign("sha256", tbs, issuer.privateKey);
  return pem("CERTIFICATE", der.sequence(tbs, algorithm, der.bitString(signature)));
}

/** A self-signed certificate authority (PEM) for `key`. */
export function certificateAuthority(
  name: DistinguishedName,
  key: KeyObject,
  validity: { readonly notBefore: number; readonly notAfter: number },
): string {
  const identifier = keyIdentifier(key);
  const extensions = [
    extension(oids.basicConstraints, true, der.sequence(der.boolean(true))),
    // keyCertSign, cRLSign
    extension(oids.keyUsage, true, der.bitString(Buffer.from([0x06]), 1)),
    extension(oids.subjectKeyIdentifier, false, der.octetString(identifier)),
    extension(oids.authorityKeyIdentifier, false, der.sequence(der.implicit(0, identifier))),
  ];
  return signCertificate(
    { subject: distinguishedName(name), publicKey: publicKeyInfo(key), ...validity, extensions },
    { name, privateKey: key },
  );
}

/** A certificate (PEM) for `key`, signed by `issuer`. With the key's own issuer it is self-signed. */
export function certificate(request: CertificateRequest, key: KeyObject, issuer: Issuer): string {
  const { subject, notBefore, notAfter, usages } = request;
  const names = request.alternativeNames ?? [];
  const usageOids = { server: oids.serverAuth, client: oids.clientAuth };
  const extensions = [
    extension(oids.basicConstraints, true, der.sequence()),
    // digitalSignature
    extension(oids.keyUsage, true, der.bitString(Buffer.from([0x80]), 7)),
    extension(
      oids.extendedKeyUsage,
      false,
      der.sequence(...usages.map((usage) => der.objectIdentifier(usageOids[usage]))),
    ),
    extension(oids.subjectKeyIdentifier, false, der.octetString(keyIdentifier(key))),
    extension(
      oids.authorityKeyIdentifier,
      false,
      der.sequence(der.implicit(0, keyIdentifier(issuer.privateKey))),
    ),
    ...(names.length === 0 ? [] : [alternativeNamesExtension(generalNames(names))]),
  ];
  const tbs = { subject: distinguishedName(subject), publicKey: publicKeyInfo(key) };
  return signCertificate({ ...tbs, notBefore, notAfter, extensions }, issuer);
}

/** What a certificate for somebody else's key says. */
export interface IssueRequest {
  /** DER of the subject's name. */
  readonly subject: Buffer;
  /** DER of SubjectPublicKeyInfo; any kind of key. */
  readonly publicKey: Buffer;
  /** GeneralName elements. */
  readonly alternativeNames: readonly Uint8Array[];
  /** Bits of KeyUsage (RFC 5280, 4.2.1.3) that are set; 0 = digitalSignature. */
  readonly keyUsages: readonly number[];
  /** Object identifiers of ExtKeyUsage. */
  readonly extendedKeyUsages: readonly string[];
  /** Milliseconds since the epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
}

function keyUsageBits(usages: readonly number[]): Buffer {
  const last = Math.max(...usages);
  const bytes = Buffer.alloc(Math.floor(last / 8) + 1);
  for (const bit of usages) {
    const index = Math.floor(bit / 8);
    bytes[index] = (bytes[index] ?? 0) | (0x80 >> (bit % 8));
  }
  return der.bitString(bytes, 7 - (last % 8));
}

/** A certificate (PEM) for a key that is somebody else's; never an authority. */
export function issueCertificate(request: IssueRequest, issuer: Issuer): string {
  const { subject, alternativeNames: names, keyUsages, extendedKeyUsages } = request;
  // RFC 5280, 4.1.2.6: who has no name but alternative ones has them in a critical extension.
  const nameless = subject.equals(der.sequence());
  const extensions = [
    ...(keyUsages.length === 0 ? [] : [extension(oids.keyUsage, true, keyUsageBits(keyUsages))]),
    ...(extendedKeyUsages.length === 0
      ? []
      : [
          extension(
            oids.extendedKeyUsage,
            false,
            der.sequence(...extendedKeyUsages.map((oid) => der.objectIdentifier(oid))),
          ),
        ]),
    extension(oids.basicConstraints, true, der.sequence()),
    extension(
      oids.authorityKeyIdentifier,
      false,
      der.sequence(der.implicit(0, keyIdentifier(issuer.privateKey))),
    ),
    ...(names.length === 0 ? [] : [alternativeNamesExtension(names, nameless)]),
  ];
  return signCertificate({ ...request, extensions }, issuer);
}
