import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";

import { Cluster, isReady } from "./lib/cluster.ts";
import { Machine, Machines, root } from "./lib/machine.ts";
import { cannotRun, joinArguments, remoraDown, remoraJoin, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();

interface VolumeItem {
  readonly metadata: { readonly name: string };
  readonly spec: { readonly local: { readonly path: string } };
  readonly status: { readonly phase: string };
}

async function volumes(cluster: Cluster): Promise<readonly VolumeItem[]> {
  return (await cluster.get<{ items: readonly VolumeItem[] }>("pv")).items;
}

/** Names in a directory of a machine. */
function namesIn(machine: Machine, directory: string): readonly string[] {
  const path = machine.path(directory);
  return existsSync(path) ? readdirSync(path) : [];
}

const claim = {
  apiVersion: "v1",
  kind: "PersistentVolumeClaim",
  metadata: { name: "data" },
  spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "8Mi" } } },
};

/** Appends a line to the claim's file and stays. */
function writer(name: string, nodeSelector?: Readonly<Record<string, string>>): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name },
    spec: {
      ...(nodeSelector === undefined ? {} : { nodeSelector }),
      terminationGracePeriodSeconds: 1,
      containers: [
        {
          name: "c",
          image: "docker.io/library/busybox:1.36",
          command: ["sh", "-c", `echo ${name} >> /data/log; trap 'exit 0' TERM; sleep 9999 & wait`],
          volumeMounts: [{ name: "v", mountPath: "/data" }],
        },
      ],
      volumes: [{ name: "v", persistentVolumeClaim: { claimName: "data" } }],
    },
  };
}

describe("claims, with stock kubectl", { skip: skip ?? false, concurrency: false }, () => {
  test("examples/notes.yaml: data outlives pods and restarts, goes with its claim, and stays through down", async () => {
    await using machine = await Machine.start("stor");
    await machine.loadBusybox();
    let remora = await remoraUp(machine);
    const cluster = new Cluster(machine);
    cluster.processes.push(remora);
    const one = async (besides?: string): Promise<string> => {
      let name = "";
      await cluster.until("one pod, ready", async () => {
        const pods = await cluster.pods();
        name = pods[0]?.metadata.name ?? "";
        return pods.length === 1 && pods.every(isReady) && name !== besides;
      });
      return name;
    };

    await machine.kubectl(["create", "-f", `${root}/examples/notes.yaml`]);
    const first = await one();
    const described = (await machine.kubectl(["describe", "pvc", "notes"])).stdout;
    const [, path = ""] = /its data is in (\S+) on node node1$/m.exec(described) ?? [];
    assert.match(path, /^\/var\/lib\/remora\/volumes\/pvc-\S+_default_notes$/, described);
    assert.ok(described.includes(`remora.io/local-volume: node1:${path}`), described);
    assert.match(described, /CapacityNotEnforced +\S+ +\S+ +capacity is not enforced: /);
    const file = join(machine.path(path), "index.html");
    assert.match(readFileSync(file, "utf8"), new RegExp(`^[^\n]* written by ${first}\n$`));

    await machine.kubectl(["delete", "pod", first]);
    const second = await one(first);
    assert.match(
      readFileSync(file, "utf8"),
      new RegExp(`written by ${first}\n[^\n]* written by ${second}\n$`),
    );

    await remora.signal("KILL");
    await remora.exited;
    remora = await remoraUp(machine);
    cluster.processes.push(remora);
    assert.equal(await one(), second, "a restart replaces nothing");
    const shown = await machine.kubectl(["exec", second, "--", "cat", "/data/index.html"]);
    assert.equal(shown.stdout, readFileSync(file, "utf8"));

    await machine.kubectl(["delete", "-f", `${root}/examples/notes.yaml`]);
    await cluster.until("no volume", async () => (await volumes(cluster)).length === 0);
    assert.deepEqual(namesIn(machine, "/var/lib/remora/volumes"), []);

    // Retained: the claim goes, its data does not.
    await cluster.create(claim, writer("keeper"));
    await one();
    const [volume] = await volumes(cluster);
    assert.ok(volume !== undefined);
    const { name } = volume.metadata;
    const retain = JSON.stringify({ spec: { persistentVolumeReclaimPolicy: "Retain" } });
    await machine.kubectl(["patch", "pv", name, "-p", retain]);
    await machine.kubectl(["delete", "pod/keeper", "pvc/data"]);
    await cluster.until("the volume is released", async () =>
      (await volumes(cluster)).every(({ status }) => status.phase === "Released"),
    );
    const kept = join(machine.path(volume.spec.local.path), "log");
    assert.equal(readFileSync(kept, "utf8"), "keeper\n");

    await remora.signal("TERM");
    assert.equal(await remora.exited, 0, remora.output());
    const report = await remoraDown(machine);
    assert.match(report, /the data of claims \(1\) stays in \/var\/lib\/remora\/volumes;/);
    assert.match(report, /nothing else is left of remora/);
    assert.equal(readFileSync(kept, "utf8"), "keeper\n");
    assert.deepEqual(namesIn(machine, "/var/lib/remora"), ["volumes"]);
    assert.match(await remoraDown(machine, ["--delete-volumes"]), /nothing is left of remora/);
    assert.deepEqual(namesIn(machine, "/var/lib/remora"), []);
  });

  test("a pod goes where its volume is, and the node that has the data removes it", async () => {
    await using machines = await Machines.start("stor", 2);
    const [one, two] = machines.all;
    assert.ok(one !== undefined && two !== undefined);
    for (const machine of machines.all) await machine.loadBusybox();
    const cluster = new Cluster(one);
    cluster.processes.push(await remoraUp(one));
    cluster.processes.push(await remoraJoin(two, await joinArguments(one)));
    const ready = async (name: string): Promise<string> => {
      let node = "";
      await cluster.until(`${name} is ready`, async () => {
        const pod = (await cluster.pods()).find(({ metadata }) => metadata.name === name);
        node = pod?.spec.nodeName ?? "";
        return pod !== undefined && isReady(pod);
      });
      return node;
    };

    await cluster.create(claim, writer("first", { "kubernetes.io/hostname": two.name }));
    assert.equal(await ready("first"), two.name);
    await one.kubectl(["delete", "pod", "first"]);
    await cluster.create(writer("second"));
    assert.equal(await ready("second"), two.name, "the pod follows its data");
    const [volume] = await volumes(cluster);
    const path = volume?.spec.local.path ?? "";
    assert.match(path, /^\/var\/lib\/kubelet\/local-volumes\//);
    const { stdout } = await two.exec(["cat", join(path, "log")]);
    assert.equal(stdout, "first\nsecond\n");

    await one.kubectl(["delete", "pod/second", "pvc/data"]);
    await cluster.until("no volume", async () => (await volumes(cluster)).length === 0);
    const left = await two.exec(["ls", "/var/lib/kubelet/local-volumes"]);
    assert.equal(left.stdout, "");
  });
});
