import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import { PODS } from "../../../src/api/resources.ts";
import type { Container, Pod } from "../../../src/api/types.gen.ts";
import { parseContainerNote } from "../../../src/kubelet/spec/records.ts";
import { app, onStage, probe, type Stage } from "./stage.ts";

/** What clients saw of the pod, in the order it was written. */
function written(stage: Stage): readonly string[] {
  return stage.world.api.requests
    .filter(({ method, path }) => method === "PATCH" && path.includes("/pods/web"))
    .map(({ body }) => JSON.stringify(body));
}

describe("activeDeadlineSeconds", () => {
  const over = (stage: Stage): Promise<unknown> =>
    stage.until("failed", () => stage.status.phase === "Failed");

  test("ends the pod: containers are stopped first, reason, message and event are the kubelet's", () =>
    onStage(async (stage) => {
      stage.put({ activeDeadlineSeconds: 60 });
      await stage.ready();
      stage.clock.ahead(50_000);
      await stage.pause();
      assert.equal(stage.status.phase, "Running");
      stage.clock.ahead(10_000);
      await over(stage);
      const message = "Pod was active on the node longer than the specified deadline";
      assert.deepEqual([stage.status.reason, stage.status.message], ["DeadlineExceeded", message]);
      assert.equal(stage.of("web")?.state?.terminated?.exitCode, 143);
      assert(stage.world.events.some((each) => each.reason === "DeadlineExceeded"));
      assert.equal(stage.condition("Ready"), "False");
    }));

  test("is not late for a pod that nothing else happens to", () =>
    onStage(async (stage) => {
      stage.put({ activeDeadlineSeconds: 5 });
      await stage.ready();
      await stage.pause();
      stage.clock.ahead(5000);
      await over(stage);
    }));

  test("counts from the start of the pod, also for an agent that has just begun", () =>
    onStage(async (stage) => {
      stage.put({ activeDeadlineSeconds: 60 });
      await stage.ready();
      await stage.agent.stop();
      stage.clock.ahead(61_000);
      await stage.restart();
      await over(stage);
      assert.equal(stage.starts("web"), 1);
    }));

  test("may be shortened while the pod runs", () =>
    onStage(async (stage) => {
      stage.put({ activeDeadlineSeconds: 3600 });
      await stage.ready();
      stage.clock.ahead(30_000);
      stage.change({ activeDeadlineSeconds: 20 });
      await over(stage);
      assert.equal(stage.status.reason, "DeadlineExceeded");
    }));

  test("ends a pod that is still waiting for its image, without having started anything", () =>
    onStage(async (stage) => {
      stage.put({ activeDeadlineSeconds: 30, containers: [app("web", { image: "nowhere:1" })] });
      await stage.until("waits", () => stage.told("ErrImagePull") || stage.told("Failed"));
      stage.clock.ahead(31_000);
      await over(stage);
      assert.equal(stage.starts("web"), 0);
    }));
});

describe("the termination message", () => {
  const messageOf = async (
    stage: Stage,
    container: Partial<Container>,
    end: { readonly file?: string; readonly log?: string; readonly exitCode: number },
  ): Promise<string> => {
    const directory = await mkdtemp(join(tmpdir(), "words-"));
    try {
      const log = join(directory, "json.log");
      await writeFile(log, end.log ?? "");
      stage.world.runtime.containerLogPath = async () => log;
      stage.put({ restartPolicy: "Never", containers: [app("web", container)] });
      await stage.ready();
      const [running] = stage.world.runtime.containers.values();
      const { terminationMessageFile } = parseContainerNote(running?.config.record ?? "");
      if (end.file !== undefined) await writeFile(terminationMessageFile, end.file);
      stage.world.runtime.exit("web", end.exitCode);
      await stage.until("ended", () => stage.of("web")?.state?.terminated !== undefined);
      return stage.of("web")?.state?.terminated?.message ?? "";
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  };
  const line = (log: string): string =>
    `${JSON.stringify({ log, stream: "stdout", time: "2026-01-01T00:00:00Z" })}\n`;
  const fallback = { terminationMessagePolicy: "FallbackToLogsOnError" } as const;
  const long = "x".repeat(5000);
  const cases: readonly {
    readonly name: string;
    readonly container?: Partial<Container>;
    readonly end: { readonly file?: string; readonly log?: string; readonly exitCode: number };
    readonly message: string;
  }[] = [
    { name: "is what the file holds", end: { file: "bye", exitCode: 0 }, message: "bye" },
    {
      name: "is cut to 4096 bytes",
      end: { file: long, exitCode: 1 },
      message: "x".repeat(4096),
    },
    {
      name: "is empty without a file, whatever was logged",
      end: { log: line("oops\n"), exitCode: 1 },
      message: "",
    },
    {
      name: "falls back to the log of a failure",
      container: fallback,
      end: { log: line("one\n") + line("two\n"), exitCode: 1 },
      message: "one\ntwo\n",
    },
    {
      name: "falls back to the last 80 lines",
      container: fallback,
      end: { log: Array.from({ length: 100 }, (_, at) => line(`${at}\n`)).join(""), exitCode: 1 },
      message: Array.from({ length: 80 }, (_, at) => `${at + 20}\n`).join(""),
    },
    {
      name: "falls back to the last 2048 bytes",
      container: fallback,
      end: { log: line(`${long}\n`), exitCode: 1 },
      message: `${"x".repeat(2047)}\n`,
    },
    {
      name: "does not fall back for a success",
      container: fallback,
      end: { log: line("fine\n"), exitCode: 0 },
      message: "",
    },
    {
      name: "does not fall back where the file has words",
      container: fallback,
      end: { file: "own", log: line("log\n"), exitCode: 1 },
      message: "own",
    },
  ];
  for (const { container = {}, end, message, name } of cases) {
    test(name, () =>
      onStage(async (stage) => assert.equal(await messageOf(stage, container, end), message)),
    );
  }

  test("of a pod with many containers has 12 KiB for all of them together", () =>
    onStage(async (stage) => {
      const names = ["a", "b", "c", "d", "e", "f"];
      stage.put({ restartPolicy: "Never", containers: names.map((name) => app(name)) });
      await stage.ready();
      for (const { config } of stage.world.runtime.containers.values()) {
        await writeFile(parseContainerNote(config.record).terminationMessageFile, long);
      }
      for (const name of names) stage.world.runtime.exit(name, 0);
      await stage.until("over", () => stage.status.phase === "Succeeded");
      const sizes = names.map((name) => stage.of(name)?.state?.terminated?.message?.length);
      assert.deepEqual(
        sizes,
        names.map(() => 2048),
      );
    }));
});

describe("readiness gates", () => {
  test("keep the pod from being Ready until somebody sets their conditions, which stay theirs", () =>
    onStage(async (stage) => {
      stage.put({ readinessGates: [{ conditionType: "corp.test/lb" }] });
      await stage.until("containers ready", () => stage.condition("ContainersReady") === "True");
      const ready = (): string =>
        stage.status.conditions?.find(({ type }) => type === "Ready")?.message ?? "";
      assert.equal(
        ready(),
        'corresponding condition of pod readiness gate "corp.test/lb" does not exist.',
      );
      const pod = stage.world.pod("web");
      assert(pod?.status !== undefined);
      const gate = { type: "corp.test/lb", status: "True" as const };
      const conditions = [...(pod.status.conditions ?? []), gate];
      stage.world.api.put<Pod>(PODS, { ...pod, status: { ...pod.status, conditions } });
      await stage.ready();
      assert.equal(stage.condition("corp.test/lb"), "True");
    }));
});

describe("hooks", () => {
  const hook = (word: string) => ({ exec: { command: [word] } });

  test("a container waits for the postStart hook of the one before it in the spec", () =>
    onStage(async (stage) => {
      const through = Promise.withResolvers<void>();
      const empty = new Uint8Array();
      stage.world.runtime.execSync = async () => {
        await through.promise;
        return { exitCode: 0, stdout: empty, stderr: empty, timedOut: false };
      };
      stage.put({ containers: [app("a", { lifecycle: { postStart: hook("slow") } }), app("b")] });
      await stage.until("hook", () => stage.starts("a") === 1);
      await stage.pause();
      assert.equal(stage.starts("b"), 0);
      assert.notEqual(stage.of("a")?.ready, true);
      through.resolve();
      await stage.ready();
      assert.equal(stage.starts("b"), 1);
    }));

  test("a postStart hook that fails kills its container with its preStop hook, and tells no details", () =>
    onStage(async (stage) => {
      const asked: string[] = [];
      stage.world.runtime.onExec = (_, [word = ""]) => {
        asked.push(word);
        const stderr = Buffer.from("secret");
        return { exitCode: word === "start" ? 7 : 0, stderr };
      };
      const lifecycle = { postStart: hook("start"), preStop: hook("stop") };
      stage.put({ restartPolicy: "Never", containers: [app("web", { lifecycle })] });
      await stage.until("failed", () => stage.status.phase === "Failed");
      assert.deepEqual(asked, ["start", "stop"]);
      assert(stage.told("PostStartHook failed"));
      assert(stage.told("FailedPostStartHook"));
      const texts = stage.world.events.map(({ message }) => message).join();
      assert.doesNotMatch(texts + written(stage).join(), /secret/);
      assert.equal(stage.starts("web"), 1);
    }));

  test("a preStop hook that fails is told and holds nothing up", () =>
    onStage(async (stage) => {
      stage.world.runtime.onExec = () => ({ exitCode: 1 });
      stage.put({ containers: [app("web", { lifecycle: { preStop: hook("stop") } })] });
      await stage.ready();
      stage.world.deletePod("web");
      await stage.until("gone", () => stage.world.pod("web") === undefined);
      assert(stage.told("PreStopHook failed"));
    }));

  test("a preStop hook runs before a restart for a failed liveness probe, too", () =>
    onStage(async (stage) => {
      const asked: string[] = [];
      let well = true;
      stage.world.runtime.onExec = (_, [word = ""]) => {
        asked.push(word);
        return { exitCode: word === "alive" && !well ? 1 : 0 };
      };
      const lifecycle = { preStop: hook("stop") };
      stage.put({ containers: [app("web", { lifecycle, livenessProbe: probe("alive") })] });
      await stage.ready();
      well = false;
      stage.clock.ahead(1000);
      await stage.until("hook", () => asked.includes("stop"));
      well = true;
      await stage.until("again", () => stage.starts("web") >= 2);
    }));
});

describe("the end of a pod", () => {
  test("that never started anything is Failed before it is gone", () =>
    onStage(async (stage) => {
      const env = [{ name: "A", valueFrom: { configMapKeyRef: { name: "none", key: "a" } } }];
      stage.put({ containers: [app("web", { env })] });
      await stage.until(
        "waits",
        () => stage.of("web")?.state?.waiting?.reason === "CreateContainerConfigError",
      );
      stage.world.deletePod("web");
      await stage.until("gone", () => stage.world.pod("web") === undefined);
      assert(written(stage).some((body) => body.includes('"phase":"Failed"')));
      assert.equal(stage.starts("web"), 0);
    }));

  test("is not decided by its sidecars, however they end", () =>
    onStage(async (stage) => {
      stage.world.runtime.stopExitCode = 137;
      stage.put({
        restartPolicy: "Never",
        initContainers: [app("side", { restartPolicy: "Always" })],
      });
      await stage.ready();
      stage.world.runtime.exit("web", 0);
      await stage.until("over", () => stage.status.phase === "Succeeded");
      assert.equal(stage.of("side")?.state?.terminated?.exitCode, 137);
    }));

  test("has at least two seconds, whatever grace was asked for", () =>
    onStage(async (stage) => {
      stage.put({ terminationGracePeriodSeconds: 0 });
      await stage.ready();
      stage.world.deletePod("web", 1);
      await stage.until("gone", () => stage.world.pod("web") === undefined);
      assert.deepEqual(stage.calls("stopContainer"), ["stopContainer web 2"]);
    }));

  test("is terminal and not Ready in the same write, and only once nothing runs", () =>
    onStage(async (stage) => {
      stage.put({ restartPolicy: "Never" });
      await stage.ready();
      stage.world.runtime.exit("web", 0);
      await stage.until("over", () => stage.status.phase === "Succeeded");
      const [last = ""] = written(stage).filter((body) => body.includes('"phase":"Succeeded"'));
      assert.match(last, /"type":"Ready"[^}]*"status":"False"[^}]*"reason":"PodCompleted"/);
      assert.match(last, /"exitCode":0/);
    }));
});

describe("a pod's status", () => {
  test("converges on the last of many changes of its spec", () =>
    onStage(async (stage) => {
      stage.put();
      await stage.ready();
      for (let times = 0; times < 100; times += 1) {
        stage.change({ activeDeadlineSeconds: 10_000 - times });
      }
      await stage.until("seen", () => stage.status.observedGeneration === 101);
      const generations = (stage.status.conditions ?? []).map((each) => each.observedGeneration);
      await stage.until("conditions", () => generations.every((each) => each !== undefined));
      assert.equal(stage.starts("web"), 1);
    }));

  test("waits for the node's network, and the pod has an event that says so", () =>
    onStage(async (stage) => {
      stage.world.network.ready = false;
      stage.put();
      await stage.until("told", () => stage.told("NetworkNotReady"));
      assert.equal(stage.calls("runPodSandbox").length, 0);
      stage.world.network.ready = true;
      stage.clock.ahead(1000);
      await stage.ready();
    }));

  test("does not wait for that where the pod is on the node's own network", () =>
    onStage(async (stage) => {
      stage.world.network.ready = false;
      stage.put({ hostNetwork: true });
      await stage.ready();
      assert.equal(stage.status.podIP, "192.0.2.10");
      assert.equal(stage.world.network.leases.size, 0);
    }));

  test("events of a container name it by its field", () =>
    onStage(async (stage) => {
      stage.world.runtime.program = ({ name }) => (name === "init" ? { exitCode: 0 } : undefined);
      stage.put({ initContainers: [app("init")] });
      await stage.ready();
      stage.change({ ephemeralContainers: [app("debug")] });
      await stage.until("debug", () => stage.starts("debug") === 1);
      const paths = stage.world.events
        .filter(({ reason }) => reason === "Started")
        .map(({ target }) => target.fieldPath);
      assert.deepEqual(paths, [
        "spec.initContainers{init}",
        "spec.containers{web}",
        "spec.ephemeralContainers{debug}",
      ]);
    }));

  test("keeps readiness over a restart of the agent until a probe says otherwise", () =>
    onStage(async (stage) => {
      let well = true;
      stage.world.runtime.onExec = () => ({ exitCode: well ? 0 : 1 });
      const readinessProbe = probe("ready", { periodSeconds: 30 });
      stage.put({ containers: [app("web", { readinessProbe })] });
      await stage.ready();
      const before = written(stage).length;
      await stage.restart();
      await stage.pause();
      assert.equal(stage.condition("Ready"), "True");
      for (const body of written(stage).slice(before)) {
        assert.doesNotMatch(body, /"ready":false/);
      }
      well = false;
      stage.clock.ahead(31_000);
      await stage.until("unready", () => stage.condition("Ready") === "False");
    }));
});
