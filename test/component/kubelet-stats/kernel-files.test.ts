import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test, type TestContext } from "node:test";

import { kernelFiles } from "../../../src/kubelet/stats/kernel-files.ts";

async function directory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "remora-stats-"));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

describe("files of the kernel", () => {
  test("a file that stays open is read anew each time, whole keys only", async (t) => {
    const root = await directory(t);
    await writeFile(join(root, "stat"), "file 1\ninactive_file 22\nfile_mapped 333\nlast 4444");
    const file = kernelFiles(root).open("/stat");
    const values = (): readonly (number | undefined)[] =>
      ["file", "inactive_file", "mapped", "last"].map((key) => file?.value(key));
    assert.deepEqual(values(), [1, 22, 0, 4444]);
    // What an earlier, longer text has left behind counts no more.
    await writeFile(join(root, "stat"), "file 9007199254740991\n");
    assert.deepEqual(values(), [9_007_199_254_740_991, 0, 0, 0]);
    assert.equal(file?.text(), "file 9007199254740991\n");
    await writeFile(join(root, "stat"), "123456\n");
    assert.equal(file.count(), 123_456);
    await writeFile(join(root, "stat"), "7");
    assert.equal(file.count(), 7);
    file.close();
  });

  test("what is not there is undefined or empty, and no error", async (t) => {
    const files = kernelFiles(await directory(t));
    assert.equal(files.text("/none"), undefined);
    assert.equal(files.open("/none"), undefined);
    assert.equal(files.target("/none"), undefined);
    assert.equal(files.madeAt("/none"), undefined);
    assert.deepEqual(files.names("/none"), []);
  });

  test("large files are read whole, links and times as they are", async (t) => {
    const root = await directory(t);
    const text = "x".repeat(200_000);
    await mkdir(join(root, "d"));
    await writeFile(join(root, "d", "large"), text);
    await symlink("socket:[1]", join(root, "d", "link"));
    const files = kernelFiles(root);
    assert.equal(files.text("/d/large"), text);
    assert.equal(files.target("/d/link"), "socket:[1]");
    assert.deepEqual(files.names("/d").toSorted(), ["large", "link"]);
    assert.ok((files.madeAt("/d/large") ?? 0) > 1.7e12);
  });

  test("a file of this very process, from the real procfs", () => {
    const files = kernelFiles();
    assert.match(files.text("/proc/self/stat") ?? "", /^\d+ \(/);
    assert.equal(files.text("/proc/999999999/stat"), undefined);
    const meminfo = files.open("/proc/meminfo");
    assert.match(meminfo?.text() ?? "", /^MemTotal:/);
    meminfo?.close();
  });

  test("what cannot be opened for another reason is an error", async (t) => {
    const root = await directory(t);
    await writeFile(join(root, "f".repeat(10)), "");
    assert.throws(() => kernelFiles(root).text(`/${"n".repeat(300)}`), /ENAMETOOLONG/);
  });
});
