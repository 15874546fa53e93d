import { execFile, execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { busyboxArchive } from "./machine.ts";

const script = fileURLToPath(new URL("systemd-machine.sh", import.meta.url));

/** Why no machine with systemd can be made here; undefined when one can. */
export function cannotBootSystemd(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  for (const tool of ["systemd-nspawn", "dockerd", "containerd", "dpkg", "nft", "conntrack"]) {
    try {
      execFileSync("sh", ["-c", `command -v ${tool}`], { stdio: "ignore" });
    } catch {
      return `needs ${tool} on this machine`;
    }
  }
  const units = ["/lib/systemd/system", "/etc/systemd/system"];
  const hasDocker = units.some((directory) => existsSync(`${directory}/docker.service`));
  return hasDocker ? undefined : "needs Docker's unit of systemd on this machine";
}

interface RunOptions {
  readonly stdin?: Buffer;
  readonly timeoutMs?: number;
  /** Resolve with any exit code instead of throwing. */
  readonly allowFailure?: boolean;
}

function run(argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const [file = "", ...args] = argv;
  return new Promise((resolve, reject) => {
    const limits = { timeout: options.timeoutMs ?? 60_000, killSignal: "SIGKILL" } as const;
    const child = execFile(
      file,
      args,
      { ...limits, maxBuffer: 64 * 1024 * 1024 },
      (error, stdout, stderr) => {
        if (error === null || options.allowFailure === true) resolve(stdout.trim());
        else reject(new Error(`${args.slice(2).join(" ")}: ${stderr}${stdout}`, { cause: error }));
      },
    );
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(options.stdin);
  });
}

/** A machine that booted systemd, with Docker's own unit: this one's programs, and nothing else of it. */
export class SystemdMachine {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  static async start(): Promise<SystemdMachine> {
    const directory = `/tmp/rmsd-${randomBytes(4).toString("hex")}`;
    const machine = new SystemdMachine(directory);
    try {
      await run([script, "up", directory]);
    } catch (error) {
      await machine[Symbol.asyncDispose]();
      throw error;
    }
    return machine;
  }

  /** Runs a command there to its end; its output. */
  exec(argv: readonly string[], options?: RunOptions): Promise<string> {
    return run([script, "exec", this.#directory, ...argv], options);
  }

  /** Runs a script there that must succeed; its output. */
  sh(text: string, options?: RunOptions): Promise<string> {
    return this.exec(["sh", "-euc", text], options);
  }

  /** A path on this machine of a file in that directory, which is `/var/lib/docker` there. */
  get disk(): string {
    return `${this.#directory}/docker`;
  }

  /** Gives it `busybox:1.36`, made of this system's static busybox. */
  async loadBusybox(): Promise<void> {
    const change = ["--change", "ENV PATH=/bin"];
    await this.exec(["docker", "import", ...change, "-", "busybox:1.36"], {
      stdin: await busyboxArchive(),
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run([script, "down", this.#directory]);
  }
}
