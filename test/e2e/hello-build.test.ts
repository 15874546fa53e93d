import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { describe, test } from "node:test";

import { fetchDebianPackage } from "./lib/debian-package.ts";
import { eventually, Machine, type MachineProcess, root } from "./lib/machine.ts";
import { shellBlocks } from "./lib/markdown.ts";
import { cannotRun, remoraUp } from "./lib/remora.ts";

const busybox = fetchDebianPackage("busybox");
const registry = fetchDebianPackage("docker-registry");

function noDocker(): string | undefined {
  try {
    execFileSync("sh", ["-c", "command -v docker"], { stdio: "ignore" });
    return undefined;
  } catch {
    return "needs the docker command line";
  }
}

const skip = cannotRun() ?? noDocker() ?? busybox.missing ?? registry.missing;
const verbose = process.env["VERBOSE"] !== undefined;

/** A directory of the machine with a copy of the examples, so that the checkout stays as it is. */
const walk = "/run/walk";

/** A machine with what the pages need: a node, the examples, and packages in the place of a network. */
async function prepare(name: string): Promise<{ machine: Machine; remora: MachineProcess }> {
  const machine = await Machine.start(name);
  await mkdir(machine.path("/run/apt-archives"), { recursive: true });
  await machine.exec(["cp", busybox.file, "/run/apt-archives"]);
  await machine.exec(["mount", "--bind", "/run/apt-archives", "/var/cache/apt/archives"]);
  await machine.exec(["dpkg-deb", "-x", registry.file, "/run/registry"]);
  await machine.exec(["sh", "-c", `mkdir ${walk} && cp -r ${root}/examples ${walk}/examples`]);
  return { machine, remora: await remoraUp(machine) };
}

/** Runs one block as a reader would paste it, but stops at its first failure. Returns what it printed. */
async function paste(machine: Machine, block: string): Promise<string> {
  const script = `cd ${walk} && export PATH=$PATH:/run/registry/usr/bin && set -ex\n${block}`;
  const result = await machine.exec(["bash", "-c", script], {
    allowFailure: true,
    timeoutMs: 180_000,
  });
  if (verbose) process.stderr.write(`${result.stderr}${result.stdout}\n`);
  if (result.exitCode !== 0) {
    const state = await machine.exec(["kubectl", "describe", "pods"], { allowFailure: true });
    assert.fail(
      `${block}\nended with ${result.exitCode}:\n${result.stderr}${result.stdout}${state.stdout}`,
    );
  }
  return result.stdout;
}

async function stop(remora: MachineProcess): Promise<void> {
  await remora.signal("TERM");
  assert.equal(await remora.exited, 0, remora.output());
}

describe("pages whose commands a reader pastes", { skip: skip ?? false }, () => {
  test("examples/hello/README.md: from docker build to an answer through the Service", async () => {
    const prepared = await prepare("walk");
    await using machine = prepared.machine;
    let printed = "";
    let served: MachineProcess | undefined;
    for (const block of await shellBlocks(`${root}/examples/hello/README.md`)) {
      if (!block.includes("registry.sh")) {
        printed += await paste(machine, block);
        continue;
      }
      const command = `cd ${walk} && export PATH=$PATH:/run/registry/usr/bin && exec ${block}`;
      served = machine.spawn(["sh", "-c", command]);
      await eventually(
        async () => {
          const argv = ["curl", "-s", "-o", "/dev/null", "http://127.0.0.1:5000/v2/"];
          return (await machine.exec(argv, { allowFailure: true })).exitCode === 0 || undefined;
        },
        { timeoutMs: 20_000, describe: () => served?.output() ?? "" },
      );
    }
    assert.equal(printed.match(/greetings from greeting-/g)?.length, 2, printed);
    assert.match(printed, /refused +0\/1 +(ErrImagePull|ImagePullBackOff)/);
    assert.match(printed, /unauthorized: authentication required/);
    assert.doesNotMatch(printed + prepared.remora.output(), /secret-word|guess/);
    await served?.signal("INT");
    assert.equal(await served?.exited, 0, served?.output());
    await stop(prepared.remora);
  });

  test("docs/docker-to-kubectl.md", async () => {
    const prepared = await prepare("page");
    await using machine = prepared.machine;
    let printed = "";
    for (const block of await shellBlocks(`${root}/docs/docker-to-kubectl.md`)) {
      printed += await paste(machine, block);
    }
    assert.match(printed, /you said: hello/);
    assert.match(printed, /greetings from web/);
    assert.match(printed, /k8s_POD_web-/);
    await stop(prepared.remora);
  });
});
