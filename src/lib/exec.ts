import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { Socket } from "node:net";
import type { Readable, Writable } from "node:stream";

import { access, constants } from "node:fs/promises";
import { join } from "node:path";

import { systemClock, within } from "./clock.ts";
import { ExecError } from "./errors.ts";
import { fitsLane, type LaneCommand, ShellLane } from "./shell-lane.ts";

export interface ExecOptions {
  readonly signal: AbortSignal;
  /** Written to the child's stdin, which is then closed. */
  readonly stdin?: string | Uint8Array;
  /** Added to a minimal environment (PATH, LC_ALL=C). */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

export interface ExecResult {
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

function childEnv(extra: Readonly<Record<string, string>> | undefined): Record<string, string> {
  // Output is parsed, so it must not depend on anybody's locale.
  return { PATH: path, LC_ALL: "C", ...extra };
}

async function collect(stream: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  await once(stream, "close");
  return Buffer.concat(chunks).toString("utf8");
}

/** A program that runs as long as this keeps its lane from nobody: another one is opened. */
const slowMs = 500;
const lanesAtOnce = 4;
/** Slow programs included. What finds no lane is started by this process itself in the end. */
const maxLanes = 16;
const maxTries = 4;

interface Place {
  readonly lane: ShellLane;
  /** Monotonic time since when; undefined while free. */
  busySince: number | undefined;
}

const lanes = new Set<Place>();
const waiting: ((place: Place | undefined) => void)[] = [];

function freeLane(): Place | undefined {
  for (const place of lanes) if (place.lane.dead) lanes.delete(place);
  const now = systemClock.monotonic();
  const free = [...lanes].find(({ busySince }) => busySince === undefined);
  const quick = [...lanes].filter(({ busySince = now }) => now - busySince < slowMs).length;
  if (free === undefined && (quick >= lanesAtOnce || lanes.size >= maxLanes)) return undefined;
  const place = free ?? { lane: new ShellLane(childEnv({})), busySince: now };
  place.busySince = now;
  lanes.add(place);
  return place;
}

/** A lane that gets free within `ms`. */
async function nextLane(ms: number, signal: AbortSignal): Promise<Place | undefined> {
  const { promise, resolve } = Promise.withResolvers<Place | undefined>();
  waiting.push(resolve);
  return within(signal, ms, async (limited) => {
    const leave = (): void => {
      const at = waiting.indexOf(resolve);
      if (at >= 0) waiting.splice(at, 1);
      resolve(undefined);
    };
    limited.addEventListener("abort", leave, { once: true });
    return promise;
  });
}

/** To start a program from here stops the event loop for longer than most programs run. */
async function awaitLane(signal: AbortSignal): Promise<Place | undefined> {
  let place = freeLane();
  // What was quick when the wait began may be slow by its end.
  for (let tries = 0; place === undefined && tries < maxTries; tries += 1) {
    place = (await nextLane(slowMs, signal)) ?? freeLane();
  }
  return place;
}

function leaveLane(place: Place): void {
  place.busySince = undefined;
  if (lanes.size > lanesAtOnce && waiting.length === 0) {
    lanes.delete(place);
    place.lane.end();
  }
  while (waiting.length > 0) {
    const next = freeLane();
    if (next === undefined) return;
    waiting.shift()?.(next);
  }
}

async function isProgram(file: string): Promise<boolean> {
  const places = file.includes("/") ? [file] : path.split(":").map((place) => join(place, file));
  const found = await Promise.all(
    places.map((place) =>
      access(place, constants.X_OK).then(
        () => true,
        () => false,
      ),
    ),
  );
  return found.includes(true);
}

/** Undefined when no lane gets free: those that are stuck must not hold up others. */
async function runInLane(
  command: LaneCommand,
  signal: AbortSignal,
): Promise<ExecResult | undefined> {
  const place = await awaitLane(signal);
  if (place !== undefined && signal.aborted) leaveLane(place);
  signal.throwIfAborted();
  if (place === undefined) return undefined;
  let pid = 0;
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = (): void => {
    // Without a pid it has not been started yet; the note that it has brings us here again.
    if (pid > 0) kill(pid);
    reject(new DOMException("The operation was aborted", "AbortError"));
  };
  const running = place.lane.run(command, (started) => {
    pid = started;
    if (signal.aborted) kill(pid);
  });
  // The lane is free when the program has ended, also one that was told to.
  const free = (): void => leaveLane(place);
  running.then(free, free);
  signal.addEventListener("abort", abort, { once: true });
  try {
    const { status, stdout, stderr } = await Promise.race([running, aborted]);
    const [file = ""] = command.argv;
    if (status === 127 && !(await isProgram(file))) {
      throw Object.assign(new Error(`spawn ${file} ENOENT`), { code: "ENOENT" });
    }
    const signalled = status > 128 && status < 160;
    return { exitCode: signalled ? undefined : status, stdout, stderr };
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

function kill(pid: number): void {
  signalProcess(pid, "SIGTERM");
}

/** Signals a process of this machine, which need not be ours. One that has ended, or may not be signalled, is left. */
export function signalProcess(pid: number, signal: "SIGTERM" | "SIGKILL" | "SIGSTOP"): void {
  // Zero and below are groups of processes, our own first of all.
  if (!Number.isInteger(pid) || pid <= 1) return;
  try {
    process.kill(pid, signal);
  } catch {
    // ESRCH or EPERM.
  }
}

/**
 * Runs one program and returns how it ended, whatever the exit code.
 *
 * @param argv Program and arguments, never interpolated into a command line.
 * @throws `AbortError` when `signal` fires first; a Node error with `code: "ENOENT"` when there is no such program.
 */
export async function execResult(
  argv: readonly [string, ...string[]],
  options: ExecOptions,
): Promise<ExecResult> {
  options.signal.throwIfAborted();
  const { stdin = "" } = options;
  const command = { argv, stdin: typeof stdin === "string" ? stdin : "", env: options.env ?? {} };
  if (command.stdin === stdin && options.cwd === undefined && fitsLane(command)) {
    const result = await runInLane(command, options.signal);
    if (result !== undefined) return result;
  }
  const [file, ...args] = argv;
  const child = spawn(file, args, {
    stdio: "pipe",
    signal: options.signal,
    env: childEnv(options.env),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  // A child that exits before it has read all of stdin makes this stream emit EPIPE; without a
  // listener that would end the whole agent. The exit code below tells the story instead.
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.stdin ?? "");
  const [stdout, stderr] = await Promise.all([
    collect(child.stdout),
    collect(child.stderr),
    once(child, "close"),
  ]);
  return { exitCode: child.exitCode ?? undefined, stdout, stderr };
}

/**
 * Runs one program and returns its stdout.
 *
 * @throws {ExecError} on a non-zero exit; otherwise as {@link execResult}.
 */
export async function exec(
  argv: readonly [string, ...string[]],
  options: ExecOptions,
): Promise<string> {
  const result = await execResult(argv, options);
  if (result.exitCode !== 0) throw new ExecError(argv, result.exitCode, result.stderr);
  return result.stdout;
}

/** A running child whose three streams belong to the caller. */
export type StreamingChild = ChildProcessByStdio<Writable, Readable, Readable>;

export interface StreamingOptions {
  readonly signal: AbortSignal;
  readonly env?: Readonly<Record<string, string>>;
  /**
   * The kernel kills the child when the thread that started it ends, also by SIGKILL (prctl PR_SET_PDEATHSIG, set by
   * util-linux' setpriv). For programs that do not look at their stdin and would otherwise outlive a crash for ever.
   */
  readonly dieWithParent?: boolean;
}

/**
 * Starts a long-lived child (`nft monitor`, `ip monitor`, a helper). It is killed when `signal` aborts; the caller
 * reads its streams and awaits `close`.
 */
export function spawnStreaming(
  argv: readonly [string, ...string[]],
  options: StreamingOptions,
): StreamingChild {
  const guard = options.dieWithParent === true ? ["setpriv", "--pdeathsig", "KILL", "--"] : [];
  const [file = "", ...args] = [...guard, ...argv];
  const child = spawn(file, args, {
    stdio: ["pipe", "pipe", "pipe"],
    signal: options.signal,
    env: childEnv(options.env),
  });
  child.stdin.on("error", () => undefined);
  // Abort and ENOENT surface as `error`; without a listener they would end the agent. Callers see `close`.
  child.on("error", () => undefined);
  return child;
}

/**
 * Resolves when the child has ended and its streams are closed. Never rejects, also not when it was aborted, as
 * `events.once` does: who reads the streams first would not be there to hear it.
 */
export async function whenClosed(child: StreamingChild): Promise<void> {
  await new Promise<void>((resolve) => {
    child.once("close", () => {
      resolve();
    });
  });
}

/** A running Node program that is sent messages, and answers with messages and sockets. */
export interface ChannelChild {
  /** Lost when the program has ended. */
  send(message: object): void;
  /** A socket that comes along is connected, and already read from. */
  onMessage(listener: (message: unknown, socket: Socket | undefined) => void): void;
  /** What it wrote to stderr, when it has ended. Never rejects. */
  readonly ended: Promise<string>;
  /** Closes the channel: the program gets `disconnect`, and should end. */
  close(): void;
}

/** Starts a Node program, perhaps behind others such as nsenter, with Node's own channel to it. Killed when `signal` aborts. */
export function spawnWithChannel(
  argv: readonly [string, ...string[]],
  options: { readonly signal: AbortSignal },
): ChannelChild {
  const [file, ...args] = argv;
  const child = spawn(file, args, {
    stdio: ["ignore", "ignore", "pipe", "ipc"],
    signal: options.signal,
    killSignal: "SIGKILL",
    env: childEnv({}),
  });
  let stderr = "";
  child.stderr?.on("data", (chunk: Buffer) => {
    stderr = (stderr + chunk.toString("utf8")).slice(0, 4096);
  });
  child.on("error", (error) => {
    stderr ||= error.message;
  });
  return {
    send: (message) => {
      if (child.connected) child.send(message, () => undefined);
    },
    onMessage: (listener) => {
      child.on("message", (message, handle) => {
        listener(message, handle instanceof Socket ? handle : undefined);
      });
    },
    ended: new Promise((resolve) => {
      child.once("close", () => {
        resolve(stderr);
      });
    }),
    close: () => {
      if (child.connected) child.disconnect();
    },
  };
}
