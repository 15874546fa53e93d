import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { createMounter, mayHang, type Mounter } from "../../../src/kubelet/volumes/mounter.ts";
import { ExecError } from "../../../src/lib/errors.ts";
import type { ExecResult } from "../../../src/lib/exec.ts";

const { signal } = new AbortController();
const ok: ExecResult = { exitCode: 0, stdout: "", stderr: "" };

type Answer = ExecResult | "late" | { readonly stderr: string };

/** A machine with one mount at /p, and what programs say in turn; "gone" in their words takes the mount away. */
function machine(
  type: string,
  answers: readonly Answer[],
  release = "6.1.0",
): { readonly mounter: Mounter; readonly calls: readonly string[] } {
  const calls: string[] = [];
  let mounted = true;
  const mounter = createMounter({
    run: async (argv) => {
      const answer = answers[calls.length] ?? ok;
      calls.push(argv.join(" "));
      if (answer === "late") throw new DOMException("too late", "TimeoutError");
      if ("exitCode" in answer) {
        if (answer.exitCode === 0) mounted = false;
        return answer;
      }
      return { exitCode: 32, stdout: "", stderr: answer.stderr };
    },
    mountinfo: () => (mounted ? `7 1 0:7 / /p rw - ${type} source rw\n` : ""),
    kernelRelease: () => release,
  });
  return { mounter, calls };
}

describe("unmounting", () => {
  it("what is not mounted is success", async () => {
    const { calls, mounter } = machine("tmpfs", [{ stderr: "umount: /p: not mounted." }]);
    assert.equal(await mounter.unmount("/p", signal), "unmounted");
    assert.deepEqual(calls, ["umount --no-canonicalize /p"]);
  });

  it("what is in use fails, and stays where it is", async () => {
    const { calls, mounter } = machine("ext4", [{ stderr: "umount: /p: target is busy." }]);
    await assert.rejects(mounter.unmount("/p", signal), ExecError);
    assert.equal(calls.length, 1, "nobody's file system is torn away from under him");
  });

  it("a server that does not answer is forced", async () => {
    const { calls, mounter } = machine("nfs4", ["late", ok]);
    assert.equal(await mounter.unmount("/p", signal), "unmounted");
    assert.deepEqual(calls, [
      "umount --no-canonicalize --internal-only /p",
      "umount --no-canonicalize --internal-only -f /p",
    ]);
  });

  it("when that does not help either it is taken out of the tree, which is told", async () => {
    const { calls, mounter } = machine("fuse.sshfs", ["late", { stderr: "busy" }, ok]);
    assert.equal(await mounter.unmount("/p", signal), "detached");
    assert.equal(calls.at(-1), "umount --no-canonicalize --internal-only -l /p");
  });

  it("a local file system is forced only when the call itself did not come back", async () => {
    const { calls, mounter } = machine("ext4", ["late", "late", ok]);
    assert.equal(await mounter.unmount("/p", signal), "detached");
    assert.equal(calls.length, 3);
  });

  it("ends when nobody wants it any more, without force", async () => {
    const stop = new AbortController();
    const calls: string[] = [];
    const mounter = createMounter({
      run: async (argv, options) => {
        calls.push(argv.join(" "));
        stop.abort();
        options.signal.throwIfAborted();
        return ok;
      },
      mountinfo: () => "7 1 0:7 / /p rw - nfs source rw\n",
      kernelRelease: () => "6.1.0",
    });
    await assert.rejects(mounter.unmount("/p", stop.signal), { name: "AbortError" });
    assert.equal(calls.length, 1);
  });
});

describe("mounting", () => {
  it("memory is kept out of swap where the kernel can, and mounted all the same where it may not", async () => {
    const old = machine("tmpfs", [], "6.1.0");
    await old.mounter.mountTmpfs("/p", ["mode=1777"], signal);
    assert.deepEqual(old.calls, ["mount -t tmpfs -o mode=1777 tmpfs /p"]);
    const refused = machine("tmpfs", [{ stderr: "bad option" }], "6.12.0");
    await refused.mounter.mountTmpfs("/p", ["mode=1777"], signal);
    assert.deepEqual(refused.calls, [
      "mount -t tmpfs -o mode=1777,noswap tmpfs /p",
      "mount -t tmpfs -o mode=1777 tmpfs /p",
    ]);
  });
});

describe("file systems that may hang", () => {
  for (const type of [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "ceph",
    "9p",
    "fuse",
    "fuse.sshfs",
    "fuseblk",
  ]) {
    it(`${type} is one`, () => assert.equal(mayHang({ type }), true));
  }
  for (const type of ["ext4", "xfs", "tmpfs", "overlay", "btrfs", "nfsd", "fusectl"]) {
    it(`${type} is none`, () => assert.equal(mayHang({ type }), false));
  }
});
