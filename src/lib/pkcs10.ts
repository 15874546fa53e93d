import { createPublicKey, type KeyObject, sign, verify } from "node:crypto";

import * as der from "./der.ts";
import { type DerElement, expectTag, objectIdentifierText, readElements } from "./der-read.ts";
import { errorMessage, ParseError } from "./errors.ts";
import {
  alternativeNamesExtension,
  type DistinguishedName,
  distinguishedName,
  generalNames,
  pem,
  publicKeyInfo,
} from "./x509.ts";

// Certification requests: PKCS #10, RFC 2986.

const oids = {
  commonName: "2.5.4.3",
  organization: "2.5.4.10",
  extensionRequest: "1.2.840.113549.1.9.14",
  subjectAltName: "2.5.29.17",
  ecdsaWithSHA256: "1.2.840.10045.4.3.2",
} as const;

const tags = {
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectIdentifier: 0x06,
  bmpString: 0x1e,
  sequence: 0x30,
  set: 0x31,
  attributes: 0xa0,
} as const;

/** Hash by signature algorithm; the key says the rest. SHA-1 and MD5 prove nothing any more. */
const hashes: Readonly<Record<string, string | null>> = {
  "1.2.840.10045.4.3.2": "sha256",
  "1.2.840.10045.4.3.3": "sha384",
  "1.2.840.10045.4.3.4": "sha512",
  "1.2.840.113549.1.1.11": "sha256",
  "1.2.840.113549.1.1.12": "sha384",
  "1.2.840.113549.1.1.13": "sha512",
  // Ed25519 has its hash inside.
  "1.3.101.112": null,
};

/** A request, read and with a signature that fits its key. */
export interface CertificationRequest {
  /** DER of the name: one attribute to a set, one common name. */
  readonly subject: Buffer;
  /** The last one named, as Go reads names; "" when there is none. */
  readonly commonName: string;
  readonly organizations: readonly string[];
  /** DER of SubjectPublicKeyInfo. */
  readonly publicKey: Buffer;
  readonly dnsNames: readonly string[];
  /** In text form; one that is neither 4 nor 16 bytes long is refused. */
  readonly ipAddresses: readonly string[];
  readonly emailAddresses: readonly string[];
  readonly uris: readonly string[];
  /** GeneralName elements of the four kinds above, as they were written. */
  readonly alternativeNames: readonly Buffer[];
}

/** The request (PEM) for a certificate for an EC P-256 key. */
export function certificationRequest(
  key: KeyObject,
  request: { readonly subject: DistinguishedName; readonly alternativeNames?: readonly string[] },
): string {
  const names = request.alternativeNames ?? [];
  const attributes =
    names.length === 0
      ? []
      : [
          der.sequence(
            der.objectIdentifier(oids.extensionRequest),
            der.set(der.sequence(alternativeNamesExtension(generalNames(names)))),
          ),
        ];
  const body = der.sequence(
    der.integer(Buffer.from([0])),
    distinguishedName(request.subject),
    publicKeyInfo(key),
    der.explicit(0, ...attributes),
  );
  const algorithm = der.sequence(der.objectIdentifier(oids.ecdsaWithSHA256));
  const signature = der.bitString(sign("sha256", body, key));
  return pem("CERTIFICATE REQUEST", der.sequence(body, algorithm, signature));
}

/** The first PEM block of a text: its label and bytes. */
function firstBlock(text: string): { readonly label: string; readonly bytes: Buffer } | undefined {
  const found = /-----BEGIN ([^-\n]+)-----\r?\n([\s\S]*?)-----END \1-----/.exec(text);
  if (found === null) return undefined;
  const [, label = "", body = ""] = found;
  // Headers (RFC 1421) end at an empty line.
  const content = body.includes(":") ? body.replace(/^[\s\S]*?\r?\n\r?\n/, "") : body;
  return { label, bytes: Buffer.from(content.replaceAll(/\s/g, ""), "base64") };
}

function stringValue(element: DerElement | undefined): string {
  if (element === undefined) return "";
  if (element.tag !== tags.bmpString) return element.content.toString("utf8");
  const swapped = Buffer.from(element.content);
  return swapped.length % 2 === 0 ? swapped.swap16().toString("utf16le") : "";
}

interface NameAttribute {
  readonly oid: string;
  readonly value: string;
  readonly raw: Buffer;
}

function nameAttributes(subject: DerElement): NameAttribute[] {
  return readElements(subject.content).flatMap((set) =>
    readElements(expectTag(set, tags.set, "subject").content).map((attribute) => {
      const [type, value] = readElements(expectTag(attribute, tags.sequence, "subject").content);
      const found = expectTag(type, tags.objectIdentifier, "subject attribute");
      return {
        oid: objectIdentifierText(found.content),
        value: stringValue(value),
        raw: attribute.raw,
      };
    }),
  );
}

/**
 * The name with each attribute in a set of its own, and only the last common name: whoever reads the certificate sees
 * the one that was checked.
 */
function plainName(attributes: readonly NameAttribute[]): Buffer {
  const last = attributes.findLast(({ oid }) => oid === oids.commonName);
  const kept = attributes.filter((each) => each.oid !== oids.commonName || each === last);
  return der.sequence(...kept.map(({ raw }) => der.set(raw)));
}

function ipText(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join(".");
  if (bytes.length !== 16) throw new ParseError("IP subjectAltName", "4 or 16 bytes");
  const groups = Array.from({ length: 8 }, (_, index) =>
    bytes.readUInt16BE(index * 2).toString(16),
  );
  return new URL(`http://[${groups.join(":")}]`).hostname.slice(1, -1);
}

/** The GeneralNames of the extensions that are asked for. */
function requestedNames(attributes: DerElement | undefined): DerElement[] {
  if (attributes === undefined) return [];
  return readElements(expectTag(attributes, tags.attributes, "attributes").content)
    .map((attribute) => readElements(expectTag(attribute, tags.sequence, "attribute").content))
    .filter(
      ([type]) => objectIdentifierText(type?.content ?? Buffer.alloc(0)) === oids.extensionRequest,
    )
    .flatMap(([, values]) => readElements(expectTag(values, tags.set, "attribute values").content))
    .flatMap((list) => readElements(expectTag(list, tags.sequence, "extensions").content))
    .map((item) => readElements(expectTag(item, tags.sequence, "extension").content))
    .filter(
      ([type]) => objectIdentifierText(type?.content ?? Buffer.alloc(0)) === oids.subjectAltName,
    )
    .flatMap((members) => {
      const value = expectTag(members.at(-1), tags.octetString, "subjectAltName");
      const [names] = readElements(value.content);
      return readElements(expectTag(names, tags.sequence, "subjectAltName").content);
    });
}

function checkSignature(
  body: DerElement,
  publicKey: DerElement,
  proof: readonly DerElement[],
): void {
  const [algorithm, signature] = proof;
  const [oid] = readElements(expectTag(algorithm, tags.sequence, "signature algorithm").content);
  const found = expectTag(oid, tags.objectIdentifier, "signature algorithm");
  const name = objectIdentifierText(found.content);
  const hash = hashes[name];
  if (hash === undefined) {
    throw new ParseError("signature algorithm", `one that is secure and known, not ${name}`);
  }
  const bits = expectTag(signature, tags.bitString, "signature").content;
  if (bits[0] !== 0) throw new ParseError("signature", "whole bytes");
  let good: boolean;
  try {
    const key = createPublicKey({ key: publicKey.raw, format: "der", type: "spki" });
    good = verify(hash, body.raw, key, bits.subarray(1));
  } catch (error) {
    throw new ParseError("public key", `a key that can verify (${errorMessage(error)})`, {
      cause: error,
    });
  }
  if (!good) throw new ParseError("signature", "one that the request's own key has made");
}

/**
 * Reads a request (PEM) and checks that its signature was made with the key it names.
 *
 * @throws {ParseError} saying what is wrong with it. Text without a request in it has the API's own words.
 */
export function parseCertificationRequest(text: string): CertificationRequest {
  const block = firstBlock(text);
  if (block?.label !== "CERTIFICATE REQUEST") {
    throw new NotARequestError();
  }
  const [outer, ...trailing] = readElements(block.bytes);
  if (trailing.length > 0) throw new ParseError("certificate request", "nothing after it");
  const [body, ...proof] = readElements(expectTag(outer, tags.sequence, "request").content);
  const info = expectTag(body, tags.sequence, "request information");
  const [version, subject, publicKey, attributes] = readElements(info.content);
  expectTag(version, tags.integer, "version");
  const name = expectTag(subject, tags.sequence, "subject");
  const key = expectTag(publicKey, tags.sequence, "public key");
  const subjectAttributes = nameAttributes(name);
  const names = requestedNames(attributes);
  checkSignature(info, key, proof);
  const texts = (tag: number): string[] =>
    names.filter((each) => each.tag === tag).map((each) => each.content.toString("latin1"));
  return {
    subject: plainName(subjectAttributes),
    commonName: subjectAttributes.findLast(({ oid }) => oid === oids.commonName)?.value ?? "",
    organizations: subjectAttributes
      .filter(({ oid }) => oid === oids.organization)
      .map(({ value }) => value),
    publicKey: key.raw,
    emailAddresses: texts(0x81),
    dnsNames: texts(0x82),
    uris: texts(0x86),
    ipAddresses: names.filter((each) => each.tag === 0x87).map((each) => ipText(each.content)),
    alternativeNames: names
      .filter((each) => [0x81, 0x82, 0x86, 0x87].includes(each.tag))
      .map((each) => each.raw),
  };
}

/** The text holds no certificate request. */
export class NotARequestError extends ParseError {
  constructor() {
    super("PEM block", "type CERTIFICATE REQUEST");
    this.message = "PEM block type must be CERTIFICATE REQUEST";
  }
}
