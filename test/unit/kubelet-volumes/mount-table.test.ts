import assert from "node:assert/strict";
import { describe, it } from "node:test";

import * as fc from "fast-check";

import { MountTable, parseMountLine } from "../../../src/kubelet/volumes/mount-table.ts";

/** As the kernel writes a path (seq_path(), mangle_path()). */
function escaped(path: string): string {
  return path.replaceAll(
    /[ \t\n\\#]/g,
    (each) => `\\${each.charCodeAt(0).toString(8).padStart(3, "0")}`,
  );
}

function line(path: string, id = 1, rest = "- tmpfs tmpfs rw"): string {
  return `${id} 0 0:${id} / ${escaped(path)} rw,relatime ${rest}`;
}

const pathOf = fc
  .array(fc.string({ unit: "grapheme", minLength: 1, maxLength: 8 }), { maxLength: 5 })
  .map((parts) => `/${parts.map((part) => part.replaceAll(/[/\0]/g, "_")).join("/")}`);

describe("a line of mountinfo", () => {
  it("is told with everything that is in it", () => {
    const text =
      "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 propagate_from:2 - fuse.sshfs user@host:/a\\040b rw,errors=continue";
    assert.deepEqual(parseMountLine(text), {
      id: 36,
      parentID: 35,
      root: "/mnt1",
      deleted: false,
      path: "/mnt2",
      options: ["rw", "noatime"],
      propagation: ["master:1", "propagate_from:2"],
      type: "fuse.sshfs",
      source: "user@host:/a b",
      superOptions: ["rw", "errors=continue"],
    });
  });

  it("of a bind whose directory was removed names it without the kernel's mark", () => {
    const entry = parseMountLine("1 0 0:1 /a\\040dir//deleted /p rw - ext4 /dev/sda rw");
    assert.equal(entry?.root, "/a dir");
    assert.equal(entry.deleted, true);
    assert.equal(parseMountLine(line("/x//deleted"))?.path, "/x//deleted", "only the root has it");
  });

  for (const text of ["", " ", "1 0 0:1 / /p rw", "1 0 0:1 / /p rw shared:1", "- - -"]) {
    it(`that is none is skipped: ${JSON.stringify(text)}`, () => {
      assert.equal(parseMountLine(text), undefined);
      assert.deepEqual(new MountTable(text).below("/"), []);
    });
  }

  it("gives back every path that the kernel can escape", () => {
    fc.assert(
      fc.property(pathOf, pathOf, (path, source) => {
        const text = line(path, 7, `- nfs4 ${escaped(source)} rw`);
        const entry = parseMountLine(text);
        assert.equal(entry?.path, path);
        assert.equal(entry.source, source);
        assert.equal(new MountTable(text).at(path)?.id, 7);
      }),
    );
  });

  it("that is made to look like two by a newline in a name stays one", () => {
    const table = new MountTable(line("/pods/a\n2 0 0:2 / /etc rw - tmpfs tmpfs rw"));
    assert.equal(table.at("/etc"), undefined);
    assert.equal(table.below("/pods").length, 1);
  });
});

describe("the mount table", () => {
  const table = new MountTable(
    [line("/", 1), line("/p", 2), line("/p/a", 3), line("/pods", 4), line("/p/a", 5), ""].join(
      "\n",
    ),
  );

  it("tells what lies on top at a path", () => {
    assert.equal(table.at("/p/a")?.id, 5);
    assert.equal(table.at("/p")?.id, 2);
    assert.equal(table.at("/p/"), undefined);
    assert.equal(table.at("/p/b"), undefined);
  });

  it("tells what is at and below a directory in the order in which it comes off", () => {
    const ids = (directory: string): readonly number[] =>
      table.below(directory).map(({ id }) => id);
    assert.deepEqual(ids("/p"), [5, 3, 2]);
    assert.deepEqual(ids("/pod"), []);
    assert.deepEqual(ids("/"), [5, 3, 4, 2, 1]);
  });

  it("tells the mount that a path lies in", () => {
    assert.equal(table.containing("/p/a/b")?.id, 5);
    assert.equal(table.containing("/p/ab")?.id, 2);
    assert.equal(table.containing("/podsx")?.id, 1);
    assert.equal(new MountTable("").containing("/"), undefined);
  });

  it("never claims a path outside the directory that was asked for", () => {
    fc.assert(
      fc.property(fc.array(pathOf, { maxLength: 12 }), pathOf, (paths, directory) => {
        const found = new MountTable(paths.map((path) => line(path)).join("\n")).below(directory);
        const prefix = directory === "/" ? "/" : `${directory}/`;
        const expected = paths.filter((path) => path === directory || path.startsWith(prefix));
        assert.deepEqual(found.map(({ path }) => path).toSorted(), expected.toSorted());
      }),
    );
  });
});
