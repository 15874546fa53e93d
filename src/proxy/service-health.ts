import { once } from "node:events";
import type { Server } from "node:http";

import type { EventRecorder } from "../api/event-types.ts";
import type { IPFamily } from "../lib/cidr.ts";
import { errorMessage } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { answerJSON } from "./answers.ts";
import { boundedServer, closed } from "./listen.ts";
import type { ServiceView } from "./parse.ts";
import type { SliceIndex } from "./slice-index.ts";

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

/** One Service in one family: what kube-proxy has a server for. */
interface Entry {
  service: ServiceView;
  readonly family: IPFamily;
  localEndpoints: number;
  /** By address. Either all that are wanted, or none. */
  servers: ReadonlyMap<string, Server>;
  /** A failure was told already; it is told again only after a success. */
  failed: boolean;
}

export interface ServiceHealthOptions {
  readonly nodeName: string;
  readonly healthy: () => boolean;
  /** Addresses of a family that node ports answer on, as nodePortAddresses has it; undefined = all. */
  readonly addresses?: (family: IPFamily) => readonly string[] | undefined;
  readonly events: EventRecorder;
  readonly logger: Logger;
}

const wildcards = { IPv4: "0.0.0.0", IPv6: "::" } as const;

/**
 * The health check ports of Services with externalTrafficPolicy Local (`spec.healthCheckNodePort`): load balancers ask
 * there whether this node has a ready endpoint. Each family has listeners of its own, which count its endpoints.
 */
export class ServiceHealthPorts {
  readonly #options: ServiceHealthOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #closing = new Set<Promise<unknown>>();

  constructor(options: ServiceHealthOptions) {
    this.#options = options;
  }

  /**
   * Says what a Service needs. Opens nothing; {@link sync} does.
   *
   * @param localEndpoints Ready endpoints on this node, each address once, by family. What it does not name is not
   *   served.
   */
  set(
    key: string,
    service: ServiceView | undefined,
    localEndpoints: ReadonlyMap<IPFamily, number>,
  ): void {
    const port = service === undefined ? 0 : healthCheckPort(service);
    for (const family of ["IPv4", "IPv6"] as const) {
      const id = `${key} ${family}`;
      const known = this.#entries.get(id);
      const count = localEndpoints.get(family);
      const wanted = service === undefined || port === 0 || count === undefined ? false : count;
      if (known !== undefined && (wanted === false || known.service.healthCheckNodePort !== port)) {
        this.#close(known);
        this.#entries.delete(id);
      }
      if (service === undefined || wanted === false) continue;
      const entry = this.#entries.get(id);
      if (entry === undefined) {
        const fresh = {
          service,
          family,
          localEndpoints: wanted,
          servers: new Map(),
          failed: false,
        };
        this.#entries.set(id, fresh);
      } else {
        entry.service = service;
        entry.localEndpoints = wanted;
      }
    }
  }

  /** Ports that must be reachable from outside. */
  get ports(): readonly number[] {
    return [
      ...new Set([...this.#entries.values()].map(({ service }) => service.healthCheckNodePort)),
    ];
  }

  /** True while a port could not be opened: try again later. */
  get incomplete(): boolean {
    return [...this.#entries.values()].some(({ failed }) => failed);
  }

  /** Opens what is wanted and not open. Failure is reported once and tried again by the next call. */
  async sync(): Promise<void> {
    for (const entry of this.#entries.values()) {
      if (!this.#isOpen(entry)) this.#close(entry);
    }
    await Promise.all(this.#closing);
    for (const entry of this.#entries.values()) {
      if (entry.servers.size === 0) await this.#open(entry);
    }
  }

  /** Closes everything. */
  async close(): Promise<void> {
    for (const entry of this.#entries.values()) this.#close(entry);
    await Promise.all(this.#closing);
  }

  #addresses(family: IPFamily): readonly string[] {
    return this.#options.addresses?.(family) ?? [wildcards[family]];
  }

  #isOpen({ family, servers }: Entry): boolean {
    const wanted = this.#addresses(family);
    return servers.size === wanted.length && wanted.every((address) => servers.has(address));
  }

  async #open(entry: Entry): Promise<void> {
    const servers = new Map<string, Server>();
    try {
      for (const host of this.#addresses(entry.family)) {
        servers.set(host, await this.#listen(entry, host));
      }
      entry.failed = false;
      entry.servers = servers;
    } catch (error) {
      // All or nothing: the port may change its owner in between.
      await Promise.all([...servers.values()].map(closed));
      if (!entry.failed) this.#report(entry.service, error);
      entry.failed = true;
    }
  }

  async #listen(entry: Entry, host: string): Promise<Server> {
    const server = boundedServer((_, response) => {
      const healthy = this.#options.healthy();
      const { service, localEndpoints } = entry;
      response.setHeader("X-Load-Balancing-Endpoint-Weight", String(localEndpoints));
      const body = serviceHealthBody(service, localEndpoints, healthy);
      answerJSON(response, healthy && localEndpoints > 0 ? 200 : 503, body);
    });
    const port = entry.service.healthCheckNodePort;
    try {
      server.listen({ port, host, ipv6Only: entry.family === "IPv6" });
      await once(server, "listening");
    } catch (error) {
      server.close();
      throw error;
    }
    // Such as EMFILE on accept: the connection is lost, the server is not.
    server.on("error", () => undefined);
    return server;
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

  #close(entry: Entry): void {
    for (const server of entry.servers.values()) {
      const over = closed(server).finally(() => this.#closing.delete(over));
      this.#closing.add(over);
    }
    entry.servers = new Map();
  }
}

/** Ready endpoints of a Service on this node, for each of `families` that it has an address of. */
export function localReadyOf(
  service: ServiceView | undefined,
  families: readonly { readonly family: IPFamily }[],
  slices: Pick<SliceIndex, "localReady">,
): ReadonlyMap<IPFamily, number> {
  if (service === undefined) return new Map();
  const own = new Set(service.clusterIPs.map(({ family }) => family));
  const served = families.filter(({ family }) => own.has(family));
  return new Map(served.map(({ family }) => [family, slices.localReady(service.key, family)]));
}

/** The port that must answer for a Service; 0 = none. */
export function healthCheckPort(service: ServiceView): number {
  return service.type === "LoadBalancer" && service.externalLocal ? service.healthCheckNodePort : 0;
}
