import { once } from "node:events";
import { createServer, type RequestListener, type Server } from "node:http";
import { isIPv6 } from "node:net";

import type { Clock } from "../lib/clock.ts";
import { errorCode, errorMessage, SetupError } from "../lib/errors.ts";
import { listenOn } from "../lib/listen-on.ts";
import type { Logger } from "../lib/log.ts";

/** What callers of the proxy's ports may cost, who need not say who they are. Times are milliseconds, as node:http has them. */
export interface PortBounds {
  /** At a time; more are hung up on. */
  readonly maxConnections: number;
  readonly maxHeaderSize: number;
  readonly headersTimeout: number;
  readonly requestTimeout: number;
  readonly connectionsCheckingInterval: number;
  /** How long a connection is kept without a request. */
  readonly keepAliveTimeout: number;
  /** How long a caller may leave an answer unread. */
  readonly timeout: number;
}

/** Probes and scrapers ask briefly and read at once. */
export const portBounds: PortBounds = {
  maxConnections: 256,
  maxHeaderSize: 16 * 1024,
  headersTimeout: 5000,
  requestTimeout: 10_000,
  connectionsCheckingInterval: 2500,
  keepAliveTimeout: 15_000,
  timeout: 30_000,
};

/** A server of plain HTTP that nobody can use up by being slow. Bodies of requests are thrown away. */
export function boundedServer(
  onRequest: RequestListener,
  { maxConnections, timeout, ...bounds }: PortBounds = portBounds,
): Server {
  const server = createServer(bounds, (request, response) => {
    request.resume();
    onRequest(request, response);
  });
  server.maxConnections = maxConnections;
  server.timeout = timeout;
  return server;
}

export interface ListenOptions {
  /** What the port is for, in an error message: "proxy metrics". */
  readonly purpose: string;
  /** The setting that moves it: `proxyMetricsPort`. */
  readonly setting: string;
  /** A wildcard of either family is both, where the machine has both. */
  readonly address: string;
  /** 0 = no server. */
  readonly port: number;
  readonly onRequest: RequestListener;
  /** How to wait for a port that another program has; undefined = that is an error (bindAddressHardFail). */
  readonly retry: { readonly clock: Clock; readonly logger: Logger } | undefined;
}

/** As kube-proxy waits. */
const retryMs = 5000;

/**
 * Serves plain HTTP until the signal aborts.
 *
 * @throws {SetupError} when the port cannot be had and is not to be waited for, with the remedy.
 */
export async function listenUntilAborted(
  options: ListenOptions,
  signal: AbortSignal,
): Promise<void> {
  const { port, retry, purpose } = options;
  if (port === 0) return;
  for (let told = false; !signal.aborted; told = true) {
    const server = boundedServer(options.onRequest);
    try {
      await listening(server, options, signal);
      // Such as EMFILE on accept: the connection is lost, the server is not.
      server.on("error", () => undefined);
      if (!signal.aborted) await once(signal, "abort");
      await closed(server);
      return;
    } catch (error) {
      server.close();
      if (signal.aborted) return;
      const reason = explain(error, options);
      if (retry === undefined) throw reason;
      if (!told) {
        const fields = { purpose, error: errorMessage(reason) };
        retry.logger.log("error", "a port of the proxy's own cannot be opened; will retry", fields);
      }
      await retry.clock.sleep(retryMs, signal).catch(() => undefined);
    }
  }
}

async function listening(
  server: Server,
  { address, port }: ListenOptions,
  signal: AbortSignal,
): Promise<void> {
  server.listen(listenOn(address, port));
  await once(server, "listening", { signal });
}

/** Closes a server that listens, with all its connections. */
export async function closed(server: Server): Promise<void> {
  const over = once(server, "close");
  server.close();
  server.closeAllConnections();
  await over;
}

function explain(error: unknown, { purpose, setting, address, port }: ListenOptions): SetupError {
  const host = isIPv6(address) ? `[${address}]` : address;
  const where = `${purpose} port ${host}:${port}`;
  const cause = { cause: error };
  if (errorCode(error) === "EADDRINUSE") {
    return new SetupError(
      `${where} is in use by another program: stop it (\`ss -ltnp 'sport = :${port}'\` names it) or choose another ${setting}`,
      cause,
    );
  }
  return new SetupError(
    `${where} cannot be opened (${errorMessage(error)}): choose another bindAddress or ${setting}`,
    cause,
  );
}
