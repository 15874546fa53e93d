import type { EventRecorder } from "../api/event-types.ts";
import { ipFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { isAbort } from "../lib/errors.ts";
import { type ListeningSocket, listensOn } from "../lib/listening-sockets.ts";
import type { Logger } from "../lib/log.ts";
import type { ServiceView } from "./parse.ts";
import type { FeedListener, ServiceFeed } from "./service-feed.ts";
import { Wake } from "./wake.ts";

export interface HiddenListenersOptions {
  readonly nodeName: string;
  readonly feed: Pick<ServiceFeed, "service" | "index">;
  /** Of all interfaces of this machine. */
  readonly addresses: () => readonly string[];
  readonly listeners: () => Promise<readonly ListeningSocket[]>;
  /** Off: `spec.externalIPs` do not count. */
  readonly externalIPs: boolean;
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Changes come in bursts, and rules are more urgent. */
const settleMs = 500;

/**
 * Says when a Service takes an address and port of this machine away from a program that listens there: rules go before
 * sockets, so that an external address or that of a load balancer can cut off ssh.
 */
export class HiddenListeners implements FeedListener {
  readonly #options: HiddenListenersOptions;
  readonly #wake = new Wake();
  /** Addresses and ports that were looked at, by Service: its endpoints change much more often. */
  readonly #seen = new Map<string, string>();
  #dirty = new Set<string>();

  constructor(options: HiddenListenersOptions) {
    this.#options = options;
  }

  changed(serviceKey: string): void {
    const { feed } = this.#options;
    const service = feed.service(serviceKey);
    const wants = service === undefined ? [] : this.#addressesOf(service);
    if (service === undefined || wants.length === 0) {
      this.#seen.delete(serviceKey);
      return;
    }
    const ports = service.ports.map(({ port, protocol }) => `${port}/${protocol}`);
    const text = `${service.uid} ${wants.join()} ${ports.join()}`;
    if (text === this.#seen.get(serviceKey)) return;
    this.#seen.set(serviceKey, text);
    this.#dirty.add(serviceKey);
    this.#wake.set();
  }

  /** Looks at what changes until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, listeners } = this.#options;
    try {
      while (!signal.aborted) {
        await this.#wake.wait(signal);
        await clock.sleep(settleMs, signal);
        const dirty = this.#dirty;
        this.#dirty = new Set();
        const sockets = await listeners();
        for (const key of dirty) this.#look(key, sockets);
      }
    } catch (error) {
      if (!isAbort(error) || !signal.aborted) throw error;
    }
  }

  #look(key: string, sockets: readonly ListeningSocket[]): void {
    const { events, feed, logger, nodeName } = this.#options;
    const service = feed.service(key);
    if (service === undefined) return;
    const found = this.#hidden(service, sockets);
    if (found.length === 0) return;
    const text = found.join("; ");
    logger.log("warn", "a Service hides programs that listen on this machine", {
      service: key,
      ports: text,
    });
    const { namespace, name, uid } = service;
    events.event(
      { kind: "Service", apiVersion: "v1", namespace, name, uid },
      "Warning",
      "ServiceHidesListener",
      `node ${nodeName}: ${text}`,
    );
  }

  #hidden(service: ServiceView, sockets: readonly ListeningSocket[]): readonly string[] {
    const { feed } = this.#options;
    const here = this.#options.addresses();
    return this.#addressesOf(service).flatMap((ip) => {
      const family = ipFamily(ip);
      if (family === undefined || !here.includes(ip)) return [];
      return service.ports.flatMap(({ name, port, protocol: lower }): readonly string[] => {
        const protocol = lower.toUpperCase();
        const of = { service: service.key, portName: name, protocol: lower, family };
        // A pod of the node's own network that is asked under the same address and port.
        const leadsBack = feed.index
          .endpoints(of)
          .some((endpoint) => endpoint.port === port && here.includes(endpoint.ip));
        if (leadsBack) return [];
        const socket = sockets.find((one) => listensOn(one, { family, ip, port, protocol }));
        if (socket === undefined) return [];
        const at = socket.ip.includes(":") ? `[${socket.ip}]` : socket.ip;
        return [
          `port ${port}/${protocol} of ${ip} leads to this Service, no longer to the program of user ${socket.uid} that listens on ${at}:${port}`,
        ];
      });
    });
  }

  /** Addresses besides the ClusterIP that all ports of the Service are served on. */
  #addressesOf({ type, externalIPs, loadBalancerIPs }: ServiceView): readonly string[] {
    const external = this.#options.externalIPs ? externalIPs : [];
    return [...new Set([...external, ...(type === "LoadBalancer" ? loadBalancerIPs : [])])];
  }
}
