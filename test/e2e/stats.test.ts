import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import type { ContainerStats, PodStats, Summary } from "../../src/kubelet/stats/summary-types.ts";
import { type ParsedFamily, type ParsedSample, parsePrometheus } from "../fakes/prometheus-text.ts";
import { eventually, Machine, type MachineProcess } from "./lib/machine.ts";
import { cannotRun, remoraUp } from "./lib/remora.ts";

// What readers of a node's figures do: upstream's tests of the summary and of the resource metrics (test/e2e_node), and
// metrics-server's way to a rate.

const reason = cannotRun();
const skip = reason ?? false;
let machine: Machine;
let remora: MachineProcess;

before(async () => {
  if (reason !== undefined) return;
  machine = await Machine.start("stat");
  await machine.loadBusybox();
  remora = await remoraUp(machine);
  for (const pod of [busy(), restarted()]) {
    await machine.kubectl(["create", "-f", "-"], { stdin: JSON.stringify(pod) });
  }
});

after(async () => {
  if (reason !== undefined) return;
  await remora.signal("TERM");
  await remora.exited;
  await machine[Symbol.asyncDispose]();
});

function manifest(name: string, script: string, more: object = {}): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name },
    spec: {
      terminationGracePeriodSeconds: 0,
      volumes: [{ name: "test-empty-dir", emptyDir: {} }],
      containers: [
        {
          name: "main",
          image: "busybox:1.36",
          imagePullPolicy: "IfNotPresent",
          command: ["sh", "-c", script],
          volumeMounts: [{ name: "test-empty-dir", mountPath: "/test-empty-dir-mnt" }],
          ...more,
        },
      ],
    },
  };
}

/** Takes a fifth of a processor, writes to its layer, its volume and its log, and fails every liveness probe. */
function busy(): object {
  const script =
    "echo hello | tee /root-file /test-empty-dir-mnt/file; exec dd if=/dev/zero of=/dev/null bs=4M";
  return manifest("busy", script, {
    resources: { limits: { cpu: "200m", memory: "80M" } },
    readinessProbe: { exec: { command: ["true"] }, periodSeconds: 1 },
    livenessProbe: {
      exec: { command: ["false"] },
      periodSeconds: 1,
      failureThreshold: 100_000,
    },
  });
}

/** Its first run ends after a second. */
function restarted(): object {
  return manifest(
    "restarted",
    "[ -e /test-empty-dir-mnt/again ] && exec sleep 1000; touch /test-empty-dir-mnt/again; sleep 1",
  );
}

async function raw(path: string): Promise<string> {
  const url = `/api/v1/nodes/${machine.name}/proxy${path}`;
  return (await machine.kubectl(["get", "--raw", url])).stdout;
}

async function page(path: string): Promise<ReadonlyMap<string, ParsedFamily>> {
  return parsePrometheus(await raw(path));
}

async function summary(query = ""): Promise<Summary> {
  return JSON.parse(await raw(`/stats/summary${query}`)) as Summary;
}

function within(value: number | undefined, least: number, most: number, what: string): void {
  assert.ok(value !== undefined && value >= least && value <= most, `${what}: ${value}`);
}

function recent(time: string, what: string, seconds = 60): void {
  within(Date.now() - Date.parse(time), -2000, seconds * 1000, what);
}

const kilo = 1024;
const mega = 1024 * 1024;
const tera = 1024 ** 4;

function checkUsage(
  { cpu, memory, swap }: Pick<ContainerStats, "cpu" | "memory" | "swap">,
  what: string,
): void {
  recent(cpu.time, `${what}.cpu`);
  recent(memory.time, `${what}.memory`);
  recent(swap.time, `${what}.swap`);
  within(cpu.usageCoreNanoSeconds, 1e6, 1e15, `${what}.usageCoreNanoSeconds`);
  within(memory.workingSetBytes, 10 * kilo, 1e12, `${what}.workingSetBytes`);
  assert.ok(memory.workingSetBytes <= memory.usageBytes, what);
  assert.deepEqual(Object.keys(cpu.psi ?? {}), ["full", "some"], what);
}

function checkPod(pod: PodStats | undefined): void {
  const { cpu, memory, swap } = pod ?? {};
  const [main] = pod?.containers ?? [];
  assert.ok(cpu !== undefined && memory !== undefined && swap !== undefined && main !== undefined);
  checkUsage({ cpu, memory, swap }, "pod");
  checkUsage(main, "container");
  within(main.memory.availableBytes, kilo, 80 * mega, "availableBytes");
  // Its quota; a busy machine gives it less.
  within(main.cpu.usageNanoCores, 10_000, 0.3e9, "usageNanoCores");
  for (const [what, part] of Object.entries({
    rootfs: main.rootfs,
    logs: main.logs,
    volume: pod?.volume?.find(({ name }) => name === "test-empty-dir"),
    ephemeral: pod?.["ephemeral-storage"],
  })) {
    recent(part?.time ?? "", what);
    within(part?.usedBytes, kilo, 10 * mega, `${what}.usedBytes of ${JSON.stringify(part)}`);
    within(part?.capacityBytes, 100 * mega, 10 * tera, `${what}.capacityBytes`);
    within(part?.availableBytes, mega, 10 * tera, `${what}.availableBytes`);
    within(part?.inodesUsed, 1, 1e8, `${what}.inodesUsed`);
  }
  assert.equal(pod?.network?.name, "eth0");
  within(pod.network.rxBytes, 10, 10 * mega, "rxBytes");
  within(pod.process_stats?.process_count, 2, 10, "process_count");
}

test("/stats/summary is what upstream's own test of it wants", { skip }, async () => {
  await eventually(
    async () => {
      const { stdout } = await machine.kubectl(["get", "pods", "--no-headers"]);
      const ready = /^busy +1\/1 +Running/m.test(stdout);
      return ready && /^restarted +1\/1 +Running +1 /m.test(stdout) ? true : undefined;
    },
    { timeoutMs: 60_000, describe: () => remora.output() },
  );
  await summary();
  await delay(11_000);
  const { node, pods } = await summary();
  assert.equal(node.nodeName, machine.name);
  checkUsage(node, "node");
  within(node.cpu.usageNanoCores, 1e5, 256e9, "node.usageNanoCores");
  within(node.fs?.usedBytes, kilo, 10 * tera, "fs");
  within(node.runtime?.imageFs.usedBytes, kilo, 10 * tera, "imageFs");
  within(node.rlimit?.curproc, 1, 1e8, "curproc");
  assert.deepEqual(
    node.systemContainers.map(({ name }) => name),
    ["kubelet", "runtime", "pods"],
  );
  for (const container of node.systemContainers) checkUsage(container, container.name);
  checkPod(pods.find(({ podRef }) => podRef.name === "busy"));
  const again = pods.find(({ podRef }) => podRef.name === "restarted");
  assert.equal(again?.containers.length, 1);
  const status = await machine.kubectl([
    "get",
    "pod",
    "restarted",
    "-o",
    "jsonpath={.status.containerStatuses[0].state.running.startedAt}",
  ]);
  assert.equal(again.containers[0]?.startTime, status.stdout);
});

test("a reader of counters gets the rate that the container has", { skip }, async () => {
  const find = (families: ReadonlyMap<string, ParsedFamily>, name: string): ParsedSample => {
    const sample = families
      .get(name)
      ?.samples.find(({ labels }) => (labels["pod"] ?? "busy") === "busy");
    assert.ok(sample !== undefined, `${name} is missing`);
    return sample;
  };
  const first = await page("/metrics/resource");
  await delay(5000);
  const second = await page("/metrics/resource");
  const rate = (name: string): number => {
    const [before, after] = [find(first, name), find(second, name)];
    const seconds = ((after.timeMs ?? 0) - (before.timeMs ?? 0)) / 1000;
    within(seconds, 4, 30, "time between the samples");
    return (after.value - before.value) / seconds;
  };
  within(rate("container_cpu_usage_seconds_total"), 1e-4, 0.25, "container");
  within(rate("pod_cpu_usage_seconds_total"), 1e-4, 0.3, "pod");
  within(rate("node_cpu_usage_seconds_total"), 1e-4, 256, "node");
  // metrics-server leaves out what has no start, and rates over a restart.
  const start = find(second, "container_start_time_seconds").value * 1000;
  within(Date.now() - start, 1000, 600_000, "start");
  assert.equal(find(second, "resource_scrape_error").value, 0);
});

test("all pages are well formed and say what happened", { skip }, async () => {
  const cadvisor = await page("/metrics/cadvisor");
  const of = (name: string, container: string): ParsedSample | undefined =>
    cadvisor
      .get(name)
      ?.samples.find(({ labels }) => labels["pod"] === "busy" && labels["container"] === container);
  assert.ok((of("container_cpu_cfs_throttled_periods_total", "main")?.value ?? 0) > 0);
  assert.equal(of("container_spec_cpu_quota", "main")?.value, 20_000);
  assert.ok((of("container_network_receive_bytes_total", "POD")?.value ?? 0) > 0);
  assert.ok((of("container_memory_working_set_bytes", "")?.value ?? 0) > 0);
  const probes = (await page("/metrics/probes")).get("prober_probe_total")?.samples ?? [];
  const count = (kind: string, result: string): number =>
    probes.find(({ labels }) => labels["probe_type"] === kind && labels["result"] === result)
      ?.value ?? 0;
  assert.ok(count("Readiness", "successful") > 0, "readiness");
  assert.ok(count("Liveness", "failed") > 0, "liveness");
  const metrics = await page("/metrics");
  const total = (name: string): number =>
    (metrics.get(name)?.samples ?? []).reduce((sum, { value }) => sum + value, 0);
  assert.equal(total("kubelet_running_pods"), 2);
  assert.equal(total("kubelet_desired_pods"), 2);
  assert.ok(total("kubelet_started_containers_total") >= 3);
  assert.ok(total("kubelet_terminated_containers_total") >= 1);
  const starts = metrics.get("kubelet_pod_start_sli_duration_seconds")?.samples ?? [];
  assert.equal(starts.find(({ name }) => name.endsWith("_count"))?.value, 2);
  assert.ok(total("rest_client_requests_total") > 0);
  assert.ok(total("remora_lease_renewals_total") > 0);
});

test("a pod that is deleted is on no page any more", { skip }, async () => {
  await machine.kubectl(["delete", "pod", "busy"]);
  let left = "";
  await eventually(
    async () => {
      const { pods } = await summary("?only_cpu_and_memory=true");
      left = pods.map(({ podRef }) => podRef.name).join();
      return left === "restarted" ? true : undefined;
    },
    { timeoutMs: 20_000, describe: () => `pods on the summary: ${left}` },
  );
  await delay(1100);
  for (const path of ["/metrics/resource", "/metrics/cadvisor", "/metrics/probes"]) {
    assert.doesNotMatch(await raw(path), /pod="busy"/, path);
  }
});
