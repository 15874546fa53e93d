import type { Clock } from "../../lib/clock.ts";
import { isRecord, optionalString } from "../../lib/guard.ts";
import { parseDeleteOptions } from "../registry/deletion.ts";
import type { ObjectRegistry } from "../registry/create-registry.ts";
import { metaText } from "../registry/object-meta.ts";
import { resourceOf } from "../registry/write-rules.ts";
import { DecodeError, decodeObject } from "../schema/decode.ts";
import { badRequest, invalid, notFound, StatusError } from "../status-error.ts";
import type {
  CustomSubresource,
  DeleteOptions,
  JsonObject,
  KindDefinition,
  RequestContext,
  SubresourceRequest,
  Verb,
} from "../types.ts";
import type { ApiCall } from "./call.ts";
import { applyPatch, isApply, readApply, readPatch } from "./patch-request.ts";
import {
  decodeAs,
  parseFieldValidation,
  readBody,
  schemaOf,
  type Expected,
} from "./request-body.ts";

const DELETE_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/** A request for one resource after routing and authorization. */
export interface ResourceRequest {
  readonly call: ApiCall;
  readonly verb: Verb;
  readonly kind: KindDefinition;
  readonly namespace: string | undefined;
  readonly name: string | undefined;
  readonly subresource: string | undefined;
  readonly context: RequestContext;
  /** Throws 403 when the user may not create objects here: asked when an update or apply turns out to be a creation. */
  mayCreate(): void;
}

export interface RequestDeps {
  readonly registry: ObjectRegistry;
  readonly clock: Clock;
  readonly random: () => number;
}

export interface Answer {
  readonly status: number;
  readonly object: Readonly<JsonObject>;
}

export function methodNotAllowed(): StatusError {
  return new StatusError(
    405,
    "MethodNotAllowed",
    "the server does not allow this method on the requested resource",
    {},
  );
}

/** Who is entered in managedFields: the client's own word, else the program's name. */
export function fieldManagerOf(call: ApiCall): string {
  const named = call.query.get("fieldManager") ?? "";
  if (named.length > 128) {
    throw new StatusError(
      422,
      "Invalid",
      'CreateOptions.meta.k8s.io "" is invalid: fieldManager: Too long: may not be more than 128 bytes',
    );
  }
  if (named !== "") return named;
  const program = call.userAgent.split("/")[0] ?? "";
  return program === "" ? "unknown" : program.slice(0, 128);
}

/** @throws {StatusError} 422 for anything but `All`. */
export function parseDryRun(values: readonly string[]): boolean {
  for (const value of values) {
    if (value !== "" && value !== "All") {
      throw new StatusError(
        422,
        "Invalid",
        `CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ${JSON.stringify(value)}: supported values: "All"`,
      );
    }
  }
  return values.includes("All");
}

function expectedOf(kind: KindDefinition): Expected {
  const { group, version, schema } = kind;
  return { group, version, kind: kind.kind, schema };
}

function customExpected(subresource: CustomSubresource): Expected | undefined {
  const schema = schemaOf(subresource.gvk);
  return schema === undefined ? undefined : { ...subresource.gvk, schema };
}

async function decodeBody(request: ResourceRequest, expected: Expected): Promise<JsonObject> {
  const { call, context } = request;
  const validation = parseFieldValidation(call.query.get("fieldValidation"));
  const raw = await readBody(call.body, validation);
  if (raw.value === undefined) {
    throw badRequest(
      `${expected.kind} in version ${JSON.stringify(expected.version)} cannot be handled as a ${expected.kind}: the request has no body`,
    );
  }
  return decodeAs(raw, expected, { validation, warn: (message) => context.warn(message) });
}

function checkNamespace(request: ResourceRequest, body: JsonObject): void {
  const sent = metaText(body, "namespace");
  if (sent !== "" && sent !== (request.namespace ?? "")) {
    throw badRequest(
      "the namespace of the provided object does not match the namespace sent on the request",
    );
  }
}

function checkName(name: string, body: JsonObject): void {
  const sent = metaText(body, "name");
  if (sent === "") throw badRequest("name must be provided");
  if (sent !== name)
    throw badRequest(
      `the name of the object (${sent}) does not match the name on the URL (${name})`,
    );
}

/** The stored form of a decoded body, checked by the rules that its version adds. */
function storedForm(
  request: ResourceRequest,
  body: JsonObject,
  old: Readonly<JsonObject> | undefined,
): JsonObject {
  const { kind, context } = request;
  if (kind.servedFrom === undefined) return body;
  const object = kind.servedFrom.toStored(body);
  const errors =
    old === undefined
      ? kind.strategy.validateCreate(object, context)
      : kind.strategy.validateUpdate(object, old, context);
  if (errors.length > 0) throw invalid(kind, metaText(object, "name"), errors);
  return object;
}

async function create(deps: RequestDeps, request: ResourceRequest): Promise<Answer> {
  const { kind, context } = request;
  const body = await decodeBody(request, expectedOf(kind));
  checkNamespace(request, body);
  const namespace = request.namespace ?? "";
  if (kind.answer !== undefined) {
    const at = { namespace, name: metaText(body, "name") };
    const resource = resourceOf(kind);
    const admitted = {
      operation: "CREATE",
      subresource: undefined,
      at,
      object: body,
      context,
    } as const;
    deps.registry.admit(resource, admitted);
    const object = await kind.answer({
      verb: "create",
      ...at,
      body,
      context,
      registry: deps.registry,
    });
    return { status: 201, object };
  }
  const object = deps.registry.create(
    resourceOf(kind),
    namespace,
    storedForm(request, body, undefined),
    context,
  );
  return { status: 201, object };
}

async function update(deps: RequestDeps, request: ResourceRequest, name: string): Promise<Answer> {
  const { kind, context, subresource } = request;
  const body = await decodeBody(request, expectedOf(kind));
  checkNamespace(request, body);
  checkName(name, body);
  const at = { namespace: request.namespace ?? "", name };
  const resource = resourceOf(kind);
  const missing = deps.registry.get(resource, at.namespace, name) === undefined;
  if (missing && subresource === undefined && kind.strategy.allowCreateOnUpdate) {
    request.mayCreate();
    const object = deps.registry.create(
      resource,
      at.namespace,
      storedForm(request, body, undefined),
      context,
    );
    return { status: 201, object };
  }
  const object = deps.registry.update(resource, at, (old) => storedForm(request, body, old), {
    context,
    ...(subresource === undefined ? {} : { subresource }),
  });
  return { status: 200, object };
}

async function apply(
  deps: RequestDeps,
  request: ResourceRequest,
  name: string,
  expected = expectedOf(request.kind),
): Promise<Answer> {
  const { kind, context, call, subresource } = request;
  const { configuration, manager, force } = await readApply(call, expected, context);
  checkNamespace(request, configuration);
  checkName(name, configuration);
  const at = { namespace: request.namespace ?? "", name };
  const stored = kind.servedFrom?.toStored(configuration) ?? configuration;
  const { object, created } = deps.registry.apply(resourceOf(kind), at, stored, {
    context,
    manager,
    force,
    ...(subresource === undefined ? {} : { subresource }),
    mayCreate: () => request.mayCreate(),
  });
  return { status: created ? 201 : 200, object };
}

async function patch(deps: RequestDeps, request: ResourceRequest, name: string): Promise<Answer> {
  const { kind, context, call, subresource } = request;
  const wanted = await readPatch(call);
  const expected = expectedOf(kind);
  const at = { namespace: request.namespace ?? "", name };
  const object = deps.registry.update(
    resourceOf(kind),
    at,
    (current) => {
      const served = kind.servedFrom?.fromStored(current) ?? current;
      const changed = applyPatch(wanted, served, expected, context);
      checkNamespace(request, changed);
      checkName(name, changed);
      return storedForm(request, changed, deps.registry.get(resourceOf(kind), at.namespace, name));
    },
    {
      context,
      ...(subresource === undefined ? {} : { subresource }),
    },
  );
  return { status: 200, object };
}

/** Options of a DELETE: from the body, else from the query. */
async function deleteOptions(
  request: ResourceRequest,
): Promise<{ readonly options: DeleteOptions; readonly dryRun: boolean }> {
  const { call } = request;
  const raw = await readBody(call.body, "Ignore");
  let body: JsonObject = {};
  if (raw.value === undefined) {
    const seconds = call.query.get("gracePeriodSeconds");
    const orphan = call.query.get("orphanDependents");
    body = {
      ...(seconds === null ? {} : { gracePeriodSeconds: Number(seconds) }),
      ...(orphan === null ? {} : { orphanDependents: orphan === "true" }),
      propagationPolicy: call.query.get("propagationPolicy") ?? undefined,
    };
  } else {
    try {
      body = decodeObject(DELETE_OPTIONS, raw.value).object;
    } catch (error) {
      if (error instanceof DecodeError) throw badRequest(error.message);
      throw error;
    }
  }
  const policy = optionalString(body["propagationPolicy"]);
  if (policy !== undefined && !["Background", "Foreground", "Orphan"].includes(policy)) {
    throw invalid({ plural: "", kind: "DeleteOptions", group: "meta.k8s.io" }, "", [
      {
        type: "FieldValueNotSupported",
        field: "propagationPolicy",
        message: `Unsupported value: ${JSON.stringify(policy)}: supported values: "Foreground", "Background", "Orphan", "nil"`,
      },
    ]);
  }
  const dryRun = Array.isArray(body["dryRun"]) ? body["dryRun"].map(String) : [];
  return { options: parseDeleteOptions(body), dryRun: parseDryRun(dryRun) };
}

async function remove(deps: RequestDeps, request: ResourceRequest, name: string): Promise<Answer> {
  const { options, dryRun } = await deleteOptions(request);
  const context = { ...request.context, dryRun: request.context.dryRun || dryRun };
  const at = { namespace: request.namespace ?? "", name };
  const object = deps.registry.delete(resourceOf(request.kind), at, options, {
    ...context,
    warn: (message) => request.context.warn(message),
  });
  return { status: 200, object };
}

/** Deletes what a collection request selects; the deleted objects come back. */
export async function removeCollection(
  deps: RequestDeps,
  request: ResourceRequest,
  matches: (object: Readonly<JsonObject>) => boolean,
): Promise<readonly JsonObject[]> {
  const { options, dryRun } = await deleteOptions(request);
  return deps.registry.deleteCollection(
    resourceOf(request.kind),
    request.namespace,
    matches,
    options,
    {
      ...request.context,
      dryRun: request.context.dryRun || dryRun,
      warn: (message) => request.context.warn(message),
    },
  );
}

type Handle = (request: SubresourceRequest) => Promise<JsonObject> | JsonObject;

async function customBody(
  request: ResourceRequest,
  subresource: CustomSubresource,
  ask: (verb: Verb, body: JsonObject | undefined) => Promise<JsonObject>,
): Promise<JsonObject | undefined> {
  const expected = customExpected(subresource);
  if (expected === undefined) return undefined;
  if (request.verb === "create" || request.verb === "update") {
    if (request.verb === "create" && request.call.body === undefined) return undefined;
    const body = await decodeBody(request, expected);
    checkNamespace(request, body);
    if (request.verb === "update") checkName(request.name ?? "", body);
    return body;
  }
  if (request.verb === "patch") {
    const wanted = await readPatch(request.call);
    return applyPatch(
      wanted,
      structuredClone(await ask("get", undefined)),
      expected,
      request.context,
    );
  }
  return undefined;
}

async function custom(
  deps: RequestDeps,
  request: ResourceRequest,
  subresource: CustomSubresource,
  handle: Handle,
): Promise<Answer> {
  const { context, verb, call } = request;
  const name = request.name ?? "";
  const namespace = request.namespace ?? "";
  const { view } = subresource;
  if (verb === "patch" && view !== undefined && isApply(call)) {
    const { object, status } = await apply(deps, request, name, {
      ...subresource.gvk,
      schema: view.schema,
    });
    return { status, object: view.read(object) };
  }
  const ask = (asked: Verb, body: JsonObject | undefined): Promise<JsonObject> =>
    Promise.resolve(
      handle({ verb: asked, namespace, name, body, context, registry: deps.registry }),
    );
  const body = await customBody(request, subresource, ask);
  if (verb === "create" && request.subresource !== undefined) {
    deps.registry.admit(resourceOf(request.kind), {
      operation: "CREATE",
      subresource: request.subresource,
      at: { namespace, name },
      object: body,
      context,
    });
  }
  const object = await ask(verb === "patch" ? "update" : verb, body);
  return { status: verb === "create" ? 201 : 200, object };
}

/** Runs get, create, update, patch and delete of objects and subresources. */
export async function runObjectRequest(
  deps: RequestDeps,
  request: ResourceRequest,
): Promise<Answer> {
  const { kind, verb, name } = request;
  const subresource =
    request.subresource === undefined ? undefined : kind.subresources[request.subresource];
  if (subresource?.kind === "custom") {
    if (subresource.handle === undefined) throw methodNotAllowed();
    return custom(deps, request, subresource, (one) => subresource.handle?.(one) ?? {});
  }
  if (verb === "create") return create(deps, request);
  if (name === undefined) throw methodNotAllowed();
  switch (verb) {
    case "get": {
      const object = deps.registry.get(resourceOf(kind), request.namespace ?? "", name);
      if (object === undefined || !isRecord(object)) throw notFound(kind, name);
      return { status: 200, object };
    }
    case "update":
      return update(deps, request, name);
    case "patch":
      if (isApply(request.call)) return apply(deps, request, name);
      return patch(deps, request, name);
    case "delete":
      return remove(deps, request, name);
    case "list":
    case "watch":
    case "deletecollection":
      throw methodNotAllowed();
  }
}
