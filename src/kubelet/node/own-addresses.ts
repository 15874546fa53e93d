import type { NodeStatus } from "../../api/types.gen.ts";
import type { AgentConfig } from "../../config/types.ts";
import { canonicalIP, type IPFamily } from "../../lib/cidr.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import {
  chooseNodeIPs,
  type HostAddress,
  internalIPs,
  nodeIPWish,
  refuseNodeIP,
} from "./choose-node-ips.ts";
import type { Host } from "./host.ts";

/**
 * How long the machine must have left by another address before that is its node's, while the old one is still there. A
 * DHCP client that renews its lease takes the default route away for a moment; each change of the node's address costs
 * certificates, routes and rules on all nodes.
 */
const settleMs = 1000;

export interface OwnAddressesOptions {
  readonly config: Pick<AgentConfig, "nodeIPs" | "nodeName">;
  readonly host: Pick<Host, "addresses" | "hasAddress" | "routeSources">;
  /** Families of the addresses that this node's pods have. */
  readonly podFamilies: () => readonly IPFamily[];
  readonly clock: Pick<Clock, "monotonic">;
  readonly logger: Logger;
}

/** What a look has found. */
export interface OwnAddressesFound {
  /** Primary first; empty when the node has none and never had. */
  readonly ips: readonly string[];
  /** Why there are none. */
  readonly why?: string;
  /** Milliseconds after which to look again; undefined: when something has changed. */
  readonly againMs?: number;
}

/**
 * Follows the addresses of a node on its machine. A machine without its address keeps what its status says, as a kubelet
 * does: a cable that is out for an hour must not cost its pods. One that never had an address has none.
 */
export class OwnAddresses {
  readonly #options: OwnAddressesOptions;
  /** Whether the node's address is gone from the machine. */
  #lost = false;
  /** What is to become the primary address, and since when. */
  #next: { readonly ip: string; readonly since: number } | undefined;

  constructor(options: OwnAddressesOptions) {
    this.#options = options;
  }

  /** Whether the node's address is gone from the machine, and only its status has it. */
  get lost(): boolean {
    return this.#lost;
  }

  async look(previous: NodeStatus): Promise<OwnAddressesFound> {
    const { config, host, podFamilies } = this.#options;
    const { fixed: configured } = nodeIPWish(config.nodeIPs);
    const before = internalIPs(previous.addresses);
    const routeSources = configured.length > 0 ? {} : await host.routeSources();
    const wanted = [...configured, ...before, ...Object.values(routeSources)];
    const present = await this.#present(wanted);
    const choice = chooseNodeIPs({
      configured: config.nodeIPs,
      nodeName: config.nodeName,
      host: present,
      routeSources,
      previous: before,
      podFamilies: podFamilies(),
    });
    if (choice.kind === "chosen") {
      this.#lost = false;
      const againMs = configured.length > 0 ? 0 : this.#unsettledMs(choice.ips, before, present);
      return againMs > 0 ? { ips: before, againMs } : { ips: choice.ips };
    }
    const kept = configured.every((ip) => before.includes(canonicalIP(ip))) ? before : [];
    if (kept.length === 0) return { ips: [], why: choice.why };
    this.#tellLost(choice.why, kept);
    return { ips: kept };
  }

  /** @returns How long to stay with the address of before; 0: not at all. */
  #unsettledMs(
    ips: readonly string[],
    before: readonly string[],
    present: readonly HostAddress[],
  ): number {
    const [[next = ""], [held]] = [ips, before];
    const isThere = held !== undefined && refuseNodeIP(held, present) === undefined;
    if (!isThere || next === held) {
      this.#next = undefined;
      return 0;
    }
    const now = this.#options.clock.monotonic();
    if (this.#next?.ip !== next) this.#next = { ip: next, since: now };
    return Math.max(this.#next.since + settleMs - now, 0);
  }

  #tellLost(why: string, kept: readonly string[]): void {
    if (this.#lost) return;
    this.#lost = true;
    this.#options.logger.log("warn", "the node's address is gone; its status keeps it", {
      ips: kept.join(","),
      error: why,
    });
  }

  /** With those of `wanted` that are there although their interface does not run: a cable that is out is no reason. */
  async #present(wanted: readonly string[]): Promise<readonly HostAddress[]> {
    const { host } = this.#options;
    const running = host.addresses();
    const resting: HostAddress[] = [];
    for (const address of new Set(wanted)) {
      if (refuseNodeIP(address, running) === undefined || host.hasAddress === undefined) continue;
      if (await host.hasAddress(address)) resting.push({ interfaceName: "", address });
    }
    return [...running, ...resting];
  }
}
