import { readFile } from "node:fs/promises";

import type { Clock } from "../../lib/clock.ts";
import { errorCode, SetupError } from "../../lib/errors.ts";
import { exec } from "../../lib/exec.ts";
import { lockHolder, machineLockHolder } from "../instance-lock.ts";

const stopDeadlineMs = 60_000;

/**
 * Makes sure that no agent runs on another directory: it would build everything up again behind our back.
 *
 * @throws {SetupError} naming the flag to give.
 */
export async function refuseOtherAgent(directories: readonly string[]): Promise<void> {
  const holder = await machineLockHolder();
  if (holder === undefined || directories.includes(holder.directory)) return;
  throw new SetupError(
    `remora (pid ${holder.pid}) runs on ${holder.directory}: give ${holder.flag} ${holder.directory}`,
  );
}

/**
 * The unit of ours that a process runs in, by the text of its `/proc/<pid>/cgroup`; undefined when nobody would start it
 * again.
 */
export function unitOf(cgroup: string): string | undefined {
  return /\/(remora[\w-]*\.service)$/m.exec(cgroup)?.[1];
}

async function stopProcess(pid: number, signal: AbortSignal): Promise<void> {
  const cgroup = await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => "");
  const unit = unitOf(cgroup);
  if (unit !== undefined) {
    // A signal alone would have systemd start it again.
    await exec(["systemctl", "stop", unit], { signal });
    return;
  }
  try {
    process.kill(pid, "SIGTERM");
  } catch (error) {
    if (errorCode(error) !== "ESRCH") throw error;
  }
}

/**
 * Asks a running agent to end, and waits until it has let go of its directory.
 *
 * @throws {SetupError} it does not end.
 */
export async function stopAgent(
  directory: string,
  { say, clock }: { readonly say: (line: string) => void; readonly clock: Clock },
  signal: AbortSignal,
): Promise<void> {
  const pid = await lockHolder(directory);
  if (pid === undefined) return;
  say(`stopping the remora that runs on ${directory} (pid ${pid})`);
  const started = clock.monotonic();
  await stopProcess(pid, signal);
  while ((await lockHolder(directory)) !== undefined) {
    if (clock.monotonic() - started > stopDeadlineMs) {
      throw new SetupError(
        `remora (pid ${pid}) did not end within a minute; end it by hand, then try again`,
      );
    }
    await clock.sleep(100, signal);
  }
}
