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
}

const dayMs = 24 * 60 * 60 * 1000;
const caLifeMs = 20 * 365 * dayMs;
const leafLifeMs = 365 * dayMs;
/** Clocks of two machines are never equal. */
const skewMs = 60 * 60 * 1000;
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

async function ensureAuthority(
  dir: string,
  now: number,
): Promise<{ issuer: Issuer; pem: string; file: string }> {
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
  if (text === undefined) {
    const pem = certificateAuthority(caName, privateKey, {
      notBefore: now - skewMs,
      notAfter: now + caLifeMs,
    });
    await writeFileAtomic(file, pem, 0o644);
    return { issuer, pem, file };
  }
  if (!parseCertificate(file, text).checkPrivateKey(privateKey)) {
    throw new SetupError(
      `${keyFile} does not belong to ${file}; restore both, or delete ${dir} to make a new authority`,
    );
  }
  return { issuer, pem: text, file };
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
  const leftMs = cert.validToDate.getTime() - now;
  return (
    cert.checkPrivateKey(key) &&
    cert.verify(ca.publicKey) &&
    // The subject decides who somebody is: a renamed node needs a new certificate.
    cert.subject.split("\n").includes(`CN=${request.subject.commonName}`) &&
    leftMs > leafLifeMs / 3 &&
    names.size === new Set(wanted).size &&
    wanted.every((name) => names.has(name))
  );
}

/** Reads the pair, or makes it anew when it is missing, two thirds of its life are over, or its names changed. */
async function ensureLeaf(
  dir: string,
  request: LeafRequest,
  issuer: Issuer,
  caPEM: string,
  now: number,
): Promise<KeyPair> {
  const certFile = join(dir, `${request.name}.crt`);
  const keyFile = join(dir, `${request.name}.key`);
  const key = await ensureKey(keyFile);
  const text = await readIfThere(certFile);
  const ca = new X509Certificate(caPEM);
  if (text !== undefined && isGood(parseCertificate(certFile, text), request, key, ca, now)) {
    return { certFile, keyFile, certPEM: text, keyPEM: privateKeyPEM(key) };
  }
  const certPEM = certificate(
    { ...request, notBefore: now - skewMs, notAfter: now + leafLifeMs },
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
 * Makes or reads the cluster's certificates. Called again at any time it renews what is due; the authority lives
 * twenty years and stays.
 *
 * @throws {SetupError} naming the file that is damaged and what to do about it.
 */
export async function ensurePKI(options: PKIOptions): Promise<PKI> {
  const { dir, now } = options;
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const { issuer, pem: caPEM, file: caFile } = await ensureAuthority(dir, now);
  const leaf = (request: LeafRequest): Promise<KeyPair> =>
    ensureLeaf(dir, request, issuer, caPEM, now);
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
  return {
    caFile,
    caPEM,
    authority: { issuer, notAfter: new X509Certificate(caPEM).validToDate.getTime() },
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
    serviceAccountKeyPEM: privateKeyPEM(serviceAccountKey),
  };
}
