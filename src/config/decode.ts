import { dirname, resolve } from "node:path";

import { suggestion } from "./nearest.ts";
import { type Origin, originText, type Raw } from "./raw.ts";
import type { Fields, Json, Leaf, LeafType, ObjectShape, Refuse, ValueOf } from "./shape.ts";

/** Something about a field that a person should know. */
export interface Remark {
  /** An error stops the start; a warning, what is ignored or unknown does not. */
  readonly severity: "error" | "warning" | "unknown" | "ignored";
  readonly kind: string;
  readonly path: string;
  readonly origin: Origin | undefined;
  readonly text: string;
}

/** One field with what it came to. */
export interface Setting {
  readonly path: string;
  readonly leaf: Leaf<unknown>;
  readonly value: unknown;
  /** Undefined: nobody set it. */
  readonly origin: Origin | undefined;
  /** Where a default comes from that depends on another field. */
  readonly because?: string;
}

export interface Decoded<S> {
  readonly value: ValueOf<S>;
  readonly settings: ReadonlyMap<string, Setting>;
  readonly remarks: readonly Remark[];
}

/** `file:line: kind.path: text`. */
export function remarkText({ origin, kind, path, text }: Remark): string {
  const where = origin === undefined ? "" : `${originText(origin)}: `;
  const field = path === "" ? "" : `${kind === "" ? "" : `${kind}.`}${path}: `;
  return `${where}${field}${text}`;
}

const nowhere: Origin = { kind: "file", file: "", line: 0 };

function rawOf(json: Json): Raw {
  const origin = nowhere;
  if (json === null) return { kind: "null", origin };
  if (typeof json === "string") return { kind: "scalar", text: json, style: "quoted", origin };
  if (typeof json !== "object")
    return { kind: "scalar", text: String(json), style: "plain", origin };
  if (Array.isArray(json))
    return { kind: "list", items: json.map((item: Json) => rawOf(item)), origin };
  const members = Object.entries(json).map(([key, value]) => [key, rawOf(value)] as const);
  return { kind: "map", entries: new Map(members), origin };
}

/** The default of a field, decoded. */
export function fallbackOf(leaf: Leaf<unknown>): unknown {
  if (leaf.fallback === undefined) return undefined;
  return leaf.type.decode(rawOf(leaf.fallback), (_, text) => {
    throw new Error(`default ${JSON.stringify(leaf.fallback)}: ${text}`);
  });
}

/** A relative path in a file is one beside that file, as in the kubelet's; in a flag it is relative to the process. */
function fullPath(value: unknown, origin: Origin): unknown {
  if (typeof value !== "string" || value === "" || value.startsWith("/")) return value;
  return origin.kind === "flag" ? resolve(value) : resolve(dirname(origin.file), value);
}

class Decoder {
  readonly #kind: string;
  readonly #unknown: Remark["severity"];
  readonly settings = new Map<string, Setting>();
  readonly remarks: Remark[] = [];

  constructor(kind: string, unknown: Remark["severity"]) {
    this.#kind = kind;
    this.#unknown = unknown;
  }

  #remark(severity: Remark["severity"], path: string, origin: Origin, text: string): void {
    this.remarks.push({ severity, kind: this.#kind, path, origin, text });
  }

  #leaf(path: string, leaf: Leaf<unknown>, raw: Raw | undefined): unknown {
    let value: unknown;
    let origin: Origin | undefined;
    if (raw !== undefined && raw.kind !== "null") {
      const decoded = leaf.type.decode(raw, (at, text) => {
        this.#remark("error", path, at.origin, text);
      });
      // A zero that is no pointer cannot be told from a field that is not there.
      const said = decoded !== undefined && (leaf.pointer || !leaf.type.isZero(decoded));
      if (said) [value, origin] = [leaf.path ? fullPath(decoded, raw.origin) : decoded, raw.origin];
    }
    if (origin === undefined) value = fallbackOf(leaf);
    this.settings.set(path, { path, leaf, value, origin });
    return value;
  }

  object(shape: ObjectShape<Fields>, raw: Raw | undefined, prefix: string): unknown {
    const entries = raw?.kind === "map" ? raw.entries : new Map<string, Raw>();
    if (raw !== undefined && raw.kind !== "map" && raw.kind !== "null") {
      this.#remark("error", prefix.slice(0, -1), raw.origin, "an object belongs here");
    }
    for (const [key, member] of entries) {
      if (Object.hasOwn(shape.fields, key)) continue;
      const hint = suggestion(key, Object.keys(shape.fields));
      this.#remark(this.#unknown, `${prefix}${key}`, member.origin, `unknown field${hint}`);
    }
    return Object.fromEntries(
      Object.entries(shape.fields).map(([name, member]) => {
        const path = `${prefix}${name}`;
        const child = entries.get(name);
        return [
          name,
          member.kind === "leaf"
            ? this.#leaf(path, member, child)
            : this.object(member, child, `${path}.`),
        ];
      }),
    );
  }
}

/**
 * Gives every field of `shape` its value, from `raw` or by default.
 *
 * @param unknown What a field that nobody knows is: upstream's kinds live with it, as the kubelet does, ours does not.
 */
export function decodeShape<S extends ObjectShape<Fields>>(
  kind: string,
  shape: S,
  raw: Raw | undefined,
  unknown: "error" | "unknown" = "error",
): Decoded<S> {
  const decoder = new Decoder(kind, unknown);
  // The decoder builds member by member what the type of the shape says.
  const value = decoder.object(shape, raw, "") as ValueOf<S>;
  return { value, settings: decoder.settings, remarks: decoder.remarks };
}

/** What JSON of a configuration says: everything that has a value, and only that. */
function encodeMember(
  member: Leaf<unknown> | ObjectShape<Fields>,
  value: unknown,
): Json | undefined {
  if (member.kind === "leaf")
    return value === undefined ? undefined : member.type.encode(value ?? {});
  return encodeShape(member, value);
}

/** A decoded value as JSON again. */
export function encodeShape(shape: ObjectShape<Fields>, value: unknown): Json {
  const record = (value ?? {}) as Readonly<Record<string, unknown>>;
  const members = Object.entries(shape.fields).map(
    ([name, member]) => [name, encodeMember(member, record[name])] as const,
  );
  return Object.fromEntries(members.filter(([, json]) => json !== undefined)) as Json;
}

/** Objects in a list. Flags for them are rare: `parse` turns the text of one into the object. */
export function objectsType<F extends Fields>(
  name: string,
  shape: ObjectShape<F>,
  parse: (text: string, flag: string) => Raw = flagIsText,
): LeafType<readonly ValueOf<ObjectShape<F>>[]> {
  return {
    name,
    decode: (raw, refuse: Refuse) => {
      if (raw.kind !== "list") {
        refuse(raw, "a list belongs here");
        return undefined;
      }
      return raw.items.map((item, index) => {
        const { value, remarks } = decodeShape("", shape, item);
        for (const { path, text, origin } of remarks) {
          const at = path === "" ? `[${index}]` : `[${index}].${path}`;
          refuse({ kind: "null", origin: origin ?? item.origin }, `${at}: ${text}`);
        }
        return value;
      });
    },
    encode: (value) => value.map((item) => encodeShape(shape, item)),
    fromFlag: (texts, flag) => ({
      kind: "list",
      items: texts
        .flatMap((text) => (text === "" ? [] : text.split(",")))
        .map((text) => parse(text, flag)),
      origin: { kind: "flag", flag },
    }),
    isZero: (value) => value.length === 0,
  };
}

function flagIsText(text: string, flag: string): Raw {
  return { kind: "scalar", text, style: "flag", origin: { kind: "flag", flag } };
}
