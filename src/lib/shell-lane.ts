import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { type Readable, Writable } from "node:stream";

/** One program to run: nothing in it is interpreted by the shell. */
export interface LaneCommand {
  readonly argv: readonly string[];
  readonly stdin: string;
  /** Added to the lane's own environment. */
  readonly env: Readonly<Record<string, string>>;
}

export interface LaneResult {
  /** 128 + number for a program that a signal ended. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** More than this goes through no shell. */
const maxTextBytes = 32 * 1024;

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Whether a shell can be given all of it as text. */
export function fitsLane({ argv, env, stdin }: LaneCommand): boolean {
  const words = [...argv, ...Object.values(env)];
  const bytes = words.reduce((sum, word) => sum + word.length, stdin.length);
  return (
    bytes <= maxTextBytes &&
    !words.some((word) => word.includes("\0")) &&
    !stdin.includes("\0") &&
    (stdin === "" || stdin.endsWith("\n")) &&
    Object.keys(env).every((name) => /^[A-Za-z_]\w*$/.test(name))
  );
}

/** Collects a stream until the mark that the shell prints behind a program's output. */
class Output {
  #chunks: Buffer[] = [];
  #tail: Buffer = Buffer.alloc(0);
  #mark: Buffer = Buffer.alloc(0);
  #done: ((text: string) => void) | undefined;

  constructor(stream: Readable) {
    stream.on("data", (chunk: Buffer) => this.#take(chunk));
  }

  async until(mark: string): Promise<string> {
    const { promise, resolve } = Promise.withResolvers<string>();
    this.#chunks = [];
    this.#tail = Buffer.alloc(0);
    this.#mark = Buffer.from(mark);
    this.#done = resolve;
    return promise;
  }

  #take(chunk: Buffer): void {
    if (this.#done === undefined) return;
    this.#chunks.push(chunk);
    this.#tail = Buffer.concat([this.#tail, chunk]).subarray(-this.#mark.length);
    if (!this.#tail.equals(this.#mark)) return;
    const all = Buffer.concat(this.#chunks);
    this.#done(all.subarray(0, all.length - this.#mark.length).toString("utf8"));
    this.#done = undefined;
  }
}

type Pipe = Readable & { ref?: () => void; unref?: () => void };

/**
 * A long-lived shell that starts programs, one at a time. Starting one from here costs 1.5 ms wherever; from this process
 * it stops the event loop for 10 ms and more, because the kernel copies the page tables of all our memory first.
 * The shell ends when this process does: its stdin closes.
 */
export class ShellLane {
  readonly #shell: ChildProcess;
  readonly #stdin: Writable;
  readonly #pipes: readonly Pipe[];
  readonly #stdout: Output;
  readonly #stderr: Output;
  readonly #nonce = randomBytes(16).toString("hex");
  readonly #ended: Promise<never>;
  #count = 0;
  #notes = "";
  #onNote: (line: string) => void = () => undefined;
  /** The shell is gone. */
  dead = false;

  constructor(env: Readonly<Record<string, string>>) {
    // Its own session: a Ctrl-C in the terminal is this process's business alone.
    const shell = spawn("/bin/sh", [], {
      stdio: ["pipe", "pipe", "pipe", "pipe"],
      env: { ...env },
      detached: true,
    });
    const notes = shell.stdio[3];
    if (!(notes instanceof Writable)) throw new Error("the shell has no fourth stream");
    this.#shell = shell;
    this.#stdin = shell.stdin;
    // A pipe from a child is a socket, readable too.
    const noteStream = notes as unknown as Readable;
    this.#pipes = [shell.stdin as unknown as Pipe, shell.stdout, shell.stderr, noteStream];
    this.#stdout = new Output(shell.stdout);
    this.#stderr = new Output(shell.stderr);
    noteStream.on("data", (chunk: Buffer) => this.#takeNotes(chunk.toString("utf8")));
    shell.stdin.on("error", () => undefined);
    const { promise, reject } = Promise.withResolvers<never>();
    this.#ended = promise;
    promise.catch(() => undefined);
    const end = (): void => {
      this.dead = true;
      reject(new Error("the shell that starts programs has ended"));
    };
    shell.on("error", end);
    shell.on("close", end);
    this.#hold(false);
  }

  /** Ends the shell once it has nothing to run. */
  end(): void {
    this.dead = true;
    this.#stdin.end();
  }

  /** An idle lane does not keep the process from ending. */
  #hold(busy: boolean): void {
    for (const target of [this.#shell, ...this.#pipes]) {
      if (busy) target.ref?.();
      else target.unref?.();
    }
  }

  #takeNotes(text: string): void {
    const lines = (this.#notes + text).split("\n");
    this.#notes = lines.pop() ?? "";
    for (const line of lines) this.#onNote(line);
  }

  /**
   * Runs one program to its end; call it again only then.
   *
   * @param onStarted Gets the program's process id.
   */
  async run(command: LaneCommand, onStarted: (pid: number) => void): Promise<LaneResult> {
    this.#count += 1;
    const mark = `${this.#nonce}.${this.#count}`;
    const { promise: status, resolve } = Promise.withResolvers<number>();
    this.#onNote = (line) => {
      if (line.startsWith("p")) onStarted(Number(line.slice(1)));
      else resolve(Number(line));
    };
    this.#hold(true);
    try {
      const outputs = [this.#stdout.until(mark), this.#stderr.until(mark), status] as const;
      this.#stdin.write(script(command, mark));
      const [stdout, stderr, code] = await Promise.race([Promise.all(outputs), this.#ended]);
      return { status: code, stdout, stderr };
    } finally {
      this.#hold(false);
    }
  }
}

function script({ argv, env, stdin }: LaneCommand, mark: string): string {
  const settings = Object.entries(env).map(([name, value]) => `${name}=${quote(value)}`);
  const words = [...settings, ...argv.map(quote)].join(" ");
  const input = stdin === "" ? "</dev/null" : `<<'${mark}'`;
  // In the background, so that its process id is known while it runs.
  return [
    `${words} ${input} 3>&- &`,
    ...(stdin === "" ? [] : [`${stdin}${mark}`]),
    `echo "p$!" >&3; wait "$!"; s=$?; printf %s ${mark}; printf %s ${mark} >&2; echo "$s" >&3`,
    "",
  ].join("\n");
}
