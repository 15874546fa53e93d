import { execFileSync } from "node:child_process";

import { eventually, type Machine, type MachineProcess, root } from "./machine.ts";

/** Why end-to-end tests cannot run here; undefined when they can. */
export function cannotRun(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  for (const tool of ["kubectl", "dockerd", "nft", "ip", "unshare", "busybox"]) {
    try {
      execFileSync("sh", ["-c", `command -v ${tool}`], { stdio: "ignore" });
    } catch {
      return `needs ${tool} on this machine`;
    }
  }
  return undefined;
}

const program = `${root}/bin/remora`;

/** Waits until the process has said `what`; one that ends before is a failure at once. */
export async function hasSaid(process: MachineProcess, what: RegExp): Promise<MachineProcess> {
  let ended = false;
  void process.exited.then(() => (ended = true));
  const said = await eventually(
    async () => (what.test(process.output()) ? true : ended ? false : undefined),
    { timeoutMs: 60_000, describe: () => process.output() },
  );
  if (!said) throw new Error(`remora ended before it was ready:\n${process.output()}`);
  return process;
}

/** Starts `remora up` on the machine and waits until it says that the node is ready. */
export async function remoraUp(
  machine: Machine,
  env: Readonly<Record<string, string>> = {},
  args: readonly string[] = [],
): Promise<MachineProcess> {
  return hasSaid(startRemora(machine, env, args), /^Next: kubectl .*get nodes$/m);
}

/** Starts `remora up` without waiting: for tests in which it dies on the way. */
export function startRemora(
  machine: Machine,
  env: Readonly<Record<string, string>> = {},
  args: readonly string[] = [],
): MachineProcess {
  return machine.spawn([program, "up", ...args], env);
}

/** Makes a token on the control plane's machine; returns the arguments of `remora run` that it prints. */
export async function joinArguments(control: Machine): Promise<string[]> {
  const { stdout } = await control.exec([program, "token", "create"]);
  return stdout.trim().split(" ").slice(2);
}

/** Starts the node agent on a machine that `args` join to a cluster, without waiting. */
export function startAgent(machine: Machine, args: readonly string[]): MachineProcess {
  return machine.spawn([program, "run", ...args]);
}

/** Starts the node agent and waits until it says that its node is ready. */
export async function remoraJoin(
  machine: Machine,
  args: readonly string[],
): Promise<MachineProcess> {
  return hasSaid(startAgent(machine, args), /"msg":"node ready"/);
}

/** Runs `remora down` to its end and returns what it printed. */
export async function remoraDown(machine: Machine, args: readonly string[] = []): Promise<string> {
  const result = await machine.exec([program, "down", ...args]);
  return result.stdout + result.stderr;
}

/** Ids of our containers on the machine, pause containers included, by name. */
export async function ownContainers(machine: Machine): Promise<Map<string, string>> {
  const filters = encodeURIComponent(JSON.stringify({ label: ["remora.io/node"] }));
  const all = await machine.docker("GET", `/containers/json?all=1&filters=${filters}`);
  const entries = all as readonly { Id: string; Names: readonly string[]; State: string }[];
  return new Map(entries.map((entry) => [`${entry.Names[0] ?? ""} ${entry.State}`, entry.Id]));
}
