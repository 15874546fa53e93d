import { readdir, readFile } from "node:fs/promises";

import { errorMessage } from "../../lib/errors.ts";
import { signalProcess } from "../../lib/exec.ts";
import { asRecord, asString, optionalNumber } from "../../lib/guard.ts";
import { isRuntimeFailure, RuntimeError } from "../errors.ts";
import type { ExecResult, StreamSession } from "../types.ts";
import { detachKeys } from "./container-config.ts";
import type { DockerContext } from "./context.ts";
import { DockerSession } from "./session.ts";

interface ExecState {
  readonly running: boolean;
  readonly exitCode: number | undefined;
  /** Host pid; 0 before the start. */
  readonly pid: number;
}

interface ExecOptions {
  readonly command: readonly string[];
  readonly stdin: boolean;
  readonly tty: boolean;
}

async function createExec(
  context: DockerContext,
  containerID: string,
  options: ExecOptions,
  signal: AbortSignal,
): Promise<string> {
  const created = asRecord(
    await context.client.call(
      {
        op: "create exec",
        method: "POST",
        path: `/containers/${containerID}/exec`,
        body: {
          Cmd: options.command,
          AttachStdin: options.stdin,
          AttachStdout: true,
          AttachStderr: !options.tty,
          Tty: options.tty,
          DetachKeys: detachKeys,
        },
        // A container that is being stopped may hold this call.
        timeoutMs: 10_000,
      },
      signal,
    ),
    "exec",
  );
  return asString(created["Id"], "exec.Id");
}

async function execState(
  context: DockerContext,
  execID: string,
  signal: AbortSignal,
): Promise<ExecState> {
  const state = asRecord(
    await context.client.call(
      { op: "inspect exec", method: "GET", path: `/exec/${execID}/json` },
      signal,
    ),
    "exec",
  );
  return {
    running: state["Running"] === true,
    exitCode: optionalNumber(state["ExitCode"]),
    pid: optionalNumber(state["Pid"]) ?? 0,
  };
}

/** The exit code; output often ends a millisecond or two before the engine has noted it. */
async function awaitExitCode(
  context: DockerContext,
  execID: string,
  signal: AbortSignal,
): Promise<number> {
  for (let waitMs = 1; ; waitMs *= 2) {
    const { running, exitCode } = await execState(context, execID, signal);
    if (!running && exitCode !== undefined) return exitCode;
    if (waitMs > 2048) {
      throw new RuntimeError("Timeout", "the process closed its output but does not end");
    }
    await context.clock.sleep(waitMs, signal);
  }
}

/** Children of a process, theirs, and so on; without those that end meanwhile. Proc(5), CONFIG_PROC_CHILDREN. */
async function descendants(pid: number): Promise<readonly number[]> {
  let tasks: readonly string[];
  try {
    tasks = await readdir(`/proc/${pid}/task`);
  } catch {
    return [];
  }
  const lists = await Promise.all(
    tasks.map((task) => readFile(`/proc/${pid}/task/${task}/children`, "utf8").catch(() => "")),
  );
  const children = lists.flatMap((list) => list.split(" ").flatMap((text) => Number(text) || []));
  return [...children, ...(await Promise.all(children.map(descendants))).flat()];
}

async function isIn(containerID: string, pid: number): Promise<boolean> {
  const cgroup = await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => "");
  return cgroup.includes(containerID);
}

/** The pid of a process that runs, or is just being started; undefined when it has ended. */
async function execPid(
  context: DockerContext,
  execID: string,
  signal: AbortSignal,
): Promise<number | undefined> {
  for (let waitMs = 5; ; waitMs *= 2) {
    const { exitCode, pid, running } = await execState(context, execID, signal);
    if (running && pid > 1) return pid;
    if (!running && exitCode !== undefined) return undefined;
    await context.clock.sleep(waitMs, signal);
  }
}

/** A process and what it has started, stopped one after the other: so none of them starts another one meanwhile. */
async function freezeTree(containerID: string, pid: number): Promise<readonly number[]> {
  const frozen = new Set<number>();
  for (;;) {
    const found = [pid, ...(await descendants(pid))].filter((each) => !frozen.has(each));
    if (found.length === 0) return [...frozen];
    for (const each of found) {
      frozen.add(each);
      // A pid may belong to somebody else by now.
      if (await isIn(containerID, each)) signalProcess(each, "SIGSTOP");
    }
  }
}

/** SIGKILL to the process of an exec and what it has started, on the host: the engine has no call for it. */
async function killExec(
  context: DockerContext,
  containerID: string,
  execID: string,
): Promise<void> {
  // Runs after the caller gave up, so it has its own short deadline.
  const signal = AbortSignal.timeout(5000);
  try {
    const pid = await execPid(context, execID, signal);
    if (pid === undefined || !(await isIn(containerID, pid))) return;
    for (const each of await freezeTree(containerID, pid)) {
      if (await isIn(containerID, each)) signalProcess(each, "SIGKILL");
    }
  } catch (error) {
    if (isRuntimeFailure(error, "NotFound")) return;
    context.logger.log("debug", "exec process not killed", {
      containerID,
      error: errorMessage(error),
    });
  }
}

/** Starts a command in a container; `signal` covers the whole session and ends it by {@link StreamSession.abort}. */
export async function exec(
  context: DockerContext,
  containerID: string,
  options: ExecOptions,
  signal: AbortSignal,
): Promise<StreamSession> {
  const execID = await createExec(context, containerID, options, signal);
  return startExec(context, { containerID, execID }, options, signal);
}

async function startExec(
  context: DockerContext,
  ids: { readonly containerID: string; readonly execID: string },
  options: ExecOptions,
  signal: AbortSignal,
): Promise<DockerSession> {
  const { execID, containerID } = ids;
  const kill = (): Promise<void> => killExec(context, containerID, execID);
  const stream = await unlessAborted(
    // Once it is asked for, the engine starts the process, whether we wait for that or not.
    context.client.hijack(
      {
        op: "start exec",
        method: "POST",
        path: `/exec/${execID}/start`,
        body: { Detach: false, Tty: options.tty },
      },
      new AbortController().signal,
    ),
    async (late) => {
      await kill();
      late.destroy();
    },
    signal,
  );
  return new DockerSession({
    stream,
    tty: options.tty,
    stdin: options.stdin,
    signal,
    resize: (size) => resize(context, `/exec/${execID}`, size, signal),
    exitCode: () => awaitExitCode(context, execID, AbortSignal.timeout(10_000)),
    kill,
  });
}

/** What comes after the caller has left is undone. */
async function unlessAborted<T>(
  work: Promise<T>,
  undo: (late: T) => Promise<void>,
  signal: AbortSignal,
): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = (): void => {
    reject(signal.reason);
    work.then(undo).catch(() => undefined);
  };
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/** What comes of a command in a frozen container, had the engine let it begin. */
const neverEnded: ExecResult = {
  exitCode: 137,
  stdout: new Uint8Array(),
  stderr: new Uint8Array(),
  timedOut: true,
};

/** Undefined when the container is paused: the engine refuses, where a process in it would wait for ever. */
async function createUnlessFrozen(
  context: DockerContext,
  containerID: string,
  options: ExecOptions,
  signal: AbortSignal,
): Promise<string | undefined> {
  try {
    return await createExec(context, containerID, options, signal);
  } catch (error) {
    if (!isRuntimeFailure(error, "WrongState")) throw error;
    const { status } = await context.observer.inspect(containerID, signal);
    if (status === "paused") return undefined;
    throw error;
  }
}

/** Runs a command to its end or to its deadline; then it is killed on the host. Output beyond the cap is dropped. */
export async function execSync(
  context: DockerContext,
  containerID: string,
  command: readonly string[],
  limits: { readonly timeoutMs: number; readonly maxBytes: number },
  signal: AbortSignal,
): Promise<ExecResult> {
  const options: ExecOptions = { command, stdin: false, tty: false };
  const execID = await createUnlessFrozen(context, containerID, options, signal);
  if (execID === undefined) return neverEnded;
  const session = await startExec(context, { containerID, execID }, options, signal);
  const ended = new AbortController();
  let timedOut = false;
  const expire = async (): Promise<void> => {
    await context.clock.sleep(limits.timeoutMs, ended.signal);
    timedOut = true;
    await session.abort();
  };
  const expiring = expire().catch(() => undefined);
  const watching = watchExit(context, execID, session, ended.signal).catch(() => undefined);
  const collected = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] };
  const sizes = { stdout: 0, stderr: 0 };
  try {
    for await (const { stream, chunk } of session.output) {
      const room = limits.maxBytes - sizes[stream];
      if (room <= 0) continue;
      const kept = chunk.subarray(0, room);
      sizes[stream] += kept.length;
      collected[stream].push(kept);
    }
    signal.throwIfAborted();
    return {
      // One that outlives its SIGKILL (stuck in the kernel) has no exit code yet, and is timed out all the same.
      exitCode: timedOut ? 137 : await knownExitCode(session),
      stdout: Buffer.concat(collected.stdout),
      stderr: Buffer.concat(collected.stderr),
      timedOut,
    };
  } finally {
    ended.abort();
    await Promise.all([expiring, watching]);
  }
}

/** Success is never assumed: a probe would pass on it. */
async function knownExitCode(session: DockerSession): Promise<number> {
  const code = await session.exitCode;
  if (code === undefined)
    throw new RuntimeError("Internal", "the engine does not tell the exit code of the command");
  return code;
}

/**
 * Ends the session shortly after the process has, when a child that it left in the background keeps the stream open.
 * Commands that end at once, as probes do, never get here.
 */
async function watchExit(
  context: DockerContext,
  execID: string,
  session: DockerSession,
  signal: AbortSignal,
): Promise<void> {
  for (let waitMs = 250; ; waitMs = Math.min(waitMs * 2, 2000)) {
    await context.clock.sleep(waitMs, signal);
    if (await stillRunning(context, execID, signal)) continue;
    await context.clock.sleep(100, signal);
    session.hangUp();
    return;
  }
}

/** One look that failed says nothing; the next one will. */
async function stillRunning(
  context: DockerContext,
  execID: string,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    return (await execState(context, execID, signal)).running;
  } catch (error) {
    signal.throwIfAborted();
    context.logger.log("debug", "exec could not be inspected", { error: errorMessage(error) });
    return true;
  }
}

/** Tells the engine the size of the terminal of what `target` names, an exec or a container. */
async function resize(
  context: DockerContext,
  target: string,
  { width, height }: { readonly width: number; readonly height: number },
  signal: AbortSignal,
): Promise<void> {
  await context.client.call(
    {
      op: `resize ${target.startsWith("/exec/") ? "exec" : "container"}`,
      method: "POST",
      path: `${target}/resize`,
      query: { h: height, w: width },
      lane: "wait",
    },
    signal,
  );
}

const attachLingerMs = 500;

/** Connects to a running container's main process. */
export async function attach(
  context: DockerContext,
  containerID: string,
  options: { readonly stdin: boolean; readonly tty: boolean },
  signal: AbortSignal,
): Promise<StreamSession> {
  // The engine would wait for the next start.
  const { status, stdinOnce } = await context.observer.inspect(containerID, signal);
  if (status !== "running") {
    throw new RuntimeError("WrongState", `container ${containerID} is not running`);
  }
  const stream = await context.client.hijack(
    {
      op: "attach",
      method: "POST",
      path: `/containers/${containerID}/attach`,
      query: {
        stream: 1,
        stdin: options.stdin ? 1 : 0,
        stdout: 1,
        stderr: 1,
        detachKeys,
      },
    },
    signal,
  );
  return new DockerSession({
    stream,
    tty: options.tty,
    stdin: options.stdin,
    // A client whose input ends leaves a container whose input does not, as with every runtime; the engine would cut off
    // at once what the container has to say to the last of it.
    ...(stdinOnce && !options.tty
      ? {}
      : { linger: () => context.clock.sleep(attachLingerMs, signal) }),
    signal,
    resize: (size) => resize(context, `/containers/${containerID}`, size, signal),
    exitCode: () => Promise.resolve(undefined),
    // Detaching leaves the container alone.
    kill: () => Promise.resolve(),
  });
}
