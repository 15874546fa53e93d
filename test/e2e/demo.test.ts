import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { describe, test } from "node:test";

import { fetchDebianPackage } from "./lib/debian-package.ts";
import { Machine, root } from "./lib/machine.ts";
import { cannotRun, ownContainers, remoraUp } from "./lib/remora.ts";

const busybox = fetchDebianPackage("busybox");
const skip = cannotRun() ?? busybox.missing;

/** The machine's own directory for temporary files: /tmp is shared with this one. */
const scratch = "/run/scratch";

interface Report {
  readonly requests: Readonly<Record<string, number>>;
  readonly failed: number;
  readonly first_answer_s: number;
  readonly heal_s: number;
  readonly rollout_failed: number;
  readonly left_over: number;
}

/** A machine whose apt has the package of the demo's image in its cache, as there is no network to fetch it from. */
async function machineWithBusybox(name: string): Promise<Machine> {
  const machine = await Machine.start(name);
  const cache = "/run/apt-archives";
  await mkdir(machine.path(scratch), { recursive: true });
  await mkdir(machine.path(cache), { recursive: true });
  await machine.exec(["cp", busybox.file, cache]);
  await machine.exec(["mount", "--bind", cache, "/var/cache/apt/archives"]);
  return machine;
}

function checkReport(report: Report, output: string): void {
  assert.deepEqual(
    Object.keys(report),
    ["requests", "failed", "first_answer_s", "heal_s", "rollout_failed", "left_over"],
    output,
  );
  const counts = Object.values(report.requests);
  assert.equal(counts.length, 3, output);
  const total = counts.reduce((sum, count) => sum + count, 0);
  assert.ok(total >= 200, output);
  for (const count of counts) assert.ok(count >= (total / 3) * 0.35, output);
  for (const pod of Object.keys(report.requests))
    assert.match(pod, /^backend-[a-z0-9]+-[a-z0-9]+$/);
  assert.equal(report.failed, 0, output);
  assert.equal(report.rollout_failed, 0, output);
  assert.equal(report.left_over, 0, output);
  assert.ok(report.first_answer_s > 0, output);
  assert.ok(report.heal_s > 0, output);
}

async function runDemo(machine: Machine): Promise<{ report: Report; output: string }> {
  const argv = ["env", `TMPDIR=${scratch}`, `${root}/bin/remora`, "up", "--demo", "--exit"];
  const { exitCode, stdout, stderr } = await machine.exec(argv, {
    timeoutMs: 400_000,
    allowFailure: true,
  });
  const output = stdout + stderr;
  assert.equal(exitCode, 0, output);
  // oxlint-disable-next-line no-control-regex -- this is what must not be there
  assert.doesNotMatch(stdout, /\u001B/, "no control codes where there is no terminal");
  return { report: JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "") as Report, output };
}

async function leftovers(machine: Machine): Promise<string> {
  const images = (await machine.docker("GET", "/images/json?all=1")) as readonly {
    readonly RepoTags: readonly string[] | null;
  }[];
  const tags = images.flatMap(({ RepoTags }) => RepoTags ?? ["<none>"]);
  const containers = [...(await ownContainers(machine)).keys()];
  const files = await machine.exec(["sh", "-c", `ls ${scratch}`]);
  return [
    ...tags.filter((tag) => !tag.startsWith("remora.local/")),
    ...containers,
    ...files.stdout.split("\n").filter((line) => line !== ""),
  ].join("\n");
}

describe("remora up --demo --exit", { skip: skip ?? false }, () => {
  test("shows what it should, by stock kubectl, and leaves nothing", async () => {
    await using machine = await machineWithBusybox("demo");
    const { report, output } = await runDemo(machine);
    checkReport(report, output);
    assert.match(output, /played by kubectl v/);
    assert.equal(await leftovers(machine), "");
  });

  test("does the same without kubectl, a second time, and beside what the user has", async () => {
    await using machine = await machineWithBusybox("demob");
    const remora = await remoraUp(machine);
    await machine.kubectl(["create", "configmap", "mine", "--from-literal=a=b"]);
    await machine.kubectl(["create", "namespace", "mine"]);
    await remora.signal("TERM");
    await remora.exited;
    // A file that is no program hides the kubectl of this machine.
    const { stdout: kubectl } = await machine.exec(["sh", "-c", "command -v kubectl"]);
    await machine.exec(["mount", "--bind", "/dev/null", kubectl.trim()]);
    const first = await runDemo(machine);
    checkReport(first.report, first.output);
    assert.match(first.output, /played by the API itself/);
    const second = await runDemo(machine);
    checkReport(second.report, second.output);
    assert.equal(await leftovers(machine), "");
    await machine.exec(["umount", kubectl.trim()]);
    const again = await remoraUp(machine);
    const { stdout } = await machine.kubectl(["get", "namespace,configmap", "-o", "name"]);
    assert.match(stdout, /^namespace\/mine$/m);
    assert.match(stdout, /^configmap\/mine$/m);
    assert.doesNotMatch(stdout, /shop-demo/);
    await again.signal("TERM");
    await again.exited;
  });

  test("an interrupt in the middle cleans up; --exit alone is refused", async () => {
    await using machine = await machineWithBusybox("democ");
    const program = `${root}/bin/remora`;
    const refused = await machine.exec([program, "up", "--exit"], { allowFailure: true });
    assert.equal(refused.exitCode, 1);
    assert.match(refused.stderr, /give --demo too/);
    const demo = machine.spawn([program, "up", "--demo", "--exit"], { TMPDIR: scratch });
    const deadline = performance.now() + 120_000;
    while (!demo.output().includes("4. Kill a backend")) {
      assert.ok(performance.now() < deadline, demo.output());
      assert.equal(demo.child.exitCode, null, demo.output());
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await demo.signal("INT");
    assert.equal(await demo.exited, 1, demo.output());
    assert.match(demo.output(), /nothing of the demo is left/);
    assert.equal(await leftovers(machine), "", demo.output());
  });
});
