import { spawn } from "node:child_process";
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { setTimeout as delay } from "node:timers/promises";

import { checked, type CommandOptions, type CommandResult, type RealMachine } from "./machine.ts";

const directory = fileURLToPath(new URL("..", import.meta.url));
const name = "node1";
const upMs = 30 * 60_000;
const bootMs = 10 * 60_000;

/** What the checks need besides what the package brings; images for qemu have it already. */
const packages =
  "nfs-kernel-server nfs-common tgt open-iscsi quota busybox-static apparmor docker.io";

interface RunOptions extends CommandOptions {
  readonly stdinFile?: string;
}

async function run(argv: readonly string[], options: RunOptions = {}): Promise<CommandResult> {
  const [file = "", ...args] = argv;
  const child = spawn(file, args, {
    cwd: directory,
    stdio: "pipe",
    timeout: options.timeoutMs ?? 120_000,
    killSignal: "SIGKILL",
  });
  child.stdin.on("error", () => undefined);
  if (options.stdinFile === undefined) child.stdin.end(options.stdin ?? "");
  else createReadStream(options.stdinFile).pipe(child.stdin);
  const [stdout, stderr] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, "close"),
  ]);
  return { exitCode: child.exitCode ?? 128, stdout, stderr };
}

/** One word of a command line for the shell at the other end of ssh. */
function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** The first machine of the Vagrantfile beside this folder, without what it provisions; destroyed at the end. */
export class VagrantMachine implements RealMachine {
  readonly #scratch: string;
  readonly #address: string;

  private constructor(scratch: string, address: string) {
    this.#scratch = scratch;
    this.#address = address;
  }

  /** @param tree A directory with what is to be found at /opt. */
  static async start(tree: string): Promise<VagrantMachine> {
    const scratch = await mkdtemp(join(tmpdir(), "remora-vagrant-"));
    try {
      const up = ["vagrant", "up", "--no-provision", name];
      checked(up, await run(up, { timeoutMs: upMs }));
      const ask = ["vagrant", "ssh-config", name];
      const { stdout } = checked(ask, await run(ask));
      // One connection for all commands.
      const shared = `  ControlMaster auto\n  ControlPath ${scratch}/ssh\n  ControlPersist 600\n`;
      await writeFile(join(scratch, "config"), stdout.trimEnd() + `\n${shared}`);
      const machine = new VagrantMachine(scratch, "");
      await machine.#prepare(tree);
      const address = await machine.sh("hostname -I | tr ' ' '\\n' | grep -v ^172.17 | sed -n 2p");
      return new VagrantMachine(scratch, address);
    } catch (error) {
      await new VagrantMachine(scratch, "")[Symbol.asyncDispose]();
      throw error;
    }
  }

  async exec(argv: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    return this.#ssh(argv, options);
  }

  async sh(script: string, options: CommandOptions = {}): Promise<string> {
    return (await this.exec(["sh", "-euc", script], options)).stdout.trim();
  }

  async writeFile(path: string, content: string): Promise<void> {
    await this.exec(["sh", "-euc", 'mkdir -p "$(dirname "$0")"; cat >"$0"', path], {
      stdin: content,
    });
  }

  async reboot(): Promise<void> {
    const bootID = (): Promise<string> => this.sh("cat /proc/sys/kernel/random/boot_id");
    const before = await bootID();
    await this.exec(["systemctl", "reboot"], { allowFailure: true });
    await run(["ssh", "-F", this.#config, "-O", "exit", name]);
    for (let waited = 0; ; waited += 1000) {
      const now = await bootID().catch(() => before);
      if (now !== before) break;
      if (waited > bootMs) throw new Error("the machine did not come back");
      await delay(1000);
    }
    const wait = ["systemctl", "is-system-running", "--wait"];
    await this.exec(wait, { allowFailure: true, timeoutMs: bootMs });
  }

  endpoint(port: number): string {
    return `${this.#address}:${port}`;
  }

  describe(): string {
    return `vagrant ssh ${name}, in test/vm`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run(["ssh", "-F", this.#config, "-O", "exit", name]).catch(() => undefined);
    await run(["vagrant", "destroy", "-f", name], { timeoutMs: upMs });
    await rm(this.#scratch, { recursive: true, force: true });
  }

  get #config(): string {
    return join(this.#scratch, "config");
  }

  async #ssh(argv: readonly string[], options: RunOptions): Promise<CommandResult> {
    const command = ["sudo", "env", "HOME=/root", "LC_ALL=C.UTF-8", ...argv].map(quoted).join(" ");
    const result = await run(["ssh", "-F", this.#config, name, command], options);
    return checked(argv, result, options.allowFailure);
  }

  async #prepare(tree: string): Promise<void> {
    const missing = `for each in ${packages}; do dpkg -s $each >/dev/null 2>&1 || echo $each; done`;
    const wanted = (await this.sh(missing)).replaceAll("\n", " ");
    if (wanted !== "") {
      const install = `export DEBIAN_FRONTEND=noninteractive; apt-get update -q; apt-get install -qy ${wanted}`;
      await this.sh(install, { timeoutMs: upMs });
    }
    const archive = join(this.#scratch, "opt.tar");
    const pack = ["tar", "-C", tree, "-cf", archive, "."];
    checked(pack, await run(pack));
    await this.#ssh(["tar", "-C", "/opt", "-xf", "-"], { stdinFile: archive, timeoutMs: upMs });
    await rm(archive);
  }
}
