import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { computeActions, podRules } from "../../../src/kubelet/pods/compute-actions.ts";
import { containerRules } from "../../../src/kubelet/pods/container-rules.ts";
import type { PodAction } from "../../../src/kubelet/pods/pod-action.ts";
import { pruneActions } from "../../../src/kubelet/pods/prune-actions.ts";
import { computeStatus } from "../../../src/kubelet/status/compute-status.ts";
import type { ObservedPod } from "../../../src/kubelet/status/observed.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";
import {
  container,
  created,
  exited,
  now,
  observed,
  pod,
  record,
  running,
  sandbox,
  unknown,
} from "./builders.ts";

/** A plan in words, so that tables stay readable. */
function words(actions: readonly PodAction[]): readonly string[] {
  return actions.map((action) => {
    switch (action.kind) {
      case "endPod":
        return "end";
      case "createSandbox":
        return `sandbox ${action.attempt}`;
      case "stopSandbox":
        return `${action.kind} ${action.sandboxID}`;
      case "removeSandbox":
        return `${action.kind} ${action.sandbox.id}`;
      case "setUpNetwork":
        return `network ${action.sandbox.id}`;
      case "killContainer":
        return `kill ${action.record.id} ${action.cause}`;
      case "updateContainer":
        return `update ${action.record.id} cpu ${action.limits.cpuQuotaMicros} memory ${action.limits.memoryLimitBytes}`;
      case "removeContainer":
        return `remove ${action.record.id}`;
      case "startContainer":
        return `start ${action.entry.container.name} ${action.attempt} then ${action.backoffMs}`;
      case "backOff":
        return `wait ${action.entry.container.name} ${action.dueAt - observed([]).now}`;
    }
  });
}

function plan(subject: AssignedPod, view: ObservedPod): readonly string[] {
  const status = computeStatus({
    pod: subject,
    observed: view,
    waiting: new Map(),
    messages: new Map(),
    imageRefs: new Map(),
    terminating: false,
    old: subject.status ?? {},
    verdict: undefined,
    seenAt: view.now,
  });
  return words(computeActions({ pod: subject, observed: view, status }));
}

/** What the engine holds a container of 100m to. */
const held = { cpuShares: 102, cpuQuotaMicros: 10_000, memoryLimitBytes: 0 };
const init = [container("one"), container("two")];
const sidecar = container("side", { restartPolicy: "Always" });
const two = [container("a"), container("b")];

/** Ends with 42: all containers of its pod start anew. */
const resetting = container("a", {
  restartPolicy: "Never",
  restartPolicyRules: [
    { action: "RestartAllContainers", exitCodes: { operator: "In", values: [42] } },
  ],
});
const resetPod = pod({
  restartPolicy: "Never",
  initContainers: [container("one"), sidecar],
  containers: [resetting, container("b")],
});

const table: readonly {
  readonly name: string;
  readonly pod: AssignedPod;
  readonly observed: ObservedPod;
  readonly plan: readonly string[];
}[] = [
  {
    name: "a new pod gets its sandbox first",
    pod: pod(),
    observed: observed([], { sandboxes: [] }),
    plan: ["sandbox 0"],
  },
  {
    name: "a sandbox without addresses gets its network, not a successor",
    pod: pod(),
    observed: observed([], { addresses: () => undefined }),
    plan: ["network sandbox-0"],
  },
  {
    name: "a pod on the node's network needs no addresses",
    pod: pod({ hostNetwork: true }),
    observed: observed([], {
      addresses: () => undefined,
      sandboxes: [{ ...sandbox(), network: "node" }],
    }),
    plan: ["start web 0 then 0"],
  },
  {
    name: "regular containers start in spec order",
    pod: pod({ containers: two }),
    observed: observed([]),
    plan: ["start a 0 then 0", "start b 0 then 0"],
  },
  {
    name: "what runs is left alone",
    pod: pod(),
    observed: observed([record("web", running)]),
    plan: [],
  },
  {
    name: "the first restart is immediate and notes ten seconds",
    pod: pod(),
    observed: observed([record("web", exited(1))]),
    plan: ["start web 1 then 10000"],
  },
  {
    name: "the second restart waits ten seconds from the end of the run",
    pod: pod(),
    observed: observed([record("web", exited(1, 4000), { attempt: 1, backoffMs: 10_000 })]),
    plan: ["wait web 6000"],
  },
  {
    name: "after the wait the delay doubles",
    pod: pod(),
    observed: observed([record("web", exited(0, 10_001), { attempt: 1, backoffMs: 10_000 })]),
    plan: ["start web 2 then 20000"],
  },
  {
    name: "the delay ends at five minutes",
    pod: pod(),
    observed: observed([record("web", exited(1, 300_001), { attempt: 9, backoffMs: 300_000 })]),
    plan: ["start web 10 then 300000"],
  },
  {
    name: "a run of more than ten minutes starts the curve anew",
    pod: pod(),
    observed: observed([
      record("web", exited(1, 1000, 601_000), { attempt: 7, backoffMs: 300_000 }),
    ]),
    plan: ["start web 8 then 10000"],
  },
  {
    name: "a new image restarts at once, whatever the curve says",
    pod: pod({ containers: [container("web", { image: "app:2" })] }),
    observed: observed([record("web", exited(1, 1), { attempt: 3, backoffMs: 80_000 })]),
    plan: ["start web 4 then 10000"],
  },
  {
    name: "a new image restarts what runs, also under Never",
    pod: pod({ containers: [container("web", { image: "app:2" })], restartPolicy: "Never" }),
    observed: observed([record("web", running)]),
    plan: ["kill web-0 definition", "start web 1 then 0"],
  },
  {
    name: "a half-made container is removed and made again under its number",
    pod: pod(),
    observed: observed([record("web", created, { attempt: 2 })]),
    plan: ["remove web-2", "start web 2 then 0"],
  },
  {
    name: "a container in unknown state is killed before its successor starts",
    pod: pod(),
    observed: observed([record("web", unknown)]),
    plan: ["kill web-0 unknown", "start web 1 then 0"],
  },
  {
    name: "OnFailure leaves success alone and ends the pod",
    pod: pod({ restartPolicy: "OnFailure" }),
    observed: observed([record("web", exited(0))]),
    plan: ["end"],
  },
  {
    name: "OnFailure restarts failure",
    pod: pod({ restartPolicy: "OnFailure" }),
    observed: observed([record("web", exited(3))]),
    plan: ["start web 1 then 10000"],
  },
  {
    name: "Never ends the pod with its last container",
    pod: pod({ restartPolicy: "Never", containers: two }),
    observed: observed([record("a", exited(1)), record("b", exited(0))]),
    plan: ["end"],
  },
  {
    name: "Never keeps the pod while one container runs",
    pod: pod({ restartPolicy: "Never", containers: two }),
    observed: observed([record("a", exited(1)), record("b", running)]),
    plan: [],
  },
  {
    name: "a container's own policy beats the pod's",
    pod: pod({
      restartPolicy: "Never",
      containers: [container("web", { restartPolicy: "Always" })],
    }),
    observed: observed([record("web", exited(0))]),
    plan: ["start web 1 then 10000"],
  },
  {
    name: "a restart rule beats the policy",
    pod: pod({
      containers: [
        container("web", {
          restartPolicy: "Never",
          restartPolicyRules: [{ action: "Restart", exitCodes: { operator: "In", values: [42] } }],
        }),
      ],
    }),
    observed: observed([record("web", exited(42))]),
    plan: ["start web 1 then 10000"],
  },
  {
    name: "init containers run one at a time",
    pod: pod({ initContainers: init }),
    observed: observed([]),
    plan: ["start one 0 then 0"],
  },
  {
    name: "the next init container starts when the one before succeeded",
    pod: pod({ initContainers: init }),
    observed: observed([record("one", exited(0))]),
    plan: ["start two 0 then 0"],
  },
  {
    name: "nothing starts while an init container runs",
    pod: pod({ initContainers: init }),
    observed: observed([record("one", running)]),
    plan: [],
  },
  {
    name: "a pruned init record is proven by a later one",
    pod: pod({ initContainers: init }),
    observed: observed([record("two", exited(0))]),
    plan: ["start web 0 then 0"],
  },
  {
    name: "a failed init container ends a Never pod",
    pod: pod({ initContainers: init, restartPolicy: "Never" }),
    observed: observed([record("one", exited(1))]),
    plan: ["end"],
  },
  {
    name: "init containers are not repeated once a regular one was started in the sandbox",
    pod: pod({ initContainers: init }),
    observed: observed([record("web", exited(1))]),
    plan: ["start web 1 then 10000"],
  },
  {
    name: "a new sandbox repeats the init containers",
    pod: pod({ initContainers: init }),
    observed: observed(
      [record("one", exited(0)), record("two", exited(0)), record("web", exited(137))],
      { sandboxes: [sandbox(1), sandbox(0, false)] },
    ),
    plan: ["start one 1 then 10000"],
  },
  {
    name: "a sidecar starts before the regular containers and keeps running beside them",
    pod: pod({ initContainers: [sidecar] }),
    observed: observed([]),
    plan: ["start side 0 then 0"],
  },
  {
    name: "regular containers start once the sidecar has started",
    pod: pod({ initContainers: [sidecar] }),
    observed: observed([record("side", running)]),
    plan: ["start web 0 then 0"],
  },
  {
    name: "a sidecar that ended is restarted, also under Never",
    pod: pod({ initContainers: [sidecar], restartPolicy: "Never" }),
    observed: observed([record("side", exited(0)), record("web", running)]),
    plan: ["start side 1 then 10000"],
  },
  {
    name: "a sidecar does not keep a finished pod alive",
    pod: pod({ initContainers: [sidecar], restartPolicy: "Never" }),
    observed: observed([record("side", running), record("web", exited(0))]),
    plan: ["end"],
  },
  {
    name: "a dead sandbox is replaced after what runs in it is killed",
    pod: pod(),
    observed: observed([record("web", running)], { sandboxes: [sandbox(0, false)] }),
    plan: ["kill web-0 sandbox", "stopSandbox sandbox-0", "sandbox 1"],
  },
  {
    name: "a Never pod that lost its sandbox ends",
    pod: pod({ restartPolicy: "Never" }),
    observed: observed([record("web", exited(137))], { sandboxes: [sandbox(0, false)] }),
    plan: ["end"],
  },
  {
    name: "an OnFailure pod that was done gets no new sandbox",
    pod: pod({ restartPolicy: "OnFailure" }),
    observed: observed([record("web", exited(0))], { sandboxes: [sandbox(0, false)] }),
    plan: ["end"],
  },
  {
    name: "other limits reach a running container as they are",
    pod: pod({ containers: [container("web", { resources: { limits: { cpu: "200m" } } })] }),
    observed: observed([record("web", running, { limits: held })]),
    plan: ["update web-0 cpu 20000 memory 0"],
  },
  {
    name: "other limits restart a container whose policy says so",
    pod: pod({
      containers: [
        container("web", {
          resources: { limits: { cpu: "100m", memory: "64Mi" } },
          resizePolicy: [{ resourceName: "memory", restartPolicy: "RestartContainer" }],
        }),
      ],
    }),
    observed: observed([record("web", running, { limits: held })]),
    plan: ["kill web-0 resize", "start web 1 then 0"],
  },
  {
    name: "limits that the engine rounds are not asked for again",
    pod: pod({ containers: [container("web", { resources: { limits: { cpu: "200m" } } })] }),
    observed: observed([record("web", running, { limits: held })], {
      updated: new Map([
        [
          "web-0",
          { from: held, to: { cpuShares: 204, cpuQuotaMicros: 20_000, memoryLimitBytes: 0 } },
        ],
      ]),
    }),
    plan: [],
  },
  {
    name: "limits that somebody changed after the last update are asked for again",
    pod: pod({ containers: [container("web", { resources: { limits: { cpu: "200m" } } })] }),
    observed: observed([record("web", running, { limits: held })], {
      updated: new Map([
        [
          "web-0",
          {
            from: { ...held, cpuQuotaMicros: 5000 },
            to: { cpuShares: 204, cpuQuotaMicros: 20_000, memoryLimitBytes: 0 },
          },
        ],
      ]),
    }),
    plan: ["update web-0 cpu 20000 memory 0"],
  },
  {
    name: "an engine that was told to restart a container by itself is told not to",
    pod: pod(),
    observed: observed([record("web", running, { limits: held, engineRestarts: true })]),
    plan: ["update web-0 cpu 0 memory 0"],
  },
  {
    name: "a sandbox that somebody restarted is replaced with all that is in it",
    pod: pod(),
    observed: observed([record("web", running)], {
      sandboxes: [{ ...sandbox(), restarted: true }],
    }),
    plan: ["kill web-0 sandbox", "stopSandbox sandbox-0", "sandbox 1"],
  },
  {
    name: "the network of a sandbox that somebody removed is taken down before there is another",
    pod: pod(),
    observed: observed([record("web", running)], { sandboxes: [] }),
    plan: ["kill web-0 sandbox", "stopSandbox sandbox-0", "sandbox 0"],
  },
  {
    name: "a pod that runs once ends when somebody removed its sandbox",
    pod: pod({ restartPolicy: "Never" }),
    observed: observed([record("web", running)], { sandboxes: [] }),
    plan: ["end"],
  },
  {
    name: "an older sandbox that somebody started again is stopped",
    pod: pod(),
    observed: observed([record("web", running, { sandboxID: "sandbox-1" })], {
      sandboxes: [sandbox(1), sandbox(0)],
    }),
    plan: ["stopSandbox sandbox-0"],
  },
  {
    name: "an older container that somebody started beside its successor is killed",
    pod: pod(),
    observed: observed([record("web", running, { attempt: 1 }), record("web", running)]),
    plan: ["kill web-0 stray"],
  },
  {
    name: "a sandbox that was taken off the bridge is connected again",
    pod: pod(),
    observed: observed([record("web", running)], { disconnected: () => true }),
    plan: ["network sandbox-0"],
  },
  {
    name: "the crash loop goes on after somebody removed the container",
    pod: pod(),
    observed: observed([], {
      ended: new Map([["web", record("web", exited(1), { attempt: 3, backoffMs: 40_000 })]]),
    }),
    plan: ["wait web 39000"],
  },
  {
    name: "the next run of a container that somebody removed has the next wait",
    pod: pod(),
    observed: observed([], {
      ended: new Map([["web", record("web", exited(1, 60_000), { backoffMs: 40_000 })]]),
    }),
    plan: ["start web 1 then 80000"],
  },
  {
    name: "a container that is done does not run again because somebody removed it",
    pod: pod({ restartPolicy: "OnFailure", containers: two }),
    observed: observed([record("b", running)], {
      ended: new Map([["a", record("a", exited(0))]]),
    }),
    plan: [],
  },
  {
    name: "init containers do not run again because somebody removed all that has ended",
    pod: pod({ initContainers: init }),
    observed: observed([], {
      ended: new Map([
        ["one", record("one", exited(0))],
        ["two", record("two", exited(0))],
        ["web", record("web", exited(1), { backoffMs: 10_000 })],
      ]),
    }),
    plan: ["wait web 9000"],
  },
  {
    name: "in a new sandbox they do",
    pod: pod({ initContainers: init }),
    observed: observed([], {
      sandboxes: [sandbox(1)],
      ended: new Map([
        ["one", record("one", exited(0))],
        ["web", record("web", exited(1))],
      ]),
    }),
    plan: ["start one 1 then 10000"],
  },
  {
    name: "a failed liveness probe kills and starts, whatever the exit code will be",
    pod: pod({ containers: [container("web", { livenessProbe: {} })] }),
    observed: observed([record("web", running)], {
      probes: { startup: () => undefined, readiness: () => undefined, liveness: () => false },
    }),
    plan: ["kill web-0 liveness", "start web 1 then 0"],
  },
  {
    name: "under Never it only kills",
    pod: pod({ restartPolicy: "Never", containers: [container("web", { livenessProbe: {} })] }),
    observed: observed([record("web", running)], {
      probes: { startup: () => undefined, readiness: () => undefined, liveness: () => false },
    }),
    plan: ["kill web-0 liveness"],
  },
  {
    name: "a run that began after a wait and fails its probe sooner than that goes on waiting",
    pod: pod({ containers: [container("web", { livenessProbe: {} })] }),
    observed: observed([record("web", running, { attempt: 2, backoffMs: 10_000 })], {
      probes: { startup: () => undefined, readiness: () => undefined, liveness: () => false },
    }),
    plan: ["kill web-2 liveness"],
  },
  {
    name: "one that ran for longer is restarted at once, with the next wait noted",
    pod: pod({ containers: [container("web", { startupProbe: {} })] }),
    observed: observed(
      [
        record(
          "web",
          { kind: "running", createdAt: now - 15_000, startedAt: now - 15_000, pid: 2 },
          { attempt: 2, backoffMs: 10_000 },
        ),
      ],
      { probes: { startup: () => false, readiness: () => undefined, liveness: () => undefined } },
    ),
    plan: ["kill web-2 startup", "start web 3 then 20000"],
  },
  {
    name: "a new image of an init container that runs restarts nothing",
    pod: pod({ initContainers: [container("one", { image: "app:2" })] }),
    observed: observed([record("one", running)]),
    plan: [],
  },
  {
    name: "an ephemeral container starts beside a running pod, once",
    pod: pod({ ephemeralContainers: [{ name: "debug", image: "app:1" }] }),
    observed: observed([record("web", running)]),
    plan: ["start debug 0 then 0"],
  },
  {
    name: "an ephemeral container that ended stays ended",
    pod: pod({ ephemeralContainers: [{ name: "debug", image: "app:1" }] }),
    observed: observed([record("web", running), record("debug", exited(1))]),
    plan: [],
  },
  {
    name: "RestartAllContainers: all are removed, the one that asked for it last, the sandbox stays",
    pod: resetPod,
    observed: observed([
      record("a", exited(42)),
      record("b", running, { attempt: 1 }),
      record("b", exited(1)),
      record("one", exited(0)),
      record("side", running),
    ]),
    plan: [
      "kill b-1 restartAll",
      "remove b-1",
      "remove b-0",
      "remove one-0",
      "kill side-0 restartAll",
      "remove side-0",
      "remove a-0",
    ],
  },
  {
    name: "RestartAllContainers: another exit code asks for nothing",
    pod: resetPod,
    observed: observed([
      record("a", exited(41)),
      record("b", running),
      record("one", exited(0)),
      record("side", running),
    ]),
    plan: [],
  },
  {
    name: "RestartAllContainers goes on after a crash of the agent, by the condition",
    pod: {
      ...resetPod,
      status: { conditions: [{ type: "AllContainersRestarting", status: "True" }] },
    },
    observed: observed([record("b", exited(137))]),
    plan: ["remove b-0"],
  },
  {
    name: "RestartAllContainers: once all are gone, init containers run again and counts go on",
    pod: {
      ...resetPod,
      status: {
        conditions: [{ type: "AllContainersRestarting", status: "True" }],
        initContainerStatuses: [
          {
            name: "one",
            image: "app:1",
            imageID: "",
            ready: true,
            restartCount: 0,
            state: { terminated: { exitCode: 0 } },
          },
        ],
      },
    },
    observed: observed([]),
    plan: ["start one 1 then 0"],
  },
];

describe("computeActions", () => {
  for (const row of table) {
    test(row.name, () => {
      assert.deepEqual(plan(row.pod, row.observed), row.plan);
    });
  }
});

test("every rule has a name of its own", () => {
  const names = [...podRules, ...containerRules].map(({ name }) => name);
  assert.equal(new Set(names).size, names.length);
});

test("the API's restart count is the floor when the runtime has forgotten the container", () => {
  const status = {
    containerStatuses: [
      {
        name: "web",
        image: "app:1",
        imageID: "",
        ready: false,
        restartCount: 4,
        state: { running: {} },
      },
    ],
  };
  assert.deepEqual(plan(pod({}, { status }), observed([])), ["start web 5 then 0"]);
});

test("pruning keeps the newest dead container of each name and drops strangers", () => {
  const view = observed([
    record("web", running, { attempt: 3 }),
    record("web", exited(1), { attempt: 2 }),
    record("web", exited(1), { attempt: 1 }),
    record("gone", exited(0)),
  ]);
  assert.deepEqual(words(pruneActions(pod(), view)), ["remove web-1", "remove gone-0"]);
});

test("pruning removes an old sandbox only once no container refers to it", () => {
  const sandboxes = [sandbox(2), sandbox(1, false), sandbox(0, false)];
  const view = observed(
    [
      record("web", running, { attempt: 1, sandboxID: "sandbox-2" }),
      record("web", exited(1), { attempt: 0, sandboxID: "sandbox-1" }),
    ],
    { sandboxes },
  );
  assert.deepEqual(words(pruneActions(pod(), view)), ["removeSandbox sandbox-0"]);
});
