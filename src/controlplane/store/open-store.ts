import { statSync } from "node:fs";

import { SetupError } from "../../lib/errors.ts";
import { isRecord, optionalString } from "../../lib/guard.ts";
import type { JsonObject } from "../types.ts";
import { Database, type Row } from "./database.ts";
import { deepFreeze } from "./frozen-json.ts";
import { History } from "./history.ts";
import { RevisionConflictError, type Expected, type Store, type StoreChange } from "./store.ts";

export interface StoreOptions {
  /** SQLite file of durable objects: every write is fsynced. `:memory:` for tests. */
  readonly path: string;
  /** SQLite file of leases and events: fsynced at checkpoints only, so that heartbeats cost no disk. */
  readonly ephemeralPath: string;
  readonly isEphemeral: (resource: string) => boolean;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** Changes kept for watches; default 4096. */
  readonly historySize?: number;
}

/** How many revisions one durable write sets aside: a crash skips at most this many. */
const RESERVE = 10_000;
const RESERVED = "reservedRevision";

interface Key {
  readonly resource: string;
  readonly namespace: string;
  readonly name: string;
}

interface Entry extends Key {
  readonly revision: number;
  readonly written: number;
  readonly object: Readonly<JsonObject>;
}

/** Entries of one resource; `order` is rebuilt on demand after an insert or a removal. */
interface Shelf {
  readonly entries: Map<string, Entry>;
  order: readonly string[] | undefined;
}

function keyOf(namespace: string, name: string): string {
  return namespace === "" ? name : `${namespace}/${name}`;
}

function metadataOf(object: Readonly<JsonObject>): JsonObject {
  return isRecord(object["metadata"]) ? object["metadata"] : {};
}

class SqliteStore implements Store {
  readonly #durable: Database;
  readonly #ephemeral: Database;
  readonly #options: StoreOptions;
  readonly #shelves = new Map<string, Shelf>();
  readonly #listeners = new Set<(change: StoreChange) => void>();
  readonly #history: History;
  #revision: number;
  #reserved: number;

  constructor(options: StoreOptions, durable: Database, ephemeral: Database) {
    this.#options = options;
    this.#durable = durable;
    this.#ephemeral = ephemeral;
    let newest = durable.meta(RESERVED);
    for (const database of [durable, ephemeral]) {
      for (const row of database.rows()) {
        newest = Math.max(newest, row.revision);
        this.#keep({ ...row, object: deepFreeze(row.object) });
      }
    }
    // Revision 0 means "any" to clients, so the first one ever is 1.
    this.#revision = Math.max(newest, 1);
    this.#reserved = this.#revision;
    this.#history = new History(options.historySize ?? 4096, this.#revision);
  }

  get currentRevision(): number {
    return this.#revision;
  }

  get(resource: string, namespace: string, name: string): Readonly<JsonObject> | undefined {
    return this.#shelves.get(resource)?.entries.get(keyOf(namespace, name))?.object;
  }

  *list(resource: string, namespace?: string): Iterable<Readonly<JsonObject>> {
    const shelf = this.#shelves.get(resource);
    if (shelf === undefined) return;
    shelf.order ??= [...shelf.entries.keys()].toSorted();
    const { order, entries } = shelf;
    for (const key of order) {
      const entry = entries.get(key);
      if (entry !== undefined && (namespace === undefined || entry.namespace === namespace))
        yield entry.object;
    }
  }

  put(key: Key, object: JsonObject, expected: Expected): Readonly<JsonObject> {
    const previous = this.#expect(key, expected);
    const revision = this.#nextRevision();
    const { resource, namespace, name } = key;
    const metadata = { ...metadataOf(object), resourceVersion: String(revision) };
    const stored = deepFreeze({ ...object, metadata });
    const entry = {
      resource,
      namespace,
      name,
      revision,
      written: this.#options.now(),
      object: stored,
    };
    const row: Row = { ...entry, uid: optionalString(metadataOf(object)["uid"]) ?? "" };
    this.#database(resource).put(row);
    this.#revision = revision;
    this.#keep(entry);
    this.#publish({
      resource,
      namespace,
      name,
      revision,
      object: stored,
      type: previous === undefined ? "ADDED" : "MODIFIED",
      previous: previous?.object,
    });
    return stored;
  }

  delete(key: Key, expected: number): Readonly<JsonObject> {
    const previous = this.#expect(key, expected);
    if (previous === undefined) throw new RevisionConflictError(`${key.name} is gone`);
    const revision = this.#nextRevision();
    const { resource, namespace, name } = key;
    this.#database(resource).delete(resource, namespace, name);
    this.#revision = revision;
    const shelf = this.#shelf(resource);
    shelf.entries.delete(keyOf(namespace, name));
    shelf.order = undefined;
    const last = previous.object;
    const metadata = { ...metadataOf(last), resourceVersion: String(revision) };
    const object = deepFreeze({ ...last, metadata });
    this.#publish({
      resource,
      namespace,
      name,
      revision,
      object,
      type: "DELETED",
      previous: last,
    });
    return last;
  }

  changesSince(revision: number): readonly StoreChange[] | undefined {
    return this.#history.since(revision);
  }

  subscribe(listener: (change: StoreChange) => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  writtenBefore(resource: string, time: number): readonly { namespace: string; name: string }[] {
    const out: { namespace: string; name: string }[] = [];
    for (const entry of this.#shelves.get(resource)?.entries.values() ?? [])
      if (entry.written < time) out.push({ namespace: entry.namespace, name: entry.name });
    return out;
  }

  close(): void {
    this.#listeners.clear();
    this.#durable.setMeta(RESERVED, this.#revision);
    this.#ephemeral.close();
    this.#durable.close();
  }

  #expect(key: Key, expected: Expected): Entry | undefined {
    const current = this.#shelves.get(key.resource)?.entries.get(keyOf(key.namespace, key.name));
    const found = current?.revision ?? "absent";
    if (found !== expected) {
      throw new RevisionConflictError(
        `${key.resource} ${keyOf(key.namespace, key.name)}: expected ${expected}, found ${found}`,
      );
    }
    return current;
  }

  /** The next revision; before the reserved ones run out, more are reserved on the fsynced file. */
  #nextRevision(): number {
    const next = this.#revision + 1;
    if (next > this.#reserved) {
      this.#durable.setMeta(RESERVED, next + RESERVE);
      this.#reserved = next + RESERVE;
    }
    return next;
  }

  #database(resource: string): Database {
    return this.#options.isEphemeral(resource) ? this.#ephemeral : this.#durable;
  }

  #shelf(resource: string): Shelf {
    let shelf = this.#shelves.get(resource);
    if (shelf === undefined) {
      shelf = { entries: new Map(), order: undefined };
      this.#shelves.set(resource, shelf);
    }
    return shelf;
  }

  #keep(entry: Entry): void {
    const shelf = this.#shelf(entry.resource);
    const key = keyOf(entry.namespace, entry.name);
    if (!shelf.entries.has(key)) shelf.order = undefined;
    const { resource, namespace, name, revision, written, object } = entry;
    shelf.entries.set(key, { resource, namespace, name, revision, written, object });
  }

  #publish(change: StoreChange): void {
    this.#history.push(change);
    for (const listener of this.#listeners) listener(change);
  }
}

function isEmptyFile(path: string): boolean {
  return (statSync(path, { throwIfNoEntry: false })?.size ?? 0) === 0;
}

/** An empty store tells nodes to remove all their pods, so it must not come about by accident. */
function refuseLostStore({ path, ephemeralPath }: StoreOptions): void {
  if (path === ":memory:" || !isEmptyFile(path) || isEmptyFile(ephemeralPath)) return;
  throw new SetupError(
    `${path} is missing or empty although this cluster has run before; restore it from a backup, or delete its directory to begin with an empty cluster (running pods are then removed)`,
  );
}

/**
 * Opens the control plane's store, creating its files when they are missing.
 *
 * @throws {SetupError} another process uses the files, a newer version wrote them, or they are lost or damaged.
 */
export function openStore(options: StoreOptions): Store {
  refuseLostStore(options);
  const durable = new Database(options.path, "FULL");
  let ephemeral: Database | undefined;
  try {
    ephemeral = new Database(options.ephemeralPath, "NORMAL");
    return new SqliteStore(options, durable, ephemeral);
  } catch (error) {
    ephemeral?.close();
    durable.close();
    throw error;
  }
}
