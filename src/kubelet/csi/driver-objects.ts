import type { ApiClient } from "../../api/client.ts";
import { createInformer } from "../../api/informer.ts";
import type { Informer } from "../../api/informer-types.ts";
import { parseStored } from "../../api/object.ts";
import { CSI_DRIVERS } from "../../api/resources.ts";
import type { CSIDriver, CSIDriverSpec } from "../../api/types.gen.ts";
import { type Clock, within } from "../../lib/clock.ts";
import { isAbort } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { VolumeError } from "../volumes/payload.ts";

export interface DriverObjectsOptions {
  readonly client: ApiClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
}

const syncMs = 10_000;

/** The CSIDriver objects of the cluster. Followed from the first time on that somebody asks: most nodes have none. */
export class DriverObjects {
  readonly #options: DriverObjectsOptions;
  readonly #listeners = new Set<(name: string) => void>();
  #informer: Informer<CSIDriverSpec> | undefined;
  #signal: AbortSignal | undefined;
  #running: Promise<void> | undefined;

  constructor(options: DriverObjectsOptions) {
    this.#options = options;
  }

  /** Runs until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    this.#signal = signal;
    if (this.#informer !== undefined) this.#running = this.#informer.run(signal);
    if (!signal.aborted) {
      await new Promise<void>((resolve) => {
        signal.addEventListener("abort", () => resolve(), { once: true });
      });
    }
    await this.#running;
  }

  /**
   * What the cluster's administrator says of a driver; undefined where there is no such object.
   *
   * @throws {VolumeError} while that is not known.
   */
  async get(name: string, signal: AbortSignal): Promise<CSIDriverSpec | undefined> {
    const informer = this.#start();
    try {
      await within(signal, syncMs, (limited) => informer.whenSynced(limited));
    } catch (error) {
      signal.throwIfAborted();
      if (!isAbort(error)) throw error;
      throw new VolumeError("timed out waiting for the CSIDriver objects of the cluster", {
        cause: error,
      });
    }
    return informer.get(name);
  }

  /** The same without waiting. */
  known(name: string): CSIDriverSpec | undefined {
    return this.#start().get(name);
  }

  /** Calls `listener` with the name of each object that changed. Returns the function that ends it. */
  subscribe(listener: (name: string) => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  #start(): Informer<CSIDriverSpec> {
    if (this.#informer !== undefined) return this.#informer;
    const informer = createInformer<CSIDriverSpec>({
      ...this.#options,
      resource: CSI_DRIVERS,
      project: (value) => parseStored<CSIDriver>(value).spec,
    });
    informer.subscribe(({ key }) => {
      for (const listener of this.#listeners) listener(key);
    });
    this.#informer = informer;
    if (this.#signal !== undefined) this.#running = informer.run(this.#signal);
    return informer;
  }
}
