import { type IncomingMessage, request } from "node:http";

import { deadline } from "../../lib/clock.ts";
import { errorCode, errorMessage, RemoraError, SetupError } from "../../lib/errors.ts";
import type { NodeSnapshot } from "../local/types.ts";
import { parseSnapshot } from "./sections.ts";

/** The agent writes at least every ten seconds. */
const silenceMs = 30_000;
/** Far more than five hundred Services and as many pods take. */
const longestLineBytes = 32 * 1024 * 1024;

/** The agent does not tell anything; the message is one sentence. */
export class AgentAwayError extends RemoraError {
  readonly code = "REMORA_AGENT_AWAY";
  override readonly retryable = true;
}

/** What a failed connection to the socket at `path` means for people. */
function awayError(error: unknown, path: string): RemoraError {
  if (error instanceof RemoraError) return error;
  const options = { cause: error };
  switch (errorCode(error)) {
    case "ENOENT":
      return new AgentAwayError(`no agent runs here: there is no ${path}`, options);
    case "ECONNREFUSED":
      return new AgentAwayError(`the agent has ended: nobody listens on ${path}`, options);
    case "EACCES":
    case "EPERM":
      return new SetupError(
        `${path} may be read by root and the group remora: sudo usermod -aG remora "$USER", then log in anew`,
        options,
      );
    case "ECONNRESET":
      return new AgentAwayError("the agent has closed the connection", options);
    case undefined:
    default:
      return new AgentAwayError(`the agent cannot be asked: ${errorMessage(error)}`, options);
  }
}

async function get(path: string, target: string, signal: AbortSignal): Promise<IncomingMessage> {
  const answer = Promise.withResolvers<IncomingMessage>();
  const sent = request({ socketPath: path, path: target, agent: false, signal }, answer.resolve);
  sent.once("error", answer.reject);
  sent.end();
  const response = await answer.promise;
  // What goes wrong from here on ends the iteration of the response.
  sent.on("error", () => undefined);
  if (response.statusCode === 200) return response;
  response.destroy();
  throw new AgentAwayError(`the agent answered with status ${response.statusCode}`);
}

// Complete lines of the response, and what comes behind the last one.
async function* linesOf(response: IncomingMessage): AsyncGenerator<string> {
  let pieces: Buffer[] = [];
  let size = 0;
  for await (const chunk of response) {
    let rest = chunk as Buffer;
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      yield Buffer.concat([...pieces, rest.subarray(0, end)]).toString();
      rest = rest.subarray(end + 1);
      pieces = [];
      size = 0;
    }
    if (rest.length > 0) pieces.push(rest);
    size += rest.length;
    if (size > longestLineBytes) throw new AgentAwayError("the agent sends a line without an end");
  }
  if (size > 0) yield Buffer.concat(pieces).toString();
}

/**
 * One snapshot from the agent's socket.
 *
 * @throws {AgentAwayError} nobody answers; {SetupError} this user may not ask; {ParseError}.
 */
export async function readSnapshot(path: string, signal: AbortSignal): Promise<NodeSnapshot> {
  const limited = deadline(signal, silenceMs);
  try {
    for await (const line of linesOf(await get(path, "/v1/snapshot", limited))) {
      return parseSnapshot(line);
    }
  } catch (error) {
    signal.throwIfAborted();
    throw limited.aborted ? silent(error) : awayError(error, path);
  }
  throw new AgentAwayError("the agent answered with nothing");
}

function silent(cause: unknown): AgentAwayError {
  return new AgentAwayError(`the agent has said nothing for ${silenceMs / 1000} s`, { cause });
}

/**
 * Tells snapshots as the agent sends them, until `signal` aborts.
 *
 * @throws as {@link readSnapshot}, also when the agent ends; what `signal` aborts with.
 */
export async function followSnapshots(
  path: string,
  onSnapshot: (snapshot: NodeSnapshot) => void,
  signal: AbortSignal,
): Promise<never> {
  const quiet = new AbortController();
  const timer = setTimeout(() => quiet.abort(), silenceMs);
  try {
    const limited = AbortSignal.any([signal, quiet.signal]);
    for await (const line of linesOf(await get(path, "/v1/snapshots", limited))) {
      timer.refresh();
      if (line.trim() !== "") onSnapshot(parseSnapshot(line));
    }
  } catch (error) {
    signal.throwIfAborted();
    throw quiet.signal.aborted ? silent(error) : awayError(error, path);
  } finally {
    clearTimeout(timer);
  }
  throw new AgentAwayError("the agent has closed the connection");
}
