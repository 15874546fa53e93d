import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";

import { Cluster, isReady } from "./lib/cluster.ts";
import { Machine, type MachineProcess, root } from "./lib/machine.ts";
import { cannotRun, remoraDown, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();
const driverName = "csi.example.test";
const kubeletDir = "/var/lib/remora/kubelet";
/** Kept by the machine, and not Remora's. */
const dataDir = "/run/csi-data";

interface List<T> {
  readonly items: readonly T[];
}

interface Attachment {
  readonly metadata: { readonly name: string; readonly deletionTimestamp?: string };
  readonly status?: { readonly attached: boolean };
}

interface CSINode {
  /** An API server prints an empty list as null. */
  readonly spec: { readonly drivers: readonly object[] | null };
}

const objects = [
  {
    apiVersion: "storage.k8s.io/v1",
    kind: "CSIDriver",
    metadata: { name: driverName },
    spec: { attachRequired: true, podInfoOnMount: true },
  },
  {
    apiVersion: "v1",
    kind: "PersistentVolume",
    metadata: { name: "pv-data" },
    spec: {
      capacity: { storage: "1Gi" },
      accessModes: ["ReadWriteOnce"],
      persistentVolumeReclaimPolicy: "Retain",
      storageClassName: "outside",
      csi: { driver: driverName, volumeHandle: "vol-1" },
    },
  },
  {
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: { name: "data" },
    spec: {
      accessModes: ["ReadWriteOnce"],
      storageClassName: "outside",
      resources: { requests: { storage: "1Gi" } },
    },
  },
  {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "writer" },
    spec: {
      terminationGracePeriodSeconds: 1,
      containers: [
        {
          name: "c",
          image: "docker.io/library/busybox:1.36",
          command: ["sh", "-c", "echo hello >> /data/log; trap 'exit 0' TERM; sleep 9999 & wait"],
          volumeMounts: [{ name: "v", mountPath: "/data" }],
        },
      ],
      volumes: [{ name: "v", persistentVolumeClaim: { claimName: "data" } }],
    },
  },
];

function startDriver(machine: Machine): MachineProcess {
  const program = `${root}/test/fakes/csi-driver-process.ts`;
  return machine.spawn([`${root}/bin/node`, program, kubeletDir, dataDir]);
}

describe("a CSI driver, with stock kubectl", { skip: skip ?? false, concurrency: false }, () => {
  test("a pod has its volume, over a kill -9 of driver and agent, until it goes", async () => {
    await using machine = await Machine.start("csi");
    await machine.loadBusybox();
    let remora = await remoraUp(machine);
    const cluster = new Cluster(machine);
    cluster.processes.push(remora);
    const drivers = async (): Promise<number> => {
      const { spec } = await cluster.get<CSINode>("csinode", machine.name);
      return spec.drivers?.length ?? 0;
    };
    await cluster.until("an empty CSINode", async () => (await drivers()) === 0);

    let driver = startDriver(machine);
    await cluster.until("the driver", async () => (await drivers()) === 1);
    const listed = (await machine.kubectl(["get", "csinodes"])).stdout;
    assert.match(listed, new RegExp(`^${machine.name} +1 `, "m"));

    await cluster.create(...objects);
    const attachments = async (): Promise<readonly Attachment[]> =>
      (await cluster.get<List<Attachment>>("volumeattachments")).items;
    await cluster.until("an attachment", async () => (await attachments()).length === 1);
    assert.doesNotMatch(driver.output(), /^stage$/m, "it is not attached yet");
    const [attachment] = await attachments();
    assert(attachment !== undefined);
    // What external-attacher does.
    await machine.kubectl([
      "patch",
      "volumeattachment",
      attachment.metadata.name,
      "--subresource=status",
      "--type=merge",
      "-p",
      '{"status":{"attached":true}}',
    ]);
    await cluster.until("the pod", async () => (await cluster.pods()).some(isReady));
    const log = join(machine.path(dataDir), "vol-1/log");
    assert.equal(readFileSync(log, "utf8"), "hello\n");

    await driver.signal("KILL");
    await driver.exited;
    await remora.signal("KILL");
    await remora.exited;
    remora = await remoraUp(machine);
    cluster.processes.push(remora);
    driver = startDriver(machine);
    await cluster.until("the driver is back", async () => /^getInfo$/m.test(driver.output()));
    const shown = await machine.kubectl(["exec", "writer", "--", "cat", "/data/log"]);
    assert.equal(shown.stdout, "hello\n", "a restart replaces nothing");

    await machine.kubectl(["delete", "pod", "writer"]);
    await cluster.until("unstaging", async () => /^unstage$/m.test(driver.output()));
    await cluster.until("detaching", async () => (await attachments()).length === 0);
    assert.equal(readFileSync(log, "utf8"), "hello\n");
    const mounts = await machine.exec(["grep", "-c", "kubernetes.io.csi", "/proc/self/mounts"], {
      allowFailure: true,
    });
    assert.equal(mounts.stdout.trim(), "0");

    await remora.signal("TERM");
    assert.equal(await remora.exited, 0, remora.output());
    await driver.signal("KILL");
    await remoraDown(machine);
  });
});
