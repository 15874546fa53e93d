import { spawn } from "node:child_process";
import { kill } from "node:process";
import type { Readable } from "node:stream";

import { type Clock, within } from "./clock.ts";

export interface GroupOptions {
  readonly signal: AbortSignal;
  /** Written to the program's stdin, which is then closed. */
  readonly stdin: string;
  /** All of its environment. */
  readonly env: Readonly<Record<string, string>>;
  /** Milliseconds that it may run. */
  readonly limitMs: number;
  /** Bytes that it may write to stdout; likewise to stderr. */
  readonly maxOutputBytes: number;
  readonly clock: Clock;
}

/** How a program ended that is not trusted to end well. */
export interface GroupResult {
  /** `ended` by itself, or made to: it ran too long, or wrote too much. */
  readonly kind: "ended" | "timedOut" | "tooMuch";
  /** Undefined when a signal ended it. */
  readonly exitCode: number | undefined;
  /** The signal that ended it, if one did. */
  readonly signal: string | undefined;
  /** What it wrote, `maxOutputBytes` at most. */
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * How long output may come after the program itself has ended, from children that it left; and how long a killed program
 * may take to end, which in a call that cannot be interrupted is for ever.
 */
const lateMs = 1000;

/** Collects what a stream says, up to a limit. */
class Output {
  readonly #chunks: Buffer[] = [];
  #bytes = 0;

  constructor(stream: Readable, maxBytes: number, onTooMuch: () => void) {
    stream.on("data", (chunk: Buffer) => {
      const room = maxBytes - this.#bytes;
      this.#bytes += chunk.length;
      if (room > 0) this.#chunks.push(chunk.subarray(0, room));
      if (chunk.length > room) onTooMuch();
    });
    // A broken pipe says no more than its end does.
    stream.on("error", () => undefined);
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString("utf8");
  }
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined || pid <= 1) return;
  try {
    kill(-pid, "SIGKILL");
  } catch {
    // ESRCH: all of it has ended.
  }
}

/**
 * Runs somebody else's program as a process group of its own: one that hangs, floods its output, or leaves children that
 * hold its streams open is dealt with. The kernel kills it when the agent's thread ends, also by SIGKILL (prctl
 * PR_SET_PDEATHSIG, set by util-linux' setpriv).
 *
 * @param argv Program, by its whole path, and arguments.
 * @throws `AbortError` when `signal` fires first, and the whole group is killed; a Node error with `code: "ENOENT"`
 *   when there is no setpriv. A program that cannot be executed ends with 126 or 127 and setpriv's words on stderr.
 */
export async function execGroup(
  argv: readonly [string, ...string[]],
  options: GroupOptions,
): Promise<GroupResult> {
  const { clock, signal } = options;
  signal.throwIfAborted();
  const child = spawn("setpriv", ["--pdeathsig", "KILL", "--", ...argv], {
    stdio: "pipe",
    detached: true,
    env: { ...options.env },
  });
  let kind: GroupResult["kind"] = "ended";
  const late = new AbortController();
  const { promise: givenUp, resolve: giveUp } = Promise.withResolvers<void>();
  const stop = (why: GroupResult["kind"]): void => {
    if (kind !== "ended") return;
    kind = why;
    killGroup(child.pid);
    clock.sleep(lateMs, late.signal).then(giveUp, () => undefined);
  };
  const tooMuch = (): void => stop("tooMuch");
  const stdout = new Output(child.stdout, options.maxOutputBytes, tooMuch);
  const stderr = new Output(child.stderr, options.maxOutputBytes, tooMuch);
  // One that ends before it has read its stdin makes this stream emit EPIPE.
  child.stdin.on("error", () => undefined);
  const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const exited = new Promise<void>((resolve, reject) => {
    child.once("exit", () => resolve());
    child.once("error", reject);
  });
  child.stdin.end(options.stdin);
  try {
    await within(signal, options.limitMs, async (limited) => {
      const onAbort = (): void => stop("timedOut");
      limited.addEventListener("abort", onAbort, { once: true });
      try {
        await Promise.race([exited, givenUp]);
      } finally {
        limited.removeEventListener("abort", onAbort);
      }
    });
    const patience = clock.sleep(lateMs, late.signal).catch(() => undefined);
    await Promise.race([closed, patience]);
  } finally {
    late.abort();
    child.stdout.destroy();
    child.stderr.destroy();
    // One that even SIGKILL does not end must not keep the agent from ending.
    child.unref();
  }
  signal.throwIfAborted();
  return {
    kind,
    exitCode: child.exitCode ?? undefined,
    signal: child.signalCode ?? undefined,
    stdout: stdout.text(),
    stderr: stderr.text(),
  };
}
