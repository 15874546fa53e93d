import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { changelogText, debianVersion, filled, mailDate } from "../../../scripts/package/debian.ts";
import { placeInArchive } from "../../../scripts/package/archive.ts";
import { directoriesOf, file, installedKiB, md5sums } from "../../../scripts/package/tree.ts";

describe("the control files of the package", () => {
  test("a version before a release is older than the release", () => {
    assert.equal(debianVersion("1.2.3"), "1.2.3");
    assert.equal(debianVersion("1.2.3-rc.1"), "1.2.3~rc.1");
    for (const wrong of ["1.2", "v1.2.3", "1.2.3 ", "1.2.3~rc1", "../1.2.3"]) {
      assert.throws(() => debianVersion(wrong), /is no version/, wrong);
    }
  });

  test("a template gets all of its values, and no other", () => {
    assert.equal(
      filled("Version: @VERSION@\nX: @VERSION@\n", { VERSION: "1" }),
      "Version: 1\nX: 1\n",
    );
    assert.throws(
      () => filled("@VERSION@ @SIZE@", { VERSION: "1" }),
      /nothing is known for @SIZE@/,
    );
    assert.throws(() => filled("@VERSION@", { VERSION: "1", SIZE: "2" }), /has no SIZE/);
  });

  test("dates are as mail has them", () => {
    assert.equal(mailDate(1_777_777_777), "Sun, 03 May 2026 03:09:37 +0000");
    assert.equal(mailDate(0), "Thu, 01 Jan 1970 00:00:00 +0000");
  });

  test("the changelog names version, maintainer and time", () => {
    assert.equal(
      changelogText("0.2.0-rc.1", "Somebody <somebody@example.com>", 0),
      `remora (0.2.0~rc.1) stable; urgency=medium

  * Remora 0.2.0-rc.1; what is new is in CHANGELOG.md.gz.

 -- Somebody <somebody@example.com>  Thu, 01 Jan 1970 00:00:00 +0000
`,
    );
  });

  test("checksums are of what nobody edits, in order", () => {
    const entries = [
      file("usr/bin/b", "b"),
      file("etc/remora/config.yaml", "mine"),
      { path: "usr/share/link", target: "a" },
      file("usr/bin/a", "a"),
    ];
    assert.equal(
      md5sums(entries),
      "0cc175b9c0f1b6a831c399e269772661  usr/bin/a\n92eb5ffee6ae2fec3ad71c777531578f  usr/bin/b\n",
    );
  });

  test("the size counts whole kibibytes, and one for each directory", () => {
    const entries = [file("usr/bin/a", Buffer.alloc(1025)), file("usr/bin/empty", "")];
    assert.deepEqual(directoriesOf(entries), ["usr", "usr/bin"]);
    // Two for a, one for empty, and usr, bin and the root.
    assert.equal(installedKiB(entries), 6);
  });
});

describe("the archive", () => {
  test("has what Debian has below usr at its root, and units by themselves", () => {
    assert.equal(placeInArchive("usr/bin/remora"), "bin/remora");
    assert.equal(placeInArchive("usr/lib/remora/bin/node"), "lib/remora/bin/node");
    assert.equal(placeInArchive("lib/systemd/system/remora.service"), "systemd/remora.service");
    assert.equal(placeInArchive("etc/remora/remora.env"), "etc/remora/remora.env");
    assert.equal(
      placeInArchive("usr/share/zsh/vendor-completions/_remora"),
      "share/zsh/site-functions/_remora",
    );
  });

  test("has nothing that only dpkg's tools read", () => {
    assert.equal(placeInArchive("usr/share/lintian/overrides/remora"), undefined);
    assert.equal(placeInArchive("usr/share/doc/remora/changelog.gz"), undefined);
  });
});
