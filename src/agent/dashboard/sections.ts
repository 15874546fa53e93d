import type { NodeSnapshot } from "../local/types.ts";

/** The members of a snapshot that pages are told when they change. `time` is told with any of them. */
const names = [
  "agent",
  "node",
  "pods",
  "unscheduled",
  "pulls",
  "services",
  "usage",
  "events",
] as const;
type Name = (typeof names)[number];

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
      // Without pods that have no node, pages forget those they were told of before.
      const text = JSON.stringify(snapshot[name] ?? []);
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
