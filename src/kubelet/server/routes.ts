import type { ServerResponse } from "node:http";

import { kubeletConfiguration } from "./configz.ts";
import { serveContainerLogs } from "./container-logs.ts";
import { HttpRefusal } from "./http-refusal.ts";
import { renderMetrics } from "./metrics.ts";
import { servePortForward } from "./streams/port-forward.ts";
import type { Access, Exchange, Route, RouteDeps, StreamingRoute } from "./route.ts";
import { runningPods } from "./running-pods.ts";
import { serveStreaming } from "./streams/streaming.ts";

const pods: Access = { subresources: ["pods", "proxy"] };
const healthz: Access = { subresources: ["healthz", "proxy"] };
const configz: Access = { subresources: ["configz", "proxy"] };
const stats: Access = { subresources: ["stats"] };
const metrics: Access = { subresources: ["metrics"] };
const log: Access = { subresources: ["log"] };
const proxy: Access = { subresources: ["proxy"] };

/** A page that stays when `enableDebuggingHandlers` is off, one that answers 405 then, one that vanishes. */
const page = { methods: ["GET", "HEAD"], withoutDebugging: "served" } as const;
const debugPage = { ...page, withoutDebugging: "refused" } as const;
const hiddenPage = { ...page, withoutDebugging: "absent" } as const;

const stream = {
  methods: ["GET", "POST"],
  withoutDebugging: "refused",
  // A WebSocket can only be opened by GET; that must not turn running a command into a mere read.
  access: { subresources: ["proxy"], verb: "create" },
} as const;
const remoteCommand: Omit<StreamingRoute, "path"> = { ...stream, upgrade: serveStreaming };
const portForward: Omit<StreamingRoute, "path"> = { ...stream, upgrade: servePortForward };

/**
 * The node's API on 10250: one row for each page, and the first row that fits a path decides.
 * Each row says who may ask (`access`); one that does not is refused by the compiler.
 */
export const routes: readonly Route[] = [
  { ...page, path: "/healthz", access: healthz, serve: serveSyncLoop },
  { ...page, path: "/healthz/ping", access: healthz, serve: serveOk },
  { ...page, path: "/healthz/log", access: healthz, serve: serveOk },
  { ...page, path: "/healthz/syncloop", access: healthz, serve: serveSyncLoop },
  { ...page, path: "/healthz/{path*}", access: healthz, serve: notFound },

  { ...page, path: "/pods", access: pods, serve: servePods },
  { ...page, path: "/pods/{path*}", access: pods, serve: notFound },
  { ...debugPage, path: "/runningpods", access: pods, serve: serveRunningPods },
  { ...debugPage, path: "/runningpods/{path*}", access: pods, serve: notFound },
  { ...hiddenPage, path: "/configz", access: configz, serve: serveConfigz },

  { ...page, path: "/stats/summary", access: stats, serve: notMeasured },
  { ...page, path: "/stats/{path*}", access: stats, serve: notFound },
  { ...page, path: "/metrics", access: metrics, serve: serveMetrics },
  { ...page, path: "/metrics/cadvisor", access: metrics, serve: notMeasured },
  { ...page, path: "/metrics/probes", access: metrics, serve: notMeasured },
  { ...page, path: "/metrics/resource", access: metrics, serve: notMeasured },
  { ...page, path: "/metrics/{path*}", access: metrics, serve: notFound },

  { ...debugPage, path: "/logs/{path*}", access: log, serve: notFound },
  {
    ...debugPage,
    path: "/containerLogs/{namespace}/{pod}/{container}",
    access: proxy,
    serve: (deps, { url, response }, signal) => serveContainerLogs(deps, url, response, signal),
  },
  { ...remoteCommand, path: "/exec/{namespace}/{pod}/{container}" },
  { ...remoteCommand, path: "/exec/{namespace}/{pod}/{uid}/{container}" },
  { ...remoteCommand, path: "/attach/{namespace}/{pod}/{container}" },
  { ...remoteCommand, path: "/attach/{namespace}/{pod}/{uid}/{container}" },
  { ...portForward, path: "/portForward/{namespace}/{pod}" },
  { ...portForward, path: "/portForward/{namespace}/{pod}/{uid}" },
  // What these stand for stays what they need, also where they name nothing.
  { ...stream, path: "/exec/{path*}", serve: notFound },
  { ...stream, path: "/attach/{path*}", serve: notFound },
  { ...stream, path: "/portForward/{path*}", serve: notFound },
  { ...stream, path: "/run/{path*}", serve: notFound },
  { ...debugPage, path: "/containerLogs/{path*}", access: proxy, serve: notFound },
];

/** Every other path. */
export const unknownPath: Route = {
  ...page,
  methods: "any",
  path: "",
  access: proxy,
  serve: notFound,
};

function notFound(): never {
  throw new HttpRefusal(404, "404 page not found\n");
}

function notMeasured(): never {
  throw new HttpRefusal(501, "resource usage is not measured by this version of the agent\n");
}

function serveOk(_deps: RouteDeps, { response }: Exchange): void {
  sendText(response, "ok");
}

function serveSyncLoop(deps: RouteDeps, { response }: Exchange): void {
  const trouble = deps.pods.healthy();
  if (trouble !== undefined) throw new HttpRefusal(500, `healthz check failed: ${trouble}\n`);
  sendText(response, "ok");
}

function servePods(deps: RouteDeps, { response }: Exchange): void {
  const items = deps.pods.pods();
  sendJSON(response, { kind: "PodList", apiVersion: "v1", metadata: {}, items });
}

async function serveRunningPods(
  deps: RouteDeps,
  { response }: Exchange,
  signal: AbortSignal,
): Promise<void> {
  sendJSON(response, runningPods(await deps.runtime.snapshot(signal)));
}

function serveConfigz(deps: RouteDeps, { response }: Exchange): void {
  sendJSON(response, { kubeletconfig: kubeletConfiguration(deps.config) });
}

function serveMetrics(deps: RouteDeps, { response }: Exchange): void {
  response.writeHead(200, { "Content-Type": "text/plain; version=0.0.4; charset=utf-8" });
  response.end(renderMetrics(deps));
}

function sendJSON(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { "Content-Type": "application/json" });
  response.end(JSON.stringify(value));
}

function sendText(response: ServerResponse, text: string): void {
  response.writeHead(200, { "Content-Type": "text/plain; charset=utf-8" });
  response.end(text);
}
