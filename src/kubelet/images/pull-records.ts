import { createHash } from "node:crypto";
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";

import { writeFileAtomic } from "../../lib/atomic-file.ts";
import { errorCode } from "../../lib/errors.ts";
import { isRecord, optionalString } from "../../lib/guard.ts";
import { readIfThere } from "../../lib/read-if-there.ts";
import { type Coordinates, type Credential, credentialHash, repositoryOf } from "./credentials.ts";

const apiVersion = "kubelet.config.k8s.io/v1beta1";
const prefix = "sha256-";

/** A secret that opened a registry (ImagePullSecret). */
interface PullSecret extends Coordinates {
  readonly credentialHash: string;
}

/** Who may use an image by one of its names (ImagePullCredentials). */
interface PullCredentials {
  readonly nodePodsAccessible?: boolean;
  readonly kubernetesSecrets?: readonly PullSecret[];
  readonly kubernetesServiceAccounts?: readonly Coordinates[];
}

/** What is known of an image that this node pulled (ImagePulledRecord). */
interface PulledRecord {
  readonly imageRef: string;
  readonly credentialMapping: Readonly<Record<string, PullCredentials>>;
}

function fileName(key: string): string {
  return prefix + createHash("sha256").update(key).digest("hex");
}

function parseCoordinates(value: unknown): Coordinates {
  const fields = isRecord(value) ? value : {};
  const text = (name: string): string => optionalString(fields[name]) ?? "";
  return { uid: text("uid"), namespace: text("namespace"), name: text("name") };
}

function parsePullSecret(value: unknown): PullSecret {
  const hash = isRecord(value) ? optionalString(value["credentialHash"]) : undefined;
  return { ...parseCoordinates(value), credentialHash: hash ?? "" };
}

function parseCredentials(value: unknown): PullCredentials {
  if (!isRecord(value)) return {};
  if (value["nodePodsAccessible"] === true) return { nodePodsAccessible: true };
  const { kubernetesSecrets: secrets, kubernetesServiceAccounts: accounts } = value;
  return {
    ...(Array.isArray(secrets) ? { kubernetesSecrets: secrets.map(parsePullSecret) } : {}),
    ...(Array.isArray(accounts)
      ? { kubernetesServiceAccounts: accounts.map(parseCoordinates) }
      : {}),
  };
}

/** Undefined for text that is not a record. */
function parseRecord(text: string): PulledRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const imageRef = isRecord(value) ? optionalString(value["imageRef"]) : undefined;
  if (!isRecord(value) || imageRef === undefined) return undefined;
  const mapping = isRecord(value["credentialMapping"]) ? value["credentialMapping"] : {};
  const credentialMapping = Object.fromEntries(
    Object.entries(mapping).map(([name, credentials]) => [name, parseCredentials(credentials)]),
  );
  return { imageRef, credentialMapping };
}

function sameObject(a: Coordinates, b: Coordinates): boolean {
  return a.uid === b.uid && a.namespace === b.namespace && a.name === b.name;
}

function byName(a: Coordinates, b: Coordinates): number {
  const key = ({ name, namespace, uid }: Coordinates): string => `${namespace}/${name}/${uid}`;
  return key(a) < key(b) ? -1 : 1;
}

function pullSecret(credential: Credential): PullSecret | undefined {
  if (credential.source?.kind !== "secret") return undefined;
  const { name, namespace, uid } = credential.source;
  return { uid, namespace, name, credentialHash: credentialHash(credential) };
}

function pullAccount({ source }: Credential): Coordinates | undefined {
  if (source?.kind !== "serviceAccount") return undefined;
  const { name, namespace, uid } = source;
  return { uid, namespace, name };
}

/** In a list that holds each object once. */
function withObject<T extends Coordinates>(list: readonly T[] | undefined, added: T): readonly T[] {
  const others = (list ?? []).filter((each) => !sameObject(each, added));
  return [...others, added].toSorted(byName);
}

/** Who may use the image now that `used` has opened the registry; undefined = nothing had to. */
function merge(old: PullCredentials | undefined, used: Credential | undefined): PullCredentials {
  const secret = used === undefined ? undefined : pullSecret(used);
  const account = used === undefined ? undefined : pullAccount(used);
  if (old?.nodePodsAccessible === true) return { nodePodsAccessible: true };
  if (secret !== undefined) {
    return { ...old, kubernetesSecrets: withObject(old?.kubernetesSecrets, secret) };
  }
  if (account !== undefined) {
    const accounts = withObject(old?.kubernetesServiceAccounts, account);
    return { ...old, kubernetesServiceAccounts: accounts };
  }
  return { nodePodsAccessible: true };
}

/**
 * Which images this node pulled and with whose credentials, so that one tenant's private image is not another's for the
 * asking (KEP-2535). The files are the kubelet's own: `<root>/image_manager/pulling` holds what is being pulled,
 * `pulled` what was.
 */
export class PullRecords {
  readonly #pulling: string;
  readonly #pulled: string;
  /** Images that somebody else had brought before we pulled them too: one empty file each. */
  readonly #found: string;
  readonly #now: () => number;
  /** Pulls under way by reference; the last one that ends removes the file. */
  readonly #intents = new Map<string, number>();
  /** Writes of one record must not overtake each other. */
  #writing: Promise<unknown> = Promise.resolve();

  constructor(rootDir: string, now: () => number) {
    this.#pulling = join(rootDir, "image_manager", "pulling");
    this.#pulled = join(rootDir, "image_manager", "pulled");
    this.#found = join(rootDir, "image_manager", "found");
    this.#now = now;
  }

  /** Notes that a pull begins. A crash in the middle then leaves an image that is known to be ours. */
  async begin(reference: string): Promise<void> {
    this.#intents.set(reference, (this.#intents.get(reference) ?? 0) + 1);
    await this.#write(this.#pulling, reference, { kind: "ImagePullIntent", image: reference });
  }

  async #end(reference: string): Promise<void> {
    const left = (this.#intents.get(reference) ?? 1) - 1;
    if (left > 0) {
      this.#intents.set(reference, left);
      return;
    }
    this.#intents.delete(reference);
    await rm(join(this.#pulling, fileName(reference)), { force: true });
  }

  /** The pull that {@link begin} announced came to nothing. */
  async failed(reference: string): Promise<void> {
    await this.#end(reference);
  }

  /** It is done; `used` opened the registry, undefined when nothing had to. */
  async pulled(reference: string, imageID: string, used: Credential | undefined): Promise<void> {
    await this.#note(imageID, reference, used);
    await this.#end(reference);
  }

  async #note(imageID: string, reference: string, used: Credential | undefined): Promise<void> {
    await this.#inTurn(async () => {
      const record = await this.#read(imageID);
      const name = repositoryOf(reference);
      const mapping = record?.credentialMapping ?? {};
      await this.#writeRecord(imageID, { ...mapping, [name]: merge(mapping[name], used) });
    });
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#writing.then(work);
    this.#writing = turn.catch(() => undefined);
    return turn;
  }

  async #writeRecord(
    imageRef: string,
    credentialMapping: Readonly<Record<string, PullCredentials>>,
  ): Promise<void> {
    const lastUpdatedTime = new Date(this.#now()).toISOString().replace(/\.\d+Z$/, "Z");
    const kind = "ImagePulledRecord";
    await this.#write(this.#pulled, imageRef, {
      kind,
      lastUpdatedTime,
      imageRef,
      credentialMapping,
    });
  }

  async #write(
    directory: string,
    key: string,
    fields: Readonly<Record<string, unknown>>,
  ): Promise<void> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const text = `${JSON.stringify({ apiVersion, ...fields })}\n`;
    await writeFileAtomic(join(directory, fileName(key)), text, 0o600);
  }

  async #read(imageID: string): Promise<PulledRecord | undefined> {
    const text = await readIfThere(join(this.#pulled, fileName(imageID)));
    const record = text === undefined ? undefined : parseRecord(text);
    return record?.imageRef === imageID ? record : undefined;
  }

  /** Whether this node pulled it, or is about to. */
  async isOurs(reference: string, imageID: string): Promise<boolean> {
    if (this.#intents.has(reference)) return true;
    const [pulled, pulling] = await Promise.all([
      readIfThere(join(this.#pulled, fileName(imageID))),
      readIfThere(join(this.#pulling, fileName(reference))),
    ]);
    return pulled !== undefined || pulling !== undefined;
  }

  /** Whether what the pod has is known to open the image. Remembers a secret whose content or name has changed. */
  async mayUse(
    reference: string,
    imageID: string,
    credentials: () => Promise<readonly Credential[]>,
  ): Promise<boolean> {
    const known = (await this.#read(imageID))?.credentialMapping[repositoryOf(reference)];
    if (known?.nodePodsAccessible === true) return true;
    const { kubernetesSecrets = [], kubernetesServiceAccounts = [] } = known ?? {};
    if (kubernetesSecrets.length === 0 && kubernetesServiceAccounts.length === 0) return false;
    const mine = await credentials();
    for (const credential of mine) {
      const secret = pullSecret(credential);
      if (secret === undefined) continue;
      const same = kubernetesSecrets.find(
        (each) => each.credentialHash === secret.credentialHash || sameObject(each, secret),
      );
      if (same === undefined) continue;
      const changed = !sameObject(same, secret) || same.credentialHash !== secret.credentialHash;
      if (changed) await this.#note(imageID, reference, credential);
      return true;
    }
    // A pod has one service account, whatever the audience.
    const account = mine.map(pullAccount).find((each) => each !== undefined);
    if (account === undefined) return false;
    return kubernetesServiceAccounts.some((each) => sameObject(each, account));
  }

  /** Turns pulls that a crash interrupted into records, of those images that are there after all. */
  async recover(imageID: (reference: string) => Promise<string | undefined>): Promise<void> {
    for (const name of await this.#files(this.#pulling)) {
      const text = (await readIfThere(join(this.#pulling, name))) ?? "";
      const reference = parseIntent(text);
      const id = reference === undefined ? undefined : await imageID(reference);
      if (reference === undefined || id === undefined) continue;
      // Nobody knows what opened the registry, so nobody is let in without showing something.
      await this.#inTurn(async () => {
        if ((await this.#read(id)) === undefined) await this.#writeRecord(id, {});
      });
      await rm(join(this.#pulling, name), { force: true });
    }
  }

  /** Notes that the image was there before this node pulled it, so that it is not ours to remove. */
  async found(imageID: string): Promise<void> {
    await mkdir(this.#found, { recursive: true, mode: 0o700 });
    await writeFileAtomic(join(this.#found, fileName(imageID)), "", 0o600);
  }

  /** Ids of the images that this node brought, with the repositories that it asked for them. */
  async broughtImages(): Promise<ReadonlyMap<string, ReadonlySet<string>>> {
    const found = new Set(await this.#files(this.#found));
    const brought = new Map<string, ReadonlySet<string>>();
    for (const name of await this.#files(this.#pulled)) {
      const record = parseRecord((await readIfThere(join(this.#pulled, name))) ?? "");
      if (record === undefined || found.has(name)) continue;
      brought.set(record.imageRef, new Set(Object.keys(record.credentialMapping)));
    }
    return brought;
  }

  /** The image is gone. */
  async forget(imageID: string): Promise<void> {
    for (const directory of [this.#pulled, this.#found]) {
      await rm(join(directory, fileName(imageID)), { force: true });
    }
  }

  /** Drops what is known of images that are gone. */
  async keepOnly(imageIDs: ReadonlySet<string>): Promise<void> {
    const kept = new Set([...imageIDs].map(fileName));
    for (const directory of [this.#pulled, this.#found]) {
      for (const name of await this.#files(directory)) {
        if (!kept.has(name)) await rm(join(directory, name), { force: true });
      }
    }
  }

  async #files(directory: string): Promise<readonly string[]> {
    try {
      const names = await readdir(directory);
      return names.filter((name) => name.startsWith(prefix) && !name.endsWith(".tmp"));
    } catch (error) {
      if (errorCode(error) === "ENOENT") return [];
      throw error;
    }
  }
}

function parseIntent(text: string): string | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isRecord(value) ? optionalString(value["image"]) : undefined;
  } catch {
    return undefined;
  }
}
