import type { ApiClient } from "../../api/client.ts";
import type { AgentConfig } from "../../config/types.ts";
import { type Clock, notNeeded } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { StepHook } from "../steps.ts";
import type { NodeView } from "../types.ts";
import type { VolumesInUse } from "../volumes/in-use.ts";
import { type Mounter, systemMounter } from "../volumes/mounter.ts";
import { removeTree } from "../volumes/remove-tree.ts";
import { Attachments } from "./attachments.ts";
import { CsiNodeObject, type DriverNodeInfo } from "./csi-node.ts";
import { withDriver } from "./driver-connection.ts";
import { DriverObjects } from "./driver-objects.ts";
import { CsiDrivers } from "./drivers.ts";
import { nodeMethods } from "./methods.ts";
import { type CsiPaths, csiPaths } from "./paths.ts";
import { PluginRegistration } from "./plugin-registration.ts";
import { Staging } from "./staging.ts";

export interface CsiOptions {
  readonly config: Pick<AgentConfig, "nodeName" | "rootDir">;
  /** Identity `system:node:NAME`. */
  readonly client: ApiClient;
  readonly node: NodeView;
  /** What the node's status reports. */
  readonly inUse: VolumesInUse;
  readonly clock: Clock;
  readonly logger: Logger;
  /** In [0, 1). */
  readonly random: () => number;
  readonly step: StepHook;
  /** Default: the machine's own mount table. */
  readonly mounter?: Pick<Mounter, "table">;
}

/** What a node knows of Container Storage Interface drivers, and the volumes they have staged on it. */
export interface Csi {
  /** Runs until `signal` aborts; volumes stay as they are. */
  run(signal: AbortSignal): Promise<void>;
  readonly paths: CsiPaths;
  readonly drivers: CsiDrivers;
  readonly driverObjects: DriverObjects;
  readonly attachments: Attachments;
  readonly staging: Staging;
  /**
   * The controllers say that no more volumes fit on the node: asks the driver again how many it can have.
   *
   * @returns Whether the driver's CSIDriver object wants that (`nodeAllocatableUpdatePeriodSeconds`).
   */
  recount(driver: string, signal: AbortSignal): Promise<boolean>;
  /** Notes that a pod cannot go on without this driver. */
  waitForDriver(driver: string, podUID: string): void;
  /** The pod waits for no driver any more. */
  forget(podUID: string): void;
  /** Calls `listener` with each pod that waited for a driver that has registered. Returns the function that ends it. */
  onDriver(listener: (podUID: string) => void): () => void;
}

const firstRetryMs = 1000;
const maxRetryMs = 30_000;

class CsiHalf implements Csi {
  readonly paths: CsiPaths;
  readonly drivers = new CsiDrivers();
  readonly driverObjects: DriverObjects;
  readonly attachments: Attachments;
  readonly staging: Staging;
  readonly #options: CsiOptions;
  readonly #csiNode: CsiNodeObject;
  /** Ends the periodic questions to a driver, by its name. */
  readonly #updates = new Map<
    string,
    { readonly seconds: number; readonly stop: AbortController }
  >();
  readonly #running = new Set<Promise<void>>();
  /** Pods by the driver that they wait for. */
  readonly #waiting = new Map<string, Set<string>>();

  constructor(options: CsiOptions) {
    this.#options = options;
    const { config, mounter = systemMounter } = options;
    this.paths = csiPaths(config.rootDir);
    this.driverObjects = new DriverObjects(options);
    this.attachments = new Attachments({ ...options, nodeName: config.nodeName });
    this.#csiNode = new CsiNodeObject({ ...options, nodeName: config.nodeName });
    this.staging = new Staging({
      ...options,
      rootDir: config.rootDir,
      paths: this.paths,
      drivers: this.drivers,
      mounter,
      removeTree,
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    const registration = new PluginRegistration({
      directory: this.paths.registry,
      drivers: this.drivers,
      host: {
        install: (name, inner) => this.#install(name, inner),
        uninstall: (name, inner) => this.#csiNode.uninstall(name, inner),
      },
      clock: this.#options.clock,
      logger: this.#options.logger,
    });
    const follow = (name: string): void => this.#followCount(name, signal);
    const unsubscribes = [this.drivers.subscribe(follow), this.driverObjects.subscribe(follow)];
    try {
      await Promise.all([
        this.#announce(registration, signal),
        this.driverObjects.run(signal),
        this.staging.run(signal),
      ]);
    } finally {
      for (const unsubscribe of unsubscribes) unsubscribe();
      await Promise.all(this.#running);
    }
  }

  async recount(driver: string, signal: AbortSignal): Promise<boolean> {
    const spec = await this.driverObjects.get(driver, signal);
    if ((spec?.nodeAllocatableUpdatePeriodSeconds ?? 0) === 0) return false;
    await this.#update(driver, signal);
    return true;
  }

  waitForDriver(driver: string, podUID: string): void {
    const waiting = this.#waiting.get(driver) ?? new Set<string>();
    waiting.add(podUID);
    this.#waiting.set(driver, waiting);
  }

  forget(podUID: string): void {
    for (const waiting of this.#waiting.values()) waiting.delete(podUID);
  }

  onDriver(listener: (podUID: string) => void): () => void {
    return this.drivers.subscribe((name) => {
      if (this.drivers.get(name) === undefined) return;
      const waiting = this.#waiting.get(name) ?? [];
      this.#waiting.delete(name);
      for (const uid of waiting) listener(uid);
    });
  }

  /** Drivers register once the cluster knows the node. */
  async #announce(registration: PluginRegistration, signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#options;
    await this.#registered(signal);
    let reported = "";
    for (let waitMs = firstRetryMs; !signal.aborted; waitMs = Math.min(waitMs * 2, maxRetryMs)) {
      try {
        await this.#csiNode.ensure(signal);
        break;
      } catch (error) {
        if (signal.aborted) return;
        const message = errorMessage(error);
        logger.log(message === reported ? "debug" : "warn", "CSINode could not be written", {
          error: message,
        });
        reported = message;
        await clock.sleep(waitMs, signal).catch(() => undefined);
      }
    }
    if (!signal.aborted) await registration.run(signal);
  }

  /** Resolves when there is a Node object, or when `signal` aborts. */
  async #registered(signal: AbortSignal): Promise<void> {
    const { node } = this.#options;
    if (node.node() !== undefined || signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const unsubscribe = node.subscribe(() => {
      if (node.node() !== undefined) resolve();
    });
    const onAbort = (): void => resolve();
    signal.addEventListener("abort", onAbort, { once: true });
    await promise;
    signal.removeEventListener("abort", onAbort);
    unsubscribe();
  }

  async #info(name: string, signal: AbortSignal): Promise<DriverNodeInfo> {
    const deps = { drivers: this.drivers, clock: this.#options.clock };
    const answer = await withDriver(
      deps,
      name,
      (driver) => driver.call(nodeMethods.getInfo, {}),
      signal,
    );
    return {
      nodeID: answer.nodeId,
      maxVolumes: answer.maxVolumesPerNode,
      topology: answer.accessibleTopology?.segments ?? {},
    };
  }

  async #install(name: string, signal: AbortSignal): Promise<void> {
    await this.#csiNode.install(name, await this.#info(name, signal), signal);
  }

  async #update(name: string, signal: AbortSignal): Promise<void> {
    await this.#csiNode.update(name, await this.#info(name, signal), signal);
  }

  /** Starts or ends the periodic question to a driver how many volumes fit (KEP-4876). */
  #followCount(name: string, signal: AbortSignal): void {
    const spec = this.drivers.get(name) && this.driverObjects.known(name);
    const seconds = spec?.nodeAllocatableUpdatePeriodSeconds ?? 0;
    const running = this.#updates.get(name);
    if ((running?.seconds ?? 0) === seconds || signal.aborted) return;
    running?.stop.abort(notNeeded);
    this.#updates.delete(name);
    if (seconds === 0) return;
    const stop = new AbortController();
    this.#updates.set(name, { seconds, stop });
    const work = this.#updateEach(name, seconds, AbortSignal.any([signal, stop.signal]));
    this.#running.add(work);
    void work.finally(() => this.#running.delete(work));
  }

  async #updateEach(name: string, seconds: number, signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#options;
    while (!signal.aborted) {
      try {
        await clock.sleep(seconds * 1000, signal);
        await this.#update(name, signal);
      } catch (error) {
        if (signal.aborted) return;
        logger.log("warn", "volume driver could not be asked how many volumes fit", {
          driver: name,
          error: errorMessage(error),
        });
      }
    }
  }
}

/** Does nothing before {@link Csi.run}. */
export function createCsi(options: CsiOptions): Csi {
  return new CsiHalf(options);
}
