import { constants, type Stats } from "node:fs";
import { type FileHandle, open, readdir, readlink, realpath, stat } from "node:fs/promises";
import { basename, join, normalize } from "node:path";

import { errorCode } from "../../lib/errors.ts";
import { HttpRefusal } from "./http-refusal.ts";

/** Something below the log directory. */
export type NodeLogEntry =
  | { readonly kind: "file"; readonly handle: FileHandle; readonly stats: Stats }
  | { readonly kind: "directory"; readonly path: string; readonly stats: Stats };

/** Where Docker keeps the files that the links in /var/log/pods point at, rotated ones included. */
const dockerLogFile = /\/containers\/([0-9a-f]{64})\/\1-json\.log(\.\d+(\.gz)?)?$/;

function isBelow(path: string, directory: string): boolean {
  return path === directory || path.startsWith(`${directory}/`);
}

/**
 * Opens what `path` names below `directory`. A link may lead to another place in the directory and to a container's log,
 * nowhere else: who may write below /var/log, as a pod with a hostPath there can, must not choose what root reads.
 *
 * @throws {HttpRefusal} 404, 403 or 500 with the texts of Go's file server.
 */
export async function openNodeLog(directory: string, path: string): Promise<NodeLogEntry> {
  try {
    return await openEntry(directory, path);
  } catch (error) {
    throw refusal(error);
  }
}

async function openEntry(directory: string, path: string): Promise<NodeLogEntry> {
  const root = await realpath(directory);
  // A leading slash makes dots at the beginning lead nowhere.
  const real = await realpath(join(root, normalize(`/${path}`)));
  const allowed = isBelow(real, root) || dockerLogFile.test(real);
  if (!allowed) throw notFound();
  const stats = await stat(real);
  if (stats.isDirectory()) return { kind: "directory", path: real, stats };
  // A pipe would be waited for, a device might do something.
  if (!stats.isFile()) throw notFound();
  const handle = await open(real, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    // Between looking and opening a directory on the way may have become a link.
    const opened = await readlink(`/proc/self/fd/${handle.fd}`);
    const now = await handle.stat();
    if (opened !== real || !now.isFile()) throw notFound();
    return { kind: "file", handle, stats: now };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

function notFound(): HttpRefusal {
  return new HttpRefusal(404, "404 page not found\n");
}

function refusal(error: unknown): HttpRefusal {
  if (error instanceof HttpRefusal) return error;
  switch (errorCode(error) ?? "") {
    case "ENOENT":
    case "ENOTDIR":
    case "ELOOP":
    case "ENAMETOOLONG":
    case "ERR_INVALID_ARG_VALUE":
      return notFound();
    case "EACCES":
    case "EPERM":
      return new HttpRefusal(403, "403 Forbidden\n");
    default:
      return new HttpRefusal(500, "500 Internal Server Error\n", { cause: error });
  }
}

const htmlEscapes: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&#34;",
  "'": "&#39;",
};

function escapeHTML(text: string): string {
  return text.replaceAll(/[&<>"']/g, (letter) => htmlEscapes[letter] ?? letter);
}

/** A relative reference to a name, also to one that would end a path or begin a scheme. */
function reference(name: string): string {
  const slash = name.endsWith("/") ? "/" : "";
  return `${encodeURIComponent(name.replace(/\/$/, "")).replaceAll("'", "%27")}${slash}`;
}

/** The page that lists a directory, as Go's file server writes it. */
export async function directoryPage(path: string): Promise<string> {
  const entries = await readdir(path, { withFileTypes: true }).catch((error: unknown) => {
    throw refusal(error);
  });
  const lines = entries
    .map((entry) => `${entry.name}${entry.isDirectory() ? "/" : ""}`)
    .toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    .map((name) => `<a href="${reference(name)}">${escapeHTML(name)}</a>\n`);
  const head = '<!doctype html>\n<meta name="viewport" content="width=device-width">\n<pre>\n';
  return `${head}${lines.join("")}</pre>\n`;
}

/** The part of `bytes=...` that is asked for; `whole` when there is no such wish or one we do not know. */
export type ByteRange =
  | { readonly kind: "whole" }
  | { readonly kind: "part"; readonly start: number; readonly end: number }
  | { readonly kind: "unsatisfiable" };

/** RFC 9110, section 14: one range; several are answered by the whole, which every client must accept. */
export function parseByteRange(header: string | undefined, size: number): ByteRange {
  const match = /^bytes=\s*(\d{0,15})-(\d{0,15})\s*$/.exec(header ?? "");
  if (match === null) return { kind: "whole" };
  const [, first = "", last = ""] = match;
  if (first === "" && last === "") return { kind: "whole" };
  const start = first === "" ? Math.max(0, size - Number(last)) : Number(first);
  const end = first === "" || last === "" ? size : Math.min(Number(last) + 1, size);
  if (start >= size || (first === "" && Number(last) === 0)) return { kind: "unsatisfiable" };
  return end <= start ? { kind: "whole" } : { kind: "part", start, end };
}

/** Never HTML: what somebody wrote into a log must not run in a browser. */
export function contentType(name: string, head: Buffer): string {
  if (/\.(gz|tgz)$/.test(name)) return "application/gzip";
  return head.includes(0) ? "application/octet-stream" : "text/plain; charset=utf-8";
}

/** The name to go to when the path's last slash says directory and it is a file, or the reverse. */
export function slashRedirect(pathname: string, kind: NodeLogEntry["kind"]): string | undefined {
  const slash = pathname.endsWith("/");
  if (kind === "directory" && !slash) return `${basename(pathname)}/`;
  return kind === "file" && slash ? `../${basename(pathname)}` : undefined;
}
