import type { ServerResponse } from "node:http";

import { kubeletConfiguration } from "./configz.ts";
import { serveContainerLogs } from "./container-logs.ts";
import { checkText, type HealthCheck, healthzText, ping } from "./healthz.ts";
import { serveFlagz } from "./flagz.ts";
import { HttpRefusal } from "./http-refusal.ts";
import {
  serveCadvisorMetrics,
  serveMetrics,
  serveProbeMetrics,
  serveResourceMetrics,
} from "./metrics-pages.ts";
import { serveNodeLogs } from "./node-logs.ts";
import { servePortForward } from "./streams/port-forward.ts";
import type { Access, Exchange, Route, RouteDeps, StreamingRoute } from "./route.ts";
import { refuseCheckpoint, serveRun } from "./run-command.ts";
import { runningPods } from "./running-pods.ts";
import { serveStatsSummary } from "./stats-summary.ts";
import { serveStatusz } from "./statusz.ts";
import { serveStreaming } from "./streams/streaming.ts";

const pods: Access = { subresources: ["pods", "proxy"] };
const healthz: Access = { subresources: ["healthz", "proxy"] };
const configz: Access = { subresources: ["configz", "proxy"] };
// As upstream's code has it; its comment says that proxy would do.
const flagz: Access = { subresources: ["configz"] };
const stats: Access = { subresources: ["stats"] };
const metrics: Access = { subresources: ["metrics"] };
const log: Access = { subresources: ["log"] };
const checkpoint: Access = { subresources: ["checkpoint"] };
const statusz: Access = { subresources: ["statusz"] };
const proxy: Access = { subresources: ["proxy"] };

/** A page that stays when `enableDebuggingHandlers` is off, one that answers 405 then, one that vanishes. */
const page = { methods: ["GET", "HEAD"], withoutDebugging: "served" } as const;
const slis = { ...page, methods: ["GET", "HEAD", "DELETE"] } as const;
const debugPage = { ...page, withoutDebugging: "refused" } as const;
const hiddenPage = { ...page, withoutDebugging: "absent" } as const;
const hiddenCommand = { ...hiddenPage, methods: ["POST"] } as const;

/** What runs something in a pod, or reaches into it. */
const stream = {
  methods: ["GET", "POST"],
  withoutDebugging: "refused",
  // A WebSocket can only be opened by GET; that must not turn running a command into a mere read.
  access: { subresources: ["proxy"], verb: "create" },
} as const;
const command = { ...stream, methods: ["POST"] } as const;
const remoteCommand: Omit<StreamingRoute, "path"> = { ...stream, upgrade: serveStreaming };
const portForward: Omit<StreamingRoute, "path"> = { ...stream, upgrade: servePortForward };

/**
 * The node's API on 10250: one row for each page, and the first row that fits a path decides.
 * Each row says who may ask (`access`); one that does not is refused by the compiler.
 */
export const routes: readonly Route[] = [
  { ...page, path: "/healthz", access: healthz, serve: serveHealthz },
  { ...page, path: "/healthz/{check}", access: healthz, serve: serveHealthCheck },
  { ...page, path: "/healthz/{path*}", access: healthz, serve: notFound },

  { ...page, path: "/pods", access: pods, serve: servePods },
  { ...page, path: "/pods/{path*}", access: pods, serve: notFound },
  { ...debugPage, path: "/runningpods", access: pods, serve: serveRunningPods },
  { ...debugPage, path: "/runningpods/{path*}", access: pods, serve: notFound },
  { ...hiddenPage, path: "/configz", access: configz, serve: serveConfigz },
  { ...hiddenPage, path: "/flagz", access: flagz, serve: serveFlagz },
  {
    ...hiddenPage,
    path: "/statusz",
    access: statusz,
    serve: (deps, exchange) => serveStatusz(deps, exchange, pages()),
  },

  { ...page, path: "/stats/summary", access: stats, serve: serveStatsSummary },
  { ...page, path: "/stats/{path*}", access: stats, serve: notFound },
  { ...page, path: "/metrics", access: metrics, serve: serveMetrics },
  { ...page, path: "/metrics/cadvisor", access: metrics, serve: serveCadvisorMetrics },
  { ...page, path: "/metrics/probes", access: metrics, serve: serveProbeMetrics },
  { ...page, path: "/metrics/resource", access: metrics, serve: serveResourceMetrics },
  { ...slis, path: "/metrics/slis", access: metrics, serve: serveHealthResults },
  { ...page, path: "/metrics/{path*}", access: metrics, serve: notFound },

  { ...debugPage, path: "/logs/{path*}", access: log, serve: serveNodeLogs },
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
  { ...command, path: "/run/{namespace}/{pod}/{container}", serve: serveRun },
  { ...command, path: "/run/{namespace}/{pod}/{uid}/{container}", serve: serveRun },
  {
    ...hiddenCommand,
    path: "/checkpoint/{namespace}/{pod}/{container}",
    access: checkpoint,
    serve: refuseCheckpoint,
  },
  { ...debugPage, methods: "any", path: "/debug/pprof/{path*}", access: proxy, serve: noProfiles },
  { ...hiddenPage, methods: "any", path: "/debug/flags/{path*}", access: proxy, serve: noFlags },
  // What these stand for stays what they need, also where they name nothing.
  { ...stream, path: "/exec/{path*}", serve: notFound },
  { ...stream, path: "/attach/{path*}", serve: notFound },
  { ...stream, path: "/portForward/{path*}", serve: notFound },
  { ...stream, path: "/run/{path*}", serve: notFound },
  { ...hiddenCommand, path: "/checkpoint/{path*}", access: checkpoint, serve: notFound },
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

function healthChecks({ pods }: RouteDeps): readonly HealthCheck[] {
  // Lines are handed to standard error as they come up; there is nothing that could be held back.
  const syncloop = { name: "syncloop", check: () => pods.healthy() };
  return [ping, { ...ping, name: "log" }, syncloop];
}

function serveHealthz(deps: RouteDeps, { response, url }: Exchange): void {
  sendText(response, healthzText(healthChecks(deps), url.searchParams, deps.health));
}

/** As upstream, DELETE begins the counting anew. */
function serveHealthResults({ health }: RouteDeps, { request, response }: Exchange): void {
  if (request.method === "DELETE") {
    health.reset();
    sendText(response, "metrics reset\n");
    return;
  }
  response.writeHead(200, { "Content-Type": "text/plain; version=0.0.4; charset=utf-8" });
  response.end(health.text());
}

function serveHealthCheck(deps: RouteDeps, { params, response }: Exchange): void {
  const check = healthChecks(deps).find(({ name }) => name === params["check"]);
  if (check === undefined) notFound();
  sendText(response, checkText(check));
}

/** Pages with a name of their own, for who looks for what there is. */
function pages(): readonly string[] {
  const plain = routes.filter(
    (route) => "serve" in route && route.serve !== notFound && !route.path.includes("{"),
  );
  return [...new Set(plain.map(({ path }) => `/${path.split("/")[1] ?? ""}`))].toSorted();
}

function noProfiles({ config }: RouteDeps): never {
  if (config.enableProfilingHandler === false) {
    throw new HttpRefusal(405, "profiling endpoint is disabled.\n");
  }
  throw new HttpRefusal(404, "this agent is no Go program: it has no pprof profiles\n");
}

function noFlags(): never {
  throw new HttpRefusal(405, "flags endpoint is disabled.\n");
}

function servePods(deps: RouteDeps, { response }: Exchange): void {
  // Items of a list have no kind of their own.
  const items = deps.pods.pods().map(({ apiVersion: _version, kind: _kind, ...pod }) => pod);
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

function sendJSON(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { "Content-Type": "application/json" });
  response.end(JSON.stringify(value));
}

function sendText(response: ServerResponse, text: string): void {
  response.writeHead(200, {
    "Content-Type": "text/plain; charset=utf-8",
    "X-Content-Type-Options": "nosniff",
  });
  response.end(text);
}
