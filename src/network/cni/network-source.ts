import { type FSWatcher, watch } from "node:fs";

import { errorMessage, isAbort } from "../../lib/errors.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import { networkStatus } from "./chain.ts";
import type { NetworkList } from "./config.ts";
import { directoryStamp, readConfigDirectory } from "./config-directory.ts";
import type { Plugins } from "./plugins.ts";

export interface NetworkSourceOptions {
  /** Configurations. */
  readonly directory: string;
  /** Plug-ins. */
  readonly pluginDirectories: readonly string[];
  readonly plugins: Plugins;
  /** Called when {@link NetworkSource.list} or the reason may have changed. */
  readonly onChange: () => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Notifications may be lost, the directory may come later, and nobody tells of plug-ins. */
const lookMs = 5_000;
/** Who writes one file often writes another. */
const gatherMs = 50;
/** How often plug-ins that can tell are asked whether they are ready. */
const statusMs = 15_000;

/** Follows the directory of network configurations, and which network it says. */
export class NetworkSource {
  readonly #options: NetworkSourceOptions;
  #list: NetworkList | undefined;
  #why: string;
  #stamp: string | undefined;
  #statusError: string | undefined;
  #statusDue = 0;
  #told = "";
  #watcher: FSWatcher | undefined;
  #wake: () => void = () => undefined;
  #looking: Promise<void> | undefined;

  constructor(options: NetworkSourceOptions) {
    this.#options = options;
    this.#why = `no network config found in ${options.directory}`;
  }

  /** The network of new sandboxes; undefined while none can be used. */
  get list(): NetworkList | undefined {
    return this.#list;
  }

  /** Why there is no network for pods, in the words of the runtimes of Kubernetes; undefined when there is. */
  get notReadyReason(): string | undefined {
    if (this.#list === undefined) {
      return `docker: network plugin is not ready: cni config uninitialized: ${this.#why}`;
    }
    return this.#statusError === undefined
      ? undefined
      : `Network plugin returns error: ${this.#statusError}`;
  }

  /** Looks once. Calls while one is under way wait for that one. */
  look(signal: AbortSignal): Promise<void> {
    this.#looking ??= this.#look(signal).finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  async #look(signal: AbortSignal): Promise<void> {
    const before = this.notReadyReason;
    const list = this.#list;
    try {
      await this.#read(signal);
      await this.#askStatus(signal);
    } catch (error) {
      if (isAbort(error) && signal.aborted) throw error;
      this.#list = undefined;
      this.#stamp = undefined;
      this.#why = errorMessage(error);
    }
    if (this.notReadyReason !== before || this.#list !== list) {
      this.#tellReady(before);
      this.#options.onChange();
    }
  }

  async #read(signal: AbortSignal): Promise<void> {
    const { directory, logger, pluginDirectories, plugins } = this.#options;
    const stamp = await directoryStamp(directory);
    // Without a network it may be the plug-ins that are missing, and have come.
    if (stamp === this.#stamp && this.#list !== undefined) return;
    const checked = { plugins, directories: pluginDirectories };
    const { file, list, skipped } = await readConfigDirectory(directory, checked, signal);
    const told = skipped.map(({ error, file: path }) => `${path}: ${error}`).join("\n");
    if (told !== this.#told) {
      for (const { error, file: path } of skipped) {
        logger.log("warn", "network configuration cannot be used and is skipped", {
          file: path,
          error,
        });
      }
      this.#told = told;
    }
    this.#stamp = stamp;
    const [first] = skipped;
    this.#why =
      first === undefined
        ? `no network config found in ${directory}`
        : `${first.file}: ${first.error}`;
    if (JSON.stringify(list) === JSON.stringify(this.#list)) return;
    this.#list = list;
    this.#statusError = undefined;
    this.#statusDue = 0;
    if (list === undefined) {
      logger.log("warn", "there is no network configuration any more", { directory });
    } else {
      logger.log("info", "network configuration for pods", {
        file,
        network: list.name,
        version: list.cniVersion,
        plugins: list.plugins.map(({ type }) => type).join(","),
      });
    }
  }

  async #askStatus(signal: AbortSignal): Promise<void> {
    const { clock, pluginDirectories, plugins } = this.#options;
    if (this.#list === undefined) return;
    if (this.#statusError === undefined && clock.monotonic() < this.#statusDue) return;
    try {
      await networkStatus(plugins, this.#list, pluginDirectories, signal);
      this.#statusError = undefined;
    } catch (error) {
      if (isAbort(error)) throw error;
      this.#statusError = errorMessage(error);
    }
    this.#statusDue = clock.monotonic() + statusMs;
  }

  #tellReady(before: string | undefined): void {
    const now = this.notReadyReason;
    if (now === before) return;
    const { logger } = this.#options;
    if (now === undefined) logger.log("info", "network plug-ins are ready");
    else logger.log("warn", "network plug-ins are not ready", { error: now });
  }

  /** Follows the directory until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#options;
    try {
      while (!signal.aborted) {
        const pause = new AbortController();
        this.#wake = () => pause.abort();
        this.#follow();
        try {
          await this.look(signal);
        } catch (error) {
          if (signal.aborted) return;
          logger.log("warn", "network configurations cannot be read", {
            error: errorMessage(error),
          });
        }
        await clock.sleep(gatherMs, signal).catch(() => undefined);
        const stop = AbortSignal.any([signal, pause.signal]);
        await clock.sleep(lookMs, stop).catch(() => undefined);
      }
    } finally {
      this.#watcher?.close();
      this.#watcher = undefined;
    }
  }

  #follow(): void {
    if (this.#watcher !== undefined) return;
    try {
      const watcher = watch(this.#options.directory, { persistent: false }, () => this.#wake());
      watcher.on("error", () => this.#unfollow());
      // A directory that is removed and made anew is another one, and only the old one is followed.
      watcher.on("change", (event) => {
        if (event === "rename") this.#unfollow();
      });
      this.#watcher = watcher;
    } catch {
      // Not there yet, or no inotify instance left: looking now and then is right, only slower.
    }
  }

  #unfollow(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
    this.#wake();
  }
}
