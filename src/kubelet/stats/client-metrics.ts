import type { ApiClient } from "../../api/client.ts";
import { ApiError } from "../../api/errors.ts";
import type { Clock } from "../../lib/clock.ts";
import { isAbort } from "../../lib/errors.ts";
import { Histogram, type Metric, Values } from "../../lib/metrics-text.ts";

const bounds = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60];

/** Requests to the API server, under client-go's names. */
export class ClientMetrics {
  readonly #total = new Values(
    "rest_client_requests_total",
    "counter",
    "Number of HTTP requests, partitioned by status code, method, and host.",
  );
  readonly #seconds = new Histogram(
    "rest_client_request_duration_seconds",
    "Request latency in seconds. Broken down by verb, and host.",
    bounds,
  );

  /** @param code Status of the answer; `<error>` without one. */
  requested(host: string, method: string, code: string, seconds: number): void {
    this.#total.add(1, { code, host, method });
    this.#seconds.observe(seconds, { host, verb: method });
  }

  metrics(): readonly Metric[] {
    return [this.#total, this.#seconds];
  }
}

/** The same client, whose requests are counted and timed. A watch counts when the server has accepted or refused it. */
export function measuredClient(
  client: ApiClient,
  options: {
    readonly metrics: ClientMetrics;
    /** `host:port` of the server. */
    readonly host: string;
    readonly clock: Pick<Clock, "monotonic">;
  },
): ApiClient {
  const { clock, host, metrics } = options;
  const note = (method: string, startedAt: number, code: string): void => {
    metrics.requested(host, method, code, (clock.monotonic() - startedAt) / 1000);
  };
  const failed = (method: string, startedAt: number, error: unknown): void => {
    if (isAbort(error)) return;
    note(method, startedAt, error instanceof ApiError ? String(error.status) : "<error>");
  };
  return {
    ...(client.onReturn === undefined
      ? {}
      : { onReturn: (listener: () => void) => client.onReturn?.(listener) ?? (() => undefined) }),
    async request(request) {
      const startedAt = clock.monotonic();
      try {
        const answer = await client.request(request);
        // The transport does not tell which of the 2xx it was.
        note(request.method, startedAt, request.method === "POST" ? "201" : "200");
        return answer;
      } catch (error) {
        failed(request.method, startedAt, error);
        throw error;
      }
    },
    async *watch(request) {
      const startedAt = clock.monotonic();
      let open = false;
      const onOpen = (): void => {
        open = true;
        note("GET", startedAt, "200");
        request.onOpen?.();
      };
      try {
        yield* client.watch({ ...request, onOpen });
      } catch (error) {
        if (!open) failed("GET", startedAt, error);
        throw error;
      }
    },
  };
}
