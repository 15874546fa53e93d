/** Parameters of a query string; undefined members are left out. */
export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

export type PatchType =
  | "application/json-patch+json"
  | "application/merge-patch+json"
  | "application/strategic-merge-patch+json"
  | "application/apply-patch+yaml";

export interface ApiRequest {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Absolute path, segments already encoded: `/api/v1/namespaces/default/pods/web/status`. */
  readonly path: string;
  readonly query?: Query;
  /** Serialised as JSON. */
  readonly body?: unknown;
  /** Default `application/json`; a {@link PatchType} for PATCH. */
  readonly contentType?: string;
  /** Milliseconds until the request is given up; default 30 000. */
  readonly deadlineMs?: number;
  readonly signal: AbortSignal;
}

export interface WatchRequest {
  readonly path: string;
  readonly query: Query;
  readonly signal: AbortSignal;
  /** Milliseconds without a single byte after which the stream counts as dead. */
  readonly stallMs: number;
  /** Called once when the server has accepted the watch, before the first event. */
  readonly onOpen?: () => void;
}

/**
 * The transport to one API server under one identity. Implemented over undici for the agent and in-process for the
 * embedded control plane's own controllers. Holds no cache.
 */
export interface ApiClient {
  /**
   * One request; resolves to the parsed JSON body.
   *
   * @throws {ApiError} the server answered non-2xx; {@link ApiUnavailableError} it did not answer; `AbortError`.
   */
  request(request: ApiRequest): Promise<unknown>;
  /**
   * One watch: yields each line of the stream, parsed. Ends when the server closes it.
   *
   * @throws as {@link ApiClient.request}; {@link ApiUnavailableError} also for a stalled or torn stream.
   */
  watch(request: WatchRequest): AsyncIterable<unknown>;
  /**
   * Calls `listener` each time the server answers again after it did not for a while, so that whoever waits for a retry
   * can make it. The listener must not throw. Returns the function that ends the subscription.
   */
  onReturn?(listener: () => void): () => void;
}
