import { mkdir, open, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";

import { writeFileAtomic } from "../../lib/atomic-file.ts";
import { errorCode, SetupError } from "../../lib/errors.ts";
import { isRecord, type JsonRecord, optionalNumber, optionalString } from "../../lib/guard.ts";

/** Something of the machine that Remora changed and that is to be given back, or named, when it goes. */
export type Change =
  /** A kernel setting, such as `net/ipv4/ip_forward`. It ends with the boot and is a network namespace's. */
  | {
      readonly kind: "sysctl";
      readonly name: string;
      readonly former: string;
      readonly value: string;
      readonly boot: string;
      readonly namespace: string;
    }
  | { readonly kind: "module"; readonly name: string; readonly boot: string }
  /** A kubeconfig that got our context. */
  | {
      readonly kind: "kubeconfig";
      readonly path: string;
      readonly uid: number;
      readonly gid: number;
    }
  /** A directory that was made on the way to a file in somebody else's place. */
  | { readonly kind: "directory"; readonly path: string }
  /** A file of ours outside of the state directory. */
  | { readonly kind: "file"; readonly path: string }
  /** What the launcher had to install, and from what on there was an engine that it started. */
  | { readonly kind: "package"; readonly name: string }
  | { readonly kind: "engine"; readonly name: string };

const schema = 1;
const header = `${JSON.stringify({ remora: "ledger", schema })}\n`;

function textOf(value: JsonRecord, name: string): string | undefined {
  return optionalString(value[name]);
}

function parseSysctl(value: JsonRecord): Change | undefined {
  const [name, former, current] = ["name", "former", "value"].map((field) => textOf(value, field));
  const [boot, namespace] = [textOf(value, "boot"), textOf(value, "namespace")];
  if (name === undefined || former === undefined || current === undefined) return undefined;
  if (boot === undefined || namespace === undefined) return undefined;
  return { kind: "sysctl", name, former, value: current, boot, namespace };
}

function parseChange(value: JsonRecord): Change | undefined {
  const name = textOf(value, "name");
  const path = textOf(value, "path");
  switch (value["kind"]) {
    case "sysctl":
      return parseSysctl(value);
    case "module": {
      const boot = textOf(value, "boot");
      return name === undefined || boot === undefined ? undefined : { kind: "module", name, boot };
    }
    case "kubeconfig": {
      const [uid, gid] = [optionalNumber(value["uid"]), optionalNumber(value["gid"])];
      if (path === undefined || uid === undefined || gid === undefined) return undefined;
      return { kind: "kubeconfig", path, uid, gid };
    }
    case "directory":
    case "file":
      return path === undefined ? undefined : { kind: value["kind"], path };
    case "package":
      return name === undefined ? undefined : { kind: "package", name };
    case "engine":
      return name === undefined ? undefined : { kind: "engine", name };
    default:
      return undefined;
  }
}

function parseLine(line: string): JsonRecord | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return isRecord(value) ? value : undefined;
  } catch {
    // The end of a line that a crash cut off: what it would have said was not done yet.
    return undefined;
  }
}

/**
 * What a ledger file says, the oldest first; nothing where there is none.
 *
 * @throws {SetupError} a newer version wrote it.
 */
export async function readLedger(path: string): Promise<readonly Change[]> {
  const changes: Change[] = [];
  for (const line of (await textIfThere(path)).split("\n")) {
    const value = parseLine(line);
    if (value === undefined) continue;
    const version = value["remora"] === "ledger" ? optionalNumber(value["schema"]) : undefined;
    if (version !== undefined && version > schema) {
      throw new SetupError(
        `${path} was written by a newer version of remora (ledger schema ${version}, this one knows ${schema}): use that version or newer`,
      );
    }
    const change = parseChange(value);
    if (change !== undefined) changes.push(change);
  }
  return changes;
}

async function textIfThere(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(errorCode(error) ?? "")) return "";
    throw error;
  }
}

/** The ledger of a state directory. */
export function ledgerPath(directory: string): string {
  return join(directory, "ledger.jsonl");
}

/**
 * What Remora changed outside of its state directory: one line each, on the disk before the change is made, so that no
 * crash leaves a change that nobody knows of. One process writes it, under the lock of the directory.
 */
export class Ledger {
  readonly #path: string;
  readonly #known: Set<string>;
  #writing: Promise<void> = Promise.resolve();

  private constructor(path: string, known: readonly Change[]) {
    this.#path = path;
    this.#known = new Set(known.map((change) => JSON.stringify(change)));
  }

  /**
   * Opens or makes the ledger at `path`. What `isOver` says of is left out from now on: settings of an earlier boot are
   * the kernel's own again.
   *
   * @throws {SetupError} a newer version wrote it.
   */
  static async open(path: string, isOver: (change: Change) => boolean): Promise<Ledger> {
    const all = await readLedger(path);
    const current = all.filter((change) => !isOver(change));
    const text = header + current.map((change) => `${JSON.stringify(change)}\n`).join("");
    if (text !== (await textIfThere(path))) {
      await mkdir(dirname(path), { recursive: true, mode: 0o755 });
      await writeFileAtomic(path, text);
    }
    return new Ledger(path, current);
  }

  /** Resolves when the line is on the disk; at once when it was there before. */
  async append(change: Change): Promise<void> {
    const line = JSON.stringify(change);
    if (this.#known.has(line)) return;
    this.#known.add(line);
    const writing = this.#writing.then(() => appendLine(this.#path, line));
    this.#writing = writing.catch(() => undefined);
    try {
      await writing;
    } catch (error) {
      this.#known.delete(line);
      throw error;
    }
  }
}

async function appendLine(path: string, line: string): Promise<void> {
  const file = await open(path, "a", 0o644);
  try {
    await file.writeFile(`${line}\n`);
    await file.datasync();
  } finally {
    await file.close();
  }
}
