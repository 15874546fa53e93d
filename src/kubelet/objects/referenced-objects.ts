import type { ApiClient } from "../../api/client.ts";
import { isNotFound } from "../../api/errors.ts";
import { createInformer } from "../../api/informer.ts";
import type { Change, Informer } from "../../api/informer-types.ts";
import { objectKey } from "../../api/object.ts";
import { objectPath, type Resource } from "../../api/resource.ts";
import { CONFIG_MAPS, SECRETS } from "../../api/resources.ts";
import type { Pod, Volume } from "../../api/types.gen.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import { environmentReferences } from "../spec/env.ts";
import { allContainers } from "../spec/containers.ts";
import { projections, type ReferencedKind, type ReferencedObject } from "./keyed-object.ts";

/** A ConfigMap or Secret, by name. */
export interface Reference {
  readonly kind: ReferencedKind;
  readonly namespace: string;
  readonly name: string;
}

/** Tells references apart. */
export function referenceKey({ kind, namespace, name }: Reference): string {
  return `${kind}/${objectKey(namespace, name)}`;
}

export interface ReferencedObjectsOptions {
  readonly client: ApiClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
  readonly signal: AbortSignal;
  /** Something that this pod refers to has changed. */
  readonly wake: (uid: string, changed: Reference) => void;
}

interface Watched {
  readonly informer: Informer<ReferencedObject>;
  readonly users: Set<string>;
  readonly stop: AbortController;
  readonly running: Promise<void>;
  /** Somebody did not wait for the first answer and has to be told of it. */
  awaited: boolean;
}

/**
 * A watch that is not up by then may be one that the server refuses, for good or because its Node authorizer has not
 * seen the pod yet, and tries again in a second or so. A plain GET gives the object or the reason.
 */
const syncPatienceMs = 250;

/** What a volume shows. */
export function volumeReferences(
  volume: Volume,
): readonly { readonly kind: ReferencedKind; readonly name: string | undefined }[] {
  const out: { kind: ReferencedKind; name: string | undefined }[] = [];
  if (volume.configMap !== undefined) out.push({ kind: "ConfigMap", name: volume.configMap.name });
  if (volume.secret !== undefined) out.push({ kind: "Secret", name: volume.secret.secretName });
  for (const { configMap, secret } of volume.projected?.sources ?? []) {
    if (configMap !== undefined) out.push({ kind: "ConfigMap", name: configMap.name });
    if (secret !== undefined) out.push({ kind: "Secret", name: secret.name });
  }
  return out;
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
    for (const { kind, name } of volumeReferences(volume)) add(kind, name);
  }
  for (const { name } of pod.spec?.imagePullSecrets ?? []) add("Secret", name);
  return [...found.values()];
}

/**
 * One watch per ConfigMap and Secret that some pod of this node refers to: all that a node may read (Node
 * authorizer). The watch ends with its last user, or with the first answer that says the object is immutable: such an
 * object is kept as it is until its last user goes.
 */
export class ReferencedObjects {
  readonly #options: ReferencedObjectsOptions;
  readonly #watched = new Map<string, Watched>();
  readonly #byPod = new Map<string, ReadonlySet<string>>();
  /** Questions under way: pods that miss the same object ask once. */
  readonly #asked = new Map<string, Promise<ReferencedObject | undefined>>();
  /** Watches that end. */
  readonly #ending = new Set<Promise<void>>();

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
      const reference = { kind, namespace, name };
      const key = referenceKey(reference);
      keys.add(key);
      this.#use(key, reference, uid);
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
    const reference = { kind, ...at };
    const watched = this.#watched.get(referenceKey(reference));
    if (watched !== undefined && (await this.#isSynced(watched, signal))) {
      const cached = watched.informer.get(objectKey(at.namespace, at.name));
      if (cached !== undefined) return cached;
    }
    // Not there as far as the watch knows, but it may be a moment behind: ask.
    return this.#ask(reference, signal);
  }

  /** Resolves when all watches have ended. */
  async idle(): Promise<void> {
    const watches = [...this.#watched.values()].map(({ running }) => running);
    await Promise.all([...watches, ...this.#ending, ...this.#asked.values()].map(settled));
  }

  async #isSynced(watched: Watched, signal: AbortSignal): Promise<boolean> {
    const { informer } = watched;
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
    if (!informer.synced) watched.awaited = true;
    return informer.synced;
  }

  async #ask(reference: Reference, signal: AbortSignal): Promise<ReferencedObject | undefined> {
    const key = referenceKey(reference);
    const asked = this.#asked.get(key) ?? this.#fetch(reference);
    if (!this.#asked.has(key)) {
      this.#asked.set(key, asked);
      void settled(asked).then(() => this.#asked.delete(key));
    }
    return orAborted(asked, signal);
  }

  async #fetch(reference: Reference): Promise<ReferencedObject | undefined> {
    const { client, signal } = this.#options;
    const path = objectPath(resources[reference.kind], reference);
    try {
      const answer = await client.request({ method: "GET", path, signal });
      return projections[reference.kind](answer);
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  #use(key: string, reference: Reference, uid: string): void {
    const known = this.#watched.get(key);
    if (known !== undefined) {
      known.users.add(uid);
      return;
    }
    const { client, clock, logger, random, signal } = this.#options;
    const stop = new AbortController();
    const informer = createInformer<ReferencedObject>({
      client,
      resource: resources[reference.kind],
      namespace: reference.namespace,
      fieldSelector: `metadata.name=${reference.name}`,
      project: projections[reference.kind],
      clock,
      logger,
      random,
    });
    const running = informer.run(AbortSignal.any([signal, stop.signal]));
    const watched: Watched = { informer, users: new Set([uid]), stop, running, awaited: false };
    this.#watched.set(key, watched);
    informer.subscribe((change) => {
      if (isNews(watched, change)) {
        for (const user of watched.users) this.#options.wake(user, reference);
      }
      // What becomes of the name from here on is nothing to the pods that have this object.
      if (isFinal(change)) stop.abort();
    });
  }

  #release(key: string, uid: string): void {
    const watched = this.#watched.get(key);
    if (watched === undefined) return;
    watched.users.delete(uid);
    if (watched.users.size > 0) return;
    watched.stop.abort();
    this.#watched.delete(key);
    const ended = watched.running.finally(() => this.#ending.delete(ended));
    this.#ending.add(ended);
  }
}

const resources: Readonly<Record<ReferencedKind, Resource<unknown>>> = {
  ConfigMap: CONFIG_MAPS,
  Secret: SECRETS,
};

/** What the first answer says is read by those who wait for it; labels and annotations are nobody's here. */
function isNews({ awaited, informer }: Watched, change: Change<ReferencedObject>): boolean {
  if (!informer.synced && !awaited) return false;
  return change.kind !== "updated" || !change.object.equals(change.previous);
}

function isFinal(change: Change<ReferencedObject>): boolean {
  return change.kind !== "deleted" && change.object.immutable;
}

async function settled(work: Promise<unknown>): Promise<void> {
  await work.then(
    () => undefined,
    () => undefined,
  );
}

/** The answer of a question that others wait for too, as long as this one waits. */
async function orAborted<T>(answer: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([answer, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
