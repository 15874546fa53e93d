import { isRecord } from "../../lib/guard.ts";
import type { JsonObject } from "../types.ts";
import { canonicalQuantity } from "./quantity.ts";
import {
  definitionOf,
  dropsZero,
  INT_OR_STRING,
  MICRO_TIME,
  QUANTITY,
  RAW_EXTENSION,
  TIME,
  type FieldSchema,
} from "./schema-table.ts";

/** A value that cannot become the type; the message is the API's own (`json: cannot unmarshal ...`). */
export class DecodeError extends Error {
  override readonly name = "DecodeError";
}

export interface Decoded {
  readonly object: JsonObject;
  /** Paths of fields that the type does not have, in document order: `spec.foo`. They are not in `object`. */
  readonly unknown: readonly string[];
}

interface Place {
  /** As strict errors print it: `spec.containers[0].foo`. */
  readonly path: string;
  /** Without indexes, as type errors print it. */
  readonly goPath: string;
  /** Last part of the name of the struct that holds the field. */
  readonly struct: string;
  readonly field: string;
}

const base64 = /^[A-Za-z0-9+/]*={0,2}$/;
const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

function jsonKind(value: unknown): string {
  if (Array.isArray(value)) return "array";
  if (typeof value === "boolean") return "bool";
  return typeof value;
}

function typeError(value: unknown, place: Place, wanted: string): DecodeError {
  const what = jsonKind(value);
  return new DecodeError(
    `json: cannot unmarshal ${what} into Go struct field ${place.struct}.${place.goPath} of type ${wanted}`,
  );
}

function child(place: Place, field: string, struct: string): Place {
  const join = (prefix: string): string => (prefix === "" ? field : `${prefix}.${field}`);
  return { path: join(place.path), goPath: join(place.goPath), struct, field };
}

function capitalised(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

function isZero(value: unknown): boolean {
  if (value === "" || value === 0 || value === false) return true;
  if (Array.isArray(value)) return value.length === 0;
  return isRecord(value) && Object.keys(value).length === 0;
}

function decodeTime(value: unknown, place: Place, micro: boolean): string {
  if (typeof value !== "string") throw typeError(value, place, "string");
  const time = Date.parse(value);
  if (!rfc3339.test(value) || Number.isNaN(time)) {
    const layout = micro ? "2006-01-02T15:04:05.000000Z07:00" : "2006-01-02T15:04:05Z07:00";
    throw new DecodeError(
      `parsing time ${JSON.stringify(value)} as ${JSON.stringify(layout)}: cannot parse ${JSON.stringify(value)} as "2006"`,
    );
  }
  const seconds = new Date(time).toISOString().slice(0, 19);
  if (!micro) return `${seconds}Z`;
  const fraction = /\.(\d+)/.exec(value)?.[1] ?? "";
  return `${seconds}.${fraction.slice(0, 6).padEnd(6, "0")}Z`;
}

function decodeQuantity(value: unknown, place: Place): string {
  if (typeof value !== "string" && typeof value !== "number")
    throw typeError(value, place, "string");
  const canonical = canonicalQuantity(String(value));
  if (canonical === undefined) {
    throw new DecodeError(
      "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
  }
  return canonical;
}

function decodeBytes(value: string): string {
  const compact = value.replace(/[\r\n]/g, "");
  if (compact.length % 4 !== 0 || !base64.test(compact)) {
    const bad = /[^A-Za-z0-9+/]/.exec(compact)?.index ?? Math.max(compact.length - 1, 0);
    throw new DecodeError(`illegal base64 data at input byte ${compact.length === 0 ? 0 : bad}`);
  }
  return compact;
}

function decodeScalar(value: unknown, schema: FieldSchema, place: Place): unknown {
  switch (schema.type ?? "") {
    case "string": {
      if (typeof value !== "string") {
        const wanted = schema.enum === undefined ? "string" : `v1.${capitalised(place.field)}`;
        throw typeError(value, place, schema.format === "byte" ? "[]uint8" : wanted);
      }
      return schema.format === "byte" ? decodeBytes(value) : value;
    }
    case "boolean": {
      if (typeof value !== "boolean") throw typeError(value, place, "bool");
      return value;
    }
    case "integer": {
      const wanted = schema.format === "int32" ? "int32" : "int64";
      if (typeof value !== "number") throw typeError(value, place, wanted);
      const limit = wanted === "int32" ? 2_147_483_648 : Number.MAX_SAFE_INTEGER;
      if (!Number.isInteger(value) || value >= limit || value < -limit) {
        throw new DecodeError(
          `json: cannot unmarshal number ${value} into Go struct field ${place.struct}.${place.goPath} of type ${wanted}`,
        );
      }
      return value;
    }
    case "number": {
      if (typeof value !== "number") throw typeError(value, place, "float64");
      return value;
    }
    default:
      return value;
  }
}

class Decoder {
  readonly unknown: string[] = [];

  /** Decodes one value; undefined means that the API would not print it (null). */
  value(value: unknown, schema: FieldSchema, place: Place): unknown {
    if (schema.ref !== undefined) return this.#reference(value, schema.ref, place);
    if (schema.type === "array") return this.#array(value, schema, place);
    if (schema.map !== undefined) return this.#map(value, schema.map, place);
    return decodeScalar(value, schema, place);
  }

  struct(value: unknown, name: string, place: Place): JsonObject {
    const fields = definitionOf(name)?.fields ?? {};
    const short = name.slice(name.lastIndexOf(".") + 1);
    if (!isRecord(value)) throw typeError(value, place, `v1.${short}`);
    const out: JsonObject = {};
    for (const [key, member] of Object.entries(value)) {
      const at = child(place, key, short);
      const schema = Object.hasOwn(fields, key) ? fields[key] : undefined;
      if (schema === undefined) this.unknown.push(at.path);
      else if (member !== null) {
        const decoded = this.value(member, schema, at);
        if (!(dropsZero(name, key) && isZero(decoded))) out[key] = decoded;
      }
    }
    return out;
  }

  #reference(value: unknown, name: string, place: Place): unknown {
    if (name === QUANTITY) return decodeQuantity(value, place);
    if (name === TIME || name === MICRO_TIME) return decodeTime(value, place, name === MICRO_TIME);
    if (name === INT_OR_STRING) {
      if (typeof value === "string" || Number.isInteger(value)) return value;
      throw typeError(value, place, "int32");
    }
    const definition = definitionOf(name);
    if (definition?.fields !== undefined) return this.struct(value, name, place);
    // A RawExtension is any JSON; what it has to be is the kind's to say.
    if (name === RAW_EXTENSION) return structuredClone(value);
    if (definition?.type === "object" && !isRecord(value)) throw typeError(value, place, "object");
    return structuredClone(value);
  }

  #array(value: unknown, schema: FieldSchema, place: Place): unknown[] {
    const items = schema.items ?? {};
    if (!Array.isArray(value)) {
      const item = items.type ?? (items.ref ?? "").replace(/^.*\./, "v1.");
      throw typeError(value, place, `[]${item}`);
    }
    const out: unknown[] = [];
    for (const [index, item] of value.entries()) {
      const at = { ...place, path: `${place.path}[${index}]` };
      if (item === null) out.push(items.type === "string" ? "" : {});
      else out.push(this.value(item, items, at));
    }
    return out;
  }

  #map(value: unknown, schema: FieldSchema, place: Place): JsonObject {
    if (!isRecord(value))
      throw typeError(
        value,
        place,
        `map[string]${schema.type ?? (schema.ref ?? "").replace(/^.*\./, "")}`,
      );
    // fromEntries defines own properties, so that a key such as `__proto__` stays data.
    return Object.fromEntries(
      Object.entries(value).map(([key, member]) => {
        // Go decodes a null map value as the type's zero value.
        if (member === null) return [key, schema.type === "string" ? "" : {}];
        return [key, this.value(member, schema, { ...place, path: `${place.path}.${key}` })];
      }),
    );
  }
}

/**
 * Makes plain JSON into an object of the type `schema`: unknown fields and nulls go, quantities and times get their
 * canonical form, values the API would omit when zero are omitted. The input is not changed and not shared.
 *
 * @throws {DecodeError} a value has the wrong type.
 */
export function decodeObject(schema: string, value: unknown): Decoded {
  const decoder = new Decoder();
  const object = decoder.struct(value, schema, { path: "", goPath: "", struct: "", field: "" });
  return { object, unknown: decoder.unknown };
}
