import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";

import { checks } from "./checks.ts";
import { NoMirrorError } from "./lib/image.ts";
import { Node } from "./lib/node.ts";
import { provider } from "./lib/start-machine.ts";
import { accelerator } from "./lib/virtual-machine.ts";

const tools = {
  qemu: ["qemu-system-x86_64", "debootstrap", "mke2fs", "busybox", "setpriv", "dpkg-deb"],
  vagrant: ["vagrant", "ssh", "busybox", "dpkg-deb"],
} as const;

/** Why there can be no machine here; undefined when there can. */
function cannotRun(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  if (process.arch !== "x64") return "needs a machine of the architecture amd64";
  for (const tool of tools[provider]) {
    try {
      execFileSync("sh", ["-c", `command -v ${tool}`], { stdio: "ignore" });
    } catch {
      return `needs ${tool} on this machine`;
    }
  }
  return undefined;
}

const skip = cannotRun() ?? false;

const started = performance.now();
const seconds = (): number => Math.round((performance.now() - started) / 1000);

/** Where the time goes: shown with VERBOSE=1. */
function tell(what: string): void {
  process.stderr.write(`vm: ${seconds()} s: ${what}\n`);
}

// A runner that was ended cannot end us; the machine ends with this process.
const runner = process.ppid;
setInterval(() => {
  if (process.ppid !== runner) process.kill(process.pid, "SIGKILL");
}, 1000).unref();

test("the list has at most 25 checks", () => {
  assert.ok(checks.length <= 25, `${checks.length}`);
});

describe("a real machine with systemd, cgroup v2 and Docker's systemd driver", { skip }, () => {
  let node: Node | undefined;
  let missing: string | undefined;

  before(async () => {
    try {
      node = await Node.start();
    } catch (error) {
      if (!(error instanceof NoMirrorError)) throw error;
      missing = error.message;
      return;
    }
    tell("the machine has booted");
    for (const { prepare } of checks) await prepare?.(node);
    tell("it has what the checks need");
    await node.install();
    tell("the package is installed");
    await node.up();
    tell("the node is ready");
    for (const { objects = [] } of checks) for (const object of objects) await node.create(object);
  });

  after(async () => {
    await node?.[Symbol.asyncDispose]();
    const file = process.env["REMORA_TEST_FIGURES"];
    if (file === undefined || node === undefined) return;
    const by = provider === "qemu" ? `qemu, ${accelerator()}` : provider;
    writeFileSync(file, JSON.stringify({ machine: by, seconds: seconds(), ...node.figures }));
  });

  for (const { name, run } of checks) {
    test(name, async (context) => {
      if (node === undefined) {
        context.skip(missing ?? "the machine did not start");
        return;
      }
      const reason = await run(node);
      if (typeof reason === "string") context.skip(reason);
      tell(name);
    });
  }
});
