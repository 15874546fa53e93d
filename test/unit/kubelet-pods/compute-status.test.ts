import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { PodStatus } from "../../../src/api/types.gen.ts";
import {
  computeStatus,
  type ComputeStatusInput,
} from "../../../src/kubelet/status/compute-status.ts";
import { statusPatch } from "../../../src/kubelet/status/status-patch.ts";
import type { ObservedPod } from "../../../src/kubelet/status/observed.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";
import { container, exited, now, observed, pod, record, running, sandbox } from "./builders.ts";

function status(
  subject: AssignedPod,
  view: ObservedPod,
  more: Partial<ComputeStatusInput> = {},
): PodStatus {
  return computeStatus({
    pod: subject,
    observed: view,
    waiting: new Map(),
    messages: new Map(),
    imageRefs: new Map([["sha256:1", "docker-pullable://app@sha256:2"]]),
    terminating: false,
    old: subject.status ?? {},
    verdict: undefined,
    seenAt: now,
    ...more,
  });
}

function condition(of: PodStatus, type: string): string {
  const found = of.conditions?.find((candidate) => candidate.type === type);
  return `${found?.status ?? "-"} ${found?.reason ?? ""} ${found?.message ?? ""}`.trim();
}

const phases: readonly (readonly [string, AssignedPod, ObservedPod, boolean, string])[] = [
  ["nothing ran yet", pod(), observed([], { sandboxes: [] }), false, "Pending"],
  ["all run", pod(), observed([record("web", running)]), false, "Running"],
  [
    "one of two not started",
    pod({ containers: [container("a"), container("b")] }),
    observed([record("a", running)]),
    false,
    "Pending",
  ],
  ["waits for its restart", pod(), observed([record("web", exited(1))]), false, "Running"],
  [
    "in the crash loop",
    pod(),
    observed([record("web", exited(1), { backoffMs: 10_000 })]),
    false,
    "Running",
  ],
  [
    "Never, exit 0",
    pod({ restartPolicy: "Never" }),
    observed([record("web", exited(0))]),
    false,
    "Succeeded",
  ],
  [
    "Never, exit 1",
    pod({ restartPolicy: "Never" }),
    observed([record("web", exited(1))]),
    false,
    "Failed",
  ],
  [
    "OnFailure, exit 1",
    pod({ restartPolicy: "OnFailure" }),
    observed([record("web", exited(1))]),
    false,
    "Running",
  ],
  [
    "failed init under Never",
    pod({ restartPolicy: "Never", initContainers: [container("one")] }),
    observed([record("one", exited(1))]),
    false,
    "Failed",
  ],
  [
    "init still runs",
    pod({ initContainers: [container("one")] }),
    observed([record("one", running)]),
    false,
    "Pending",
  ],
  ["stopped by deletion", pod(), observed([record("web", exited(143))]), true, "Failed"],
  ["stopped by deletion, exit 0", pod(), observed([record("web", exited(0))]), true, "Succeeded"],
  ["deleted before it ran", pod(), observed([], { sandboxes: [] }), true, "Failed"],
];

for (const [name, subject, view, terminating, phase] of phases) {
  test(`phase: ${name} is ${phase}`, () => {
    assert.equal(status(subject, view, { terminating }).phase, phase);
  });
}

test("the terminal phase waits until the last container has stopped", () => {
  const subject = pod({ containers: [container("a"), container("b")] });
  const old: PodStatus = { phase: "Running" };
  const view = observed([record("a", exited(143)), record("b", running)]);
  assert.equal(status(subject, view, { terminating: true, old }).phase, "Running");
});

test("a terminal phase never changes, whatever is observed", () => {
  const old: PodStatus = { phase: "Succeeded", reason: "Because", message: "of this" };
  const result = status(pod(), observed([record("web", running)]), { old });
  assert.equal(result.phase, "Succeeded");
  assert.equal(result.reason, "Because");
});

test("a pod without a network is not ready to start containers", () => {
  const result = status(pod(), observed([], { addresses: () => undefined }));
  assert.equal(condition(result, "PodReadyToStartContainers"), "False");
  assert.equal(result.podIP, undefined);
});

test("conditions of a running pod", () => {
  const result = status(pod(), observed([record("web", running)]));
  assert.deepEqual(
    result.conditions?.map(({ type, status: value }) => `${type}=${value}`),
    [
      "PodReadyToStartContainers=True",
      "Initialized=True",
      "Ready=True",
      "ContainersReady=True",
      "PodScheduled=True",
    ],
  );
  assert(result.conditions?.every(({ observedGeneration }) => observedGeneration === 3));
});

test("conditions of a pod that initialises name what is missing", () => {
  const subject = pod({ initContainers: [container("one"), container("two")] });
  const result = status(subject, observed([record("one", running)]));
  assert.equal(
    condition(result, "Initialized"),
    "False ContainersNotInitialized containers with incomplete status: [one two]",
  );
  assert.equal(
    condition(result, "Ready"),
    "False ContainersNotReady containers with unready status: [web]",
  );
  assert.equal(result.containerStatuses?.[0]?.state?.waiting?.reason, "PodInitializing");
});

test("a readiness gate without its condition keeps the pod from Ready, not its containers", () => {
  const subject = pod({ readinessGates: [{ conditionType: "lb" }] });
  const view = observed([record("web", running)]);
  assert.equal(
    condition(status(subject, view), "Ready"),
    'False ReadinessGatesNotReady corresponding condition of pod readiness gate "lb" does not exist.',
  );
  assert.equal(condition(status(subject, view), "ContainersReady"), "True");
  const open = pod(subject.spec, { status: { conditions: [{ type: "lb", status: "True" }] } });
  assert.equal(condition(status(open, view), "Ready"), "True");
});

test("a condition keeps its transition time until its status changes", () => {
  const before = status(pod(), observed([record("web", running)], { now: now - 60_000 }));
  const same = status(pod(), observed([record("web", running)]), { old: before });
  assert.deepEqual(same.conditions, before.conditions);
  const after = status(pod(), observed([record("web", exited(1))]), { old: before });
  const ready = after.conditions?.find(({ type }) => type === "Ready");
  assert.equal(ready?.lastTransitionTime, "2026-01-01T00:10:00Z");
});

test("the crash loop is computed from the container's own record", () => {
  const view = observed([record("web", exited(1, 3000), { attempt: 2, backoffMs: 40_000 })]);
  const [web] = status(pod(), view).containerStatuses ?? [];
  assert.deepEqual(web?.state, {
    waiting: {
      reason: "CrashLoopBackOff",
      message: "back-off 40s restarting failed container=web pod=web_ns(uid-1)",
    },
  });
  assert.equal(web?.lastState?.terminated?.exitCode, 1);
  assert.equal(web?.restartCount, 2);
});

test("the reasons of an exit are the kubelet's", () => {
  const oom = { ...exited(137), oomKilled: true } as const;
  const failedStart = { ...exited(127), startedAt: 0, error: "no such file" } as const;
  const cases = [
    [exited(0), "Completed"],
    [exited(2), "Error"],
    [oom, "OOMKilled"],
    [failedStart, "ContainerCannotRun"],
  ] as const;
  for (const [state, reason] of cases) {
    const [web] =
      status(pod({ restartPolicy: "Never" }), observed([record("web", state)])).containerStatuses ??
      [];
    assert.equal(web?.state?.terminated?.reason, reason);
  }
});

test("the message of an end is the engine's and what the program left, in this order", () => {
  const said = (error: string, left: string | undefined): string | undefined => {
    const ended = record("web", { ...exited(127), error } as ReturnType<typeof exited>);
    const messages = new Map(left === undefined ? [] : [[ended.id, left]]);
    const view = observed([ended]);
    const [web] =
      status(pod({ restartPolicy: "Never" }), view, { messages }).containerStatuses ?? [];
    return web?.state?.terminated?.message;
  };
  assert.equal(said("no such file", ""), "no such file");
  assert.equal(said("no such file", undefined), "no such file");
  assert.equal(said("", "disk full"), "disk full");
  assert.equal(said("killed", "disk full"), "killed: disk full");
  assert.equal(said("", ""), undefined);
});

test("a container that vanished while it ran counts as terminated with 137", () => {
  const old: PodStatus = {
    containerStatuses: [
      { name: "web", image: "", imageID: "", ready: true, restartCount: 1, state: { running: {} } },
    ],
  };
  const [web] = status(pod(), observed([]), { old }).containerStatuses ?? [];
  assert.equal(web?.lastState?.terminated?.reason, "ContainerStatusUnknown");
  assert.equal(web?.restartCount, 2);
  const again = status(pod(), observed([]), { old: { containerStatuses: web ? [web] : [] } });
  assert.equal(again.containerStatuses?.[0]?.restartCount, 2);
});

test("regular containers are listed by name, init containers as the spec has them", () => {
  const subject = pod({
    containers: [container("b"), container("a")],
    initContainers: [container("z"), container("y")],
  });
  const result = status(subject, observed([]));
  assert.deepEqual(
    result.containerStatuses?.map(({ name }) => name),
    ["a", "b"],
  );
  assert.deepEqual(
    result.initContainerStatuses?.map(({ name }) => name),
    ["z", "y"],
  );
});

test("a verdict fails the pod with its reason once nothing runs", () => {
  const verdict = { reason: "DeadlineExceeded", message: "too long", conditions: [] };
  const result = status(pod(), observed([record("web", exited(143))]), {
    verdict,
    terminating: true,
  });
  assert.equal(result.phase, "Failed");
  assert.equal(result.reason, "DeadlineExceeded");
});

test("hostNetwork pods have the node's addresses, others their sandbox's", () => {
  const host = status(
    pod({ hostNetwork: true }),
    observed([], { sandboxes: [{ ...sandbox(), network: "node" }] }),
  );
  assert.equal(host.podIP, "192.0.2.10");
  const own = status(pod(), observed([], { addresses: () => ["fd00::2", "10.244.0.2"] }));
  assert.deepEqual(own.podIPs, [{ ip: "10.244.0.2" }, { ip: "fd00::2" }]);
});

describe("a pod in the node's network", () => {
  const subject = pod({ hostNetwork: true });
  const at = (...hostIPs: readonly string[]): ObservedPod =>
    observed([record("web", running)], {
      sandboxes: [{ ...sandbox(), network: "node" }],
      hostIPs,
    });
  const old: PodStatus = { phase: "Running", podIP: "192.0.2.10", podIPs: [{ ip: "192.0.2.10" }] };
  const ips = ({ hostIPs, podIPs }: PodStatus): readonly string[] =>
    [hostIPs, podIPs].map((list) => (list ?? []).map(({ ip }) => ip).join());

  test("has the addresses that the node has now, of both families when it has both", () => {
    const moved = ips(status(subject, at("198.51.100.7"), { old }));
    assert.deepEqual(moved, ["198.51.100.7", "198.51.100.7"]);
    const both = ips(status(subject, at("192.0.2.10", "fd00::2"), { old }));
    assert.deepEqual(both, ["192.0.2.10,fd00::2", "192.0.2.10,fd00::2"]);
  });

  test("keeps its address while the node's is not known, and when it ends", () => {
    assert.deepEqual(ips(status(subject, at(), { old })), ["", "192.0.2.10"]);
    const ending = ips(status(subject, at("198.51.100.7"), { old, terminating: true }));
    assert.deepEqual(ending, ["198.51.100.7", "192.0.2.10"]);
    const ended = ips(status(subject, at("198.51.100.7"), { old: { ...old, phase: "Failed" } }));
    assert.deepEqual(ended, ["198.51.100.7", "192.0.2.10"]);
  });

  test("gives one address for another in a patch", () => {
    const next = status(subject, at("198.51.100.7"), { old });
    const changes = statusPatch("uid-1", old, next)?.["status"] as Record<string, unknown>;
    assert.equal(changes["podIP"], "198.51.100.7");
    assert.deepEqual(changes["podIPs"], [
      { ip: "198.51.100.7" },
      { ip: "192.0.2.10", $patch: "delete" },
    ]);
  });

  test("says which comes first where a merge would put it last", () => {
    const both = status(subject, at("192.0.2.10", "fd00::2"), { old });
    const moved = status(subject, at("198.51.100.7", "fd00::2"), { old: both });
    const changes = statusPatch("uid-1", both, moved)?.["status"] as Record<string, unknown>;
    const order = [{ ip: "198.51.100.7" }, { ip: "fd00::2" }];
    assert.deepEqual(changes["$setElementOrder/podIPs"], order);
    assert.deepEqual(changes["$setElementOrder/hostIPs"], order);
    const added = statusPatch("uid-1", old, both)?.["status"] as Record<string, unknown>;
    assert.equal("$setElementOrder/podIPs" in added, false);
  });
});

test("before the first probe result a container adopted from another process stays ready", () => {
  const probed = pod({ containers: [container("web", { readinessProbe: {}, startupProbe: {} })] });
  const old: PodStatus = {
    containerStatuses: [
      {
        name: "web",
        image: "",
        imageID: "",
        containerID: "docker://web-0",
        ready: true,
        started: true,
        restartCount: 0,
      },
    ],
  };
  const view = observed([record("web", running)]);
  assert.equal(status(probed, view, { old }).containerStatuses?.[0]?.ready, true);
  assert.equal(status(probed, view).containerStatuses?.[0]?.ready, false);
});

test("a patch holds only what changed, and names what is to go", () => {
  const before: PodStatus = {
    phase: "Running",
    podIP: "10.0.0.1",
    podIPs: [{ ip: "10.0.0.1" }],
    conditions: [
      { type: "Ready", status: "False", reason: "ContainersNotReady" },
      { type: "PodScheduled", status: "True" },
    ],
  };
  const after: PodStatus = {
    phase: "Running",
    podIP: "10.0.0.2",
    podIPs: [{ ip: "10.0.0.2" }],
    conditions: [
      { type: "Ready", status: "True" },
      { type: "PodScheduled", status: "True" },
    ],
  };
  assert.deepEqual(statusPatch("uid-1", before, after), {
    metadata: { uid: "uid-1" },
    status: {
      podIP: "10.0.0.2",
      podIPs: [{ ip: "10.0.0.2" }, { $patch: "delete", ip: "10.0.0.1" }],
      conditions: [{ type: "Ready", status: "True", reason: null }],
    },
  });
  assert.equal(statusPatch("uid-1", after, { ...after }), undefined);
});

test("conditions that stand in another order on the server are no change", () => {
  const ready = { type: "Ready", status: "True" };
  const scheduled = { type: "PodScheduled", status: "True" };
  assert.equal(
    statusPatch("uid-1", { conditions: [scheduled, ready] }, { conditions: [ready, scheduled] }),
    undefined,
  );
});
