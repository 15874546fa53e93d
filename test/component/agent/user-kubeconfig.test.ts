import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
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

  test("a new file belongs to its user alone, and going down empties it of us", async () => {
    await inDirectory(async (path) => {
      await writeUserKubeconfig(path, me, cluster);
      assert.equal((await stat(path)).mode & 0o777, 0o600);
      assert.match(await readFile(path, "utf8"), /current-context: remora/);
      assert.equal(await removeUserKubeconfig(path), true);
      assert.doesNotMatch(await readFile(path, "utf8"), /remora/);
      assert.equal(await removeUserKubeconfig(path), false);
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
      await removeUserKubeconfig(path);
      const after = await readFile(path, "utf8");
      assert.ok(after.includes("current-context: work") && !after.includes("127.0.0.1"));
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
