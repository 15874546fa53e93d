import { openJournal } from "../service-manager/journal.ts";
import { errorMessage, isAbort, isSystemError, RemoraError } from "../../lib/errors.ts";

const shutdown = new AbortController();

/** Aborts at the first SIGINT or SIGTERM; a second one ends the process at once. */
export function shutdownSignal(): AbortSignal {
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.on(name, () => {
      if (shutdown.signal.aborted) end(130);
      shutdown.abort(new DOMException(`received ${name}`, "AbortError"));
    });
  }
  return shutdown.signal;
}

/** Ends the process even if something still holds its event loop: all that has to be ended in order has been. */
export function end(code: number): never {
  // oxlint-disable-next-line unicorn/no-process-exit -- the entry point is the one place that may
  process.exit(code);
}

/** Errors thrown on purpose are sentences for people; anything else is a bug and shows where it is. */
export function fail(error: unknown): void {
  if (shutdown.signal.aborted && isAbort(error)) {
    // Told to stop while it started: nothing is half done, because every start finds out what is there.
    process.stderr.write("remora: stopped before it was ready\n");
    end(["down", "uninstall"].includes(process.argv[2] ?? "") ? 130 : 0);
  }
  const text =
    error instanceof RemoraError || isSystemError(error) || !(error instanceof Error)
      ? errorMessage(error)
      : (error.stack ?? error.message);
  // With a priority where the journal reads it (sd-daemon(3)), so that `journalctl -p err` tells why we are not there.
  const priority = openJournal(process.env) === undefined ? "" : "<3>";
  process.stderr.write(`remora: ${text}\n`.replaceAll(/^(?=.)/gm, priority));
  end(1);
}
