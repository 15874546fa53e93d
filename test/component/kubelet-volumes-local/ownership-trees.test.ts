import assert from "node:assert/strict";
import {
  chmodSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import {
  type Arbitrary,
  array,
  assert as assertProperty,
  asyncProperty,
  boolean,
  constantFrom,
  integer,
  record,
  string,
} from "fast-check";

import {
  asyncTree,
  giveToGroup,
  syncTree,
  type TreeFiles,
} from "../../../src/kubelet/volumes/ownership-walk.ts";

const gid = 4321;
const signal = new AbortController().signal;

interface Entry {
  readonly kind: "directory" | "file" | "link";
  readonly name: string;
  readonly mode: number;
  readonly gid: number;
  readonly children: readonly Entry[];
}

/** Unlike each other, also where they differ in case only. */
const name = string({ unit: "grapheme", minLength: 1, maxLength: 12 }).filter(
  (text) => !/[/\0]/.test(text) && text !== "." && text !== "..",
);

function entryOf(children: Arbitrary<readonly Entry[]>): Arbitrary<Entry> {
  return record({
    kind: constantFrom("directory", "file", "link"),
    name,
    mode: integer({ min: 0, max: 0o7777 }),
    gid: constantFrom(0, gid, 77),
    children,
  });
}

const leaf = entryOf(
  array(entryOf(array(entryOf(constantFrom([])), { maxLength: 2 })), { maxLength: 3 }),
);
const tree = entryOf(array(leaf, { maxLength: 4 }));

/** Makes it, and tells the modes by path. */
function make(parent: string, entry: Entry, made: Map<string, Entry>): void {
  const path = join(parent, entry.name);
  if (made.has(path)) return;
  try {
    if (entry.kind === "directory") mkdirSync(path);
    else if (entry.kind === "file") writeFileSync(path, "");
    else symlinkSync("/etc/passwd", path);
  } catch (error) {
    // Two names of one file system entry.
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return;
    throw error;
  }
  made.set(path, entry);
  if (entry.kind === "directory") for (const child of entry.children) make(path, child, made);
  lchownSync(path, 0, entry.gid);
  if (entry.kind !== "link") chmodSync(path, entry.mode);
}

async function check(
  entries: readonly Entry[],
  readOnly: boolean,
  files: TreeFiles,
): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), "trees-"));
  const outside = lstatSync("/etc/passwd");
  try {
    const made = new Map<string, Entry>();
    for (const entry of entries) make(root, entry, made);
    const options = { files, signal, seen: () => true };
    const result = await giveToGroup(root, { gid, readOnly }, options);
    assert.equal(result.entries, made.size + 1);
    assert.equal(result.failures, 0);
    for (const [path, entry] of made) {
      const stats = lstatSync(path);
      assert.equal(stats.gid, gid, path);
      if (entry.kind === "link") continue;
      const bits = (readOnly ? 0o440 : 0o660) | (entry.kind === "directory" ? 0o2110 : 0);
      assert.equal((stats.mode & 0o7777).toString(8), (entry.mode | bits).toString(8), path);
    }
    const changed = new Set<string>();
    const counted: TreeFiles = {
      ...files,
      lchown: () => void changed.add("lchown"),
      fchown: () => void changed.add("fchown"),
      fchmod: () => void changed.add("fchmod"),
      chmod: () => void changed.add("chmod"),
    };
    await giveToGroup(root, { gid, readOnly }, { ...options, files: counted });
    assert.deepEqual([...changed], [], "a second walk finds nothing to do");
    const after = lstatSync("/etc/passwd");
    assert.deepEqual([after.gid, after.mode], [outside.gid, outside.mode]);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

for (const [how, files] of [
  ["beside other work", asyncTree],
  ["in a process of its own", syncTree],
] as const) {
  test(`whatever a tree is made of, all of it is the group's after one walk ${how}`, async () => {
    await assertProperty(
      asyncProperty(array(tree, { maxLength: 5 }), boolean(), async (entries, readOnly) =>
        check(entries, readOnly, files),
      ),
      { numRuns: 60 },
    );
  });
}
