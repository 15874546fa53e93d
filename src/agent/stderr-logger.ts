import { jsonLogger, type Level, type Logger, textLogger } from "../lib/log.ts";

export type LogFormat = "text" | "json";

/** The process's logger: standard error, which a terminal shows and journald keeps. */
export function stderrLogger(options: {
  readonly logLevel: Level;
  readonly logFormat: LogFormat;
}): Logger {
  const create = options.logFormat === "json" ? jsonLogger : textLogger;
  return create({
    write: (line) => process.stderr.write(line),
    now: () => Date.now(),
    level: options.logLevel,
  });
}
