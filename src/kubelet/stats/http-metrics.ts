import {
  defaultBounds,
  Histogram,
  type Labels,
  type Metric,
  Values,
} from "../../lib/metrics-text.ts";

/** One request to the node's own API. */
export interface ServedRequest {
  readonly method: string;
  /** Path of the page, never what somebody filled in. */
  readonly path: string;
  readonly longRunning: boolean;
}

function labelsOf({ longRunning, method, path }: ServedRequest): Labels {
  return { long_running: String(longRunning), method, path, server_type: "readwrite" };
}

/** Requests that the node's API answers, under upstream's names. */
export class HttpMetrics {
  readonly #total = new Values(
    "kubelet_http_requests_total",
    "counter",
    "Number of the http requests received since the server started",
  );
  readonly #seconds = new Histogram(
    "kubelet_http_requests_duration_seconds",
    "Duration in seconds to serve http requests",
    defaultBounds,
  );
  readonly #inflight = new Values(
    "kubelet_http_inflight_requests",
    "gauge",
    "Number of the inflight http requests",
  );
  readonly #webSockets = new Values(
    "kubelet_websocket_streaming_requests_total",
    "counter",
    "Total number of WebSocket streaming requests (exec/attach/portforward) received by the kubelet.",
  );

  /** A request has come. */
  began(request: ServedRequest): void {
    const labels = labelsOf(request);
    this.#total.add(1, labels);
    this.#inflight.add(1, labels);
  }

  /** It has been answered, or its connection is gone. */
  ended(request: ServedRequest, seconds: number): void {
    const labels = labelsOf(request);
    this.#inflight.add(-1, labels);
    this.#seconds.observe(seconds, labels);
  }

  webSocket(subresource: string): void {
    this.#webSockets.add(1, { subresource });
  }

  metrics(): readonly Metric[] {
    return [this.#total, this.#seconds, this.#inflight, this.#webSockets];
  }
}
