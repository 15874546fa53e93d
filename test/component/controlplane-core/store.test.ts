import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, open as openFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";

import { openStore } from "../../../src/controlplane/store/open-store.ts";
import {
  RevisionConflictError,
  type Store,
  type StoreChange,
} from "../../../src/controlplane/store/store.ts";
import { SetupError } from "../../../src/lib/errors.ts";
import { at } from "./test-kinds.ts";

async function directory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "remora-store-"));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

function open(dir: string, historySize = 4096): Store {
  return openStore({
    path: join(dir, "state.db"),
    ephemeralPath: join(dir, "ephemeral.db"),
    isEphemeral: (resource) => resource === "leases",
    now: () => 1000,
    historySize,
  });
}

const key = (name: string, resource = "pods") => ({ resource, namespace: "default", name });
const object = (name: string) => ({ metadata: { name, namespace: "default", uid: `uid-${name}` } });

test("objects and revisions survive a clean end without a gap", async (t) => {
  const dir = await directory(t);
  const first = open(dir);
  first.put(key("a"), object("a"), "absent");
  first.put(key("l", "leases"), object("l"), "absent");
  const last = first.currentRevision;
  first.close();
  const second = open(dir);
  t.after(() => {
    second.close();
  });
  assert.equal(second.currentRevision, last);
  assert.equal(at(second.get("pods", "default", "a"), "metadata.uid"), "uid-a");
  assert.equal(at(second.get("leases", "default", "l"), "metadata.resourceVersion"), String(last));
});

test("a write against another revision than the stored one is refused and changes nothing", async (t) => {
  const store = open(await directory(t));
  t.after(() => {
    store.close();
  });
  const stored = store.put(key("a"), object("a"), "absent");
  const before = store.currentRevision;
  assert.throws(() => store.put(key("a"), object("a"), "absent"), RevisionConflictError);
  assert.throws(() => store.put(key("a"), object("a"), before + 1), RevisionConflictError);
  assert.throws(() => store.put(key("b"), object("b"), 7), RevisionConflictError);
  assert.throws(() => store.delete(key("b"), 7), RevisionConflictError);
  assert.equal(store.currentRevision, before);
  assert.equal(store.get("pods", "default", "a"), stored);
});

test("stored objects are frozen to the bottom", async (t) => {
  const store = open(await directory(t));
  t.after(() => {
    store.close();
  });
  const stored = store.put(key("a"), { ...object("a"), spec: { list: [{ x: 1 }] } }, "absent");
  const list = at(stored, "spec.list");
  assert.ok(Array.isArray(list));
  assert.throws(() => list.push(1), TypeError);
  assert.throws(() => Object.assign(Object(at(stored, "spec.list.0")), { x: 2 }), TypeError);
});

test("changes arrive in order with what was before; a deletion carries its own revision", async (t) => {
  const store = open(await directory(t));
  t.after(() => {
    store.close();
  });
  const seen: StoreChange[] = [];
  const unsubscribe = store.subscribe((change) => seen.push(change));
  store.put(key("a"), object("a"), "absent");
  store.put(key("a"), object("a"), store.currentRevision);
  store.delete(key("a"), store.currentRevision);
  unsubscribe();
  store.put(key("b"), object("b"), "absent");
  assert.deepEqual(
    seen.map(({ type }) => type),
    ["ADDED", "MODIFIED", "DELETED"],
  );
  const [added, modified, deleted] = seen;
  assert.equal(modified?.previous, added?.object);
  assert.equal(at(deleted?.object, "metadata.resourceVersion"), String(deleted?.revision));
  assert.deepEqual(store.changesSince(1), [
    ...seen,
    ...(store.changesSince(deleted?.revision ?? 0) ?? []),
  ]);
});

test("history is bounded: what is too old is undefined, never silently partial", async (t) => {
  const store = open(await directory(t), 10);
  t.after(() => {
    store.close();
  });
  const start = store.currentRevision;
  for (let index = 0; index < 50; index += 1) store.put(key(`p${index}`), object("p"), "absent");
  assert.equal(store.changesSince(start), undefined);
  const recent = store.changesSince(store.currentRevision - 10);
  assert.deepEqual(
    recent?.map(({ revision }) => revision),
    Array.from({ length: 10 }, (_, index) => store.currentRevision - 9 + index),
  );
  assert.deepEqual(store.changesSince(store.currentRevision), []);
});

test("a list is ordered by namespace and name and can be limited to a namespace", async (t) => {
  const store = open(await directory(t));
  t.after(() => {
    store.close();
  });
  for (const [namespace, name] of [
    ["b", "x"],
    ["a", "z"],
    ["a", "y"],
  ] as const)
    store.put({ resource: "pods", namespace, name }, { metadata: { name, namespace } }, "absent");
  const names = (objects: Iterable<unknown>): unknown[] =>
    [...objects].map((one) => at(one, "metadata.name"));
  assert.deepEqual(names(store.list("pods")), ["y", "z", "x"]);
  assert.deepEqual(names(store.list("pods", "a")), ["y", "z"]);
  assert.deepEqual(names(store.list("nodes")), []);
});

test("a second opener gets one sentence with the remedy", async (t) => {
  const dir = await directory(t);
  const store = open(dir);
  t.after(() => {
    store.close();
  });
  assert.throws(
    () => open(dir),
    (error) => error instanceof SetupError && /in use by another process: stop/.test(error.message),
  );
});

test("a newer store and another program's file are refused", async (t) => {
  const dir = await directory(t);
  open(dir).close();
  const newer = new DatabaseSync(join(dir, "state.db"));
  newer.exec("PRAGMA user_version=99");
  newer.close();
  assert.throws(() => open(dir), /written by a newer version of remora \(store version 99/);
  const other = await directory(t);
  const foreign = new DatabaseSync(join(other, "state.db"));
  foreign.exec("PRAGMA application_id=12345; CREATE TABLE x (y)");
  foreign.close();
  assert.throws(() => open(other), /another program's database/);
});

test("a lost store is not taken for a new cluster, because that would remove every pod", async (t) => {
  const dir = await directory(t);
  const store = open(dir);
  store.put(key("a"), object("a"), "absent");
  store.put(key("l", "leases"), object("l"), "absent");
  store.close();
  const lost = { code: "REMORA_SETUP", message: /missing or empty although .* restore it from/ };
  await truncate(join(dir, "state.db"));
  assert.throws(() => open(dir), lost);
  await rm(join(dir, "state.db"));
  assert.throws(() => open(dir), lost);
  await rm(join(dir, "ephemeral.db"));
  open(dir).close();
});

test("a damaged store is told by name and remedy, wherever the damage is", async (t) => {
  const damage: Readonly<Record<string, (path: string) => Promise<void>>> = {
    header: async (path) =>
      writeFile(path, "no database at all, but quite a long text", { flag: "r+" }),
    page: async (path) => {
      const file = await openFile(path, "r+");
      await file.write(Buffer.alloc(16_384, 0xa5), 0, 16_384, 4096);
      await file.close();
    },
    object: async (path) => {
      await Promise.resolve();
      const database = new DatabaseSync(path);
      database.exec("UPDATE objects SET object = '{half'");
      database.close();
    },
  };
  for (const [where, apply] of Object.entries(damage)) {
    const dir = await directory(t);
    const store = open(dir);
    store.put(key("a"), object("a"), "absent");
    store.close();
    await apply(join(dir, "state.db"));
    assert.throws(
      () => open(dir),
      { code: "REMORA_SETUP", message: /state\.db is damaged \(.*\); restore it from a backup/s },
      where,
    );
  }
});

const writer = `
  import { openStore } from ${JSON.stringify(new URL("../../../src/controlplane/store/open-store.ts", import.meta.url).href)};
  const dir = process.argv[1];
  const store = openStore({ path: dir + "/state.db", ephemeralPath: dir + "/ephemeral.db",
    isEphemeral: (resource) => resource === "leases", now: () => 1 });
  for (let index = 0; ; index += 1) {
    const name = "p" + process.pid + "-" + index;
    const metadata = { name, namespace: "default" };
    if (index % 3 === 0) store.put({ resource: "pods", namespace: "default", name }, { metadata }, "absent");
    else store.put({ resource: "leases", namespace: "default", name }, { metadata }, "absent");
    if (index % 3 === 0) process.stdout.write(name + " " + store.currentRevision + "\\n");
    if (index % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
`;

test("kill -9 between writes loses no acknowledged object and never takes a revision back", async (t) => {
  const dir = await directory(t);
  let highest = 0;
  const written: string[] = [];
  for (let round = 0; round < 3; round += 1) {
    const child = spawn(process.execPath, ["--input-type=module", "-e", writer, dir], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let lines = 0;
    for await (const line of createInterface({ input: child.stdout })) {
      const [name, revision] = line.split(" ");
      if (name === undefined || revision === undefined) continue;
      assert.ok(Number(revision) > highest, `${revision} after ${highest}`);
      highest = Number(revision);
      written.push(name);
      lines += 1;
      if (lines === 20 + round) {
        child.kill("SIGKILL");
        break;
      }
    }
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  }
  const store = open(dir);
  t.after(() => {
    store.close();
  });
  assert.ok(store.currentRevision >= highest);
  for (const name of written) assert.ok(store.get("pods", "default", name) !== undefined, name);
  // Watches cannot resume over a crash: the history is gone, and the server must say so.
  assert.equal(store.changesSince(highest - 1), undefined);
});
