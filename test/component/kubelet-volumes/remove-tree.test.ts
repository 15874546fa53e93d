import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  renameSync,
  rmdirSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { lstat, mkdir, readdir, readFile, rename, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import * as fc from "fast-check";

import {
  removeEntry,
  type RemovalFiles,
  asyncRemoval,
} from "../../../src/kubelet/volumes/removal-walk.ts";
import { VolumeError } from "../../../src/kubelet/volumes/payload.ts";
import { removeTree } from "../../../src/kubelet/volumes/remove-tree.ts";
import { inTemporary } from "../../fakes/temporary.ts";

const { signal } = new AbortController();

async function isThere(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}

test("a tree goes with all that is in it, whatever the names are", async () => {
  await inTemporary(async (directory) => {
    const root = join(directory, "root");
    await mkdir(join(root, "a/b/c"), { recursive: true });
    await writeFile(join(root, "a/b/file"), "");
    await writeFile(join(root, "a/new\nline \t\\ ünïcode"), "");
    await writeFile(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0xff, 0xfe, 0x80])]), "");
    await mkdir(Buffer.concat([Buffer.from(`${root}/a/`), Buffer.from([0xc3])]));
    await removeTree(root, signal);
    assert.deepEqual(await readdir(directory), []);
    await removeTree(root, signal);
    await removeTree(join(directory, "no/such"), signal);
  });
});

test("links are removed and never followed, also where the tree itself is one", async () => {
  await inTemporary(async (directory) => {
    const outside = join(directory, "outside");
    await mkdir(outside);
    await writeFile(join(outside, "data"), "precious");
    const root = join(directory, "root");
    await mkdir(root);
    await symlink(outside, join(root, "link"));
    await symlink("../outside/data", join(root, "relative"));
    await removeTree(root, signal);
    await symlink(outside, root);
    await removeTree(root, signal);
    assert.deepEqual(await readdir(directory), ["outside"]);
    assert.equal(await readFile(join(outside, "data"), "utf8"), "precious");
  });
});

test("a tree deeper than a process may have descriptors goes, too", async () => {
  await inTemporary(async (directory) => {
    const root = join(directory, "root");
    await mkdir(root);
    // Built from the inside: no path is that long.
    for (let depth = 0; depth < 600; depth += 1) {
      await mkdir(join(directory, "next"));
      await writeFile(join(directory, "next/file"), "");
      await rename(root, join(directory, "next/sub"));
      await rename(join(directory, "next"), root);
    }
    let open = 0;
    let most = 0;
    const counted: RemovalFiles = {
      ...asyncRemoval,
      open: async (path, flags) => {
        const fd = await asyncRemoval.open(path, flags);
        open += 1;
        most = Math.max(most, open);
        return fd;
      },
      close: async (fd) => {
        open -= 1;
        await asyncRemoval.close(fd);
      },
    };
    await removeEntry(directory, "root", { files: counted, signal, seen: () => true });
    assert.equal(open, 0);
    assert.ok(most < 100, `${most} descriptors`);
    assert.deepEqual(await readdir(directory), []);
  });
});

test("a large tree is removed by another process", async () => {
  await inTemporary(async (directory) => {
    const root = join(directory, "root");
    await mkdir(join(root, "sub"), { recursive: true });
    for (let index = 0; index < 50; index += 1) await writeFile(join(root, `sub/${index}`), "");
    await removeTree(root, signal, { maxInline: 5 });
    assert.equal(await isThere(root), false);
  });
});

test("a process that ends without a word, and a wish to stop, are failures", async () => {
  await inTemporary(async (directory) => {
    const root = join(directory, "root");
    await mkdir(root);
    await writeFile(join(root, "a"), "");
    await assert.rejects(
      removeTree(root, signal, { maxInline: 0, argv: ["false"] }),
      /cannot remove .*root: the process that removes it ended early/,
    );
    await assert.rejects(removeTree(root, AbortSignal.abort()), { name: "AbortError" });
    assert.deepEqual(await readdir(root), ["a"]);
  });
});

test("what is no absolute path of something is refused", async () => {
  for (const path of ["", "/", "relative", "/x/..", "/x/.", "."]) {
    await assert.rejects(removeTree(path, signal), /no directory that could be removed/, path);
  }
});

/** What somebody else does to the tree while it is removed. */
type Meddling = (path: string, outside: string) => void;

const meddlings: Readonly<Record<string, Meddling>> = {
  "becomes a link": (path, outside) => {
    rmdirSync(path);
    symlinkSync(outside, path);
  },
  "is moved away for a link": (path, outside) => {
    renameSync(path, `${path}-moved`);
    symlinkSync(outside, path);
  },
  "becomes a file": (path) => {
    rmdirSync(path);
    writeFileSync(path, "");
  },
  vanishes: (path) => rmdirSync(path),
  "gets more files": (path) => writeFileSync(join(path, "late"), ""),
};

for (const [what, meddle] of Object.entries(meddlings)) {
  for (const instant of ["before it is opened", "after it was opened"] as const) {
    test(`a directory that ${what} ${instant} leads the removal nowhere else`, async () => {
      await inTemporary(async (directory) => {
        const outside = join(directory, "outside");
        mkdirSync(outside);
        writeFileSync(join(outside, "data"), "precious");
        const root = join(directory, "root");
        const victim = join(root, "victim");
        mkdirSync(victim, { recursive: true });
        let done = false;
        const files: RemovalFiles = {
          ...asyncRemoval,
          open: async (path, flags) => {
            const hit = !done && String(path).endsWith("/victim");
            if (hit && instant === "before it is opened") meddle(victim, outside);
            done ||= hit;
            const fd = await asyncRemoval.open(path, flags);
            if (hit && instant === "after it was opened") meddle(victim, outside);
            return fd;
          },
        };
        await removeEntry(directory, "root", { files, signal, seen: () => true });
        assert.deepEqual(await readdir(directory), ["outside"]);
        assert.equal(await readFile(join(outside, "data"), "utf8"), "precious");
      });
    });
  }
}

test("whoever goes on writing is left to it, and the path is told", async () => {
  await inTemporary(async (directory) => {
    const busy = join(directory, "root/busy");
    mkdirSync(busy, { recursive: true });
    const files: RemovalFiles = {
      ...asyncRemoval,
      rmdir: async (path) => {
        if (String(path).endsWith("/busy")) writeFileSync(join(busy, "again"), "");
        await asyncRemoval.rmdir(path);
      },
    };
    await assert.rejects(
      removeEntry(directory, "root", { files, signal, seen: () => true }),
      new RegExp(`cannot remove ${busy}: ENOTEMPTY`),
    );
  });
});

test("a call that fails anywhere is told with its path, leaks nothing, and the next removal goes on", async () => {
  await inTemporary(async (directory) => {
    const root = join(directory, "root");
    const outside = join(directory, "outside");
    mkdirSync(outside);
    for (let failAt = 0; ; failAt += 1) {
      mkdirSync(join(root, "a/b"), { recursive: true });
      writeFileSync(join(root, "a/b/file"), "");
      symlinkSync(outside, join(root, "a/link"));
      let calls = 0;
      let open = 0;
      const meet = async <T>(call: () => T | Promise<T>): Promise<T> => {
        if (calls++ === failAt) throw Object.assign(new Error("EIO: i/o error"), { code: "EIO" });
        return call();
      };
      const real = asyncRemoval;
      const files: RemovalFiles = {
        open: async (path, flags) => {
          const fd = await meet(() => real.open(path, flags));
          open += 1;
          return fd;
        },
        close: async (fd) => {
          open -= 1;
          await real.close(fd);
        },
        openNames: async (path) => {
          const listing = await meet(() => real.openNames(path));
          open += 1;
          return listing;
        },
        nextName: async (listing) => meet(() => real.nextName(listing)),
        closeNames: async (listing) => {
          open -= 1;
          await real.closeNames(listing);
        },
        unlink: async (path) => meet(() => real.unlink(path)),
        rmdir: async (path) => meet(() => real.rmdir(path)),
        rename: async (from, to) => meet(() => real.rename(from, to)),
      };
      const removal = removeEntry(directory, "root", { files, signal, seen: () => true });
      const failed = await removal.then(
        () => undefined,
        (error: unknown) => error,
      );
      assert.equal(open, 0, `call ${failAt}`);
      if (failed === undefined) {
        assert(failAt >= calls, "no failure was swallowed");
        break;
      }
      assert(failed instanceof VolumeError, `call ${failAt}`);
      assert(failed.message.startsWith(`cannot remove ${directory}`), failed.message);
      await removeTree(root, signal);
    }
    assert.deepEqual(await readdir(directory), ["outside"]);
  });
});

/** A tree as data: files, links that lead out, directories. */
type Tree = { readonly [name: string]: "file" | "link" | Tree };

const nameOf = fc.string({ unit: "binary", minLength: 1, maxLength: 6 }).filter((name) => {
  const bytes = Buffer.from(name).length;
  return !/[/\0]/.test(name) && name !== "." && name !== ".." && bytes <= 200;
});

const { tree } = fc.letrec<{ tree: Tree }>((tie) => ({
  tree: fc.dictionary(
    nameOf,
    fc.oneof(
      { maxDepth: 4 },
      fc.constant("file" as const),
      fc.constant("link" as const),
      tie("tree"),
    ),
    { maxKeys: 4 },
  ),
}));

function build(path: string, what: Tree, outside: string): void {
  mkdirSync(path);
  for (const [name, kind] of Object.entries(what)) {
    const at = `${path}/${name}`;
    // Names that differ as strings may be one name to the file system.
    if (existsSync(at)) continue;
    if (kind === "file") writeFileSync(at, "");
    else if (kind === "link") symlinkSync(outside, at);
    else build(at, kind, outside);
  }
}

test("removal never leaves its root, and leaves nothing of it", async () => {
  await inTemporary(async (directory) => {
    const outside = join(directory, "outside");
    mkdirSync(outside);
    writeFileSync(join(outside, "data"), "precious");
    await fc.assert(
      fc.asyncProperty(tree, fc.integer({ min: 0, max: 20 }), async (what, stopAfter) => {
        const root = join(directory, "root");
        build(root, what, outside);
        // Interrupted anywhere, and done again.
        await removeEntry(directory, "root", {
          files: asyncRemoval,
          signal,
          seen: (entries) => entries <= stopAfter,
        });
        await removeTree(root, signal);
        assert.deepEqual(await readdir(directory), ["outside"]);
        assert.deepEqual(await readdir(outside), ["data"]);
      }),
      { numRuns: 60 },
    );
    unlinkSync(join(outside, "data"));
  });
});
