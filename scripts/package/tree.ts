import { createHash } from "node:crypto";
import { chmodSync, lutimesSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

/** A file of the product. */
export interface FileEntry {
  /** Relative to the root of a machine or of an archive, without a slash in front. */
  readonly path: string;
  readonly mode: number;
  readonly content: Buffer;
}

/** A symbolic link of the product. */
export interface LinkEntry {
  readonly path: string;
  readonly target: string;
}

/** What is installed: all that is in an archive, but for directories, which follow from it. */
export type Entry = FileEntry | LinkEntry;

/** A file, of a text or of bytes. */
export function file(path: string, content: Buffer | string, mode = 0o644): FileEntry {
  return { path, mode, content: typeof content === "string" ? Buffer.from(content) : content };
}

function byPath(a: { readonly path: string }, b: { readonly path: string }): number {
  if (a.path === b.path) return 0;
  return a.path < b.path ? -1 : 1;
}

/** All directories above the entries, each before what is in it. */
export function directoriesOf(entries: readonly Entry[]): readonly string[] {
  const out = new Set<string>();
  for (const { path } of entries) {
    for (let up = dirname(path); up !== "."; up = dirname(up)) out.add(up);
  }
  return [...out].toSorted();
}

/** Writes the entries below a directory, with the modes they have and one time for all of them. */
export function writeTree(base: string, entries: readonly Entry[], epochSeconds: number): void {
  const directories = [base, ...directoriesOf(entries).map((path) => join(base, path))];
  for (const path of directories) {
    mkdirSync(path, { recursive: true });
    // mkdir obeys the umask.
    chmodSync(path, 0o755);
  }
  for (const entry of entries.toSorted(byPath)) {
    const path = join(base, entry.path);
    if ("target" in entry) {
      symlinkSync(entry.target, path);
    } else {
      writeFileSync(path, entry.content);
      chmodSync(path, entry.mode);
    }
    lutimesSync(path, epochSeconds, epochSeconds);
  }
  for (const path of directories.toReversed()) lutimesSync(path, epochSeconds, epochSeconds);
}

/** `md5sums` of a Debian package: every file that is not for people to change. */
export function md5sums(entries: readonly Entry[]): string {
  return entries
    .filter((entry): entry is FileEntry => "content" in entry && !entry.path.startsWith("etc/"))
    .toSorted(byPath)
    .map(({ path, content }) => `${createHash("md5").update(content).digest("hex")}  ${path}\n`)
    .join("");
}

/** KiB that the entries take on a disk, as `Installed-Size` counts them: no directory and no file is less than one. */
export function installedKiB(entries: readonly Entry[]): number {
  const files = entries.map((entry) =>
    "content" in entry ? Math.max(1, Math.ceil(entry.content.length / 1024)) : 1,
  );
  return files.reduce((sum, each) => sum + each, 0) + directoriesOf(entries).length + 1;
}
