import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { request } from "node:http";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { setTimeout as delay } from "node:timers/promises";

const script = fileURLToPath(new URL("machines.sh", import.meta.url));
/** The checkout under test. */
export const root = fileURLToPath(new URL("../../..", import.meta.url)).replace(/\/$/, "");

export interface CommandResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

interface RunOptions {
  readonly stdin?: string;
  readonly timeoutMs?: number;
  /** Resolve with any exit code instead of throwing. */
  readonly allowFailure?: boolean;
}

async function run(
  argv: readonly string[],
  env: Readonly<Record<string, string>>,
  options: RunOptions = {},
): Promise<CommandResult> {
  const [file = "", ...args] = argv;
  const child = spawn(file, args, {
    env: { ...process.env, ...env },
    stdio: "pipe",
    timeout: options.timeoutMs ?? 120_000,
    killSignal: "SIGKILL",
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString("utf8")));
  child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString("utf8")));
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.stdin ?? "");
  // What it started inside the machine outlives it, and would keep its output open.
  child.once("exit", (_code, signal) => {
    if (signal !== "SIGKILL") return;
    child.stdout.destroy();
    child.stderr.destroy();
  });
  await once(child, "close");
  const exitCode = child.exitCode ?? 128;
  if (exitCode !== 0 && options.allowFailure !== true) {
    throw new Error(`${argv.join(" ")} ended with ${exitCode}\n${stderr}\n${stdout}`);
  }
  return { exitCode, stdout, stderr };
}

/** A process on a machine. */
export interface MachineProcess {
  readonly child: ChildProcess;
  output(): string;
  /** Sends a signal to the process itself, inside the machine. */
  signal(name: "TERM" | "INT" | "KILL"): Promise<void>;
  /** Resolves with the exit code (128 + signal number when it was killed). */
  readonly exited: Promise<number>;
}

/** What {@link run} tells the script about which machines are meant. */
function environment(name: string): {
  readonly state: string;
  readonly env: Readonly<Record<string, string>>;
} {
  const prefix = `rm${name}${process.pid}`;
  const state = `/tmp/${prefix}`;
  return { state, env: { E2E_PREFIX: prefix, E2E_STATE: state, E2E_CGROUP: prefix } };
}

/**
 * Machines on one switch, with a client outside of the cluster. The switch has no link to this machine's own network, so
 * no packet of a test can leave.
 */
export class Machines implements AsyncDisposable {
  readonly all: readonly Machine[];
  readonly #env: Readonly<Record<string, string>>;

  private constructor(all: readonly Machine[], env: Readonly<Record<string, string>>) {
    this.all = all;
    this.#env = env;
  }

  /** @param name Part of the names of namespaces and directories: a few letters. */
  static async start(name: string, count: number): Promise<Machines> {
    const { state, env } = environment(name);
    const all = Array.from({ length: count }, (_, at) => new Machine(env, state, at + 1));
    const machines = new Machines(all, env);
    try {
      await run([script, "up", String(count)], env);
      for (const machine of all) await machine.exec(["mkdir", "-p", "/run/home"]);
    } catch (error) {
      await machines[Symbol.asyncDispose]();
      throw error;
    }
    return machines;
  }

  /** Runs a command on the switch's client, which is no machine of the cluster. */
  async client(argv: readonly string[], options?: RunOptions): Promise<CommandResult> {
    return run([script, "client", ...argv], this.#env, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run([script, "down"], this.#env);
  }
}

/**
 * One "machine" on this machine: its own network, mount, pid, hostname and cgroup namespaces and its own dockerd. It has
 * no way out: its default route leads to a switch that drops everything.
 */
export class Machine implements AsyncDisposable {
  /** Counted from 1; the last part of the machine's address. */
  readonly index: number;
  readonly #env: Readonly<Record<string, string>>;
  readonly #state: string;

  constructor(env: Readonly<Record<string, string>>, state: string, index: number) {
    this.#env = env;
    this.#state = state;
    this.index = index;
  }

  /** One machine that is alone on its switch; disposing of it removes the switch too. */
  static async start(name: string): Promise<Machine> {
    const [machine] = (await Machines.start(name, 1)).all;
    if (machine === undefined) throw new Error("no machine was started");
    return machine;
  }

  /** Its host name, and so the default name of its Node. */
  get name(): string {
    return `node${this.index}`;
  }

  get address(): string {
    return `172.30.0.${this.index}`;
  }

  get address6(): string {
    return `fd00:30::${this.index}`;
  }

  /** Where a directory of the machine lies on this one: `/run`, `/var/lib/remora` and others are kept per machine. */
  path(inside: string): string {
    return `${this.#state}/${this.name}${inside}`;
  }

  /** A directory of this machine that is `/run` there. */
  get shared(): string {
    return this.path("/run");
  }

  get dockerSocket(): string {
    return this.path("/run/docker.sock");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run([script, "down"], this.#env);
  }

  /** Runs a command on the machine to its end. */
  async exec(argv: readonly string[], options?: RunOptions): Promise<CommandResult> {
    return run(
      [script, "exec", String(this.index), "env", "HOME=/run/home", ...argv],
      this.#env,
      options,
    );
  }

  /** kubectl as the machine's root would call it. */
  async kubectl(argv: readonly string[], options?: RunOptions): Promise<CommandResult> {
    return this.exec(["kubectl", ...argv], options);
  }

  /** Starts a long-running command on the machine. */
  spawn(argv: readonly string[], env: Readonly<Record<string, string>> = {}): MachineProcess {
    const pidFile = `/run/test-${Math.random().toString(36).slice(2)}.pid`;
    const assignments = Object.entries(env).map(([name, value]) => `${name}=${value}`);
    const child = spawn(
      script,
      [
        "exec",
        String(this.index),
        "env",
        "HOME=/run/home",
        ...assignments,
        "sh",
        "-c",
        'echo $$ >"$0"; exec "$@"',
        pidFile,
        ...argv,
      ],
      { env: { ...process.env, ...this.#env }, stdio: ["ignore", "pipe", "pipe"] },
    );
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString("utf8")));
    child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString("utf8")));
    const exited = once(child, "close").then(() => child.exitCode ?? 128);
    return {
      child,
      output: () => output,
      signal: async (name) => {
        const pid = (await readFile(this.path(pidFile), "utf8")).trim();
        await this.exec(["kill", `-${name}`, pid], { allowFailure: true });
      },
      exited,
    };
  }

  async #switch(command: string, ...args: readonly string[]): Promise<void> {
    await run([script, command, String(this.index), ...args], this.#env);
  }

  /** Pulls the network cable: the machine sees its carrier go. */
  async cut(): Promise<void> {
    await this.#switch("cut");
  }

  /** Plugs the cable in again. */
  async restore(): Promise<void> {
    await this.#switch("restore");
  }

  /** The switch drops all frames from and to the machine, which notices nothing. */
  async mute(): Promise<void> {
    await this.#switch("mute");
  }

  async unmute(): Promise<void> {
    await this.#switch("unmute");
  }

  /** A power cut: every process of the machine is gone, its disks are kept. */
  async powerOff(): Promise<void> {
    await this.#switch("poweroff");
  }

  /** Power is back, and so is dockerd; the network is as on a fresh machine. */
  async boot(): Promise<void> {
    await this.#switch("boot");
    await this.exec(["mkdir", "-p", "/run/home"]);
    await this.startDockerd();
  }

  /** kill -9 to dockerd and its containerd; containers live on. */
  async crashDockerd(): Promise<void> {
    await this.#switch("crash");
  }

  /** Starts dockerd again and waits until it answers. `options` replace the usual ones, live-restore among them. */
  async startDockerd(options: readonly string[] = []): Promise<void> {
    await this.#switch("dockerd", ...options);
  }

  /** One request to the machine's Docker Engine. */
  async docker(method: string, path: string, body?: Buffer): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const outgoing = request({ socketPath: this.dockerSocket, method, path }, (incoming) => {
        let text = "";
        incoming.on("data", (chunk: Buffer) => (text += chunk.toString("utf8")));
        incoming.on("end", () => {
          if ((incoming.statusCode ?? 500) >= 300) reject(new Error(`${method} ${path}: ${text}`));
          else resolve(path.startsWith("/images/create") || text === "" ? text : JSON.parse(text));
        });
      });
      outgoing.on("error", reject);
      outgoing.end(body);
    });
  }

  /** Gives the machine `docker.io/library/busybox:1.36`, made of this system's static busybox. */
  async loadBusybox(): Promise<void> {
    const archive = await busyboxArchive();
    const changes = new URLSearchParams([
      ["fromSrc", "-"],
      ["repo", "busybox"],
      ["tag", "1.36"],
      ["changes", "ENV PATH=/bin"],
      ["changes", 'CMD ["sh"]'],
    ]);
    await this.docker("POST", `/images/create?${changes.toString()}`, archive);
  }
}

let archive: Promise<Buffer> | undefined;

async function makeBusyboxArchive(): Promise<Buffer> {
  const make = `d=$(mktemp -d) && mkdir -p "$d/bin" "$d/etc" "$d/tmp" && cp "$(command -v busybox)" "$d/bin/" &&
    for a in $("$d/bin/busybox" --list); do [ "$a" = busybox ] || ln -s busybox "$d/bin/$a"; done &&
    echo 'root:x:0:0:root:/:/bin/sh' >"$d/etc/passwd" && tar -C "$d" -c . && rm -rf "$d"`;
  const child = spawn("sh", ["-c", make], { stdio: ["ignore", "pipe", "inherit"] });
  const chunks: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
  await once(child, "close");
  if (child.exitCode !== 0) throw new Error("could not pack busybox; is busybox-static installed?");
  return Buffer.concat(chunks);
}

/** A tar of a root directory that holds nothing but this system's static busybox. */
export async function busyboxArchive(): Promise<Buffer> {
  archive ??= makeBusyboxArchive();
  return archive;
}

/** Polls until `check` returns something; fails with what `describe` says after `timeoutMs`. */
export async function eventually<T>(
  check: () => Promise<T | undefined>,
  options: { readonly timeoutMs: number; readonly describe: () => string | Promise<string> },
): Promise<T> {
  const deadline = performance.now() + options.timeoutMs;
  let last: unknown;
  while (performance.now() < deadline) {
    try {
      const value = await check();
      if (value !== undefined) return value;
      last = undefined;
    } catch (error) {
      last = error;
    }
    await delay(100);
  }
  throw new Error(`did not happen within ${options.timeoutMs} ms: ${await options.describe()}`, {
    cause: last,
  });
}
