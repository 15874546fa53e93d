import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import { podCell } from "../../../src/agent/local/pod-cell.ts";
import { podWhy, type WhyInput } from "../../../src/agent/local/pod-why.ts";
import type { RecentEvent } from "../../../src/agent/local/recent-events.ts";
import type { ContainerStatus, Pod, PodStatus } from "../../../src/api/types.gen.ts";
import { podTable } from "../../../src/controlplane/kinds/pod-table.ts";

const web = { name: "web", image: "nginx:1.27" };

function podWith(spec: Partial<NonNullable<Pod["spec"]>> = {}, more: Partial<Pod> = {}): Pod {
  return {
    metadata: { name: "web-1", namespace: "default", uid: "u1" },
    spec: { containers: [web], ...spec },
    ...more,
  };
}

function containerStatus(more: Partial<ContainerStatus> = {}): ContainerStatus {
  const base = { name: "web", image: "nginx:1.27", imageID: "", ready: false, restartCount: 0 };
  return { ...base, ...more };
}

function waiting(reason: string, message?: string, more: Partial<ContainerStatus> = {}): PodStatus {
  const state = { waiting: { reason, ...(message === undefined ? {} : { message }) } };
  return { phase: "Pending", containerStatuses: [containerStatus({ state, ...more })] };
}

function event(reason: string, message: string, more: Partial<RecentEvent> = {}): RecentEvent {
  const about = { kind: "Pod", namespace: "default", name: "web-1", uid: "u1", fieldPath: "" };
  return { at: 0, type: "Warning", reason, message, ...about, count: 1, ...more };
}

describe("why a pod is not ready", () => {
  const cases: readonly {
    readonly name: string;
    readonly pod?: Pod;
    readonly status: PodStatus;
    readonly events?: readonly RecentEvent[];
    readonly pulling?: WhyInput["pulling"];
    readonly why: string;
  }[] = [
    {
      name: "it is ready",
      status: { phase: "Running", conditions: [{ type: "Ready", status: "True" }] },
      why: "",
    },
    { name: "it has done its work", status: { phase: "Succeeded" }, why: "" },
    {
      name: "its image does not exist",
      status: waiting(
        "ImagePullBackOff",
        'Back-off pulling image "nginx:1.27": ErrImagePull: image not found: manifest unknown',
      ),
      why: 'image "nginx:1.27" of container "web" cannot be pulled: image not found: manifest unknown',
    },
    {
      name: "its image was just tried",
      status: waiting("ErrImagePull", "the registry cannot be reached: dial tcp: no such host"),
      why: 'image "nginx:1.27" of container "web" cannot be pulled: the registry cannot be reached: dial tcp: no such host',
    },
    {
      name: "its image may not be pulled",
      status: waiting("ErrImageNeverPull", "x"),
      why: 'image "nginx:1.27" of container "web" is not on this machine, and its imagePullPolicy is Never',
    },
    {
      name: "its image is on its way",
      status: waiting("ContainerCreating"),
      pulling: [{ image: "nginx:1.27", queued: false }],
      events: [event("FailedMount", "old trouble")],
      why: 'image "nginx:1.27" is being pulled',
    },
    {
      name: "its program is not there",
      status: waiting(
        "CrashLoopBackOff",
        'back-off 20s restarting failed container="web" pod="web-1"',
        {
          lastState: {
            terminated: {
              exitCode: 127,
              reason: "ContainerCannotRun",
              startedAt: "",
              finishedAt: "",
            },
          },
        },
      ),
      events: [
        event(
          "Failed",
          'Error: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "/nowhere": stat /nowhere: no such file or directory: unknown',
          { fieldPath: "spec.containers{web}" },
        ),
      ],
      why: 'container "web" keeps ending: exit code 127 (ContainerCannotRun): exec: "/nowhere": stat /nowhere: no such file or directory; it is started again 20s after its end',
    },
    {
      name: "its image is behind others",
      status: waiting("ContainerCreating"),
      pulling: [{ image: "nginx:1.27", queued: true }],
      why: 'image "nginx:1.27" waits until others are pulled',
    },
    {
      name: "its image does not exist, in the engine's words",
      status: waiting("ErrImagePull", "image not found: manifest unknown (HTTP 500)"),
      why: 'image "nginx:1.27" of container "web" cannot be pulled: image not found: manifest unknown',
    },
    {
      name: "it crashes",
      status: waiting(
        "CrashLoopBackOff",
        "back-off 40s restarting failed container=web pod=web-1_default(u1)",
        {
          restartCount: 3,
          lastState: {
            terminated: { exitCode: 1, reason: "Error", message: "stack\n  at x\nno database\n" },
          },
        },
      ),
      why: 'container "web" keeps ending: exit code 1: no database; it is started again 40s after its end',
    },
    {
      name: "it is killed for its memory",
      pod: podWith({ containers: [{ ...web, resources: { limits: { memory: "64Mi" } } }] }),
      status: waiting("CrashLoopBackOff", "back-off 10s restarting failed container=web", {
        lastState: { terminated: { exitCode: 137, reason: "OOMKilled" } },
      }),
      why: 'container "web" keeps ending: killed for using more memory than its limit of 64Mi (OOMKilled); it is started again 10s after its end',
    },
    {
      name: "a ConfigMap is missing",
      status: waiting("CreateContainerConfigError", 'configmap "settings" not found'),
      why: 'container "web" cannot be made (CreateContainerConfigError): configmap "settings" not found',
    },
    {
      name: "its volumes wait",
      status: waiting("ContainerCreating"),
      events: [
        event("Pulled", "x", { type: "Normal" }),
        event("FailedMount", 'MountVolume.SetUp failed for volume "a": secret "b" not found'),
      ],
      why: 'container "web" waits, FailedMount: MountVolume.SetUp failed for volume "a": secret "b" not found',
    },
    {
      name: "trouble that is over is not told",
      status: waiting("ContainerCreating"),
      events: [event("FailedMount", "x"), event("Created", "x", { type: "Normal" })],
      why: 'container "web" is being started',
    },
    {
      name: "an init container holds it back, whatever the others say",
      pod: podWith({
        initContainers: [
          { name: "one", image: "a" },
          { name: "two", image: "b" },
        ],
      }),
      status: {
        phase: "Pending",
        initContainerStatuses: [
          containerStatus({ name: "one", ready: true, state: { terminated: { exitCode: 0 } } }),
          containerStatus({ name: "two", state: { running: {} } }),
        ],
        containerStatuses: [containerStatus({ state: { waiting: { reason: "PodInitializing" } } })],
      },
      why: 'init container "two" is at work',
    },
    {
      name: "its readiness probe fails",
      pod: podWith({ containers: [{ ...web, readinessProbe: { httpGet: { port: 80 } } }] }),
      status: {
        phase: "Running",
        containerStatuses: [containerStatus({ started: true, state: { running: {} } })],
      },
      events: [
        event("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503", {
          fieldPath: "spec.containers{web}",
        }),
        event("Unhealthy", "Liveness probe failed: other", { fieldPath: "spec.containers{web}" }),
      ],
      why: 'container "web" fails its readiness probe: HTTP probe failed with statuscode: 503',
    },
    {
      name: "its startup probe has not passed",
      pod: podWith({ containers: [{ ...web, startupProbe: { httpGet: { port: 80 } } }] }),
      status: {
        phase: "Running",
        containerStatuses: [containerStatus({ started: false, state: { running: {} } })],
      },
      why: 'container "web" has not passed its startup probe yet',
    },
    {
      name: "no node takes it",
      status: {
        phase: "Pending",
        conditions: [
          {
            type: "PodScheduled",
            status: "False",
            reason: "Unschedulable",
            message: "0/1 nodes are available: 1 Insufficient cpu.",
          },
        ],
      },
      why: "no node takes it: 0/1 nodes are available: 1 Insufficient cpu",
    },
    {
      name: "it was evicted",
      status: { phase: "Failed", reason: "Evicted", message: "Usage of EmptyDir volume exceeds." },
      why: "failed, Evicted: Usage of EmptyDir volume exceeds",
    },
    {
      name: "it failed by itself",
      status: {
        phase: "Failed",
        containerStatuses: [
          containerStatus({ state: { terminated: { exitCode: 3, reason: "Error" } } }),
        ],
      },
      why: 'container "web" ended with exit code 3',
    },
    {
      name: "it is being deleted",
      pod: podWith(
        {},
        {
          metadata: {
            name: "web-1",
            deletionTimestamp: "2026-03-01T12:00:00Z",
            deletionGracePeriodSeconds: 30,
          },
        },
      ),
      status: {
        phase: "Running",
        conditions: [{ type: "Ready", status: "True" }],
        containerStatuses: [containerStatus({ ready: true, state: { running: {} } })],
      },
      why: 'being deleted, waits for container "web" to end (30 s at most)',
    },
    {
      name: "a readiness gate is not met",
      status: {
        phase: "Running",
        conditions: [
          {
            type: "Ready",
            status: "False",
            reason: "ReadinessGatesNotReady",
            message: 'the status of pod readiness gate "x" is not "True", but False',
          },
        ],
        containerStatuses: [containerStatus({ ready: true, state: { running: {} } })],
      },
      why: 'the status of pod readiness gate "x" is not "True", but False',
    },
    { name: "it was assigned a moment ago", status: {}, why: 'container "web" is being started' },
  ];
  for (const { events = [], name, pod = podWith(), pulling = [], status, why } of cases) {
    test(name, () => {
      assert.equal(podWhy({ pod, status, events, pulling }), why);
    });
  }
});

const reason = fc.constantFrom(
  "",
  "Error",
  "Completed",
  "OOMKilled",
  "CrashLoopBackOff",
  "PodInitializing",
);
const state = fc.oneof(
  fc.constant({}),
  reason.map((text) => ({ waiting: text === "" ? {} : { reason: text } })),
  fc.constant({ running: {} }),
  fc
    .record({
      exitCode: fc.integer({ min: 0, max: 2 }),
      signal: fc.integer({ min: 0, max: 9 }),
      reason,
    })
    .map((terminated) => ({ terminated })),
);
const statusOf = (name: string): fc.Arbitrary<ContainerStatus> =>
  fc
    .record({ ready: fc.boolean(), started: fc.boolean(), restartCount: fc.nat(5), state })
    .map((more) => containerStatus({ name, ...more }));
const condition = (type: string): fc.Arbitrary<{ type: string; status: string; reason: string }> =>
  fc.record({
    type: fc.constant(type),
    status: fc.constantFrom("True", "False"),
    reason: fc.constantFrom("", "SchedulingGated"),
  });
const anyPod = fc.record({
  sidecars: fc.array(fc.boolean(), { maxLength: 3 }),
  count: fc.integer({ min: 1, max: 3 }),
  deleting: fc.boolean(),
  phase: fc.constantFrom("Pending", "Running", "Succeeded", "Failed"),
  reason: fc.constantFrom("", "Evicted", "NodeLost"),
  inits: fc.tuple(statusOf("i0"), statusOf("i1"), statusOf("i2")),
  containers: fc.tuple(statusOf("c0"), statusOf("c1"), statusOf("c2")),
  conditions: fc.tuple(condition("PodScheduled"), condition("Initialized"), condition("Ready")),
});

describe("what kubectl shows of a pod", () => {
  test("is what the API server's table says, whatever the pod's status is", () => {
    fc.assert(
      fc.property(anyPod, (any) => {
        const status: PodStatus = {
          phase: any.phase,
          ...(any.reason === "" ? {} : { reason: any.reason }),
          conditions: any.conditions,
          initContainerStatuses: any.inits.slice(0, any.sidecars.length),
          containerStatuses: any.containers.slice(0, any.count),
        };
        const pod: Pod = {
          metadata: {
            name: "p",
            namespace: "d",
            ...(any.deleting ? { deletionTimestamp: "2026-03-01T12:00:00Z" } : {}),
          },
          spec: {
            initContainers: any.sidecars.map((sidecar, index) => ({
              name: `i${index}`,
              ...(sidecar ? { restartPolicy: "Always" } : {}),
            })),
            containers: any.containers.slice(0, any.count).map(({ name }) => ({ name })),
          },
          status,
        };
        const [, ready, word, restarts] = podTable.row({ ...pod }, 0);
        const cell = podCell(pod, status);
        assert.equal(cell.status, word);
        assert.equal(cell.readyContainers, Number(String(ready).split("/")[0]));
        assert.equal(String(cell.restarts), restarts);
      }),
      { numRuns: 2000 },
    );
  });
});
