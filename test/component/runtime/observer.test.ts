import assert from "node:assert/strict";
import { test } from "node:test";

import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { DockerClient, EngineCall } from "../../../src/runtime/docker/client.ts";
import { label } from "../../../src/runtime/docker/labels.ts";
import { Observer } from "../../../src/runtime/docker/observer.ts";

const signal = new AbortController().signal;
const id = "c".repeat(64);
const labels = {
  "remora.io/node": "worker",
  "remora.io/schema": "1",
  [label.type]: "container",
  [label.podUID]: "u1",
  [label.podName]: "web",
  [label.podNamespace]: "default",
  [label.containerName]: "web",
  [label.attempt]: "0",
  [label.sandboxID]: "s".repeat(64),
};

/** An engine with one container; answers to inspects wait for `hold`. */
function makeObserver(): {
  readonly observer: Observer;
  readonly inspects: () => number;
  readonly lists: () => number;
  readonly container: { status: string; hold: Promise<void> };
} {
  const container = { status: "running", hold: Promise.resolve() };
  let inspects = 0;
  let lists = 0;
  const call = async ({ path }: EngineCall): Promise<unknown> => {
    if (path === "/containers/json") {
      lists += 1;
      const status = container.status === "running" ? "Up 3 minutes" : "Created";
      return [
        {
          Id: id,
          Image: "app",
          Labels: labels,
          State: container.status,
          Status: status,
          Created: 1,
        },
      ];
    }
    inspects += 1;
    const { status } = container;
    await container.hold;
    return {
      Id: id,
      Name: "/x",
      Created: "2026-01-01T00:00:00Z",
      Image: "sha256:1",
      LogPath: "",
      RestartCount: 0,
      Config: { Labels: labels, Image: "app" },
      HostConfig: {},
      State: { Status: status, Running: status === "running", Pid: 7, ExitCode: 0, Error: "" },
    };
  };
  const observer = new Observer({
    client: { call } as unknown as DockerClient,
    clock: systemClock,
    logger: silentLogger,
    owner: { nodeName: "worker", scope: "" },
    logDirs: { podLogsDir: "/nowhere", containerLogsDir: "/nowhere" },
  });
  return { observer, container, inspects: () => inspects, lists: () => lists };
}

test("news of the start of a container that was seen running costs no second look", async () => {
  const { inspects, observer } = makeObserver();
  await observer.inspect(id, signal);
  observer.heard({ kind: "started", podUID: "u1", containerID: id });
  const [listed] = (await observer.list([], signal)).ours;
  assert(listed !== undefined, "the container is ours");
  await observer.podRecord("u1", signal);
  assert.equal(inspects(), 1);
  observer.invalidate(id);
  await observer.podRecord("u1", signal);
  assert.equal(inspects(), 2);
});

test("a container that was looked at before its start is looked at again", async () => {
  const { container, inspects, observer } = makeObserver();
  container.status = "created";
  await observer.inspect(id, signal);
  container.status = "running";
  observer.heard({ kind: "started", podUID: "u1", containerID: id });
  await observer.podRecord("u1", signal);
  assert.equal(inspects(), 2);
});

test("a look during which its container changed is not kept, that of another container is", async () => {
  const { container, inspects, observer } = makeObserver();
  const { promise, resolve } = Promise.withResolvers<void>();
  container.hold = promise;
  const look = observer.inspect(id, signal);
  observer.invalidate("d".repeat(64));
  observer.invalidate(id);
  resolve();
  await look;
  await observer.podRecord("u1", signal);
  assert.equal(inspects(), 2);
  const other = observer.inspect(id, signal);
  observer.invalidate("d".repeat(64));
  await other;
  await observer.podRecord("u1", signal);
  assert.equal(inspects(), 3);
});

test("while the engine's events are heard, a pod is listed again only after news of it", async () => {
  const { inspects, lists, observer } = makeObserver();
  await observer.podRecord("u1", signal);
  await observer.podRecord("u1", signal);
  assert.equal(lists(), 2);
  observer.listening(true);
  await observer.podRecord("u1", signal);
  const { containers } = await observer.podRecord("u1", signal);
  assert.equal(containers[0]?.state.kind, "running");
  assert.deepEqual([lists(), inspects()], [3, 2]);
  observer.heard({ kind: "updated", podUID: "u1", containerID: id });
  await observer.podRecord("u1", signal);
  assert.deepEqual([lists(), inspects()], [4, 3]);
});

test("the news of a start of ours costs nothing, that of somebody else's a list", async () => {
  const { container, inspects, lists, observer } = makeObserver();
  observer.listening(true);
  await observer.snapshot(signal);
  observer.invalidate(id);
  const { promise, resolve } = Promise.withResolvers<void>();
  container.hold = promise;
  const look = observer.inspect(id, signal);
  observer.heard({ kind: "started", podUID: "u1", containerID: id });
  resolve();
  await look;
  await observer.podRecord("u1", signal);
  assert.deepEqual([lists(), inspects()], [1, 2]);
  observer.heard({ kind: "started", podUID: "u1", containerID: "d".repeat(64) });
  await observer.podRecord("u1", signal);
  assert.deepEqual([lists(), inspects()], [2, 2]);
  observer.invalidate(id);
  observer.heard({ kind: "started", podUID: "u1", containerID: id });
  await observer.podRecord("u1", signal);
  assert.deepEqual([lists(), inspects()], [3, 3]);
});
