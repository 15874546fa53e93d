import { isDeepStrictEqual } from "node:util";

import { isRecord } from "../../lib/guard.ts";
import { PatchError } from "./patch-error.ts";

/** More operations than this in one patch are refused, as the API does. */
const MAX_OPERATIONS = 10_000;

function tokens(pointer: string): string[] {
  if (pointer === "") return [];
  if (!pointer.startsWith("/"))
    throw new PatchError(422, `JSON pointer ${JSON.stringify(pointer)} must start with /`);
  return pointer
    .slice(1)
    .split("/")
    .map((token) => token.replaceAll("~1", "/").replaceAll("~0", "~"));
}

function missing(operation: string, pointer: string): PatchError {
  return new PatchError(
    422,
    `the server rejected our request due to an error in our request: ${operation} operation does not apply: doc is missing path: ${JSON.stringify(pointer)}`,
  );
}

function arrayIndex(token: string, length: number): number | undefined {
  if (!/^(0|[1-9]\d*)$/.test(token)) return undefined;
  const index = Number(token);
  return index <= length ? index : undefined;
}

interface Slot {
  readonly parent: Record<string, unknown> | unknown[];
  readonly token: string;
}

function step(value: unknown, token: string): unknown {
  if (Array.isArray(value)) {
    const index = arrayIndex(token, value.length - 1);
    const item: unknown = index === undefined ? undefined : value[index];
    return item;
  }
  return isRecord(value) && Object.hasOwn(value, token) ? value[token] : undefined;
}

class Document {
  root: unknown;

  constructor(root: unknown) {
    this.root = structuredClone(root);
  }

  get(pointer: string, operation: string): unknown {
    let value = this.root;
    for (const token of tokens(pointer)) {
      value = step(value, token);
      if (value === undefined) throw missing(operation, pointer);
    }
    return value;
  }

  #slot(pointer: string, operation: string): Slot | undefined {
    const path = tokens(pointer);
    const token = path.pop();
    if (token === undefined) return undefined;
    let value = this.root;
    for (const part of path) {
      value = step(value, part);
      if (value === undefined) throw missing(operation, pointer);
    }
    if (!Array.isArray(value) && !isRecord(value)) throw missing(operation, pointer);
    return { parent: value, token };
  }

  add(pointer: string, value: unknown): void {
    const slot = this.#slot(pointer, "add");
    if (slot === undefined) this.root = value;
    else if (Array.isArray(slot.parent)) {
      const index =
        slot.token === "-" ? slot.parent.length : arrayIndex(slot.token, slot.parent.length);
      if (index === undefined) throw missing("add", pointer);
      slot.parent.splice(index, 0, value);
    } else slot.parent[slot.token] = value;
  }

  remove(pointer: string, operation: string): unknown {
    const removed = this.get(pointer, operation);
    const slot = this.#slot(pointer, operation);
    if (slot === undefined) this.root = null;
    else if (Array.isArray(slot.parent)) slot.parent.splice(Number(slot.token), 1);
    else delete slot.parent[slot.token];
    return removed;
  }

  /** As the API server's library does it: a member of an object need not have been there. */
  replace(pointer: string, value: unknown): void {
    const slot = this.#slot(pointer, "replace");
    if (slot === undefined) this.root = value;
    else if (Array.isArray(slot.parent)) {
      const index = arrayIndex(slot.token, slot.parent.length - 1);
      if (index === undefined) throw missing("replace", pointer);
      slot.parent[index] = value;
    } else slot.parent[slot.token] = value;
  }
}

function stringMember(operation: Record<string, unknown>, name: string): string {
  const value = operation[name];
  if (typeof value !== "string")
    throw new PatchError(400, `error decoding patch: operation needs a string "${name}"`);
  return value;
}

function valueMember(operation: Record<string, unknown>): unknown {
  if (!Object.hasOwn(operation, "value"))
    throw new PatchError(400, 'error decoding patch: operation needs a "value"');
  return structuredClone(operation["value"]);
}

function apply(document: Document, operation: Record<string, unknown>): void {
  const path = stringMember(operation, "path");
  const kind = operation["op"];
  if (path.split("/").includes("__proto__"))
    throw new PatchError(422, `path ${JSON.stringify(path)} is not allowed`);
  switch (kind) {
    case "add":
      document.add(path, valueMember(operation));
      break;
    case "remove":
      document.remove(path, "remove");
      break;
    case "replace":
      document.replace(path, valueMember(operation));
      break;
    case "move": {
      const from = stringMember(operation, "from");
      if (path.startsWith(`${from}/`))
        throw new PatchError(422, `cannot move ${JSON.stringify(from)} into itself`);
      document.add(path, document.remove(from, "move"));
      break;
    }
    case "copy":
      document.add(path, structuredClone(document.get(stringMember(operation, "from"), "copy")));
      break;
    case "test":
      if (!isDeepStrictEqual(document.get(path, "test"), valueMember(operation))) {
        throw new PatchError(
          422,
          `the server rejected our request due to an error in our request: testing value ${path} failed`,
        );
      }
      break;
    default:
      throw new PatchError(400, `error decoding patch: unexpected op ${JSON.stringify(kind)}`);
  }
}

/**
 * Applies a JSON Patch (RFC 6902). The input is not changed.
 *
 * @throws {PatchError}
 */
export function applyJsonPatch(target: unknown, patch: unknown): unknown {
  if (!Array.isArray(patch))
    throw new PatchError(
      400,
      "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch",
    );
  if (patch.length > MAX_OPERATIONS)
    throw new PatchError(
      422,
      `The allowed maximum operations in a JSON patch is ${MAX_OPERATIONS}, got ${patch.length}`,
    );
  const document = new Document(target);
  for (const operation of patch) {
    if (!isRecord(operation))
      throw new PatchError(400, "error decoding patch: operation is no object");
    apply(document, operation);
  }
  return document.root;
}
