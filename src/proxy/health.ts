import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";

import type { IPFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
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
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/** Serves `/healthz` and `/livez` until the signal aborts. A taken port is reported and tried again: rules matter more. */
export async function serveHealth(options: HealthServerOptions): Promise<void> {
  const { address, port, clock, logger, signal } = options;
  if (port === 0) return;
  while (!signal.aborted) {
    const server = createServer((request, response) => {
      answer(options, request, response);
    });
    const closed = once(server, "close");
    try {
      server.listen({ host: address, port, signal });
      await once(server, "listening", { signal });
      await closed;
    } catch (error) {
      if (signal.aborted) return;
      logger.log("error", "proxy health port cannot be opened; will retry", {
        address,
        port,
        error: errorMessage(error),
      });
      await clock.sleep(5000, signal);
    } finally {
      server.closeAllConnections();
    }
  }
}

function answer(
  { state, clock }: HealthServerOptions,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const path = (request.url ?? "/").split("?")[0];
  if (path !== "/healthz" && path !== "/livez") {
    response.writeHead(404, { "Content-Type": "text/plain; charset=utf-8" });
    response.end("404 page not found\n");
    return;
  }
  const { status, body } = healthAnswer(state, clock.now(), path === "/healthz");
  response.writeHead(status, {
    "Content-Type": "application/json",
    "X-Content-Type-Options": "nosniff",
  });
  response.end(JSON.stringify(body));
}
