/** One line of /proc/PID/mountinfo (proc_pid_mountinfo(5)). */
export interface MountEntry {
  /** Unique while mounted; what /proc/PID/fdinfo/N calls `mnt_id`. */
  readonly id: number;
  readonly parentID: number;
  /** What of the file system is shown: `/`, or the source of a bind. */
  readonly root: string;
  /** The directory that a bind shows was removed meanwhile. */
  readonly deleted: boolean;
  readonly path: string;
  /** Of this mount alone: `rw`, `nosuid`, ... */
  readonly options: readonly string[];
  /** `shared:N`, `master:N`, `propagate_from:N`, `unbindable`. */
  readonly propagation: readonly string[];
  /** File system, with its subtype: `ext4`, `nfs4`, `fuse.sshfs`. */
  readonly type: string;
  readonly source: string;
  /** Of the file system, for all its mounts. */
  readonly superOptions: readonly string[];
}

/** The kernel writes space, tab, newline, backslash and `#` as octal. */
function unescape(field: string): string {
  if (!field.includes("\\")) return field;
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

const deletedMark = "//deleted";

/** Undefined for a line that is none, such as the empty one at the end. */
export function parseMountLine(line: string): MountEntry | undefined {
  const fields = line.split(" ");
  const dash = fields.indexOf("-", 6);
  const [id = "", parentID = "", , rawRoot, path, options] = fields;
  if (dash === -1 || rawRoot === undefined || path === undefined || options === undefined) {
    return undefined;
  }
  const root = unescape(rawRoot);
  const deleted = root.endsWith(deletedMark);
  return {
    id: Number(id),
    parentID: Number(parentID),
    root: deleted ? root.slice(0, -deletedMark.length) : root,
    deleted,
    path: unescape(path),
    options: options.split(","),
    propagation: fields.slice(6, dash),
    type: fields[dash + 1] ?? "",
    source: unescape(fields[dash + 2] ?? ""),
    superOptions: (fields[dash + 3] ?? "").split(","),
  };
}

/** Text of the fifth field, without taking the rest of the line apart: tables have a line for each container. */
function rawPath(line: string): string | undefined {
  let start = 0;
  for (let field = 0; field < 4; field += 1) {
    start = line.indexOf(" ", start) + 1;
    if (start === 0) return undefined;
  }
  const end = line.indexOf(" ", start);
  return end === -1 ? undefined : line.slice(start, end);
}

function isWithin(path: string, directory: string): boolean {
  return path === directory || directory === "/" || path.startsWith(`${directory}/`);
}

function depth(path: string): number {
  return path.split("/").length;
}

/** What was mounted where at one instant. */
export class MountTable {
  readonly #lines: readonly string[];

  /** @param mountinfo Text of /proc/self/mountinfo. */
  constructor(mountinfo: string) {
    this.#lines = mountinfo.split("\n");
  }

  /** What lies on top at exactly this path; undefined when it is no mount point. */
  at(path: string): MountEntry | undefined {
    // A later line lies on top of an earlier one.
    const line = this.#lines.findLast((each) => unescape(rawPath(each) ?? "") === path);
    return line === undefined ? undefined : parseMountLine(line);
  }

  /** What is mounted at or below `directory`: deepest first, and topmost where several share a path. */
  below(directory: string): readonly MountEntry[] {
    const found = this.#lines.flatMap((line) => {
      const path = rawPath(line);
      if (path === undefined || !isWithin(unescape(path), directory)) return [];
      return parseMountLine(line) ?? [];
    });
    return found.toReversed().toSorted((a, b) => depth(b.path) - depth(a.path));
  }

  /** The mount that `path` lies in, which need not exist. */
  containing(path: string): MountEntry | undefined {
    let best: string | undefined;
    let length = -1;
    for (const line of this.#lines) {
      const at = unescape(rawPath(line) ?? "");
      if (at.length < length || at === "" || !isWithin(path, at)) continue;
      best = line;
      length = at.length;
    }
    return best === undefined ? undefined : parseMountLine(best);
  }
}
