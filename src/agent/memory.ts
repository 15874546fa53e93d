import { readFile } from "node:fs/promises";

/** Memory of one process in bytes, from /proc/PID/smaps_rollup. */
export interface ProcessMemory {
  /** Pages in memory, those shared with other processes included. */
  readonly rssBytes: number;
  /** What the process alone adds: heap, stacks, private pages. */
  readonly anonymousBytes: number;
}

/** Reads the memory of `pid`. Workers are threads, so they are part of it. */
export async function processMemory(pid: number | "self"): Promise<ProcessMemory> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, "utf8");
  const kilobytes = (field: string): number =>
    Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0);
  return { rssBytes: kilobytes("Rss") * 1024, anonymousBytes: kilobytes("Anonymous") * 1024 };
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 1024 / 1024)} MiB`;
}

/** `131 MiB (62 MiB of its own)` */
export function describeMemory(memory: ProcessMemory): string {
  return `${mebibytes(memory.rssBytes)} (${mebibytes(memory.anonymousBytes)} of its own)`;
}
