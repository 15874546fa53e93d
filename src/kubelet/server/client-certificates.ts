import { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";

import { isRecord, optionalString } from "../../lib/guard.ts";
import type { User } from "./identity.ts";

/** Subject attribute that carries a user's UID (KEP-4563, AllowParsingUserUIDFromCertAuth). */
const uidAttribute = "1.3.6.1.4.1.57683.2";

type Credential = Pick<User, "name" | "uid" | "groups">;

/** The user that a client certificate's subject names: CN is the name, each O a group. */
export function certificateUser(subject: unknown): Credential | undefined {
  if (!isRecord(subject)) return undefined;
  const name = optionalString(subject["CN"]);
  if (name === undefined || name === "") return undefined;
  const organizations = subject["O"];
  const groups = (Array.isArray(organizations) ? organizations : [organizations]).filter(
    (group) => typeof group === "string",
  );
  return { name, uid: optionalString(subject[uidAttribute]) ?? "", groups };
}

/** The part of a connection that tells who is at its other end. */
export type CertifiedSocket = Pick<
  TLSSocket,
  "authorized" | "authorizationError" | "getPeerCertificate" | "getPeerX509Certificate"
>;

interface Verified {
  readonly user: User | undefined;
  /** Milliseconds since the epoch between which each certificate of the chain is good. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** Fingerprints of the chain, the client's own first. */
  readonly chain: readonly string[];
}

/** The certificates of a PEM bundle. @throws {TypeError} and others when one cannot be read. */
export function parseBundle(pem: string): readonly X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  return blocks.map((block) => new X509Certificate(block));
}

/**
 * Tells the users of client certificates.
 *
 * The handshake has verified the chain. Connections are kept for long, though, so each request looks again at what can
 * have changed: the time, and which CAs are trusted.
 */
export class ClientCertificates {
  readonly #sockets = new WeakMap<CertifiedSocket, Verified>();
  #trusted: ReadonlySet<string>;

  constructor(bundlePEM: string) {
    this.#trusted = fingerprints(bundlePEM);
  }

  /** From now on these CAs are trusted, also on open connections. @throws when the bundle cannot be read. */
  trust(bundlePEM: string): void {
    this.#trusted = fingerprints(bundlePEM);
  }

  /**
   * Undefined when the connection has no certificate, or one that names nobody, or no CA is trusted at all.
   *
   * @throws {Error} the certificate does not hold.
   */
  userOf(socket: CertifiedSocket, now: number): User | undefined {
    if (this.#trusted.size === 0) return undefined;
    const verified = this.#sockets.get(socket) ?? verify(socket);
    if (verified === undefined) return undefined;
    this.#sockets.set(socket, verified);
    const { chain, notAfter, notBefore, user } = verified;
    if (now < notBefore || now > notAfter) {
      throw new Error("verifying certificate failed: it has expired or is not yet valid");
    }
    if (!chain.some((fingerprint) => this.#trusted.has(fingerprint))) {
      throw new Error("verifying certificate failed: signed by unknown authority");
    }
    return user;
  }
}

function fingerprints(bundlePEM: string): ReadonlySet<string> {
  return new Set(parseBundle(bundlePEM).map(({ fingerprint256 }) => fingerprint256));
}

function verify(socket: CertifiedSocket): Verified | undefined {
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) return undefined;
  if (!socket.authorized) {
    throw new Error(`verifying certificate failed: ${String(socket.authorizationError)}`);
  }
  const chain: string[] = [];
  let [notBefore, notAfter] = [-Infinity, Infinity];
  // Ends at a certificate that issued itself, or at one whose issuer nobody showed.
  let current: IssuedCertificate | undefined = socket.getPeerCertificate(true);
  while (current?.fingerprint256 !== undefined && !chain.includes(current.fingerprint256)) {
    chain.push(current.fingerprint256);
    notBefore = Math.max(notBefore, Date.parse(current.valid_from));
    notAfter = Math.min(notAfter, Date.parse(current.valid_to));
    current = current.issuerCertificate;
  }
  const digest = certificate.fingerprint256.replaceAll(":", "").toLowerCase();
  const credential = certificateUser(certificate.toLegacyObject().subject);
  const extra = { "authentication.kubernetes.io/credential-id": [`X509SHA256=${digest}`] };
  const user = credential === undefined ? undefined : { ...credential, extra };
  return { user, notBefore, notAfter, chain };
}

interface IssuedCertificate {
  readonly fingerprint256: string;
  readonly valid_from: string;
  readonly valid_to: string;
  readonly issuerCertificate?: IssuedCertificate;
}
