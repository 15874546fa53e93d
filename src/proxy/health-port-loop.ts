import type { IPFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { isAbort } from "../lib/errors.ts";
import { healthCheckPort, localReadyOf, type ServiceHealthPorts } from "./service-health.ts";
import type { FeedListener, ServiceFeed } from "./service-feed.ts";
import { Wake } from "./wake.ts";

const retryMs = 30_000;
/** Between two rounds: changes of many Services come together. */
const gapMs = 10;

/** Keeps the health check ports of Services as the API says, apart from rules: neither waits for the other's failures. */
export class HealthPortLoop implements FeedListener {
  readonly #ports: ServiceHealthPorts;
  readonly #feed: Pick<ServiceFeed, "service" | "index">;
  readonly #families: readonly { readonly family: IPFamily }[];
  readonly #clock: Clock;
  readonly #onChange: () => void;
  readonly #wake = new Wake();
  readonly #wanted = new Map<string, number>();
  #dirty = new Set<string>();

  constructor(options: {
    readonly ports: ServiceHealthPorts;
    readonly feed: Pick<ServiceFeed, "service" | "index">;
    readonly families: readonly IPFamily[];
    readonly clock: Clock;
    /** {@link wanted} changed. */
    readonly onChange: () => void;
  }) {
    this.#ports = options.ports;
    this.#feed = options.feed;
    this.#families = options.families.map((family) => ({ family }));
    this.#clock = options.clock;
    this.#onChange = options.onChange;
  }

  /** Ports that hosts which drop by default must let in, whether they could be opened or not. */
  get wanted(): readonly number[] {
    return [...new Set(this.#wanted.values())];
  }

  changed(serviceKey: string): void {
    const service = this.#feed.service(serviceKey);
    const port = service === undefined ? 0 : healthCheckPort(service);
    const before = this.#wanted.get(serviceKey) ?? 0;
    if (port === 0 && before === 0) return;
    if (port === 0) this.#wanted.delete(serviceKey);
    else this.#wanted.set(serviceKey, port);
    if (port !== before) this.#onChange();
    this.#dirty.add(serviceKey);
    this.#wake.set();
  }

  /** Looks at addresses again. */
  wake(): void {
    this.#wake.set();
  }

  /** Opens and closes until `signal` aborts; then all are closed. To be called when rules were applied once. */
  async run(signal: AbortSignal): Promise<void> {
    try {
      while (!signal.aborted) {
        await this.#wake.wait(signal);
        const dirty = this.#dirty;
        this.#dirty = new Set();
        for (const key of dirty) {
          const service = this.#feed.service(key);
          this.#ports.set(key, service, localReadyOf(service, this.#families, this.#feed.index));
        }
        await this.#ports.sync();
        if (this.#ports.incomplete) void this.#wake.setAfter(this.#clock, retryMs, signal);
        await this.#clock.sleep(gapMs, signal);
      }
    } catch (error) {
      if (!isAbort(error) || !signal.aborted) throw error;
    } finally {
      await this.#ports.close();
    }
  }
}
