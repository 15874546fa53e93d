import { errorMessage } from "../../../lib/errors.ts";
import { isRecord, optionalNumber } from "../../../lib/guard.ts";
import type { Logger } from "../../../lib/log.ts";
import type { StreamSession } from "../../../runtime/types.ts";

/** What the client asked for in the query. */
export interface StreamOptions {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly tty: boolean;
}

export interface TerminalSize {
  readonly width: number;
  readonly height: number;
}

/** `metav1.Status` as it ends a session; the client takes its exit code from it. */
export interface SessionStatus {
  readonly metadata: Readonly<Record<string, never>>;
  readonly status: "Success" | "Failure";
  readonly message?: string;
  readonly reason?: string;
  readonly details?: { readonly causes: readonly { reason?: string; message: string }[] };
  readonly code?: number;
}

/** The client's end of a session, whatever carries it. */
export interface RemoteChannels {
  /** Ends when the client closed its input. */
  readonly stdin: AsyncIterable<Uint8Array>;
  /** Aborts when the client is gone. */
  readonly gone: AbortSignal;
  /** Called for each change of the client's terminal, the first included. */
  onResize(listener: (size: TerminalSize) => void): void;
  /**
   * Sends output; with a client that is behind, a promise that resolves when it may get more. Bytes for a client that is
   * gone are lost, which {@link gone} tells.
   */
  send(stream: "stdout" | "stderr", chunk: Uint8Array): Promise<void> | undefined;
  /** Sends how it ended and closes the connection. */
  finish(status: SessionStatus): Promise<void>;
}

export const success: SessionStatus = { metadata: {}, status: "Success" };

/** How a command that ran to its end is reported. */
export function exitStatus(exitCode: number | undefined): SessionStatus {
  if (exitCode === undefined || exitCode === 0) return success;
  return {
    metadata: {},
    status: "Failure",
    message: `command terminated with non-zero exit code: exit status ${exitCode}`,
    reason: "NonZeroExitCode",
    details: { causes: [{ reason: "ExitCode", message: String(exitCode) }] },
  };
}

/** How a session that could not start, or broke, is reported. */
export function failureStatus(what: string, error: unknown): SessionStatus {
  const text = `${what}: ${errorMessage(error)}`;
  return {
    metadata: {},
    status: "Failure",
    message: `Internal error occurred: ${text}`,
    reason: "InternalError",
    details: { causes: [{ message: text }] },
    code: 500,
  };
}

/** One message of the resize channel; undefined when it is none. */
export function parseResize(text: string): TerminalSize | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isRecord(value)) return undefined;
  const width = optionalNumber(value["Width"]);
  const height = optionalNumber(value["Height"]);
  return width === undefined || height === undefined ? undefined : { width, height };
}

export interface RemoteCommand {
  readonly channels: RemoteChannels;
  readonly options: StreamOptions;
  /** Opens the runtime's session; may reject, the client is then told. */
  readonly open: (signal: AbortSignal) => Promise<StreamSession>;
  /** Prefix of failures: `error executing command in container`. */
  readonly failure: string;
  readonly logger: Logger;
}

/** Runs one exec or attach to its end: both directions, resizes, exit code. Kills the process when the client leaves. */
export async function serveRemoteCommand(
  command: RemoteCommand,
  signal: AbortSignal,
): Promise<void> {
  const { channels, failure, logger } = command;
  const ended = AbortSignal.any([signal, channels.gone]);
  let status: SessionStatus;
  try {
    const session = await command.open(ended);
    status = await converse(command, session, ended);
  } catch (error) {
    if (ended.aborted) return;
    status = failureStatus(failure, error);
  }
  try {
    await channels.finish(status);
  } catch (error) {
    logger.log("debug", "client left before its exit code", { error: errorMessage(error) });
  }
}

async function converse(
  { channels, options, logger }: RemoteCommand,
  session: StreamSession,
  ended: AbortSignal,
): Promise<SessionStatus> {
  const report = (what: string) => (error: unknown) => {
    logger.log("debug", what, { error: errorMessage(error) });
  };
  const abort = (): void => {
    session.abort().catch(report("session could not be ended"));
  };
  // The client may have left while the session was being opened.
  if (ended.aborted) abort();
  ended.addEventListener("abort", abort, { once: true });
  let resized: Promise<void> = Promise.resolve();
  if (options.tty) {
    channels.onResize((size) => {
      // In order, so that the last one wins.
      resized = resized
        .then(() => session.resize(size))
        .catch(report("terminal could not be resized"));
    });
  }
  const pump = async (): Promise<void> => {
    // The first thing typed may ask for the size.
    await resized;
    await pumpStdin(channels, session);
  };
  // Not awaited at the end: a process that exits does not care about input that still comes.
  if (options.stdin) pump().catch(report("input was not delivered"));
  else session.closeStdin();
  try {
    for await (const { stream, chunk } of session.output) {
      if (ended.aborted) break;
      const busy = options[stream] ? channels.send(stream, chunk) : undefined;
      if (busy !== undefined) await busy;
    }
    return exitStatus(await session.exitCode);
  } catch (error) {
    abort();
    throw error;
  } finally {
    ended.removeEventListener("abort", abort);
  }
}

async function pumpStdin(channels: RemoteChannels, session: StreamSession): Promise<void> {
  for await (const chunk of channels.stdin) await session.writeStdin(chunk);
  session.closeStdin();
}
