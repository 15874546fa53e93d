import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";

import { writeFileAtomic } from "../../lib/atomic-file.ts";
import { canonicalIP, ipFamily } from "../../lib/cidr.ts";
import { errorMessage, SetupError } from "../../lib/errors.ts";
import {
  certificate,
  certificateAuthority,
  type DistinguishedName,
  type Issuer,
  newPrivateKey,
  privateKeyPEM,
} from "../../lib/x509.ts";
import { readIfThere } from "../../lib/read-if-there.ts";

export interface PKIOptions {
  /** Directory of the files; made with mode 0700. */
  readonly dir: string;
  readonly nodeName: string;
  /** Names and addresses of the API server beside the fixed ones. */
  readonly apiServerNames: readonly string[];
  /** Names and addresses of the node's own server (port 10250). */
  readonly nodeNames: readonly string[];
  /** Milliseconds since the epoch. */
  readonly now: number;
}

/** A certificate, its key, and where they lie. */
export interface KeyPair {
  readonly certFile: string;
  readonly keyFile: string;
  readonly certPEM: string;
  readonly keyPEM: string;
}

export interface PKI {
  readonly caFile: string;
  readonly caPEM: string;
  /** With which the cluster signs certificates that are asked of it. */
  readonly authority: {
    readonly issuer: Issuer;
    /** End of the authority's certificate, milliseconds since the epoch. */
    readonly notAfter: number;
  };
  /** Of the API server. */
  readonly apiServer: KeyPair;
  /** With which the API server calls the node. */
  readonly kubeletClient: KeyPair;
  /** Of the node's port 10250. */
  readonly kubeletServing: KeyPair;
  /** `system:masters`. */
  readonly admin: KeyPair;
  /** `system:node:NAME` in `system:nodes`. */
  readonly node: KeyPair;
  /** `system:kube-proxy`. */
  readonly proxy: KeyPair;
  /** Signs ServiceAccount tokens. */
  readonly serviceAccountKeyPEM: string;
  /** When the first of them is due for renewal, milliseconds since the epoch. */
  readonly renewAt: number;
  /** When the last of them begins: before that the clock was set back, and they have to be made anew too. */
  readonly validFrom: number;
}

const dayMs = 24 * 60 * 60 * 1000;
const caLifeMs = 20 * 365 * dayMs;
const leafLifeMs = 365 * dayMs;
/** Clocks of two machines are never equal. */
const skewMs = 60 * 60 * 1000;

/** A certificate is made anew when a third of its life is left. */
function renewalTime(certificate: X509Certificate): number {
  const from = certificate.validFromDate.getTime();
  return from + ((certificate.validToDate.getTime() - from) * 2) / 3;
}

/** Begun, for a clock that may have been set back, and not due. */
function isTimely(certificate: X509Certificate, now: number): boolean {
  return certificate.validFromDate.getTime() <= now && now < renewalTime(certificate);
}
const caName: DistinguishedName = { commonName: "remora-ca" };

function parseKey(path: string, text: string): KeyObject {
  try {
    return createPrivateKey(text);
  } catch (error) {
    throw new SetupError(
      `${path} is not a private key (${errorMessage(error)}); restore it from a backup, or delete it to get a new one`,
      { cause: error },
    );
  }
}

function parseCertificate(path: string, text: string): X509Certificate {
  try {
    return new X509Certificate(text);
  } catch (error) {
    throw new SetupError(
      `${path} is not a certificate (${errorMessage(error)}); restore it from a backup, or delete it to get a new one`,
      { cause: error },
    );
  }
}

async function ensureKey(path: string): Promise<KeyObject> {
  const text = await readIfThere(path);
  if (text !== undefined) return parseKey(path, text);
  const key = newPrivateKey();
  await writeFileAtomic(path, privateKeyPEM(key), 0o600);
  return key;
}

interface Authority {
  readonly issuer: Issuer;
  readonly certificate: X509Certificate;
  readonly pem: string;
  readonly file: string;
}

/**
 * Reads the authority or makes it. Renewed it keeps its name and key, so that who trusts the old certificate trusts what
 * is signed under the new one, and the other way round.
 */
async function ensureAuthority(dir: string, now: number): Promise<Authority> {
  const file = join(dir, "ca.crt");
  const keyFile = join(dir, "ca.key");
  const [text, keyText] = await Promise.all([readIfThere(file), readIfThere(keyFile)]);
  if (text !== undefined && keyText === undefined) {
    throw new SetupError(
      `${keyFile} is missing beside ${file}; restore it, or delete ${dir} to make a new authority`,
    );
  }
  const privateKey = await ensureKey(keyFile);
  const issuer: Issuer = { name: caName, privateKey };
  const held = text === undefined ? undefined : parseCertificate(file, text);
  if (held !== undefined && !held.checkPrivateKey(privateKey)) {
    throw new SetupError(
      `${keyFile} does not belong to ${file}; restore both, or delete ${dir} to make a new authority`,
    );
  }
  if (text !== undefined && held !== undefined && isTimely(held, now)) {
    return { issuer, certificate: held, pem: text, file };
  }
  const pem = certificateAuthority(caName, privateKey, {
    notBefore: now - skewMs,
    notAfter: now + caLifeMs,
  });
  await writeFileAtomic(file, pem, 0o644);
  return { issuer, certificate: new X509Certificate(pem), pem, file };
}

interface LeafRequest {
  readonly name: string;
  readonly subject: DistinguishedName;
  readonly usages: readonly ("server" | "client")[];
  readonly alternativeNames?: readonly string[];
}

/** Names in a certificate, in one comparable form. */
function namesOf(cert: X509Certificate): Set<string> {
  const entries = (cert.subjectAltName ?? "").split(", ").filter((entry) => entry !== "");
  return new Set(
    entries.map((entry) => {
      const value = entry.slice(entry.indexOf(":") + 1);
      return ipFamily(value) === undefined ? value : canonicalIP(value);
    }),
  );
}

function isGood(
  cert: X509Certificate,
  request: LeafRequest,
  key: KeyObject,
  ca: X509Certificate,
  now: number,
): boolean {
  const names = namesOf(cert);
  const wanted = request.alternativeNames ?? [];
  return (
    cert.checkPrivateKey(key) &&
    cert.verify(ca.publicKey) &&
    // The subject decides who somebody is: a renamed node needs a new certificate.
    cert.subject.split("\n").includes(`CN=${request.subject.commonName}`) &&
    isTimely(cert, now) &&
    names.size === new Set(wanted).size &&
    wanted.every((name) => names.has(name))
  );
}

/** Reads the pair, or makes it anew when it is missing, two thirds of its life are over, or its names changed. */
async function ensureLeaf(
  dir: string,
  request: LeafRequest,
  authority: Authority,
  now: number,
): Promise<KeyPair> {
  const certFile = join(dir, `${request.name}.crt`);
  const keyFile = join(dir, `${request.name}.key`);
  const key = await ensureKey(keyFile);
  const text = await readIfThere(certFile);
  const { issuer, certificate: ca } = authority;
  if (text !== undefined && isGood(parseCertificate(certFile, text), request, key, ca, now)) {
    return { certFile, keyFile, certPEM: text, keyPEM: privateKeyPEM(key) };
  }
  const certPEM = certificate(
    {
      ...request,
      notBefore: now - skewMs,
      // Nobody accepts what outlives its authority.
      notAfter: Math.min(now + leafLifeMs, ca.validToDate.getTime()),
    },
    key,
    issuer,
  );
  await writeFileAtomic(certFile, certPEM, 0o644);
  return { certFile, keyFile, certPEM, keyPEM: privateKeyPEM(key) };
}

function uniqueNames(names: readonly string[]): string[] {
  return [
    ...new Set(names.map((name) => (ipFamily(name) === undefined ? name : canonicalIP(name)))),
  ];
}

/**
 * Makes or reads the cluster's certificates. Called again at any time it renews what is due; those that other machines
 * hold stay good.
 *
 * @throws {SetupError} naming the file that is damaged and what to do about it.
 */
export async function ensurePKI(options: PKIOptions): Promise<PKI> {
  const { dir, now } = options;
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const authority = await ensureAuthority(dir, now);
  const leaf = (request: LeafRequest): Promise<KeyPair> => ensureLeaf(dir, request, authority, now);
  const client = (
    name: string,
    commonName: string,
    ...organizations: readonly string[]
  ): Promise<KeyPair> => leaf({ name, subject: { commonName, organizations }, usages: ["client"] });
  const services = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
  ];
  const apiServer = await leaf({
    name: "apiserver",
    subject: { commonName: "kube-apiserver" },
    usages: ["server"],
    alternativeNames: uniqueNames([
      "127.0.0.1",
      "::1",
      "localhost",
      ...services,
      ...options.apiServerNames,
    ]),
  });
  const kubeletServing = await leaf({
    name: "kubelet-serving",
    subject: { commonName: `system:node:${options.nodeName}`, organizations: ["system:nodes"] },
    usages: ["server"],
    alternativeNames: uniqueNames([options.nodeName, ...options.nodeNames]),
  });
  const serviceAccountKey = await ensureKey(join(dir, "service-account.key"));
  const pairs = {
    apiServer,
    kubeletServing,
    kubeletClient: await client(
      "apiserver-kubelet-client",
      "kube-apiserver-kubelet-client",
      "system:masters",
    ),
    admin: await client("admin", "kubernetes-admin", "system:masters"),
    node: await client("node", `system:node:${options.nodeName}`, "system:nodes"),
    proxy: await client("proxy", "system:kube-proxy"),
  };
  const leaves = Object.values(pairs).map(({ certPEM }) => new X509Certificate(certPEM));
  const { certificate: ca } = authority;
  const all = [ca, ...leaves];
  return {
    caFile: authority.file,
    caPEM: authority.pem,
    authority: { issuer: authority.issuer, notAfter: ca.validToDate.getTime() },
    ...pairs,
    serviceAccountKeyPEM: privateKeyPEM(serviceAccountKey),
    renewAt: Math.min(...all.map(renewalTime)),
    validFrom: Math.max(...all.map(({ validFromDate }) => validFromDate.getTime())),
  };
}
