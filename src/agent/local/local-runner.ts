import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { kernelFiles } from "../../kubelet/stats/kernel-files.ts";
import type { Statistics } from "../../kubelet/stats/statistics.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { Runner } from "../supervise.ts";
import { LocalServer } from "./local-server.ts";
import { localSocket } from "./places.ts";
import { PullTeller } from "./pull-teller.ts";
import { SnapshotSource, type SnapshotSources } from "./snapshot-source.ts";
import { UsageMeter } from "./usage-meter.ts";

/** What the command knows and the agent does not. */
export interface LocalOptions extends Pick<SnapshotSources, "mode" | "stateDir" | "unscheduled"> {
  /** Takes lines for somebody who watches; default: nobody does. */
  readonly say?: (line: string) => void;
}

export interface LocalRunnerOptions extends Omit<SnapshotSources, "pid" | "rssBytes" | "usage"> {
  readonly rootDir: string;
  readonly statistics: Pick<Statistics, "summary">;
  readonly logger: Logger;
  readonly say?: LocalOptions["say"];
}

/** Whose members may ask an agent how it is. */
export const localGroup = "remora";

/** Its id on this machine, from the text of /etc/group. */
export function groupID(text: string, name = localGroup): number | undefined {
  const line = text.split("\n").find((each) => each.startsWith(`${name}:`));
  const id = line?.split(":")[2];
  return id !== undefined && /^\d+$/.test(id) ? Number(id) : undefined;
}

const lookMs = 1000;

/** Says how far images are until `signal` aborts. */
async function tellPulls(
  { clock, pods, say }: Pick<LocalRunnerOptions, "clock" | "pods" | "say">,
  signal: AbortSignal,
): Promise<void> {
  if (say === undefined) return;
  const teller = new PullTeller();
  while (!signal.aborted) {
    for (const line of teller.lines(pods.pulls?.() ?? [], clock.now())) say(line);
    await clock.sleep(lookMs, signal).catch(() => undefined);
  }
}

/** Tells people of this machine how the agent is. That it cannot must not keep pods from running. */
export function localRunner(options: LocalRunnerOptions): Runner {
  const { clock, logger, rootDir, statistics, stateDir } = options;
  return {
    name: "local socket",
    run: async (signal) => {
      const usage = new UsageMeter({ statistics, files: kernelFiles(), directory: rootDir, clock });
      const source = new SnapshotSource({
        ...options,
        pid: process.pid,
        rssBytes: () => process.memoryUsage.rss(),
        usage,
      });
      const path = join(stateDir, localSocket);
      const telling = tellPulls(options, signal);
      try {
        const group = groupID(await readFile("/etc/group", "utf8").catch(() => ""));
        await new LocalServer({ path, group, source, clock, logger }).run(signal);
      } catch (error) {
        if (signal.aborted) return;
        logger.log("warn", "remora status will not work: its socket cannot be opened", {
          path,
          error: errorMessage(error),
        });
        await new Promise<void>((resolve) => {
          if (signal.aborted) resolve();
          else signal.addEventListener("abort", () => resolve(), { once: true });
        });
      } finally {
        await telling;
      }
    },
  };
}
