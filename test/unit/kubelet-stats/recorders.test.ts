import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { ApiError } from "../../../src/api/errors.ts";
import type { ApiClient } from "../../../src/api/client.ts";
import { ClientMetrics, measuredClient } from "../../../src/kubelet/stats/client-metrics.ts";
import { HttpMetrics } from "../../../src/kubelet/stats/http-metrics.ts";
import { KubeletMetrics } from "../../../src/kubelet/stats/kubelet-metrics.ts";
import { measuredRuntime } from "../../../src/kubelet/stats/measured-runtime.ts";
import { PodInventory } from "../../../src/kubelet/stats/pod-inventory.ts";
import { podStart } from "../../../src/kubelet/stats/pod-start.ts";
import { ProbeMetrics } from "../../../src/kubelet/stats/probe-metrics.ts";
import { RuntimeMetrics } from "../../../src/kubelet/stats/runtime-metrics.ts";
import { type Metric, renderMetrics } from "../../../src/lib/metrics-text.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";
import { ManualClock } from "../../component/api/manual-clock.ts";
import { container, podRecord } from "../../component/kubelet-stats/fixture.ts";
import { fakeRuntime } from "../../fakes/fake-runtime.ts";
import { recordedKernel } from "../../fakes/kernel-files.ts";
import { parsePrometheus } from "../../fakes/prometheus-text.ts";
import { pod } from "../kubelet-pods/builders.ts";

const neverAborted = new AbortController().signal;

/** Values by `name{labels}`, buckets left out. */
function values(metrics: readonly Metric[]): Record<string, number> {
  const out: Record<string, number> = {};
  for (const { samples } of parsePrometheus(renderMetrics(metrics)).values()) {
    for (const { labels, name, value } of samples) {
      if ("le" in labels) continue;
      const text = Object.entries(labels).map(([key, label]) => `${key}=${label}`);
      out[`${name}{${text.join(",")}}`] = value;
    }
  }
  return out;
}

describe("probes", () => {
  const of = {
    kind: "Readiness",
    container: "main",
    pod: "web",
    namespace: "ns",
    podUID: "u",
  } as const;
  const labels = "container=main,namespace=ns,pod=web";

  test("are counted by result; failed ones are not timed; what ends is gone", () => {
    const metrics = new ProbeMetrics();
    metrics.probed(of, "successful", 0.5);
    metrics.probed(of, "failed", 7);
    metrics.probed({ ...of, kind: "Liveness" }, "unknown", 1);
    assert.deepEqual(values(metrics.metrics()), {
      [`prober_probe_duration_seconds_sum{${labels},probe_type=Readiness}`]: 0.5,
      [`prober_probe_duration_seconds_count{${labels},probe_type=Readiness}`]: 1,
      [`prober_probe_duration_seconds_sum{${labels},probe_type=Liveness}`]: 1,
      [`prober_probe_duration_seconds_count{${labels},probe_type=Liveness}`]: 1,
      [`prober_probe_total{${labels},pod_uid=u,probe_type=Readiness,result=successful}`]: 1,
      [`prober_probe_total{${labels},pod_uid=u,probe_type=Readiness,result=failed}`]: 1,
      [`prober_probe_total{${labels},pod_uid=u,probe_type=Liveness,result=unknown}`]: 1,
    });
    metrics.ended(of);
    metrics.ended({ ...of, kind: "Liveness" });
    assert.equal(renderMetrics(metrics.metrics()).trim(), "");
  });
});

describe("the runtime's calls", () => {
  function measured(): {
    readonly fake: ReturnType<typeof fakeRuntime>;
    readonly runtime: ReturnType<typeof measuredRuntime>;
    readonly metrics: RuntimeMetrics;
    readonly inventory: PodInventory;
    readonly clock: ManualClock;
  } {
    const clock = new ManualClock();
    const fake = fakeRuntime(() => clock.now());
    const metrics = new RuntimeMetrics();
    const inventory = new PodInventory();
    const runtime = measuredRuntime({
      runtime: fake,
      inventory,
      metrics,
      typeOf: () => "init_container",
      clock,
    });
    return { fake, runtime, metrics, inventory, clock };
  }

  test("are counted, timed and told apart by how they end", async () => {
    const { clock, fake, metrics, runtime } = measured();
    fake.fail = () => clock.advance(2000);
    await runtime.ping(neverAborted);
    await assert.rejects(runtime.startContainer("unknown", neverAborted));
    const seen = values(metrics.metrics([]));
    assert.equal(seen["kubelet_runtime_operations_total{operation_type=status}"], 1);
    assert.equal(seen["kubelet_runtime_operations_total{operation_type=start_container}"], 1);
    assert.equal(
      seen["kubelet_runtime_operations_errors_total{operation_type=start_container}"],
      1,
    );
    assert.equal(seen["kubelet_runtime_operations_errors_total{operation_type=status}"], undefined);
    assert.equal(seen["kubelet_runtime_operations_duration_seconds_sum{operation_type=status}"], 2);
  });

  test("who gives up waiting has not seen the engine fail", async () => {
    const { fake, metrics, runtime } = measured();
    fake.fail = () => {
      throw new DOMException("gave up", "AbortError");
    };
    await assert.rejects(runtime.ping(neverAborted));
    const seen = values(metrics.metrics([]));
    assert.equal(seen["kubelet_runtime_operations_total{operation_type=status}"], 1);
    assert.equal(seen["kubelet_runtime_operations_errors_total{operation_type=status}"], undefined);
  });

  test("a start that fails counts as started and as an error, by what the container is", async () => {
    const { fake, metrics, runtime } = measured();
    fake.fail = () => {
      throw new Error("broken");
    };
    await assert.rejects(runtime.startContainer("c", neverAborted));
    const seen = values(metrics.metrics([]));
    assert.equal(seen["kubelet_started_containers_total{container_type=container}"], 1);
    assert.equal(
      seen[
        "kubelet_started_containers_errors_total{container_type=container,code=RunContainerError}"
      ],
      1,
    );
  });

  test("answers about pods are kept for readers", async () => {
    const { inventory, runtime } = measured();
    const sandbox = {
      metadata: { name: "web", namespace: "ns", uid: "u", attempt: 0 },
      hostname: "web",
      labels: {},
      record: "",
      network: "pod",
      ipc: "pod",
      pid: "pod",
      sysctls: {},
      cgroupParent: undefined,
      runtimeHandler: "",
      shmBytes: undefined,
    } as const;
    await runtime.runPodSandbox(sandbox, neverAborted);
    await runtime.podRecord("u", neverAborted);
    assert.deepEqual(
      inventory.records().map((record) => record.uid),
      ["u"],
    );
    await runtime.snapshot(neverAborted);
    assert.equal(inventory.records().length, 1);
  });

  test("containers and pods are counted by state, ends by exit code and reason", () => {
    const metrics = new RuntimeMetrics();
    const state = {
      kind: "exited",
      createdAt: 1,
      startedAt: 1,
      finishedAt: 2,
      exitCode: 137,
      oomKilled: true,
      error: "",
    } as const;
    metrics.containerEnded("container", container(1, { state }));
    const seen = values(
      metrics.metrics([podRecord(2, { containers: [container(1), container(2, { state })] })]),
    );
    assert.equal(seen["kubelet_running_pods{}"], 1);
    assert.equal(seen["kubelet_running_containers{container_state=running}"], 1);
    assert.equal(seen["kubelet_running_containers{container_state=exited}"], 1);
    const ended = "container_type=container,exit_code=137,reason=OOMKilled";
    assert.equal(seen[`kubelet_terminated_containers_total{${ended}}`], 1);
  });
});

describe("how long a pod took to run", () => {
  const created = "2026-01-01T00:00:00Z";
  const at = (seconds: number): number => Date.parse(created) + seconds * 1000;
  const started: AssignedPod = {
    ...pod(),
    metadata: { ...pod().metadata, creationTimestamp: created },
  };
  const times = { seenAtMs: at(0.4), nowMs: at(10) };

  test("the creation time is rounded down to a second: the pod is not older than when it was seen", () => {
    const { sinceCreated, sinceSeen } = podStart(started, {}, [], times);
    assert.equal(sinceSeen, 9.6);
    assert.equal(sinceCreated, 9.6);
    // Seen late: then it counts from the end of that second at the latest.
    assert.equal(podStart(started, {}, [], { ...times, seenAtMs: at(5) }).sinceCreated, 9.001);
  });

  test("pulls of its images are left out once, however many there were at a time", () => {
    const pulls = [
      { reference: "app:1", fromMs: at(1), toMs: at(4) },
      { reference: "app:1", fromMs: at(2), toMs: at(5) },
      { reference: "other:1", fromMs: at(5), toMs: at(9) },
      { reference: "app:1", fromMs: at(-9), toMs: at(-8) },
    ];
    assert.equal(podStart(started, {}, pulls, times).withoutPulls, 9.6 - 4);
  });

  test("so is the time of init containers", () => {
    const status = {
      initContainerStatuses: [
        {
          name: "init",
          image: "",
          imageID: "",
          ready: true,
          restartCount: 0,
          state: {
            terminated: {
              exitCode: 0,
              startedAt: "2026-01-01T00:00:02Z",
              finishedAt: "2026-01-01T00:00:05Z",
            },
          },
        },
      ],
    };
    assert.equal(podStart(started, status, [], times).withoutPulls, 9.6 - 3);
  });
});

describe("requests to the API server", () => {
  function client(
    request: ApiClient["request"],
    watch: ApiClient["watch"],
  ): { readonly of: ApiClient; readonly metrics: ClientMetrics } {
    const metrics = new ClientMetrics();
    const of = measuredClient(
      { request, watch },
      { metrics, host: "api:6443", clock: new ManualClock() },
    );
    return { of, metrics };
  }

  async function* nothing(): AsyncGenerator {
    yield* [];
  }

  test("are counted by what came of them", async () => {
    const errors: readonly (Error | undefined)[] = [
      undefined,
      new ApiError(404, "NotFound", "gone"),
      new Error("no route"),
      new DOMException("gave up", "AbortError"),
    ];
    const { metrics, of } = client(async ({ path }) => {
      const error = errors[Number(path)];
      if (error !== undefined) throw error;
      return {};
    }, nothing);
    for (const path of ["0", "1", "2", "3"]) {
      await of.request({ method: "GET", path, signal: neverAborted }).catch(() => undefined);
    }
    const seen = values(metrics.metrics());
    const total = (code: string): number | undefined =>
      seen[`rest_client_requests_total{code=${code},host=api:6443,method=GET}`];
    assert.deepEqual([total("200"), total("404"), total("<error>")], [1, 1, 1]);
    assert.equal(seen["rest_client_request_duration_seconds_count{host=api:6443,verb=GET}"], 3);
  });

  test("a watch is counted when it is open, and its later end is no failure", async () => {
    const { metrics, of } = client(
      async () => ({}),
      async function* watch({ onOpen }) {
        onOpen?.();
        yield 1;
        throw new ApiError(410, "Expired", "too old");
      },
    );
    let opened = 0;
    const seenEvents: unknown[] = [];
    await assert.rejects(async () => {
      const request = { path: "/w", query: {}, signal: neverAborted, stallMs: 1 };
      for await (const event of of.watch({ ...request, onOpen: () => (opened += 1) })) {
        seenEvents.push(event);
      }
    });
    assert.deepEqual([opened, seenEvents], [1, [1]]);
    const seen = values(metrics.metrics());
    assert.equal(seen["rest_client_requests_total{code=200,host=api:6443,method=GET}"], 1);
    assert.equal(Object.keys(seen).filter((key) => key.includes("_total")).length, 1);
  });
});

describe("requests to the node", () => {
  test("are in flight until they are answered", () => {
    const metrics = new HttpMetrics();
    const request = { method: "GET", path: "exec", longRunning: true };
    metrics.began(request);
    const labels = "long_running=true,method=GET,path=exec,server_type=readwrite";
    assert.equal(values(metrics.metrics())[`kubelet_http_inflight_requests{${labels}}`], 1);
    metrics.ended(request, 3);
    const seen = values(metrics.metrics());
    assert.equal(seen[`kubelet_http_inflight_requests{${labels}}`], 0);
    assert.equal(seen[`kubelet_http_requests_total{${labels}}`], 1);
    assert.equal(seen[`kubelet_http_requests_duration_seconds_sum{${labels}}`], 3);
  });
});

describe("the page of the agent's own work", () => {
  test("has a part that other pages of the program have too, with another client's requests", () => {
    const metrics = new KubeletMetrics();
    const client = new ClientMetrics();
    metrics.client.requested("api:6443", "GET", "200", 0.1);
    client.requested("api:6443", "LIST", "403", 0.1);
    const sources = { files: recordedKernel(2), node: { node: () => undefined } };
    const families = parsePrometheus(metrics.programText(sources, client));
    const requests = families.get("rest_client_requests_total")?.samples ?? [];
    assert.deepEqual(
      requests.map(({ labels }) => labels["code"]),
      ["403"],
    );
    for (const name of ["process_resident_memory_bytes", "kubernetes_build_info"])
      assert.ok(families.has(name), name);
    assert.ok(!families.has("kubelet_node_name"));
  });

  test("is well formed, with nothing recorded and with everything recorded", () => {
    const metrics = new KubeletMetrics();
    const clock = new ManualClock();
    const text = (): string =>
      metrics.text({
        config: { nodeName: 'n"1' },
        inventory: new PodInventory(),
        pods: () => [pod(), { ...pod(), status: { phase: "Succeeded" } }],
        node: { node: () => undefined },
        runtimeInfo: () => ({ cgroupVersion: 2 }),
        heartbeat: () => ({ leaseAgeSeconds: 3.5, leaseRenewals: 7 }),
        files: recordedKernel(2),
        clock,
      });
    parsePrometheus(text());
    metrics.pods.added(2);
    metrics.pods.workBegan(0.1);
    metrics.pods.worked("create", 0.1);
    metrics.pods.started({ hostNetwork: false, sinceCreated: 3, sinceSeen: 2, withoutPulls: 1 });
    metrics.pods.statusWritten(0.01);
    metrics.pods.rejected("OutOfcpu");
    metrics.pods.preempted("cpu");
    metrics.pods.cgroupManaged("create", 0.001);
    metrics.pods.imageCollected("space");
    metrics.pods.disksMeasured(0.2);
    metrics.runtime.relisted(0.1, clock.now());
    metrics.runtime.relisted(0.1, clock.now() + 30_000);
    metrics.runtime.podRelisted(0.01);
    metrics.runtime.sandboxRun("", 0.3, true);
    metrics.runtime.imagePulled({ reference: "app:1", fromMs: 0, toMs: 4000 }, 20 * 1024 ** 2);
    const families = parsePrometheus(text());
    const of = (name: string): number | undefined => families.get(name)?.samples[0]?.value;
    assert.equal(families.get("kubelet_node_name")?.samples[0]?.labels["node"], 'n"1');
    assert.equal(of("kubelet_desired_pods"), 2);
    assert.equal(of("kubelet_active_pods"), 1);
    assert.equal(of("remora_lease_age_seconds"), 3.5);
    assert.equal(of("remora_lease_renewals_total"), 7);
    assert.equal(of("kubelet_first_network_pod_start_sli_duration_seconds"), 1);
    assert.equal(of("kubelet_started_pods_errors_total"), 1);
    for (const name of [
      "kubelet_pod_worker_duration_seconds",
      "kubelet_pod_start_sli_duration_seconds",
      "kubelet_pleg_relist_interval_seconds",
      "kubelet_image_pull_duration_seconds",
      "kubelet_admission_rejections_total",
    ]) {
      assert.ok(families.has(name), name);
    }
    const pull = families.get("kubelet_image_pull_duration_seconds")?.samples[0];
    assert.equal(pull?.labels["image_size_in_bytes"], "10MB-100MB");
  });

  test("the page of probes says since when this process counts", () => {
    const families = parsePrometheus(new KubeletMetrics().probesText(withSelf()));
    assert.deepEqual([...families.keys()], ["process_start_time_seconds"]);
  });
});

function withSelf(): ReturnType<typeof recordedKernel> {
  const files = recordedKernel(2);
  files.texts.set("/proc/self/stat", files.texts.get("/proc/92/stat") ?? "");
  return files;
}
