import { isRecord } from "../../lib/guard.ts";

/** One record of a json-file log: a line, or a part of one that was longer than the writer's 16 KiB buffer. */
export interface LogRecord {
  readonly stream: "stdout" | "stderr";
  /** Text as the container wrote it; ends in `\n` unless the line goes on in the next record of the same stream. */
  readonly text: string;
  /** {@link fixedTimestamp} of the moment the engine read it. */
  readonly time: string;
}

const timestamp = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/;

/**
 * RFC 3339 in UTC with exactly nine digits of fraction: what `kubectl logs --timestamps` prints. Such texts sort as the
 * moments they name. Undefined when `text` is not RFC 3339.
 */
export function fixedTimestamp(text: string): string | undefined {
  const match = timestamp.exec(text);
  if (match === null) return undefined;
  const [, seconds = "", fraction = "", zone = ""] = match;
  const nanos = fraction.padEnd(9, "0");
  const utc = new Date(`${seconds}${zone}`);
  return Number.isNaN(utc.getTime()) ? undefined : `${utc.toISOString().slice(0, 19)}.${nanos}Z`;
}

/** How every record begins. Inside a text its quotes are escaped, so there it cannot occur. */
export const recordStart = Buffer.from('{"log":"');

/**
 * Parses one line of a json-file log, without its newline. NUL bytes, which a host crash leaves where data had not
 * reached the disk, are skipped, and so is a torn record in front of a whole one (moby#40584). Undefined for anything
 * that is no record.
 */
export function parseLogLine(line: Buffer): LogRecord | undefined {
  const record = parseRecord(line);
  if (record !== undefined) return record;
  const last = line.lastIndexOf(recordStart);
  return last > 0 ? parseRecord(line.subarray(last)) : undefined;
}

function parseRecord(line: Buffer): LogRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line.toString("utf8"));
  } catch {
    return undefined;
  }
  if (!isRecord(value)) return undefined;
  const { log, stream, time } = value;
  if (typeof log !== "string" || typeof time !== "string") return undefined;
  if (stream !== "stdout" && stream !== "stderr") return undefined;
  const fixed = fixedTimestamp(time);
  return fixed === undefined ? undefined : { stream, text: log, time: fixed };
}

/** Whether the record ends a line of the container's output. */
export function endsLine(record: LogRecord): boolean {
  return record.text.endsWith("\n");
}
