import { KubeletMetrics } from "../../../src/kubelet/stats/kubelet-metrics.ts";
import { PodInventory } from "../../../src/kubelet/stats/pod-inventory.ts";
import { recordedKernel } from "../../fakes/kernel-files.ts";
import { type ParsedFamily, parsePrometheus } from "../../fakes/prometheus-text.ts";
import { apiPod, bench, container, neverAborted, pids, podRecord } from "./fixture.ts";

function everythingRecorded(): KubeletMetrics {
  const metrics = new KubeletMetrics();
  const { client, http, pods, probes, runtime } = metrics;
  pods.added(2);
  pods.workBegan(0.1);
  pods.worked("create", 0.1);
  pods.started({ hostNetwork: false, sinceCreated: 3, sinceSeen: 2, withoutPulls: 1 });
  pods.statusWritten(0.01);
  pods.rejected("OutOfcpu");
  pods.preempted("cpu");
  pods.evicted("emptydirfs.limit");
  pods.imageVolume(true);
  pods.imageVolume(false);
  pods.cgroupManaged("create", 0.001);
  pods.imageCollected("space");
  pods.disksMeasured(0.2);
  runtime.operation("exec_sync", 0.1, true);
  runtime.relisted(0.1, 1000);
  runtime.relisted(0.1, 31_000);
  runtime.podRelisted(0.01);
  runtime.sandboxRun("", 0.3, true);
  runtime.containerStarted("container", "RunContainerError");
  runtime.imagePulled({ reference: "app:1", fromMs: 0, toMs: 4000 }, 20 * 1024 ** 2);
  const state = {
    kind: "exited",
    createdAt: 1,
    startedAt: 1,
    finishedAt: 2,
    exitCode: 0,
    oomKilled: false,
    error: "",
  } as const;
  runtime.containerEnded("container", container(1, { state }));
  const of = { container: "main", pod: "web", namespace: "ns", podUID: "u" } as const;
  probes.probed({ ...of, kind: "Liveness" }, "successful", 0.1);
  http.began({ method: "GET", path: "pods", longRunning: false });
  http.ended({ method: "GET", path: "pods", longRunning: false }, 0.1);
  http.webSocket("exec");
  client.requested("api:6443", "GET", "200", 0.1);
  return metrics;
}

/** Each page with everything on it that there can be. */
export async function everyPage(): Promise<ReadonlyMap<string, ReadonlyMap<string, ParsedFamily>>> {
  const node = bench(2);
  const [, main] = pids[2];
  node.files.texts.set(`/proc/${main}/fd/3`, "");
  const pressured = node.files.texts.get("/proc/pressure/cpu");
  if (pressured === undefined) throw new Error("the recording has no pressure");
  for (const [path, text] of new Map(node.files.texts)) {
    if (path.endsWith("/net/dev"))
      node.files.texts.set(path, `${text}  eth0: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n`);
    if (path.endsWith("io.stat"))
      node.files.texts.set(path, "8:0 rbytes=1 wbytes=1 rios=1 wios=1\n");
  }
  const [pause] = pids[2];
  const device = node.files.texts.get(`/proc/${main}/net/dev`) ?? "";
  node.files.texts.set(`/proc/${pause}/net/dev`, device);
  const layer = "/var/lib/docker/overlay2/x/diff";
  const root = `1 2 0:50 / / rw - overlay overlay rw,lowerdir=l,upperdir=${layer},workdir=w\n`;
  node.files.texts.set(`/proc/${main}/mountinfo`, root);
  node.trees.set(layer, 1);
  const files = recordedKernel(2);
  files.texts.set("/proc/self/stat", files.texts.get(`/proc/${main}/stat`) ?? "");
  const metrics = everythingRecorded();
  const inventory = new PodInventory();
  inventory.takeOne(podRecord(2), inventory.begin());
  const kubelet = metrics.text({
    config: { nodeName: "n1" },
    inventory,
    pods: () => [apiPod],
    node: { node: () => undefined },
    runtimeInfo: () => ({ cgroupVersion: 2 }),
    claims: () => [
      {
        namespace: "ns",
        claim: "data",
        figures: {
          capacityBytes: 3,
          availableBytes: 2,
          usedBytes: 1,
          inodes: { total: 3, free: 2, used: 1 },
        },
      },
    ],
    heartbeat: () => ({ leaseAgeSeconds: 1, leaseRenewals: 1 }),
    files,
    clock: node.clock,
  });
  return new Map([
    ["/metrics", parsePrometheus(kubelet)],
    ["/metrics/resource", parsePrometheus(await node.statistics.resource())],
    ["/metrics/cadvisor", parsePrometheus(await node.statistics.cadvisor(neverAborted))],
    ["/metrics/probes", parsePrometheus(metrics.probesText(files))],
  ]);
}
