import assert from "node:assert/strict";
import {
  chown,
  lstat,
  mkdtemp,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, test } from "node:test";

import {
  invokingUser,
  kubeconfigPath,
  removeUserKubeconfig,
  writeUserKubeconfig,
} from "../../../src/agent/user-kubeconfig.ts";

const passwd = "root:x:0:0:root:/root:/bin/bash\njane:x:1000:1001:Jane,,,:/home/jane:/bin/bash\n";
const cluster = {
  server: "https://127.0.0.1:6443",
  caPEM: "CA",
  clientCertPEM: "CERT",
  clientKeyPEM: "KEY",
};
const me = { home: "", uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };

async function inDirectory(use: (path: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "remora-kubeconfig-"));
  try {
    await use(join(directory, ".kube", "config"));
  } finally {
    await rm(directory, { recursive: true });
  }
}

describe("the user's kubeconfig", () => {
  test("behind sudo it is that of the person who typed", () => {
    const user = invokingUser(passwd, { SUDO_USER: "jane", HOME: "/root" });
    assert.deepEqual(user, { home: "/home/jane", uid: 1000, gid: 1001 });
    assert.equal(kubeconfigPath(user, {}), "/home/jane/.kube/config");
    assert.equal(kubeconfigPath(user, { KUBECONFIG: "/a:/b" }), "/a");
    assert.deepEqual(invokingUser(passwd, { HOME: "/run/home" }), {
      home: "/run/home",
      uid: 0,
      gid: 0,
    });
  });

  test("a new file belongs to its user alone, and going down takes it away again", async () => {
    await inDirectory(async (path) => {
      await writeUserKubeconfig(path, me, cluster);
      assert.equal((await stat(path)).mode & 0o777, 0o600);
      assert.match(await readFile(path, "utf8"), /current-context: remora/);
      assert.equal(await removeUserKubeconfig(path, me), true);
      await assert.rejects(stat(path), { code: "ENOENT" });
      assert.equal(await removeUserKubeconfig(path, me), false);
    });
  });

  test("somebody's other clusters, comments and current context stay", async () => {
    await inDirectory(async (path) => {
      await writeUserKubeconfig(path, me, cluster);
      const theirs =
        "# mine\napiVersion: v1\nkind: Config\ncurrent-context: work\nclusters:\n  - name: work\n    cluster: {server: https://work}\ncontexts:\n  - name: work\n    context: {cluster: work, user: jane}\nusers:\n  - name: jane\n    user: {token: secret}\n";
      await writeFile(path, theirs);
      await writeUserKubeconfig(path, me, cluster);
      const merged = await readFile(path, "utf8");
      for (const kept of ["# mine", "current-context: work", "token: secret", "https://work"]) {
        assert.ok(merged.includes(kept), kept);
      }
      assert.ok(merged.includes("https://127.0.0.1:6443"));
      await removeUserKubeconfig(path, me);
      const after = await readFile(path, "utf8");
      assert.ok(after.includes("current-context: work") && !after.includes("127.0.0.1"));
    });
  });

  test("a link stays a link, and the file behind it keeps its owner", async () => {
    await inDirectory(async (path) => {
      await writeUserKubeconfig(path, me, cluster);
      const behind = join(dirname(path), "shared");
      await rename(path, behind);
      const theirs = process.getuid?.() === 0 ? 65_534 : me.uid;
      await chown(behind, theirs, me.gid);
      await symlink("shared", path);
      assert.equal(
        await writeUserKubeconfig(path, me, { ...cluster, server: "https://127.0.0.1:7443" }),
        "remora",
      );
      assert.equal((await lstat(path)).isSymbolicLink(), true);
      assert.equal((await stat(behind)).uid, theirs);
      assert.match(await readFile(behind, "utf8"), /127\.0\.0\.1:7443/);
    });
  });

  test("another cluster that is called remora too is never overwritten or removed", async () => {
    await inDirectory(async (path) => {
      await writeUserKubeconfig(path, me, { ...cluster, server: "https://10.0.0.7:6443" });
      const theirs = await readFile(path, "utf8");
      await assert.rejects(writeUserKubeconfig(path, me, cluster), {
        code: "REMORA_SETUP",
        message:
          /was left alone: its cluster "remora" is another one \(https:\/\/10\.0\.0\.7:6443\)/,
      });
      assert.equal(await removeUserKubeconfig(path, me), false);
      assert.equal(await readFile(path, "utf8"), theirs);
    });
  });

  test("a file that is no kubeconfig is left alone and named", async () => {
    await inDirectory(async (path) => {
      await writeUserKubeconfig(path, me, cluster);
      await writeFile(path, "just: [a, list\n");
      await assert.rejects(writeUserKubeconfig(path, me, cluster), {
        message: new RegExp(`^${path} was left alone`),
      });
      assert.equal(await readFile(path, "utf8"), "just: [a, list\n");
    });
  });
});
