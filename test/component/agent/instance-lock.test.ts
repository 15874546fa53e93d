import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import {
  acquireInstanceLock,
  acquireMachineLock,
  lockHolder,
  machineLockHolder,
} from "../../../src/agent/instance-lock.ts";

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

  test("one machine has one agent, whatever its directory, and the second learns where the first is", async () => {
    // A name of its own: the real one would refuse a test beside a running agent.
    const name = `\0remora-test-${process.pid}`;
    const lock = await acquireMachineLock("/var/lib/one", "--root-dir", name);
    assert.deepEqual(await machineLockHolder(name), {
      pid: process.pid,
      directory: "/var/lib/one",
      flag: "--root-dir",
    });
    await assert.rejects(acquireMachineLock("/var/lib/two", "--state-dir", name), {
      code: "REMORA_SETUP",
      message: new RegExp(`another remora \\(pid ${process.pid}, /var/lib/one\\) already runs`),
    });
    await lock.release();
    assert.equal(await machineLockHolder(name), undefined);
    await (await acquireMachineLock("/var/lib/two", "--state-dir", name)).release();
  });
});
