import { spawnSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { eventually, Machine, type MachineProcess, root } from "../e2e/lib/machine.ts";
import { nodeFlags } from "./node-flags.ts";

/** Makes the bundle that is installed on machines. */
export function build(directory: string): void {
  const argv = [`${root}/scripts/build.ts`, "--outdir", directory];
  const { status } = spawnSync(process.execPath, argv, { cwd: root, stdio: "ignore" });
  if (status !== 0) throw new Error("the bundle could not be built");
}

/** `up` from the bundle, started as bin/remora starts it; resolves when the node is ready. */
export async function start(machine: Machine, directory: string): Promise<MachineProcess> {
  const argv = [process.execPath, ...nodeFlags, join(directory, "remora.cjs"), "up"];
  const remora = machine.spawn(argv);
  await eventually(async () => (/^Next: /m.test(remora.output()) ? true : undefined), {
    timeoutMs: 60_000,
    describe: () => remora.output(),
  });
  return remora;
}

/**
 * A machine of its own on which the bundle runs as `up`; gone when `work` ends.
 *
 * @param work Gets the process id of the agent, as the machine counts.
 */
export async function withAgent(
  name: string,
  work: (machine: Machine, pid: number) => Promise<void>,
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "remora-bench-"));
  try {
    build(directory);
    await using machine = await Machine.start(name);
    await machine.loadBusybox();
    const remora = await start(machine, directory);
    try {
      const { stdout } = await machine.exec(["pgrep", "-f", "remora.cjs up"]);
      await work(machine, Number(stdout.trim().split("\n")[0]));
    } catch (error) {
      process.stderr.write(remora.output());
      throw error;
    }
    await remora.signal("TERM");
    await remora.exited;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
