import { type LogFormat, LogFormatter } from "./log-format.ts";
import { LogSource, type LogSourceOptions } from "./log-source.ts";

/** `PodLogOptions`, and where the log is. */
export interface ReadLogsOptions extends LogFormat, Omit<LogSourceOptions, "sinceMs"> {}

/**
 * The log of one container as its clients see it (PodLogOptions), from a json-file log and its rotated siblings. Memory
 * is bounded by a few chunks. With `follow` it goes on across rotation and ends when the container has exited and all
 * is read; it ends early, without an error, when `signal` aborts.
 *
 * @yields Output in pieces of at most a megabyte, mostly an eighth of that.
 */
export async function* readLogs(
  options: ReadLogsOptions,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void> {
  const formatter = new LogFormatter(options);
  const sinceMs = options.since === undefined ? undefined : Date.parse(options.since);
  const source = new LogSource({ ...options, sinceMs });
  try {
    await source.open(signal);
    for await (const lines of source.lines(signal)) {
      const bytes = formatter.write(lines);
      if (bytes.length > 0) yield bytes;
      if (formatter.full || signal.aborted) return;
    }
  } finally {
    await source.close();
  }
}
