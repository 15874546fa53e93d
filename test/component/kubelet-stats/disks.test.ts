import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import { measureTrees } from "../../../src/kubelet/stats/tree-usage.ts";
import type { Summary } from "../../../src/kubelet/stats/summary-types.ts";
import { until } from "../api/manual-clock.ts";
import { parsePrometheus } from "../../fakes/prometheus-text.ts";
import { bench, type Bench, disk, neverAborted, pids, uid } from "./fixture.ts";

const layer = "/var/lib/docker/overlay2/x/diff";
const volume = (plugin: string, name: string): string =>
  `/kubelet/pods/${uid}/volumes/kubernetes.io~${plugin}/${name}`;

function withDisks(node: Bench): Bench {
  const [, main] = pids[2];
  node.files.texts.set(
    `/proc/${main}/mountinfo`,
    `1 2 0:50 / / rw - overlay overlay rw,lowerdir=l/A,upperdir=${layer},workdir=/w\n`,
  );
  node.trees.set(layer, 100);
  node.trees.set(volume("empty-dir", "scratch"), 20);
  node.trees.set(volume("empty-dir", "memory"), 50);
  node.trees.set(volume("configmap", "settings"), 3);
  node.trees.set(`/kubelet/pods/${uid}/etc-hosts`, 4);
  return node;
}

/** Asks for the summary and lets pass what it waits for. */
async function ask(node: Bench): Promise<Summary> {
  return node.statistics.summary(false, neverAborted);
}

describe("disk usage", () => {
  test("layers, volumes and files of a pod are what the walk found, and add up", async () => {
    const node = withDisks(bench(2));
    const { pods } = await ask(node);
    const [pod] = pods;
    const time = new Date(node.clock.now()).toISOString().replace(/\.\d+Z$/, "Z");
    assert.deepEqual(pod?.containers[0]?.rootfs, {
      time,
      availableBytes: 600,
      capacityBytes: 1000,
      usedBytes: 100,
      inodesFree: 90,
      inodes: 100,
      inodesUsed: 2,
    });
    assert.deepEqual(
      pod?.volume?.map(({ name, usedBytes }) => [name, usedBytes]),
      [
        ["scratch", 20],
        ["memory", 50],
        ["settings", 3],
      ],
    );
    // Without the volume in memory: that is counted with the container's memory.
    assert.equal(pod?.["ephemeral-storage"]?.usedBytes, 100 + 20 + 3 + 4);
    assert.equal(pod?.["ephemeral-storage"]?.inodesUsed, 8);
  });

  test("a directory of the host is not the pod's", async () => {
    const node = withDisks(bench(2));
    await ask(node);
    assert.ok(node.walks.flat().every((path) => path !== "/etc"));
  });

  test("filesystems of the node and of images; images cannot take more than is taken", async () => {
    const node = withDisks(bench(2));
    const { node: stats } = await ask(node);
    assert.equal(stats.fs?.usedBytes, 300);
    assert.equal(stats.fs?.inodesUsed, 10);
    assert.equal(stats.runtime?.imageFs.usedBytes, 120);
    assert.equal(stats.runtime?.containerFs.usedBytes, 100);
    const full = withDisks(
      bench(2, { filesystem: async () => ({ ...disk, usedBytes: 7, inodes: undefined }) }),
    );
    const { node: other } = await ask(full);
    assert.equal(other.runtime?.imageFs.usedBytes, 7);
    assert.equal("inodes" in (other.fs ?? {}), false);
  });

  test("who asks often waits for no walk and never sees one older than a minute", async () => {
    const node = withDisks(bench(2));
    for (let at = 0; at <= 300; at += 15) {
      const { pods } = await ask(node);
      const measured = Date.parse(pods[0]?.containers[0]?.rootfs?.time ?? "");
      assert.ok(node.clock.now() - measured < 60_000, `${at} s`);
      await node.statistics.close();
      node.clock.advance(15_000);
    }
    // One per 45 s, not one per request.
    assert.ok(node.walks.length >= 6 && node.walks.length <= 8, String(node.walks.length));
  });

  test("nobody walks while nobody asks", async () => {
    const node = withDisks(bench(2));
    await ask(node);
    node.clock.advance(3_600_000);
    assert.equal(node.walks.length, 1);
    assert.equal(node.clock.sleeping, false);
  });

  test("a pod that came since the last walk is measured soon", async () => {
    const node = withDisks(bench(2));
    const { records } = node;
    node.records = [];
    await ask(node);
    node.records = records;
    node.clock.advance(2000);
    await ask(node);
    assert.equal(node.walks.length, 1);
    node.clock.advance(9000);
    await ask(node);
    await node.statistics.close();
    assert.equal(node.walks.length, 2);
  });

  test("a disk that does not answer holds nobody up for longer than a second", async () => {
    const stuck = new Promise<never>(() => undefined);
    const node = withDisks(bench(2, { measure: () => stuck, filesystem: () => stuck }));
    const summary = ask(node);
    await until(() => node.clock.sleeping);
    node.clock.advance(1000);
    const { node: stats, pods } = await summary;
    assert.equal(stats.fs, undefined);
    assert.equal(pods[0]?.containers[0]?.rootfs, undefined);
    assert.ok((pods[0]?.containers[0]?.memory.workingSetBytes ?? 0) > 0);
    // The next one has no second walk started.
    node.clock.advance(5000);
    const second = ask(node);
    await until(() => node.clock.sleeping);
    node.clock.advance(1000);
    await second;
    const page = node.statistics.cadvisor(neverAborted);
    await until(() => node.clock.sleeping);
    node.clock.advance(1000);
    assert.ok(parsePrometheus(await page).has("container_memory_working_set_bytes"));
  });

  test("after a failure the next try waits longer each time", async () => {
    let tries = 0;
    const measure = async (): Promise<never> => {
      tries += 1;
      throw new Error("du: not found");
    };
    const node = withDisks(bench(2, { measure }));
    for (let minute = 0; minute < 60; minute += 1) {
      await ask(node);
      await node.statistics.close();
      node.clock.advance(60_000);
    }
    assert.ok(tries >= 4 && tries <= 6, String(tries));
  });

  test("a negative period is no measuring at all", async () => {
    const config = {
      nodeName: "n1",
      cgroupRoot: "/",
      cgroupsPerQOS: true,
      dockerSocket: "/run/docker.sock",
      rootDir: "/kubelet",
      podLogsDir: "/nowhere",
      volumeStatsAggPeriodMs: -1,
    };
    const node = withDisks(bench(2, { config }));
    const { pods } = await ask(node);
    assert.equal(node.walks.length, 0);
    assert.equal(pods[0]?.containers[0]?.rootfs?.usedBytes, undefined);
    assert.equal(pods[0]?.containers[0]?.rootfs?.capacityBytes, 1000);
  });
});

describe("logs on disk", () => {
  test("all files of all attempts count, rotated ones too", async (t) => {
    const directory = await mkdtemp(join(tmpdir(), "remora-stats-"));
    t.after(() => rm(directory, { recursive: true, force: true }));
    const engine = join(directory, "engine");
    const logs = join(directory, "pods", `ns_web_${uid}`, "main");
    await mkdir(engine);
    await mkdir(logs, { recursive: true });
    const files = ["0-json.log", "0-json.log.1", "0-json.log.2.gz", "1-json.log"];
    for (const name of [...files, "other.log"]) await writeFile(join(engine, name), "x");
    await symlink(join(engine, "0-json.log"), join(logs, "0.log"));
    await symlink(join(engine, "1-json.log"), join(logs, "1.log"));
    await symlink(join(engine, "gone-json.log"), join(logs, "2.log"));
    const config = {
      nodeName: "n1",
      cgroupRoot: "/",
      cgroupsPerQOS: true,
      dockerSocket: "/run/docker.sock",
      rootDir: "/kubelet",
      podLogsDir: join(directory, "pods"),
    };
    const node = bench(2, { config });
    files.forEach((name, index) => node.trees.set(join(engine, name), 10 ** index));
    node.trees.set(join(engine, "other.log"), 1_000_000);
    const { pods } = await ask(node);
    assert.equal(pods[0]?.containers[0]?.logs?.usedBytes, 1111);
  });
});

describe("du", () => {
  test("counts bytes and inodes of trees and files; what is not there is left out", async (t) => {
    const directory = await mkdtemp(join(tmpdir(), "remora-stats-"));
    t.after(() => rm(directory, { recursive: true, force: true }));
    const tree = join(directory, "a tree\nwith an odd name");
    await mkdir(join(tree, "below"), { recursive: true });
    await writeFile(join(tree, "below", "file"), Buffer.alloc(100_000));
    await writeFile(join(directory, "file"), Buffer.alloc(5000));
    const paths = [tree, join(directory, "file"), join(directory, "missing")];
    const sizes = await measureTrees(paths, AbortSignal.timeout(10_000));
    assert.deepEqual([...sizes.keys()], paths.slice(0, 2));
    const { bytes = 0, inodes } = sizes.get(tree) ?? {};
    assert.ok(bytes >= 100_000 && bytes < 200_000, String(bytes));
    assert.equal(inodes, 3);
    assert.equal(sizes.get(join(directory, "file"))?.inodes, 1);
  });

  test("nothing to count starts no program, and nothing found is no failure", async () => {
    assert.equal((await measureTrees([], AbortSignal.timeout(10_000))).size, 0);
    assert.equal((await measureTrees(["/nowhere/at/all"], AbortSignal.timeout(10_000))).size, 0);
    await assert.rejects(measureTrees(["/etc/hosts"], AbortSignal.abort()));
  });
});
