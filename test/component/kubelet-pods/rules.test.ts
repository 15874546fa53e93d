import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { podRules } from "../../../src/kubelet/pods/compute-actions.ts";
import { containerRules } from "../../../src/kubelet/pods/container-rules.ts";
import { RuntimeError } from "../../../src/runtime/errors.ts";
import { app, onStage, probe, type Stage } from "./stage.ts";

interface RuleTest {
  /** Name of the rule, as the tables have it. */
  readonly rule: string;
  readonly shows: string;
  readonly run: (stage: Stage) => Promise<void>;
}

const rejectsAll = {
  restartPolicyRules: [
    { action: "RestartAllContainers", exitCodes: { operator: "In", values: [42] } },
  ],
  restartPolicy: "Never",
};

const ofPods: readonly RuleTest[] = [
  {
    rule: "RestartAllContainers: remove them all, keep the sandbox",
    shows: "one exit removes and restarts every container, init containers first, in place",
    run: async (stage) => {
      stage.world.runtime.program = ({ name }) => (name === "init" ? { exitCode: 0 } : undefined);
      stage.put({ initContainers: [app("init")], containers: [app("web", rejectsAll), app("b")] });
      await stage.ready();
      stage.world.runtime.exit("web", 42);
      await stage.until("all again", () =>
        ["init", "web", "b"].every((name) => stage.starts(name) === 2),
      );
      await stage.ready();
      const removed = stage.calls("removeContainer").map((call) => call.split(" ")[1]);
      assert.deepEqual(removed.slice(0, 3), ["b", "init", "web"]);
      assert.equal(stage.calls("runPodSandbox").length, 1);
      assert.equal(stage.of("b")?.lastState?.terminated?.reason, "RestartingAllContainers");
    },
  },
  {
    rule: "sandbox changed: all containers done",
    shows: "a pod that runs once fails with its sandbox, and gets no other",
    run: async (stage) => {
      stage.put({ restartPolicy: "Never" });
      await stage.ready();
      stage.world.runtime.killSandbox();
      await stage.until("over", () => stage.status.phase === "Failed");
      assert.equal(stage.calls("runPodSandbox").length, 1);
      assert.equal(stage.starts("web"), 1);
      assert(!stage.told("SandboxChanged"));
    },
  },
  {
    rule: "sandbox changed: a new one",
    shows: "what ran in the old one is stopped first, then all begins anew with another address",
    run: async (stage) => {
      stage.world.runtime.program = ({ name }) => (name === "init" ? { exitCode: 0 } : undefined);
      stage.put({ initContainers: [app("init")] });
      await stage.ready();
      const before = stage.status.podIP;
      stage.world.runtime.killSandbox();
      await stage.until("again", () => stage.of("web")?.restartCount === 1);
      await stage.ready();
      const { calls } = stage.world.runtime;
      assert(calls.indexOf("stopContainer web 30") < calls.indexOf("runPodSandbox 1"));
      assert.equal(stage.starts("init"), 2);
      assert.notEqual(stage.status.podIP, before);
      assert(stage.told("Pod sandbox changed, it will be killed and re-created."));
    },
  },
  {
    rule: "sandbox without its network, or cut off from it",
    shows: "an interface that somebody took away comes back; nothing is restarted",
    run: async (stage) => {
      stage.put();
      await stage.ready();
      const [id = ""] = stage.world.network.leases.keys();
      stage.world.network.cut.add(id);
      stage.clock.ahead(30_000);
      await stage.until("connected", () => stage.world.network.isIntact?.(id) === true);
      assert.equal(stage.starts("web"), 1);
      assert.equal(stage.calls("runPodSandbox").length, 1);
    },
  },
  {
    rule: "older sandboxes and containers that run beside the newest",
    shows: "a dead container that somebody started again is stopped, its successor left alone",
    run: async (stage) => {
      stage.put();
      await stage.ready();
      const [first = ""] = stage.world.runtime.containers.keys();
      stage.world.runtime.exit("web", 1);
      await stage.until("restarted", () => stage.of("web")?.restartCount === 1);
      await stage.ready();
      const successor = stage.of("web")?.containerID;
      stage.world.runtime.startByHand(first);
      await stage.until("stopped", () => stage.calls("stopContainer").length === 1);
      await stage.until(
        "it only",
        () => stage.world.runtime.containers.get(first)?.state.kind !== "running",
      );
      assert.equal(stage.of("web")?.containerID, successor);
      assert.equal(stage.starts("web"), 2);
    },
  },
  {
    rule: "initialization failed",
    shows: "an init container that fails for good fails the pod; regular ones never start",
    run: async (stage) => {
      stage.world.runtime.program = ({ name }) => (name === "init" ? { exitCode: 7 } : undefined);
      stage.put({ restartPolicy: "Never", initContainers: [app("init"), app("next")] });
      await stage.until("failed", () => stage.status.phase === "Failed");
      assert.equal(stage.starts("init"), 1);
      assert.equal(stage.starts("next") + stage.starts("web"), 0);
      assert.equal(stage.of("init")?.state?.terminated?.exitCode, 7);
      assert.equal(stage.of("web")?.state?.waiting?.reason, "PodInitializing");
    },
  },
  {
    rule: "initialization goes on",
    shows: "the pod is Pending and not Initialized until the last init container has succeeded",
    run: async (stage) => {
      stage.put({ initContainers: [app("init")] });
      await stage.until("running", () => stage.of("init")?.state?.running !== undefined);
      assert.equal(stage.status.phase, "Pending");
      assert.equal(stage.condition("Initialized"), "False");
      assert.equal(stage.starts("web"), 0);
      stage.world.runtime.exit("init", 0);
      await stage.ready();
      assert.equal(stage.condition("Initialized"), "True");
    },
  },
  {
    rule: "nothing left to run",
    shows: "the last end decides the phase, sidecars are stopped, the network is given back",
    run: async (stage) => {
      const sidecar = app("side", { restartPolicy: "Always" });
      stage.put({
        restartPolicy: "Never",
        initContainers: [sidecar],
        containers: [app("a"), app("b")],
      });
      await stage.ready();
      stage.world.runtime.exit("a", 0);
      await stage.until("one", () => stage.of("a")?.state?.terminated !== undefined);
      assert.equal(stage.status.phase, "Running");
      stage.world.runtime.exit("b", 0);
      await stage.until("over", () => stage.status.phase === "Succeeded");
      await stage.until("given back", () => stage.world.network.leases.size === 0);
      assert.deepEqual(stage.calls("stopContainer"), ["stopContainer side 30"]);
      assert.equal(stage.of("side")?.state?.terminated?.exitCode, 143);
    },
  },
  {
    rule: "containers of a running pod",
    shows: "they start in the order of the spec; one that fails to start does not hold up the next",
    run: async (stage) => {
      let refusals = 0;
      stage.world.runtime.fail = (call) => {
        if (call !== "createContainer b 0" || refusals > 0) return;
        refusals += 1;
        throw new RuntimeError("WrongState", "not now");
      };
      stage.put({ containers: [app("c"), app("b"), app("a")] });
      await stage.until("others", () => stage.starts("a") === 1);
      assert.deepEqual(stage.calls("createContainer").slice(0, 3), [
        "createContainer c 0",
        "createContainer b 0",
        "createContainer a 0",
      ]);
      await stage.until("told", () => stage.of("b")?.state?.waiting?.message === "not now");
      assert.equal(stage.of("b")?.state?.waiting?.reason, "CreateContainerError");
      stage.clock.ahead(15_000);
      await stage.ready();
      assert(stage.told("Error: not now"));
    },
  },
];

/** Answers exec probes: by word, true is well. */
function probes(stage: Stage, well: Readonly<Record<string, () => boolean>>): void {
  stage.world.runtime.onExec = (_, [word = ""]) => ({ exitCode: well[word]?.() === false ? 1 : 0 });
}

const sized = (cpu: string, more: object = {}) =>
  app("web", { resources: { requests: { cpu }, limits: { cpu } }, ...more });

const ofContainers: readonly RuleTest[] = [
  {
    rule: "ended for good, and others removed it",
    shows: "a container that was done does not run again after a prune",
    run: async (stage) => {
      stage.world.runtime.program = ({ name }) => (name === "once" ? { exitCode: 0 } : undefined);
      stage.put({ restartPolicy: "OnFailure", containers: [app("once"), app("web")] });
      await stage.until("done", () => stage.of("once")?.state?.terminated !== undefined);
      stage.world.runtime.removeByHand("once");
      stage.world.runtime.exit("web", 1);
      await stage.until("looked", () => stage.of("web")?.restartCount === 1);
      assert.equal(stage.starts("once"), 1);
      assert.equal(stage.of("once")?.state?.terminated?.reason, "Completed");
    },
  },
  {
    rule: "never ran, or created and never started",
    shows:
      "a container that could not be started is made again under its number, and counts no restart",
    run: async (stage) => {
      let refusals = 0;
      stage.world.runtime.fail = (call) => {
        if (!call.startsWith("startContainer") || refusals > 0) return;
        refusals += 1;
        throw new RuntimeError("StartFailed", "no such file");
      };
      stage.put();
      await stage.until(
        "told",
        () => stage.of("web")?.state?.waiting?.reason === "RunContainerError",
      );
      assert.equal(stage.of("web")?.state?.waiting?.message, "no such file");
      stage.clock.ahead(15_000);
      await stage.ready();
      assert.equal(stage.of("web")?.restartCount, 0);
      assert.deepEqual(stage.calls("removeContainer"), ["removeContainer web 0"]);
      assert.deepEqual(stage.calls("createContainer"), [
        "createContainer web 0",
        "createContainer web 0",
      ]);
    },
  },
  {
    rule: "an ephemeral container is never restarted",
    shows: "its end shows in its status and changes nothing else",
    run: async (stage) => {
      stage.put();
      await stage.ready();
      stage.change({ ephemeralContainers: [app("debug")] });
      await stage.until("runs", () => stage.of("debug")?.state?.running !== undefined);
      stage.world.runtime.exit("debug", 1);
      await stage.until("ended", () => stage.of("debug")?.state?.terminated?.exitCode === 1);
      stage.clock.ahead(120_000);
      await stage.pause();
      assert.equal(stage.starts("debug"), 1);
      assert.equal(stage.condition("Ready"), "True");
      assert.equal(stage.status.phase, "Running");
    },
  },
  {
    rule: "in an unknown state: killed before its restart",
    shows: "the old one is stopped and removed before there is another",
    run: async (stage) => {
      stage.put();
      await stage.ready();
      stage.world.runtime.loseState("web");
      await stage.until("again", () => stage.starts("web") === 2);
      const { calls } = stage.world.runtime;
      const order = ["stopContainer web 30", "removeContainer web 0", "startContainer web 1"].map(
        (call) => calls.indexOf(call),
      );
      assert.deepEqual(
        order,
        order.toSorted((a, b) => a - b),
      );
      assert(order[0] !== -1);
      assert(stage.told('Container is in "unknown" state, try killing it before restart'));
    },
  },
  {
    rule: "definition changed: restarted whatever the policy says",
    shows: "a new image under Never restarts that container and no other",
    run: async (stage) => {
      stage.world.runtime.addImage("app:2");
      stage.put({ restartPolicy: "Never", containers: [app("web"), app("b")] });
      await stage.ready();
      stage.change({ containers: [app("web", { image: "app:2" }), app("b")] });
      await stage.until("again", () => stage.of("web")?.restartCount === 1);
      await stage.ready();
      assert(stage.told("Container web definition changed, will be restarted"));
      assert.equal(stage.of("web")?.image, "app:2");
      assert.equal(stage.starts("b"), 1);
    },
  },
  {
    rule: "liveness probe failed",
    shows: "killed within the probe's own grace and restarted; under Never killed only",
    run: async (stage) => {
      const { runtime } = stage.world;
      const sick = new Set<string>();
      runtime.onExec = (id) => ({ exitCode: sick.has(id) ? 1 : 0 });
      const livenessProbe = probe("alive", { terminationGracePeriodSeconds: 7 });
      const containers = [
        app("web", { livenessProbe }),
        app("once", { livenessProbe, restartPolicy: "Never" }),
      ];
      stage.put({ containers });
      await stage.ready();
      for (const id of runtime.containers.keys()) sick.add(id);
      stage.clock.ahead(1000);
      await stage.until("killed", () => stage.calls("stopContainer").length >= 2);
      await stage.until("again", () => stage.of("web")?.restartCount === 1);
      assert.deepEqual(stage.calls("stopContainer").toSorted(), [
        "stopContainer once 7",
        "stopContainer web 7",
      ]);
      assert(stage.told("Container web failed liveness probe, will be restarted"));
      assert(stage.told("Container once failed liveness probe"));
      assert.equal(stage.starts("once"), 1);
    },
  },
  {
    rule: "startup probe failed",
    shows: "killed and restarted, and neither started nor ready before",
    run: async (stage) => {
      let well = false;
      probes(stage, { up: () => well });
      stage.put({
        containers: [app("web", { startupProbe: probe("up", { failureThreshold: 2 }) })],
      });
      await stage.until("one failure", () => stage.told("Unhealthy"));
      await stage.until("runs", () => stage.of("web")?.state?.running !== undefined);
      assert.equal(stage.starts("web"), 1);
      assert.equal(stage.of("web")?.started, false);
      stage.clock.ahead(1000);
      await stage.until("killed", () =>
        stage.told("Container web failed startup probe, will be restarted"),
      );
      well = true;
      await stage.until("again", () => stage.starts("web") === 2);
      stage.clock.ahead(1000);
      await stage.ready();
      assert.equal(stage.of("web")?.started, true);
    },
  },
  {
    rule: "resize with resizePolicy RestartContainer",
    shows: "the container is restarted with its new limits, and says why",
    run: async (stage) => {
      const resizePolicy = [{ resourceName: "cpu", restartPolicy: "RestartContainer" }];
      stage.put({ containers: [sized("100m", { resizePolicy })] });
      await stage.ready();
      stage.change({ containers: [sized("200m", { resizePolicy })] });
      await stage.until("again", () => stage.of("web")?.restartCount === 1);
      await stage.ready();
      assert(stage.told("Container web resize requires restart"));
      assert.deepEqual(stage.calls("updateContainer"), []);
      assert.equal(stage.of("web")?.resources?.limits?.["cpu"], "200m");
    },
  },
  {
    rule: "the engine was told to restart it by itself",
    shows: "it is told not to, without a restart",
    run: async (stage) => {
      stage.put();
      await stage.ready();
      stage.world.runtime.restartByEngine("web");
      await stage.until("told not to", () =>
        [...stage.world.runtime.containers.values()].every(
          ({ engineRestarts }) => engineRestarts === false,
        ),
      );
      await stage.pause();
      assert.deepEqual(stage.calls("updateContainer"), ["updateContainer web"]);
      assert.equal(stage.starts("web"), 1);
    },
  },
  {
    rule: "resize in place",
    shows: "the running container gets its new limits, once",
    run: async (stage) => {
      stage.put({ containers: [sized("100m")] });
      await stage.ready();
      stage.change({ containers: [sized("200m")] });
      await stage.until("resized", () => stage.of("web")?.resources?.limits?.["cpu"] === "200m");
      await stage.until("told", () => stage.told("ResizeCompleted"));
      assert.equal(stage.starts("web"), 1);
      assert.deepEqual(stage.calls("updateContainer"), ["updateContainer web"]);
    },
  },
  {
    rule: "an init container runs",
    shows: "the next one waits for its end, however long that takes",
    run: async (stage) => {
      stage.put({ initContainers: [app("one"), app("two")] });
      await stage.until("runs", () => stage.of("one")?.state?.running !== undefined);
      stage.clock.ahead(3_600_000);
      await stage.pause();
      assert.equal(stage.starts("two") + stage.starts("web"), 0);
      stage.world.runtime.exit("one", 0);
      await stage.until("next", () => stage.starts("two") === 1);
      assert.equal(stage.starts("web"), 0);
    },
  },
  {
    rule: "a sidecar is started once its hook and its startup probe are through",
    shows: "what comes after it in the spec waits for that, and it is restarted when it ends",
    run: async (stage) => {
      let up = false;
      let hooked = false;
      probes(stage, { up: () => up, hook: () => (hooked = true) });
      const sidecar = app("side", {
        restartPolicy: "Always",
        startupProbe: probe("up", { failureThreshold: 1000 }),
        lifecycle: { postStart: { exec: { command: ["hook"] } } },
      });
      stage.put({ restartPolicy: "Never", initContainers: [sidecar] });
      await stage.until("runs", () => stage.of("side")?.state?.running !== undefined);
      await stage.until("probed", () => stage.told("Unhealthy"));
      await stage.until("written", () => stage.condition("Initialized") !== "");
      assert(hooked);
      assert.equal(stage.starts("web"), 0);
      assert.equal(stage.condition("Initialized"), "False");
      up = true;
      stage.clock.ahead(1000);
      await stage.ready();
      stage.world.runtime.exit("side", 0);
      await stage.until("again", () => stage.starts("side") === 2);
      assert.equal(stage.starts("web"), 1);
    },
  },
  {
    rule: "runs",
    shows: "an hour of looks changes nothing",
    run: async (stage) => {
      stage.put();
      await stage.ready();
      const before = stage.world.runtime.calls.length;
      for (let looks = 0; looks < 5; looks += 1) {
        stage.clock.ahead(720_000);
        await stage.pause();
      }
      assert.equal(stage.world.runtime.calls.length, before);
      assert.equal(stage.of("web")?.restartCount, 0);
    },
  },
  {
    rule: "ended for good",
    shows: "OnFailure leaves a success and Never a failure as it is, while the others run on",
    run: async (stage) => {
      stage.put({
        containers: [
          app("web"),
          app("good", { restartPolicy: "OnFailure" }),
          app("bad", { restartPolicy: "Never" }),
        ],
      });
      await stage.ready();
      stage.world.runtime.exit("good", 0);
      stage.world.runtime.exit("bad", 3);
      await stage.until("both", () =>
        ["good", "bad"].every((name) => stage.of(name)?.state?.terminated !== undefined),
      );
      stage.clock.ahead(600_000);
      await stage.pause();
      assert.deepEqual(
        ["web", "good", "bad"].map((name) => stage.starts(name)),
        [1, 1, 1],
      );
      assert.equal(stage.status.phase, "Running");
      assert.equal(stage.condition("Ready"), "False");
    },
  },
  {
    rule: "crash loop",
    shows: "restarts wait for 0, 10, 20 and 40 seconds, and begin at once after a long run",
    run: async (stage) => {
      let ends = true;
      stage.world.runtime.program = () => (ends ? { exitCode: 3 } : undefined);
      stage.put();
      const waits = (seconds: number) => (): boolean => {
        const message = stage.of("web")?.state?.waiting?.message ?? "";
        return message.startsWith(`back-off ${seconds}s restarting failed container=web pod=web_`);
      };
      for (const [starts, seconds] of [
        [2, 10],
        [3, 20],
        [4, 40],
      ] as const) {
        await stage.until(`${seconds} s`, () => stage.starts("web") === starts && waits(seconds)());
        stage.clock.ahead(seconds * 1000 - 2000);
        await stage.pause();
        assert.equal(stage.starts("web"), starts, "not before its time");
        if (seconds === 40) ends = false;
        stage.clock.ahead(2000);
      }
      await stage.ready();
      assert(stage.told("BackOff"));
      stage.clock.ahead(601_000);
      stage.world.runtime.exit("web", 3);
      await stage.until("at once", () => stage.starts("web") === 6);
    },
  },
];

for (const [title, tests] of [
  ["pod rule", ofPods],
  ["container rule", ofContainers],
] as const) {
  describe(title, () => {
    for (const { rule, run, shows } of tests) {
      test(`${rule}: ${shows}`, () => onStage(run));
    }
  });
}

describe("every rule of the tables has a test of its name", () => {
  const tables: readonly (readonly [string, readonly { name: string }[], readonly RuleTest[]])[] = [
    ["podRules", podRules, ofPods],
    ["containerRules", containerRules, ofContainers],
  ];
  for (const [title, rules, tests] of tables) {
    test(title, () => {
      assert.deepEqual(
        tests.map(({ rule }) => rule),
        rules.map(({ name }) => name),
      );
    });
  }
});
