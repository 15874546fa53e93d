import type { ApiClient } from "../../api/client.ts";
import { isNotFound } from "../../api/errors.ts";
import { createInformer } from "../../api/informer.ts";
import type { Informer } from "../../api/informer-types.ts";
import { objectKey, parseStored } from "../../api/object.ts";
import { objectPath, type Resource } from "../../api/resource.ts";
import { CONFIG_MAPS, SECRETS } from "../../api/resources.ts";
import type { ConfigMap, Pod, Secret } from "../../api/types.gen.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import { environmentReferences } from "../spec/env.ts";
import { allContainers } from "../spec/containers.ts";

export type ReferencedKind = "ConfigMap" | "Secret";

/** A ConfigMap or Secret as a pod uses it. */
export interface ReferencedObject {
  /** Tells an object from its successor of the same name. */
  readonly uid?: string;
  /** `kubernetes.io/dockerconfigjson` and the like; empty for ConfigMaps. */
  readonly type: string;
  /** Every key as bytes, binaryData included. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** The keys that are text, as environment variables take them. */
  readonly text: Readonly<Record<string, string>>;
}

export interface ReferencedObjectsOptions {
  readonly client: ApiClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
  readonly signal: AbortSignal;
  /** Something that this pod refers to has changed. */
  readonly wake: (uid: string) => void;
}

interface Watched {
  readonly informer: Informer<ReferencedObject>;
  readonly users: Set<string>;
  readonly stop: AbortController;
  readonly running: Promise<void>;
}

// A watch that is not up by then may be one that the server refuses; a plain GET gives the reason.
const syncPatienceMs = 2_000;

/** Projection of a ConfigMap. */
export function configMapObject(value: unknown): ReferencedObject {
  const { data = {}, binaryData = {} } = parseStored<ConfigMap>(value);
  const files = new Map<string, Uint8Array>();
  for (const [key, text] of Object.entries(data)) files.set(key, Buffer.from(text, "utf8"));
  for (const [key, text] of Object.entries(binaryData)) files.set(key, Buffer.from(text, "base64"));
  return { type: "", files, text: data };
}

/** Projection of a Secret. */
export function secretObject(value: unknown): ReferencedObject {
  const { data = {}, metadata, type = "" } = parseStored<Secret>(value);
  const files = new Map<string, Uint8Array>();
  const text: Record<string, string> = {};
  for (const [key, encoded] of Object.entries(data)) {
    const bytes = Buffer.from(encoded, "base64");
    files.set(key, bytes);
    text[key] = bytes.toString("utf8");
  }
  return { uid: metadata.uid, type, files, text };
}

/** Everything a pod refers to by name, as `kind/name`. */
export function podReferences(pod: Pod): readonly { kind: ReferencedKind; name: string }[] {
  const found = new Map<string, { kind: ReferencedKind; name: string }>();
  const add = (kind: ReferencedKind, name: string | undefined): void => {
    if (name !== undefined && name !== "") found.set(`${kind}/${name}`, { kind, name });
  };
  for (const { container } of allContainers(pod)) {
    const { configMaps, secrets } = environmentReferences(container);
    for (const name of configMaps) add("ConfigMap", name);
    for (const name of secrets) add("Secret", name);
  }
  for (const volume of pod.spec?.volumes ?? []) {
    add("ConfigMap", volume.configMap?.name);
    add("Secret", volume.secret?.secretName);
    for (const source of volume.projected?.sources ?? []) {
      add("ConfigMap", source.configMap?.name);
      add("Secret", source.secret?.name);
    }
  }
  for (const { name } of pod.spec?.imagePullSecrets ?? []) add("Secret", name);
  return [...found.values()];
}

/**
 * One watch per ConfigMap and Secret that some pod of this node refers to: all that a node may read (Node
 * authorizer). The watch ends with its last user.
 */
export class ReferencedObjects {
  readonly #options: ReferencedObjectsOptions;
  readonly #watched = new Map<string, Watched>();
  readonly #byPod = new Map<string, ReadonlySet<string>>();

  constructor(options: ReferencedObjectsOptions) {
    this.#options = options;
  }

  /** Starts watching what the pod refers to, and stops what it no longer does. */
  register(
    pod: Pod & { readonly metadata: { uid: string; namespace?: string | undefined } },
  ): void {
    const { uid, namespace = "" } = pod.metadata;
    const keys = new Set<string>();
    for (const { kind, name } of podReferences(pod)) {
      const key = `${kind}/${objectKey(namespace, name)}`;
      keys.add(key);
      this.#use(key, kind, { namespace, name }, uid);
    }
    const before = this.#byPod.get(uid) ?? new Set<string>();
    this.#byPod.set(uid, keys);
    for (const key of before) if (!keys.has(key)) this.#release(key, uid);
  }

  /** Ends the pod's interest in everything. */
  unregister(uid: string): void {
    const keys = this.#byPod.get(uid);
    this.#byPod.delete(uid);
    for (const key of keys ?? []) this.#release(key, uid);
  }

  /**
   * The object, or undefined when it does not exist.
   *
   * @throws {ApiError} when the server refuses; ApiUnavailableError when it does not answer.
   */
  async get(
    kind: ReferencedKind,
    at: { readonly namespace: string; readonly name: string },
    signal: AbortSignal,
  ): Promise<ReferencedObject | undefined> {
    const key = objectKey(at.namespace, at.name);
    const watched = this.#watched.get(`${kind}/${key}`);
    if (watched !== undefined && (await this.#isSynced(watched.informer, signal))) {
      const cached = watched.informer.get(key);
      if (cached !== undefined) return cached;
    }
    // Not there as far as the watch knows, but it may be a moment behind: ask.
    return this.#fetch(kind, at, signal);
  }

  /** Resolves when all watches have ended. */
  async idle(): Promise<void> {
    await Promise.all([...this.#watched.values()].map(({ running }) => running));
  }

  async #isSynced(informer: Informer<ReferencedObject>, signal: AbortSignal): Promise<boolean> {
    if (informer.synced) return true;
    const patience = new AbortController();
    const stop = AbortSignal.any([signal, patience.signal]);
    try {
      await Promise.race([
        informer.whenSynced(stop).catch(() => undefined),
        this.#options.clock.sleep(syncPatienceMs, stop).catch(() => undefined),
      ]);
    } finally {
      patience.abort();
    }
    signal.throwIfAborted();
    return informer.synced;
  }

  async #fetch(
    kind: ReferencedKind,
    at: { readonly namespace: string; readonly name: string },
    signal: AbortSignal,
  ): Promise<ReferencedObject | undefined> {
    const resource: Resource<unknown> = kind === "ConfigMap" ? CONFIG_MAPS : SECRETS;
    try {
      const path = objectPath(resource, at);
      const answer = await this.#options.client.request({ method: "GET", path, signal });
      return kind === "ConfigMap" ? configMapObject(answer) : secretObject(answer);
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  #use(
    key: string,
    kind: ReferencedKind,
    at: { readonly namespace: string; readonly name: string },
    uid: string,
  ): void {
    const known = this.#watched.get(key);
    if (known !== undefined) {
      known.users.add(uid);
      return;
    }
    const { client, clock, logger, random, signal } = this.#options;
    const stop = new AbortController();
    const informer = createInformer<ReferencedObject>({
      client,
      resource: kind === "ConfigMap" ? CONFIG_MAPS : SECRETS,
      namespace: at.namespace,
      fieldSelector: `metadata.name=${at.name}`,
      project: kind === "ConfigMap" ? configMapObject : secretObject,
      clock,
      logger,
      random,
    });
    const users = new Set([uid]);
    informer.subscribe(() => {
      for (const user of users) this.#options.wake(user);
    });
    const running = informer.run(AbortSignal.any([signal, stop.signal]));
    this.#watched.set(key, { informer, users, stop, running });
  }

  #release(key: string, uid: string): void {
    const watched = this.#watched.get(key);
    if (watched === undefined) return;
    watched.users.delete(uid);
    if (watched.users.size > 0) return;
    watched.stop.abort();
    this.#watched.delete(key);
  }
}
