import type { Fields, Level } from "../../lib/log.ts";

/** syslog(3)'s numbers, which are the journal's. */
export const priorities: Readonly<Record<Level, number>> = { error: 3, warn: 4, info: 6, debug: 7 };

/** What the journal takes in one datagram; there are other ways for more, and no line of ours needs them. */
export const maxEntryBytes = 128 * 1024;

/** `podUID` becomes `REMORA_POD_UID`: the journal has capitals, digits and underscores, and short names of its own. */
function journalName(name: string): string {
  const words = name
    .replaceAll(/([a-z0-9])([A-Z])/g, "$1_$2")
    .replaceAll(/[^A-Za-z0-9]+/g, "_")
    .toUpperCase();
  return `REMORA_${words}`.slice(0, 64);
}

function field(name: string, value: string): Buffer {
  if (!value.includes("\n")) return Buffer.from(`${name}=${value}\n`);
  // What has several lines comes with its length, or each line would be a field of its own.
  const bytes = Buffer.from(value);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.length));
  return Buffer.concat([Buffer.from(`${name}\n`), length, bytes, Buffer.from("\n")]);
}

/** One entry in the journal's own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL). */
export function journalEntry(level: Level, message: string, fields: Fields): Buffer {
  const named = Object.entries(fields).flatMap(([name, value]) =>
    value === undefined ? [] : [field(journalName(name), String(value))],
  );
  return Buffer.concat([
    field("MESSAGE", message),
    field("PRIORITY", String(priorities[level])),
    field("SYSLOG_IDENTIFIER", "remora"),
    ...named,
  ]);
}
