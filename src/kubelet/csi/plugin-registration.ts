import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import { KeyedQueue } from "../../lib/keyed-queue.ts";
import type { Logger } from "../../lib/log.ts";
import { type CsiDrivers, RegistrationError } from "./drivers.ts";
import type { PluginInfo } from "./messages.ts";
import { registrationMethods } from "./methods.ts";
import { type RpcChannel, withRpc } from "./rpc.ts";
import { SocketDirectory, type Sockets } from "./socket-directory.ts";

/** What becomes of the drivers that register. */
export interface DriverHost {
  /**
   * Tells the cluster of a driver that {@link CsiDrivers} knows by now.
   *
   * @throws Whatever keeps it from that; the driver is told.
   */
  install(name: string, signal: AbortSignal): Promise<void>;
  /** Undoes {@link install}. */
  uninstall(name: string, signal: AbortSignal): Promise<void>;
}

export interface PluginRegistrationOptions {
  /** `ROOT/plugins_registry`. */
  readonly directory: string;
  readonly drivers: CsiDrivers;
  readonly host: DriverHost;
  readonly clock: Clock;
  readonly logger: Logger;
}

interface Registered {
  /** Which socket of that path it was. */
  readonly identity: string;
  /** Undefined for a plug-in of a type that this node refuses: it is not asked again. */
  readonly name: string | undefined;
}

const csiType = "CSIPlugin";
/** Until somebody listens on a new socket and has said what it is. */
const infoMs = 10_000;
const notifyMs = 5_000;
const concurrency = 4;
const backoff = { firstMs: 500, maxMs: 122_000 };

/** Registers the plug-ins whose sockets are in a directory (pluginregistration.v1). Of their types there is one: CSI. */
export class PluginRegistration {
  readonly #options: PluginRegistrationOptions;
  readonly #registered = new Map<string, Registered>();
  readonly #failures = new Map<string, number>();
  #wanted: Sockets = new Map();
  #queue: KeyedQueue | undefined;

  constructor(options: PluginRegistrationOptions) {
    this.#options = options;
  }

  /** Runs until `signal` aborts. What is registered stays: its driver goes on with the next agent. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, directory, logger } = this.#options;
    const queue = new KeyedQueue({
      work: (path, inner) => this.#reconcile(path, inner),
      onError: (path, error) => {
        if (isAbort(error) && signal.aborted) return;
        const failures = (this.#failures.get(path) ?? 0) + 1;
        this.#failures.set(path, failures);
        logger.log(failures === 1 ? "warn" : "debug", "plug-in was not registered, will retry", {
          path,
          attempt: failures,
          error: errorMessage(error),
        });
        queue.addAfter(path, Math.min(backoff.firstMs * 2 ** (failures - 1), backoff.maxMs));
      },
      concurrency,
      clock,
      signal,
    });
    this.#queue = queue;
    const sockets = new SocketDirectory({
      path: directory,
      clock,
      logger,
      onChange: (found) => {
        const paths = new Set([...this.#wanted.keys(), ...found.keys()]);
        const before = this.#wanted;
        this.#wanted = found;
        for (const path of paths) {
          if (before.get(path) === found.get(path)) continue;
          this.#failures.delete(path);
          queue.add(path);
        }
      },
    });
    await sockets.run(signal);
    await queue.idle();
  }

  async #reconcile(path: string, signal: AbortSignal): Promise<void> {
    const wanted = this.#wanted.get(path);
    const registered = this.#registered.get(path);
    if (registered?.identity === wanted) return;
    if (registered !== undefined) {
      this.#registered.delete(path);
      await this.#deregister(path, registered, signal);
    }
    if (wanted === undefined) return;
    const { clock } = this.#options;
    const name = await withRpc(path, clock, (channel) => this.#register(path, channel, signal));
    this.#registered.set(path, { identity: wanted, name });
    this.#failures.delete(path);
  }

  async #deregister(path: string, { name }: Registered, signal: AbortSignal): Promise<void> {
    const { drivers, host, logger } = this.#options;
    if (name === undefined) return;
    logger.log("info", "volume driver has gone", { driver: name, path });
    drivers.delete(name);
    // One that comes back under another socket writes the same facts again.
    try {
      await host.uninstall(name, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      logger.log("warn", "volume driver could not be taken out of the CSINode", {
        driver: name,
        error: errorMessage(error),
      });
    }
    // One of the same name may have been refused because of it.
    for (const other of this.#wanted.keys()) {
      if (other !== path && !this.#registered.has(other)) this.#queue?.add(other);
    }
  }

  /** Returns the driver's name; undefined when it was refused for good. */
  async #register(
    path: string,
    channel: RpcChannel,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const { drivers, host, logger } = this.#options;
    const info = await channel.call(
      registrationMethods.getInfo,
      {},
      { deadlineMs: infoMs, signal },
    );
    if (info.type !== csiType) {
      const text = `RegisterPlugin error -- no handler registered for plugin type: ${info.type} at socket ${path}`;
      logger.log("warn", "plug-in of a type that this node does not run", {
        path,
        type: info.type,
        plugin: info.name,
      });
      await this.#notify(channel, text, signal);
      return undefined;
    }
    const endpoint = info.endpoint === "" ? path : info.endpoint;
    const version = await this.#validate(info, endpoint, channel, signal);
    drivers.set({ name: info.name, endpoint, version });
    try {
      await host.install(info.name, signal);
    } catch (error) {
      signal.throwIfAborted();
      drivers.delete(info.name);
      await host.uninstall(info.name, signal).catch(() => undefined);
      const text = `RegisterPlugin error -- plugin registration failed with err: ${errorMessage(error)}`;
      await this.#notify(channel, text, signal);
      throw new RegistrationError(text, { cause: error });
    }
    try {
      await this.#notify(channel, "", signal);
    } catch (error) {
      signal.throwIfAborted();
      drivers.delete(info.name);
      await host.uninstall(info.name, signal).catch(() => undefined);
      throw new RegistrationError(
        `RegisterPlugin error -- failed to send registration status at socket ${path}, err: ${errorMessage(error)}`,
        { cause: error },
      );
    }
    logger.log("info", "volume driver registered", {
      driver: info.name,
      endpoint,
      version: version.join("."),
    });
    return info.name;
  }

  async #validate(
    info: PluginInfo,
    endpoint: string,
    channel: RpcChannel,
    signal: AbortSignal,
  ): Promise<readonly number[]> {
    const { drivers } = this.#options;
    try {
      if (info.name === "") throw new RegistrationError("driver name is empty");
      return drivers.checkVersions("ValidatePlugin", info.name, info.supportedVersions);
    } catch (error) {
      if (!(error instanceof RegistrationError)) throw error;
      const why = `validation failed for CSI Driver ${info.name} at endpoint ${endpoint}: ${error.message}`;
      const text = `RegisterPlugin error -- plugin validation failed with err: ${why}`;
      await this.#notify(channel, text, signal);
      throw new RegistrationError(text, { cause: error });
    }
  }

  async #notify(channel: RpcChannel, error: string, signal: AbortSignal): Promise<void> {
    const status = { pluginRegistered: error === "", error };
    await channel.call(registrationMethods.notify, status, { deadlineMs: notifyMs, signal });
  }
}
