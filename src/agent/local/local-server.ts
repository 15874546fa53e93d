import { once } from "node:events";
import { chmod, chown, lstat, unlink } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";

import { notNeeded, type Clock } from "../../lib/clock.ts";
import { errorCode, errorMessage, isAbort, SetupError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { SnapshotSource } from "./snapshot-source.ts";
import { socketPath } from "./socket-path.ts";
import type { NodeSnapshot } from "./types.ts";

export interface LocalServerOptions {
  /** Path of the socket. */
  readonly path: string;
  /** Id of the group that may use it besides root; undefined for root alone. */
  readonly group: number | undefined;
  readonly source: Pick<SnapshotSource, "forget" | "take">;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** What callers may cost: they are people at terminals, and whatever else runs in their group. Milliseconds. */
const bounds = {
  maxHeaderSize: 8 * 1024,
  headersTimeout: 5000,
  requestTimeout: 10_000,
  connectionsCheckingInterval: 2500,
  keepAliveTimeout: 5000,
};
const maxConnections = 64;
const maxFollowers = 16;
/** Answers under way to one caller that does not wait for them. */
const maxRequestsPerSocket = 16;
/** Between two answers, so that callers take a small part of the agent's time however often they ask. */
const paceMs = 20;
/** How long a caller may leave an answer unread. */
const unreadMs = 30_000;
const followMs = 1000;
const slowestMs = 10_000;
/** Snapshots may take this part of the time. */
const shareOfSnapshots = 1 / 20;

/** Someone who is told every snapshot. */
interface Follower {
  readonly response: ServerResponse;
  /** The last one has not been read; the next is left out. */
  behind: boolean;
}

/**
 * Serves snapshots on a socket of this machine. Nothing is looked at and nothing runs while nobody asks; who does not read
 * loses snapshots, not the others their time.
 */
export class LocalServer {
  readonly #options: LocalServerOptions;
  readonly #followers = new Set<Follower>();
  #feeding: Promise<void> | undefined;
  #idle = new AbortController();
  /** When the next answer may be made, monotonic milliseconds. */
  #next = 0;
  readonly #lines = new WeakMap<NodeSnapshot, string>();

  constructor(options: LocalServerOptions) {
    this.#options = options;
  }

  /**
   * Serves until `signal` aborts.
   *
   * @throws {SetupError} when something that is no socket has its place.
   */
  async run(signal: AbortSignal): Promise<void> {
    const { group, path } = this.#options;
    await removeStale(path);
    const server = createServer(bounds, (request, response) => {
      request.resume();
      void this.#answer(request, response, signal);
    });
    server.maxConnections = maxConnections;
    server.maxRequestsPerSocket = maxRequestsPerSocket;
    server.timeout = unreadMs;
    const place = await socketPath(path);
    try {
      server.listen(place.path);
      await once(server, "listening", { signal });
      // Such as EMFILE on accept: the connection is lost, the server is not.
      server.on("error", () => undefined);
      if (group !== undefined) await chown(path, 0, group);
      // Until here the owner alone could connect (umask).
      await chmod(path, 0o660);
      if (!signal.aborted) await once(signal, "abort");
    } finally {
      // Removes the socket.
      if (server.listening) await closed(server);
      await place.close();
      this.#idle.abort(notNeeded);
      await this.#feeding;
    }
  }

  async #answer(
    { method, url = "" }: IncomingMessage,
    response: ServerResponse,
    signal: AbortSignal,
  ): Promise<void> {
    const [path = ""] = url.split("?", 1);
    await this.#turn(signal).catch(() => undefined);
    if (path !== "/v1/snapshot" && path !== "/v1/snapshots") {
      answerError(response, 404, `there is no ${path}; ask for /v1/snapshot or /v1/snapshots`);
      return;
    }
    if (method !== "GET") {
      response.setHeader("Allow", "GET");
      answerError(response, 405, "only GET");
      return;
    }
    try {
      if (path === "/v1/snapshot") await this.#answerOne(response, signal);
      else await this.#follow(response, signal);
    } catch (error) {
      if (isAbort(error)) response.destroy();
      else answerError(response, 500, errorMessage(error));
    }
  }

  async #answerOne(response: ServerResponse, signal: AbortSignal): Promise<void> {
    const { snapshot } = await this.#options.source.take(signal);
    const body = this.#lineOf(snapshot);
    response.writeHead(200, {
      "Content-Type": "application/json",
      "Content-Length": Buffer.byteLength(body),
    });
    response.end(body);
  }

  async #follow(response: ServerResponse, signal: AbortSignal): Promise<void> {
    if (this.#followers.size >= maxFollowers) {
      answerError(response, 503, `${maxFollowers} others follow this node already`);
      return;
    }
    const follower: Follower = { response, behind: false };
    this.#followers.add(follower);
    response.on("drain", () => {
      follower.behind = false;
    });
    response.on("close", () => {
      this.#followers.delete(follower);
      if (this.#followers.size === 0) this.#idle.abort(notNeeded);
    });
    const { snapshot } = await this.#options.source.take(signal);
    if (response.destroyed) return;
    response.writeHead(200, { "Content-Type": "application/x-ndjson" });
    tell(follower, this.#lineOf(snapshot));
    this.#feeding ??= this.#feed(signal);
  }

  /** Tells all followers until there are none. */
  async #feed(signal: AbortSignal): Promise<void> {
    const { clock, logger, source } = this.#options;
    let waitMs = followMs;
    try {
      while (this.#followers.size > 0 && !signal.aborted) {
        this.#idle = new AbortController();
        const wait = AbortSignal.any([signal, this.#idle.signal]);
        await clock.sleep(waitMs, wait).catch(() => undefined);
        if (wait.aborted) continue;
        const { costMs, snapshot } = await source.take(signal);
        const text = this.#lineOf(snapshot);
        for (const follower of this.#followers) tell(follower, text);
        waitMs = Math.min(Math.max(followMs, costMs / shareOfSnapshots), slowestMs);
      }
    } catch (error) {
      for (const { response } of this.#followers) response.destroy();
      if (signal.aborted) return;
      logger.log("warn", "no snapshot could be made", { error: errorMessage(error) });
    } finally {
      this.#feeding = undefined;
      source.forget();
    }
  }

  /** Waits until it is the next one's turn. */
  async #turn(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const now = clock.monotonic();
    const at = Math.max(this.#next, now);
    this.#next = at + paceMs;
    if (at > now) await clock.sleep(at - now, signal);
  }

  #lineOf(snapshot: NodeSnapshot): string {
    const known = this.#lines.get(snapshot);
    if (known !== undefined) return known;
    const line = `${JSON.stringify(snapshot)}\n`;
    this.#lines.set(snapshot, line);
    return line;
  }
}

function tell(follower: Follower, text: string): void {
  const { response } = follower;
  // Before the head: its first snapshot is being made.
  if (follower.behind || !response.headersSent) return;
  follower.behind = !response.write(text);
}

function answerError(response: ServerResponse, status: number, error: string): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const body = `${JSON.stringify({ error })}\n`;
  response.writeHead(status, {
    "Content-Type": "application/json",
    "Content-Length": Buffer.byteLength(body),
  });
  response.end(body);
}

/** What a killed agent left. The directory is locked for us, so nobody listens there. */
async function removeStale(path: string): Promise<void> {
  try {
    const found = await lstat(path);
    if (!found.isSocket())
      throw new SetupError(`${path} is no socket; move it away, status is told there`);
    await unlink(path);
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
  }
}

async function closed(server: Server): Promise<void> {
  const over = once(server, "close");
  server.close();
  server.closeAllConnections();
  await over;
}
