import { type ClientRequest, type IncomingMessage, request as httpRequest } from "node:http";

import { deadline } from "../../lib/clock.ts";
import { errorCode, errorMessage } from "../../lib/errors.ts";
import { isRecord, optionalString } from "../../lib/guard.ts";
import type { AgentPlace } from "./places.ts";
import { socketPath } from "./socket-path.ts";
import type { NodeSnapshot } from "./types.ts";

/** What came of asking an agent. */
export type Answer =
  | { readonly kind: "snapshot"; readonly snapshot: NodeSnapshot }
  /** `why` and `remedy` are sentences. */
  | { readonly kind: "none"; readonly why: string; readonly remedy: string };

const askMs = 10_000;
/** Twice as long as an agent is ever silent. */
const silentMs = 20_000;
/** Far more than the largest snapshot; whatever is longer is something else. */
const maxLength = 16 * 1024 * 1024;

/** Asks once. Rejects only when `signal` aborts. */
export async function askSnapshot(place: AgentPlace, signal: AbortSignal): Promise<Answer> {
  try {
    const response = await ask(place.socket, "/v1/snapshot", deadline(signal, askMs));
    let text = "";
    for await (const chunk of response.setEncoding("utf8")) text = grown(text, String(chunk));
    if (response.statusCode !== 200) return refused(response, text);
    return parse(text);
  } catch (error) {
    signal.throwIfAborted();
    return unanswered(place, error);
  }
}

/**
 * Follows an agent.
 *
 * @yields One answer after the other; the last one tells why there are no more.
 */
export async function* followSnapshots(
  place: AgentPlace,
  signal: AbortSignal,
): AsyncGenerator<Answer, void> {
  try {
    const response = await ask(place.socket, "/v1/snapshots", signal, silentMs);
    let text = "";
    for await (const chunk of response.setEncoding("utf8")) {
      text = grown(text, String(chunk));
      if (response.statusCode !== 200) continue;
      const lines = text.split("\n");
      text = lines.pop() ?? "";
      // One that is behind wants to know how it is, not how it was.
      const newest = lines.at(-1);
      if (newest !== undefined) yield parse(newest);
    }
    if (response.statusCode !== 200) yield refused(response, text);
    else yield { kind: "none", why: "the agent has ended", remedy: startRemedy };
  } catch (error) {
    if (signal.aborted) return;
    yield unanswered(place, error);
  }
}

function grown(text: string, chunk: string): string {
  if (text.length + chunk.length > maxLength) throw new Error("the answer has no end");
  return text + chunk;
}

async function ask(
  socket: string,
  path: string,
  signal: AbortSignal,
  timeout = askMs,
): Promise<IncomingMessage> {
  const place = await socketPath(socket);
  const request: ClientRequest = httpRequest({
    socketPath: place.path,
    path,
    // One question, one connection: it ends with the answer.
    agent: false,
    headers: { Host: "localhost" },
    signal,
    timeout,
  });
  request.on("timeout", () => request.destroy(new Error("no answer in time")));
  const answered = Promise.withResolvers<IncomingMessage>();
  request.on("response", answered.resolve);
  request.on("error", answered.reject);
  request.end();
  try {
    return await answered.promise;
  } finally {
    await place.close();
  }
}

const versions = "the agent and this command are of different versions";

function parse(text: string): Answer {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  if (!isSnapshot(value)) {
    const remedy = "restart the agent (pods keep running), then ask again";
    return { kind: "none", why: `the agent's answer is not understood: ${versions}`, remedy };
  }
  return { kind: "snapshot", snapshot: value };
}

/** What comes from our own agent is taken as it is, when it is of this schema and whole. */
function isSnapshot(value: unknown): value is NodeSnapshot {
  return (
    isRecord(value) &&
    value["schema"] === 1 &&
    ["agent", "node", "services", "usage"].every((name) => isRecord(value[name])) &&
    ["pods", "pulls", "events"].every((name) => Array.isArray(value[name]))
  );
}

function refused({ statusCode = 0 }: IncomingMessage, text: string): Answer {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  const said = isRecord(value) ? optionalString(value["error"]) : undefined;
  return {
    kind: "none",
    why: `the agent refused: ${said ?? `status ${statusCode}`}`,
    remedy: "ask again in a moment",
  };
}

const startRemedy =
  "start one with `sudo remora up`, or `sudo systemctl start remora-up` (remora where it joined a cluster); `journalctl -u remora-up -u remora` tells how the last one ended";

function unanswered({ pid, socket, stateDir }: AgentPlace, error: unknown): Answer {
  const code = errorCode(error);
  if (code === "EACCES" || code === "EPERM") {
    return {
      kind: "none",
      why: `you may not read ${socket}: it is for root and the group remora`,
      remedy:
        "use sudo, or join the group and log in anew: `sudo groupadd -f remora && sudo usermod -aG remora $USER`, then restart the agent",
    };
  }
  if (code === "ENOENT" || code === "ECONNREFUSED") {
    if (pid !== undefined) {
      return {
        kind: "none",
        why: `the agent (pid ${pid}, ${stateDir}) does not answer yet`,
        remedy: "it is starting: ask again in a moment; its log tells what it waits for",
      };
    }
    return { kind: "none", why: `no agent runs on this machine (${socket})`, remedy: startRemedy };
  }
  return {
    kind: "none",
    why: `the agent does not answer on ${socket}: ${errorMessage(error)}`,
    remedy: "its log tells what it does (`journalctl -u remora-up -u remora`)",
  };
}
