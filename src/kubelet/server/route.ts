import type { IncomingMessage, ServerResponse } from "node:http";

import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import type { ContainerRuntime } from "../../runtime/types.ts";
import type { HttpMetrics } from "../stats/http-metrics.ts";
import type { Statistics } from "../stats/statistics.ts";
import type { NodeView, PodView } from "../types.ts";
import type { HealthResults } from "../../lib/health-results.ts";
import { HttpRefusal } from "./http-refusal.ts";
import type { PodDialer } from "./streams/pod-dialer.ts";
import type { UpgradeRequest } from "./streams/streaming.ts";

/** Pages about the agent's own work, in Prometheus text format, and where requests are counted. */
export interface Figures {
  kubelet(): string;
  probes(): string;
  readonly http: HttpMetrics;
}

/** What rows of the route table may use. A page of its own adds one optional member. */
export interface RouteDeps {
  readonly config: AgentConfig;
  readonly runtime: ContainerRuntime;
  readonly pods: PodView;
  readonly node: NodeView;
  readonly clock: Clock;
  readonly logger: Logger;
  /** How port-forward reaches a pod. */
  readonly dial: PodDialer;
  /** When the agent was started, milliseconds since the epoch. */
  readonly startedAt: number;
  /** Where the answers of /healthz are counted. */
  readonly health: HealthResults;
  /** How much is in use; without it the pages about that answer 501. */
  readonly stats?: Pick<Statistics, "cadvisor" | "resource" | "summary">;
  /** What the agent counts of its own work. */
  readonly figures?: Figures;
  /** More lines for /metrics, in Prometheus text format. */
  readonly metrics?: () => string;
}

/** One authorized plain request. */
export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  /** What the path's `{...}` stand for, decoded. */
  readonly params: Readonly<Record<string, string>>;
}

/** The subresources of `nodes` that rights are given on (kubelet authorization, KEP-2862). */
export type NodeSubresource =
  | "checkpoint"
  | "configz"
  | "healthz"
  | "log"
  | "metrics"
  | "pods"
  | "proxy"
  | "stats"
  | "statusz";

/** What a caller must be allowed. */
export interface Access {
  /** Asked in this order; one that is allowed suffices. */
  readonly subresources: readonly [NodeSubresource, ...NodeSubresource[]];
  /** Asked for whatever the method is; default the method's own verb. */
  readonly verb?: "create";
}

export type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD" | "OPTIONS";

interface RouteFacts {
  /** `{name}` stands for one segment, `{name*}` at the end for any number of them. */
  readonly path: string;
  /** Others are answered 405. */
  readonly methods: "any" | readonly [Method, ...Method[]];
  /** There is no default on purpose: what nobody thought about must not compile. */
  readonly access: Access;
  /** While `enableDebuggingHandlers` is off: still there, answered 405 with that reason, or 404. */
  readonly withoutDebugging: "served" | "refused" | "absent";
}

/** Answers a request whole. */
export interface PlainRoute extends RouteFacts {
  /** @throws {HttpRefusal} for everything that is no success. */
  readonly serve: (
    deps: RouteDeps,
    exchange: Exchange,
    signal: AbortSignal,
  ) => Promise<void> | void;
}

/** Takes the connection over; what does not ask for that is answered 400. */
export interface StreamingRoute extends RouteFacts {
  /** @throws {HttpRefusal} while it still can be answered in HTTP. */
  readonly upgrade: (
    deps: RouteDeps,
    upgrade: UpgradeRequest,
    signal: AbortSignal,
  ) => Promise<void>;
}

export type Route = PlainRoute | StreamingRoute;

export interface RouteMatch {
  readonly route: Route;
  readonly params: Readonly<Record<string, string>>;
}

/** The segments of a URL's path, decoded; slashes at the end do not count. @throws {HttpRefusal} 400 */
function segmentsOf(path: string): string[] {
  const segments = path.replace(/\/+$/, "").split("/").slice(1);
  return segments.map((segment) => {
    const text = decoded(segment);
    // Two readers could understand such a name differently, one that asks for rights and one that opens.
    if (text === undefined || /[/\0]/.test(text)) {
      throw new HttpRefusal(400, "the path is not properly encoded");
    }
    return text;
  });
}

function decoded(segment: string): string | undefined {
  try {
    return decodeURIComponent(segment);
  } catch {
    return undefined;
  }
}

/** The first row whose pattern fits, else `unknown`. @throws {HttpRefusal} 400 for broken encoding. */
export function matchRoute(table: readonly Route[], unknown: Route, path: string): RouteMatch {
  const segments = segmentsOf(path);
  const head = `/${segments[0] ?? ""}`;
  for (const route of table) {
    // Most rows are about something else, which is seen without taking their pattern apart.
    if (!route.path.startsWith(head)) continue;
    const params = fit(route.path.split("/").slice(1), segments);
    if (params !== undefined) return { route, params };
  }
  return { route: unknown, params: {} };
}

function fit(
  pattern: readonly string[],
  segments: readonly string[],
): Record<string, string> | undefined {
  const params: Record<string, string> = {};
  for (const [at, part] of pattern.entries()) {
    const { name, rest } = /^\{(?<name>\w+)(?<rest>\*?)\}$/.exec(part)?.groups ?? {};
    if (name !== undefined && rest === "*") {
      params[name] = segments.slice(at).join("/");
      return params;
    }
    const segment = segments[at];
    if (segment === undefined || segment === "") return undefined;
    if (name !== undefined) params[name] = segment;
    else if (segment !== part) return undefined;
  }
  return segments.length === pattern.length ? params : undefined;
}
