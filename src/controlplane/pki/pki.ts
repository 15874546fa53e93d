import {
  X509Certificate,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
} from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";

import { writeFileAtomic } from "../../lib/atomic-file.ts";
import { canonicalIP, ipFamily } from "../../lib/cidr.ts";
import { SetupError, errorCode, errorMessage } from "../../lib/errors.ts";
import { createCertificate, type Subject, type Usage } from "./x509.ts";

const day = 24 * 60 * 60 * 1000;
/** Long: every kubeconfig in the field trusts it, and nothing can replace it quietly. */
const authorityDays = 20 * 365;
const leafDays = 365;
/** Clocks of machines differ; a certificate is valid a little before it was made. */
const backdateMs = 60 * 60 * 1000;
const authoritySubject: Subject = { organizations: [], commonName: "remora-ca" };

/** A key with its certificate, as PEM and as the files that hold them. */
export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
  readonly certificateFile: string;
  readonly keyFile: string;
}

export interface PKI {
  readonly ca: KeyPair;
  /** Serving certificate of the API server. */
  readonly apiServer: KeyPair;
  /** Client certificate of the API server towards the node's port 10250. */
  readonly apiServerKubeletClient: KeyPair;
  /** `kubernetes-admin` in `system:masters`. */
  readonly admin: KeyPair;
  /** `system:node:NAME` in `system:nodes`. */
  readonly node: KeyPair;
  /** `system:kube-proxy`. */
  readonly kubeProxy: KeyPair;
  /** Serving certificate of the node's port 10250. */
  readonly kubeletServing: KeyPair;
  /** EC P-256 private key that signs service account tokens, PEM. */
  readonly serviceAccountKey: string;
  /** Names of the certificates that were made or renewed in this call. */
  readonly renewed: readonly string[];
}

export interface PKIOptions {
  /** Created with mode 0700 when it is missing. */
  readonly dir: string;
  readonly nodeName: string;
  /** The `kubernetes` Service's address, such as `10.96.0.1`. */
  readonly serviceIP: string;
  /** More names and addresses of the API server: host names, the machine's addresses. */
  readonly names: readonly string[];
  /** Addresses and names under which the node's port is reached, beside its node name. */
  readonly nodeNames: readonly string[];
  /** Milliseconds since the epoch. */
  readonly now: number;
}

interface Authority {
  readonly pair: KeyPair;
  readonly key: KeyObject;
  readonly publicKey: KeyObject;
  readonly x509: X509Certificate;
}

interface Leaf {
  readonly name: string;
  readonly subject: Subject;
  readonly names: readonly string[];
  readonly usages: readonly Usage[];
}

async function readOptional(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

function damaged(file: string, what: string, cause: unknown): SetupError {
  const reason = cause instanceof Error ? `: ${errorMessage(cause)}` : "";
  return new SetupError(
    `${file} is not ${what} that Remora wrote${reason}; restore it from a backup, or remove it together with the other files in its directory to start with new certificates`,
    { cause },
  );
}

function parseKey(file: string, content: string): KeyObject {
  try {
    const key = createPrivateKey(content);
    if (key.asymmetricKeyDetails?.namedCurve === "prime256v1") return key;
  } catch (error) {
    throw damaged(file, "a private key", error);
  }
  throw damaged(file, "an EC P-256 private key", undefined);
}

function parseCertificate(file: string, content: string): X509Certificate {
  try {
    return new X509Certificate(content);
  } catch (error) {
    throw damaged(file, "a certificate", error);
  }
}

function newKey(): {
  readonly key: KeyObject;
  readonly publicKey: KeyObject;
  readonly text: string;
} {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return {
    key: privateKey,
    publicKey,
    text: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  };
}

function files(
  dir: string,
  name: string,
): { readonly certificateFile: string; readonly keyFile: string } {
  return { certificateFile: join(dir, `${name}.crt`), keyFile: join(dir, `${name}.key`) };
}

async function writePair(
  dir: string,
  name: string,
  certificate: string,
  key: string,
): Promise<KeyPair> {
  const at = files(dir, name);
  // The key first: a crash in between leaves a pair that does not match, and that is renewed at the next start.
  await writeFileAtomic(at.keyFile, key, 0o600);
  await writeFileAtomic(at.certificateFile, certificate, 0o644);
  return { certificate, key, ...at };
}

async function createAuthority(dir: string, now: number): Promise<Authority> {
  const { key, publicKey, text } = newKey();
  const certificate = createCertificate({
    subject: authoritySubject,
    publicKey,
    issuer: { subject: authoritySubject, key, publicKey },
    notBefore: now - backdateMs,
    notAfter: now + authorityDays * day,
    names: [],
    usages: [],
  });
  const pair = await writePair(dir, "ca", certificate, text);
  return { pair, key, publicKey, x509: new X509Certificate(certificate) };
}

async function ensureAuthority(
  dir: string,
  now: number,
): Promise<{ readonly authority: Authority; readonly created: boolean }> {
  const at = files(dir, "ca");
  const [certificate, text] = await Promise.all([
    readOptional(at.certificateFile),
    readOptional(at.keyFile),
  ]);
  if (certificate === undefined) {
    // A key alone has never been trusted by anybody: the start before was cut short.
    return { authority: await createAuthority(dir, now), created: true };
  }
  if (text === undefined) {
    throw new SetupError(
      `${at.keyFile} is missing while ${at.certificateFile} is there; restore it from a backup, or remove the certificate too to start with new ones`,
    );
  }
  const key = parseKey(at.keyFile, text);
  const x509 = parseCertificate(at.certificateFile, certificate);
  if (!x509.ca || !x509.checkPrivateKey(key)) {
    throw damaged(at.certificateFile, `the certificate authority of ${at.keyFile}`, undefined);
  }
  if (Date.parse(x509.validTo) <= now) {
    throw new SetupError(
      `${at.certificateFile} expired on ${x509.validTo}; set the clock right, or remove the files in ${dir} to start with new certificates`,
    );
  }
  const publicKey = createPublicKey(key);
  return {
    authority: { pair: { certificate, key: text, ...at }, key, publicKey, x509 },
    created: false,
  };
}

/** Names in the form in which Node prints the extension, in order of text. */
function alternativeNames(x509: X509Certificate): string[] {
  return (x509.subjectAltName ?? "")
    .split(", ")
    .filter((entry) => entry !== "")
    .map((entry) => {
      const value = entry.slice(entry.indexOf(":") + 1);
      return entry.startsWith("IP Address:") ? canonicalIP(value) : value;
    })
    .toSorted();
}

function canonicalNames(names: readonly string[]): string[] {
  return [
    ...new Set(names.map((name) => (ipFamily(name) === undefined ? name : canonicalIP(name)))),
  ];
}

function subjectText(subject: Subject): string {
  return [...subject.organizations.map((name) => `O=${name}`), `CN=${subject.commonName}`].join(
    "\n",
  );
}

/** Whether a stored certificate can go on being used: ours, for this key, these names, with a third of its life left. */
function isCurrent(
  x509: X509Certificate,
  key: KeyObject,
  leaf: Leaf,
  ca: Authority,
  now: number,
): boolean {
  const start = Date.parse(x509.validFrom);
  const end = Date.parse(x509.validTo);
  return (
    x509.checkPrivateKey(key) &&
    x509.verify(ca.publicKey) &&
    x509.subject === subjectText(leaf.subject) &&
    start <= now &&
    end - now >= (end - start) / 3 &&
    JSON.stringify(alternativeNames(x509)) === JSON.stringify(leaf.names.toSorted())
  );
}

async function ensureLeaf(
  dir: string,
  ca: Authority,
  leaf: Leaf,
  now: number,
): Promise<{ readonly pair: KeyPair; readonly renewed: boolean }> {
  const at = files(dir, leaf.name);
  const [certificate, text] = await Promise.all([
    readOptional(at.certificateFile),
    readOptional(at.keyFile),
  ]);
  if (certificate !== undefined && text !== undefined) {
    const x509 = parseCertificate(at.certificateFile, certificate);
    const key = parseKey(at.keyFile, text);
    if (isCurrent(x509, key, leaf, ca, now)) {
      return { pair: { certificate, key: text, ...at }, renewed: false };
    }
  }
  const { publicKey, text: fresh } = newKey();
  const signed = createCertificate({
    subject: leaf.subject,
    publicKey,
    issuer: { subject: authoritySubject, key: ca.key, publicKey: ca.publicKey },
    notBefore: now - backdateMs,
    // A leaf that outlives its authority is refused by strict verifiers.
    notAfter: Math.min(now + leafDays * day, Date.parse(ca.x509.validTo)),
    names: leaf.names,
    usages: leaf.usages,
  });
  return { pair: await writePair(dir, leaf.name, signed, fresh), renewed: true };
}

async function ensureSigningKey(dir: string): Promise<string> {
  const file = join(dir, "sa.key");
  const stored = await readOptional(file);
  if (stored !== undefined) {
    parseKey(file, stored);
    return stored;
  }
  const { text } = newKey();
  await writeFileAtomic(file, text, 0o600);
  return text;
}

function client(name: string, commonName: string, ...organizations: readonly string[]): Leaf {
  return { name, subject: { organizations, commonName }, names: [], usages: ["client"] };
}

const apiServerNames = [
  "localhost",
  "kubernetes",
  "kubernetes.default",
  "kubernetes.default.svc",
  "kubernetes.default.svc.cluster.local",
  "127.0.0.1",
  "::1",
];

/**
 * Makes sure that every key and certificate of a one-machine cluster is in `dir` and good for use, renewing what has
 * less than a third of its life left or whose names changed. Safe to call again at any time and after a crash.
 *
 * @throws {SetupError} naming a file that is damaged or not ours, and what to do.
 */
export async function ensurePKI(options: PKIOptions): Promise<PKI> {
  const { dir, now, nodeName } = options;
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const { authority, created } = await ensureAuthority(dir, now);
  const renewed: string[] = created ? ["ca"] : [];
  const ensure = async (leaf: Leaf): Promise<KeyPair> => {
    const result = await ensureLeaf(dir, authority, leaf, now);
    if (result.renewed) renewed.push(leaf.name);
    return result.pair;
  };
  return {
    ca: authority.pair,
    apiServer: await ensure({
      name: "apiserver",
      subject: { organizations: [], commonName: "kube-apiserver" },
      names: canonicalNames([...apiServerNames, options.serviceIP, ...options.names]),
      usages: ["server"],
    }),
    apiServerKubeletClient: await ensure(
      client("apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
    ),
    admin: await ensure(client("admin", "kubernetes-admin", "system:masters")),
    node: await ensure(client("node", `system:node:${nodeName}`, "system:nodes")),
    kubeProxy: await ensure(client("kube-proxy", "system:kube-proxy")),
    kubeletServing: await ensure({
      name: "kubelet-serving",
      subject: { organizations: ["system:nodes"], commonName: `system:node:${nodeName}` },
      names: canonicalNames([nodeName, ...options.nodeNames]),
      usages: ["server"],
    }),
    serviceAccountKey: await ensureSigningKey(dir),
    renewed,
  };
}
