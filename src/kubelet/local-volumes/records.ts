import { mkdir, readdir, unlink } from "node:fs/promises";
import { join } from "node:path";

import { writeFileAtomic } from "../../lib/atomic-file.ts";
import { errorCode } from "../../lib/errors.ts";
import { isRecord } from "../../lib/guard.ts";
import { readIfThere } from "../../lib/read-if-there.ts";

/** What is known of a volume whose directory was made. */
export interface VolumeRecord {
  /** Of its project quota. */
  readonly project?: number;
  /** Its limit in bytes, as text; absent where there is none. */
  readonly limit?: string;
}

/** Projects of ours start here: far from those that people number by hand. */
const firstProject = 0x52_00_00_00;

/**
 * One small file per volume, beside the agent's other state and apart from the data: a volume whose record is there and
 * whose directory is not has lost its data, and is not silently made anew.
 */
export class VolumeRecords {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  #path(volume: string): string {
    return join(this.#directory, `${volume}.json`);
  }

  async read(volume: string): Promise<VolumeRecord | undefined> {
    const text = await readIfThere(this.#path(volume));
    return text === undefined ? undefined : parseRecord(text);
  }

  async write(volume: string, record: VolumeRecord): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    await writeFileAtomic(this.#path(volume), `${JSON.stringify(record)}\n`, 0o600);
  }

  /** Idempotent. */
  async remove(volume: string): Promise<void> {
    try {
      await unlink(this.#path(volume));
    } catch (error) {
      if (errorCode(error) !== "ENOENT") throw error;
    }
  }

  /** A project number that no record has. */
  async freeProject(): Promise<number> {
    const taken = new Set<number>();
    for (const name of await this.#names()) {
      const record = await this.read(name);
      if (record?.project !== undefined) taken.add(record.project);
    }
    let project = firstProject;
    while (taken.has(project)) project += 1;
    return project;
  }

  async #names(): Promise<string[]> {
    try {
      const files = await readdir(this.#directory);
      return files.filter((file) => file.endsWith(".json")).map((file) => file.slice(0, -5));
    } catch (error) {
      if (errorCode(error) === "ENOENT") return [];
      throw error;
    }
  }
}

function parseRecord(text: string): VolumeRecord {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Torn by a full disk: that the directory was made is what counts.
    return {};
  }
  if (!isRecord(value)) return {};
  const { project, limit } = value;
  return {
    ...(typeof project === "number" && Number.isInteger(project) ? { project } : {}),
    ...(typeof limit === "string" ? { limit } : {}),
  };
}
