import { readFile, rm } from "node:fs/promises";

import type { Clock } from "../../lib/clock.ts";
import { errorCode } from "../../lib/errors.ts";
import { readIfThere } from "../../lib/read-if-there.ts";

/** Written by the launcher when it had to start the engine itself. */
const dockerdPidFile = "/run/remora/dockerd.pid";

/** Pid of the engine that our launcher started and that still runs; undefined when there is none. */
export async function ownEngine(): Promise<number | undefined> {
  const text = await readIfThere(dockerdPidFile);
  const pid = Number(text?.trim());
  if (text === undefined || !Number.isInteger(pid) || pid < 2) return undefined;
  // The number may be another program's by now.
  const name = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "");
  return name.trim() === "dockerd" ? pid : undefined;
}

/** Stops the engine if our launcher started it and nobody else has containers in it. */
export async function stopOwnEngine(
  hasContainers: () => Promise<boolean>,
  { say, clock }: { readonly say: (line: string) => void; readonly clock: Clock },
  signal: AbortSignal,
): Promise<void> {
  const pid = await ownEngine();
  if (pid !== undefined) {
    if (await hasContainers()) {
      say(
        "dockerd was started by remora and still has containers of somebody else; it keeps running",
      );
      return;
    }
    say(`stopping the dockerd that remora started (pid ${pid})`);
    try {
      process.kill(pid, "SIGTERM");
      const started = clock.monotonic();
      while (clock.monotonic() - started < 30_000) {
        process.kill(pid, 0);
        await clock.sleep(100, signal);
      }
    } catch (error) {
      // ESRCH: it is gone.
      if (errorCode(error) !== "ESRCH") throw error;
    }
  }
  await rm("/run/remora", { recursive: true, force: true });
}
