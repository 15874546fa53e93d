import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { ImageAccounts } from "../../../src/runtime/docker/image-accounts.ts";
import { isRuntimeFailure } from "../../../src/runtime/errors.ts";
import type { ContainerConfig, LinuxUser, SandboxRecord } from "../../../src/runtime/types.ts";
import {
  createFixture,
  eventually,
  type Fixture,
  runScript,
  sandboxConfig,
  security,
  sleeper,
  testSignal,
} from "./fixture.ts";

let fixture: Fixture;
let sandbox: SandboxRecord;
let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "remora-setup-"));
  fixture = await createFixture();
  sandbox = await fixture.runtime.runPodSandbox(sandboxConfig(), testSignal());
});
after(async () => {
  await fixture[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

let counter = 0;

/** Runs a script to its end in a container of the common sandbox; what it printed. */
async function output(script: string, over: Partial<ContainerConfig> = {}): Promise<string> {
  const name = `c${(counter += 1)}`;
  const id = await runScript(fixture, sandbox, script, {
    name,
    ...over,
  });
  await eventually(async () => {
    const { containers } = await fixture.runtime.podRecord(sandbox.metadata.uid, testSignal());
    return containers.find((found) => found.id === id && found.state.kind === "exited");
  }, `${name} ends`);
  const path = await fixture.runtime.containerLogPath(id, testSignal());
  const lines = (await readFile(path ?? "", "utf8")).split("\n").filter((line) => line !== "");
  return lines.map((line) => (JSON.parse(line) as { log: string }).log).join("");
}

const withSecurity = (over: Partial<typeof security>): Pick<ContainerConfig, "security"> => ({
  security: { ...security, ...over },
});

/** A line of the process's own /proc/self/status. */
async function status(field: string, over: Partial<typeof security>): Promise<string> {
  const text = await output("busybox cat /proc/self/status", withSecurity(over));
  return new RegExp(`^${field}:\\s*(\\S+)$`, "m").exec(text)?.[1] ?? "";
}

describe("what a process finds itself with", () => {
  const bit = { CHOWN: 0, NET_BIND_SERVICE: 10, NET_ADMIN: 12, NET_RAW: 13 };
  const has = (mask: string, name: keyof typeof bit): boolean =>
    ((BigInt(`0x${mask}`) >> BigInt(bit[name])) & 1n) === 1n;

  it("the engine's fourteen capabilities", async () => {
    assert.equal(await status("CapEff", {}), "00000000a80425fb");
  });
  it("drop ALL, add one: exactly that one", async () => {
    const mask = await status("CapEff", {
      addCapabilities: ["NET_BIND_SERVICE"],
      dropCapabilities: ["ALL"],
    });
    assert.equal(BigInt(`0x${mask}`), 1n << 10n);
  });
  it("drop ALL, add ALL: none", async () => {
    const over = { addCapabilities: ["ALL"], dropCapabilities: ["ALL"] };
    assert.equal(await status("CapEff", over), "0000000000000000");
  });
  it("one more and one less", async () => {
    const over = { addCapabilities: ["NET_ADMIN"], dropCapabilities: ["CAP_NET_RAW"] };
    const mask = await status("CapEff", over);
    assert.deepEqual([has(mask, "NET_ADMIN"), has(mask, "NET_RAW")], [true, false]);
  });
  it("add ALL, drop one: that one is missing", async () => {
    const mask = await status("CapEff", { addCapabilities: ["ALL"], dropCapabilities: ["CHOWN"] });
    assert.deepEqual([has(mask, "NET_ADMIN"), has(mask, "CHOWN")], [true, false]);
  });
  it("capabilities in its bounding set only, when it is not root", async () => {
    const over = { runAsUser: 1000, addCapabilities: ["NET_ADMIN"] };
    const text = await output("busybox cat /proc/self/status", withSecurity(over));
    assert.match(text, /^CapEff:\t0{16}$/m);
    const bounding = /^CapBnd:\t(\S+)$/m.exec(text)?.[1] ?? "0";
    assert.equal(has(bounding, "NET_ADMIN"), true);
  });
  it("no_new_privs when escalation is forbidden, and not otherwise", async () => {
    assert.equal(await status("NoNewPrivs", { noNewPrivileges: true }), "1");
    assert.equal(await status("NoNewPrivs", {}), "0");
  });
  it("no seccomp filter, the engine's, or the pod's own", async () => {
    assert.equal(await status("Seccomp", { seccomp: { kind: "unconfined" } }), "0");
    assert.equal(await status("Seccomp", { seccomp: { kind: "runtimeDefault" } }), "2");
    const profile = JSON.stringify({
      defaultAction: "SCMP_ACT_ALLOW",
      syscalls: [{ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO" }],
    });
    const text = await output(
      "busybox mkdir /made 2>&1; busybox touch /touched && echo touched",
      withSecurity({ seccomp: { kind: "localhost", profile } }),
    );
    assert.match(text, /Operation not permitted\ntouched\n$/);
  });
  it("a root that cannot be written, and a volume that can", async () => {
    const volume = join(directory, "volume");
    await mkdir(volume);
    const text = await output("exec 2>&1; echo x >/v/a; echo x >/b; busybox cat /v/a", {
      ...withSecurity({ readOnlyRootFilesystem: true }),
      mounts: [{ hostPath: volume, containerPath: "/v", readOnly: false, propagation: "private" }],
    });
    assert.match(text, /can't create \/b: Read-only file system\n/);
    assert.match(text, /^x$/m);
  });
  it("the whole host, which holds the engine's own directory", async () => {
    const text = await output("exec 2>&1; busybox cat /host/proc/1/comm; busybox ls /host", {
      mounts: [{ hostPath: "/", containerPath: "/host", readOnly: true, propagation: "private" }],
    });
    assert.match(text, /^etc$/m);
  });
  it("masked and read-only files of /proc, or all of it open", async () => {
    const look =
      "exec 2>&1; busybox grep -c ' /proc/' /proc/mounts; echo 0 >/proc/sys/kernel/domainname";
    const masked = await output(look);
    assert.ok(Number(masked.split("\n")[0]) >= 6, masked);
    assert.match(masked, /Read-only file system/);
    const open = await output(look, withSecurity({ unmaskedProc: true }));
    assert.equal(open.split("\n")[0], "0");
    assert.doesNotMatch(open, /Read-only file system/);
  });
  it("a working directory, arguments and a terminal", async () => {
    const text = await output("busybox pwd; busybox test -t 1 && echo terminal", {
      workingDir: "/made/for/it",
      tty: true,
    });
    assert.equal(text, "/made/for/it\r\nterminal\r\n");
  });
});

describe("the stop signal", () => {
  it("is the one that was asked for, not the image's", async () => {
    const script =
      "trap 'exit 7' USR1; trap 'exit 8' TERM; echo ready; while :; do busybox sleep 0.1; done";
    const id = await runScript(fixture, sandbox, script, { name: "stop", stopSignal: "SIGUSR1" });
    await eventually(async () => {
      const path = await fixture.runtime.containerLogPath(id, testSignal());
      return (await readFile(path ?? "", "utf8")).includes("ready") ? true : undefined;
    }, "the traps are set");
    await fixture.runtime.stopContainer(id, 10, testSignal());
    const { containers } = await fixture.runtime.podRecord(sandbox.metadata.uid, testSignal());
    const state = containers.find((found) => found.id === id)?.state;
    assert.equal(state?.kind === "exited" ? state.exitCode : state?.kind, 7);
  });
});

describe("standard input", () => {
  const attached = async (stdinOnce: boolean): Promise<string> => {
    const id = await runScript(fixture, sandbox, "busybox cat; echo end", {
      name: `in${(counter += 1)}`,
      stdin: true,
      stdinOnce,
    });
    const state = async (): Promise<string> => {
      const { containers } = await fixture.runtime.podRecord(sandbox.metadata.uid, testSignal());
      return containers.find((found) => found.id === id)?.state.kind ?? "";
    };
    const say = async (text: string): Promise<void> => {
      const session = await fixture.runtime.attach(id, { stdin: true, tty: false }, testSignal());
      await session.writeStdin(Buffer.from(text));
      const echoed = async (): Promise<void> => {
        for await (const { chunk } of session.output) {
          if (Buffer.from(chunk).toString().includes(text)) return;
        }
      };
      await echoed();
      session.closeStdin();
      await session.abort();
    };
    await say("first\n");
    if (stdinOnce) {
      return eventually(async () => ((await state()) === "exited" ? "exited" : undefined), "end");
    }
    // A second client is heard as well: the input of the first did not end that of the process.
    await say("second\n");
    const last = await state();
    await fixture.runtime.stopContainer(id, 0, testSignal());
    return last;
  };
  it("ends with its first client where it is for one only, and stays open otherwise", async () => {
    assert.equal(await attached(true), "exited");
    assert.equal(await attached(false), "running");
  });
});

describe("as whom a process starts", () => {
  it("a glance at the image's layers tells what its files in a container do", async () => {
    const accounts = new ImageAccounts(fixture.client, {
      nodeName: "test-node",
      scope: fixture.scope,
    });
    // First: what the exact look finds would be remembered. No layers here is no mistake.
    const glanced = await accounts.glance(fixture.busybox, testSignal());
    const read = await accounts.read(fixture.busybox, testSignal());
    assert.match(read.passwd, /^web:x:1000:1000:/m);
    assert.deepEqual(glanced ?? read, read);
  });
  // The image knows web: 1000:1000, also a member of media (3000).
  const cases: readonly (readonly [Partial<typeof security>, string])[] = [
    [{}, "0 0 [0]"],
    [{ runAsUser: 1000 }, "1000 1000 [1000,3000]"],
    [{ runAsUser: 1000, supplementalGroupsPolicy: "Strict" }, "1000 1000 [1000]"],
    [{ runAsUser: 1000, runAsGroup: 2000 }, "1000 2000 [2000,3000]"],
    [{ runAsUser: 1000, supplementalGroups: [4000, 60] }, "1000 1000 [1000,3000,4000,60]"],
    [
      { runAsUser: 1000, supplementalGroups: [4000], supplementalGroupsPolicy: "Strict" },
      "1000 1000 [1000,4000]",
    ],
    [{ runAsUser: 77, supplementalGroups: [5] }, "77 0 [0,5]"],
  ];
  for (const [over, expected] of cases) {
    it(`${JSON.stringify(over)}: ${expected}, by the record, in the process and in an exec`, async () => {
      const name = `u${(counter += 1)}`;
      const id = await runScript(fixture, sandbox, sleeper, { name, ...withSecurity(over) });
      const { containers } = await fixture.runtime.podRecord(sandbox.metadata.uid, testSignal());
      const user: LinuxUser | undefined = containers.find((found) => found.id === id)?.user;
      assert.ok(user !== undefined);
      assert.equal(`${user.uid} ${user.gid} ${JSON.stringify(user.supplementalGroups)}`, expected);
      const ids = async (path: string): Promise<readonly [string, string, readonly string[]]> => {
        const { stdout } = await fixture.runtime.execSync(
          id,
          ["/bin/busybox", "cat", path],
          { timeoutMs: 10_000, maxBytes: 10_000 },
          testSignal(),
        );
        const text = Buffer.from(stdout).toString();
        const line = (field: string): readonly string[] =>
          (new RegExp(`^${field}:\\s*(.*)$`, "m").exec(text)?.[1] ?? "").trim().split(/\s+/);
        const groups = new Set([...line("Groups"), line("Gid")[0] ?? ""]);
        return [line("Uid")[0] ?? "", line("Gid")[0] ?? "", [...groups].filter(Boolean).toSorted()];
      };
      const wanted = [
        String(user.uid),
        String(user.gid),
        user.supplementalGroups.map(String).toSorted(),
      ];
      assert.deepEqual(await ids("/proc/1/status"), wanted);
      assert.deepEqual(await ids("/proc/self/status"), wanted, "an exec is the same person");
      await fixture.runtime.stopContainer(id, 0, testSignal());
    });
  }
});

describe("whose processes a container sees", () => {
  const first = "busybox tr '\\0' ' ' </proc/1/cmdline; echo; busybox readlink /proc/self/ns/pid";
  it("its own, the pod's, the node's, or a target's", async () => {
    assert.match(await output(first), /^\/bin\/busybox sh -c/);
    assert.match(await output(first, { pid: "pod" }), /^\/pause/);
    const node = await output(first, { pid: "node" });
    assert.equal(node.trim().split("\n").at(-1), await readlink("/proc/self/ns/pid"));
    const target = await runScript(fixture, sandbox, sleeper, { name: "target" });
    const text = await output("busybox cat /proc/1/cmdline", { targetContainerID: target });
    assert.match(text, /trap/);
    await fixture.runtime.stopContainer(target, 0, testSignal());
  });
});

describe("mounts", () => {
  it("are private, follow the node, or reach it; read-only where asked", async () => {
    const shared = join(directory, "shared");
    await mkdir(join(shared, "inner"), { recursive: true });
    execFileSync("mount", ["-t", "tmpfs", "tmpfs", shared]);
    try {
      execFileSync("mount", ["--make-shared", shared]);
      await mkdir(join(shared, "inner"));
      const mount = (
        containerPath: string,
        propagation: "private" | "hostToContainer" | "bidirectional",
        readOnly = false,
      ): ContainerConfig["mounts"][number] => ({
        hostPath: shared,
        containerPath,
        readOnly,
        propagation,
      });
      const id = await runScript(fixture, sandbox, sleeper, {
        name: "propagation",
        mounts: [
          mount("/private", "private"),
          mount("/slave", "hostToContainer"),
          mount("/shared", "bidirectional"),
          mount("/ro", "private", true),
        ],
      });
      execFileSync("mount", ["-t", "tmpfs", "tmpfs", join(shared, "inner")]);
      await writeFile(join(shared, "inner", "late"), "late");
      const script = [
        "for d in private slave shared; do busybox test -e /$d/inner/late && echo $d; done",
        "busybox touch /ro/x 2>&1",
        "busybox grep -E ' /(private|slave|shared|ro) ' /proc/self/mountinfo | busybox awk '{print $5, $6, $7}'",
      ].join("; ");
      const { stdout } = await fixture.runtime.execSync(
        id,
        ["/bin/busybox", "sh", "-c", script],
        { timeoutMs: 10_000, maxBytes: 10_000 },
        testSignal(),
      );
      const text = Buffer.from(stdout).toString();
      assert.match(text, /^slave\nshared\ntouch: \/ro\/x: Read-only file system\n/);
      assert.match(text, /^\/slave rw\S* master:/m);
      assert.match(text, /^\/shared rw\S* shared:/m);
      assert.match(text, /^\/ro ro\S* -$/m);
      await fixture.runtime.stopContainer(id, 0, testSignal());
    } finally {
      execFileSync("umount", ["-R", shared]);
    }
  });
  it("refuse to be read-only as a whole tree on an engine that cannot", async () => {
    const { features } = await fixture.runtime.connect(testSignal());
    const create = runScript(fixture, sandbox, "busybox grep ' /t' /proc/mounts", {
      name: "tree",
      mounts: [
        {
          hostPath: directory,
          containerPath: "/t",
          readOnly: true,
          propagation: "private",
          recursiveReadOnly: true,
        },
      ],
    });
    if (features.has("recursiveReadOnlyMounts")) await create;
    else await assert.rejects(create, (error) => isRuntimeFailure(error, "Unsupported"));
  });
});

describe("an AppArmor profile", () => {
  it("that cannot be applied keeps the container from being made", async () => {
    await assert.rejects(
      runScript(fixture, sandbox, "exit 0", {
        name: "armour",
        ...withSecurity({ appArmor: { kind: "localhost", profile: "remora-not-there" } }),
      }),
      (error) => isRuntimeFailure(error, "Unsupported") && /apparmor/i.test(String(error)),
    );
  });
});
