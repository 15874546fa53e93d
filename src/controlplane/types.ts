import type { JsonRecord } from "../lib/guard.ts";

/** An API object inside the control plane: plain JSON, never shared between owners without a copy. */
export type JsonObject = JsonRecord;

/** Who asks (authentication.k8s.io/v1 UserInfo). */
export interface UserInfo {
  readonly name: string;
  readonly uid: string;
  readonly groups: readonly string[];
  readonly extra: Readonly<Record<string, readonly string[]>>;
}

/** One entry of `Status.details.causes` (field.Error). `type` is the API's cause reason. */
export interface FieldError {
  readonly type:
    | "FieldValueRequired"
    | "FieldValueInvalid"
    | "FieldValueDuplicate"
    | "FieldValueNotSupported"
    | "FieldValueForbidden"
    | "FieldValueNotFound"
    | "FieldValueTooLong"
    | "FieldValueTooMany"
    | "FieldValueTypeInvalid"
    | "InternalError";
  /** Path such as `spec.containers[0].name`. */
  readonly field: string;
  /** As the API prints it, for example `Required value` or `Invalid value: "x": must be ...`. */
  readonly message: string;
}

export type Verb =
  | "get"
  | "list"
  | "watch"
  | "create"
  | "update"
  | "patch"
  | "delete"
  | "deletecollection";

/** What admission and strategies know of a request. */
export interface RequestContext {
  readonly user: UserInfo;
  readonly dryRun: boolean;
  /** Milliseconds since the epoch, the time the request was received. */
  readonly now: number;
  /** Name for managedFields when a write gives none: what the client sent, else its program. */
  readonly fieldManager?: string;
  /** Text for `Warning: 299` headers. */
  warn(message: string): void;
}

/** Read access to the store for admission, validation and authorization; objects must not be changed. */
export interface ObjectReader {
  /** `resource` is `plural.group` (`pods`, `leases.coordination.k8s.io`). */
  get(resource: string, namespace: string, name: string): Readonly<JsonObject> | undefined;
  list(resource: string, namespace?: string): Iterable<Readonly<JsonObject>>;
}

/** How one kind differs from the generic object. All functions are synchronous; mutation of `object` is wanted. */
export interface Strategy {
  /** Fills defaults (SetDefaults_*). Also applied to objects read from patches. */
  applyDefaults(object: JsonObject): void;
  /** Drops what a creator may not set (status), sets generation. */
  prepareForCreate(object: JsonObject, context: RequestContext): void;
  /** Restores what this endpoint may not change and bumps generation when spec changed. */
  prepareForUpdate(object: JsonObject, old: Readonly<JsonObject>, context: RequestContext): void;
  validateCreate(object: Readonly<JsonObject>, context: RequestContext): readonly FieldError[];
  validateUpdate(
    object: Readonly<JsonObject>,
    old: Readonly<JsonObject>,
    context: RequestContext,
  ): readonly FieldError[];
  /** Side resources taken at create/update (cluster IPs, node ports); may mutate `object`, may throw StatusError. */
  allocate?(
    object: JsonObject,
    old: Readonly<JsonObject> | undefined,
    context: RequestContext,
  ): void;
  /** Gives back what `allocate` took when a later step failed (`old` restored) or the object went away. */
  release?(object: Readonly<JsonObject>): void;
  /** Grace in seconds for a delete, or undefined when this kind is deleted at once. Pods only. */
  deletionGraceSeconds?(
    object: Readonly<JsonObject>,
    requested: number | undefined,
  ): number | undefined;
  /**
   * For kinds with finalizers of their own (Namespace `spec.finalizers`): called on the copy that is being marked for
   * deletion and on each later write of it; may change it (phase `Terminating`). True keeps the object although
   * `metadata.finalizers` is empty.
   */
  holdsDeletion?(object: JsonObject): boolean;
  /** What a DELETE without propagationPolicy means; default `Background` (ReplicationController v1: `Orphan`). */
  readonly defaultPropagationPolicy?: "Background" | "Orphan";
  /** The reply to a completed DELETE is the object instead of a Status (pods, services, service accounts, ...). */
  readonly returnsDeletedObject?: boolean;
  /** Whether PUT may create (false for nearly all). */
  readonly allowCreateOnUpdate: boolean;
  /** Whether PUT without resourceVersion is allowed. */
  readonly allowUnconditionalUpdate: boolean;
  /** Rule for metadata.name; returns messages. */
  validateName(name: string, generateName: boolean): readonly string[];
}

/** A column of a Table (meta/v1 TableColumnDefinition). */
export interface TableColumn {
  readonly name: string;
  readonly type: "string" | "integer" | "date" | "boolean";
  readonly format?: string;
  readonly description: string;
  /** 0 = always shown, above 0 = wide only. */
  readonly priority: number;
}

export interface TableDefinition {
  readonly columns: readonly TableColumn[];
  /** Cells in column order; integer columns are numbers. `now` is for ages. */
  row(object: Readonly<JsonObject>, now: number): readonly (string | number | boolean | null)[];
}

/** A subresource that is stored inside its parent: its own strategy and allowed verbs. */
export interface StoredSubresource {
  readonly kind: "stored";
  readonly verbs: readonly Verb[];
  readonly strategy: Strategy;
}

/** A subresource with its own request and reply (binding, eviction, scale, token, log, exec, ...). */
export interface CustomSubresource {
  readonly kind: "custom";
  readonly verbs: readonly Verb[];
  /** Group, version and kind of the body, for discovery. */
  readonly gvk: { readonly group: string; readonly version: string; readonly kind: string };
  /** Absent for streaming endpoints (log, exec, attach, portforward, proxy), which the HTTP layer routes itself. */
  handle?(request: SubresourceRequest): Promise<JsonObject> | JsonObject;
  /** For a view of a part of the object (scale): its writes go by the kind's own strategy, and it can be applied. */
  readonly view?: SubresourceView;
}

/** How a part of an object is read and applied in a form of its own. */
export interface SubresourceView {
  /** Schema of the form, for example `io.k8s.api.autoscaling.v1.Scale`. */
  readonly schema: string;
  /** The form of a stored object. */
  read(object: Readonly<JsonObject>): JsonObject;
  /** The configuration of the object that an applied configuration of the form stands for. */
  configurationOf(applied: Readonly<JsonObject>): JsonObject;
  /** Fills what an apply took out of the part with the form's zero values. */
  complete(object: JsonObject): void;
  /** Table of objects in the form. */
  readonly table: TableDefinition;
}

export interface SubresourceRequest {
  readonly verb: Verb;
  readonly namespace: string;
  readonly name: string;
  readonly body: JsonObject | undefined;
  readonly context: RequestContext;
  readonly registry: Registry;
}

/** One served kind. Adding a kind = one of these, its golden pairs, its Table and its watch test. */
export interface KindDefinition {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly plural: string;
  readonly singular: string;
  readonly shortNames: readonly string[];
  readonly categories: readonly string[];
  readonly namespaced: boolean;
  readonly verbs: readonly Verb[];
  /** Name in the schema table, for example `io.k8s.api.core.v1.Pod`. */
  readonly schema: string;
  /** `ephemeral` kinds (leases, events) live in a table that is not fsynced. */
  readonly durability: "durable" | "ephemeral";
  /** Seconds after the last write at which objects vanish (events); undefined = never. */
  readonly ttlSeconds?: number;
  readonly strategy: Strategy;
  /** Why not to use this version any more: a warning in every reply. */
  readonly deprecation?: string;
  readonly subresources: Readonly<Record<string, StoredSubresource | CustomSubresource>>;
  /** Field selectors beside metadata.name and metadata.namespace. A missing value is "". */
  readonly fieldSelectors: Readonly<Record<string, (object: Readonly<JsonObject>) => string>>;
  readonly table: TableDefinition;
  /**
   * For another version of a stored kind (events.k8s.io Events are v1 Events): where the objects are, and how they
   * change form on the way in and out. Conversions take incomplete objects too. `table`, `fieldSelectors` and the
   * validation of `strategy`, which comes on top of the stored kind's, read the stored form.
   */
  readonly servedFrom?: {
    readonly resource: string;
    toStored(object: Readonly<JsonObject>): JsonObject;
    fromStored(object: Readonly<JsonObject>): JsonObject;
  };
  /**
   * For kinds that are asked and never stored (access reviews, Binding): answers a POST on the collection, after
   * admission, instead of storing the body. `name` is the body's metadata.name.
   */
  answer?(request: SubresourceRequest): Promise<JsonObject> | JsonObject;
}

export type Operation = "CREATE" | "UPDATE" | "DELETE" | "CONNECT";

export interface AdmissionAttributes {
  readonly operation: Operation;
  readonly kind: KindDefinition;
  readonly subresource: string | undefined;
  readonly namespace: string;
  readonly name: string;
  /** Undefined for DELETE. May be changed by mutating plugins. */
  readonly object: JsonObject | undefined;
  readonly oldObject: Readonly<JsonObject> | undefined;
  readonly context: RequestContext;
  readonly objects: ObjectReader;
}

/** An admission plugin; refuses by throwing a StatusError (403 Forbidden unless it says otherwise). */
export interface AdmissionPlugin {
  readonly name: string;
  mutate?(attributes: AdmissionAttributes): void;
  validate?(attributes: AdmissionAttributes): void;
}

/** What is asked of the authorizer (SubjectAccessReview spec). */
export interface AuthorizationAttributes {
  readonly user: UserInfo;
  readonly verb: string;
  readonly group: string;
  readonly version: string;
  /** Plural; empty for non-resource requests. */
  readonly resource: string;
  readonly subresource: string;
  readonly namespace: string;
  readonly name: string;
  /** For non-resource requests. */
  readonly path: string;
  /** Raw selectors of list/watch requests: the Node authorizer reads `spec.nodeName=`. */
  readonly fieldSelector: string;
}

export interface Authorizer {
  authorize(attributes: AuthorizationAttributes): {
    readonly allowed: boolean;
    readonly reason: string;
  };
}

export interface Authenticator {
  /**
   * The user behind a client certificate (DER, already verified against the client CA) or a bearer token; undefined for
   * an anonymous request.
   *
   * @throws {StatusError} 401 when credentials are there but wrong.
   */
  authenticate(credentials: {
    readonly certificate: Uint8Array | undefined;
    readonly bearerToken: string | undefined;
  }): UserInfo | undefined;
}

export interface DeleteOptions {
  readonly gracePeriodSeconds: number | undefined;
  readonly propagationPolicy: "Background" | "Foreground" | "Orphan" | undefined;
  readonly uid: string | undefined;
  readonly resourceVersion: string | undefined;
}

export interface ObjectRef {
  readonly namespace: string;
  readonly name: string;
}

/**
 * The one write path: decode, default, admit, validate, manage fields, store. HTTP handlers, subresources and bootstrap
 * all come through here; nobody writes to the store beside it.
 */
export interface Registry extends ObjectReader {
  readonly kinds: ReadonlyMap<string, KindDefinition>;
  create(
    resource: string,
    namespace: string,
    object: JsonObject,
    context: RequestContext,
    fieldManager?: string,
  ): JsonObject;
  /**
   * Read-modify-write of one object, retried on conflict. `change` gets a copy and returns the wanted object. A no-op
   * write does not move resourceVersion.
   */
  update(
    resource: string,
    at: ObjectRef,
    change: (current: JsonObject) => JsonObject,
    options: {
      readonly context: RequestContext;
      readonly subresource?: string;
      readonly fieldManager?: string;
      /** Skips admission and strategy: for the system's own bookkeeping such as finalizers of deletion. */
      readonly system?: boolean;
    },
  ): JsonObject;
  delete(
    resource: string,
    at: ObjectRef,
    options: DeleteOptions,
    context: RequestContext,
  ): JsonObject;
}
