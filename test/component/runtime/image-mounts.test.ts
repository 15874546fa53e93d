import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";

import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { createDockerRuntime } from "../../../src/runtime/docker/runtime.ts";
import { isRuntimeFailure } from "../../../src/runtime/errors.ts";
import type { ContainerRuntime, ImageService, SandboxRecord } from "../../../src/runtime/types.ts";
import { containerConfig } from "../../docker/runtime/fixture.ts";
import { type Answer, FakeEngine } from "./fake-engine.ts";

const { signal } = new AbortController();
const id = "c".repeat(64);
const image = `sha256:${"a".repeat(64)}`;

const sandbox: SandboxRecord = {
  id: "sandbox",
  metadata: { name: "web", namespace: "default", uid: "u1", attempt: 0 },
  ready: true,
  pid: 7,
  network: "pod",
  createdAt: 0,
  labels: {},
  record: "{}",
};

function runtimeOf(engine: FakeEngine): ContainerRuntime & ImageService {
  engine.version = { Version: "28.0.0", ApiVersion: "1.48", MinAPIVersion: "1.24", Arch: "amd64" };
  return createDockerRuntime({
    socketPath: engine.socketPath,
    nodeName: "n1",
    podLogsDir: join(engine.directory, "pods"),
    containerLogsDir: join(engine.directory, "containers"),
    clock: systemClock,
    logger: silentLogger,
    random: () => 0,
  });
}

function showing(subPath: string): ReturnType<typeof containerConfig> {
  const mount = { hostPath: "", readOnly: true, propagation: "private" } as const;
  const mounts = [{ ...mount, containerPath: "/content", image: { id: image, subPath } }];
  return containerConfig(image, "true", { mounts });
}

/** Answers everything but what the test is about. */
function usual({ method, path }: { readonly method: string; readonly path: string }): Answer {
  if (path === "/info") return { status: 200, json: { Driver: "overlayfs" } };
  if (path === "/containers/create") return { status: 201, json: { Id: id } };
  if (method === "DELETE") return { status: 204 };
  return { status: 404, json: { message: "no such thing" } };
}

test("a container whose image has no such part is not made, for the engine would count it as one that ran", async () => {
  await using engine = await FakeEngine.start();
  const message = "cannot access path /engine/layer/missing: no such file or directory";
  engine.answer = (request): Answer =>
    request.path.endsWith("/archive") ? { status: 500, json: { message } } : usual(request);
  await assert.rejects(
    runtimeOf(engine).createContainer(sandbox, showing("missing"), signal),
    (error) =>
      isRuntimeFailure(error, "ImageMountFailed") &&
      /^failed to mount image volume at "\/content": sha256:a+ has no "missing"/.test(
        (error as Error).message,
      ),
  );
  const head = engine.requests.find(({ method }) => method === "HEAD");
  assert.deepEqual(
    [head?.path, head?.query.get("path")],
    [`/containers/${id}/archive`, "/content"],
  );
  assert.equal(engine.seen.at(-1), `DELETE /containers/${id}`);
});

test("what is wrong with another mount of the container is left to its start to tell", async () => {
  await using engine = await FakeEngine.start();
  const message = "stat /gone: no such file or directory";
  engine.answer = (request): Answer =>
    request.path.endsWith("/archive") ? { status: 500, json: { message } } : usual(request);
  const created = await runtimeOf(engine).createContainer(sandbox, showing("part"), signal);
  assert.equal(created.id, id);
  assert(!engine.seen.some((call) => call.startsWith("DELETE")));
});

test("an image that is shown whole is not looked at", async () => {
  await using engine = await FakeEngine.start();
  engine.answer = usual;
  const created = await runtimeOf(engine).createContainer(sandbox, showing(""), signal);
  assert.equal(created.id, id);
  assert(!engine.seen.some((call) => call.startsWith("HEAD")));
});

test("a container that an interrupted call has left is made anew: the engine's mounts need not be there any more", async () => {
  await using engine = await FakeEngine.start();
  let removed = false;
  const Labels = {
    "io.kubernetes.pod.uid": "u1",
    "io.kubernetes.docker.type": "container",
    "io.kubernetes.container.name": "main",
    "io.kubernetes.sandbox.id": "sandbox",
    "remora.io/attempt": "0",
    "remora.io/node": "n1",
    "remora.io/schema": "1",
    "remora.io/spec-hash": "hash",
  };
  const holder = {
    Id: "old",
    Image: image,
    State: { Status: "created" },
    Config: { Labels },
    HostConfig: {},
    Mounts: [{ Type: "image", Name: image }],
  };
  engine.answer = (request): Answer => {
    if (request.method === "DELETE") removed = true;
    if (request.path === "/containers/create" && !removed) {
      return { status: 409, json: { message: 'is already in use by container "old"' } };
    }
    return request.path.endsWith("main_web_default_u1_0/json")
      ? { status: 200, json: holder }
      : usual(request);
  };
  const created = await runtimeOf(engine).createContainer(sandbox, showing(""), signal);
  assert.equal(created.id, id);
  assert(engine.seen.includes("DELETE /containers/old"));
});

test("an image that some container is shown is not removed, although the engine would", async () => {
  await using engine = await FakeEngine.start();
  const shown = { Id: id, State: "running", Mounts: [{ Type: "image", Name: image }] };
  engine.answer = ({ path, query }): Answer => {
    if (path !== "/containers/json") return { status: 200, json: { Id: image, RepoTags: ["a:1"] } };
    const ofImage = (query.get("filters") ?? "").includes("ancestor");
    return { status: 200, json: ofImage ? [] : [shown] };
  };
  await assert.rejects(
    runtimeOf(engine).removeImage(image, signal),
    (error) => isRuntimeFailure(error, "WrongState") && /used by 1 container/.test(String(error)),
  );
  assert(!engine.seen.some((call) => call.startsWith("DELETE")));
});
