/** What callers of port 10250 may cost. Times are milliseconds, under the names that node:http and node:tls have for them. */
export interface ServerBounds {
  /** Connections at a time, of everybody. */
  readonly maxConnections: number;
  /** Connections at a time that have not yet said who they are; the oldest makes room for a new one. */
  readonly maxStrangers: number;
  /** Requests that may wait on one connection for the answer to the one before them. */
  readonly maxPipelined: number;
  /** Bytes of a request's line and headers together. */
  readonly maxHeaderSize: number;
  readonly handshakeTimeout: number;
  readonly headersTimeout: number;
  readonly requestTimeout: number;
  /** How often the two above are looked at. */
  readonly connectionsCheckingInterval: number;
  /** How long a connection is kept without a request. */
  readonly keepAliveTimeout: number;
}

/** Upstream bounds headers by 1 MiB, requests by 4 hours, and neither handshakes nor connections. */
export const serverBounds: ServerBounds = {
  maxConnections: 4096,
  maxStrangers: 256,
  // No client of a kubelet pipelines.
  maxPipelined: 8,
  // A command to execute travels in the request's line; the kernel takes 128 KiB for each of its arguments.
  maxHeaderSize: 256 * 1024,
  handshakeTimeout: 10_000,
  headersTimeout: 15_000,
  requestTimeout: 60_000,
  connectionsCheckingInterval: 15_000,
  // As upstream: API servers keep idle connections that long too.
  keepAliveTimeout: 90_000,
};
