import { type Cidr, formatCidr, type IPFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage, isAbort } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import {
  type AcceptReport,
  ensureForwardAccept,
  type ForwardAccept,
  removeForwardAccept,
} from "../netfilter/forward-accept.ts";
import { installedIptables, type IptablesProgram } from "../netfilter/iptables.ts";
import type { FirewallNeeds, NodeService } from "./firewall-plan.ts";
import type { Link } from "./links.ts";
import { type FamilyLook, findObstacles } from "./obstacles.ts";

/** How long the kinds of iptables of the machine are taken for known. */
const programsMs = 10 * 60_000;

export interface FirewallsOptions {
  readonly bridge: string;
  readonly chains: { readonly forward: string; readonly input: string };
  readonly serviceMark: number;
  /** What the node itself answers and others have to let in; looked at, not opened. */
  readonly nodeServices: () => readonly NodeService[];
  readonly otherNodes: () => boolean;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** What one family's firewalls have to let pass. */
export interface FirewalledNetwork {
  readonly podCIDR: Cidr;
  /** Of the same family. */
  readonly clusterCIDRs: readonly Cidr[];
  /** Addresses of the node on which it answers DNS to its pods. */
  readonly nameServers: readonly string[];
}

/**
 * The packet rules of others on this machine: in iptables ours are put before them, in every kind of it that is in use; in
 * nftables nothing can be put before a drop, so there it is only looked for.
 */
export class Firewalls {
  readonly #options: FirewallsOptions;
  #programs: { readonly list: readonly IptablesProgram[]; readonly until: number } | undefined;

  constructor(options: FirewallsOptions) {
    this.#options = options;
  }

  /** The host's kinds of iptables; none when it has none. */
  async #iptables(signal: AbortSignal): Promise<readonly IptablesProgram[]> {
    const now = this.#options.clock.monotonic();
    if (this.#programs === undefined || this.#programs.until < now) {
      this.#programs = { list: await installedIptables(signal), until: now + programsMs };
    }
    return this.#programs.list;
  }

  /**
   * Lets forwarded traffic of pods pass, and what pods ask the node's name server.
   *
   * @param repair Whether that was done before, so that a change is worth a word.
   * @throws {ExecError}, {SetupError}, `AbortError`.
   */
  async accept(
    network: FirewalledNetwork,
    repair: boolean,
    signal: AbortSignal,
  ): Promise<readonly AcceptReport[]> {
    const { family } = network.podCIDR;
    const reports = await ensureForwardAccept(
      this.#acceptOf(network),
      await this.#iptables(signal),
      signal,
    );
    for (const { program, state } of reports) {
      if (state !== "changed" || !repair) continue;
      this.#options.logger.log("info", "forwarding of pod traffic repaired", {
        family,
        iptables: program.variant,
      });
    }
    return reports;
  }

  #acceptOf({ podCIDR, clusterCIDRs, nameServers }: FirewalledNetwork): ForwardAccept {
    const { bridge, chains, serviceMark } = this.#options;
    return {
      family: podCIDR.family,
      chain: chains.forward,
      podNetworks: [...new Set([podCIDR, ...clusterCIDRs].map(formatCidr))],
      serviceMark,
      input: {
        chain: chains.input,
        device: bridge,
        source: formatCidr(podCIDR),
        nameServers,
      },
    };
  }

  /**
   * What rules of others drop although pods need it, as sentences for people. Never fails: it is advice.
   *
   * @throws `AbortError`.
   */
  async obstacles(
    looks: readonly {
      readonly network: FirewalledNetwork;
      readonly reports: readonly AcceptReport[];
    }[],
    uplink: Link | undefined,
    signal: AbortSignal,
  ): Promise<readonly string[]> {
    const { logger } = this.#options;
    try {
      return await findObstacles(
        looks.map(({ network, reports }): FamilyLook => ({
          needs: this.#needsOf(network, uplink),
          reports,
        })),
        signal,
      );
    } catch (error) {
      if (isAbort(error)) throw error;
      logger.log("debug", "rules of other programs could not be read", {
        error: errorMessage(error),
      });
      return [];
    }
  }

  #needsOf(network: FirewalledNetwork, uplink: Link | undefined): FirewallNeeds {
    const { bridge, nodeServices, otherNodes } = this.#options;
    const { family } = network.podCIDR;
    return {
      ...network,
      family,
      bridge,
      uplink:
        uplink === undefined
          ? undefined
          : {
              device: uplink.name,
              address: uplink.addresses.find(
                ({ ip }) => ip.includes(":") === (family === "IPv6") && !ip.startsWith("fe80:"),
              )?.ip,
            },
      nodeServices: nodeServices(),
      otherNodes: otherNodes(),
    };
  }

  /** Takes our chains out of every kind of iptables. */
  async remove(families: readonly IPFamily[], signal: AbortSignal): Promise<void> {
    const programs = await this.#iptables(signal);
    for (const family of families) {
      await removeForwardAccept(family, this.#options.chains, programs, signal);
    }
  }
}
