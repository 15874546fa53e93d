import table from "../schema/proto-1.36.json" with { type: "json" };
import { optionalString } from "../../lib/guard.ts";
import type { JsonObject } from "../types.ts";
import { ProtobufReader } from "../../lib/protobuf-reader.ts";

/** One field: number, name, cardinality (optional, repeated, map), type. */
type ProtoField = readonly [number, string, "o" | "r" | "m", string];

const MAGIC = [0x6b, 0x38, 0x73, 0x00];
/** Deeper messages are refused: no API type nests like this. */
const MAX_DEPTH = 100;

const META = "k8s.io.apimachinery.pkg.apis.meta.v1";

// The compiler's inferred type of a table of this size is of no use; the unit test pins its shape.
const messages = table as unknown as Readonly<Record<string, readonly ProtoField[]>>;

/** Fields that Go embeds inline: protobuf nests them, JSON does not. */
const inlined = new Set([
  "volumeSource",
  "persistentVolumeSource",
  "localObjectReference",
  "handler",
  "ephemeralContainerCommon",
  "ingressRuleValue",
]);

/** Messages that are a bare list in JSON. */
const lists = /\.(Verbs|ExtraValue)$/;

const byKind = new Map<string, string>();
for (const name of Object.keys(messages)) {
  const match = /^k8s\.io\.api\.(\w+)\.(\w+)\.(\w+)$/.exec(name);
  if (match !== null) byKind.set(`${match[1]}/${match[2]}/${match[3]}`, name);
}

/** Whether a body starts with the four bytes of the Kubernetes protobuf envelope. */
export function isProtobuf(bytes: Uint8Array): boolean {
  return MAGIC.every((byte, index) => bytes[index] === byte);
}

function messageOf(apiVersion: string, kind: string): string | undefined {
  const slash = apiVersion.indexOf("/");
  const group = slash < 0 ? "core" : (apiVersion.slice(0, slash).split(".")[0] ?? "");
  const version = apiVersion.slice(slash + 1);

  return (
    byKind.get(`${group}/${version}/${kind}`) ??
    // DeleteOptions, Status and their like exist in every group.
    (Object.hasOwn(messages, `${META}.${kind}`) ? `${META}.${kind}` : undefined)
  );
}

function formatSeconds(seconds: number, nanos: number, micro: boolean): string {
  const whole = new Date(seconds * 1000).toISOString().slice(0, 19);
  if (!micro) return `${whole}Z`;
  return `${whole}.${String(Math.floor(nanos / 1000)).padStart(6, "0")}Z`;
}

function qualify(type: string, within: string): string {
  if (type.startsWith(".")) return type.slice(1);
  if (Object.hasOwn(messages, type)) return type;
  return `${within.slice(0, within.lastIndexOf("."))}.${type}`;
}

function parseJsonBytes(bytes: Uint8Array): unknown {
  if (bytes.length === 0) return undefined;
  const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
  return value;
}

function scalar(reader: ProtobufReader, type: string): unknown {
  switch (type) {
    case "string":
      return new TextDecoder().decode(reader.bytes());
    case "bytes":
      return Buffer.from(reader.bytes()).toString("base64");
    case "bool":
      return reader.varint() !== 0n;
    case "int32":
    case "int64":
    case "uint32":
    case "uint64":
      return reader.integer();
    case "double":
      return reader.double();
    default:
      return undefined;
  }
}

function isScalar(type: string): boolean {
  return !type.includes(".") && /^[a-z]/.test(type) && !type.startsWith("map<");
}

type Raw = ReadonlyMap<number, unknown>;

/** First-level fields of a well-known message, by number. */
function rawFields(bytes: Uint8Array, types: Readonly<Record<number, string>>): Raw {
  const reader = new ProtobufReader(bytes);
  const out = new Map<number, unknown>();
  while (!reader.done) {
    const { field, wire } = reader.tag();
    const type = types[field];
    if (type === undefined) reader.skip(wire);
    else if (type === "raw") out.set(field, reader.bytes());
    else out.set(field, scalar(reader, type));
  }
  return out;
}

function bytesAt(fields: Raw, field: number): Uint8Array {
  const value = fields.get(field);
  return value instanceof Uint8Array ? value : new Uint8Array();
}

/** Messages whose JSON form is not an object of their fields. `undefined` = leave the field out. */
const special: Readonly<Record<string, (bytes: Uint8Array) => unknown>> = {
  [`${META}.Time`]: (bytes) => timeOf(bytes, false),
  [`${META}.Timestamp`]: (bytes) => timeOf(bytes, false),
  [`${META}.MicroTime`]: (bytes) => timeOf(bytes, true),
  [`${META}.Duration`]: (bytes) => `${Number(rawFields(bytes, { 1: "int64" }).get(1) ?? 0) / 1e9}s`,
  [`${META}.FieldsV1`]: (bytes) => parseJsonBytes(bytesAt(rawFields(bytes, { 1: "raw" }), 1)),
  "k8s.io.apimachinery.pkg.runtime.RawExtension": (bytes) =>
    parseJsonBytes(bytesAt(rawFields(bytes, { 1: "raw" }), 1)),
  "k8s.io.apimachinery.pkg.api.resource.Quantity": (bytes) =>
    rawFields(bytes, { 1: "string" }).get(1) ?? "0",
  "k8s.io.apimachinery.pkg.util.intstr.IntOrString": (bytes) => {
    const fields = rawFields(bytes, { 1: "int64", 2: "int32", 3: "string" });
    return fields.get(1) === 1 ? (fields.get(3) ?? "") : (fields.get(2) ?? 0);
  },
};

function timeOf(bytes: Uint8Array, micro: boolean): string | undefined {
  const fields = rawFields(bytes, { 1: "int64", 2: "int32" });
  // An empty message is Go's zero time, which JSON prints as null.
  if (fields.size === 0) return undefined;
  return formatSeconds(Number(fields.get(1) ?? 0), Number(fields.get(2) ?? 0), micro);
}

function mapTypes(type: string): readonly [string, string] {
  const [key = "string", value = "string"] = type.slice(4, -1).split(",");
  return [key.trim(), value.trim()];
}

class MessageDecoder {
  #depth = 0;

  message(bytes: Uint8Array, name: string): unknown {
    const custom = special[name];
    if (custom !== undefined) return custom(bytes);
    this.#depth += 1;
    if (this.#depth > MAX_DEPTH) throw new RangeError("messages are nested too deeply");
    const object = this.#fields(bytes, name);
    this.#depth -= 1;
    return lists.test(name) ? (object["items"] ?? []) : object;
  }

  #fields(bytes: Uint8Array, name: string): JsonObject {
    const fields = new Map((messages[name] ?? []).map((field) => [field[0], field]));
    const reader = new ProtobufReader(bytes);
    const out: JsonObject = {};
    while (!reader.done) {
      const { field, wire } = reader.tag();
      const known = fields.get(field);
      // Fields of a newer client are skipped, as protobuf means it.
      if (known === undefined) reader.skip(wire);
      else this.#field(out, reader, known, name);
    }
    return out;
  }

  #field(out: JsonObject, reader: ProtobufReader, field: ProtoField, within: string): void {
    const [, name, cardinality, type] = field;
    if (cardinality === "m") {
      const [key, value] = this.#entry(reader.bytes(), type, within);
      const map = (out[name] ??= {});
      Object.defineProperty(map, key, {
        value,
        enumerable: true,
        writable: true,
        configurable: true,
      });
      return;
    }
    const value = this.#value(reader, type, within);
    if (value === undefined) return;
    if (cardinality === "r") {
      const list = out[name];
      if (Array.isArray(list)) list.push(value);
      else out[name] = [value];
    } else if (inlined.has(name) && typeof value === "object") Object.assign(out, value);
    else out[name] = value;
  }

  #value(reader: ProtobufReader, type: string, within: string): unknown {
    if (isScalar(type)) return scalar(reader, type);
    return this.message(reader.bytes(), qualify(type, within));
  }

  #entry(bytes: Uint8Array, type: string, within: string): readonly [string, unknown] {
    const [keyType, valueType] = mapTypes(type);
    const reader = new ProtobufReader(bytes);
    let key = "";
    let value: unknown = isScalar(valueType) ? "" : {};
    while (!reader.done) {
      const { field, wire } = reader.tag();
      if (field === 1) key = String(scalar(reader, keyType));
      else if (field === 2) value = this.#value(reader, valueType, within);
      else reader.skip(wire);
    }
    return [key, value];
  }
}

/**
 * Decodes `k8s\0` + runtime.Unknown into the JSON that the same client would have sent. Zero values that Go writes for
 * plain fields are still in it; decoding against the schema drops them.
 *
 * @throws {RangeError} truncated, malformed or too deep; {@link Error} for a kind that is not in the table.
 */
export function decodeProtobuf(bytes: Uint8Array): JsonObject {
  const envelope = rawFields(bytes.subarray(MAGIC.length), { 1: "raw", 2: "raw", 3: "string" });
  const type = rawFields(bytesAt(envelope, 1), { 1: "string", 2: "string" });
  const apiVersion = optionalString(type.get(1)) ?? "";
  const kind = optionalString(type.get(2)) ?? "";
  const name = messageOf(apiVersion, kind);
  if (name === undefined)
    throw new Error(
      `no kind ${JSON.stringify(kind)} is registered for version ${JSON.stringify(apiVersion)}`,
    );
  const encoding = optionalString(envelope.get(3)) ?? "";
  if (encoding !== "") throw new Error(`unsupported content encoding ${encoding}`);
  const object = new MessageDecoder().message(bytesAt(envelope, 2), name);
  return { apiVersion, kind, ...(typeof object === "object" ? object : {}) };
}
