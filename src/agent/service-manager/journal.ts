import { fstatSync, writeSync } from "node:fs";

import type { Fields, Level, Logger, LoggerOptions } from "../../lib/log.ts";
import { journalEntry, maxEntryBytes, priorities } from "./journal-entry.ts";

/** The way to the journal. */
export interface Journal {
  /** @returns whether it took the entry. */
  send(entry: Buffer): boolean;
}

type Variables = Readonly<Record<string, string | undefined>>;

/**
 * The journal, when standard error leads there (JOURNAL_STREAM, systemd.exec(5)): who redirects that wants the lines
 * elsewhere. With a socket to it (systemd/as-service) entries have fields; without one each line has its priority.
 */
export function openJournal(variables: Variables): Journal | undefined {
  const { JOURNAL_STREAM: stream = "", REMORA_JOURNAL_FD: text = "" } = variables;
  if (stream === "" || stream !== streamOf(2)) return undefined;
  const fd = /^\d{1,9}$/.test(text) ? Number(text) : undefined;
  return {
    send(entry) {
      if (fd === undefined || entry.length > maxEntryBytes) return false;
      try {
        return writeSync(fd, entry) === entry.length;
      } catch {
        // Its queue is full, or it is gone: standard error keeps what is written to it.
        return false;
      }
    },
  };
}

function streamOf(fd: number): string | undefined {
  try {
    const { dev, ino } = fstatSync(fd, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}

/** The text of one event, without its level. */
export type WriteText = (level: Level, msg: string, fields: Fields) => string;

/** A logger whose lines the journal can filter: by priority, and by field where it takes entries. */
export function journalLogger(
  options: LoggerOptions & { readonly journal: Journal; readonly text: WriteText },
  base: Fields = {},
): Logger {
  const threshold = priorities[options.level];
  return {
    log(level, msg, fields) {
      if (priorities[level] > threshold) return;
      const all = { ...base, ...fields };
      const message = options.text(level, msg, all);
      if (options.journal.send(journalEntry(level, message, all))) return;
      options.write(`<${priorities[level]}>${message}\n`);
    },
    child: (fields) => journalLogger(options, { ...base, ...fields }),
  };
}
