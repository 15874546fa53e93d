import { once } from "node:events";
import type { ServerResponse } from "node:http";

import type { Clock } from "../../lib/clock.ts";
import { isAbort } from "../../lib/errors.ts";
import type { ContainerRuntime } from "../../runtime/types.ts";
import { type LogQuery, parseLogQuery } from "../logs/log-query.ts";
import { readLogs } from "../logs/read-logs.ts";
import type { PodView } from "../types.ts";
import { HttpRefusal } from "./http-refusal.ts";
import { type ContainerTarget, containerTarget, type FoundContainer, lookUp } from "./pod-route.ts";

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
  const query = checkedQuery(url.searchParams, deps.clock.now());
  const container = await findForLogs(deps.pods, target, query.previous);
  const path =
    container.removed?.logPath ??
    (await logPath(deps.runtime, target, container.containerID, signal));
  response.writeHead(200, { "Content-Type": "text/plain" });
  response.flushHeaders();
  if (response.req.method === "HEAD") {
    response.end();
    return;
  }
  const running = runningCheck(deps, target, container);
  const logs = readLogs({ ...query, path, running, clock: deps.clock }, signal);
  for await (const bytes of logs) {
    if (!response.write(bytes)) await once(response, "drain", { signal });
  }
  response.end();
}

/** @throws {HttpRefusal} 400 for what cannot be read, 422 for what the API does not allow. */
function checkedQuery(parameters: URLSearchParams, nowMs: number): LogQuery {
  const result = parseLogQuery(parameters, nowMs);
  switch (result.kind) {
    case "query":
      return result.query;
    case "undecodable":
      throw new HttpRefusal(400, '{"message": "Unable to decode query."}');
    case "invalid":
      throw new HttpRefusal(422, '{"message": "Invalid request."}');
  }
}

async function logPath(
  runtime: ContainerLogsDeps["runtime"],
  { container, pod }: ContainerTarget,
  containerID: string,
  signal: AbortSignal,
): Promise<string> {
  let path: string | undefined;
  try {
    path = await runtime.containerLogPath(containerID, signal);
  } catch (error) {
    if (isAbort(error)) throw error;
    // Removed since we looked, or the engine does not answer: the kubelet has one text for both.
    const message = `unable to retrieve container logs for docker://${containerID}`;
    throw new HttpRefusal(400, message, { cause: error });
  }
  if (path !== undefined) return path;
  throw new HttpRefusal(
    400,
    `unable to retrieve container logs for docker://${containerID}: container "${container}" in pod "${pod}" has no log file, only Docker's json-file logging driver writes one`,
  );
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

/** The reasons of a waiting container that the kubelet puts into other words. */
const waitingTexts: ReadonlyMap<string, string> = new Map([
  ["ErrImagePull", "image can't be pulled"],
  ["ImagePullBackOff", "trying and failing to pull image"],
]);

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
    : `container "${container}" in pod "${pod}" is waiting to start: ${waitingTexts.get(reason) ?? reason}`;
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
    try {
      const now = await lookUp(pods, target, { previous: false });
      running = now.kind === "found" && now.containerID === container.containerID && now.running;
    } catch {
      // While the engine does not answer its containers run on, and so does the reader.
    }
    believedUntil = clock.monotonic() + runningBeliefMs;
    return running;
  };
}
