import { jitteredBackoffMs } from "../lib/backoff.ts";
import type { IPFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage, isAbort } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { IptablesVariant } from "../netfilter/iptables.ts";
import type { RuleBackend } from "./backend.ts";
import { IptablesBackend } from "./iptables/backend.ts";
import { type InUse, removeLeftOvers } from "./left-overs/left-overs.ts";

const retry = { baseMs: 1000, maxMs: 60_000 };
const mostAttempts = 10;

/**
 * Makes our rules the only ones: removes those of a kube-proxy that ran here, and ours of another mode. Only while no
 * other proxy runs, and with our rules in the kernel. Nobody is interrupted: until the end both sets of rules are there,
 * and connections stay where conntrack has them.
 *
 * @throws `AbortError`. What cannot be removed after some attempts is logged and left.
 */
export async function takeOver(
  inUse: InUse,
  by: { readonly clock: Clock; readonly logger: Logger; readonly random: () => number },
  signal: AbortSignal,
): Promise<void> {
  const { clock, logger, random } = by;
  for (let failures = 1; failures <= mostAttempts; failures += 1) {
    let errors: readonly string[];
    try {
      const { removed, failures: left } = await removeLeftOvers(inUse, signal);
      if (removed.length > 0) {
        logger.log("info", "service rules that are not used any more were removed", {
          removed: removed.join(", "),
        });
      }
      if (left.length === 0) return;
      errors = left;
    } catch (error) {
      if (isAbort(error) && signal.aborted) throw error;
      errors = [errorMessage(error)];
    }
    logger.log("warn", "service rules of another proxy could not be removed", {
      errors: errors.join("; "),
    });
    await clock.sleep(jitteredBackoffMs(failures, retry, random), signal);
  }
}

/** The kind of iptables that has the rules of each family; none of families that are written by nftables. */
export function iptablesVariants(
  backends: ReadonlyMap<IPFamily, RuleBackend>,
): ReadonlyMap<IPFamily, IptablesVariant> {
  const found = new Map<IPFamily, IptablesVariant>();
  for (const [family, backend] of backends) {
    if (!(backend instanceof IptablesBackend)) continue;
    // It has rules in the kernel, so it knows where.
    if (backend.variant !== undefined) found.set(family, backend.variant);
  }
  return found;
}
