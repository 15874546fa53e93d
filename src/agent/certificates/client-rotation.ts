import type { HttpClient } from "../../api/http-client.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import type { PairStore } from "./pair-store.ts";
import { clientWish } from "./request-certificate.ts";
import { CertificateRotation, type RequestClient } from "./rotation.ts";
import { clientCertificateMetrics } from "./rotation-metrics.ts";

export interface ClientRotationOptions {
  readonly nodeName: string;
  readonly store: PairStore;
  /** With the certificate itself; reads its file again when that has changed. */
  readonly client: Pick<HttpClient, "onReturn" | "request" | "reset" | "watch">;
  /**
   * With what got the node its first certificate, for when that has expired.
   *
   * @throws {SetupError} one sentence with the remedy, when it is not there any more.
   */
  readonly bootstrap: () => Promise<RequestClient>;
  /** Called after each renewal. */
  readonly onIssued?: (signal: AbortSignal) => Promise<void>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** In [0, 1). */
  readonly random: () => number;
}

/** Renews the client certificate of a node; runs beside the agent. */
export interface ClientRotation {
  readonly name: string;
  run(signal: AbortSignal): Promise<void>;
  /** In the Prometheus text format. */
  metrics(): string;
}

/**
 * Renews the certificate with which a node comes to the API server. One that has expired, because the machine was off or
 * suspended for too long, is asked for anew as at the first start. Until then pods go on running.
 */
export function clientRotation(options: ClientRotationOptions): ClientRotation {
  const { client, bootstrap, nodeName, clock } = options;
  const metrics = clientCertificateMetrics();
  const wish = clientWish(nodeName);
  const rotation = new CertificateRotation({
    ...options,
    certificate: "client",
    wish: () => wish,
    connect: (current) =>
      current === undefined
        ? bootstrap()
        : Promise.resolve({ client, close: () => Promise.resolve() }),
    onReturn: (listener) => client.onReturn(listener),
    // What the old certificate has opened is let go, and the next call shows the new one.
    onIssued: async (_pair, signal) => {
      client.reset();
      await options.onIssued?.(signal);
    },
    metrics,
  });
  return {
    name: "client certificate",
    run: (signal) => rotation.run(signal),
    metrics: () => metrics.text(clock.now()),
  };
}
