import { request } from "node:http";

import { deadline } from "../../lib/clock.ts";
import { SetupError } from "../../lib/errors.ts";
import { isRecord, optionalString, stringMap } from "../../lib/guard.ts";

/** A container as `docker ps` lists it. */
export interface ListedContainer {
  readonly id: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly running: boolean;
}

/** The few requests that `docker build`, `ps`, `kill`, `images` and `rmi` make. */
export interface DemoEngine {
  /** @throws {SetupError} with the builder's own words. */
  build(
    context: Buffer,
    image: { readonly tag: string; readonly buildArgs: Readonly<Record<string, string>> },
    signal: AbortSignal,
  ): Promise<void>;
  /** Size in bytes of the image, or undefined when there is none of that name. */
  imageSize(tag: string, signal: AbortSignal): Promise<number | undefined>;
  /** Takes the tag away; returns false when containers still use it. A tag that is not there is no error. */
  removeImage(tag: string, signal: AbortSignal): Promise<boolean>;
  /** All containers with the label, also those that ended. */
  containers(label: string, signal: AbortSignal): Promise<readonly ListedContainer[]>;
  kill(id: string, signal: AbortSignal): Promise<void>;
}

interface EngineAnswer {
  readonly status: number;
  readonly text: string;
}

interface EngineRequest {
  readonly method: "GET" | "POST" | "DELETE";
  readonly path: string;
  readonly tar?: Buffer;
  readonly timeoutMs?: number;
}

function ask(
  socketPath: string,
  { method, path, tar, timeoutMs }: EngineRequest,
  signal: AbortSignal,
): Promise<EngineAnswer> {
  return new Promise((resolve, reject) => {
    const headers = tar === undefined ? {} : { "content-type": "application/x-tar" };
    const outgoing = request(
      { socketPath, method, path, headers, signal: deadline(signal, timeoutMs ?? 30_000) },
      (incoming) => {
        let text = "";
        incoming.setEncoding("utf8");
        incoming.on("data", (chunk: string) => (text += chunk));
        incoming.on("error", reject);
        incoming.on("end", () => resolve({ status: incoming.statusCode ?? 0, text }));
      },
    );
    outgoing.on("error", reject);
    outgoing.end(tar);
  });
}

function refusal(what: string, { status, text }: EngineAnswer): SetupError {
  let message = text.trim();
  try {
    const body: unknown = JSON.parse(text);
    if (isRecord(body)) message = optionalString(body["message"]) ?? message;
  } catch {
    // Not JSON: the text itself is the best there is.
  }
  return new SetupError(`${what}: the Docker Engine answered ${status}: ${message}`);
}

/** The error that a build's stream of JSON lines tells; the status of the answer is 200 then. */
export function buildError(stream: string): string | undefined {
  for (const line of stream.split("\n")) {
    if (!line.includes('"error"')) continue;
    const message: unknown = JSON.parse(line);
    if (isRecord(message) && typeof message["error"] === "string") return message["error"];
  }
  return undefined;
}

function parseContainer(value: unknown): ListedContainer | undefined {
  if (!isRecord(value) || typeof value["Id"] !== "string") return undefined;
  const names: unknown = value["Names"];
  const first: unknown = Array.isArray(names) ? names[0] : undefined;
  return {
    id: value["Id"],
    name: typeof first === "string" ? first.replace(/^\//, "") : value["Id"].slice(0, 12),
    labels: stringMap(value["Labels"]),
    running: value["State"] === "running",
  };
}

/** The Docker Engine behind `socketPath`, asked as the docker command line asks it. */
export function createDemoEngine(socketPath: string): DemoEngine {
  return {
    build: async (context, { tag, buildArgs }, signal) => {
      const query = new URLSearchParams({
        t: tag,
        buildargs: JSON.stringify(buildArgs),
        rm: "1",
        forcerm: "1",
      });
      const call: EngineRequest = {
        method: "POST",
        path: `/build?${query.toString()}`,
        tar: context,
        timeoutMs: 120_000,
      };
      const answer = await ask(socketPath, call, signal);
      if (answer.status !== 200) throw refusal(`docker build -t ${tag}`, answer);
      const error = buildError(answer.text);
      if (error !== undefined) throw new SetupError(`docker build -t ${tag}: ${error}`);
    },
    imageSize: async (tag, signal) => {
      const answer = await ask(socketPath, { method: "GET", path: `/images/${tag}/json` }, signal);
      if (answer.status === 404) return undefined;
      if (answer.status !== 200) throw refusal(`docker image inspect ${tag}`, answer);
      const body: unknown = JSON.parse(answer.text);
      return isRecord(body) && typeof body["Size"] === "number" ? body["Size"] : 0;
    },
    removeImage: async (tag, signal) => {
      const answer = await ask(socketPath, { method: "DELETE", path: `/images/${tag}` }, signal);
      if (answer.status === 409) return false;
      if (answer.status !== 200 && answer.status !== 404) {
        throw refusal(`docker rmi ${tag}`, answer);
      }
      return true;
    },
    containers: async (label, signal) => {
      const filters = encodeURIComponent(JSON.stringify({ label: [label] }));
      const path = `/containers/json?all=1&filters=${filters}`;
      const answer = await ask(socketPath, { method: "GET", path }, signal);
      if (answer.status !== 200) throw refusal("docker ps", answer);
      const body: unknown = JSON.parse(answer.text);
      const list: readonly unknown[] = Array.isArray(body) ? body : [];
      return list.map((value) => parseContainer(value)).filter((found) => found !== undefined);
    },
    kill: async (id, signal) => {
      const path = `/containers/${id}/kill`;
      const answer = await ask(socketPath, { method: "POST", path }, signal);
      if (answer.status !== 204) throw refusal(`docker kill ${id.slice(0, 12)}`, answer);
    },
  };
}
