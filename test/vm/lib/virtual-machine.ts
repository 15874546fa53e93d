import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, closeSync, constants, openSync, readFileSync, unlinkSync } from "node:fs";
import type { Duplex } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";

import type { MachineImage } from "./image.ts";
import { JsonLines } from "./json-lines.ts";
import { checked, type CommandOptions, type CommandResult, type RealMachine } from "./machine.ts";

export interface VirtualMachineOptions {
  readonly image: MachineImage;
  /** Files that become /dev/vdb, /dev/vdc and so on, read-only. They are removed at once: the machine holds them open. */
  readonly disks: readonly string[];
  /** TCP ports of the machine that can be reached from here; see {@link VirtualMachine.endpoint}. */
  readonly ports: readonly number[];
  readonly memoryMiB: number;
}

const bootMs = 10 * 60_000;

/**
 * `kvm` where the processor helps, else `tcg`, which is software. A kernel offers /dev/kvm without the processor's help
 * too, inside of some other machines; there it is of no use for a kernel as a guest.
 */
export function accelerator(): "kvm" | "tcg" {
  const wanted = process.env["REMORA_TEST_VM_ACCELERATOR"];
  if (wanted === "kvm" || wanted === "tcg") return wanted;
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch {
    return "tcg";
  }
  return /^flags\s*:.* (?:vmx|svm)\b/m.test(readFileSync("/proc/cpuinfo", "utf8")) ? "kvm" : "tcg";
}

/** The descriptors that qemu gets besides stdin, stdout and stderr. */
const descriptors = { agent: 3, monitor: 4, console: 5, firstDisk: 6 } as const;

/** The second line is what only costs time in a machine that lives for minutes and is attacked by nobody. */
const kernelCommandLine = `root=/dev/vda rw console=ttyS0 quiet loglevel=4 panic=0 net.ifnames=0 \
mitigations=off tsc=reliable no_timer_check random.trust_cpu=on audit=0 systemd.show_status=false`;

function qemuArguments(options: VirtualMachineOptions): readonly string[] {
  const { disks, image, memoryMiB, ports } = options;
  const forwards = ports.map((port) => `,hostfwd=tcp:127.0.0.1:0-:${port}`);
  const chardev = (name: "agent" | "monitor" | "console"): string =>
    `socket,id=${name},fd=${descriptors[name]}`;
  const pairs: readonly (readonly [string, string])[] = [
    ["-machine", "q35,graphics=off"],
    ["-accel", accelerator() === "kvm" ? "kvm" : "tcg,thread=multi,tb-size=512"],
    ["-cpu", "max"],
    ["-smp", "2"],
    ["-m", String(memoryMiB)],
    ["-display", "none"],
    ["-kernel", image.kernel],
    ["-initrd", image.initrd],
    ["-append", kernelCommandLine],
    // Entropy; without it a young machine waits for it.
    ["-device", "virtio-rng-pci"],
    // What the machine writes goes to a file that has no name any more.
    ["-drive", `file=${image.disk},if=virtio,format=raw,snapshot=on`],
    ...disks.flatMap((_, at): [string, string][] => [
      ["-add-fd", `fd=${descriptors.firstDisk + at},set=${at}`],
      ["-drive", `file=/dev/fdset/${at},if=virtio,format=raw,readonly=on`],
    ]),
    ["-chardev", chardev("console")],
    ["-serial", "chardev:console"],
    ["-chardev", chardev("monitor")],
    ["-mon", "chardev=monitor,mode=control"],
    ["-chardev", chardev("agent")],
    ["-device", "virtio-serial-pci"],
    ["-device", "virtserialport,chardev=agent,id=agent,name=org.qemu.guest_agent.0"],
    // An interface with a way to nowhere: nothing but what comes in by a forwarded port is answered.
    ["-nic", `user,model=virtio-net-pci,ipv6=off,restrict=on${forwards.join("")}`],
  ];
  return ["-nodefaults", "-no-user-config", ...pairs.flat()];
}

/**
 * One real machine in qemu, told what to do through qemu's guest agent. Everything between it and us goes over descriptors
 * that qemu inherits, and qemu ends with this process: nothing is left behind however a test run ends.
 */
export class VirtualMachine implements RealMachine {
  readonly #child: ChildProcess;
  readonly #monitor: JsonLines;
  readonly #agent: JsonLines;
  readonly #exited: Promise<unknown>;
  #console = "";
  #stderr = "";
  #agentOpen = Promise.withResolvers<void>();
  readonly #ports = new Map<number, number>();

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#exited = once(child, "close");
    child.stderr?.on("data", (chunk: Buffer) => (this.#stderr += chunk.toString("utf8")));
    const streams: readonly unknown[] = child.stdio;
    const stream = (name: keyof typeof descriptors): Duplex => streams[descriptors[name]] as Duplex;
    stream("console").on("data", (chunk: Buffer) => {
      this.#console = (this.#console + chunk.toString("utf8")).slice(-64 * 1024);
    });
    stream("console").on("error", () => undefined);
    this.#monitor = new JsonLines(stream("monitor"), ({ data, event }) => {
      if (event !== "VSERPORT_CHANGE") return;
      if ((data as { readonly open: boolean }).open) this.#agentOpen.resolve();
      else this.#agentClosed();
    });
    this.#agent = new JsonLines(stream("agent"), () => undefined);
  }

  /** Starts a machine and waits until it has booted. */
  static async start(options: VirtualMachineOptions): Promise<VirtualMachine> {
    const disks = options.disks.map((path) => {
      const descriptor = openSync(path, "r");
      unlinkSync(path);
      return descriptor;
    });
    const child = spawn(
      "setpriv",
      ["--pdeathsig", "KILL", "qemu-system-x86_64", ...qemuArguments(options)],
      { stdio: ["ignore", "ignore", "pipe", "pipe", "pipe", "pipe", ...disks] },
    );
    for (const descriptor of disks) closeSync(descriptor);
    const machine = new VirtualMachine(child);
    try {
      await machine.#monitor.request("qmp_capabilities");
      await machine.#booted();
      await machine.#readPorts();
    } catch (error) {
      await machine[Symbol.asyncDispose]();
      throw new Error(machine.describe(), { cause: error });
    }
    return machine;
  }

  /** The end of what the machine wrote on its console, and what qemu has to say. */
  describe(): string {
    return `console of the machine:\n${this.#console.slice(-4000)}\n${this.#stderr}`;
  }

  endpoint(inside: number): string {
    const port = this.#ports.get(inside);
    if (port === undefined) throw new Error(`port ${inside} is not forwarded`);
    return `127.0.0.1:${port}`;
  }

  async exec(argv: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    const { stdin, timeoutMs = 120_000 } = options;
    const started = performance.now();
    const { pid } = (await this.#agent.request("guest-exec", {
      path: "env",
      arg: ["HOME=/root", "LC_ALL=C.UTF-8", ...argv],
      "capture-output": true,
      ...(stdin === undefined ? {} : { "input-data": Buffer.from(stdin).toString("base64") }),
    })) as { readonly pid: number };
    for (let pause = 20; ; pause = Math.min(pause * 2, 320)) {
      const status = (await this.#agent.request("guest-exec-status", { pid })) as ExecStatus;
      if (status.exited) return checked(argv, commandResult(status), options.allowFailure);
      if (performance.now() - started > timeoutMs) {
        throw new Error(`${argv.join(" ")}: not done within ${timeoutMs} ms`);
      }
      await delay(pause);
    }
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
    const before = this.#agentOpen;
    // The answer may be lost with the agent.
    await this.exec(["systemctl", "reboot", "--no-block"]).catch(() => undefined);
    for (let waited = 0; this.#agentOpen === before; waited += 100) {
      if (waited > bootMs) throw new Error("the machine did not shut down");
      await delay(100);
    }
    await this.#booted();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#exited;
  }

  #agentClosed(): void {
    this.#agent.fail(new Error("the machine's guest agent has ended"));
    this.#agentOpen = Promise.withResolvers();
  }

  async #booted(): Promise<void> {
    const limit = new AbortController();
    const ended = this.#exited.then(() => {
      throw new Error("qemu has ended");
    });
    const late = delay(bootMs, undefined, { signal: limit.signal }).then(() => {
      throw new Error(`the machine has not booted within ${bootMs / 60_000} minutes`);
    });
    late.catch(() => undefined);
    ended.catch(() => undefined);
    try {
      await Promise.race([this.#agentOpen.promise, ended, late]);
      // Prints "degraded" and fails when a unit failed: that is for a check to tell.
      const wait = ["systemctl", "is-system-running", "--wait"];
      await Promise.race([this.exec(wait, { allowFailure: true, timeoutMs: bootMs }), ended, late]);
    } finally {
      limit.abort();
    }
  }

  async #readPorts(): Promise<void> {
    const text = await this.#monitor.request("human-monitor-command", {
      "command-line": "info usernet",
    });
    // TCP[HOST_FORWARD]  12  127.0.0.1  40123  10.0.2.15  6443  0  0
    const line = /TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+(\d+)/g;
    for (const [, outside, inside] of String(text).matchAll(line)) {
      this.#ports.set(Number(inside), Number(outside));
    }
  }
}

interface ExecStatus {
  readonly exited: boolean;
  readonly exitcode?: number;
  readonly signal?: number;
  readonly "out-data"?: string;
  readonly "err-data"?: string;
}

function commandResult(status: ExecStatus): CommandResult {
  const text = (data: string | undefined): string =>
    Buffer.from(data ?? "", "base64").toString("utf8");
  const exitCode = status.exitcode ?? 128 + (status.signal ?? 0);
  return { exitCode, stdout: text(status["out-data"]), stderr: text(status["err-data"]) };
}
