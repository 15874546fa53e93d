import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { writeAtomicVolume } from "../../../src/kubelet/volumes/atomic-writer.ts";
import { makeDirectory } from "../../../src/kubelet/volumes/make-directory.ts";
import { systemMounter } from "../../../src/kubelet/volumes/mounter.ts";
import type { Payload } from "../../../src/kubelet/volumes/payload.ts";
import { exec } from "../../../src/lib/exec.ts";

const skip = process.getuid?.() === 0 ? undefined : "needs root to mount";
const signal = AbortSignal.timeout(60_000);
let suffix = 0;

function payload(bytes: number, text: string): Payload {
  return new Map([
    ["small", { content: Buffer.from(text), mode: 0o644 }],
    ["large", { content: Buffer.alloc(bytes, text), mode: 0o644 }],
  ]);
}

async function write(target: string, files: Payload): Promise<boolean> {
  suffix += 1;
  const options = { fsGroup: undefined, now: 0, suffix: String(suffix), inMemory: true };
  return writeAtomicVolume(target, files, options, signal);
}

async function withTmpfs(work: (path: string) => Promise<void>): Promise<void> {
  const path = await mkdtemp(join(tmpdir(), "small-"));
  try {
    await systemMounter.mountTmpfs(path, ["size=128k"], signal);
    await work(path);
  } finally {
    await systemMounter.unmount(path, signal);
    await rm(path, { recursive: true });
  }
}

test("what is in memory is known without the mount table", { skip }, async () => {
  await withTmpfs(async (path) => {
    assert.equal(await systemMounter.isInMemory?.(path), true);
    assert.equal(await systemMounter.isInMemory?.("/proc"), false);
  });
});

test("a full volume keeps the old content whole, and takes what fits", { skip }, async () => {
  await withTmpfs(async (path) => {
    await write(path, payload(4096, "one"));
    for (let tries = 0; tries < 20; tries += 1) {
      await assert.rejects(write(path, payload(256 * 1024, "two")), { code: "ENOSPC" });
      assert.equal(await readFile(join(path, "small"), "utf8"), "one");
      assert.equal((await readFile(join(path, "large"))).length, 4096);
    }
    assert.equal((await readdir(path)).length, 4, "nothing piles up");
    assert.equal(await write(path, payload(8192, "three")), true);
    assert.equal(await readFile(join(path, "small"), "utf8"), "three");
  });
});

test("a volume without inodes keeps the old content whole", { skip }, async () => {
  await withTmpfs(async (path) => {
    await exec(["mount", "-o", "remount,nr_inodes=12", path], { signal });
    await write(path, payload(10, "one"));
    const many = new Map(
      Array.from({ length: 50 }, (_, at) => [`f${at}`, { content: Buffer.from("x"), mode: 0o644 }]),
    );
    await assert.rejects(write(path, many), { code: "ENOSPC" });
    assert.equal(await readFile(join(path, "small"), "utf8"), "one");
    assert.equal(await write(path, payload(10, "two")), true);
    assert.equal(await readFile(join(path, "small"), "utf8"), "two");
  });
});

test("a read-only volume is an error and stays as it is", { skip }, async () => {
  await withTmpfs(async (path) => {
    await write(path, payload(10, "one"));
    await exec(["mount", "-o", "remount,ro", path], { signal });
    assert.equal(await write(path, payload(10, "one")), false, "nothing to do is no error");
    await assert.rejects(write(path, payload(10, "two")), { code: "EROFS" });
    assert.equal(await readFile(join(path, "small"), "utf8"), "one");
    await exec(["mount", "-o", "remount,rw", path], { signal });
    assert.equal(await write(path, payload(10, "two")), true);
  });
});

test("what others have mounted inside an old content stops its removal", { skip }, async () => {
  await withTmpfs(async (path) => {
    await write(path, new Map([["dir/file", { content: Buffer.from("1"), mode: 0o644 }]]));
    const precious = await mkdtemp(join(tmpdir(), "precious-"));
    const inside = join(path, "..data", "dir");
    try {
      await write(precious, payload(10, "precious"));
      await systemMounter.bind(precious, inside, signal);
      const table = systemMounter.table().below(path);
      const bound = table.find((mount) => mount.path !== path)?.path ?? "";
      const next = new Map([["file", { content: Buffer.from("2"), mode: 0o644 }]]);
      await assert.rejects(write(path, next), /dir is a mount point/);
      assert.equal(await readFile(join(path, "file"), "utf8"), "2", "the new content is shown");
      assert.equal(await readFile(join(precious, "small"), "utf8"), "precious");
      await systemMounter.unmount(bound, signal);
      assert.equal(await write(path, next), false);
      assert.deepEqual((await readdir(path)).length, 3);
    } finally {
      for (const mount of systemMounter.table().below(path)) {
        if (mount.path !== path) await systemMounter.unmount(mount.path, signal);
      }
      await rm(precious, { recursive: true });
    }
  });
});

test("a directory that cannot be made on a read-only disk is told as that", { skip }, async () => {
  await withTmpfs(async (path) => {
    assert.equal(await makeDirectory(join(path, "pods/a"), 0o750), join(path, "pods"));
    assert.equal(await makeDirectory(join(path, "pods/a"), 0o750), undefined);
    await exec(["mount", "-o", "remount,ro", path], { signal });
    for (const below of ["pods/b", "pods/b/c/d", "other"]) {
      await assert.rejects(makeDirectory(join(path, below), 0o750), { code: "EROFS" });
    }
    assert.equal(await makeDirectory(join(path, "pods/a"), 0o750), undefined);
  });
});
