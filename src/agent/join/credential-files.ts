import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";

import { writeFileAtomic } from "../../lib/atomic-file.ts";
import { errorMessage, SetupError } from "../../lib/errors.ts";
import { newPrivateKey, privateKeyPEM } from "../../lib/x509.ts";
import { readIfThere } from "../../lib/read-if-there.ts";

/**
 * Where a node that joined keeps what it got. Certificate and key lie in one file each, as the kubelet has them, so that
 * a crash can never leave a certificate beside another's key.
 */
export interface CredentialPaths {
  readonly directory: string;
  /** CA of the cluster. */
  readonly ca: string;
  /** Certificate and key with which the node comes to the API server. */
  readonly client: string;
  /** Certificate and key of port 10250. */
  readonly server: string;
  readonly kubeconfig: string;
  /** What the cluster's ConfigMaps said last. */
  readonly clusterConfiguration: string;
}

export function credentialPaths(rootDir: string): CredentialPaths {
  const directory = join(rootDir, "pki");
  return {
    directory,
    ca: join(directory, "ca.crt"),
    client: join(directory, "kubelet-client-current.pem"),
    server: join(directory, "kubelet-server-current.pem"),
    kubeconfig: join(rootDir, "joined.kubeconfig"),
    clusterConfiguration: join(rootDir, "cluster-configuration.json"),
  };
}

/** All files that joining leaves in a root directory, for whoever removes them. */
export function joinedFiles(rootDir: string): string[] {
  const { ca, client, server, kubeconfig, clusterConfiguration } = credentialPaths(rootDir);
  const pairs = [client, server].flatMap((pair) => [pair, nextKeyPath(pair)]);
  return [kubeconfig, clusterConfiguration, ca, ...pairs];
}

/** A certificate with its key. */
export interface CredentialPair {
  readonly certificate: X509Certificate;
  readonly key: KeyObject;
}

/**
 * Reads a pair; undefined when there is none.
 *
 * @throws {SetupError} when the file is damaged.
 */
export async function readPair(path: string): Promise<CredentialPair | undefined> {
  const text = await readIfThere(path);
  if (text === undefined) return undefined;
  try {
    const pair = { certificate: new X509Certificate(text), key: createPrivateKey(text) };
    if (!pair.certificate.checkPrivateKey(pair.key)) throw new Error("the key is another's");
    return pair;
  } catch (error) {
    throw new SetupError(
      `${path} does not hold a certificate and its key (${errorMessage(error)}); delete it and join again with a token`,
      { cause: error },
    );
  }
}

/** Writes a pair, readable by root only. */
export async function writePair(path: string, certificate: string, key: KeyObject): Promise<void> {
  const text = `${certificate.trimEnd()}\n${privateKeyPEM(key)}`;
  await writeFileAtomic(path, text, 0o600);
}

function nextKeyPath(pairPath: string): string {
  return `${pairPath.replace(/\.pem$/, "")}-next.key`;
}

/**
 * The key of a certificate that is being asked for: the one of an earlier attempt, or a new one. It is on disk before
 * anybody hears of it, so that a restart goes on with the same request.
 */
export async function nextKey(pairPath: string): Promise<KeyObject> {
  const path = nextKeyPath(pairPath);
  const text = await readIfThere(path);
  if (text !== undefined) {
    try {
      return createPrivateKey(text);
    } catch {
      // Damaged, and of no worth yet: made anew.
    }
  }
  const key = newPrivateKey();
  await writeFileAtomic(path, privateKeyPEM(key), 0o600);
  return key;
}

/** Forgets the key of a request that has its certificate, or will never get one. */
export async function dropNextKey(pairPath: string): Promise<void> {
  await rm(nextKeyPath(pairPath), { force: true });
}

/** Makes the directory of the pairs. */
export async function ensureDirectory(paths: CredentialPaths): Promise<void> {
  await mkdir(paths.directory, { recursive: true, mode: 0o700 });
}

/** Common name of a certificate. */
export function commonName(certificate: X509Certificate): string {
  const line = certificate.subject.split("\n").find((each) => each.startsWith("CN="));
  return line?.slice(3) ?? "";
}

/**
 * When a certificate is to be replaced: at 70 to 90 % of its life, as the kubelet does.
 *
 * @param random In [0, 1).
 * @returns Milliseconds since the epoch.
 */
export function renewalTime(certificate: X509Certificate, random: number): number {
  const from = certificate.validFromDate.getTime();
  const lifeMs = certificate.validToDate.getTime() - from;
  return from + lifeMs * (0.7 + 0.2 * random);
}
