import type { ApiClient } from "../api/client.ts";
import { isForbidden } from "../api/errors.ts";
import { createInformer } from "../api/informer.ts";
import type { Informer } from "../api/informer-types.ts";
import { collectionPath } from "../api/resource.ts";
import { NAMESPACES } from "../api/resources.ts";
import { jitteredBackoffMs } from "../lib/backoff.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage } from "../lib/errors.ts";
import { asRecord, asString } from "../lib/guard.ts";
import type { Logger } from "../lib/log.ts";

export interface NamespaceNamesOptions {
  readonly client: ApiClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
  readonly onChange: () => void;
}

const retry = { baseMs: 1000, maxMs: 60_000 };
const forbiddenMs = 10 * 60_000;

/**
 * The cluster's namespaces, where they may be listed: system:node-proxier alone does not say so. Without them a
 * namespace is known by its Services.
 */
export class NamespaceNames {
  readonly #options: NamespaceNamesOptions;
  readonly #informer: Informer<string>;
  #readable: boolean | undefined;

  constructor(options: NamespaceNamesOptions) {
    this.#options = options;
    this.#informer = createInformer({
      client: options.client,
      resource: NAMESPACES,
      clock: options.clock,
      logger: options.logger,
      random: options.random,
      project: (value) => {
        const metadata = asRecord(asRecord(value, "$")["metadata"], "$.metadata");
        return asString(metadata["name"], "$.metadata.name");
      },
    });
  }

  /** All names; `unknown` when nobody may list them; undefined while that is not clear. */
  names(): readonly string[] | "unknown" | undefined {
    if (this.#readable === false) return "unknown";
    return this.#informer.synced ? [...this.#informer.values()] : undefined;
  }

  async run(signal: AbortSignal): Promise<void> {
    await this.#waitUntilReadable(signal);
    const unsubscribe = this.#informer.subscribe((change) => {
      if (change.kind !== "updated") this.#options.onChange();
    });
    const synced = this.#informer.whenSynced(signal).then(
      () => this.#options.onChange(),
      () => undefined,
    );
    try {
      await this.#informer.run(signal);
    } finally {
      unsubscribe();
      await synced;
    }
  }

  async #waitUntilReadable(signal: AbortSignal): Promise<void> {
    const { client, clock, logger, random, onChange } = this.#options;
    for (let failures = 1; !signal.aborted; failures += 1) {
      try {
        const path = collectionPath(NAMESPACES);
        await client.request({ method: "GET", path, query: { limit: 1 }, signal });
        this.#readable = true;
        return;
      } catch (error) {
        signal.throwIfAborted();
        const forbidden = isForbidden(error);
        if (forbidden && this.#readable === undefined) {
          this.#readable = false;
          logger.log("info", "namespaces are not readable; those with Services are known", {
            error: errorMessage(error),
          });
          onChange();
        }
        await clock.sleep(
          forbidden ? forbiddenMs : jitteredBackoffMs(failures, retry, random),
          signal,
        );
      }
    }
  }
}
