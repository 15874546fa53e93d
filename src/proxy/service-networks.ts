import type { ApiClient } from "../api/client.ts";
import { isForbidden, isNotFound } from "../api/errors.ts";
import type { Informer } from "../api/informer-types.ts";
import { collectionPath } from "../api/resource.ts";
import { SERVICE_CIDRS } from "../api/resources.ts";
import { jitteredBackoffMs } from "../lib/backoff.ts";
import { formatCidr, parseCidr } from "../lib/cidr.ts";
import { type Clock, deadline } from "../lib/clock.ts";
import { errorMessage, isAbort } from "../lib/errors.ts";
import { asRecord, isRecord } from "../lib/guard.ts";
import type { Logger } from "../lib/log.ts";

/** The networks of one ServiceCIDR; what is no network is left out. @throws {ParseError} when it is no object. */
export function parseServiceCIDR(value: unknown): readonly string[] {
  const spec = asRecord(value, "$")["spec"];
  const listed: unknown = isRecord(spec) ? spec["cidrs"] : undefined;
  return (Array.isArray(listed) ? listed : []).flatMap((text: unknown) => {
    try {
      return typeof text === "string" ? [formatCidr(parseCidr(text))] : [];
    } catch {
      return [];
    }
  });
}

export interface ServiceNetworksOptions {
  readonly client: ApiClient;
  /** Networks that are known without the server. */
  readonly fixed: readonly string[];
  readonly informer: Informer<readonly string[]>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
  /** Gets all networks, at the start and after each change. */
  readonly onChange: (cidrs: readonly string[]) => void;
}

const retry = { baseMs: 1000, maxMs: 60_000 };
/** A server without ServiceCIDRs (before 1.33, or an embedded one) may be updated while we run. */
const absentMs = 10 * 60_000;
const patienceMs = 2000;

/**
 * Follows the cluster's ServiceCIDRs (KEP-1880) where the server has them and lets us read them. Nothing else depends
 * on them: without them, packets to unallocated ClusterIPs go where the default route goes.
 */
export class ServiceNetworks {
  readonly #options: ServiceNetworksOptions;
  readonly #absent = Promise.withResolvers<void>();

  constructor(options: ServiceNetworksOptions) {
    this.#options = options;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { informer, fixed, onChange } = this.#options;
    onChange(fixed);
    await this.#waitUntilReadable(signal);
    const unsubscribe = informer.subscribe(() => {
      onChange([...fixed, ...[...informer.values()].flat()]);
    });
    try {
      await informer.run(signal);
    } finally {
      unsubscribe();
    }
  }

  /** Resolves when the networks are known, or it is clear that they will not be for now. */
  async whenKnown(signal: AbortSignal): Promise<void> {
    const patience = deadline(signal, patienceMs);
    try {
      await Promise.race([this.#options.informer.whenSynced(patience), this.#absent.promise]);
    } catch (error) {
      if (signal.aborted) throw error;
    }
  }

  async #waitUntilReadable(signal: AbortSignal): Promise<void> {
    const { client, clock, logger, random } = this.#options;
    for (let failures = 1; !signal.aborted; failures += 1) {
      try {
        const path = collectionPath(SERVICE_CIDRS);
        await client.request({ method: "GET", path, query: { limit: 1 }, signal });
        return;
      } catch (error) {
        if (isAbort(error) && signal.aborted) throw error;
        if (failures === 1) {
          logger.log(
            "info",
            "ServiceCIDRs are not readable; packets to unallocated ClusterIPs leave the node",
            {
              error: errorMessage(error),
            },
          );
          this.#absent.resolve();
        }
        const absent = isNotFound(error) || isForbidden(error);
        await clock.sleep(absent ? absentMs : jitteredBackoffMs(failures, retry, random), signal);
      }
    }
  }
}
