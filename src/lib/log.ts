export type Fields = Readonly<Record<string, string | number | boolean | undefined>>;
export type Level = "debug" | "info" | "warn" | "error";

export interface Logger {
  /** `msg` is constant text; what varies goes into `fields`. Never secrets, never environment values. */
  log(level: Level, msg: string, fields?: Fields): void;
  /** A logger that adds `fields` to every line. */
  child(fields: Fields): Logger;
}

const ranks: Readonly<Record<Level, number>> = { debug: 0, info: 1, warn: 2, error: 3 };

export interface JsonLoggerOptions {
  readonly write: (line: string) => void;
  readonly now: () => number;
  /** Lines below this level are dropped. */
  readonly level: Level;
}

/** One JSON object per line: what journald and every log shipper read without configuration. */
export function jsonLogger(options: JsonLoggerOptions, base: Fields = {}): Logger {
  const threshold = ranks[options.level];
  return {
    log(level, msg, fields) {
      if (ranks[level] < threshold) return;
      const ts = new Date(options.now()).toISOString();
      options.write(`${JSON.stringify({ ts, level, msg, ...base, ...fields })}\n`);
    },
    child: (fields) => jsonLogger(options, { ...base, ...fields }),
  };
}

/** A logger for tests and for code that must not write. */
export const silentLogger: Logger = { log: () => undefined, child: () => silentLogger };
