import { request } from "node:http";

import { deadline } from "../../lib/clock.ts";
import { ParseError } from "../../lib/errors.ts";
import { isRecord, optionalString } from "../../lib/guard.ts";

/** A container of the engine, whoever made it. */
export interface EngineContainer {
  readonly id: string;
  readonly imageID: string;
  /** The node whose agent made it; undefined for other people's. */
  readonly node: string | undefined;
}

const nodeLabel = "remora.io/node";
const answerMs = 10_000;

async function get(socketPath: string, path: string, signal: AbortSignal): Promise<unknown> {
  const text = await new Promise<string>((resolve, reject) => {
    const outgoing = request({ socketPath, path, signal: deadline(signal, answerMs) }, (answer) => {
      let received = "";
      answer.setEncoding("utf8");
      answer.on("data", (chunk: string) => (received += chunk));
      answer.on("error", reject);
      answer.on("end", () => resolve(received));
    });
    outgoing.on("error", reject);
    outgoing.end();
  });
  return JSON.parse(text);
}

function parseContainer(value: unknown): EngineContainer {
  const id = isRecord(value) ? optionalString(value["Id"]) : undefined;
  if (!isRecord(value) || id === undefined) throw new ParseError("containers", "objects with Id");
  const labels = isRecord(value["Labels"]) ? value["Labels"] : {};
  return {
    id,
    imageID: optionalString(value["ImageID"]) ?? "",
    node: optionalString(labels[nodeLabel]),
  };
}

/**
 * All containers of an engine, running or not.
 *
 * @param socketPath Undefined: there is no engine any more, so there are none.
 */
export async function engineContainers(
  socketPath: string | undefined,
  signal: AbortSignal,
): Promise<readonly EngineContainer[]> {
  if (socketPath === undefined) return [];
  const list = await get(socketPath, "/containers/json?all=1", signal);
  if (!Array.isArray(list)) throw new ParseError("containers", "a list");
  return list.map(parseContainer);
}
