import type { JsonObject, TableColumn } from "../types.ts";
import { mapOf, metadataOf, nameOf, text } from "./access.ts";

const second = 1000;
const minute = 60 * second;
const hour = 60 * minute;

function pair(big: number, bigUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${big}${bigUnit}` : `${big}${bigUnit}${small}${smallUnit}`;
}

/** A span as kubectl prints it: two units at most, coarser as it grows (`3d4h`, `5m`, `2y11d`). */
export function humanDuration(ms: number): string {
  const seconds = Math.trunc(ms / second);
  if (seconds < -1) return "<invalid>";
  if (seconds < 0) return "0s";
  if (seconds < 120) return `${seconds}s`;
  const minutes = Math.trunc(ms / minute);
  if (minutes < 10) return pair(minutes, "m", seconds % 60, "s");
  if (minutes < 180) return `${minutes}m`;
  const hours = Math.trunc(ms / hour);
  if (hours < 8) return pair(hours, "h", minutes % 60, "m");
  if (hours < 48) return `${hours}h`;
  const days = Math.trunc(hours / 24);
  if (hours < 192) return pair(days, "d", hours % 24, "h");
  if (hours < 24 * 365 * 2) return `${days}d`;
  const years = Math.trunc(days / 365);
  return hours < 24 * 365 * 8 ? pair(years, "y", days % 365, "d") : `${years}y`;
}

/** Time since an RFC 3339 timestamp, `<unknown>` when there is none. */
export function since(timestamp: unknown, now: number): string {
  const then = Date.parse(text(timestamp));
  return Number.isNaN(then) ? "<unknown>" : humanDuration(now - then);
}

/** The Age cell. */
export function age(object: Readonly<JsonObject>, now: number): string {
  return since(metadataOf(object)["creationTimestamp"], now);
}

/** `a=1,b=2` in key order, or `<none>`. */
export function formatLabels(value: unknown): string {
  const pairs = Object.entries(mapOf(value))
    .toSorted(([left], [right]) => (left < right ? -1 : 1))
    .map(([key, member]) => `${key}=${member}`);
  return pairs.length === 0 ? "<none>" : pairs.join(",");
}

/** A text column; `wide` ones are shown with `-o wide` only. */
export function column(name: string, description: string, wide = false): TableColumn {
  return { name, type: "string", format: "", description, priority: wide ? 1 : 0 };
}

/** A whole-number column. */
export function numberColumn(name: string, description: string): TableColumn {
  return { ...column(name, description), type: "integer" };
}

/** The Name column, which clients find by its format. */
export const nameColumn: TableColumn = {
  name: "Name",
  type: "string",
  format: "name",
  description: "Name of the object, unique in its namespace.",
  priority: 0,
};

export const ageColumn: TableColumn = column("Age", "Time since the object was created.");

/** The columns of kinds whose Table shows the creation time itself. */
export const createdAtColumns: readonly TableColumn[] = [
  nameColumn,
  { ...column("Created At", "When the object was created."), type: "date" },
];

/** Cells for {@link createdAtColumns}. */
export function createdAtRow(object: Readonly<JsonObject>): readonly string[] {
  return [nameOf(object), text(metadataOf(object)["creationTimestamp"])];
}

/** The first `limit` entries, then how many more there are. */
export function abbreviated(items: readonly string[], limit: number): string {
  const shown = items.slice(0, limit).join(",");
  return items.length > limit ? `${shown} + ${items.length - limit} more...` : shown;
}
