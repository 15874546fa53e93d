import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { ContainerStats, PodStats } from "../../../src/kubelet/stats/summary-types.ts";
import { parsePrometheus, type ParsedSample } from "../../fakes/prometheus-text.ts";
import {
  apiPod,
  bench,
  type Bench,
  container,
  containerID,
  neverAborted,
  pids,
  podRecord,
  sandbox,
  startedAt,
  uid,
} from "./fixture.ts";

const podDirectory = {
  1: `/kubepods/burstable/pod${uid}`,
  2: `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${uid.replaceAll("-", "_")}.slice`,
} as const;

/** Where the container's cgroup is, in the hierarchy of a controller. */
function cgroup(version: 1 | 2, controller: string): string {
  return version === 1
    ? `/sys/fs/cgroup/${controller}${podDirectory[1]}/${containerID}`
    : `/sys/fs/cgroup${podDirectory[2]}/docker-${containerID}.scope`;
}

async function samples(text: Promise<string>, name: string): Promise<readonly ParsedSample[]> {
  return parsePrometheus(await text).get(name)?.samples ?? [];
}

async function onlyPod({ statistics }: Bench): Promise<PodStats> {
  const { pods } = await statistics.summary(false, neverAborted);
  assert.equal(pods.length, 1);
  return pods[0] as PodStats;
}

async function onlyContainer(node: Bench): Promise<ContainerStats> {
  const { containers } = await onlyPod(node);
  assert.equal(containers.length, 1);
  return containers[0] as ContainerStats;
}

for (const version of [1, 2] as const) {
  describe(`cgroup v${version}`, () => {
    const procs = ({ files }: Bench): readonly string[] =>
      (files.texts.get(`${cgroup(version, "cpu")}/cgroup.procs`) ?? "").trim().split("\n");

    test("the resource page has the names, labels and times that metrics-server reads", async () => {
      const { clock, statistics } = bench(version);
      const families = parsePrometheus(await statistics.resource());
      assert.deepEqual(
        [...families.keys()],
        [
          "container_cpu_usage_seconds_total",
          "container_memory_working_set_bytes",
          "container_start_time_seconds",
          "container_swap_limit_bytes",
          "container_swap_usage_bytes",
          "node_cpu_usage_seconds_total",
          "node_memory_working_set_bytes",
          "node_swap_usage_bytes",
          "pod_cpu_usage_seconds_total",
          "pod_memory_working_set_bytes",
          "pod_swap_usage_bytes",
          "resource_scrape_error",
          "scrape_error",
        ],
      );
      const [cpu] = families.get("container_cpu_usage_seconds_total")?.samples ?? [];
      assert.deepEqual(cpu?.labels, { container: "main", namespace: "ns", pod: "web" });
      assert.equal(cpu.timeMs, clock.now());
      const [start] = families.get("container_start_time_seconds")?.samples ?? [];
      assert.equal(start?.value, startedAt / 1000);
      assert.equal(start.timeMs, undefined);
      const [pod] = families.get("pod_memory_working_set_bytes")?.samples ?? [];
      assert.deepEqual(pod?.labels, { namespace: "ns", pod: "web" });
      assert.equal(families.get("resource_scrape_error")?.samples[0]?.value, 0);
    });

    test("the working set is memory in use without inactive file pages", async () => {
      const node = bench(version);
      const file = version === 1 ? "memory.usage_in_bytes" : "memory.current";
      const key = version === 1 ? "total_inactive_file" : "inactive_file";
      node.files.texts.set(`${cgroup(version, "memory")}/${file}`, "5000\n");
      node.files.texts.set(`${cgroup(version, "memory")}/memory.stat`, `${key} 1500\n`);
      const [set] = await samples(node.statistics.resource(), "container_memory_working_set_bytes");
      assert.equal(set?.value, 3500);
      const { memory } = await onlyContainer(node);
      assert.equal(memory.usageBytes, 5000);
      assert.equal(memory.workingSetBytes, 3500);
      // 80 MB in whole pages.
      assert.equal(memory.availableBytes, 79_998_976 - 3500);
    });

    test("the summary has all that upstream's test of it asks for", async () => {
      const node = bench(version);
      await node.statistics.summary(false, neverAborted);
      node.clock.advance(15_000);
      const pod = await onlyPod(node);
      const time = new Date(node.clock.now()).toISOString().replace(/\.\d+Z$/, "Z");
      assert.deepEqual(pod.podRef, { name: "web", namespace: "ns", uid });
      assert.equal(pod.startTime, apiPod.status?.startTime);
      assert.equal(pod.cpu?.time, time);
      assert.equal(pod.memory?.time, time);
      assert.ok((pod.cpu?.usageCoreNanoSeconds ?? 0) > 0);
      assert.equal(pod.swap?.swapUsageBytes, 0);
      assert.equal(pod.io?.time, time);
      const [main] = pod.containers;
      assert.equal(main?.startTime, new Date(startedAt).toISOString().replace(".000Z", "Z"));
      assert.equal(typeof main.memory.rssBytes, "number");
      assert.ok((main.memory.pageFaults ?? 0) > 0);
      assert.deepEqual(Object.keys(main.cpu.psi ?? {}), ["full", "some"]);
      assert.equal(main.rootfs?.capacityBytes, 1000);
      // The container's processes and the sandbox's one.
      const inContainer = procs(node).length;
      assert.equal(pod.process_stats?.process_count, inContainer + 1);
    });

    test("everything on the cAdvisor page is in order, and each row names its cgroup", async () => {
      const node = bench(version);
      const families = parsePrometheus(await node.statistics.cadvisor(neverAborted));
      const rows = families.get("container_memory_working_set_bytes")?.samples ?? [];
      const at = podDirectory[version];
      const scope = (id: string): string =>
        version === 1 ? `${at}/${id}` : `${at}/docker-${id}.scope`;
      assert.deepEqual(
        rows.map(({ labels: { container, id, name } }) => `${id} ${container} ${name}`).toSorted(),
        [
          "/  ",
          `${at.split("/").slice(0, 2).join("/")}  `,
          `${at.split("/").slice(0, 3).join("/")}  `,
          `${at}  `,
          `${scope(containerID)} main k8s_main_web_ns_${uid}_0`,
          `${scope("b".repeat(64))} POD k8s_POD_web_ns_${uid}_0`,
        ].toSorted(),
      );
      for (const { labels } of rows) {
        assert.deepEqual(Object.keys(labels).toSorted(), [
          "container",
          "id",
          "image",
          "name",
          "namespace",
          "pod",
        ]);
      }
      const main = rows.find(({ labels }) => labels["container"] === "main");
      assert.equal(main?.labels["image"], "app:1");
      const of = (name: string): number | undefined =>
        families.get(name)?.samples.find(({ labels }) => labels["container"] === "main")?.value;
      assert.equal(of("container_spec_memory_limit_bytes"), 79_998_976);
      assert.equal(of("container_spec_cpu_quota"), 50_000);
      assert.equal(of("container_spec_cpu_period"), 100_000);
      assert.ok((of("container_cpu_cfs_periods_total") ?? 0) > 0);
      assert.ok((of("container_cpu_cfs_throttled_seconds_total") ?? 0) > 0);
      const threads = node.files.texts.get(`${cgroup(version, "pids")}/pids.current`);
      assert.equal(of("container_threads"), Number(threads));
      assert.equal(of("container_processes"), procs(node).length);
      assert.equal(of("container_memory_failcnt"), 0);
      assert.equal(of("container_oom_events_total"), 0);
    });

    test("a container that ends is left out, and its open files are closed", async () => {
      const node = bench(version);
      assert.equal((await onlyPod(node)).containers.length, 1);
      assert.ok([...node.files.open_].some((path) => path.includes(containerID)));
      for (const controller of ["cpu", "cpuacct", "memory", "pids", "blkio"]) {
        node.files.remove(cgroup(version, controller));
      }
      node.clock.advance(5000);
      // The runtime has not been looked at since: its record still says that it runs.
      const { containers } = await onlyPod(node);
      assert.deepEqual(containers, []);
      node.records = [];
      node.clock.advance(5000);
      const { pods } = await node.statistics.summary(false, neverAborted);
      assert.deepEqual(pods, []);
      assert.deepEqual(
        [...node.files.open_].filter((path) => path.includes(uid) || path.includes(containerID)),
        [],
      );
    });

    test("a container that is started again counts anew from its new start", async () => {
      const node = bench(version);
      await onlyContainer(node);
      const [pause, main] = pids[version];
      node.clock.advance(20_000);
      const again = node.clock.now() - 4000;
      const counter =
        version === 1 ? `${cgroup(1, "cpuacct")}/cpuacct.usage` : `${cgroup(2, "cpu")}/cpu.stat`;
      node.files.texts.set(counter, version === 1 ? "2000000000\n" : "usage_usec 2000000\n");
      const pid = main + 1;
      node.files.texts.set(
        `/proc/${pid}/cgroup`,
        node.files.texts.get(`/proc/${main}/cgroup`) ?? "",
      );
      node.files.texts.delete(`/proc/${main}/cgroup`);
      const state = { kind: "running", createdAt: startedAt, startedAt: again, pid } as const;
      node.records = [
        {
          ...podRecord(version),
          sandboxes: [sandbox(pause)],
          containers: [container(pid, { state })],
        },
      ];
      const { cpu, startTime } = await onlyContainer(node);
      assert.equal(startTime, new Date(again).toISOString().replace(".000Z", "Z"));
      assert.equal(cpu.usageCoreNanoSeconds, 2e9);
      assert.equal(cpu.usageNanoCores, 5e8);
    });

    test("a process number that another program has got since tells nothing", async () => {
      const node = bench(version);
      const [, main] = pids[version];
      const other = version === 1 ? "4:memory:/init\n2:cpuacct:/init\n" : "0::/init.scope\n";
      node.files.texts.set(`/proc/${main}/cgroup`, other);
      assert.deepEqual((await onlyPod(node)).containers, []);
    });

    test("cgroups that a container makes for itself do not hide its own", async () => {
      const node = bench(version);
      const [, main] = pids[version];
      const path = `/proc/${main}/cgroup`;
      const text = node.files.texts.get(path) ?? "";
      node.files.texts.set(path, text.replaceAll(/(a{64}(?:\.scope)?)$/gm, "$1/init"));
      assert.equal((await onlyPod(node)).containers.length, 1);
    });
  });
}

describe("what differs between kernels", () => {
  test("v2 shows the pressure in a cgroup, v1 has none and shows zero, as upstream does", async () => {
    const unified = await onlyContainer(bench(2));
    assert.ok((unified.cpu.psi?.some.total ?? 0) > 0);
    const old = await onlyContainer(bench(1));
    assert.deepEqual(old.cpu.psi?.some, { total: 0, avg10: 0, avg60: 0, avg300: 0 });
    const name = "container_pressure_cpu_waiting_seconds_total";
    const rows = await samples(bench(2).statistics.cadvisor(neverAborted), name);
    assert.ok(rows.some(({ labels, value }) => labels["container"] === "main" && value > 0));
    const none = await samples(bench(1).statistics.cadvisor(neverAborted), name);
    assert.ok(none.every(({ labels }) => labels["container"] !== "main"));
  });

  test("without swap in the machine nothing can be swapped; with it the cgroup says how much", async () => {
    const without = await onlyContainer(bench(2));
    assert.deepEqual([without.swap.swapUsageBytes, without.swap.swapAvailableBytes], [0, 0]);
    const meminfo = bench(2).files.texts.get("/proc/meminfo") ?? "";
    const files = bench(2).files;
    files.texts.set("/proc/meminfo", meminfo.replace(/SwapTotal:.*/, "SwapTotal: 1000 kB"));
    files.texts.set(`${cgroup(2, "memory")}/memory.swap.current`, "500\n");
    files.texts.set(`${cgroup(2, "memory")}/memory.swap.max`, "2000\n");
    const { swap } = await onlyContainer(bench(2, { files }));
    assert.deepEqual([swap.swapUsageBytes, swap.swapAvailableBytes], [500, 1500]);
    files.texts.set(`${cgroup(2, "memory")}/memory.swap.max`, "max\n");
    const unlimited = await onlyContainer(bench(2, { files }));
    assert.equal("swapAvailableBytes" in unlimited.swap, false);
  });

  test("pods without cgroups of their own are the sum of their containers", async () => {
    const node = bench(2);
    const [pause, main] = pids[2];
    const scope = (id: string): string => `0::/system.slice/docker-${id}.scope\n`;
    const from = `/sys/fs/cgroup${podDirectory[2]}`;
    for (const [path, text] of new Map(node.files.texts)) {
      const moved = path.replace(from, "/sys/fs/cgroup/system.slice");
      if (moved !== path) node.files.texts.set(moved, text);
    }
    node.files.texts.set(`/proc/${main}/cgroup`, scope(containerID));
    node.files.texts.set(`/proc/${pause}/cgroup`, scope("b".repeat(64)));
    const pod = await onlyPod(node);
    assert.equal(pod.cpu?.usageCoreNanoSeconds, pod.containers[0]?.cpu.usageCoreNanoSeconds);
    assert.equal(pod.memory?.workingSetBytes, pod.containers[0]?.memory.workingSetBytes);
    const rows = await samples(
      node.statistics.cadvisor(neverAborted),
      "container_memory_working_set_bytes",
    );
    assert.equal(rows.filter(({ labels }) => labels["id"] === "").length, 0);
  });
});

describe("when and how much is read", () => {
  test("several who ask within a second share one sample, a later one gets a new one", async () => {
    const { clock, files, statistics } = bench(2);
    await Promise.all([statistics.resource(), statistics.resource()]);
    files.reads.clear();
    clock.advance(900);
    await statistics.resource();
    assert.equal(files.reads.size, 0);
    clock.advance(200);
    await statistics.resource();
    assert.ok(files.reads.size > 0);
  });

  test("the resource page reads two files of a cgroup at rest, and opens none again", async () => {
    const { clock, files, statistics } = bench(2);
    await statistics.resource();
    const opened = [...files.open_];
    clock.advance(15_000);
    files.reads.clear();
    await statistics.resource();
    const own = [...files.reads].filter((path) => path.includes(containerID));
    assert.deepEqual(
      own.map((path) => path.split("/").at(-1)),
      ["cpu.stat", "memory.current"],
    );
    assert.deepEqual([...files.open_], opened);
  });

  test("where nothing has run and no byte has come or gone, pages are not counted again", async () => {
    for (const version of [1, 2] as const) {
      const { clock, files, statistics } = bench(version);
      const at = (controller: string, name: string): string =>
        `${cgroup(version, controller)}/${name}`;
      const stat = at("memory", "memory.stat");
      const cpu = version === 1 ? at("cpuacct", "cpuacct.usage") : at("cpu", "cpu.stat");
      const key = version === 1 ? "total_inactive_file" : "inactive_file";
      const scrape = async (): Promise<number> => {
        clock.advance(15_000);
        files.reads.clear();
        const name = "container_memory_working_set_bytes";
        return (await samples(statistics.resource(), name))[0]?.value ?? -1;
      };
      const before = await scrape();
      assert.ok(files.reads.has(stat));
      assert.equal(await scrape(), before);
      assert.ok(!files.reads.has(stat));
      // It has run: now its pages are somewhere else.
      files.texts.set(cpu, version === 1 ? "999999999999\n" : "usage_usec 999999999\n");
      files.texts.set(stat, `${key} 4096\n`);
      const moved = await scrape();
      assert.ok(files.reads.has(stat));
      assert.ok(moved !== before && moved > 0);
      const used = at("memory", version === 1 ? "memory.usage_in_bytes" : "memory.current");
      files.texts.set(used, "8192\n");
      assert.equal(await scrape(), 4096);
    }
  });

  test("all open files can be let go of", async () => {
    const { files, statistics } = bench(1);
    await statistics.cadvisor(neverAborted);
    assert.ok(files.open_.size > 0);
    await statistics.close();
    assert.equal(files.open_.size, 0);
  });

  test("what cannot be read at all is an error on the resource page, not a broken request", async () => {
    const families = parsePrometheus(
      await bench(2, {
        records: () => assert.fail("the runtime's records cannot be had"),
      }).statistics.resource(),
    );
    assert.equal(families.get("resource_scrape_error")?.samples[0]?.value, 1);
    assert.equal(families.get("scrape_error")?.samples[0]?.value, 1);
    assert.equal(families.size, 2);
  });

  test("pods on the node's network, without a sandbox, or ended, show what is theirs only", async () => {
    const node = bench(2);
    const [pause] = pids[2];
    node.records = [podRecord(2, { sandboxes: [sandbox(pause, { network: "node" })] })];
    assert.equal((await onlyPod(node)).network, undefined);
    node.clock.advance(2000);
    const state = {
      kind: "exited",
      createdAt: startedAt,
      startedAt,
      finishedAt: startedAt + 1,
      exitCode: 0,
      oomKilled: false,
      error: "",
    } as const;
    node.records = [
      podRecord(2, {
        sandboxes: [sandbox(pause, { ready: false })],
        containers: [container(0, { state })],
      }),
    ];
    assert.deepEqual((await node.statistics.summary(false, neverAborted)).pods, []);
  });

  test("only cpu and memory are read when only these are asked for, and no disk is walked", async () => {
    const { statistics, walks } = bench(2);
    const { node, pods } = await statistics.summary(true, neverAborted);
    assert.deepEqual(Object.keys(node).toSorted(), [
      "cpu",
      "memory",
      "nodeName",
      "startTime",
      "swap",
      "systemContainers",
    ]);
    assert.deepEqual(Object.keys(pods[0]?.containers[0] ?? {}).toSorted(), [
      "cpu",
      "memory",
      "name",
      "startTime",
      "swap",
    ]);
    assert.equal(walks.length, 0);
  });
});
