import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import { fileStatus } from "../../../src/kubelet/volumes/file-status.ts";
import {
  MissingProgramError,
  runChecked,
  systemPrograms,
} from "../../../src/kubelet/volumes/host-programs.ts";
import { writeKernelFile } from "../../../src/kubelet/volumes/kernel-write.ts";
import { KeyedLock } from "../../../src/kubelet/volumes/keyed-lock.ts";
import { filesystemFigures } from "../../../src/kubelet/volumes/volume-figures.ts";
import { ListedMounts, signal } from "./fixture.ts";

describe("the machine's programs", () => {
  test("one that is not there is named with the package that has it", async () => {
    const argv = ["mkfs.no-such-file-system", "/dev/null"] as const;
    await assert.rejects(systemPrograms.run(argv, 5000, signal), (error) => {
      assert(error instanceof MissingProgramError);
      assert.equal(error.message, "this machine has no mkfs.no-such-file-system");
      return true;
    });
  });

  test("one that does not end is given up, and a stop is passed on as such", async () => {
    await assert.rejects(systemPrograms.run(["sleep", "60"], 20, signal), {
      message: "sleep did not end within 0 s",
    });
    const stop = new AbortController();
    const running = systemPrograms.run(["sleep", "60"], 60_000, stop.signal);
    stop.abort();
    await assert.rejects(running, { name: "AbortError" });
  });

  test("what one says when it fails is passed on", async () => {
    const argv = ["sh", "-c", "echo why >&2; exit 3"] as const;
    await assert.rejects(runChecked(systemPrograms, argv, 5000, signal), /exited with 3: why/);
  });
});

describe("what lies at a path", () => {
  test("is told by another process, whatever its name", async () => {
    const directory = await mkdtemp(join(tmpdir(), "claims-"));
    try {
      const file = join(directory, "-n 'x' $y\n");
      await writeFile(file, "");
      assert.equal((await fileStatus(systemPrograms, directory, signal)).kind, "directory");
      assert.equal((await fileStatus(systemPrograms, file, signal)).kind, "file");
      assert.equal((await fileStatus(systemPrograms, "/dev/null", signal)).kind, "other");
      const missing = join(directory, "missing");
      await assert.rejects(fileStatus(systemPrograms, missing, signal), {
        message: `path "${missing}" does not exist`,
      });
      await writeKernelFile(systemPrograms, file, "0 0 1", signal);
      assert.equal(await readFile(file, "utf8"), "0 0 1");
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });

  test("a file system that may hang is asked by another process, with the same answer", async () => {
    const mounter = new ListedMounts();
    const deps = { mounter, programs: systemPrograms };
    await mounter.mount({ source: "disk", target: "/", type: "ext4", options: [] });
    const own = await filesystemFigures(deps, "/", signal);
    mounter.entries.length = 0;
    await mounter.mount({ source: "server:/", target: "/", type: "nfs4", options: [] });
    const asked = await filesystemFigures(deps, "/", signal);
    assert.equal(asked.capacityBytes, own.capacityBytes);
    assert.equal(asked.inodes?.total, own.inodes?.total);
  });
});

describe("work under a lock", () => {
  test("goes on one at a time for each key, in order, and a failure frees the next", async () => {
    const lock = new KeyedLock();
    const seen: string[] = [];
    const step = async (name: string): Promise<void> => {
      seen.push(`${name} begins`);
      await new Promise(setImmediate);
      seen.push(`${name} ends`);
      if (name === "a") throw new Error("a failed");
    };
    const all = await Promise.allSettled([
      lock.hold("k", async () => step("a")),
      lock.hold("k", async () => step("b")),
      lock.hold("other", async () => step("c")),
    ]);
    assert.deepEqual(
      all.map(({ status }) => status),
      ["rejected", "fulfilled", "fulfilled"],
    );
    assert(seen.indexOf("b begins") > seen.indexOf("a ends"));
    assert(seen.indexOf("c begins") < seen.indexOf("a ends"));
  });
});
