import type { ProxySettings } from "../config/types.ts";
import { errorMessage, SetupError } from "../lib/errors.ts";
import type { ProxyMode } from "./backend.ts";

/** Ways to find out what this machine can do. */
export interface BackendProbes {
  /** @returns The version of nft. @throws {SetupError} when it cannot be used, with the remedy. */
  nft(signal: AbortSignal): Promise<string>;
  /** @returns Undefined when no iptables is installed. */
  iptables(
    signal: AbortSignal,
  ): Promise<{ readonly version: string; readonly variant: string } | undefined>;
}

/** The program that writes the rules, and why it does. */
export interface ChosenBackend {
  readonly mode: ProxyMode;
  /** For people: `nft 1.0.6`, `iptables 1.8.9 (nf_tables)`. */
  readonly program: string;
  readonly reason: string;
}

const noIptables = "iptables is not installed: run `apt-get install iptables`";

/**
 * Chooses who writes the rules: nftables where this machine can do it, else iptables; or what the configuration says.
 *
 * @throws {SetupError} when neither can be used, or not the one that is wanted: each with its reason and remedy.
 */
export async function chooseBackend(
  wanted: ProxySettings["mode"],
  probes: BackendProbes,
  signal: AbortSignal,
): Promise<ChosenBackend> {
  const configured = `KubeProxyConfiguration mode ${wanted}`;
  if (wanted === "iptables") {
    const program = await iptables(probes, signal);
    if (program !== undefined) return { mode: "iptables", program, reason: configured };
    throw new SetupError(
      `${configured} cannot be done: ${noIptables}, or leave mode empty, which takes what this machine has`,
    );
  }
  let refusal: SetupError;
  try {
    const version = await probes.nft(signal);
    const reason = wanted === "nftables" ? configured : "this machine can do nftables";
    return { mode: "nftables", program: `nft ${version}`, reason };
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    refusal = error;
  }
  if (wanted === "nftables") {
    throw new SetupError(
      `${configured} cannot be done: ${errorMessage(refusal)}; or set mode: iptables`,
      { cause: refusal },
    );
  }
  const program = await iptables(probes, signal);
  if (program === undefined) {
    throw new SetupError(
      `Service rules cannot be written by nftables (${errorMessage(refusal)}) nor by iptables (${noIptables})`,
      { cause: refusal },
    );
  }
  return { mode: "iptables", program, reason: `nftables cannot be used: ${errorMessage(refusal)}` };
}

async function iptables(probes: BackendProbes, signal: AbortSignal): Promise<string | undefined> {
  const found = await probes.iptables(signal);
  return found === undefined ? undefined : `iptables ${found.version} (${found.variant})`;
}
