import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";

import { type Clock, systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { DockerClient } from "../../../src/runtime/docker/client.ts";
import { pauseProgram } from "../../../src/runtime/docker/pause-image.ts";
import { createDockerRuntime } from "../../../src/runtime/docker/runtime.ts";
import {
  isRuntimeFailure,
  RuntimeError,
  type RuntimeFailure,
} from "../../../src/runtime/errors.ts";
import type {
  ContainerRuntime,
  ImageService,
  PodSandboxConfig,
  RuntimeEvent,
  StreamSession,
} from "../../../src/runtime/types.ts";
import { type Answer, FakeEngine, type FakeRequest, frame, switching } from "./fake-engine.ts";

const { signal } = new AbortController();
const id = "c".repeat(64);
const ping = { op: "ping", method: "GET", path: "/ping" } as const;

function runtimeOf(
  engine: FakeEngine,
  clock: Clock = systemClock,
): ContainerRuntime & ImageService {
  return createDockerRuntime({
    socketPath: engine.socketPath,
    nodeName: "n1",
    podLogsDir: join(engine.directory, "pods"),
    containerLogsDir: join(engine.directory, "containers"),
    clock,
    logger: silentLogger,
    random: () => 0,
  });
}

function fails(...failure: RuntimeFailure[]): (error: unknown) => boolean {
  return (error) => isRuntimeFailure(error, ...failure);
}

describe("DockerClient", () => {
  it("says what to do when no engine is there", async () => {
    const client = new DockerClient({ socketPath: "/no/such.sock", clock: systemClock });
    await assert.rejects(client.call(ping, signal), (error) => {
      assert.ok(error instanceof RuntimeError);
      assert.equal(error.failure, "Unavailable");
      assert.match(error.message, /\/no\/such\.sock: install and start Docker Engine/);
      return true;
    });
  });

  it("speaks the negotiated version and asks again after the connection broke", async () => {
    await using engine = await FakeEngine.start();
    const client = new DockerClient({ socketPath: engine.socketPath, clock: systemClock });
    engine.answer = () => ({ status: 200, json: {} });
    await client.call(ping, signal);
    assert.equal((await client.version(signal)).api, 41);
    engine.version = { Version: "29.0", ApiVersion: "1.52", MinAPIVersion: "1.44", Arch: "amd64" };
    engine.answer = () => "hangUp";
    await assert.rejects(client.call({ ...ping, method: "POST" }, signal), fails("Unavailable"));
    assert.equal((await client.version(signal)).api, 52);
  });

  it("repeats a GET once when a kept connection turns out dead, a POST never", async () => {
    await using engine = await FakeEngine.start();
    const client = new DockerClient({ socketPath: engine.socketPath, clock: systemClock });
    engine.answer = () => (engine.seen.length === 1 ? "hangUp" : { status: 200, json: { a: 1 } });
    assert.deepEqual(await client.call(ping, signal), { a: 1 });
    assert.equal(engine.seen.length, 2);
    engine.seen.length = 0;
    await assert.rejects(client.call({ ...ping, method: "POST" }, signal), fails("Unavailable"));
    assert.equal(engine.seen.length, 1);
  });

  it("gives up at the call's deadline with Timeout, at the caller's abort with the caller's reason", async () => {
    await using engine = await FakeEngine.start();
    const client = new DockerClient({ socketPath: engine.socketPath, clock: systemClock });
    engine.answer = () => "silence";
    await assert.rejects(client.call({ ...ping, timeoutMs: 20 }, signal), fails("Timeout"));
    const caller = new AbortController();
    const call = client.call(ping, caller.signal);
    const reason = new Error("changed my mind");
    caller.abort(reason);
    await assert.rejects(call, (error) => error === reason);
  });

  it("keeps the body out of the URL: it may hold secrets", async () => {
    await using engine = await FakeEngine.start();
    const client = new DockerClient({ socketPath: engine.socketPath, clock: systemClock });
    engine.answer = () => ({ status: 201, json: {} });
    await client.call(
      { op: "x", method: "POST", path: "/x", query: { name: "n" }, body: { Env: ["S=secret"] } },
      signal,
    );
    const [request] = engine.requests;
    assert.equal(request?.query.toString(), "name=n");
    assert.deepEqual(JSON.parse(request?.body ?? ""), { Env: ["S=secret"] });
  });
});

const sandboxConfig: PodSandboxConfig = {
  metadata: { name: "web", namespace: "default", uid: "u1", attempt: 0 },
  hostname: "web",
  labels: {},
  record: "{}",
  network: "pod",
  ipc: "pod",
  pid: "container",
  sysctls: {},
  cgroupParent: undefined,
  runtimeHandler: "",
  shmBytes: undefined,
};

/** A container as inspect shows it, with the labels of our sandbox. */
function inspected(status: string, labels: Record<string, string> = {}): Answer {
  return {
    status: 200,
    json: {
      Id: id,
      Created: "2026-01-01T00:00:00Z",
      State: { Status: status, Pid: status === "running" ? 77 : 0 },
      Config: {
        Labels: {
          "io.kubernetes.pod.uid": "u1",
          "io.kubernetes.docker.type": "podsandbox",
          "remora.io/attempt": "0",
          "remora.io/node": "n1",
          "remora.io/schema": "1",
          ...labels,
        },
      },
      HostConfig: { NetworkMode: "none" },
    },
  };
}

describe("runPodSandbox", () => {
  it("imports the pause image when the engine does not have it, and tries again", async () => {
    await using engine = await FakeEngine.start();
    let imported = false;
    engine.answer = ({ path, method }): Answer => {
      if (path === "/info") return { status: 200, json: {} };
      if (path === "/containers/create") {
        return imported
          ? { status: 201, json: { Id: id } }
          : { status: 404, json: { message: "No such image: remora.local/pause:x" } };
      }
      if (path === "/images/create") {
        imported = true;
        return { status: 200, json: {} };
      }
      if (method === "POST") return { status: 204 };
      return inspected("running");
    };
    const sandbox = await runtimeOf(engine).runPodSandbox(sandboxConfig, signal);
    assert.equal(sandbox.pid, 77);
    assert.equal(engine.seen.filter((one) => one === "POST /images/create").length, 1);
    const load = engine.requests.find(({ path }) => path === "/images/create");
    assert.equal(load?.query.get("fromSrc"), "-");
    assert.ok(load?.query.getAll("changes").includes('ENTRYPOINT ["/pause"]'));
    assert.equal(load?.body.slice(0, 5), "pause");
  });

  it("adopts the running one of the same uid and attempt, also when it was made from another spec", async () => {
    await using engine = await FakeEngine.start();
    engine.answer = ({ path, method }): Answer => {
      if (path === "/info") return { status: 200, json: {} };
      if (path === "/containers/create") {
        return { status: 409, json: { message: `is already in use by container "${id}"` } };
      }
      if (method === "POST") return { status: 304 };
      return inspected("running", { "remora.io/spec-hash": "other" });
    };
    assert.equal((await runtimeOf(engine).runPodSandbox(sandboxConfig, signal)).id, id);
    assert.equal(
      engine.seen.some((one) => one.startsWith("DELETE")),
      false,
    );
  });

  it("touches nothing of another node that holds the name", async () => {
    await using engine = await FakeEngine.start();
    engine.answer = ({ path }): Answer => {
      if (path === "/info") return { status: 200, json: {} };
      if (path === "/containers/create") {
        return { status: 409, json: { message: "is already in use by container" } };
      }
      return inspected("exited", { "remora.io/node": "n2" });
    };
    await assert.rejects(
      runtimeOf(engine).runPodSandbox(sandboxConfig, signal),
      fails("AlreadyExists"),
    );
    assert.deepEqual(
      engine.seen.filter((one) => /DELETE|kill|stop|start/.test(one)),
      [],
    );
  });

  it("takes the exit code of a failed start from the engine's record", async () => {
    await using engine = await FakeEngine.start();
    engine.answer = ({ method }): Answer =>
      method === "POST"
        ? { status: 500, json: { message: "some new text" } }
        : {
            status: 200,
            json: { Id: id, State: { Status: "created", ExitCode: 127, Error: "x" }, Config: {} },
          };
    await assert.rejects(runtimeOf(engine).startContainer(id, signal), (error) => {
      assert.ok(error instanceof RuntimeError);
      assert.equal(error.failure, "StartFailed");
      assert.equal(error.exitCode, 127);
      return true;
    });
  });
});

describe("stopping and removing", () => {
  it("kills when there is no grace, and takes gone and not running for success", async () => {
    await using engine = await FakeEngine.start();
    const runtime = runtimeOf(engine);
    engine.answer = () => ({ status: 409, json: { message: "is not running" } });
    await runtime.stopContainer(id, 0, signal);
    engine.answer = () => ({ status: 404, json: { message: "No such container" } });
    await runtime.stopContainer(id, 0.2, signal);
    await runtime.removeContainer(id, signal);
    assert.deepEqual(engine.seen.slice(0, 2), [
      `POST /containers/${id}/kill`,
      `POST /containers/${id}/stop`,
    ]);
    assert.equal(engine.requests[1]?.query.get("t"), "1", "a part of a second is a second");
  });

  it("waits for a removal that somebody else began", async () => {
    await using engine = await FakeEngine.start();
    let tries = 0;
    engine.answer = ({ method }): Answer => {
      if (method !== "DELETE") return inspected("removing");
      tries += 1;
      return tries === 1
        ? { status: 409, json: { message: "removal of container c is already in progress" } }
        : { status: 404, json: { message: "No such container" } };
    };
    await runtimeOf(engine).removeContainer(id, signal);
    assert.equal(tries, 2);
  });
});

describe("snapshot", () => {
  const entry = (state: string): object => ({
    Id: id,
    Created: 1,
    State: state,
    Status: "Up 2 hours",
    Labels: {
      "io.kubernetes.pod.uid": "u1",
      "io.kubernetes.docker.type": "podsandbox",
      "remora.io/attempt": "0",
      "remora.io/node": "n1",
      "remora.io/schema": "1",
    },
  });

  it("inspects once what does not change", async () => {
    await using engine = await FakeEngine.start();
    engine.answer = ({ path }): Answer =>
      path === "/containers/json"
        ? { status: 200, json: [entry("running")] }
        : inspected("running");
    const runtime = runtimeOf(engine);
    assert.equal((await runtime.snapshot(signal)).get("u1")?.sandboxes[0]?.pid, 77);
    await runtime.snapshot(signal);
    assert.equal(engine.seen.filter((one) => one.endsWith(`${id}/json`)).length, 1);
  });

  it("leaves out what vanished between list and inspect", async () => {
    await using engine = await FakeEngine.start();
    engine.answer = ({ path }): Answer =>
      path === "/containers/json"
        ? { status: 200, json: [entry("running")] }
        : { status: 404, json: { message: "No such container" } };
    assert.equal((await runtimeOf(engine).snapshot(signal)).size, 0);
  });

  it("still answers when one container cannot be inspected", async () => {
    await using engine = await FakeEngine.start();
    engine.answer = ({ path }): Answer =>
      path === "/containers/json"
        ? { status: 200, json: [entry("running")] }
        : { status: 500, json: { message: "stuck" } };
    const pod = (await runtimeOf(engine).snapshot(signal)).get("u1");
    assert.equal(pod?.sandboxes[0]?.ready, true);
    assert.equal(pod?.sandboxes[0]?.pid, undefined);
  });
});

/** A clock whose sleeps end at once, and that remembers them. */
function instantClock(sleeps: number[]): Clock {
  return {
    ...systemClock,
    sleep: async (ms, aborted) => {
      sleeps.push(ms);
      await systemClock.sleep(ms >= 10_000 ? ms : 0, aborted);
    },
  };
}

describe("events", () => {
  it("says resync on every connection and backs off between them", async () => {
    await using engine = await FakeEngine.start();
    const line = JSON.stringify({
      Action: "die",
      Actor: { ID: id, Attributes: { "io.kubernetes.pod.uid": "u1" } },
    });
    engine.stream = ({ path }, response) => {
      if (path !== "/events") return false;
      response.writeHead(200);
      response.end(`${line}\n`);
      return true;
    };
    const sleeps: number[] = [];
    const stop = new AbortController();
    const seen: RuntimeEvent["kind"][] = [];
    for await (const event of runtimeOf(engine, instantClock(sleeps)).events(stop.signal)) {
      seen.push(event.kind);
      if (seen.length === 6) stop.abort();
    }
    assert.deepEqual(seen, ["resync", "exited", "resync", "exited", "resync", "exited"]);
    assert.deepEqual(
      sleeps.filter((ms) => ms < 10_000),
      [25, 50],
    );
  });

  it("ends when the caller aborts while nothing happens", async () => {
    await using engine = await FakeEngine.start();
    engine.stream = ({ path }, response) => {
      if (path !== "/events") return false;
      response.writeHead(200);
      response.flushHeaders();
      return true;
    };
    const stop = new AbortController();
    const seen: string[] = [];
    for await (const event of runtimeOf(engine).events(stop.signal)) {
      seen.push(event.kind);
      setImmediate(() => stop.abort());
    }
    assert.deepEqual(seen, ["resync"]);
  });
});

async function collect(session: StreamSession): Promise<{ stdout: string; stderr: string }> {
  const text = { stdout: "", stderr: "" };
  for await (const { stream, chunk } of session.output)
    text[stream] += Buffer.from(chunk).toString();
  return text;
}

function execEngine(
  engine: FakeEngine,
  state: { exitCode: number },
  upgraded: (request: FakeRequest, socket: Parameters<FakeEngine["upgraded"]>[1]) => void,
): void {
  engine.answer = ({ path }): Answer =>
    path.endsWith("/exec")
      ? { status: 201, json: { Id: "e1" } }
      : { status: 200, json: { Running: false, ExitCode: state.exitCode, Pid: 0 } };
  engine.upgraded = upgraded;
}

describe("exec", () => {
  const command = ["cat"];

  it("gives output that came with the handshake, stdin to its end, and the exit code", async () => {
    await using engine = await FakeEngine.start();
    execEngine(engine, { exitCode: 3 }, (_request, socket) => {
      let input = "";
      socket.write(Buffer.concat([Buffer.from(switching), frame(2, "early ")]));
      socket.on("data", (chunk: Buffer) => {
        input += chunk.toString();
      });
      // Only a half-close can tell that the input is complete while the output is still wanted.
      socket.on("end", () => socket.end(frame(1, input.toUpperCase())));
    });
    const session = await runtimeOf(engine).exec(id, { command, stdin: true, tty: false }, signal);
    await session.writeStdin(Buffer.from("hello "));
    await session.writeStdin(Buffer.from("world"));
    session.closeStdin();
    assert.deepEqual(await collect(session), { stdout: "HELLO WORLD", stderr: "early " });
    assert.equal(await session.exitCode, 3);
    await assert.rejects(session.writeStdin(Buffer.from("x")), fails("WrongState"));
  });

  it("does not look for frames in a terminal's output", async () => {
    await using engine = await FakeEngine.start();
    execEngine(engine, { exitCode: 0 }, (_request, socket) => socket.end(`${switching}\u0001raw`));
    const session = await runtimeOf(engine).exec(id, { command, stdin: false, tty: true }, signal);
    assert.equal((await collect(session)).stdout, "\u0001raw");
  });

  it("tells a command that could not be started from one that prints the same words", async () => {
    await using engine = await FakeEngine.start();
    const text = "OCI runtime exec failed: no such file";
    const state = { exitCode: 127 };
    execEngine(engine, state, (_request, socket) =>
      socket.end(Buffer.concat([Buffer.from(switching), frame(1, text)])),
    );
    const options = { command, stdin: false, tty: false };
    const refused = await runtimeOf(engine).exec(id, options, signal);
    assert.deepEqual(await collect(refused), { stdout: "", stderr: text });
    assert.equal(await refused.exitCode, 127);
    state.exitCode = 0;
    const honest = await runtimeOf(engine).exec(id, options, signal);
    assert.deepEqual(await collect(honest), { stdout: text, stderr: "" });
  });

  it("passes the engine's refusal on", async () => {
    await using engine = await FakeEngine.start();
    engine.answer = () => ({ status: 409, json: { message: "Container c is not running" } });
    await assert.rejects(
      runtimeOf(engine).exec(id, { command, stdin: false, tty: false }, signal),
      (error) => isRuntimeFailure(error, "WrongState") && /not running/.test(String(error)),
    );
  });

  it("ends at its deadline and keeps no more output than asked", async () => {
    await using engine = await FakeEngine.start();
    execEngine(engine, { exitCode: 0 }, (_request, socket) => {
      socket.write(Buffer.concat([Buffer.from(switching), frame(1, "x".repeat(100))]));
    });
    const result = await runtimeOf(engine).execSync(
      id,
      command,
      { timeoutMs: 30, maxBytes: 10 },
      signal,
    );
    assert.equal(result.timedOut, true);
    assert.equal(Buffer.from(result.stdout).toString(), "x".repeat(10));
  });

  it("owes the exit code also to a caller that aborts and does not read on", async () => {
    await using engine = await FakeEngine.start();
    execEngine(engine, { exitCode: 137 }, (_request, socket) => socket.write(switching));
    const options = { command, stdin: true, tty: false };
    const session = await runtimeOf(engine).exec(id, options, signal);
    await session.abort();
    assert.equal(await session.exitCode, 137);
  });

  it("ends when its signal aborts", async () => {
    await using engine = await FakeEngine.start();
    execEngine(engine, { exitCode: 137 }, (_request, socket) => socket.write(switching));
    const stop = new AbortController();
    const session = await runtimeOf(engine).exec(
      id,
      { command, stdin: true, tty: false },
      stop.signal,
    );
    const output = collect(session);
    stop.abort();
    assert.deepEqual(await output, { stdout: "", stderr: "" });
    assert.equal(await session.exitCode, 137);
  });
});

describe("pullImage", () => {
  const options = { auth: undefined, stallMs: 60_000 };

  it("turns an error inside the stream into ImagePullFailed with its class", async () => {
    await using engine = await FakeEngine.start();
    engine.stream = ({ path }, response) => {
      if (path !== "/images/create") return false;
      response.writeHead(200);
      response.end('{"status":"Pulling"}\n{"errorDetail":{"message":"unauthorized: no"}}\n');
      return true;
    };
    await assert.rejects(runtimeOf(engine).pullImage("quay.io/a/b:1", options, signal), (error) => {
      assert.ok(error instanceof RuntimeError);
      assert.equal(error.failure, "ImagePullFailed");
      assert.equal(error.pullProblem, "auth");
      return true;
    });
    const [request] = engine.requests;
    assert.equal(request?.query.get("fromImage"), "quay.io/a/b");
    assert.equal(request?.query.get("tag"), "1");
    assert.equal(request?.headers["x-registry-auth"], "e30=");
  });

  it("gives up when nothing moves for the stall time, however much is said", async () => {
    await using engine = await FakeEngine.start();
    engine.stream = ({ path }, response) => {
      if (path !== "/images/create") return false;
      response.writeHead(200);
      response.write('{"status":"Waiting"}\n');
      return true;
    };
    await assert.rejects(
      runtimeOf(engine).pullImage("a:1", { ...options, stallMs: 40 }, signal),
      (error) => isRuntimeFailure(error, "ImagePullFailed") && /no progress/.test(String(error)),
    );
  });

  it("reports an early refusal as a failed pull, a missing engine as such", async () => {
    await using engine = await FakeEngine.start();
    engine.answer = () => ({ status: 500, json: { message: "dial tcp: lookup r: no such host" } });
    await assert.rejects(runtimeOf(engine).pullImage("a:1", options, signal), (error) => {
      assert.ok(error instanceof RuntimeError);
      assert.equal(error.pullProblem, "network");
      assert.match(error.message, /^the registry cannot be reached: dial tcp/);
      return true;
    });
    engine.answer = () => "hangUp";
    await assert.rejects(runtimeOf(engine).pullImage("a:1", options, signal), fails("Unavailable"));
  });
});

describe("removeImage", () => {
  it("asks who uses it before it takes the names away", async () => {
    await using engine = await FakeEngine.start();
    const image = `sha256:${"a".repeat(64)}`;
    engine.answer = ({ path }): Answer =>
      path === "/containers/json"
        ? { status: 200, json: [{ Id: id }] }
        : { status: 200, json: { Id: image, RepoTags: ["a:1"] } };
    await assert.rejects(runtimeOf(engine).removeImage(image, signal), fails("WrongState"));
    assert.equal(
      engine.seen.some((one) => one.startsWith("DELETE")),
      false,
    );
  });
});

describe(
  "the pause program",
  { skip: process.arch !== "x64" && "made for this architecture only" },
  () => {
    it("waits, and exits with 0 on TERM", async () => {
      await using engine = await FakeEngine.start();
      const path = join(engine.directory, "pause");
      await writeFile(path, pauseProgram("amd64"));
      await chmod(path, 0o755);
      const child = spawn(path, { stdio: "ignore" });
      await once(child, "spawn");
      // The signal is blocked only after its first two system calls.
      await systemClock.sleep(30, signal);
      assert.equal(child.exitCode, null);
      child.kill("SIGTERM");
      const [code] = (await once(child, "exit")) as [number | null];
      assert.equal(code, 0);
    });
  },
);
