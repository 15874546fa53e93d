import type { IncomingMessage, ServerResponse } from "node:http";

import type { IPFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { listenUntilAborted } from "./listen.ts";
import type { ProxyMetrics } from "./metrics.ts";
import type { NodeCondition } from "./node-condition.ts";

/** What the health answers are made of; the proxy writes it. Times are milliseconds since the epoch. */
export interface HealthState {
  readonly startedAt: number;
  readonly lastSuccess: Map<IPFamily, number>;
  /** Families with changes that are not in the kernel yet, since when. */
  readonly pendingSince: Map<IPFamily, number>;
  readonly node: () => NodeCondition | undefined;
}

/** Twice the period after which kube-proxy would retry a failed synchronisation. */
const staleMs = 60_000;

/** Whether every family's changes reach the kernel in time. */
export function rulesHealthy(state: HealthState, now: number): boolean {
  return [...state.pendingSince.values()].every((since) => now - since <= staleMs);
}

export interface HealthAnswer {
  readonly status: 200 | 503;
  readonly body: Readonly<Record<string, unknown>>;
}

/** The answer of `/healthz` (`withNode`) or `/livez`, in kube-proxy's form. */
export function healthAnswer(state: HealthState, now: number, withNode: boolean): HealthAnswer {
  const status: Record<string, unknown> = {};
  let healthy = true;
  for (const family of new Set([...state.lastSuccess.keys(), ...state.pendingSince.keys()])) {
    const pending = state.pendingSince.get(family);
    const ok = pending === undefined || now - pending <= staleMs;
    healthy &&= ok;
    const lastUpdated = state.lastSuccess.get(family) ?? state.startedAt;
    status[family] = { lastUpdated: new Date(lastUpdated).toISOString(), healthy: ok };
  }
  const eligible = state.node()?.eligible === true;
  const good = healthy && (!withNode || eligible);
  const newest = Math.max(state.startedAt, ...state.lastSuccess.values());
  return {
    status: good ? 200 : 503,
    body: {
      lastUpdated: new Date(good ? now : newest).toISOString(),
      currentTime: new Date(now).toISOString(),
      ...(withNode ? { nodeEligible: eligible } : {}),
      healthy,
      status,
    },
  };
}

export interface HealthServerOptions {
  readonly address: string;
  /** 0 = no server. */
  readonly port: number;
  readonly state: HealthState;
  readonly clock: Clock;
  readonly metrics: ProxyMetrics;
}

/**
 * Serves `/healthz` and `/livez` until the signal aborts.
 *
 * @throws {SetupError} when the port cannot be had.
 */
export async function serveHealth(
  options: HealthServerOptions,
  signal: AbortSignal,
): Promise<void> {
  const { address, port } = options;
  await listenUntilAborted(
    {
      purpose: "proxy health",
      setting: "proxyHealthzPort",
      address,
      port,
      onRequest: (request, response) => {
        answer(options, request, response);
      },
    },
    signal,
  );
}

function answer(
  { state, clock, metrics }: HealthServerOptions,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const path = (request.url ?? "/").split("?")[0];
  if (path !== "/healthz" && path !== "/livez") {
    answerText(response, 404, "404 page not found\n");
    return;
  }
  const { status, body } = healthAnswer(state, clock.now(), path === "/healthz");
  metrics.healthAnswered(path, status);
  response.writeHead(status, {
    "Content-Type": "application/json",
    "X-Content-Type-Options": "nosniff",
  });
  response.end(JSON.stringify(body));
}

/** Answers in plain text. */
export function answerText(
  response: ServerResponse,
  status: number,
  text: string,
  contentType = "text/plain; charset=utf-8",
): void {
  response.writeHead(status, {
    "Content-Type": contentType,
    "X-Content-Type-Options": "nosniff",
  });
  response.end(text);
}
