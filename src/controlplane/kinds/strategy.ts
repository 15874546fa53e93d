import type { FieldError, JsonObject, RequestContext, Strategy, Verb } from "../types.ts";
import { ensureRecord, int, metadataOf, semanticEqual } from "./access.ts";
import { subdomainName } from "./names.ts";

/** The verbs of an ordinary collection. */
export const allVerbs: readonly Verb[] = [
  "create",
  "delete",
  "deletecollection",
  "get",
  "list",
  "patch",
  "update",
  "watch",
];

/** The verbs of a stored subresource. */
export const subresourceVerbs: readonly Verb[] = ["get", "patch", "update"];

/** What a kind adds to the common behaviour; everything is optional. */
export interface StrategyParts {
  readonly applyDefaults?: (object: JsonObject) => void;
  readonly prepareForCreate?: (object: JsonObject, context: RequestContext) => void;
  readonly prepareForUpdate?: (
    object: JsonObject,
    old: Readonly<JsonObject>,
    context: RequestContext,
  ) => void;
  /** Rules that hold at create and at update; `old` is undefined at create. */
  readonly validate?: (
    object: Readonly<JsonObject>,
    old: Readonly<JsonObject> | undefined,
    context: RequestContext,
  ) => readonly FieldError[];
  /** What the API warns of in an object that is valid. */
  readonly warnings?: (
    object: Readonly<JsonObject>,
    old: Readonly<JsonObject> | undefined,
  ) => readonly string[];
  readonly validateName?: Strategy["validateName"];
  /** The kind has a status that only its status endpoint may write. */
  readonly hasStatus?: boolean;
  /** `metadata.generation` starts at 1 and rises with every change outside metadata and status. */
  readonly hasGeneration?: boolean;
  /** The generation of a new object, when it is not 1; 0 is not shown. */
  readonly generationOfNew?: 0;
  /** What else raises the generation when it changes, beside everything outside metadata and status. */
  readonly alsoGenerates?: (object: Readonly<JsonObject>) => unknown;
  readonly allowCreateOnUpdate?: boolean;
  readonly allowUnconditionalUpdate?: boolean;
  readonly allocate?: Strategy["allocate"];
  readonly release?: Strategy["release"];
  readonly deletionGraceSeconds?: Strategy["deletionGraceSeconds"];
}

/** Everything but identity, metadata and status: what `generation` counts. */
function specMembers(object: Readonly<JsonObject>): JsonObject {
  const { apiVersion: _a, kind: _k, metadata: _m, status: _s, ...rest } = object;
  return rest;
}

function carryGeneration(
  object: JsonObject,
  old: Readonly<JsonObject>,
  { alsoGenerates }: StrategyParts,
): void {
  const before = int(metadataOf(old)["generation"]) ?? 0;
  const changed =
    !semanticEqual(specMembers(object), specMembers(old)) ||
    !semanticEqual(alsoGenerates?.(object), alsoGenerates?.(old));
  const metadata = ensureRecord(object, "metadata");
  if (changed || before > 0) metadata["generation"] = changed ? before + 1 : before;
  else delete metadata["generation"];
}

/** Puts `old[key]` back, also when it was absent. */
export function restore(object: JsonObject, old: Readonly<JsonObject>, key: string): void {
  if (old[key] === undefined) delete object[key];
  else object[key] = structuredClone(old[key]);
}

/** Validates, and warns of what is legal but unwise; nobody is warned of an object that is refused. */
function check(
  parts: StrategyParts,
  object: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
  context: RequestContext,
): readonly FieldError[] {
  const errors = parts.validate?.(object, old, context) ?? [];
  if (errors.length === 0)
    for (const warning of parts.warnings?.(object, old) ?? []) context.warn(warning);
  return errors;
}

/** The strategy of a kind's main endpoint. */
export function defineStrategy(parts: StrategyParts): Strategy {
  return {
    applyDefaults: (object) => parts.applyDefaults?.(object),
    prepareForCreate(object, context) {
      if (parts.hasStatus === true) delete object["status"];
      const metadata = ensureRecord(object, "metadata");
      if (parts.hasGeneration === true && parts.generationOfNew === undefined)
        metadata["generation"] = 1;
      else delete metadata["generation"];
      parts.prepareForCreate?.(object, context);
    },
    prepareForUpdate(object, old, context) {
      if (parts.hasStatus === true) restore(object, old, "status");
      parts.prepareForUpdate?.(object, old, context);
      if (parts.hasGeneration === true) carryGeneration(object, old, parts);
      else restore(ensureRecord(object, "metadata"), metadataOf(old), "generation");
    },
    validateCreate: (object, context) => check(parts, object, undefined, context),
    validateUpdate: (object, old, context) => check(parts, object, old, context),
    ...(parts.allocate === undefined ? {} : { allocate: parts.allocate }),
    ...(parts.release === undefined ? {} : { release: parts.release }),
    ...(parts.deletionGraceSeconds === undefined
      ? {}
      : { deletionGraceSeconds: parts.deletionGraceSeconds }),
    allowCreateOnUpdate: parts.allowCreateOnUpdate ?? false,
    allowUnconditionalUpdate: parts.allowUnconditionalUpdate ?? true,
    validateName: parts.validateName ?? subdomainName,
  };
}

/** The strategy of a `/status` endpoint: everything outside metadata and status is put back. */
export function defineStatusStrategy(
  main: Strategy,
  parts: Pick<StrategyParts, "prepareForUpdate" | "validate"> = {},
): Strategy {
  return {
    applyDefaults: (object) => main.applyDefaults(object),
    prepareForCreate: () => undefined,
    prepareForUpdate(object, old, context) {
      for (const key of new Set([...Object.keys(object), ...Object.keys(old)])) {
        if (key === "metadata" || key === "status") continue;
        restore(object, old, key);
      }
      restore(ensureRecord(object, "metadata"), metadataOf(old), "generation");
      parts.prepareForUpdate?.(object, old, context);
    },
    validateCreate: () => [],
    validateUpdate: (object, old, context) => parts.validate?.(object, old, context) ?? [],
    allowCreateOnUpdate: false,
    allowUnconditionalUpdate: main.allowUnconditionalUpdate,
    validateName: (name, generateName) => main.validateName(name, generateName),
  };
}
