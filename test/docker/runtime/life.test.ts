import assert from "node:assert/strict";
import { readFile, readlink, readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { isRuntimeFailure, RuntimeError } from "../../../src/runtime/errors.ts";
import type { ContainerRecord, PodRecord } from "../../../src/runtime/types.ts";
import {
  containerConfig,
  createFixture,
  eventually,
  type Fixture,
  resources,
  runScript,
  sandboxConfig,
  scoped,
  security,
  sleeper,
  testSignal,
} from "./fixture.ts";

let fixture: Fixture;
before(async () => {
  fixture = await createFixture();
});
after(async () => {
  await fixture[Symbol.asyncDispose]();
});

async function record(uid: string): Promise<PodRecord> {
  return fixture.runtime.podRecord(uid, testSignal());
}

async function exitedContainer(uid: string, id: string): Promise<ContainerRecord> {
  return eventually(async () => {
    const { containers } = await record(uid);
    return containers.find((container) => container.id === id && container.state.kind === "exited");
  }, `container ${id} exits`);
}

async function logText(id: string): Promise<string> {
  const path = await fixture.runtime.containerLogPath(id, testSignal());
  const lines = (await readFile(path ?? "", "utf8")).split("\n").filter((line) => line !== "");
  return lines.map((line) => (JSON.parse(line) as { log: string }).log).join("");
}

describe("a pod's life on Docker", () => {
  it("runs a sandbox and a container, shows both, and removes every trace", async () => {
    const { runtime } = fixture;
    const config = sandboxConfig({ record: '{"grace":5}' });
    const { uid } = config.metadata;
    const sandbox = await runtime.runPodSandbox(config, testSignal());
    assert.equal(sandbox.ready, true);
    assert.ok((sandbox.pid ?? 0) > 1);
    assert.equal(sandbox.record, '{"grace":5}');
    assert.equal(sandbox.network, "pod");

    const id = await runScript(fixture, sandbox, `echo hello; ${sleeper}`, {
      logPath: `default_web_${uid}/main/0.log`,
    });
    const running = await record(uid);
    assert.equal(running.containers[0]?.state.kind, "running");
    assert.equal(running.containers[0]?.imageID, fixture.busybox);
    assert.equal(running.containers[0]?.sandboxID, sandbox.id);
    assert.deepEqual(
      (await runtime.snapshot(testSignal())).get(uid),
      running,
      "snapshot and podRecord agree",
    );

    await eventually(async () => ((await logText(id)) === "hello\n" ? true : undefined), "log");
    const podLink = join(fixture.podLogsDir, `default_web_${uid}/main/0.log`);
    assert.equal(await readlink(podLink), await runtime.containerLogPath(id, testSignal()));
    const containerLink = join(fixture.containerLogsDir, `web_default_main-${id}.log`);
    assert.equal(await readlink(containerLink), podLink);

    await runtime.stopContainer(id, 10, testSignal());
    const stopped = await exitedContainer(uid, id);
    assert.ok(stopped.state.kind === "exited" && stopped.state.exitCode === 0);
    assert.ok(stopped.state.kind === "exited" && stopped.state.finishedAt > 0);
    await runtime.stopPodSandbox(sandbox.id, testSignal());
    assert.equal((await record(uid)).sandboxes[0]?.ready, false);
    await runtime.removePodSandbox(sandbox.id, testSignal());
    assert.deepEqual((await record(uid)).sandboxes, []);
    assert.deepEqual((await record(uid)).containers, []);
    assert.deepEqual(await readdir(fixture.podLogsDir), []);
    assert.deepEqual(await readdir(fixture.containerLogsDir), []);
  });

  it("gives a running container other limits, and refuses less memory than it uses", async () => {
    const { runtime } = fixture;
    const config = sandboxConfig();
    const sandbox = await runtime.runPodSandbox(config, testSignal());
    const mebi = 1024 * 1024;
    // Pages of a tmpfs belong to who writes them, and cannot be dropped.
    const fill = "busybox dd if=/dev/zero of=/dev/shm/fill bs=1M count=32 2>/dev/null";
    const id = await runScript(fixture, sandbox, `${fill}; echo filled; ${sleeper}`, {
      resources: { ...resources, memoryLimitBytes: 128 * mebi },
      logPath: `default_web_${config.metadata.uid}/main/0.log`,
    });
    await eventually(async () => ((await logText(id)) === "filled\n" ? true : undefined), "log");
    const before = (await record(config.metadata.uid)).containers[0];
    assert.equal(before?.limits?.memoryLimitBytes, 128 * mebi);
    const wanted = { cpuShares: 512, cpuQuotaMicros: 50_000, memoryLimitBytes: 256 * mebi };
    await runtime.updateContainer(id, wanted, testSignal());
    const after = (await record(config.metadata.uid)).containers[0];
    assert.deepEqual(after?.limits, wanted);
    assert.deepEqual(after?.state, before?.state);
    const script =
      "busybox cat /sys/fs/cgroup/memory.max || busybox cat /sys/fs/cgroup/memory/memory.limit_in_bytes";
    const seen = await runtime.execSync(
      id,
      ["/bin/busybox", "sh", "-c", script],
      { timeoutMs: 10_000, maxBytes: 1000 },
      testSignal(),
    );
    assert.equal(Buffer.from(seen.stdout).toString().trim(), String(256 * mebi));
    await assert.rejects(
      runtime.updateContainer(id, { ...wanted, memoryLimitBytes: 16 * mebi }, testSignal()),
      (error) => isRuntimeFailure(error, "WrongState"),
    );
    assert.equal((await record(config.metadata.uid)).containers[0]?.state.kind, "running");
    await runtime.removePodSandbox(sandbox.id, testSignal());
  });

  it("succeeds on ids that are gone already", async () => {
    const { runtime } = fixture;
    const unknown = "0".repeat(64);
    await runtime.stopContainer(unknown, 0, testSignal());
    await runtime.stopContainer(unknown, 1, testSignal());
    await runtime.removeContainer(unknown, testSignal());
    await runtime.stopPodSandbox(unknown, testSignal());
    await runtime.removePodSandbox(unknown, testSignal());
  });

  it("gives all containers of a pod one network, one IPC namespace and the pod's host name", async () => {
    const { runtime } = fixture;
    const config = sandboxConfig({ hostname: "pod-host", sysctls: { "net.core.somaxconn": "77" } });
    const sandbox = await runtime.runPodSandbox(config, testSignal());
    const first = await runScript(fixture, sandbox, sleeper, { name: "first" });
    const second = await runScript(fixture, sandbox, sleeper, { name: "second" });
    const look = async (id: string): Promise<string> => {
      const script =
        "for f in net ipc; do busybox readlink /proc/self/ns/$f; done; busybox hostname; busybox cat /proc/sys/net/core/somaxconn";
      const result = await runtime.execSync(
        id,
        ["/bin/busybox", "sh", "-c", script],
        { timeoutMs: 10_000, maxBytes: 1000 },
        testSignal(),
      );
      assert.equal(result.exitCode, 0, Buffer.from(result.stderr).toString());
      return Buffer.from(result.stdout).toString();
    };
    const seen = await look(first);
    assert.equal(seen, await look(second));
    assert.equal(seen.split("\n")[0], await readlink(`/proc/${sandbox.pid}/ns/net`));
    assert.deepEqual(seen.split("\n").slice(2, 4), ["pod-host", "77"]);
    await runtime.removePodSandbox(sandbox.id, testSignal());
    assert.deepEqual((await record(config.metadata.uid)).containers, []);
  });

  it("runs a sandbox and its containers with the handler that was asked for, and refuses an unknown one", async () => {
    const { runtime, client } = fixture;
    const runtimeHandler = "io.containerd.runc.v2";
    const sandbox = await runtime.runPodSandbox(sandboxConfig({ runtimeHandler }), testSignal());
    const container = await runScript(fixture, sandbox, sleeper);
    for (const id of [sandbox.id, container]) {
      const path = `/containers/${id}/json`;
      const inspected = await client.call({ op: "inspect", method: "GET", path }, testSignal());
      const { HostConfig } = inspected as { HostConfig: { Runtime: string } };
      assert.equal(HostConfig.Runtime, runtimeHandler);
    }
    await runtime.removePodSandbox(sandbox.id, testSignal());
    await assert.rejects(
      runtime.runPodSandbox(sandboxConfig({ runtimeHandler: "nowhere" }), testSignal()),
      (error) =>
        isRuntimeFailure(error, "InvalidSpec") &&
        /no runtime for "nowhere" is configured/.test(String(error)),
    );
  });

  it("adopts what an interrupted call left, without a second sandbox or container", async () => {
    const { runtime } = fixture;
    const config = sandboxConfig();
    const sandbox = await runtime.runPodSandbox(config, testSignal());
    const created = await runtime.createContainer(
      sandbox,
      containerConfig(fixture.busybox, sleeper),
      testSignal(),
    );
    const after = fixture.restarted();
    const again = await after.runPodSandbox(config, testSignal());
    assert.deepEqual(again, sandbox);
    const same = await after.createContainer(
      again,
      containerConfig(fixture.busybox, sleeper),
      testSignal(),
    );
    assert.equal(same.id, created.id);
    await after.startContainer(same.id, testSignal());
    await after.startContainer(same.id, testSignal());
    const names = (await scoped(fixture.client, fixture.scope)).filter(({ name }) =>
      name.includes(config.metadata.uid),
    );
    assert.equal(names.length, 2);
    await runtime.removePodSandbox(sandbox.id, testSignal());
  });

  it("replaces a container that was created from another spec and never ran", async () => {
    const { runtime } = fixture;
    const sandbox = await runtime.runPodSandbox(sandboxConfig(), testSignal());
    const first = await runtime.createContainer(
      sandbox,
      containerConfig(fixture.busybox, sleeper, { specHash: "old" }),
      testSignal(),
    );
    const second = await runtime.createContainer(
      sandbox,
      containerConfig(fixture.busybox, sleeper, { specHash: "new" }),
      testSignal(),
    );
    assert.notEqual(second.id, first.id);
    const { containers } = await record(sandbox.metadata.uid);
    assert.deepEqual(
      containers.map(({ id }) => id),
      [second.id],
    );
    await runtime.removePodSandbox(sandbox.id, testSignal());
  });

  it("replaces a sandbox of the same attempt that has ended", async () => {
    const { runtime } = fixture;
    const config = sandboxConfig();
    const first = await runtime.runPodSandbox(config, testSignal());
    await runtime.stopPodSandbox(first.id, testSignal());
    const second = await runtime.runPodSandbox(config, testSignal());
    assert.notEqual(second.id, first.id);
    assert.equal(second.ready, true);
    assert.equal((await record(config.metadata.uid)).sandboxes.length, 1);
    await runtime.removePodSandbox(second.id, testSignal());
  });

  it("leaves a foreign container that holds the name alone and says whose it is", async () => {
    const config = sandboxConfig();
    const { metadata } = config;
    const name = `k8s_POD_${metadata.name}_${metadata.namespace}_${metadata.uid}_0`;
    await fixture.client.call(
      {
        op: "create",
        method: "POST",
        path: "/containers/create",
        query: { name },
        body: { Image: fixture.busybox, Labels: { "remora.io/scope": fixture.scope } },
      },
      testSignal(),
    );
    await assert.rejects(
      fixture.runtime.runPodSandbox(config, testSignal()),
      (error) => isRuntimeFailure(error, "AlreadyExists") && /docker rm/.test(String(error)),
    );
    const left = await scoped(fixture.client, fixture.scope);
    assert.equal(left.filter((one) => one.name === `/${name}`).length, 1);
  });

  it("tells why a process could not be started, with the shell's exit codes", async () => {
    const { runtime } = fixture;
    const sandbox = await runtime.runPodSandbox(sandboxConfig(), testSignal());
    const cases = [
      { name: "missing", command: ["/no/such/program"], exitCode: 127 },
      { name: "dir", command: ["/etc"], exitCode: 126 },
    ];
    for (const { name, command, exitCode } of cases) {
      const { id } = await runtime.createContainer(
        sandbox,
        containerConfig(fixture.busybox, "", { name, command }),
        testSignal(),
      );
      await assert.rejects(runtime.startContainer(id, testSignal()), (error) => {
        assert.ok(error instanceof RuntimeError);
        assert.equal(error.failure, "StartFailed");
        assert.equal(error.exitCode, exitCode);
        return true;
      });
      const { containers } = await record(sandbox.metadata.uid);
      const state = containers.find((container) => container.id === id)?.state;
      assert.equal(state?.kind, "exited");
      assert.ok(state.kind === "exited" && state.exitCode === exitCode && state.startedAt === 0);
      assert.ok(state.error !== "");
    }
    await runtime.removePodSandbox(sandbox.id, testSignal());
  });

  it("kills what ignores its stop signal, and a second stop cuts the grace short", async () => {
    const { runtime } = fixture;
    const sandbox = await runtime.runPodSandbox(sandboxConfig(), testSignal());
    const deaf = await runScript(
      fixture,
      sandbox,
      "trap '' TERM; while :; do busybox sleep 1; done",
    );
    const started = performance.now();
    const slow = runtime.stopContainer(deaf, 60, testSignal());
    await runtime.stopContainer(deaf, 0, testSignal());
    await slow;
    assert.ok(performance.now() - started < 20_000);
    const { state } = await exitedContainer(sandbox.metadata.uid, deaf);
    assert.ok(state.kind === "exited" && state.exitCode === 137);
    await runtime.removePodSandbox(sandbox.id, testSignal());
  });

  it("gives a process exactly the user and groups that were asked for", async () => {
    const { runtime } = fixture;
    const sandbox = await runtime.runPodSandbox(sandboxConfig(), testSignal());
    let counter = 0;
    const ids = async (over: Partial<typeof security>): Promise<string> => {
      const name = `user-${(counter += 1)}`;
      const id = await runScript(fixture, sandbox, "busybox id -u; busybox id -g; busybox id -G", {
        name,
        security: { ...security, ...over },
      });
      await exitedContainer(sandbox.metadata.uid, id);
      return (await logText(id)).trim().split("\n").join(" / ");
    };
    assert.equal(await ids({ runAsUser: 1000 }), "1000 / 1000 / 1000 3000");
    assert.equal(
      await ids({ runAsUser: 1000, runAsGroup: 2000 }),
      "1000 / 2000 / 2000 3000",
      "Merge keeps the image's groups also when a gid is given",
    );
    assert.equal(
      await ids({ runAsUser: 1000, supplementalGroupsPolicy: "Strict" }),
      "1000 / 1000 / 1000",
    );
    assert.equal(
      await ids({ runAsUser: 1000, supplementalGroups: [4000], runAsGroup: 5 }),
      "1000 / 5 / 5 3000 4000",
    );
    assert.equal(await ids({ runAsGroup: 7 }), "0 / 7 / 7");
    await runtime.removePodSandbox(sandbox.id, testSignal());
  });

  it("sends events for starts, exits and removals after a resync", async () => {
    const { runtime } = fixture;
    const stop = new AbortController();
    const seen: string[] = [];
    const config = sandboxConfig();
    const listening = Promise.withResolvers<void>();
    const listen = async (): Promise<void> => {
      for await (const event of runtime.events(stop.signal)) {
        if (event.kind === "resync") {
          seen.push("resync");
          listening.resolve();
        } else if (event.podUID === config.metadata.uid) {
          seen.push(event.kind);
        }
      }
    };
    const listener = listen();
    await listening.promise;
    const sandbox = await runtime.runPodSandbox(config, testSignal());
    await runtime.stopPodSandbox(sandbox.id, testSignal());
    await runtime.removePodSandbox(sandbox.id, testSignal());
    await eventually(async () => (seen.includes("removed") ? true : undefined), "removed event");
    stop.abort();
    await listener;
    assert.deepEqual(seen, ["resync", "started", "exited", "removed"]);
  });

  it("refuses to start beside containers of a newer layout, and does not touch them", async () => {
    await using other = await createFixture();
    await other.client.call(
      {
        op: "create",
        method: "POST",
        path: "/containers/create",
        body: {
          Image: other.busybox,
          Labels: {
            "remora.io/node": "test-node",
            "remora.io/scope": other.scope,
            "remora.io/schema": "2",
            "io.kubernetes.pod.uid": "x",
            "io.kubernetes.docker.type": "container",
          },
        },
      },
      testSignal(),
    );
    await assert.rejects(other.runtime.connect(testSignal()), /newer Remora/);
    assert.equal((await other.runtime.snapshot(testSignal())).size, 0);
    assert.equal((await scoped(other.client, other.scope)).length, 1);
  });
});
