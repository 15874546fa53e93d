import assert from "node:assert/strict";
import { test } from "node:test";

import {
  type ProjectQuota,
  probeProjectQuota,
  type RunProgram,
} from "../../../src/kubelet/local-volumes/project-quota.ts";
import { MountTable } from "../../../src/kubelet/volumes/mount-table.ts";

const { signal } = new AbortController();

function table(type: string, options: string): MountTable {
  return new MountTable(
    [
      "1 0 8:1 / / rw shared:1 - ext4 /dev/sda1 rw",
      `2 1 8:2 / /srv rw shared:2 - ${type} /dev/sdb1 ${options}`,
      "",
    ].join("\n"),
  );
}

/** Programs that are there, and what they were called with. */
function programs(
  installed: readonly string[],
  answer: { readonly exitCode?: number; readonly stderr?: string } = {},
): { readonly run: RunProgram; readonly calls: string[] } {
  const calls: string[] = [];
  const run: RunProgram = (argv) => {
    if (!installed.includes(argv[0]))
      return Promise.reject(Object.assign(new Error("spawn"), { code: "ENOENT" }));
    calls.push(argv.join(" "));
    const version = argv[1] === "-V";
    const { exitCode = 0, stderr = "" } = version ? {} : answer;
    return Promise.resolve({ exitCode, stdout: "", stderr });
  };
  return { run, calls };
}

async function why(mounts: MountTable, installed: readonly string[]): Promise<string> {
  const support = await probeProjectQuota("/srv/volumes", mounts, signal, programs(installed).run);
  return support.kind === "none" ? support.why : support.kind;
}

async function quotaOf(type: string, run: RunProgram): Promise<ProjectQuota> {
  const mounts = table(type, "rw,prjquota");
  const support = await probeProjectQuota("/srv/volumes", mounts, signal, run);
  assert.ok(support.kind === "enforced");
  return support.quota;
}

test("why a capacity is not enforced, in words that say what to do", async () => {
  const all = ["setquota", "chattr", "xfs_quota"];
  assert.equal(
    await why(table("btrfs", "rw"), all),
    "/srv/volumes is on btrfs, which has no project quota here",
  );
  assert.equal(
    await why(table("ext4", "rw,usrquota"), all),
    "ext4 at /srv is mounted without the option prjquota",
  );
  assert.equal(
    await why(table("ext4", "rw,prjquota"), ["chattr"]),
    "the program setquota is missing (Debian: quota)",
  );
  assert.equal(
    await why(table("xfs", "rw,pquota"), []),
    "the program xfs_quota is missing (Debian: xfsprogs)",
  );
  assert.equal(await why(table("ext4", "rw,prjquota"), all), "enforced");
  assert.equal(await why(table("xfs", "rw,prjquota"), all), "enforced");
});

test("a path that xfs_quota could misread is none for it", async () => {
  const mounts = table("xfs", "rw,prjquota");
  const { run } = programs(["xfs_quota"]);
  const support = await probeProjectQuota('/srv/a" b', mounts, signal, run);
  assert.equal(support.kind, "none");
});

test("ext4: a project for the directory, and a hard limit in blocks of 1 KiB", async () => {
  const { run, calls } = programs(["setquota", "chattr"]);
  const quota = await quotaOf("ext4", run);
  await quota.assign("/srv/volumes/a", 42, signal);
  await quota.limit(42, 1025n, signal);
  await quota.limit(42, 0n, signal);
  assert.deepEqual(calls.slice(2), [
    "chattr +P -p 42 /srv/volumes/a",
    "setquota -P 42 0 2 0 0 /srv",
    "setquota -P 42 0 0 0 0 /srv",
  ]);
});

test("XFS: by the commands of xfs_quota, whose complaints count although it ends with 0", async () => {
  const { run, calls } = programs(["xfs_quota"]);
  const quota = await quotaOf("xfs", run);
  await quota.assign("/srv/volumes/a", 42, signal);
  await quota.limit(42, 1024n, signal);
  assert.deepEqual(calls.slice(1), [
    'xfs_quota -x -c project -s -p "/srv/volumes/a" 42 /srv',
    "xfs_quota -x -c limit -p bhard=1024 42 /srv",
  ]);
  const bad = await quotaOf("xfs", programs(["xfs_quota"], { stderr: "cannot set limits" }).run);
  await assert.rejects(bad.limit(42, 1024n, signal), /cannot set limits/);
});

test("a limit that cannot be set is an error", async () => {
  const failing = programs(["setquota", "chattr"], { exitCode: 1, stderr: "no quota" });
  const quota = await quotaOf("ext4", failing.run);
  await assert.rejects(quota.limit(42, 1n, signal), /setquota exited with 1: no quota/);
});
