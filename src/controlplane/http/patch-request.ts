import { isRecord, optionalString } from "../../lib/guard.ts";
import { applyJsonPatch } from "../patch/json-patch.ts";
import { applyMergePatch } from "../patch/merge-patch.ts";
import { PatchError } from "../patch/patch-error.ts";
import { applyStrategicMergePatch } from "../patch/strategic-merge-patch.ts";
import { badRequest, StatusError } from "../status-error.ts";
import type { JsonObject, RequestContext } from "../types.ts";
import type { ApiCall, CallBody } from "./call.ts";
import {
  decodeAs,
  parseFieldValidation,
  readBody,
  type Expected,
  type FieldValidation,
  type RawBody,
} from "./request-body.ts";

const types = [
  "application/json-patch+json",
  "application/merge-patch+json",
  "application/strategic-merge-patch+json",
] as const;

type PatchType = (typeof types)[number];

/** A patch as it was sent. */
export interface WantedPatch {
  readonly type: PatchType;
  readonly patch: unknown;
  readonly validation: FieldValidation;
}

/** A server-side apply as it was sent. */
export interface WantedApply {
  readonly configuration: JsonObject;
  readonly manager: string;
  readonly force: boolean;
}

const APPLY_TYPE = "application/apply-patch+yaml";

function mediaType(call: ApiCall): string {
  return (call.body?.contentType.split(";")[0] ?? "").trim().toLowerCase();
}

/** Whether the request is a server-side apply. */
export function isApply(call: ApiCall): boolean {
  return mediaType(call) === APPLY_TYPE;
}

function invalidOptions(field: string, text: string, reason: string): StatusError {
  const message = `PatchOptions.meta.k8s.io "" is invalid: ${field}: ${text}`;
  return new StatusError(422, "Invalid", message, {
    group: "meta.k8s.io",
    kind: "PatchOptions",
    causes: [{ reason, message: text, field }],
  });
}

/** JSON is YAML too, and what kubectl sends: the YAML parser is loaded only for those who write YAML. */
async function readConfiguration(body: CallBody, validation: FieldValidation): Promise<RawBody> {
  const json = body.kind === "json" || body.bytes[0] === "{".charCodeAt(0);
  try {
    if (json) return await readBody({ ...body, contentType: "application/json" }, validation);
  } catch {
    // Flow-style YAML begins with a brace as well.
  }
  return readBody({ ...body, contentType: "application/yaml" }, validation);
}

/**
 * Reads the body of a server-side apply (KEP-555).
 *
 * @throws {StatusError} 400 malformed or of another kind; 422 without a field manager.
 */
export async function readApply(
  call: ApiCall,
  expected: Expected,
  context: RequestContext,
): Promise<WantedApply> {
  const manager = call.query.get("fieldManager") ?? "";
  if (manager === "") {
    const text = "Required value: is required for apply patch";
    throw invalidOptions("fieldManager", text, "FieldValueRequired");
  }
  const validation = parseFieldValidation(call.query.get("fieldValidation"));
  const { body } = call;
  if (body === undefined) throw badRequest("error decoding YAML: the request has no body");
  const raw = await readConfiguration(body, validation);
  if (!isRecord(raw.value)) throw badRequest("error decoding YAML: the body must be an object");
  const version =
    expected.group === "" ? expected.version : `${expected.group}/${expected.version}`;
  const { apiVersion, kind } = raw.value;
  if (apiVersion !== version || kind !== expected.kind)
    throw badRequest(
      `invalid object type: ${optionalString(apiVersion) ?? ""}, Kind=${optionalString(kind) ?? ""}`,
    );
  const doubles = raw.duplicates.map((path) => `duplicate field "${path}"`);
  if (doubles.length > 0 && validation === "Strict")
    throw badRequest(`error strict decoding YAML: ${doubles.join(", ")}`);
  if (validation === "Warn") for (const text of doubles) context.warn(text);
  return { configuration: raw.value, manager, force: call.query.get("force") === "true" };
}

/**
 * Reads the body of a PATCH that is no apply.
 *
 * @throws {StatusError} 400 malformed; 415 another patch type.
 */
export async function readPatch(call: ApiCall): Promise<WantedPatch> {
  const sent = mediaType(call);
  const type = types.find((one) => one === sent);
  if (type === undefined) {
    const accepted = types.join(", ");
    throw new StatusError(
      415,
      "UnsupportedMediaType",
      sent.startsWith("application/apply-patch")
        ? `this endpoint takes no server-side apply in this form. Accepted media types include: ${accepted}`
        : `the body of the request was in an unknown format - accepted media types include: ${accepted}, ${APPLY_TYPE}`,
    );
  }
  if (call.query.has("force")) {
    const text = "Forbidden: may not be specified for non-apply patch";
    throw invalidOptions("force", text, "FieldValueForbidden");
  }
  const validation = parseFieldValidation(call.query.get("fieldValidation"));
  const body = call.body;
  if (body === undefined) throw badRequest("a patch needs a body");
  const raw = await readBody({ ...body, contentType: "application/json" }, "Ignore");
  return { type, patch: raw.value, validation };
}

function apply(wanted: WantedPatch, current: JsonObject, schema: string): unknown {
  switch (wanted.type) {
    case "application/json-patch+json":
      return applyJsonPatch(current, wanted.patch);
    case "application/merge-patch+json":
      return applyMergePatch(current, wanted.patch);
    case "application/strategic-merge-patch+json":
      return applyStrategicMergePatch(current, wanted.patch, schema);
  }
}

/**
 * The object that the patch makes of `current`, decoded.
 *
 * @throws {StatusError} 400 or 422.
 */
export function applyPatch(
  wanted: WantedPatch,
  current: JsonObject,
  expected: Expected,
  context: RequestContext,
): JsonObject {
  try {
    const value = apply(wanted, current, expected.schema);
    if (!isRecord(value)) throw new PatchError(422, "the patch does not leave an object");
    return decodeAs({ value, duplicates: [] }, expected, {
      validation: wanted.validation,
      warn: (message) => context.warn(message),
    });
  } catch (error) {
    if (error instanceof PatchError) {
      throw error.status === 400
        ? badRequest(error.message)
        : new StatusError(422, "Invalid", error.message);
    }
    if (error instanceof StatusError && error.status === 400) {
      // The API refuses the patch, not the object: the fault came with it.
      const prefix = / cannot be handled as a \w+: (.*)$/s.exec(error.message)?.[1];
      const cause = {
        reason: "FieldValueInvalid",
        message: `Invalid value: ${JSON.stringify(JSON.stringify(wanted.patch))}: ${prefix ?? error.message}`,
        field: "patch",
      };
      throw new StatusError(422, "Invalid", ` "" is invalid: patch: ${cause.message}`, {
        causes: [cause],
      });
    }
    throw error;
  }
}
