import { isDeepStrictEqual } from "node:util";

import { alreadyExists, invalid, notFound, StatusError } from "../status-error.ts";
import { copyJson } from "../store/frozen-json.ts";
import type { Store } from "../store/store.ts";
import type {
  AdmissionPlugin,
  DeleteOptions,
  JsonObject,
  KindDefinition,
  ObjectRef,
  Operation,
  Registry,
  RequestContext,
  Strategy,
} from "../types.ts";
import { AdmissionChain } from "./admission-chain.ts";
import { configurationApplier } from "./apply.ts";
import { computeDeletion, deletedStatus, formatTime, isFinished } from "./deletion.ts";
import { fieldsAfterUpdate, type Writer } from "./managed-fields.ts";
import {
  metadataOf,
  metaText,
  readMetadata,
  validateMetaForCreate,
  validateMetaForUpdate,
} from "./object-meta.ts";
import {
  apiVersionOf,
  checkAbsent,
  checkPreconditions,
  checkVersion,
  fillNewMetadata,
  inheritMetadata,
  resourceOf,
  writableFields,
} from "./write-rules.ts";

export { resourceOf } from "./write-rules.ts";

export interface RegistryOptions {
  readonly store: Store;
  readonly kinds: readonly KindDefinition[];
  readonly admission: readonly AdmissionPlugin[];
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  readonly uuid: () => string;
  /** Uniform in [0, 1); for generated names. */
  readonly random: () => number;
}

/** The registry with what only the HTTP layer and the composition root need. */
export interface ObjectRegistry extends Registry {
  readonly store: Store;
  /** Deletes all objects that match; returns their last states. Objects that are gone by then are skipped. */
  deleteCollection(
    resource: string,
    namespace: string | undefined,
    matches: (object: Readonly<JsonObject>) => boolean,
    options: DeleteOptions,
    context: RequestContext,
  ): readonly JsonObject[];
  /** Runs the admission plug-ins for a request that stores nothing (CONNECT, answered kinds, custom subresources). */
  admit(
    resource: string,
    request: {
      readonly operation: Operation;
      readonly subresource: string | undefined;
      readonly at: ObjectRef;
      readonly object: JsonObject | undefined;
      readonly context: RequestContext;
    },
  ): void;
  /**
   * Server-side apply of a configuration as it was sent; creates the object when there is none, which `mayCreate` has to
   * allow (by not throwing).
   */
  apply(
    resource: string,
    at: ObjectRef,
    configuration: Readonly<JsonObject>,
    options: ApplyOptions,
  ): { readonly object: JsonObject; readonly created: boolean };
  /** Removes objects of kinds with `ttlSeconds` whose time is over; returns how many. Call it about every minute. */
  expire(): number;
}

export interface ApplyOptions {
  readonly context: RequestContext;
  readonly manager: string;
  readonly force: boolean;
  readonly subresource?: string;
  mayCreate(): void;
}

const NAME_ATTEMPTS = 8;

/** Who enters managedFields; `kept`: they are complete already, an apply has computed them. */
type FieldOwner = string | undefined | { readonly kept: true };

interface UpdateOptions {
  readonly context: RequestContext;
  readonly subresource?: string;
  readonly fieldManager?: FieldOwner;
  readonly system?: boolean;
}

class StoreRegistry implements ObjectRegistry {
  readonly kinds: ReadonlyMap<string, KindDefinition>;
  readonly store: Store;
  readonly #options: RegistryOptions;
  readonly #admission: AdmissionChain;

  constructor(options: RegistryOptions) {
    this.#options = options;
    this.#admission = new AdmissionChain(options.admission, this);
    this.store = options.store;
    const stored = options.kinds.filter(({ servedFrom }) => servedFrom === undefined);
    this.kinds = new Map(stored.map((kind) => [resourceOf(kind), kind]));
  }

  get(resource: string, namespace: string, name: string): Readonly<JsonObject> | undefined {
    return this.store.get(resource, namespace, name);
  }

  list(resource: string, namespace?: string): Iterable<Readonly<JsonObject>> {
    return this.store.list(resource, namespace);
  }

  create(
    resource: string,
    namespace: string,
    object: JsonObject,
    context: RequestContext,
    fieldManager?: FieldOwner,
  ): JsonObject {
    const generated = metaText(object, "name") === "" && metaText(object, "generateName") !== "";
    for (let attempt = 1; ; attempt += 1) {
      try {
        return this.#createOnce(resource, namespace, copyJson(object), context, fieldManager);
      } catch (error) {
        const taken = error instanceof StatusError && error.reason === "AlreadyExists";
        if (!generated || !taken || attempt >= NAME_ATTEMPTS) throw error;
      }
    }
  }

  update(
    resource: string,
    at: ObjectRef,
    change: (current: JsonObject) => JsonObject,
    options: UpdateOptions,
  ): JsonObject {
    const kind = this.#kind(resource);
    const old = this.store.get(resource, at.namespace, at.name);
    if (old === undefined) throw notFound(kind, at.name);
    const object = change(copyJson(old));
    const strategy = this.#strategyFor(kind, options);
    checkVersion(object, old, kind, strategy);
    inheritMetadata(object, old);
    if (options.system !== true) this.#admitUpdate(kind, strategy, object, old, options);
    return this.#writeUpdate(kind, strategy, object, old, options);
  }

  delete(
    resource: string,
    at: ObjectRef,
    options: DeleteOptions,
    context: RequestContext,
  ): JsonObject {
    const kind = this.#kind(resource);
    const old = this.store.get(resource, at.namespace, at.name);
    if (old === undefined) throw notFound(kind, at.name);
    checkPreconditions(kind, old, options);
    this.#admission.admit(kind, {
      operation: "DELETE",
      subresource: undefined,
      at,
      object: undefined,
      oldObject: old,
      context,
    });
    const deletion = computeDeletion(copyJson(old), kind, options, context.now);
    switch (deletion.kind) {
      case "pending":
        return old;
      case "update":
        if (context.dryRun) return deletion.object;
        return this.store.put(keyOf(resource, old), deletion.object, revisionOf(old));
      case "remove": {
        // Who watches a pod sees it told to end before it is gone, also when nothing has to be waited for.
        const told =
          kind.strategy.deletionGraceSeconds !== undefined &&
          readMetadata(old)["deletionTimestamp"] === undefined;
        const last =
          told && !context.dryRun
            ? this.store.put(keyOf(resource, old), deletion.object, revisionOf(old))
            : old;
        if (!context.dryRun) this.#remove(kind, last);
        return kind.strategy.returnsDeletedObject === true ? last : deletedStatus(old, kind);
      }
    }
  }

  deleteCollection(
    resource: string,
    namespace: string | undefined,
    matches: (object: Readonly<JsonObject>) => boolean,
    options: DeleteOptions,
    context: RequestContext,
  ): readonly JsonObject[] {
    const chosen = [...this.store.list(resource, namespace)].filter(matches);
    return chosen.flatMap((object) => {
      const at = { namespace: metaText(object, "namespace"), name: metaText(object, "name") };
      try {
        this.delete(resource, at, options, context);
        return [object];
      } catch (error) {
        if (error instanceof StatusError && error.status === 404) return [];
        throw error;
      }
    });
  }

  admit(
    resource: string,
    request: {
      readonly operation: Operation;
      readonly subresource: string | undefined;
      readonly at: ObjectRef;
      readonly object: JsonObject | undefined;
      readonly context: RequestContext;
    },
  ): void {
    this.#admission.admit(this.#kind(resource), { ...request, oldObject: undefined });
  }

  apply(
    resource: string,
    at: ObjectRef,
    configuration: Readonly<JsonObject>,
    options: ApplyOptions,
  ): { readonly object: JsonObject; readonly created: boolean } {
    const { context, subresource } = options;
    const kind = this.#kind(resource);
    const live = this.store.get(resource, at.namespace, at.name);
    if (live === undefined && subresource !== undefined) throw notFound(kind, at.name);
    const change = configurationApplier(kind, configuration, options);
    const fieldManager = { kept: true } as const;
    if (live === undefined) {
      const wanted = change(undefined);
      checkAbsent(wanted, kind, at.name);
      options.mayCreate();
      const object = this.create(resource, at.namespace, wanted, context, fieldManager);
      return { object, created: true };
    }
    const under = subresource === undefined ? {} : { subresource };
    const object = this.update(resource, at, change, { context, fieldManager, ...under });
    return { object, created: false };
  }

  expire(): number {
    let removed = 0;
    for (const [resource, kind] of this.kinds) {
      if (kind.ttlSeconds === undefined) continue;
      const due = this.#options.now() - kind.ttlSeconds * 1000;
      for (const { namespace, name } of this.store.writtenBefore(resource, due)) {
        const object = this.store.get(resource, namespace, name);
        if (object !== undefined) this.#remove(kind, object);
        removed += 1;
      }
    }
    return removed;
  }

  #kind(resource: string): KindDefinition {
    const kind = this.kinds.get(resource);
    if (kind === undefined) {
      throw new StatusError(404, "NotFound", "the server could not find the requested resource");
    }
    return kind;
  }

  /** A stored subresource has its own strategy, a view that of its kind; other custom ones and the system have none. */
  #strategyFor(kind: KindDefinition, options: UpdateOptions): Strategy | undefined {
    if (options.system === true) return undefined;
    if (options.subresource === undefined) return kind.strategy;
    const subresource = kind.subresources[options.subresource];
    if (subresource?.kind === "stored") return subresource.strategy;
    return subresource?.view === undefined ? undefined : kind.strategy;
  }

  #createOnce(
    resource: string,
    namespace: string,
    object: JsonObject,
    context: RequestContext,
    fieldManager: FieldOwner,
  ): JsonObject {
    const kind = this.#kind(resource);
    const { strategy } = kind;
    fillNewMetadata(kind, namespace, object, context, this.#options);
    strategy.applyDefaults(object);
    // What admission and strategy add below is nobody's.
    this.#setManagedFields(kind, undefined, object, { context, fieldManager });
    const at = { namespace, name: metaText(object, "name") };
    const attributes = {
      operation: "CREATE",
      subresource: undefined,
      at,
      object,
      oldObject: undefined,
      context,
    } as const;
    this.#admission.mutate(kind, attributes);
    strategy.applyDefaults(object);
    strategy.prepareForCreate(object, context);
    const errors = [
      ...validateMetaForCreate(object, kind),
      ...strategy.validateCreate(object, context),
    ];
    if (errors.length > 0) throw invalid(kind, metaText(object, "name"), errors);
    this.#admission.validate(kind, attributes);
    if (this.store.get(resource, namespace, at.name) !== undefined)
      throw alreadyExists(kind, at.name);
    strategy.allocate?.(object, undefined, context);
    if (context.dryRun) return object;
    if (metaText(object, "resourceVersion") !== "") {
      strategy.release?.(object);
      throw new StatusError(500, "", "resourceVersion should not be set on objects to be created");
    }
    try {
      return this.store.put({ resource, namespace, name: at.name }, object, "absent");
    } catch (error) {
      strategy.release?.(object);
      throw error;
    }
  }

  #admitUpdate(
    kind: KindDefinition,
    strategy: Strategy | undefined,
    object: JsonObject,
    old: Readonly<JsonObject>,
    options: UpdateOptions,
  ): void {
    const { context } = options;
    const attributes = {
      operation: "UPDATE",
      subresource: options.subresource,
      at: { namespace: metaText(old, "namespace"), name: metaText(old, "name") },
      object,
      oldObject: old,
      context,
    } as const;
    strategy?.applyDefaults(object);
    this.#admission.mutate(kind, attributes);
    strategy?.applyDefaults(object);
    strategy?.prepareForUpdate(object, old, context);
    const errors = [
      ...validateMetaForUpdate(object, old),
      ...(strategy?.validateUpdate(object, old, context) ?? []),
    ];
    if (errors.length > 0) throw invalid(kind, metaText(old, "name"), errors);
    this.#admission.validate(kind, attributes);
  }

  #writeUpdate(
    kind: KindDefinition,
    strategy: Strategy | undefined,
    object: JsonObject,
    old: Readonly<JsonObject>,
    options: UpdateOptions,
  ): JsonObject {
    if (options.system === true) {
      metadataOf(object)["managedFields"] = readMetadata(old)["managedFields"];
      if (readMetadata(old)["managedFields"] === undefined)
        delete metadataOf(object)["managedFields"];
    } else this.#setManagedFields(kind, old, object, options);
    if (isFinished(object, kind)) {
      if (!options.context.dryRun) this.#remove(kind, old);
      return object;
    }
    strategy?.allocate?.(object, old, options.context);
    if (options.context.dryRun || isDeepStrictEqual(object, old)) return object;
    try {
      return this.store.put(keyOf(resourceOf(kind), old), object, revisionOf(old));
    } catch (error) {
      strategy?.release?.(object);
      throw error;
    }
  }

  #setManagedFields(
    kind: KindDefinition,
    old: Readonly<JsonObject> | undefined,
    object: JsonObject,
    options: {
      readonly context: RequestContext;
      readonly fieldManager?: FieldOwner;
      readonly subresource?: string;
    },
  ): void {
    if (typeof options.fieldManager === "object") return;
    const writer: Writer = {
      manager: options.fieldManager ?? options.context.fieldManager ?? "unknown",
      operation: "Update",
      apiVersion: apiVersionOf(kind),
      subresource: options.subresource,
      time: formatTime(options.context.now),
    };
    const writes = old === undefined ? writableFields(kind, undefined) : undefined;
    const entries = fieldsAfterUpdate(old, object, kind.schema, writer, writes);
    const metadata = metadataOf(object);
    if (entries.length === 0) delete metadata["managedFields"];
    else metadata["managedFields"] = entries;
  }

  #remove(kind: KindDefinition, object: Readonly<JsonObject>): void {
    this.store.delete(keyOf(resourceOf(kind), object), revisionOf(object));
    kind.strategy.release?.(object);
  }
}

function keyOf(
  resource: string,
  object: Readonly<JsonObject>,
): { resource: string; namespace: string; name: string } {
  return { resource, namespace: metaText(object, "namespace"), name: metaText(object, "name") };
}

function revisionOf(object: Readonly<JsonObject>): number {
  return Number(metaText(object, "resourceVersion"));
}

/** Builds the one write path over a store. All calls are synchronous and atomic: nothing runs in between. */
export function createRegistry(options: RegistryOptions): ObjectRegistry {
  return new StoreRegistry(options);
}
