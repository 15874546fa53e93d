import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { createObject, deleteObject, patchObject } from "../../../src/api/objects.ts";
import {
  NODES,
  PERSISTENT_VOLUME_CLAIMS as CLAIMS,
  STORAGE_CLASSES,
} from "../../../src/api/resources.ts";
import {
  LOCAL_VOLUME_STEPS,
  type LocalVolumeStep,
} from "../../../src/kubelet/local-volumes/data-directories.ts";
import { MountTable } from "../../../src/kubelet/volumes/mount-table.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import {
  eventually,
  registerNode,
  startWorld,
  type World,
} from "../controlplane-controllers/world.ts";
import { claimIn, newClaim, volumeNamed } from "./builders.ts";
import { type NodePart, startNodePart } from "./node-part.ts";

let world: World;
let directory: string;
/** Ended with the tests, also those that failed. */
const parts: NodePart[] = [];
/** What the programs of project quota were called with. */
const calls: string[] = [];

before(async () => {
  world = await startWorld();
  directory = await mkdtemp(join(tmpdir(), "remora-volumes-"));
  await registerNode(world, "n1");
  const patch = { metadata: { labels: { "kubernetes.io/hostname": "n1" } } };
  await patchObject(world.client, NODES, { name: "n1", patch }, { signal: world.signal });
  await createObject(
    world.client,
    STORAGE_CLASSES,
    { metadata: { name: "now" }, provisioner: "remora.io/local", allowVolumeExpansion: true },
    { signal: world.signal },
  );
});
after(async () => {
  await Promise.all(parts.map((part) => part.stop()));
  await world.close();
  await rm(directory, { recursive: true, force: true });
});

/** The node's half on a file system with project quota; killed before a step, if one is named. */
function start(dieAt?: LocalVolumeStep): NodePart & { readonly dead: Promise<void> } {
  const { promise: dead, resolve: died } = Promise.withResolvers<void>();
  const { promise: stopped, reject: stop } = Promise.withResolvers<never>();
  stopped.catch(() => undefined);
  const part = startNodePart({
    world,
    client: world.client,
    directory,
    step: (name) => {
      if (name !== dieAt) return undefined;
      died();
      return stopped;
    },
    mounter: {
      table: () => new MountTable("1 0 8:1 / / rw shared:1 - ext4 /dev/sda1 rw,prjquota\n"),
    },
    runProgram: (argv) => {
      calls.push(argv.join(" "));
      return Promise.resolve({ exitCode: 0, stdout: "", stderr: "" });
    },
  });
  const node = {
    dead,
    stop: async () => {
      stop(new Error("killed"));
      await part.stop();
    },
  };
  parts.push(node);
  return node;
}

async function left(): Promise<readonly string[]> {
  const lists = await Promise.all(
    ["volumes", "records"].map((name) => readdir(join(directory, name)).catch(() => [])),
  );
  return lists.flat();
}

const makes = new Set<LocalVolumeStep>([
  "makeDirectory",
  "limitDirectory",
  "nameDirectory",
  "recordDirectory",
]);

for (const step of LOCAL_VOLUME_STEPS)
  test(`a node killed before ${step} leaves what the next start completes`, async () => {
    const name = step.toLowerCase();
    const wanted = newClaim({ name, storage: "1Mi", className: "now" });
    const first = start(makes.has(step) ? step : undefined);
    await createObject(world.client, CLAIMS, wanted, { signal: world.signal });
    const claim = await claimIn(world, name, "Bound");
    const volumeName = claim.spec?.volumeName ?? "";
    const path = (await volumeNamed(world, volumeName))?.spec?.local?.path ?? "";
    const isThere = async (): Promise<true | undefined> =>
      (await left()).includes(`${volumeName}.json`) ? true : undefined;
    if (makes.has(step)) await first.dead;
    else await eventually("the directory is made", isThere);
    await first.stop();

    const second = start(makes.has(step) ? undefined : step);
    await eventually("the directory is made", isThere);
    assert.equal((await stat(path)).mode & 0o7777, 0o777);
    assert.deepEqual(
      (await readdir(join(directory, "volumes"))).filter((entry) => entry.startsWith(".")),
      [],
    );
    await writeFile(join(path, "file"), "x");
    await deleteObject(world.client, CLAIMS, claim.metadata, { signal: world.signal });
    if (!makes.has(step)) await second.dead;
    else
      await eventually("the volume is gone", async () =>
        (await volumeNamed(world, volumeName)) === undefined ? true : undefined,
      );
    await second.stop();

    const third = start();
    await eventually("the volume is gone", async () =>
      (await volumeNamed(world, volumeName)) === undefined ? true : undefined,
    );
    await third.stop();
    assert.deepEqual(await left(), []);
  });

test("data that a pod still has mounted is not removed", async () => {
  const name = "mounted";
  const mounts = ["1 0 8:1 / / rw shared:1 - ext4 /dev/sda1 rw"];
  const node = startNodePart({
    world,
    client: world.client,
    directory,
    mounter: { table: () => new MountTable(mounts.join("\n")) },
  });
  parts.push(node);
  const wanted = newClaim({ name, storage: "1Mi", className: "now" });
  await createObject(world.client, CLAIMS, wanted, { signal: world.signal });
  const claim = await claimIn(world, name, "Bound");
  const volumeName = claim.spec?.volumeName ?? "";
  const path = (await volumeNamed(world, volumeName))?.spec?.local?.path ?? "";
  await eventually("the directory is made", async () =>
    (await left()).includes(`${volumeName}.json`) ? true : undefined,
  );
  const target = `${directory}/kubelet/pods/u/volumes/kubernetes.io~local-volume/${volumeName}`;
  mounts.push(`2 1 8:1 ${path} ${target} rw shared:1 - ext4 /dev/sda1 rw`);
  await deleteObject(world.client, CLAIMS, claim.metadata, { signal: world.signal });
  await eventually("the volume is being deleted", async () =>
    (await volumeNamed(world, volumeName))?.metadata.deletionTimestamp === undefined
      ? undefined
      : true,
  );
  await systemClock.sleep(50, world.signal);
  await stat(path);
  mounts.pop();
  await eventually("the volume is gone", async () =>
    (await volumeNamed(world, volumeName)) === undefined ? true : undefined,
  );
  await node.stop();
  assert.deepEqual(await left(), []);
});

test("the capacity is a limit of the file system, follows the claim, and is taken back", async () => {
  calls.length = 0;
  const node = start();
  await createObject(
    world.client,
    CLAIMS,
    newClaim({ name: "sized", storage: "1Gi", className: "now" }),
    { signal: world.signal },
  );
  const claim = await claimIn(world, "sized", "Bound");
  const limited = (text: string): Promise<true> =>
    eventually(`limit ${text}`, async () =>
      calls.some((call) => call.startsWith("setquota -P") && call.includes(text))
        ? true
        : undefined,
    );
  await limited(" 0 1048576 0 0 /");
  assert.match(calls.join("\n"), /^chattr \+P -p \d+ \/.*\/\.new-pvc-/m);
  const patch = { spec: { resources: { requests: { storage: "2Gi" } } } };
  await patchObject(
    world.client,
    CLAIMS,
    { namespace: "default", name: "sized", patch },
    { signal: world.signal },
  );
  await limited(" 0 2097152 0 0 /");
  await deleteObject(world.client, CLAIMS, claim.metadata, { signal: world.signal });
  await limited(" 0 0 0 0 /");
  await node.stop();
});
