export type Fields = Readonly<Record<string, string | number | boolean | undefined>>;
export type Level = "debug" | "info" | "warn" | "error";

export interface Logger {
  /** `msg` is constant text; what varies goes into `fields`. Never secrets, never environment values. */
  log(level: Level, msg: string, fields?: Fields): void;
  /** A logger that adds `fields` to every line. */
  child(fields: Fields): Logger;
}

const ranks: Readonly<Record<Level, number>> = { debug: 0, info: 1, warn: 2, error: 3 };

export interface LoggerOptions {
  readonly write: (line: string) => void;
  readonly now: () => number;
  /** Lines below this level are dropped. */
  readonly level: Level;
}

/** One JSON object per line: what journald and every log shipper read without configuration. */
export function jsonLogger(options: LoggerOptions, base: Fields = {}): Logger {
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

function textField([name, value]: readonly [
  string,
  string | number | boolean | undefined,
]): string {
  const text = String(value);
  return `${name}=${/[\s"]/.test(text) ? JSON.stringify(text) : text}`;
}

/** One line of text per event, for people at a terminal: `warn  message  name=value ...`. */
export function textLogger(options: LoggerOptions, base: Fields = {}): Logger {
  const threshold = ranks[options.level];
  return {
    log(level, msg, fields) {
      if (ranks[level] < threshold) return;
      const named = Object.entries({ ...base, ...fields }).filter(
        ([, value]) => value !== undefined,
      );
      options.write(`${level.padEnd(5)} ${[msg, ...named.map(textField)].join("  ")}\n`);
    },
    child: (fields) => textLogger(options, { ...base, ...fields }),
  };
}

/** A logger for tests and for code that must not write. */
export const silentLogger: Logger = { log: () => undefined, child: () => silentLogger };
