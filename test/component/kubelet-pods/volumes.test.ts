import assert from "node:assert/strict";
import {
  chmod,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { writeAtomicVolume } from "../../../src/kubelet/volumes/atomic-writer.ts";
import { setUpHostPath } from "../../../src/kubelet/volumes/host-path.ts";
import { keyFiles, type Payload } from "../../../src/kubelet/volumes/payload.ts";
import { bindSubPath } from "../../../src/kubelet/volumes/subpath.ts";
import { FakeMounter } from "./fixture.ts";
import { inTemporary } from "../../fakes/temporary.ts";

const signal = new AbortController().signal;
let suffix = 0;

function files(entries: Readonly<Record<string, string>>, mode = 0o644): Payload {
  return new Map(
    Object.entries(entries).map(([path, text]) => [path, { content: Buffer.from(text), mode }]),
  );
}

async function write(target: string, payload: Payload, fsGroup?: number): Promise<boolean> {
  suffix += 1;
  const options = { fsGroup, now: 0, suffix: String(suffix) };
  return writeAtomicVolume(target, payload, options, signal);
}

test("an atomic volume shows its files through ..data and swaps them in one step", async () => {
  await inTemporary(async (directory) => {
    assert.equal(await write(directory, files({ a: "1", "dir/b": "2" })), true);
    assert.equal(await readlink(join(directory, "a")), "..data/a");
    assert.equal(await readFile(join(directory, "dir/b"), "utf8"), "2");
    const first = await readlink(join(directory, "..data"));
    assert.equal(await write(directory, files({ a: "1", "dir/b": "2" })), false);
    assert.equal(await readlink(join(directory, "..data")), first);
    assert.equal(await write(directory, files({ a: "3", c: "4" })), true);
    assert.equal(await readFile(join(directory, "a"), "utf8"), "3");
    assert.deepEqual(
      (await readdir(directory)).filter((name) => !name.startsWith("..")),
      ["a", "c"],
    );
    assert.equal((await readdir(directory)).filter((name) => name.startsWith("..")).length, 2);
  });
});

test("an atomic volume whose writer died before the names were made is completed", async () => {
  await inTemporary(async (directory) => {
    await write(directory, files({ a: "1", b: "2" }));
    await rm(join(directory, "b"));
    assert.equal(await write(directory, files({ a: "1", b: "2" })), false);
    assert.equal(await readFile(join(directory, "b"), "utf8"), "2");
  });
});

test("with an fsGroup the group owns the files, may read them and no more", async () => {
  await inTemporary(async (directory) => {
    const payload = new Map([
      ["secret", { content: Buffer.from("s"), mode: 0o400 }],
      ["dir/text", { content: Buffer.from("t"), mode: 0o644 }],
    ]);
    await write(directory, payload, 4000);
    for (const [path, mode] of [
      ["secret", 0o440],
      ["dir/text", 0o644],
      ["dir", 0o2755],
    ] as const) {
      const stats = await stat(join(directory, path));
      assert.equal(stats.gid, 4000, path);
      assert.equal(stats.mode & 0o7777, mode, path);
    }
    assert.equal(await write(directory, payload, 4000), false);
  });
});

test("keys, items and modes", () => {
  const data = new Map([
    ["a", Buffer.from("1")],
    ["b", Buffer.from("2")],
  ]);
  assert.deepEqual([...keyFiles(data, {}, 0o644).keys()], ["a", "b"]);
  const items = [{ key: "a", path: "x/y", mode: 0o600 }];
  assert.equal(keyFiles(data, { items }, 0o644).get("x/y")?.mode, 0o600);
  assert.throws(
    () => keyFiles(data, { items: [{ key: "z", path: "z" }] }, 0o644),
    /references non-existent config key: z/,
  );
  assert.equal(keyFiles(data, { items: [{ key: "z", path: "z" }], optional: true }, 0).size, 0);
  assert.throws(() => keyFiles(data, { items: [{ key: "a", path: "../x" }] }, 0), /invalid path/);
});

test("hostPath types make what they may and check the rest", async () => {
  await inTemporary(async (directory) => {
    const path = join(directory, "new");
    await assert.rejects(setUpHostPath({ path, type: "Directory" }), {
      message: `hostPath type check failed: ${path} is not a directory`,
    });
    await setUpHostPath({ path, type: "DirectoryOrCreate" });
    assert((await stat(path)).isDirectory());
    await assert.rejects(setUpHostPath({ path, type: "File" }), /is not a file/);
    await setUpHostPath({ path: join(directory, "file"), type: "FileOrCreate" });
    assert((await stat(join(directory, "file"))).isFile());
    await assert.rejects(setUpHostPath({ path, type: "Socket" }), /is not a socket file/);
    await setUpHostPath({ path: "/dev/null", type: "CharDevice" });
  });
});

test("a subPath is made with the volume's mode and bound through a descriptor", async () => {
  await inTemporary(async (directory) => {
    const volume = join(directory, "volume");
    await mkdir(volume, { mode: 0o755 });
    const mounter = new FakeMounter();
    const target = join(directory, "target");
    await bindSubPath(volume, "a/b", target, mounter, signal);
    assert((await stat(join(volume, "a/b"))).isDirectory());
    assert.equal((await stat(join(volume, "a/b"))).mode & 0o777, 0o755);
    assert.match(mounter.mounted.get(target) ?? "", /^\/proc\/\d+\/fd\/\d+$/);
    // The group of an fsGroup volume owns what is made below, a sticky volume stays sticky.
    await chmod(volume, 0o3777);
    await bindSubPath(volume, "c/d", join(directory, "other"), mounter, signal);
    assert.equal((await stat(join(volume, "c"))).mode & 0o7777, 0o3777);
    assert.equal((await stat(join(volume, "c/d"))).mode & 0o7777, 0o3777);
  });
});

test("a subPath may follow links inside its volume and none out of it", async () => {
  await inTemporary(async (directory) => {
    const volume = join(directory, "volume");
    await mkdir(volume);
    await write(volume, files({ key: "v" }));
    await mkdir(join(directory, "outside"));
    await symlink(join(directory, "outside"), join(volume, "escape"));
    await symlink("../outside", join(volume, "relative"));
    const mounter = new FakeMounter();
    await bindSubPath(volume, "key", join(directory, "file"), mounter, signal);
    assert((await lstat(join(directory, "file"))).isFile());
    for (const path of ["escape", "relative", "escape/new", "relative/../../outside"]) {
      await assert.rejects(
        bindSubPath(volume, path, join(directory, "t"), mounter, signal),
        /not within volume path|must not contain/,
        path,
      );
    }
    assert.deepEqual(await readdir(join(directory, "outside")), []);
    await assert.rejects(bindSubPath(volume, "/etc", join(directory, "t"), mounter, signal));
    await writeFile(join(volume, "plain"), "");
    await assert.rejects(bindSubPath(volume, "plain/x", join(directory, "t"), mounter, signal));
  });
});
