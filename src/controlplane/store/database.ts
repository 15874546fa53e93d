import { DatabaseSync, type StatementSync } from "node:sqlite";

import { errorMessage, SetupError } from "../../lib/errors.ts";
import { asRecord, asString, optionalNumber } from "../../lib/guard.ts";
import type { JsonObject } from "../types.ts";

/** Version of the tables below. An older one would be migrated here; a newer one is refused. */
const SCHEMA_VERSION = 1;
/** "rmra": marks the file as ours (PRAGMA application_id). */
const APPLICATION_ID = 0x726d7261;

const tables = `
  CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS objects (
    resource TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    uid TEXT NOT NULL,
    revision INTEGER NOT NULL,
    written INTEGER NOT NULL,
    object TEXT NOT NULL,
    PRIMARY KEY (resource, namespace, name)
  ) STRICT, WITHOUT ROWID;
`;

export interface Row {
  readonly resource: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly revision: number;
  /** Milliseconds since the epoch. */
  readonly written: number;
  readonly object: Readonly<JsonObject>;
}

function pragma(database: DatabaseSync, name: string): number {
  const row = database.prepare(`PRAGMA ${name}`).get();
  return optionalNumber(row?.[name]) ?? 0;
}

/** One SQLite file with the object table. */
export class Database {
  readonly #path: string;
  readonly #database: DatabaseSync;
  readonly #put: StatementSync;
  readonly #delete: StatementSync;
  readonly #setMeta: StatementSync;

  /**
   * Opens or creates the file and locks it for this process.
   *
   * @param synchronous `FULL` fsyncs each write; `NORMAL` only at checkpoints, and loses the last writes in a power cut.
   * @throws {SetupError} another process has it, it is not ours, or it was written by a newer version.
   */
  constructor(path: string, synchronous: "FULL" | "NORMAL") {
    const database = openLocked(path);
    this.#path = path;
    this.#database = database;
    try {
      checkVersion(database, path);
      database.exec(`PRAGMA synchronous=${synchronous}`);
      database.exec("PRAGMA wal_autocheckpoint=500");
      database.exec("PRAGMA journal_size_limit=4194304");
      database.exec(tables);
      database.exec(`PRAGMA application_id=${APPLICATION_ID}`);
      database.exec(`PRAGMA user_version=${SCHEMA_VERSION}`);
      this.#put = database.prepare(
        "INSERT OR REPLACE INTO objects (resource, namespace, name, uid, revision, written, object) VALUES (?, ?, ?, ?, ?, ?, ?)",
      );
      this.#delete = database.prepare(
        "DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?",
      );
      this.#setMeta = database.prepare("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)");
    } catch (error) {
      database.close();
      throw error instanceof SetupError ? error : damaged(path, error);
    }
  }

  put(row: Row): void {
    const { resource, namespace, name, uid, revision, written, object } = row;
    this.#put.run(resource, namespace, name, uid, revision, written, JSON.stringify(object));
  }

  delete(resource: string, namespace: string, name: string): void {
    this.#delete.run(resource, namespace, name);
  }

  /**
   * A number of the file's own, 0 when it was never set.
   *
   * @throws {SetupError} the file is damaged.
   */
  meta(key: string): number {
    try {
      const row = this.#database.prepare("SELECT value FROM meta WHERE key = ?").get(key);
      return optionalNumber(row?.["value"]) ?? 0;
    } catch (error) {
      throw damaged(this.#path, error);
    }
  }

  setMeta(key: string, value: number): void {
    this.#setMeta.run(key, value);
  }

  /**
   * All objects, in no order.
   *
   * @yields one row at a time.
   * @throws {SetupError} the file is damaged.
   */
  *rows(): Generator<Row> {
    const rows = this.#database.prepare("SELECT * FROM objects").iterate();
    for (;;) {
      let row: Row;
      try {
        const next = rows.next();
        if (next.done === true) return;
        row = parseRow(next.value);
      } catch (error) {
        throw damaged(this.#path, error);
      }
      yield row;
    }
  }

  close(): void {
    this.#database.close();
  }
}

function parseRow(row: Readonly<Record<string, unknown>>): Row {
  const object: unknown = JSON.parse(asString(row["object"], "objects.object"));
  return {
    resource: asString(row["resource"], "objects.resource"),
    namespace: String(row["namespace"]),
    name: asString(row["name"], "objects.name"),
    uid: String(row["uid"]),
    revision: Number(row["revision"]),
    written: Number(row["written"]),
    object: asRecord(object, "objects.object"),
  };
}

function damaged(path: string, error: unknown): SetupError {
  return new SetupError(
    `${path} is damaged (${errorMessage(error)}); restore it from a backup, or delete its directory to begin with an empty cluster`,
    { cause: error },
  );
}

function openLocked(path: string): DatabaseSync {
  let database: DatabaseSync;
  try {
    database = new DatabaseSync(path);
  } catch (error) {
    throw new SetupError(
      `cannot open the control plane's store ${path}: ${errorMessage(error)}; check that its folder exists and is writable`,
      { cause: error },
    );
  }
  try {
    // EXCLUSIVE before the first access: the lock is held until the process ends, and WAL needs no shared memory file.
    database.exec("PRAGMA locking_mode=EXCLUSIVE");
    database.exec("PRAGMA journal_mode=WAL");
    database.exec("BEGIN EXCLUSIVE; COMMIT");
    return database;
  } catch (error) {
    database.close();
    const text = errorMessage(error);
    if (text.includes("locked") || text.includes("busy")) {
      throw new SetupError(
        `${path} is in use by another process: stop the other remora up, or give this one its own state directory`,
        { cause: error },
      );
    }
    throw damaged(path, error);
  }
}

function checkVersion(database: DatabaseSync, path: string): void {
  const application = pragma(database, "application_id");
  const version = pragma(database, "user_version");
  if (application !== 0 && application !== APPLICATION_ID) {
    throw new SetupError(`${path} is another program's database: choose another state directory`);
  }
  if (version > SCHEMA_VERSION) {
    throw new SetupError(
      `${path} was written by a newer version of remora (store version ${version}, this one knows ${SCHEMA_VERSION}): use that version or newer`,
    );
  }
}
