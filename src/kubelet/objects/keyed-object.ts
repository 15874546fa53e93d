import { parseStored } from "../../api/object.ts";
import type { ConfigMap, Secret } from "../../api/types.gen.ts";

export type ReferencedKind = "ConfigMap" | "Secret";

/** A ConfigMap or Secret as a pod uses it. */
export interface ReferencedObject {
  /** Tells an object from its successor of the same name. */
  readonly uid: string;
  /** `kubernetes.io/dockerconfigjson` and the like; empty for ConfigMaps. */
  readonly type: string;
  /** Nothing in it will ever change. */
  readonly immutable: boolean;
  /** Every key as bytes, binaryData included; shared by all who read it. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** The keys that are text, as environment variables take them; made anew by each reading. */
  readonly text: Readonly<Record<string, string>>;
  /** Whether pods could tell the two apart. */
  equals(other: ReferencedObject): boolean;
}

/** Keeps the bytes alone: nobody needs the metadata, and of the text there are few readers. */
class KeyedObject implements ReferencedObject {
  readonly uid: string;
  readonly type: string;
  readonly immutable: boolean;
  readonly files: ReadonlyMap<string, Buffer>;
  readonly #binary: ReadonlySet<string>;

  constructor(
    files: ReadonlyMap<string, Buffer>,
    facts: {
      readonly uid: string;
      readonly type: string;
      readonly immutable: boolean;
      /** Keys that are no text. */
      readonly binary: ReadonlySet<string>;
    },
  ) {
    this.uid = facts.uid;
    this.type = facts.type;
    this.immutable = facts.immutable;
    this.files = files;
    this.#binary = facts.binary;
  }

  get text(): Readonly<Record<string, string>> {
    const texts = [...this.files].filter(([key]) => !this.#binary.has(key));
    return Object.fromEntries(texts.map(([key, bytes]) => [key, bytes.toString("utf8")]));
  }

  equals(other: ReferencedObject): boolean {
    if (this.uid !== other.uid || this.type !== other.type) return false;
    if (this.files.size !== other.files.size) return false;
    return [...this.files].every(([key, bytes]) => {
      const theirs = other.files.get(key);
      return theirs !== undefined && bytes.equals(theirs);
    });
  }
}

/** Projection of a ConfigMap. */
export function configMapObject(value: unknown): ReferencedObject {
  const { data = {}, binaryData = {}, immutable = false, metadata } = parseStored<ConfigMap>(value);
  const files = new Map<string, Buffer>();
  for (const [key, text] of Object.entries(data)) files.set(key, Buffer.from(text, "utf8"));
  for (const [key, text] of Object.entries(binaryData)) files.set(key, Buffer.from(text, "base64"));
  const binary = new Set(Object.keys(binaryData));
  return new KeyedObject(files, { uid: metadata.uid, type: "", immutable, binary });
}

/** Projection of a Secret. */
export function secretObject(value: unknown): ReferencedObject {
  const { data = {}, immutable = false, metadata, type = "" } = parseStored<Secret>(value);
  const files = new Map<string, Buffer>();
  for (const [key, text] of Object.entries(data)) files.set(key, Buffer.from(text, "base64"));
  return new KeyedObject(files, { uid: metadata.uid, type, immutable, binary: new Set() });
}

export const projections: Readonly<Record<ReferencedKind, (value: unknown) => ReferencedObject>> = {
  ConfigMap: configMapObject,
  Secret: secretObject,
};
