import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable, Writable } from "node:stream";

import { ExecError } from "./errors.ts";

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

/**
 * Runs one program without a shell and returns how it ended, whatever the exit code.
 *
 * @param argv Program and arguments, never interpolated into a command line.
 * @throws `AbortError` when `signal` fires first; a Node error with `code: "ENOENT"` when there is no such program.
 */
export async function execResult(
  argv: readonly [string, ...string[]],
  options: ExecOptions,
): Promise<ExecResult> {
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
 * Runs one program without a shell and returns its stdout.
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
