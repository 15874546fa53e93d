import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";

import { errorCode, errorMessage, SetupError } from "../lib/errors.ts";

export interface ListenOptions {
  /** What the port is for, in an error message: "proxy metrics". */
  readonly purpose: string;
  /** The setting that moves it: `proxyMetricsPort`. */
  readonly setting: string;
  readonly address: string;
  /** 0 = no server. */
  readonly port: number;
  readonly onRequest: RequestListener;
}

/**
 * Serves plain HTTP until the signal aborts.
 *
 * @throws {SetupError} when the port cannot be had, with the remedy.
 */
export async function listenUntilAborted(
  options: ListenOptions,
  signal: AbortSignal,
): Promise<void> {
  const { port, address } = options;
  if (port === 0 || signal.aborted) return;
  const server = createServer(options.onRequest);
  try {
    server.listen({ host: address, port, signal });
    await once(server, "listening", { signal });
  } catch (error) {
    server.close();
    if (signal.aborted) return;
    throw explain(error, options);
  }
  const closed = once(server, "close");
  const cut = (): void => {
    server.closeAllConnections();
  };
  signal.addEventListener("abort", cut, { once: true });
  try {
    await closed;
  } finally {
    signal.removeEventListener("abort", cut);
  }
}

function explain(error: unknown, { purpose, setting, address, port }: ListenOptions): SetupError {
  const where = `${purpose} port ${address}:${port}`;
  if (errorCode(error) === "EADDRINUSE") {
    return new SetupError(
      `${where} is in use by another program: stop it (\`ss -ltnp 'sport = :${port}'\` names it) or choose another ${setting}`,
      { cause: error },
    );
  }
  return new SetupError(
    `${where} cannot be opened (${errorMessage(error)}): choose another bindAddress or ${setting}`,
    { cause: error },
  );
}
