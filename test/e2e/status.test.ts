import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { describe, test } from "node:test";

import type { NodeSnapshot } from "../../src/agent/local/types.ts";
import { busyboxArchive, eventually, Machine, root } from "./lib/machine.ts";
import { cannotRun, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();

const forever = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"];

function pod(name: string, container: object, spec: object = {}): string {
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, labels: { app: name } },
    spec: {
      containers: [{ name: "web", image: "busybox:1.36", command: forever, ...container }],
      ...spec,
    },
  });
}

interface Told {
  readonly code: number;
  readonly text: string;
}

describe("remora status and top", { skip: skip ?? false }, () => {
  test("tell why pods are not ready, how far images are, and how the node is without its API server", async () => {
    await using machine = await Machine.start("status");
    await machine.loadBusybox();
    const layer = `${machine.shared}/layer.tar`;
    await writeFile(layer, await busyboxArchive());
    machine.spawn([`${root}/bin/node`, `${root}/test/fakes/registry.ts`, "5000", "/run/layer.tar"]);
    const remora = await remoraUp(machine);
    const program = `${root}/bin/remora`;
    const status = async (...args: readonly string[]): Promise<Told> => {
      const result = await machine.exec([program, "status", ...args], { allowFailure: true });
      return { code: result.exitCode, text: result.stdout + result.stderr };
    };
    const create = (manifest: string): Promise<unknown> =>
      machine.kubectl(["create", "-f", "-"], { stdin: manifest });
    const shows = (what: RegExp, timeoutMs = 60_000): Promise<string> => {
      let last = "";
      return eventually(
        async () => {
          last = (await status()).text;
          return what.test(last) ? last : undefined;
        },
        { timeoutMs, describe: () => Promise.resolve(`no ${what} in\n${last}${remora.output()}`) },
      );
    };

    const empty = await status();
    assert.equal(empty.code, 0, empty.text);
    assert.match(empty.text, /Ready.*Kubernetes v1\.36.*docker:\/\//);
    assert.match(empty.text, /0 of 0 ready/);

    await create(pod("missing", { image: "127.0.0.1:5000/missing/app:1" }));
    await create(pod("slow", { image: "127.0.0.1:5000/slow/app:1" }));
    await create(pod("crash", { command: ["sh", "-c", "echo no database >&2; exit 3"] }));
    await create(pod("settings", { envFrom: [{ configMapRef: { name: "none" } }] }));
    await create(pod("large", { resources: { requests: { cpu: "500" } } }));
    const volumes = [{ name: "v", secret: { secretName: "nowhere" } }];
    await create(pod("mount", { volumeMounts: [{ name: "v", mountPath: "/v" }] }, { volumes }));
    await create(
      pod("probe", { readinessProbe: { exec: { command: ["false"] }, periodSeconds: 1 } }),
    );

    await shows(
      /127\.0\.0\.1:5000\/slow\/app:1 +\S+ +[\d.]+ \w+ of [\d.]+ \w+ .*default\/slow/,
      30_000,
    );
    await shows(/image "127\.0\.0\.1:5000\/missing\/app:1" of container "web" cannot be pulled: /);
    await shows(/container "web" keeps ending: exit code 3/);
    await shows(
      /container "web" cannot be made \(CreateContainerConfigError\): configmap "none" not found/,
    );
    await shows(
      /default\/mount.*\n +container "web" waits, FailedMount: .*secret "nowhere" not found/,
    );
    await shows(/container "web" fails its readiness probe/);
    await shows(
      /default\/large +Pending.*\n +no node takes it: 0\/1 nodes are available: 1 Insufficient cpu/,
    );
    await machine.kubectl(["wait", "--for=condition=Ready", "pod/slow", "--timeout=60s"]);

    const { stdout } = await machine.exec([program, "status", "--json"]);
    const snapshot = JSON.parse(stdout) as NodeSnapshot;
    assert.equal(snapshot.node.ready, true);
    assert.equal(snapshot.agent.mode, "up");
    assert.deepEqual(
      snapshot.pods.map(({ name }) => name),
      ["crash", "missing", "mount", "probe", "settings", "slow"],
    );
    assert.deepEqual(
      snapshot.unscheduled?.map(({ name }) => name),
      ["large"],
    );
    const slow = snapshot.pods.find(({ name }) => name === "slow");
    assert.equal(slow?.ready, true);
    assert.ok((slow.memory ?? 0) > 10_000, `memory ${slow.memory}`);
    assert.ok(snapshot.usage.memory > 0 && snapshot.usage.memory < snapshot.usage.memoryCapacity);
    assert.ok(snapshot.usage.cpu <= snapshot.usage.cpuCapacity);
    assert.equal(snapshot.services.mode, "nftables");
    assert.ok(
      snapshot.services.list.some(({ name, ready }) => name === "kubernetes" && ready === 1),
    );
    assert.ok(
      snapshot.events.some(({ reason, type }) => reason === "FailedMount" && type === "Warning"),
    );

    const top = await machine.exec([
      "sh",
      "-c",
      `(sleep 4; printf q) | TERM=xterm LANG=C.UTF-8 script -qec 'stty rows 30 cols 120; exec ${program} top' /dev/null`,
    ]);
    assert.match(top.stdout, /CrashLoopBackOff|Error/);
    assert.ok(top.stdout.includes("\u001B[?1049l"), "the terminal is given back");

    const missing = await machine.exec([program, "status", "--state-dir", "/nowhere"], {
      allowFailure: true,
    });
    assert.equal(missing.exitCode, 3);
    assert.match(missing.stderr, /no agent runs on this machine/);
    const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    const command = [`${root}/bin/node`, `${root}/src/agent/main.ts`, "status"];
    const other = await machine.exec([...nobody, ...command], { allowFailure: true });
    assert.equal(other.exitCode, 3);
    assert.match(other.stderr, /you may not read \/var\/lib\/remora\/local\.sock/);

    await remora.signal("TERM");
    await remora.exited;
    const gone = await status();
    assert.equal(gone.code, 3);
    assert.match(gone.text, /no agent runs on this machine/);
  });
});
