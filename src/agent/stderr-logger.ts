import { type Fields, jsonLogger, type Level, type Logger, textLogger } from "../lib/log.ts";
import { journalLogger, openJournal, type WriteText } from "./service-manager/journal.ts";

export type LogFormat = "text" | "json";

/** What a logger would write of one event. */
function textBy(create: typeof jsonLogger, now: () => number): WriteText {
  return (level: Level, msg: string, fields: Fields) => {
    let text = "";
    const write = (line: string): void => void (text += line);
    create({ write, now, level: "debug" }).log(level, msg, fields);
    // The entry has its level as a priority.
    return text.trimEnd().replace(new RegExp(`^${level} +`), "");
  };
}

/** The process's logger: standard error, which a terminal shows, or the journal where that leads to it. */
export function stderrLogger(options: {
  readonly logLevel: Level;
  readonly logFormat: LogFormat;
}): Logger {
  const create = options.logFormat === "json" ? jsonLogger : textLogger;
  const to = {
    write: (line: string) => void process.stderr.write(line),
    now: () => Date.now(),
    level: options.logLevel,
  };
  const journal = openJournal(process.env);
  if (journal === undefined) return create(to);
  return journalLogger({ ...to, journal, text: textBy(create, to.now) });
}
