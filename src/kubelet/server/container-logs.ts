import type { ServerResponse } from "node:http";
import { once } from "node:events";

import type { Clock } from "../../lib/clock.ts";
import { fixedTimestamp } from "../logs/log-line.ts";
import { readLogs } from "../logs/read-logs.ts";
import type { ContainerRuntime } from "../../runtime/types.ts";
import type { PodView } from "../types.ts";
import { HttpRefusal } from "./http-refusal.ts";
import { type ContainerTarget, containerTarget, type FoundContainer, lookUp } from "./pod-route.ts";

/** `PodLogOptions` of one request, checked. */
export interface LogQuery {
  readonly follow: boolean;
  readonly previous: boolean;
  readonly timestamps: boolean;
  readonly stream: "all" | "stdout" | "stderr";
  readonly tailLines: number | undefined;
  readonly limitBytes: number | undefined;
  /** RFC 3339 with nine digits. */
  readonly since: string | undefined;
}

function flag(query: URLSearchParams, name: string): boolean {
  const value = query.get(name);
  // As the API server's decoder: present without a value is true.
  return value !== null && !["false", "0", "f", "F", "False", "FALSE"].includes(value);
}

function integer(query: URLSearchParams, name: string, least: number): number | undefined {
  const text = query.get(name);
  if (text === null || text === "") return undefined;
  if (!/^-?\d{1,15}$/.test(text))
    throw new HttpRefusal(400, '{"message": "Unable to decode query."}');
  const value = Number(text);
  if (value < least) throw new HttpRefusal(422, '{"message": "Invalid request."}');
  return value;
}

function streamOf(query: URLSearchParams, tailLines: number | undefined): LogQuery["stream"] {
  const stream = query.get("stream") ?? "All";
  if (stream === "All" || stream === "") return "all";
  if (stream !== "Stdout" && stream !== "Stderr") {
    throw new HttpRefusal(400, `invalid stream type "${stream}"`);
  }
  // Upstream validation: a tail of one stream cannot be counted without reading everything.
  if (tailLines !== undefined) throw new HttpRefusal(422, '{"message": "Invalid request."}');
  return stream === "Stdout" ? "stdout" : "stderr";
}

/** @throws {HttpRefusal} 400 for what cannot be read, 422 for what the API does not allow. */
export function parseLogQuery(query: URLSearchParams, nowMs: number): LogQuery {
  const sinceSeconds = integer(query, "sinceSeconds", 1);
  const sinceTime = query.get("sinceTime") ?? "";
  if (sinceSeconds !== undefined && sinceTime !== "") {
    throw new HttpRefusal(422, '{"message": "Invalid request."}');
  }
  const since =
    sinceSeconds === undefined ? sinceTime : new Date(nowMs - sinceSeconds * 1000).toISOString();
  const fixed = since === "" ? undefined : fixedTimestamp(since);
  if (since !== "" && fixed === undefined) {
    throw new HttpRefusal(400, '{"message": "Unable to decode query."}');
  }
  const tailLines = integer(query, "tailLines", 0);
  return {
    follow: flag(query, "follow"),
    previous: flag(query, "previous"),
    timestamps: flag(query, "timestamps"),
    stream: streamOf(query, tailLines),
    tailLines,
    limitBytes: integer(query, "limitBytes", 1),
    since: fixed,
  };
}

export interface ContainerLogsDeps {
  readonly runtime: Pick<ContainerRuntime, "containerLogPath">;
  readonly pods: PodView;
  readonly clock: Clock;
}

/** How long an answer to "does it still run" is believed while following. */
const runningBeliefMs = 500;

/** GET /containerLogs/{namespace}/{pod}/{container}: the bytes of the log, as they come. */
export async function serveContainerLogs(
  deps: ContainerLogsDeps,
  url: URL,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  const target = containerTarget(url.pathname);
  if (target === undefined) throw new HttpRefusal(404, "404 page not found");
  const query = parseLogQuery(url.searchParams, deps.clock.now());
  const container = await findForLogs(deps.pods, target, query.previous);
  const path = await deps.runtime.containerLogPath(container.containerID, signal);
  if (path === undefined) {
    throw new HttpRefusal(
      500,
      `container "${target.container}" in pod "${target.pod}" has no readable log: its engine keeps none`,
    );
  }
  response.writeHead(200, { "Content-Type": "text/plain" });
  response.flushHeaders();
  const running = runningCheck(deps, target, container);
  const logs = readLogs({ ...query, path, running, clock: deps.clock }, signal);
  for await (const bytes of logs) {
    if (!response.write(bytes)) await once(response, "drain", { signal });
  }
  response.end();
}

async function findForLogs(
  pods: PodView,
  target: ContainerTarget,
  previous: boolean,
): Promise<FoundContainer> {
  const found = await lookUp(pods, target, { previous });
  const { container, pod } = target;
  switch (found.kind) {
    case "found":
      return found;
    case "podNotFound":
      throw new HttpRefusal(404, `pod "${pod}" does not exist`);
    case "containerNotFound":
      throw new HttpRefusal(404, `container "${container}" not found in pod "${pod}"`);
    case "notStarted":
      throw new HttpRefusal(400, notStartedText(target, previous, found.reason));
  }
}

function notStartedText(
  { container, pod }: ContainerTarget,
  previous: boolean,
  reason: string,
): string {
  if (previous) return `previous terminated container "${container}" in pod "${pod}" not found`;
  // The pod half may have told the whole sentence already.
  if (reason.startsWith(`container "`)) return reason;
  return reason === ""
    ? `container "${container}" in pod "${pod}" is waiting to start - no logs yet`
    : `container "${container}" in pod "${pod}" is waiting to start: ${reason}`;
}

function runningCheck(
  { pods, clock }: ContainerLogsDeps,
  target: ContainerTarget,
  container: FoundContainer,
): () => Promise<boolean> {
  let believedUntil = 0;
  let running = container.running;
  return async () => {
    // What has exited does not start again: a restart is another container.
    if (!running || clock.monotonic() < believedUntil) return running;
    const now = await lookUp(pods, target, { previous: false });
    running = now.kind === "found" && now.containerID === container.containerID && now.running;
    believedUntil = clock.monotonic() + runningBeliefMs;
    return running;
  };
}
