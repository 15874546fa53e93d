import type { IncomingMessage, ServerResponse } from "node:http";

import type { IPFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { answerJSON, answerNotFound } from "./answers.ts";
import { listenUntilAborted, type ListenOptions } from "./listen.ts";
import type { ProxyMetrics } from "./metrics.ts";
import type { NodeCondition } from "./node-condition.ts";

/** What the health answers are made of; the proxy writes it. Times are milliseconds since the epoch. */
export interface HealthState {
  readonly startedAt: number;
  /** Families that are served, from the start on; default: those that the maps know. */
  readonly families?: Iterable<IPFamily>;
  readonly lastSuccess: Map<IPFamily, number>;
  /** Families with changes that are not in the kernel yet, since when. */
  readonly pendingSince: Map<IPFamily, number>;
  /** How late changes may be, milliseconds: twice `syncPeriod`; default a minute. */
  readonly staleMs?: number;
  readonly node: () => Pick<NodeCondition, "eligible"> | undefined;
}

function isLate(state: HealthState, family: IPFamily, now: number): boolean {
  const since = state.pendingSince.get(family);
  return since !== undefined && now - since >= (state.staleMs ?? 60_000);
}

/** Whether every family's changes reach the kernel in time. */
export function rulesHealthy(state: HealthState, now: number): boolean {
  return [...state.pendingSince.keys()].every((family) => !isLate(state, family, now));
}

export interface HealthAnswer {
  readonly status: 200 | 503;
  readonly body: Readonly<Record<string, unknown>>;
}

/**
 * The answer of `/healthz` (`withNode`) or `/livez`, in kube-proxy's form. A good answer says now as `lastUpdated`, also
 * when nothing changed for hours: who wrote a check for older versions looks at its age.
 */
export function healthAnswer(state: HealthState, now: number, withNode: boolean): HealthAnswer {
  const status: Record<string, unknown> = {};
  const known = [...(state.families ?? []), ...state.lastSuccess.keys()];
  for (const family of new Set([...known, ...state.pendingSince.keys()])) {
    const lastUpdated = state.lastSuccess.get(family) ?? state.startedAt;
    status[family] = {
      lastUpdated: new Date(lastUpdated).toISOString(),
      healthy: !isLate(state, family, now),
    };
  }
  const healthy = rulesHealthy(state, now);
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

export interface HealthServerOptions extends Pick<ListenOptions, "address" | "port" | "retry"> {
  readonly state: HealthState;
  readonly clock: Clock;
  readonly metrics: ProxyMetrics;
}

/**
 * Serves `/healthz` and `/livez` until the signal aborts.
 *
 * @throws {SetupError} when the port cannot be had and is not to be waited for.
 */
export async function serveHealth(
  options: HealthServerOptions,
  signal: AbortSignal,
): Promise<void> {
  const { address, port, retry } = options;
  await listenUntilAborted(
    {
      purpose: "proxy health",
      setting: "proxyHealthzPort",
      address,
      port,
      retry,
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
    answerNotFound(response);
    return;
  }
  const { status, body } = healthAnswer(state, clock.now(), path === "/healthz");
  metrics.healthAnswered(path, status);
  answerJSON(response, status, JSON.stringify(body));
}
