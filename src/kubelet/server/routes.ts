import type { IncomingMessage, ServerResponse } from "node:http";

import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import type { ContainerRuntime } from "../../runtime/types.ts";
import type { NodeView, PodView } from "../types.ts";
import { kubeletConfiguration } from "./configz.ts";
import { serveContainerLogs } from "./container-logs.ts";
import { HttpRefusal } from "./http-refusal.ts";
import { renderMetrics } from "./metrics.ts";
import { runningPods } from "./running-pods.ts";

export interface RouteDeps {
  readonly config: AgentConfig;
  readonly runtime: ContainerRuntime;
  readonly pods: PodView;
  readonly node: NodeView;
  readonly clock: Clock;
  readonly metrics?: () => string;
}

export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
}

/** Answered 405 when `enableDebuggingHandlers` is off. */
const debugging = new Set([
  "attach",
  "containerLogs",
  "exec",
  "logs",
  "portForward",
  "run",
  "runningpods",
]);

/** Whether a route is switched off. @throws {HttpRefusal} 405 with upstream's text. */
export function refuseDisabled(
  config: Pick<AgentConfig, "enableDebuggingHandlers">,
  path: string,
): void {
  if (config.enableDebuggingHandlers || !debugging.has(path.split("/")[1] ?? "")) return;
  throw new HttpRefusal(405, "Debug endpoints are disabled.");
}

function sendJSON(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { "Content-Type": "application/json" });
  response.end(JSON.stringify(value));
}

function sendText(response: ServerResponse, text: string): void {
  response.writeHead(200, { "Content-Type": "text/plain; charset=utf-8" });
  response.end(text);
}

/** Answers one authorized plain request. @throws {HttpRefusal} for everything that is no success. */
export async function serveRoute(
  deps: RouteDeps,
  { request, response, url }: Exchange,
  signal: AbortSignal,
): Promise<void> {
  const path = url.pathname.replace(/(?<=.)\/+$/, "");
  refuseDisabled(deps.config, path);
  const route = path.split("/")[1] ?? "";
  if (upgradeOnly.has(route)) {
    throw new HttpRefusal(
      400,
      "unable to upgrade: this request needs a WebSocket or SPDY connection",
    );
  }
  if (request.method !== "GET" && request.method !== "HEAD") {
    throw new HttpRefusal(405, "405: Method Not Allowed");
  }
  if (route === "containerLogs") {
    await serveContainerLogs(deps, url, response, signal);
    return;
  }
  switch (path) {
    case "/healthz":
    case "/healthz/syncloop": {
      const trouble = deps.pods.healthy();
      if (trouble !== undefined) throw new HttpRefusal(500, `healthz check failed: ${trouble}\n`);
      sendText(response, "ok");
      return;
    }
    case "/healthz/ping":
    case "/healthz/log":
      sendText(response, "ok");
      return;
    case "/pods":
      sendJSON(response, {
        kind: "PodList",
        apiVersion: "v1",
        metadata: {},
        items: deps.pods.pods(),
      });
      return;
    case "/runningpods":
      sendJSON(response, runningPods(await deps.runtime.snapshot(signal)));
      return;
    case "/configz":
      sendJSON(response, { kubeletconfig: kubeletConfiguration(deps.config) });
      return;
    case "/metrics":
      response.writeHead(200, { "Content-Type": "text/plain; version=0.0.4; charset=utf-8" });
      response.end(renderMetrics(deps));
      return;
    case "/stats/summary":
    case "/metrics/cadvisor":
    case "/metrics/resource":
    case "/metrics/probes":
      throw new HttpRefusal(501, "resource usage is not measured by this version of the agent\n");
    default:
      throw new HttpRefusal(404, "404 page not found\n");
  }
}

const upgradeOnly = new Set(["exec", "attach", "portForward"]);
