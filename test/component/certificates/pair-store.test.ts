import assert from "node:assert/strict";
import { lstat, readdir, readFile, readlink, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { PairStore, parsePair } from "../../../src/agent/certificates/pair-store.ts";
import { directoryFor, pairOf } from "./fixture.ts";

const now = Date.UTC(2026, 10, 21, 16, 30, 5);

test("pairs lie as the kubelet lays them: a link to a file with its time, for root only", async (t) => {
  const store = new PairStore(await directoryFor(t), "kubelet-client");
  const { pem } = pairOf("one");
  await store.write(pem, now);
  const path = join(store.directory, "kubelet-client-2026-11-21-16-30-05.pem");
  assert.equal(store.currentPath, join(store.directory, "kubelet-client-current.pem"));
  assert.equal(await readlink(store.currentPath), path);
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  assert.ok((await readFile(store.currentPath, "utf8")).endsWith(pem));
  assert.equal((await store.read())?.certificate.subject, "CN=one");
});

test("what an older version or a crash has left does no harm", async (t) => {
  const store = new PairStore(await directoryFor(t), "kubelet-server");
  await writeFile(store.currentPath, pairOf("plain file").pem);
  assert.equal((await store.read())?.certificate.subject, "CN=plain file");
  await symlink("/nowhere", join(store.directory, "kubelet-server-updated.pem"));
  await store.write(pairOf("next").pem, now);
  assert.ok((await lstat(store.currentPath)).isSymbolicLink());
  assert.equal((await store.read())?.certificate.subject, "CN=next");
  assert.deepEqual((await readdir(store.directory)).toSorted(), [
    "kubelet-server-2026-11-21-16-30-05.pem",
    "kubelet-server-current.pem",
  ]);
});

test("a link to nothing is no pair; a damaged one is named with its remedy", async (t) => {
  const store = new PairStore(await directoryFor(t), "kubelet-client");
  assert.equal(await store.read(), undefined);
  await symlink(join(store.directory, "gone.pem"), store.currentPath);
  assert.equal(await store.read(), undefined);
  for (const text of ["", "-----BEGIN CERTIFICATE-----\n", pairOf("a").cert]) {
    await writeFile(join(store.directory, "gone.pem"), text);
    await assert.rejects(store.read(), {
      name: "SetupError",
      message: /does not hold a certificate and its key .*; delete it, then join again/,
    });
  }
  assert.throws(() => parsePair(pairOf("a").cert, pairOf("b").key), /the key is another's/);
});

test("expired pairs go when another comes; the current one, good ones and strange files stay", async (t) => {
  const store = new PairStore(await directoryFor(t), "kubelet-client");
  const at = (minutes: number): number => now + minutes * 60_000;
  const expiring = pairOf("first", { notBefore: now, notAfter: at(10) });
  await store.write(expiring.pem, at(0));
  await store.write(pairOf("second", { notBefore: now, notAfter: at(60) }).pem, at(5));
  await writeFile(join(store.directory, "kubelet-client-2020-01-01-00-00-00.pem"), "not ours?");
  await writeFile(join(store.directory, "kubelet-client.crt"), expiring.cert);
  assert.equal((await readdir(store.directory)).length, 5, "what is good stays");
  await store.write(pairOf("third", { notBefore: now, notAfter: at(60) }).pem, at(20));
  assert.deepEqual((await readdir(store.directory)).toSorted(), [
    "kubelet-client-2020-01-01-00-00-00.pem",
    "kubelet-client-2026-11-21-16-35-05.pem",
    "kubelet-client-2026-11-21-16-50-05.pem",
    "kubelet-client-current.pem",
    "kubelet-client.crt",
  ]);
});

test("the key of a request is the same after a restart, until it is dropped", async (t) => {
  const directory = await directoryFor(t);
  const first = await new PairStore(directory, "kubelet-client").nextKey();
  const store = new PairStore(directory, "kubelet-client");
  assert.ok((await store.nextKey()).equals(first));
  const files = await store.ownFiles();
  const keyFile = files.find((path) => path.endsWith(".key")) ?? "";
  assert.equal((await stat(keyFile)).mode & 0o777, 0o600);
  await writeFile(keyFile, "torn");
  const second = await store.nextKey();
  assert.ok(!second.equals(first));
  await store.dropNextKey();
  assert.ok(!(await store.nextKey()).equals(second));
});

test("what a kubelet wrote before us is not ours to remove", async (t) => {
  const store = new PairStore(await directoryFor(t), "kubelet-client");
  const theirs = join(store.directory, "kubelet-client-2025-01-01-00-00-00.pem");
  await writeFile(theirs, pairOf("theirs").pem);
  await symlink(theirs, store.currentPath);
  const key = join(store.directory, "kubelet-client-current-next.key");
  assert.deepEqual(await store.ownFiles(), [key]);
  await store.write(pairOf("ours").pem, now);
  assert.deepEqual(await store.ownFiles(), [
    store.currentPath,
    join(store.directory, "kubelet-client-2026-11-21-16-30-05.pem"),
    key,
  ]);
  assert.equal((await store.read())?.certificate.subject, "CN=ours");
});
