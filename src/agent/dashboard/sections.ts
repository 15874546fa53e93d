import { asRecord } from "../../lib/guard.ts";
import { ParseError } from "../../lib/errors.ts";
import type { NodeSnapshot } from "../local/types.ts";

/** The members of a snapshot that pages are told when they change. `time` is told with any of them. */
const names = ["agent", "node", "pods", "pulls", "services", "usage", "events"] as const;
type Name = (typeof names)[number];

const lists: ReadonlySet<Name> = new Set(["pods", "pulls", "events"]);

/** The newest that this dashboard can read. */
const knownSchema = 1;

/**
 * Reads one snapshot.
 *
 * @throws {ParseError} when it is none, or of a schema that is not known.
 */
export function parseSnapshot(text: string): NodeSnapshot {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ParseError("snapshot", "JSON", { cause: error });
  }
  const snapshot = asRecord(value, "snapshot");
  if (snapshot["schema"] !== knownSchema) {
    throw new ParseError(
      "snapshot.schema",
      `${knownSchema}, the only one this dashboard knows (it is ${String(snapshot["schema"])}): start it again with the agent's version`,
    );
  }
  for (const name of names) {
    const member = snapshot[name];
    if (!lists.has(name)) asRecord(member, `snapshot.${name}`);
    else if (!Array.isArray(member)) throw new ParseError(`snapshot.${name}`, "a list");
  }
  if (Number.isNaN(Date.parse(String(snapshot["time"])))) {
    throw new ParseError("snapshot.time", "a time");
  }
  return value as NodeSnapshot;
}

interface Section {
  readonly text: string;
  readonly version: number;
}

/**
 * The newest snapshot as JSON, member by member with the number of its last change: a page that reads slowly misses what
 * came between and is never told anything twice.
 */
export class Sections {
  #version = 0;
  #time = "";
  readonly #sections = new Map<Name, Section>();

  /** Grows with every snapshot that brought something new. */
  get version(): number {
    return this.#version;
  }

  replace(snapshot: NodeSnapshot): void {
    const version = this.#version + 1;
    this.#time = snapshot.time;
    for (const name of names) {
      const text = JSON.stringify(snapshot[name]);
      if (this.#sections.get(name)?.text === text) continue;
      this.#sections.set(name, { text, version });
      this.#version = version;
    }
  }

  /** What has changed after `version`, as the text of a JSON object; undefined when nothing has. */
  changedSince(version: number): string | undefined {
    if (this.#version <= version) return undefined;
    const changed = [...this.#sections]
      .filter(([, section]) => section.version > version)
      .map(([name, { text }]) => `${JSON.stringify(name)}:${text}`);
    return `{"schema":1,"time":${JSON.stringify(this.#time)},${changed.join(",")}}`;
  }
}
