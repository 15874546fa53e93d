import { ownChains, removeOwnRules } from "./left-overs/left-overs.ts";
import { defaultTableName } from "./make-family-rules.ts";
import { findOtherProxy, type OtherProxyProbe } from "./other-proxy.ts";

/**
 * Removes all Service rules, of both modes. While another proxy runs, chains in iptables stay: it has the same, and they
 * are its own by now. Flows that exist go on until their conntrack entries end.
 *
 * @throws {NftError}, {IptablesError}, `AbortError`.
 */
export async function cleanUpProxy(
  signal: AbortSignal,
  tableName: string = defaultTableName,
  find: OtherProxyProbe = findOtherProxy,
): Promise<void> {
  const alone = (await find(signal)) === undefined;
  await removeOwnRules(tableName, alone, signal);
}

/** What {@link cleanUpProxy} has left in iptables, one line each. */
export async function leftOfProxy(
  signal: AbortSignal,
  find: OtherProxyProbe = findOtherProxy,
): Promise<readonly string[]> {
  return (await find(signal)) === undefined ? ownChains(signal) : [];
}
