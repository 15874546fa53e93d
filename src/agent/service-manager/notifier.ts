import { writeSync } from "node:fs";

import { errorCode, errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { ServiceEnvironment } from "./environment.ts";

/** Tells the service manager lines of sd_notify(3), such as `READY=1`. Never throws, never waits. */
export type Notify = (lines: readonly string[]) => void;

export interface NotifierOptions {
  readonly environment: Pick<ServiceEnvironment, "notifySocket" | "notifyFd">;
  /** Runs systemd-notify with these arguments; for when there is no socket to write to. */
  readonly runTool: (args: readonly string[]) => Promise<void>;
  readonly pid: number;
  readonly logger: Logger;
  /** Default: write(2). */
  readonly write?: (fd: number, text: string) => void;
}

/** A line ends where the next one begins. */
function oneLine(text: string): string {
  return text.replaceAll(/\s*\n\s*/g, " ");
}

/**
 * The way to the service manager. A write to a connected datagram socket comes from this very process, which is all that
 * `NotifyAccess=main` believes, and takes 6 µs; systemd-notify, which is there for machines without perl, takes 10 ms in
 * a process of its own and says that it speaks for us.
 */
export function createNotifier(options: NotifierOptions): Notify {
  const { environment, logger, pid, runTool } = options;
  const { notifySocket } = environment;
  if (notifySocket === undefined) return () => undefined;
  const write = options.write ?? ((fd, text) => void writeSync(fd, text));
  let fd = environment.notifyFd;
  let complained = false;
  let last = Promise.resolve();
  const byTool = (lines: readonly string[]): void => {
    // One after the other: the manager believes the last.
    last = last
      .then(() => runTool([`--pid=${pid}`, ...lines]))
      .catch((error: unknown) => {
        if (complained) return;
        complained = true;
        logger.log("warn", "the service manager cannot be told anything", {
          error: errorMessage(error),
        });
      });
  };
  return (lines) => {
    const told = lines.map(oneLine);
    if (fd === undefined) {
      byTool(told);
      return;
    }
    try {
      write(fd, told.join("\n"));
    } catch (error) {
      // A full queue empties itself; anything else stays as it is.
      if (errorCode(error) !== "EAGAIN") fd = undefined;
      byTool(told);
    }
  };
}
