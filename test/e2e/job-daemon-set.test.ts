import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { eventually, Machine, type MachineProcess } from "./lib/machine.ts";
import { cannotRun, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();
const image = "busybox:1.36";

const indexed = `
apiVersion: batch/v1
kind: Job
metadata: {name: squares}
spec:
  completions: 4
  parallelism: 2
  completionMode: Indexed
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: c
        image: ${image}
        command: [sh, -c, "echo index $JOB_COMPLETION_INDEX on $(hostname)"]
`;
const failing = `
apiVersion: batch/v1
kind: Job
metadata: {name: failing}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: "${image}", command: [sh, -c, "exit 4"]}]
`;
const daemon = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: "${image}", command: [sleep, "1000"], env: [{name: V, value: "1"}]}]
`;

describe("Jobs and DaemonSets with stock kubectl", { skip: skip ?? false }, () => {
  let machine: Machine;
  let remora: MachineProcess | undefined;

  async function k(command: string | readonly string[], stdin?: string): Promise<string> {
    const argv = typeof command === "string" ? command.split(" ") : command;
    const result = await machine.kubectl(argv, {
      allowFailure: true,
      timeoutMs: 60_000,
      ...(stdin === undefined ? {} : { stdin }),
    });
    assert.equal(result.exitCode, 0, `kubectl ${argv.join(" ")}: ${result.stderr}`);
    return result.stdout;
  }

  before(async () => {
    machine = await Machine.start("jobs");
    await machine.loadBusybox();
    remora = await remoraUp(machine);
  });

  after(async () => {
    await remora?.signal("TERM");
    await remora?.exited;
    await machine?.[Symbol.asyncDispose]();
  });

  test("create job, wait for it, read its log, see it in the list", async () => {
    await k(["create", "job", "once", `--image=${image}`, "--", "echo", "done once"]);
    await k("wait job/once --for=condition=complete --timeout=30s");
    assert.equal(await k("logs job/once"), "done once\n");
    assert.match(await k("get jobs once"), /once +Complete +1\/1 +\d+s/);
    const described = await k("describe job once");
    assert.match(described, /Pods Statuses: +0 Active.* \/ 1 Succeeded \/ 0 Failed/);
    assert.match(described, /SuccessfulCreate.*Created pod: once-/);
    assert.match(described, /Completed.*Job completed/);
    await k("delete job once");
    assert.equal(await k("get pods -l job-name=once --no-headers"), "");
  });

  test("an indexed Job runs each index once under its own name", async () => {
    await k("create -f -", indexed);
    await k("wait job/squares --for=condition=complete --timeout=60s");
    const logs = (await k("logs -l job-name=squares --tail=-1")).trim().split("\n").toSorted();
    assert.deepEqual(
      logs,
      [0, 1, 2, 3].map((index) => `index ${index} on squares-${index}`),
    );
    const indexes = await k("get job squares -o jsonpath={.status.completedIndexes}");
    assert.equal(indexes, "0-3");
    await k("delete job squares");
  });

  test("a Job that fails says why", async () => {
    await k("create -f -", failing);
    await k("wait job/failing --for=condition=failed --timeout=30s");
    const condition = "{.status.conditions[?(@.type=='Failed')].reason}";
    assert.equal(
      await k(["get", "job", "failing", "-o", `jsonpath=${condition}`]),
      "BackoffLimitExceeded",
    );
    await k("delete job failing");
  });

  test("a DaemonSet rolls out, updates, tells its history and goes back", async () => {
    const version = (): Promise<string> =>
      k("get pods -l app=agent -o jsonpath={.items[*].spec.containers[0].env[0].value}");
    await k("create -f -", daemon);
    await k("rollout status daemonset/agent --timeout=30s");
    await k("set env daemonset/agent V=2");
    await k("rollout status daemonset/agent --timeout=60s");
    assert.equal(await version(), "2");
    assert.match(await k("rollout history daemonset/agent"), /^1 +<none>\n2 +<none>$/m);
    assert.match(await k("rollout history daemonset/agent --revision=1"), /V:\s+1/);
    await k("rollout undo daemonset/agent");
    await k("rollout status daemonset/agent --timeout=60s");
    assert.equal(await version(), "1");
    assert.match(await k("rollout history daemonset/agent"), /^2 +<none>\n3 +<none>$/m);
    const before = await k("get pods -l app=agent -o jsonpath={.items[*].metadata.uid}");
    await k("rollout restart daemonset/agent");
    await k("rollout status daemonset/agent --timeout=60s");
    assert.notEqual(await k("get pods -l app=agent -o jsonpath={.items[*].metadata.uid}"), before);
    assert.match(await k("get daemonset agent"), /agent +1 +1 +1 +1 +1 +<none>/);
    await k("delete daemonset agent");
    await eventually(
      async () => ((await k("get pods -l app=agent --no-headers")) === "" ? true : undefined),
      { timeoutMs: 30_000, describe: () => "the daemon's pods are gone" },
    );
  });
});
