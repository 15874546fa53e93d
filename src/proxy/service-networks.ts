import type { ApiClient } from "../api/client.ts";
import { isForbidden, isNotFound } from "../api/errors.ts";
import type { Informer } from "../api/informer-types.ts";
import { collectionPath } from "../api/resource.ts";
import { SERVICE_CIDRS } from "../api/resources.ts";
import { jitteredBackoffMs } from "../lib/backoff.ts";
import { formatCidr, parseCidr } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
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
  readonly informer: Informer<readonly string[]>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
}

const retry = { baseMs: 1000, maxMs: 60_000 };
/** A server without ServiceCIDRs (before 1.33, or an embedded one) may be updated while we run. */
const absentMs = 10 * 60_000;

/**
 * Follows the cluster's ServiceCIDRs (KEP-1880) where the server has them and lets us read them. Nothing else depends
 * on them: without them, packets to unallocated ClusterIPs go where the default route goes.
 */
export async function followServiceNetworks(
  options: ServiceNetworksOptions,
  signal: AbortSignal,
): Promise<void> {
  const { client, informer, clock, logger, random } = options;
  for (let failures = 1, told = false; !signal.aborted; failures += 1) {
    try {
      const path = collectionPath(SERVICE_CIDRS);
      await client.request({ method: "GET", path, query: { limit: 1 }, signal });
      break;
    } catch (error) {
      if (isAbort(error) && signal.aborted) throw error;
      const absent = isNotFound(error) || isForbidden(error);
      if (!told) {
        logger.log(
          "info",
          "ServiceCIDRs are not readable; unallocated ClusterIPs are not refused",
          {
            error: errorMessage(error),
          },
        );
        told = true;
      }
      await clock.sleep(absent ? absentMs : jitteredBackoffMs(failures, retry, random), signal);
    }
  }
  await informer.run(signal);
}
