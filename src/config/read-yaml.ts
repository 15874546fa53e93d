import type * as yamlModule from "yaml";
import type { Document, LineCounter, Node as YamlNode } from "yaml";

import { errorMessage, SetupError } from "../lib/errors.ts";
import { originText, type Raw, resolvePlain } from "./raw.ts";

/** One document of a file. */
export interface ConfigDocument {
  readonly file: string;
  readonly raw: Raw;
  /** Keys that stand twice in one object, with their places; the last one counts. */
  readonly duplicates: readonly string[];
}

/** A configuration has a few kilobytes; whatever is larger is another file. */
export const maxFileBytes = 1024 * 1024;
/** Aliases can make a few lines into gigabytes. */
const maxNodes = 50_000;
const maxDepth = 100;

type Yaml = typeof yamlModule;

interface Position {
  readonly lines: LineCounter;
  readonly firstLine: number;
}

class Converter {
  readonly #yaml: Yaml;
  readonly #document: Document;
  readonly #file: string;
  readonly #lines: LineCounter;
  readonly #firstLine: number;
  readonly duplicates: string[] = [];
  #nodes = 0;

  constructor(yaml: Yaml, document: Document, file: string, at: Position) {
    this.#yaml = yaml;
    this.#document = document;
    this.#file = file;
    this.#lines = at.lines;
    this.#firstLine = at.firstLine;
  }

  #origin(node: YamlNode | null | undefined): Extract<Raw["origin"], { kind: "file" }> {
    const line = this.#lines.linePos(node?.range?.[0] ?? 0).line;
    return { kind: "file", file: this.#file, line: Math.max(line, 1) + this.#firstLine - 1 };
  }

  convert(node: unknown, depth: number): Raw {
    const { isAlias, isMap, isScalar, isSeq } = this.#yaml;
    const at = this.#yaml.isNode(node) ? node : undefined;
    const origin = this.#origin(at);
    this.#nodes += 1;
    if (depth > maxDepth) throw tooDeep(originText(origin));
    if (this.#nodes > maxNodes) {
      throw new SetupError(
        `${originText(origin)}: has more than ${maxNodes} values; a configuration needs no aliases of aliases`,
      );
    }
    if (isAlias(node)) {
      const target = node.resolve(this.#document);
      if (target === undefined)
        throw new SetupError(`${originText(origin)}: unknown alias *${node.source}`);
      return this.convert(target, depth + 1);
    }
    if (isScalar(node)) {
      const text = typeof node.value === "string" ? node.value : "";
      if (node.type !== "PLAIN") return { kind: "scalar", text, style: "quoted", origin };
      if (resolvePlain(text).is === "null") return { kind: "null", origin };
      return { kind: "scalar", text, style: "plain", origin };
    }
    if (isSeq(node)) {
      return {
        kind: "list",
        items: node.items.map((item) => this.convert(item, depth + 1)),
        origin,
      };
    }
    if (isMap(node)) return this.#map(node.items, depth, origin);
    return { kind: "null", origin };
  }

  #map(
    items: readonly { readonly key: unknown; readonly value: unknown }[],
    depth: number,
    origin: Raw["origin"],
  ): Raw {
    const entries = new Map<string, Raw>();
    const inherited: Raw[] = [];
    for (const { key, value } of items) {
      if (!this.#yaml.isScalar(key)) {
        throw new SetupError(`${originText(origin)}: a key is not text; check the indentation`);
      }
      const name = typeof key.value === "string" ? key.value : "";
      const keyOrigin = this.#origin(key);
      if (entries.has(name)) this.duplicates.push(`${originText(keyOrigin)}: ${name}`);
      const raw = this.convert(value, depth + 1);
      if (name === "<<" && key.type === "PLAIN") {
        inherited.push(...(raw.kind === "list" ? raw.items : [raw]));
        continue;
      }
      // The place of a field is its name, not the block below it.
      entries.set(name, { ...raw, origin: keyOrigin });
    }
    // A merge key gives what the object does not say itself; of several the first one counts.
    for (const from of inherited) {
      if (from.kind !== "map") {
        throw new SetupError(
          `${originText(from.origin)}: << takes an object, or a list of objects`,
        );
      }
      for (const [name, raw] of from.entries) if (!entries.has(name)) entries.set(name, raw);
    }
    return { kind: "map", entries, origin };
  }
}

function tooDeep(place: string): SetupError {
  return new SetupError(
    `${place}: is nested more than ${maxDepth} levels deep, which no configuration is; give another file`,
  );
}

/** The parser calls itself for each level, and says so when that is too much for it. */
function isTooDeep(message: string): boolean {
  return message.includes("call stack");
}

/**
 * The documents of a YAML or JSON file; empty ones are left out.
 *
 * @param firstLine Where `text` begins in `file`.
 * @throws {SetupError} naming file and line.
 */
export async function readYaml(
  text: string,
  file: string,
  firstLine = 1,
): Promise<readonly ConfigDocument[]> {
  const yaml = await import("yaml");
  const lines = new yaml.LineCounter();
  // "failsafe" leaves plain text as it was written: what it means depends on the field.
  const options = { schema: "failsafe", uniqueKeys: false, lineCounter: lines } as const;
  let documents: readonly Document[];
  try {
    const parsed = yaml.parseAllDocuments(text, options);
    documents = Array.isArray(parsed) ? parsed : [];
  } catch (error) {
    if (isTooDeep(errorMessage(error))) throw tooDeep(file);
    throw new SetupError(`${file}: is not YAML: ${errorMessage(error)}`, { cause: error });
  }
  const out: ConfigDocument[] = [];
  for (const document of documents) {
    const [problem] = document.errors;
    if (problem !== undefined) {
      const line = (problem.linePos?.[0].line ?? 1) + firstLine - 1;
      if (isTooDeep(problem.message)) throw tooDeep(`${file}:${line}`);
      const [what = ""] = problem.message.split("\n", 1);
      const tabs = problem.code === "TAB_AS_INDENT" ? "; indent with spaces" : "";
      throw new SetupError(
        `${file}:${line}: is not YAML: ${what.replace(/ at line \d+, column \d+:?$/, "")}${tabs}`,
      );
    }
    if (document.contents === null) continue;
    const converter = new Converter(yaml, document, file, { lines, firstLine });
    const raw = converter.convert(document.contents, 0);
    if (raw.kind !== "null") out.push({ file, raw, duplicates: converter.duplicates });
  }
  return out;
}
