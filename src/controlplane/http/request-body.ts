import { isRecord, optionalString } from "../../lib/guard.ts";
import { errorMessage } from "../../lib/errors.ts";
import { DecodeError, decodeObject } from "../schema/decode.ts";
import { duplicateFields } from "../schema/duplicate-fields.ts";
import { allDefinitions } from "../schema/schema-table.ts";
import { badRequest, StatusError } from "../status-error.ts";
import type { JsonObject } from "../types.ts";
import type { CallBody } from "./call.ts";

export type FieldValidation = "Strict" | "Warn" | "Ignore";

/** What a body must be. */
export interface Expected {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  /** Name in the schema table. */
  readonly schema: string;
}

export interface DecodeOptions {
  readonly validation: FieldValidation;
  warn(message: string): void;
}

const JSON_TYPE = "application/json";
const YAML_TYPE = "application/yaml";
const PROTOBUF_TYPE = "application/vnd.kubernetes.protobuf";

const schemaNames = new Map<string, string>();
for (const [name, definition] of allDefinitions()) {
  const [group, version, kind] = definition.gvk ?? [];
  if (kind !== undefined) schemaNames.set(`${group}/${version}/${kind}`, name);
}

/** Name in the schema table of a group, version and kind. */
export function schemaOf(gvk: {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
}): string | undefined {
  return schemaNames.get(`${gvk.group}/${gvk.version}/${gvk.kind}`);
}

/** @throws {StatusError} 400 for an unknown value. */
export function parseFieldValidation(value: string | null): FieldValidation {
  if (value === null || value === "") return "Warn";
  if (value === "Strict" || value === "Warn" || value === "Ignore") return value;
  throw new StatusError(
    422,
    "Invalid",
    `CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: ${JSON.stringify(value)}: supported values: "Ignore", "Strict", "Warn"`,
  );
}

/** A body whose type has not been looked at yet. */
export interface RawBody {
  readonly value: unknown;
  /** Members that occur twice, as paths. */
  readonly duplicates: readonly string[];
}

function baseType(contentType: string): string {
  return (contentType.split(";")[0] ?? "").trim().toLowerCase();
}

function unsupported(accepted: readonly string[]): StatusError {
  return new StatusError(
    415,
    "UnsupportedMediaType",
    `the body of the request was in an unknown format - accepted media types include: ${accepted.join(", ")}`,
  );
}

function text(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { fatal: false }).decode(bytes);
}

function parseJson(bytes: Uint8Array, looksForDuplicates: boolean): RawBody {
  const source = text(bytes);
  try {
    const value: unknown = JSON.parse(source);
    return { value, duplicates: looksForDuplicates ? duplicateFields(source) : [] };
  } catch (error) {
    throw badRequest(
      `the object provided is unrecognized (must be of type ${JSON_TYPE}): ${errorMessage(error)}`,
    );
  }
}

/** @throws {StatusError} 400 when it is no YAML. */
export async function parseYaml(bytes: Uint8Array): Promise<RawBody> {
  // Loaded on demand: kubectl sends JSON, so most servers never need it.
  const yaml = await import("yaml");
  const duplicates: string[] = [];
  try {
    const document = yaml.parseDocument(text(bytes), { uniqueKeys: false, version: "1.1" });
    if (document.errors.length > 0) throw new Error(document.errors[0]?.message ?? "bad YAML");
    const value: unknown = document.toJS({ maxAliasCount: 100 });
    return { value, duplicates };
  } catch (error) {
    throw badRequest(`yaml: ${errorMessage(error)}`);
  }
}

async function parseProtobuf(bytes: Uint8Array): Promise<RawBody> {
  // Loaded on demand: its tables are megabytes, and only some commands of kubectl send protobuf.
  const { decodeProtobuf, isProtobuf } = await import("../proto/decode-protobuf.ts");
  if (!isProtobuf(bytes)) {
    throw badRequest(
      "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
    );
  }
  try {
    return { value: decodeProtobuf(bytes), duplicates: [] };
  } catch (error) {
    throw badRequest(`the protobuf body cannot be decoded: ${errorMessage(error)}`);
  }
}

/**
 * Reads a body as JSON, YAML or protobuf.
 *
 * @throws {StatusError} 400 malformed; 415 another media type.
 */
export async function readBody(
  body: CallBody | undefined,
  validation: FieldValidation,
): Promise<RawBody> {
  if (body === undefined) return { value: undefined, duplicates: [] };
  if (body.kind === "json") return { value: body.value, duplicates: [] };
  if (body.bytes.length === 0) return { value: undefined, duplicates: [] };
  const type = baseType(body.contentType);
  switch (type) {
    case "":
    case JSON_TYPE:
      return parseJson(body.bytes, validation !== "Ignore");
    case YAML_TYPE:
      return parseYaml(body.bytes);
    case PROTOBUF_TYPE:
      return parseProtobuf(body.bytes);
    default:
      throw unsupported([JSON_TYPE, YAML_TYPE, PROTOBUF_TYPE]);
  }
}

function internalGroup(group: string): string {
  return group === "" ? "core" : (group.split(".")[0] ?? group);
}

function checkType(value: JsonObject, expected: Expected): void {
  const wanted = expected.group === "" ? expected.version : `${expected.group}/${expected.version}`;
  const apiVersion = optionalString(value["apiVersion"]) ?? "";
  const kind = optionalString(value["kind"]) ?? "";
  if ((apiVersion === "" || apiVersion === wanted) && (kind === "" || kind === expected.kind))
    return;
  const version = (apiVersion === "" ? wanted : apiVersion).replace(/^.*\//, "");
  const group = apiVersion.includes("/") ? apiVersion.replace(/\/.*$/, "") : "";
  const shown = kind === "" ? expected.kind : kind;
  const prefix = `${shown} in version ${JSON.stringify(version)} cannot be handled as a ${expected.kind}`;
  if (schemaOf({ group, version, kind: shown }) === undefined) {
    throw badRequest(
      `${prefix}: no kind ${JSON.stringify(shown)} is registered for version ${JSON.stringify(apiVersion)} in scheme "pkg/api/legacyscheme/scheme.go:30"`,
    );
  }
  throw badRequest(
    `${prefix}: converting (${version}.${shown}) to (${internalGroup(expected.group)}.${expected.kind}): unknown conversion`,
  );
}

/**
 * Makes a raw body into an object of the expected kind; apiVersion and kind are filled in.
 *
 * @throws {StatusError} 400 with the API's text for wrong types, kinds and, when Strict, unknown and double fields.
 */
export function decodeAs(raw: RawBody, expected: Expected, options: DecodeOptions): JsonObject {
  const prefix = `${expected.kind} in version ${JSON.stringify(expected.version)} cannot be handled as a ${expected.kind}`;
  if (!isRecord(raw.value)) {
    throw badRequest(`${prefix}: the body must be a JSON object`);
  }
  checkType(raw.value, expected);
  try {
    const { object, unknown } = decodeObject(expected.schema, raw.value);
    const faults = [
      ...raw.duplicates.map((path) => `duplicate field "${path}"`),
      ...unknown.map((path) => `unknown field "${path}"`),
    ];
    if (faults.length > 0 && options.validation === "Strict")
      throw badRequest(`${prefix}: strict decoding error: ${faults.join(", ")}`);
    if (options.validation === "Warn") for (const fault of faults) options.warn(fault);
    object["apiVersion"] =
      expected.group === "" ? expected.version : `${expected.group}/${expected.version}`;
    object["kind"] = expected.kind;
    return object;
  } catch (error) {
    if (error instanceof DecodeError) throw badRequest(`${prefix}: ${error.message}`);
    throw error;
  }
}
