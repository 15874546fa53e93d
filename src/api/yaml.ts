import type { Document } from "yaml";

import { errorMessage, SetupError } from "../lib/errors.ts";
import { isRecord, type JsonRecord } from "../lib/guard.ts";

/** Reads one YAML (or JSON) document, keeping comments and order. The parser is loaded on first use: it is big. */
export async function readYamlDocument(text: string, what: string): Promise<Document> {
  const { parseDocument } = await import("yaml");
  let document: Document;
  try {
    document = parseDocument(text);
  } catch (error) {
    throw new SetupError(`${what} is not YAML: ${errorMessage(error)}`, { cause: error });
  }
  const [problem] = document.errors;
  if (problem !== undefined) {
    throw new SetupError(`${what} is not YAML: ${problem.message.split("\n", 1)[0] ?? ""}`);
  }
  return document;
}

/** The document as plain data; an empty one is an empty object. @throws {SetupError} when it is a list or a scalar. */
export function yamlRecord(document: Document, what: string): JsonRecord {
  const value: unknown = document.toJS();
  if (value === null || value === undefined) return {};
  if (!isRecord(value)) throw new SetupError(`${what} does not hold an object`);
  return value;
}
