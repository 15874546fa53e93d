import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import type { Container, Pod, PodSpec } from "../../src/api/types.gen.ts";
import { eventually, Machine, type MachineProcess } from "./lib/machine.ts";
import { cannotRun, remoraDown, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();
const image = "docker.io/library/busybox:1.36";
const stubborn = ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"];

describe("how pods and containers end", { skip: skip ?? false }, () => {
  let machine: Machine;
  let remora: MachineProcess;

  before(async () => {
    machine = await Machine.start("ends");
    await machine.loadBusybox();
    remora = await remoraUp(machine);
  });

  after(async () => {
    await remora.signal("TERM");
    await remora.exited;
    const left = await remoraDown(machine);
    await machine[Symbol.asyncDispose]();
    assert.match(left, /nothing is left/);
  });

  const start = async (
    name: string,
    containers: readonly Partial<Container>[],
    more: Partial<PodSpec> = {},
  ): Promise<void> => {
    const complete = (each: Partial<Container>): Container => ({
      name: "web",
      image,
      command: stubborn,
      ...each,
    });
    const spec = {
      ...more,
      initContainers: (more.initContainers ?? []).map(complete),
      containers: containers.map(complete),
    };
    await machine.kubectl(["create", "-f", "-"], {
      stdin: JSON.stringify({ apiVersion: "v1", kind: "Pod", metadata: { name }, spec }),
    });
    await machine.kubectl(["wait", "--for=condition=Ready", `pod/${name}`, "--timeout=60s"]);
  };

  const pod = async (name: string): Promise<Pod> =>
    JSON.parse((await machine.kubectl(["get", "pod", name, "-o", "json"])).stdout) as Pod;

  const becomes = async (name: string, check: (pod: Pod) => boolean): Promise<Pod> =>
    eventually(
      async () => {
        const found = await pod(name);
        return check(found) ? found : undefined;
      },
      {
        timeoutMs: 40_000,
        describe: async () =>
          (await machine.kubectl(["describe", "pod", name])).stdout + remora.output().slice(-2000),
      },
    );

  const messages = async (name: string): Promise<string> => {
    const selector = `--field-selector=involvedObject.name=${name}`;
    const format = 'jsonpath={range .items[*]}{.reason}: {.message}{"\\n"}{end}';
    return (await machine.kubectl(["get", "events", selector, "-o", format])).stdout;
  };

  test("delete --now shortens a stop that is under way, in the hook and after it", async () => {
    const preStop = { exec: { command: ["sleep", "600"] } };
    await start("hook", [{ lifecycle: { preStop } }], { terminationGracePeriodSeconds: 600 });
    await start("term", [{}], { terminationGracePeriodSeconds: 600 });
    await machine.kubectl(["delete", "pod", "hook", "term", "--wait=false"]);
    await delay(2000);
    assert.equal((await pod("hook")).metadata?.deletionGracePeriodSeconds, 600);
    await machine.kubectl(["delete", "pod", "hook", "term", "--now", "--timeout=20s"]);
  });

  test("sidecars end after the others, in reverse order; their hooks run at once", async () => {
    const say = (name: string): readonly string[] => [
      "sh",
      "-c",
      `trap 'echo ${name} >>/log/order; exit 0' TERM; while :; do sleep 0.1 & wait $!; done`,
    ];
    const volumeMounts = [{ name: "log", mountPath: "/log" }];
    const one = (name: string, more: Partial<Container> = {}): Partial<Container> => ({
      name,
      command: [...say(name)],
      volumeMounts,
      ...more,
    });
    const hook = { exec: { command: ["sh", "-c", "echo hook >>/log/order"] } };
    const sidecars = ["first", "second"].map((name) =>
      one(name, { restartPolicy: "Always", lifecycle: { preStop: hook } }),
    );
    const slow = { preStop: { sleep: { seconds: 2 } } };
    await start("order", [one("main", { lifecycle: slow })], {
      initContainers: sidecars as Container[],
      volumes: [{ name: "log", hostPath: { path: "/run/order", type: "DirectoryOrCreate" } }],
    });
    await machine.kubectl(["delete", "pod", "order", "--timeout=30s"]);
    const order = await readFile(machine.path("/run/order/order"), "utf8");
    assert.deepEqual(order.trim().split("\n"), ["hook", "hook", "main", "second", "first"]);
  });

  test("a failed liveness probe has a grace of its own", async () => {
    const livenessProbe = {
      exec: { command: ["test", "-e", "/tmp/well"] },
      periodSeconds: 1,
      failureThreshold: 1,
      initialDelaySeconds: 2,
      terminationGracePeriodSeconds: 2,
    };
    await start("grace", [{ livenessProbe }], { terminationGracePeriodSeconds: 600 });
    const { status } = await becomes(
      "grace",
      (found) => (found.status?.containerStatuses?.[0]?.restartCount ?? 0) >= 1,
    );
    assert.equal(status?.containerStatuses?.[0]?.lastState?.terminated?.exitCode, 137);
    assert.match(
      await messages("grace"),
      /^Killing: Container web failed liveness probe, will be restarted$/m,
    );
    await machine.kubectl(["delete", "pod", "grace", "--now", "--timeout=20s"]);
  });

  test("a probe that takes too long leaves no process behind", async () => {
    const readinessProbe = {
      exec: { command: ["sh", "-c", "sleep 7701 & sleep 7702; true"] },
      periodSeconds: 1,
    };
    const spec = { containers: [{ name: "web", image, command: stubborn, readinessProbe }] };
    const manifest = { apiVersion: "v1", kind: "Pod", metadata: { name: "probe" }, spec };
    await machine.kubectl(["create", "-f", "-"], { stdin: JSON.stringify(manifest) });
    const text = /^Unhealthy: Readiness probe failed: command timed out: ".*" timed out after 1s$/m;
    await eventually(async () => (text.test(await messages("probe")) ? true : undefined), {
      timeoutMs: 40_000,
      describe: () => messages("probe"),
    });
    await delay(5000);
    const count = "ps -eo args | grep -cx 'sleep 770[12]'";
    const { stdout } = await machine.exec(["sh", "-c", count], { allowFailure: true });
    // One probe may be under way.
    assert(Number(stdout.trim()) <= 2, stdout);
    await machine.kubectl(["delete", "pod", "probe", "--now", "--timeout=20s"]);
  });

  test("a deadline set on a pod that runs ends it", async () => {
    await start("deadline", [{}], { terminationGracePeriodSeconds: 2 });
    const patch = JSON.stringify({ spec: { activeDeadlineSeconds: 3 } });
    await machine.kubectl(["patch", "pod", "deadline", "-p", patch]);
    const { status } = await becomes("deadline", (found) => found.status?.phase === "Failed");
    assert.equal(status?.reason, "DeadlineExceeded");
    assert.equal(status.message, "Pod was active on the node longer than the specified deadline");
    assert.equal(status.containerStatuses?.[0]?.state?.terminated?.exitCode, 137);
    await machine.kubectl(["delete", "pod", "deadline", "--now"]);
  });

  test("a failed postStart hook kills its container, which is restarted", async () => {
    const postStart = { exec: { command: ["false"] } };
    const spec = {
      terminationGracePeriodSeconds: 2,
      containers: [{ name: "web", image, command: stubborn, lifecycle: { postStart } }],
    };
    const manifest = { apiVersion: "v1", kind: "Pod", metadata: { name: "post" }, spec };
    await machine.kubectl(["create", "-f", "-"], { stdin: JSON.stringify(manifest) });
    await becomes(
      "post",
      (found) => (found.status?.containerStatuses?.[0]?.restartCount ?? 0) >= 1,
    );
    const seen = await messages("post");
    assert.match(seen, /^FailedPostStartHook: PostStartHook failed$/m);
    assert.match(seen, /^Killing: FailedPostStartHook$/m);
    await machine.kubectl(["delete", "pod", "post", "--now", "--timeout=20s"]);
  });
});
