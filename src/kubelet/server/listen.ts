import { once } from "node:events";
import type { Server } from "node:http";
import { Server as NetServer } from "node:net";

import { errorCode, errorMessage, SetupError } from "../../lib/errors.ts";
import { heldBacklog, listenOn } from "../../lib/listen-on.ts";

export interface ListenOptions {
  readonly address: string;
  readonly port: number;
  /** Name of the configuration field, for the message. */
  readonly option: string;
  /** A socket that is bound to that place already. */
  readonly fd?: number | undefined;
  /** Resolves when those who asked before the end have been answered; default: nobody is waited for. */
  readonly drained?: () => Promise<void>;
}

/**
 * Listens, and closes the server with all its connections when `signal` aborts: first to those who come, and to the
 * others when `drained` says so.
 *
 * @throws {SetupError} the address is in use or not ours.
 */
export async function listenUntilAborted(
  server: Server,
  { address, drained, fd, option, port }: ListenOptions,
  signal: AbortSignal,
): Promise<void> {
  if (signal.aborted) return;
  try {
    if (fd === undefined) server.listen(listenOn(address, port));
    else server.listen({ fd }, heldBacklog);
    await once(server, "listening", { signal });
  } catch (error) {
    server.close();
    if (signal.aborted) return;
    throw listenError(error, address, port, option);
  }
  // Such as EMFILE on accept: the connection is lost, the server is not.
  server.on("error", () => undefined);
  if (!signal.aborted) await once(signal, "abort");
  const closed = once(server, "close");
  // Who comes from now on waits in a socket that somebody else holds, and is refused without one.
  // HTTP's own close also ends those that have just connected, because they have asked for nothing yet.
  NetServer.prototype.close.call(server);
  await drained?.();
  server.close();
  server.closeAllConnections();
  await closed;
}

function listenError(error: unknown, address: string, port: number, option: string): SetupError {
  const where = `port ${port} on ${address}`;
  const cause = { cause: error };
  switch (errorCode(error) ?? "") {
    case "EADDRINUSE":
      return new SetupError(
        `${where} is in use: stop the other kubelet or agent (ss -ltnp 'sport = :${port}' shows it), or choose another ${option}`,
        cause,
      );
    case "EADDRNOTAVAIL":
      return new SetupError(`${address} is no address of this machine; change bindAddress`, cause);
    case "EACCES":
      return new SetupError(
        `${where} needs root; start as root or choose another ${option}`,
        cause,
      );
    default:
      return new SetupError(`cannot listen on ${where}: ${errorMessage(error)}`, cause);
  }
}
