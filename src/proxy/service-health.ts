import { once } from "node:events";
import { createServer, type Server, type ServerResponse } from "node:http";

import type { EventRecorder } from "../api/event-types.ts";
import { errorMessage } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { ServiceView } from "./parse.ts";

/** The answer for one Service, in kube-proxy's form. */
export function serviceHealthBody(
  service: Pick<ServiceView, "namespace" | "name">,
  localEndpoints: number,
  healthy: boolean,
): string {
  const { namespace, name } = service;
  return JSON.stringify(
    { service: { namespace, name }, localEndpoints, serviceProxyHealthy: healthy },
    undefined,
    "\t",
  );
}

interface Entry {
  service: ServiceView;
  localEndpoints: number;
  server: Server | undefined;
  /** A failure was told already; it is told again only after a success. */
  failed: boolean;
}

export interface ServiceHealthOptions {
  readonly nodeName: string;
  readonly healthy: () => boolean;
  readonly events: EventRecorder;
  readonly logger: Logger;
}

/**
 * The health check ports of Services with externalTrafficPolicy Local (`spec.healthCheckNodePort`): load balancers ask
 * there whether this node has a ready endpoint. One listener per Service on all addresses of the node.
 */
export class ServiceHealthPorts {
  readonly #options: ServiceHealthOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #closing = new Set<Promise<unknown>>();

  constructor(options: ServiceHealthOptions) {
    this.#options = options;
  }

  /**
   * Says what a Service needs. Opens and closes nothing; {@link sync} does.
   *
   * @param localEndpoints Ready endpoints on this node, each address once.
   */
  set(key: string, service: ServiceView | undefined, localEndpoints: number): void {
    const known = this.#entries.get(key);
    const port = service === undefined ? 0 : healthCheckPort(service);
    if (known !== undefined && known.service.healthCheckNodePort !== port) {
      this.#close(known);
      this.#entries.delete(key);
    }
    if (service === undefined || port === 0) return;
    const entry = this.#entries.get(key);
    if (entry === undefined) {
      this.#entries.set(key, { service, localEndpoints, server: undefined, failed: false });
      return;
    }
    entry.service = service;
    entry.localEndpoints = localEndpoints;
  }

  /** True while a port could not be opened: try again later. */
  get incomplete(): boolean {
    return [...this.#entries.values()].some(({ server }) => server === undefined);
  }

  /** Opens what is wanted and not open. Failure is reported once and tried again by the next call. */
  async sync(): Promise<void> {
    await Promise.all(this.#closing);
    for (const entry of this.#entries.values()) {
      if (entry.server === undefined) await this.#open(entry);
    }
  }

  /** Closes everything. */
  async close(): Promise<void> {
    for (const entry of this.#entries.values()) this.#close(entry);
    await Promise.all(this.#closing);
  }

  async #open(entry: Entry): Promise<void> {
    const { healthCheckNodePort: port } = entry.service;
    const server = createServer((request, response) => {
      request.resume();
      this.#answer(entry, response);
    });
    try {
      // Without a host Node takes [::] for both families, or 0.0.0.0 where there is no IPv6.
      server.listen({ port });
      await once(server, "listening");
      entry.server = server;
      entry.failed = false;
    } catch (error) {
      server.close();
      if (!entry.failed) this.#report(entry.service, error);
      entry.failed = true;
    }
  }

  #report(service: ServiceView, error: unknown): void {
    const { nodeName, logger, events } = this.#options;
    const { healthCheckNodePort: port, namespace, name, uid, key } = service;
    logger.log("error", "health check port of a Service cannot be opened; will retry", {
      service: key,
      port,
      error: errorMessage(error),
    });
    events.event(
      { kind: "Service", apiVersion: "v1", namespace, name, uid },
      "Warning",
      "FailedToStartServiceHealthcheck",
      `node ${nodeName} failed to start healthcheck "${key}" on port ${port}: ${errorMessage(error)}`,
    );
  }

  #answer(entry: Entry, response: ServerResponse): void {
    const healthy = this.#options.healthy();
    const { service, localEndpoints } = entry;
    response.writeHead(healthy && localEndpoints > 0 ? 200 : 503, {
      "Content-Type": "application/json",
      "X-Content-Type-Options": "nosniff",
      "X-Load-Balancing-Endpoint-Weight": String(localEndpoints),
    });
    response.end(serviceHealthBody(service, localEndpoints, healthy));
  }

  #close(entry: Entry): void {
    const { server } = entry;
    if (server === undefined) return;
    entry.server = undefined;
    const closed = once(server, "close").finally(() => this.#closing.delete(closed));
    this.#closing.add(closed);
    server.close();
    server.closeAllConnections();
  }
}

/** The port that must answer for a Service; 0 = none. */
function healthCheckPort(service: ServiceView): number {
  return service.type === "LoadBalancer" && service.externalLocal ? service.healthCheckNodePort : 0;
}
