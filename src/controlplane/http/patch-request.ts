import { isRecord } from "../../lib/guard.ts";
import { applyJsonPatch } from "../patch/json-patch.ts";
import { applyMergePatch } from "../patch/merge-patch.ts";
import { PatchError } from "../patch/patch-error.ts";
import { applyStrategicMergePatch } from "../patch/strategic-merge-patch.ts";
import { badRequest, StatusError } from "../status-error.ts";
import type { JsonObject, RequestContext } from "../types.ts";
import type { ApiCall } from "./call.ts";
import {
  decodeAs,
  parseFieldValidation,
  readBody,
  type Expected,
  type FieldValidation,
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

/**
 * Reads the body of a PATCH.
 *
 * @throws {StatusError} 400 malformed; 415 another patch type, server-side apply included.
 */
export async function readPatch(call: ApiCall): Promise<WantedPatch> {
  const sent = (call.body?.contentType.split(";")[0] ?? "").trim().toLowerCase();
  const type = types.find((one) => one === sent);
  if (type === undefined) {
    const apply = sent.startsWith("application/apply-patch");
    const accepted = types.join(", ");
    throw new StatusError(
      415,
      "UnsupportedMediaType",
      apply
        ? `server-side apply is not supported by this server; use kubectl apply without --server-side. Accepted media types include: ${accepted}`
        : `the body of the request was in an unknown format - accepted media types include: ${accepted}`,
    );
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
