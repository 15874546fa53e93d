import assert from "node:assert/strict";
import { mkdir, readFile, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES } from "../../../src/api/resources.ts";
import type {
  PersistentVolume,
  PersistentVolumeClaim,
  PersistentVolumeSpec,
  PodSpec,
} from "../../../src/api/types.gen.ts";
import { systemMounter } from "../../../src/kubelet/volumes/mounter.ts";
import { exec } from "../../../src/lib/exec.ts";
import { makeNode, type Node } from "../kubelet-volumes-local/node.ts";
import { testSignal } from "../runtime/fixture.ts";

/** A claim `data` that is bound to a volume `pv-data`. */
function bind(node: Node, spec: PersistentVolumeSpec): void {
  const { metadata } = node.api.put<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS, {
    metadata: { name: "data", namespace: "default" },
    spec: { volumeName: "pv-data" },
    status: { phase: "Bound" },
  });
  node.api.put<PersistentVolume>(PERSISTENT_VOLUMES, {
    metadata: { name: "pv-data" },
    spec: { ...spec, claimRef: { uid: metadata.uid } },
  });
}

function mounting(more: Partial<PodSpec> = {}, readOnly = false): Partial<PodSpec> {
  return {
    volumes: [{ name: "data", persistentVolumeClaim: { claimName: "data", readOnly } }],
    containers: [{ name: "main", volumeMounts: [{ name: "data", mountPath: "/data" }] }],
    ...more,
  };
}

async function loopsOf(path: string): Promise<readonly string[]> {
  const listed = await exec(["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"], {
    signal: testSignal(),
  });
  return listed.split("\n").filter((line) => line.includes(path));
}

/** A node with a disk of 64 MiB that holds nothing. */
async function withDisk(work: (node: Node, device: string) => Promise<void>): Promise<void> {
  await using node = await makeNode();
  const file = join(node.rootDir, "disk.img");
  await writeFile(file, "");
  await truncate(file, 64 * 1024 * 1024);
  const device = (
    await exec(["losetup", "--find", "--show", file], { signal: testSignal() })
  ).trim();
  try {
    await work(node, device);
    assert.deepEqual(await loopsOf(join(node.rootDir, "pods")), []);
  } finally {
    for (const { path } of systemMounter.table().below(node.rootDir)) {
      await systemMounter.unmount(path, testSignal());
    }
    await exec(["losetup", "--detach", device], { signal: testSignal() });
  }
}

test("a directory behind a claim is shared by pods, belongs to their group and outlives them", async () => {
  await using node = await makeNode();
  const path = join(node.rootDir, "ssd");
  await mkdir(path);
  bind(node, { local: { path } });
  const securityContext = { fsGroup: 4321 };
  node.put("a", mounting({ securityContext }));
  await node.ready("a");
  assert.equal((await node.run("a", "echo hello > /data/file; ls -ln /data/file")).exitCode, 0);
  const { gid } = await stat(join(path, "file"));
  assert.equal(gid, 4321);
  node.put("b", mounting({ securityContext: { fsGroup: 9999 } }, true));
  await node.ready("b");
  const { text } = await node.run("b", "cat /data/file; echo no > /data/other");
  assert.match(text, /^hello\n.*Read-only file system/s);
  assert(node.events.some((event) => event.startsWith("Warning AlreadyMountedVolume")));
  await node.restart();
  assert.equal((await node.run("a", "cat /data/file")).text, "hello");
  await node.remove("a");
  assert.equal((await node.run("b", "cat /data/file")).text, "hello");
  await node.remove("b");
  assert.equal(await readFile(join(path, "file"), "utf8"), "hello\n");
  assert.deepEqual(systemMounter.table().below(node.rootDir), []);
});

test("a directory that is not there is waited for and never made", async () => {
  await using node = await makeNode();
  const path = join(node.rootDir, "later");
  bind(node, { local: { path } });
  node.put("a", mounting());
  const words = `Warning FailedMount MountVolume.SetUp failed for volume "pv-data" : path "${path}" does not exist`;
  await node.until("it is said", () => node.events.includes(words));
  await assert.rejects(stat(path), { code: "ENOENT" });
  await mkdir(path);
  await node.ready("a");
  await node.remove("a");
});

test("an empty disk gets a file system once, and keeps what pods write to it", async () => {
  await withDisk(async (node, device) => {
    bind(node, { local: { path: device, fsType: "ext4" }, accessModes: ["ReadWriteOncePod"] });
    node.put("a", mounting());
    await node.ready("a");
    const written = await node.run("a", "echo kept > /data/file; busybox df -T /data");
    assert.match(written.text, /ext4/);
    node.put("b", mounting());
    await node.until("the other pod is refused", () =>
      node.events.some((event) =>
        event.endsWith(
          "volume uses the ReadWriteOncePod access mode and is already in use by another pod",
        ),
      ),
    );
    await node.remove("a");
    await node.ready("b");
    assert.equal((await node.run("b", "cat /data/file")).text, "kept");
    const uid = node.pod("b")?.metadata.uid ?? "";
    const [volume] = node.pods.view.volumes?.(uid) ?? [];
    const figures = await volume?.figures(testSignal());
    assert.equal(volume?.claim, "data");
    assert(figures !== undefined && figures.capacityBytes > 32 * 1024 ** 2);
    assert.equal(figures.inodes === undefined, false);
    await node.restart();
    await node.remove("b");
    const shared = join(node.rootDir, "plugins/kubernetes.io/local-volume/mounts/pv-data");
    await assert.rejects(stat(shared), { code: "ENOENT" });
  });
});

test("a disk with a partition table is not touched", async () => {
  await withDisk(async (node, device) => {
    // A master boot record with one partition of type Linux.
    const record = Buffer.alloc(512);
    record.writeUInt8(0x83, 450);
    record.writeUInt32LE(2048, 454);
    record.writeUInt32LE(4096, 458);
    record.writeUInt16LE(0xaa55, 510);
    await writeFile(device, record, { flag: "r+" });
    bind(node, { local: { path: device } });
    node.put("a", mounting());
    await node.until("it is said", () =>
      node.events.some((event) => event.includes("holds unknown data, probably partitions")),
    );
    const held = await exec(["blkid", "-p", "-s", "PTTYPE", "-o", "value", device], {
      signal: testSignal(),
    });
    assert.equal(held.trim(), "dos");
    await node.remove("a");
  });
});

test("a raw block volume is a device of the container, with the rights of its claim", async () => {
  await withDisk(async (node, device) => {
    bind(node, { local: { path: device }, volumeMode: "Block" });
    const spec = (readOnly: boolean): Partial<PodSpec> => ({
      ...mounting({}, readOnly),
      containers: [{ name: "main", volumeDevices: [{ name: "data", devicePath: "/dev/disk" }] }],
    });
    node.put("a", spec(false));
    await node.ready("a");
    const pods = join(node.rootDir, "pods");
    assert.equal((await loopsOf(pods)).length, 1);
    const put = await node.run("a", "printf raw | busybox dd of=/dev/disk conv=fsync 2>/dev/null");
    assert.equal(put.exitCode, 0);
    await node.restart();
    const uid = node.pod("a")?.metadata.uid ?? "";
    await node.until("it is set up again", () => (node.pods.view.volumes?.(uid) ?? []).length > 0);
    const [volume] = node.pods.view.volumes?.(uid) ?? [];
    assert.deepEqual(await volume?.figures(testSignal()), { capacityBytes: 64 * 1024 ** 2 });
    await node.remove("a");
    assert.deepEqual(await loopsOf(pods), []);
    node.put("b", spec(true));
    await node.ready("b");
    const read = await node.run("b", "busybox dd if=/dev/disk bs=3 count=1 2>/dev/null");
    assert.equal(read.text, "raw");
    const refused = await node.run("b", "busybox dd if=/dev/zero of=/dev/disk bs=1 count=1");
    assert.match(refused.text, /Operation not permitted/);
    await node.remove("b");
  });
});

test("a server that needs a program which is not there is told with the package that has it", async (context) => {
  const helper = await stat("/sbin/mount.nfs").catch(() => undefined);
  if (helper !== undefined) {
    context.skip("this machine has mount.nfs");
    return;
  }
  await using node = await makeNode();
  const volumes = [{ name: "data", nfs: { server: "192.0.2.1", path: "/export" } }];
  node.put("a", mounting({ volumes }));
  await node.until("it is said", () =>
    node.events.some((event) => event.includes("has no mount.nfs (Debian: package nfs-common)")),
  );
  await node.remove("a");
});
