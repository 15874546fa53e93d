import assert from "node:assert/strict";
import { chmod, lstat, mkdir, readdir, readFile, readlink, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import * as fc from "fast-check";

import {
  type AtomicWriteOptions,
  writeAtomicVolume,
} from "../../../src/kubelet/volumes/atomic-writer.ts";
import { diskFiles, type Files, memoryFiles } from "../../../src/kubelet/volumes/files.ts";
import type { Payload } from "../../../src/kubelet/volumes/payload.ts";
import { removeTree } from "../../../src/kubelet/volumes/remove-tree.ts";
import { inTemporary } from "../../fakes/temporary.ts";

const signal = new AbortController().signal;
let suffix = 0;

type Texts = Readonly<Record<string, string>>;

function payloadOf(texts: Texts, mode = 0o644): Payload {
  return new Map(
    Object.entries(texts).map(([path, text]) => [path, { content: Buffer.from(text), mode }]),
  );
}

async function write(
  target: string,
  payload: Payload,
  more: Partial<AtomicWriteOptions> = {},
): Promise<boolean> {
  suffix += 1;
  const options = { fsGroup: undefined, now: 0, suffix: String(suffix), ...more };
  return writeAtomicVolume(target, payload, options, signal);
}

/** All files below, by path. */
async function tree(root: string, below = ""): Promise<Record<string, string>> {
  const out: Record<string, string> = {};
  for (const entry of await readdir(join(root, below), { withFileTypes: true })) {
    const path = below === "" ? entry.name : `${below}/${entry.name}`;
    if (entry.isDirectory()) Object.assign(out, await tree(root, path));
    else out[path] = await readFile(join(root, path), "utf8");
  }
  return out;
}

/** What a reader that goes through `..data` sees; undefined before the first content. */
async function shown(target: string): Promise<Record<string, string> | undefined> {
  const current = await readlink(join(target, "..data")).catch(() => undefined);
  return current === undefined ? undefined : tree(join(target, current));
}

class Killed extends Error {}

/** Every operation counts; from number `last` on nothing happens any more. */
function mortal(files: Files, last: number, error: () => Error = () => new Killed()): Files {
  let left = last;
  const wrap =
    <A extends readonly unknown[], R>(work: (...args: A) => R) =>
    (...args: A): R => {
      left -= 1;
      if (left < 0) throw error();
      return work(...args);
    };
  return {
    chmod: wrap(files.chmod),
    chown: wrap(files.chown),
    facts: wrap(files.facts),
    mkdir: wrap(files.mkdir),
    names: wrap(files.names),
    read: wrap(files.read),
    readlink: wrap(files.readlink),
    rename: wrap(files.rename),
    rmdir: wrap(files.rmdir),
    symlink: wrap(files.symlink),
    unlink: wrap(files.unlink),
    write: wrap(files.write),
  };
}

const names = ["a", "b", "c", "dir/x", "dir/y", "dir/deep/z", "new\nline", "ä b", ".dot"] as const;
const texts = fc.dictionary(fc.constantFrom(...names), fc.string({ maxLength: 4 }));

test("whatever is killed where, readers see one whole content, and the next write ends clean", async () => {
  const runs = fc.array(
    fc.record({ texts, killAt: fc.option(fc.nat({ max: 60 }), { nil: undefined }) }),
    { minLength: 1, maxLength: 6 },
  );
  await fc.assert(
    fc.asyncProperty(runs, async (sequence) => {
      await inTemporary(async (target) => {
        let seen: Texts | undefined;
        for (const { killAt, texts: wanted } of sequence) {
          const before = seen;
          const files = killAt === undefined ? memoryFiles : mortal(memoryFiles, killAt);
          const dead = async (): Promise<void> => {
            throw new Killed();
          };
          const remove = killAt === undefined ? removeTree : dead;
          const killed = await write(target, payloadOf(wanted), { files, removeTree: remove }).then(
            () => false,
            (error: unknown) => {
              if (!(error instanceof Killed)) throw error;
              return true;
            },
          );
          const after = await shown(target);
          if (!killed) assert.deepEqual(after, { ...wanted });
          else if (!sameTexts(after, before)) assert.deepEqual(after, { ...wanted });
          seen = after;
        }
        const last = sequence.at(-1)?.texts ?? {};
        await write(target, payloadOf(last));
        assert.deepEqual(await shown(target), { ...last });
        const tops = new Set(Object.keys(last).map((path) => path.split("/")[0] ?? ""));
        const left = await readdir(target);
        assert.equal(left.filter((name) => name.startsWith("..")).length, 2, left.join(" "));
        const visible = left.filter((name) => !name.startsWith(".."));
        assert.deepEqual(visible.toSorted(), [...tops].toSorted());
        for (const [path, text] of Object.entries(last)) {
          assert.equal(await readFile(join(target, path), "utf8"), text);
        }
      });
    }),
    { numRuns: 80, verbose: 1 },
  );
});

function sameTexts(a: Texts | undefined, b: Texts | undefined): boolean {
  return JSON.stringify(sorted(a)) === JSON.stringify(sorted(b));
}

function sorted(texts: Texts | undefined): unknown {
  return texts === undefined
    ? undefined
    : Object.entries(texts).toSorted(([a], [b]) => (a < b ? -1 : 1));
}

for (const code of ["ENOSPC", "EROFS", "EIO"]) {
  test(`${code} at any operation leaves the old content as it was, or the new one complete`, async () => {
    for (let at = 0; at < 40; at += 1) {
      await inTemporary(async (target) => {
        await write(target, payloadOf({ a: "1", "dir/b": "2" }));
        const failing = (): Error => Object.assign(new Error(code), { code });
        const files = mortal(memoryFiles, at, failing);
        const wanted = { a: "3", c: "4" };
        const error = await write(target, payloadOf(wanted), { files }).then(
          () => undefined,
          (caught: unknown) => caught,
        );
        const seen = await shown(target);
        if (error === undefined) assert.deepEqual(seen, wanted);
        else if (seen?.["a"] === "1") assert.deepEqual(seen, { a: "1", "dir/b": "2" });
        else assert.deepEqual(seen, wanted);
        await write(target, payloadOf(wanted));
        assert.equal((await readdir(target)).filter((name) => name.startsWith("..")).length, 2);
      });
    }
  });
}

test("a full disk does not fill up with tries, and less content fits again", async () => {
  await inTemporary(async (target) => {
    await write(target, payloadOf({ a: "1" }));
    const full: Files = {
      ...memoryFiles,
      write: (path, content, mode) => {
        if (content.length > 3) throw Object.assign(new Error("no space"), { code: "ENOSPC" });
        return memoryFiles.write(path, content, mode);
      },
    };
    for (let tries = 0; tries < 5; tries += 1) {
      const large = payloadOf({ a: "2", b: "much too long" });
      await assert.rejects(write(target, large, { files: full }), { code: "ENOSPC" });
    }
    assert.deepEqual(await shown(target), { a: "1" });
    assert.equal((await readdir(target)).length, 3);
    await write(target, payloadOf({ a: "3" }), { files: full });
    assert.deepEqual(await shown(target), { a: "3" });
  });
});

test("two writes in one second with the same digits do not meet", async () => {
  await inTemporary(async (target) => {
    for (const text of ["1", "2", "3"]) {
      await write(target, payloadOf({ a: text }), { suffix: "7" });
      assert.deepEqual(await shown(target), { a: text });
    }
  });
});

test("directories that a killed writer left are removed, what has a reserved name is replaced", async () => {
  await inTemporary(async (target) => {
    await write(target, payloadOf({ a: "1" }));
    const stale = join(target, "..2026_01_01_00_00_00.000000007");
    await mkdir(join(stale, "dir", "deeper"), { recursive: true });
    await symlink("..nowhere", join(target, "..data_tmp"));
    await write(target, payloadOf({ a: "1" }));
    assert.equal((await readdir(target)).length, 3, "also when the content is right");
    await mkdir(join(target, "..data_tmp", "dir"), { recursive: true });
    await write(target, payloadOf({ a: "2" }));
    assert.deepEqual(await shown(target), { a: "2" });
  });
});

test("what older directories point to outside of the volume is not touched", async () => {
  await inTemporary(async (directory) => {
    const [target, outside] = [join(directory, "volume"), join(directory, "outside")];
    await mkdir(target);
    await mkdir(outside);
    await mkdir(join(outside, "precious"));
    const stale = join(target, "..2026_01_01_00_00_00.000000007");
    await mkdir(stale);
    await symlink(outside, join(stale, "link"));
    await symlink(outside, join(target, "stray"));
    await write(target, payloadOf({ a: "1" }));
    assert.deepEqual(await readdir(outside), ["precious"]);
    assert.deepEqual(
      (await readdir(target)).filter((name) => !name.startsWith("..")),
      ["a"],
    );
  });
});

test("a file whose mode or type is not right is written again", async () => {
  await inTemporary(async (target) => {
    await write(target, payloadOf({ a: "1" }));
    await chmod(join(target, "..data", "a"), 0o600);
    assert.equal(await write(target, payloadOf({ a: "1" })), true);
    assert.equal((await lstat(join(target, "..data", "a"))).mode & 0o777, 0o644);
    await rm(join(target, "..data", "a"));
    await symlink("/etc/hostname", join(target, "..data", "a"));
    assert.equal(await write(target, payloadOf({ a: "1" })), true);
    assert.equal(await readFile(join(target, "a"), "utf8"), "1");
  });
});

test("modes land as they were asked for", async () => {
  await inTemporary(async (target) => {
    const modes = [0, 0o400, 0o440, 0o600, 0o644, 0o666, 0o755, 0o777];
    const payload = new Map(
      modes.map((mode) => [`m${mode}`, { content: Buffer.from("x"), mode }] as const),
    );
    await write(target, payload);
    for (const mode of modes) {
      assert.equal((await lstat(join(target, "..data", `m${mode}`))).mode & 0o7777, mode);
    }
    assert.equal(await write(target, payload), false);
  });
});

test("a file may have an owner of its own, and the group of the volume besides", async () => {
  await inTemporary(async (target) => {
    const payload = new Map([
      ["token", { content: Buffer.from("t"), mode: 0o600, uid: 1234 }],
      ["text", { content: Buffer.from("x"), mode: 0o644 }],
    ]);
    await write(target, payload, { fsGroup: 4000 });
    const token = await lstat(join(target, "..data", "token"));
    assert.deepEqual([token.uid, token.gid, token.mode & 0o7777], [1234, 4000, 0o640]);
    const text = await lstat(join(target, "..data", "text"));
    assert.deepEqual([text.uid, text.gid], [0, 4000]);
    assert.equal(await write(target, payload, { fsGroup: 4000 }), false);
  });
});

for (const [where, files] of [
  ["memory", memoryFiles],
  ["a disk", diskFiles],
] as const) {
  test(`thousands of keys and a megabyte in ${where} let others have their turn`, async () => {
    await inTemporary(async (target) => {
      const count = where === "memory" ? 2000 : 500;
      const payload = new Map(
        Array.from({ length: count }, (_, index) => [
          `key-${index}`,
          { content: Buffer.alloc(index === 0 ? 1024 * 1024 : 10, index), mode: 0o644 },
        ]),
      );
      let turns = 0;
      let over = false;
      const others = (): void => {
        turns += 1;
        if (!over) setImmediate(others);
      };
      others();
      await write(target, payload, { files });
      assert.equal(await write(target, payload, { files }), false);
      over = true;
      assert.equal(Object.keys((await shown(target)) ?? {}).length, count);
      // Both times; without pauses it is a handful for all.
      assert(turns > count / 40, `${turns} turns`);
    });
  });
}
