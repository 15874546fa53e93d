import { once } from "node:events";
import type { FileHandle } from "node:fs/promises";
import type { OutgoingHttpHeaders } from "node:http";
import type { Writable } from "node:stream";
import { constants, createGzip } from "node:zlib";

import type { AgentConfig } from "../../config/types.ts";
import { deadline } from "../../lib/clock.ts";
import { errorCode, isAbort } from "../../lib/errors.ts";
import { execResult, spawnStreaming } from "../../lib/exec.ts";
import {
  aggregateText,
  hasOptions,
  journalArguments,
  type NodeLogQuery,
  parseNodeLogQuery,
  validateNodeLogQuery,
} from "../logs/node-log-query.ts";
import { HttpRefusal } from "./http-refusal.ts";
import {
  contentType,
  directoryPage,
  openNodeLog,
  parseByteRange,
  slashRedirect,
} from "./node-log-files.ts";
import type { Exchange } from "./route.ts";

export interface NodeLogsDeps {
  readonly config: Pick<AgentConfig, "enableSystemLogHandler" | "enableSystemLogQuery">;
  /** For tests; default /var/log. */
  readonly nodeLogDir?: string;
  /** For tests; default the host's. */
  readonly journalctl?: string;
}

const defaultLogDir = "/var/log";
/** As the kubelet: an hour of a busy journal is more than anybody reads. */
const journalMs = 30_000;
const chunkBytes = 128 * 1024;

/**
 * GET /logs/{path*}: listings and files below /var/log, and, with `enableSystemLogQuery`, the journal of services
 * (`?query=`, KEP-2258).
 *
 * @throws {HttpRefusal} 400 and 406 for queries, 404 and 403 for paths, 405 when switched off.
 */
export async function serveNodeLogs(
  deps: NodeLogsDeps,
  exchange: Exchange,
  signal: AbortSignal,
): Promise<void> {
  const { enableSystemLogHandler = true, enableSystemLogQuery = false } = deps.config;
  if (!enableSystemLogHandler) throw new HttpRefusal(405, "logs endpoint is disabled.\n");
  const path = exchange.params["path"] ?? "";
  const query = enableSystemLogQuery ? checkedQuery(exchange.url.searchParams, path) : undefined;
  const [file] = query?.files ?? [];
  if (query === undefined) await servePath(deps, exchange, path, signal);
  else if (file === undefined) await serveJournal(deps, exchange, query, signal);
  else await serveQueriedFile(deps, exchange, file, signal);
}

/** Undefined when the request is for the path. @throws {HttpRefusal} */
function checkedQuery(parameters: URLSearchParams, path: string): NodeLogQuery | undefined {
  const result = parseNodeLogQuery(parameters);
  if (result.kind === "none") return undefined;
  if (result.kind === "undecodable") throw new HttpRefusal(400, `${result.message}\n`);
  if (path !== "") throw new HttpRefusal(406, "path not allowed in query mode\n");
  const errors = validateNodeLogQuery(result.query);
  if (errors.length > 0) throw new HttpRefusal(406, `${aggregateText(errors)}\n`);
  return result.query;
}

async function servePath(
  { nodeLogDir = defaultLogDir }: NodeLogsDeps,
  exchange: Exchange,
  path: string,
  signal: AbortSignal,
): Promise<void> {
  const { request, response, url } = exchange;
  const entry = await openNodeLog(nodeLogDir, path);
  try {
    const redirect = slashRedirect(url.pathname, entry.kind);
    if (redirect !== undefined) {
      response.writeHead(301, { Location: `${redirect}${url.search}` }).end();
      return;
    }
    const modified = entry.stats.mtime.toUTCString();
    // Not older than what the client has: seconds are all that the header can tell.
    const known = Date.parse(request.headers["if-modified-since"] ?? "");
    if (Math.floor(entry.stats.mtimeMs / 1000) * 1000 <= known) {
      response.writeHead(304, { "Last-Modified": modified }).end();
      return;
    }
    if (entry.kind === "file") {
      const { size } = entry.stats;
      await sendFile(exchange, { handle: entry.handle, size, modified, name: path }, signal);
      return;
    }
    const page = await directoryPage(entry.path);
    response.writeHead(200, {
      "Content-Type": "text/html; charset=utf-8",
      "Last-Modified": modified,
    });
    response.end(page);
  } finally {
    if (entry.kind === "file") await entry.handle.close();
  }
}

interface SentFile {
  readonly handle: FileHandle;
  /** Bytes; what is written from now on is not sent. */
  readonly size: number;
  readonly modified: string;
  readonly name: string;
}

async function sendFile(
  { request, response }: Exchange,
  { handle, size, modified, name }: SentFile,
  signal: AbortSignal,
): Promise<void> {
  const range = parseByteRange(request.headers.range, size);
  if (range.kind === "unsatisfiable") {
    throw new HttpRefusal(416, "invalid range: failed to overlap\n", {
      headers: { "Content-Range": `bytes */${size}` },
    });
  }
  const { start, end } = range.kind === "part" ? range : { start: 0, end: size };
  const head = Buffer.alloc(512);
  const { bytesRead } = await handle.read(head, 0, head.length, 0);
  const headers: OutgoingHttpHeaders = {
    "Accept-Ranges": "bytes",
    "Content-Length": end - start,
    "Content-Type": contentType(name, head.subarray(0, bytesRead)),
    "Last-Modified": modified,
    // A log is text to its reader, whatever is in it.
    "X-Content-Type-Options": "nosniff",
  };
  if (range.kind === "part") headers["Content-Range"] = `bytes ${start}-${end - 1}/${size}`;
  response.writeHead(range.kind === "part" ? 206 : 200, headers);
  if (request.method !== "HEAD") await copy(handle, { start, end }, response, signal);
  // Cut while it was sent: only a connection that breaks says that something is missing.
  response.end();
}

/** Sends bytes as fast as their reader takes them. */
async function copy(
  handle: FileHandle,
  { start, end }: { readonly start: number; readonly end: number },
  target: Writable,
  signal: AbortSignal,
): Promise<void> {
  for (let at = start; at < end;) {
    const buffer = Buffer.allocUnsafe(Math.min(chunkBytes, end - at));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, at);
    if (bytesRead === 0) throw new Error("the log file was truncated while it was sent");
    at += bytesRead;
    await send(target, buffer.subarray(0, bytesRead), signal);
  }
}

async function send(
  target: Writable,
  bytes: Uint8Array | string,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  if (!target.write(bytes)) await once(target, "drain", { signal });
}

/** `?query=/name`: one file, without the redirects of paths. */
async function serveQueriedFile(
  { nodeLogDir = defaultLogDir }: NodeLogsDeps,
  exchange: Exchange,
  file: string,
  signal: AbortSignal,
): Promise<void> {
  const entry = await openNodeLog(nodeLogDir, file.replaceAll("\\", "/")).catch(
    (error: unknown) => {
      if (!(error instanceof HttpRefusal) || error.status !== 404) throw error;
      const value = JSON.stringify([file]);
      throw new HttpRefusal(
        406,
        `query: Invalid value: ${value}: stat ${file}: no such file or directory\n`,
      );
    },
  );
  if (entry.kind === "directory") {
    exchange.response.writeHead(200, { "Content-Type": "text/html; charset=utf-8" });
    exchange.response.end(await directoryPage(entry.path));
    return;
  }
  const { handle, stats } = entry;
  try {
    const modified = stats.mtime.toUTCString();
    await sendFile(exchange, { handle, size: stats.size, modified, name: file }, signal);
  } finally {
    await handle.close();
  }
}

/** The journal of what logs there, then the files of what does not. Trouble is told in the text, as the kubelet does. */
async function serveJournal(
  deps: NodeLogsDeps,
  { request, response }: Exchange,
  query: NodeLogQuery,
  signal: AbortSignal,
): Promise<void> {
  const gzip = request.headers["accept-encoding"] === "gzip";
  response.writeHead(200, {
    "Content-Type": "text/plain;charset=UTF-8",
    ...(gzip ? { "Content-Encoding": "gzip" } : {}),
  });
  const target = gzip ? createGzip({ level: constants.Z_BEST_SPEED }) : response;
  if (target !== response) target.pipe(response);
  const limited = deadline(signal, journalMs);
  try {
    await writeServices(deps, query, target, limited);
  } catch (error) {
    // The deadline ends it where it is; a client that has left does not care.
    if (!isAbort(error)) throw error;
  }
  target.end();
}

async function writeServices(
  deps: NodeLogsDeps,
  { services, options }: NodeLogQuery,
  target: Writable,
  signal: AbortSignal,
): Promise<void> {
  const { journalctl = "journalctl", nodeLogDir = defaultLogDir } = deps;
  const units = await journalUnits(journalctl, signal);
  const inJournal = services.filter((service) => units.includes(`${service}.service`));
  const inFiles = services.filter((service) => !inJournal.includes(service));
  if (inJournal.length > 0) {
    const ended = await runJournal(
      journalctl,
      journalArguments(inJournal, options),
      target,
      signal,
    );
    if (!ended && (options.boot ?? 0) === 0) {
      await send(target, "\nerror: journal output not available\n", signal);
    }
  }
  if (inFiles.length > 0 && hasOptions(options)) {
    const names = inFiles.join(" ");
    await send(
      target,
      `\noptions present and query resolved to log files for [${names}]\ntry without specifying options\n`,
      signal,
    );
    return;
  }
  for (const service of inFiles) await writeServiceFile(nodeLogDir, service, target, signal);
}

/** What the journal knows of; empty where there is none. */
async function journalUnits(journalctl: string, signal: AbortSignal): Promise<string> {
  try {
    const result = await execResult([journalctl, "--field", "_SYSTEMD_UNIT"], { signal });
    return result.exitCode === 0 ? result.stdout : "";
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "EACCES") return "";
    throw error;
  }
}

/** False when it could not be started. */
async function runJournal(
  journalctl: string,
  argv: readonly string[],
  target: Writable,
  signal: AbortSignal,
): Promise<boolean> {
  const stop = new AbortController();
  const child = spawnStreaming([journalctl, ...argv], {
    signal: AbortSignal.any([signal, stop.signal]),
  });
  const { promise: closed, resolve } = Promise.withResolvers<void>();
  child.once("close", () => {
    resolve();
  });
  child.stdin.end();
  // What it says about a pattern or a boot that it does not know is the answer to who asked.
  const relay = async (stream: AsyncIterable<Buffer>): Promise<void> => {
    for await (const chunk of stream) await send(target, chunk, signal);
  };
  try {
    await Promise.all([relay(child.stdout), relay(child.stderr)]);
  } finally {
    stop.abort();
    await closed;
  }
  return child.pid !== undefined;
}

/** The first that is there of /var/log/NAME, NAME.log and NAME/NAME.log. */
async function writeServiceFile(
  directory: string,
  service: string,
  target: Writable,
  signal: AbortSignal,
): Promise<void> {
  for (const name of [service, `${service}.log`, `${service}/${service}.log`]) {
    const entry = await openNodeLog(directory, name).catch((error: unknown) => {
      if (error instanceof HttpRefusal) return error;
      throw error;
    });
    if (entry instanceof HttpRefusal) {
      if (entry.status === 404) continue;
      await send(target, `\nerror getting log for ${service}: ${entry.message.trim()}\n`, signal);
      return;
    }
    if (entry.kind === "directory") continue;
    try {
      await copy(entry.handle, { start: 0, end: entry.stats.size }, target, signal);
    } finally {
      await entry.handle.close();
    }
    return;
  }
  await send(target, `\nlog not found for ${service}\n`, signal);
}
