import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { readVolumeFile } from "../../../src/kubelet/volumes/volume-file.ts";

describe("a file that a container left in a volume", () => {
  let outside = "";
  let volume = "";
  before(async () => {
    outside = await mkdtemp(join(tmpdir(), "volume-file-"));
    volume = join(outside, "volume");
    await mkdir(join(volume, "dir"), { recursive: true });
    await writeFile(join(outside, "secret"), "s");
    await writeFile(join(volume, "dir/env"), "0123456789");
    await writeFile(join(volume, "empty"), "");
    await symlink("dir/env", join(volume, "link"));
    await symlink("../secret", join(volume, "out"));
    await symlink(join(outside, "secret"), join(volume, "absolute"));
    await symlink("nowhere", join(volume, "dangling"));
    execFileSync("mkfifo", [join(volume, "pipe")]);
  });
  after(async () => {
    await rm(outside, { recursive: true, force: true });
  });

  const cases: readonly (readonly [string, string | undefined | RegExp])[] = [
    ["dir/env", "0123456789"],
    ["./dir//env", "0123456789"],
    ["link", "0123456789"],
    ["empty", ""],
    ["none", undefined],
    ["none/env", undefined],
    ["dangling", undefined],
    ["out", /not within volume path/],
    ["absolute", /not within volume path/],
    ["../secret", /must be relative/],
    ["/etc/hostname", /must be relative/],
    ["dir", /not a regular file/],
    ["pipe", /not a regular file/],
  ];
  for (const [path, expected] of cases) {
    test(`${path}: ${String(expected)}`, async () => {
      const reading = readVolumeFile(volume, path, 10);
      if (expected instanceof RegExp) await assert.rejects(reading, expected);
      else assert.equal(await reading, expected);
    });
  }
  test("is refused when it is too large", async () => {
    await assert.rejects(readVolumeFile(volume, "dir/env", 9), /larger than 9 bytes/);
  });
});
