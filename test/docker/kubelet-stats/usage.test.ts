import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { after, before, describe, it } from "node:test";

import { cgroupTree } from "../../../src/kubelet/cgroups/cgroup-tree.ts";
import { kernelFiles } from "../../../src/kubelet/stats/kernel-files.ts";
import { Statistics } from "../../../src/kubelet/stats/statistics.ts";
import type { ContainerStats, PodStats } from "../../../src/kubelet/stats/summary-types.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { isRuntimeFailure } from "../../../src/runtime/errors.ts";
import type { PodRecord, RuntimeInfo } from "../../../src/runtime/types.ts";
import { parsePrometheus } from "../../fakes/prometheus-text.ts";
import {
  createFixture,
  eventually,
  type Fixture,
  resources,
  runScript,
  sandboxConfig,
  testSignal,
} from "../runtime/fixture.ts";

const mebi = 1024 * 1024;
/** Writes 5 MiB, and then is busy with 24 MiB of memory. */
const script =
  "busybox dd if=/dev/zero of=/written bs=1M count=5 2>/dev/null; exec busybox dd if=/dev/zero of=/dev/null bs=24M";
const limits = {
  ...resources,
  cpuShares: 512,
  cpuQuotaMicros: 20_000,
  memoryLimitBytes: 64 * mebi,
};

interface EngineStats {
  readonly cpu_stats: { readonly cpu_usage: { readonly total_usage: number } };
  /** Empty where the engine cannot read the hierarchies. */
  readonly memory_stats: { readonly usage?: number };
}

let fixture: Fixture;
let info: RuntimeInfo;
let records: readonly PodRecord[] = [];
let cgroup = "";
before(async () => {
  fixture = await createFixture();
  info = await fixture.runtime.connect(testSignal());
});
after(async () => {
  await fixture[Symbol.asyncDispose]();
  if (cgroup !== "") await cgroupTree("/sys/fs/cgroup").remove(cgroup.split("/")[0] ?? "");
});

function statistics(): Statistics {
  return new Statistics({
    config: {
      nodeName: "n1",
      cgroupRoot: "/",
      cgroupsPerQOS: true,
      dockerSocket: "/var/run/docker.sock",
      rootDir: "/var/lib",
      podLogsDir: fixture.podLogsDir,
    },
    records: () => records,
    pods: () => [],
    runtimeInfo: () => info,
    images: fixture.runtime,
    identity: () => ({
      bootID: "",
      kernelVersion: "",
      machineID: "",
      osImage: "",
      systemUUID: "",
    }),
    files: kernelFiles(),
    clock: systemClock,
    logger: silentLogger,
  });
}

async function observe(uid: string): Promise<void> {
  records = [await fixture.runtime.podRecord(uid, testSignal())];
}

async function only(from: Statistics): Promise<{ pod: PodStats; main: ContainerStats }> {
  const { pods } = await from.summary(false, testSignal());
  const [pod] = pods;
  const [main] = pod?.containers ?? [];
  assert.ok(pod !== undefined && main !== undefined, JSON.stringify(pods));
  return { pod, main };
}

/** All zero where the engine can tell nothing: it looks for the network of the sandbox, which it has not made. */
async function engineStats(id: string): Promise<EngineStats> {
  const path = `/containers/${id}/stats`;
  const query = { stream: "false", "one-shot": "true" };
  try {
    return (await fixture.client.call(
      { op: "stats", method: "GET", path, query, timeoutMs: 20_000 },
      testSignal(),
    )) as EngineStats;
  } catch (error) {
    // The older ones answer with zeros.
    if (!isRuntimeFailure(error, "InvalidSpec")) throw error;
    return { cpu_stats: { cpu_usage: { total_usage: 0 } }, memory_stats: {} };
  }
}

/** CPU time of the container's process, in hundredths of a second. */
function cpuTicks(): number {
  const state = records[0]?.containers[0]?.state;
  const pid = state?.kind === "running" ? state.pid : 0;
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return Number(fields[11]) + Number(fields[12]);
}

/** Descriptors of this process on cgroup files. */
function openCgroupFiles(): number {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith("/sys/fs/cgroup/");
    } catch {
      return false;
    }
  }).length;
}

/** The kernel, and the engine where it can tell, were asked between two readings. */
function checkCpu([least = 0, most = 0]: readonly number[], said: readonly number[]): void {
  for (const cpu of said) {
    if (cpu === 0) continue;
    // The shell before it, and what the kernel rounds to ticks.
    assert.ok(least - 8e7 <= cpu && cpu <= most + 2e7, `${least} ${cpu} ${most}`);
  }
}

/** What the container was made with is what the page says. */
async function checkPage(own: Statistics): Promise<void> {
  const cadvisor = parsePrometheus(await own.cadvisor(testSignal()));
  const of = (family: string): number | undefined =>
    cadvisor
      .get(`container_${family}`)
      ?.samples.find(({ labels }) => labels["container"] === "main")?.value;
  assert.equal(of("spec_memory_limit_bytes"), 64 * mebi);
  assert.equal(of("spec_cpu_quota"), 20_000);
  assert.ok(Math.abs((of("spec_cpu_shares") ?? 0) - 512) <= 26, String(of("spec_cpu_shares")));
  assert.ok((of("cpu_cfs_throttled_periods_total") ?? 0) > 0);
  assert.ok((of("file_descriptors") ?? 0) >= 3);
  assert.equal(of("threads"), 1);
}

describe("usage of real containers", () => {
  it("is what the engine and the kernel say, and ends with the container", async () => {
    const config = sandboxConfig();
    const { uid } = config.metadata;
    const systemd = info.cgroupDriver === "systemd";
    const name = uid.replaceAll("-", "_");
    cgroup = systemd
      ? `remoratest.slice/remoratest-pod${name}.slice`
      : `remoratest-${fixture.scope}/pod${uid}`;
    const cgroupParent = systemd ? `remoratest-pod${name}.slice` : `/${cgroup}`;
    const { runtime } = fixture;
    const sandbox = await runtime.runPodSandbox({ ...config, cgroupParent }, testSignal());
    const logPath = `default_web_${uid}/main/0.log`;
    const id = await runScript(fixture, sandbox, script, { resources: limits, logPath });
    await observe(uid);
    const own = statistics();
    const first = await eventually(async () => {
      const { main } = await only(own);
      await systemClock.sleep(1100, testSignal());
      return main.memory.workingSetBytes > 20 * mebi ? main : undefined;
    }, "the container has its memory");
    const engine = await engineStats(id);
    const ticks = cpuTicks();
    await systemClock.sleep(1100, testSignal());
    const { main, pod } = await only(own);

    const between = [first, main].map(({ cpu }) => cpu.usageCoreNanoSeconds);
    checkCpu(between, [ticks * 1e7, engine.cpu_stats.cpu_usage.total_usage]);
    assert.ok(main.cpu.usageNanoCores !== undefined && main.cpu.usageNanoCores < 0.35e9);
    assert.ok(main.cpu.usageNanoCores > 0.02e9, String(main.cpu.usageNanoCores));
    const { usageBytes } = main.memory;
    // 24 MiB of its own, the file that it wrote, and what the kernel keeps for it.
    assert.ok(usageBytes > 24 * mebi && usageBytes < 40 * mebi, String(usageBytes));
    const said = engine.memory_stats.usage ?? 0;
    if (said > 0) assert.ok(Math.abs(usageBytes - said) < 6 * mebi, `${usageBytes} ${said}`);
    assert.equal(main.memory.availableBytes, 64 * mebi - main.memory.workingSetBytes);
    assert.equal(pod.process_stats?.process_count, 2);
    // The pod's cgroup holds the container's and the sandbox's.
    assert.ok((pod.cpu?.usageCoreNanoSeconds ?? 0) >= main.cpu.usageCoreNanoSeconds);
    assert.ok((pod.memory?.usageBytes ?? 0) > usageBytes - mebi);

    if (info.imageRootDir !== undefined || existsSync(`${info.rootDir}/overlay2`)) {
      const used = main.rootfs?.usedBytes ?? 0;
      assert.ok(used >= 5 * mebi && used < 6 * mebi, String(used));
    }
    await checkPage(own);
    const opened = openCgroupFiles();
    assert.ok(opened >= 6, String(opened));

    await runtime.stopContainer(id, 0, testSignal());
    // Its record is not read anew: the kernel alone tells that it has gone.
    await systemClock.sleep(1100, testSignal());
    const { pods } = await own.summary(true, testSignal());
    assert.deepEqual(pods[0]?.containers, []);

    const again = await runScript(fixture, sandbox, script, {
      resources: limits,
      attempt: 1,
      logPath,
    });
    await observe(uid);
    await systemClock.sleep(1100, testSignal());
    const { main: fresh } = await only(own);
    assert.ok(fresh.cpu.usageCoreNanoSeconds < main.cpu.usageCoreNanoSeconds);
    assert.ok(Date.parse(fresh.startTime) >= Date.parse(main.startTime));
    await runtime.stopContainer(again, 0, testSignal());
    await runtime.stopPodSandbox(sandbox.id, testSignal());
    await observe(uid);
    await systemClock.sleep(1100, testSignal());
    assert.deepEqual((await own.summary(true, testSignal())).pods, []);
    await own.close();
    assert.equal(openCgroupFiles(), 0);
  });
});
