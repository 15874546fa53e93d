import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import { acquireInstanceLock, lockHolder } from "../../../src/agent/instance-lock.ts";

const module = new URL("../../../src/agent/instance-lock.ts", import.meta.url).href;

describe("instance lock", () => {
  test("a second copy on the same directory is refused by pid, and may start after the first let go", async () => {
    const directory = await mkdtemp(join(tmpdir(), "remora-lock-"));
    const lock = await acquireInstanceLock(directory);
    assert.equal(await lockHolder(directory), process.pid);
    await assert.rejects(acquireInstanceLock(directory), {
      message: new RegExp(`another remora \\(pid ${process.pid}\\) already runs on ${directory}`),
    });
    await lock.release();
    assert.equal(await lockHolder(directory), undefined);
    await (await acquireInstanceLock(directory)).release();
    await rm(directory, { recursive: true });
  });

  test("a holder that was killed leaves nothing that has to be cleaned up by hand", async () => {
    const directory = await mkdtemp(join(tmpdir(), "remora-lock-"));
    const program = `const { acquireInstanceLock } = await import(${JSON.stringify(module)});
      await acquireInstanceLock(${JSON.stringify(directory)}); console.log("held"); setInterval(() => {}, 1e6);`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(child.stdout, "data");
    assert.equal(await lockHolder(directory), child.pid);
    child.kill("SIGKILL");
    await once(child, "close");
    await (await acquireInstanceLock(directory)).release();
    await rm(directory, { recursive: true });
  });
});
