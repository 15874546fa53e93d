import type { IPFamily } from "../lib/cidr.ts";
import { errorMessage, SetupError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { NftError } from "../netfilter/errors.ts";
import {
  Iptables,
  IptablesError,
  type IptablesProgram,
  probeIptables,
} from "../netfilter/iptables.ts";
import { probeNft } from "../netfilter/probe.ts";
import type { NodeRules } from "./node-rules.ts";
import { NftablesNodeRules } from "./rules.ts";
import { IptablesNodeRules, removeIptablesNodeRules } from "./rules-iptables.ts";

export type RulesProgram = "nftables" | "iptables";

/** Whoever writes the rules on this machine, in both families. */
export type ChosenRules = Readonly<Record<IPFamily, NodeRules>>;

export interface RulesOptions {
  /** nftables table. */
  readonly tableName: string;
  /** Of the names of chains in iptables' tables. */
  readonly chainPrefix: string;
  /** Undefined: nftables where this machine can do it, else iptables, as for Services. */
  readonly program: RulesProgram | undefined;
  readonly logger: Logger;
}

const families: readonly IPFamily[] = ["IPv4", "IPv6"];

/**
 * Chooses who writes the rules, and removes those that the other wrote in an earlier life of this node.
 *
 * @throws {SetupError} when neither can: with the reasons and the remedy. `AbortError`.
 */
export async function chooseRules(
  options: RulesOptions,
  signal: AbortSignal,
): Promise<ChosenRules> {
  const { chainPrefix, program, tableName } = options;
  const refusal = program === "iptables" ? undefined : await nftRefusal(signal);
  if (program !== "iptables" && refusal === undefined) {
    await removeOthers(options, undefined, signal);
    return {
      IPv4: new NftablesNodeRules("IPv4", tableName),
      IPv6: new NftablesNodeRules("IPv6", tableName),
    };
  }
  const found = program === "nftables" ? undefined : await probeIptables(signal);
  if (found === undefined) {
    throw new SetupError(
      `packet rules of pods cannot be written by nftables (${refusal?.message ?? "not asked"}) nor by iptables (not installed: run \`apt-get install iptables\`)`,
      { cause: refusal },
    );
  }
  options.logger.log("info", "packet rules of pods are written by iptables", {
    version: found.version,
    variant: found.variant,
    reason: refusal?.message ?? "configured",
  });
  for (const family of families) await removeNftTable(family, tableName, signal);
  await removeOthers(options, found.variant, signal);
  return {
    IPv4: new IptablesNodeRules(new Iptables("IPv4", found), chainPrefix),
    IPv6: new IptablesNodeRules(new Iptables("IPv6", found), chainPrefix),
  };
}

async function nftRefusal(signal: AbortSignal): Promise<SetupError | undefined> {
  try {
    await probeNft(signal);
    return undefined;
  } catch (error) {
    if (error instanceof SetupError) return error;
    throw error;
  }
}

/** What cannot be removed now harms less than pods without a network. */
async function removeOthers(
  { chainPrefix, logger }: RulesOptions,
  spare: IptablesProgram["variant"] | undefined,
  signal: AbortSignal,
): Promise<void> {
  for (const family of families) {
    try {
      await removeIptablesNodeRules(family, chainPrefix, signal, spare);
    } catch (error) {
      if (!(error instanceof IptablesError)) throw error;
      logger.log("warn", "packet rules of pods that iptables has could not be looked for", {
        family,
        error: errorMessage(error),
      });
    }
  }
}

/** An nft that is too old for the rules can still take them away. */
async function removeNftTable(
  family: IPFamily,
  tableName: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    await new NftablesNodeRules(family, tableName).remove(signal);
  } catch (error) {
    if (!(error instanceof SetupError || error instanceof NftError)) throw error;
  }
}

/** Removes the rules of either, in both families. Nothing there is success. */
export async function removeRules(
  { chainPrefix, tableName }: Pick<RulesOptions, "chainPrefix" | "tableName">,
  signal: AbortSignal,
): Promise<void> {
  for (const family of families) {
    await removeNftTable(family, tableName, signal);
    await removeIptablesNodeRules(family, chainPrefix, signal);
  }
}
