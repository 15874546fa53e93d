import { execFileSync } from "node:child_process";
import { rm } from "node:fs/promises";
import { after, before, describe, test } from "node:test";

import { checks } from "./checks.ts";
import { machineImage, NoMirrorError, scratchDirectory } from "./lib/image.ts";
import { Node } from "./lib/node.ts";
import { makePayload } from "./lib/product.ts";

/** Why there can be no virtual machine here; undefined when there can. */
function cannotRun(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  if (process.arch !== "x64") return "needs a machine of the architecture amd64";
  for (const tool of ["qemu-system-x86_64", "debootstrap", "mke2fs", "busybox", "setpriv"]) {
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

/** Where the time goes: shown with VERBOSE=1. */
function tell(what: string): void {
  process.stderr.write(`vm: ${Math.round((performance.now() - started) / 1000)} s: ${what}\n`);
}

// A runner that was ended cannot end us; the machine ends with this process.
const runner = process.ppid;
setInterval(() => {
  if (process.ppid !== runner) process.kill(process.pid, "SIGKILL");
}, 1000).unref();

describe("a real machine with systemd, cgroup v2 and Docker's systemd driver", { skip }, () => {
  let node: Node | undefined;
  let missing: string | undefined;

  before(async () => {
    const scratch = await scratchDirectory();
    try {
      const image = await machineImage();
      const payload = await makePayload(scratch);
      tell("the image is there");
      node = await Node.start({ image, disks: [payload] });
      tell("the machine has booted");
    } catch (error) {
      if (!(error instanceof NoMirrorError)) throw error;
      missing = error.message;
      return;
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
    for (const { prepare } of checks) await prepare?.(node);
    await node.up();
    tell("the node is ready");
    for (const { objects = [] } of checks) for (const object of objects) await node.create(object);
  });

  after(async () => {
    await node?.[Symbol.asyncDispose]();
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
