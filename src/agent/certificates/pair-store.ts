import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { lstat, mkdir, readdir, readlink, rename, rm, symlink } from "node:fs/promises";
import { basename, join, resolve } from "node:path";

import { writeFileAtomic } from "../../lib/atomic-file.ts";
import { errorCode, errorMessage, SetupError } from "../../lib/errors.ts";
import { readIfThere } from "../../lib/read-if-there.ts";
import { newPrivateKey, privateKeyPEM } from "../../lib/x509.ts";
import { isExpired } from "./validity.ts";

/** A certificate with its key. */
export interface CredentialPair {
  /** The first one of the file; what follows it are its issuers. */
  readonly certificate: X509Certificate;
  readonly key: KeyObject;
  /** Both as they lie in the file. */
  readonly pem: string;
}

/**
 * Reads certificate and key, from one text or two.
 *
 * @throws {Error} when they are damaged or do not belong together.
 */
export function parsePair(certificatePEM: string, keyPEM = certificatePEM): CredentialPair {
  const pair = {
    certificate: new X509Certificate(certificatePEM),
    key: createPrivateKey(keyPEM),
    pem: certificatePEM === keyPEM ? keyPEM : `${certificatePEM.trimEnd()}\n${keyPEM}`,
  };
  if (!pair.certificate.checkPrivateKey(pair.key)) throw new Error("the key is another's");
  return pair;
}

/** First line of what we write: a kubelet that worked here before has files of the same names. */
const mark = "# Written by remora.\n";

/** `2026-11-21-16-30-00`, as the kubelet names its files. */
function timestamp(now: number): string {
  return new Date(now).toISOString().slice(0, 19).replaceAll(/[T:]/g, "-");
}

/**
 * The certificates of one purpose in the kubelet's layout: `PREFIX-current.pem` is a link to `PREFIX-<time>.pem`, which
 * holds certificate and key, so that a crash never leaves a certificate beside another's key.
 */
export class PairStore {
  readonly directory: string;
  readonly prefix: string;
  /** What kubeconfigs and servers name. */
  readonly currentPath: string;

  constructor(directory: string, prefix: "kubelet-client" | "kubelet-server") {
    this.directory = resolve(directory);
    this.prefix = prefix;
    this.currentPath = join(this.directory, `${prefix}-current.pem`);
  }

  /**
   * The current pair; undefined when there is none.
   *
   * @throws {SetupError} when the file is damaged.
   */
  async read(): Promise<CredentialPair | undefined> {
    const text = await readIfThere(this.currentPath);
    if (text === undefined) return undefined;
    try {
      return parsePair(text);
    } catch (error) {
      throw new SetupError(
        `${this.currentPath} does not hold a certificate and its key (${errorMessage(error)}); delete it, then join again with a token or a bootstrap kubeconfig`,
        { cause: error },
      );
    }
  }

  /**
   * Makes a pair the current one, readable by root only. A reader sees the old pair or the new one.
   *
   * @param now Milliseconds since the epoch.
   */
  async write(pem: string, now: number): Promise<void> {
    await this.ensureDirectory();
    const path = join(this.directory, `${this.prefix}-${timestamp(now)}.pem`);
    await writeFileAtomic(path, `${mark}${pem}`, 0o600);
    const updated = join(this.directory, `${this.prefix}-updated.pem`);
    await rm(updated, { force: true });
    await symlink(path, updated);
    // Replaces a plain file too, which an older version left.
    await rename(updated, this.currentPath);
    await this.#prune(now);
  }

  async ensureDirectory(): Promise<void> {
    await mkdir(this.directory, { recursive: true, mode: 0o700 });
  }

  /**
   * The key of a certificate that is being asked for: the one of an earlier attempt, or a new one. It is on disk before
   * anybody hears of it, so that a restart goes on with the same request.
   */
  async nextKey(): Promise<KeyObject> {
    const text = await readIfThere(this.#nextKeyPath());
    if (text !== undefined) {
      try {
        return createPrivateKey(text);
      } catch {
        // Damaged, and of no worth yet: made anew.
      }
    }
    await this.ensureDirectory();
    const key = newPrivateKey();
    await writeFileAtomic(this.#nextKeyPath(), privateKeyPEM(key), 0o600);
    return key;
  }

  /** Forgets the key of a request that has its certificate, or will never get one. */
  async dropNextKey(): Promise<void> {
    await rm(this.#nextKeyPath(), { force: true });
  }

  /** All files of this purpose that we wrote, for whoever removes them. */
  async ownFiles(): Promise<string[]> {
    const out = [this.#nextKeyPath()];
    for (const path of [...(await this.#held()), this.currentPath]) {
      const text = await readIfThere(path);
      if (text?.startsWith(mark) === true) out.push(path);
    }
    // The link before what it leads to: without that nobody could tell whose it is.
    return out.toReversed();
  }

  #nextKeyPath(): string {
    return join(this.directory, `${this.prefix}-current-next.key`);
  }

  /** `PREFIX-<time>.pem` */
  async #held(): Promise<string[]> {
    const pattern = new RegExp(`^${this.prefix}-\\d{4}(-\\d{2}){5}\\.pem$`);
    try {
      const names = await readdir(this.directory);
      return names.filter((name) => pattern.test(name)).map((name) => join(this.directory, name));
    } catch (error) {
      if (errorCode(error) === "ENOENT") return [];
      throw error;
    }
  }

  /** Removes pairs that have expired: with short certificates they would pile up. */
  async #prune(now: number): Promise<void> {
    const target = await this.#currentTarget();
    for (const path of await this.#held()) {
      if (basename(path) === target) continue;
      const text = await readIfThere(path);
      if (text !== undefined && hasExpired(text, now)) await rm(path, { force: true });
    }
  }

  async #currentTarget(): Promise<string | undefined> {
    const found = await lstat(this.currentPath);
    return found.isSymbolicLink() ? basename(await readlink(this.currentPath)) : undefined;
  }
}

/** False for what cannot be read: whoever put it there may want to know why. */
function hasExpired(pem: string, now: number): boolean {
  try {
    return isExpired(new X509Certificate(pem), now);
  } catch {
    return false;
  }
}
