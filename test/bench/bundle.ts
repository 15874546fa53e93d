import { spawnSync } from "node:child_process";
import { join } from "node:path";

import { eventually, type Machine, type MachineProcess, root } from "../e2e/lib/machine.ts";

/** Makes the bundle that is installed on machines. */
export function build(directory: string): void {
  const argv = [`${root}/scripts/build.ts`, "--outdir", directory];
  const { status } = spawnSync(process.execPath, argv, { cwd: root, stdio: "ignore" });
  if (status !== 0) throw new Error("the bundle could not be built");
}

/** `up` from the bundle, started as bin/remora starts it; resolves when the node is ready. */
export async function start(machine: Machine, directory: string): Promise<MachineProcess> {
  const argv = [process.execPath, "--max-semi-space-size=1", join(directory, "remora.cjs"), "up"];
  const remora = machine.spawn(argv);
  await eventually(async () => (/^Next: /m.test(remora.output()) ? true : undefined), {
    timeoutMs: 60_000,
    describe: () => remora.output(),
  });
  return remora;
}
