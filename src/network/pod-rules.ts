import type { IPFamily } from "../lib/cidr.ts";
import { type ChosenRules, chooseRules, removeRules, type RulesOptions } from "./choose-rules.ts";
import { type HostPortMapping, leaseMappings, planHostPorts } from "./host-ports.ts";
import type { Lease } from "./leases.ts";
import type { RuleContext } from "./node-rules.ts";
import { forgetFlowsPastHostPorts, forgetUDPFlows } from "./udp-flows.ts";

const families: readonly IPFamily[] = ["IPv4", "IPv6"];

export interface PodRulesOptions extends RulesOptions {
  /** All leases, the oldest first. */
  readonly leases: () => Iterable<Lease>;
}

/** Keeps the packet rules of a node's pods in step with their leases. Calls must not overlap. */
export class PodRules {
  readonly #options: PodRulesOptions;
  #chosen: Promise<ChosenRules> | undefined;
  readonly #contexts = new Map<IPFamily, RuleContext>();
  /** The host ports that the kernel was told last; missing while that is not known. */
  readonly #written = new Map<IPFamily, readonly HostPortMapping[]>();
  /** Sandboxes that still have a lease, but no host ports any more. */
  readonly #closed = new Set<string>();

  constructor(options: PodRulesOptions) {
    this.#options = options;
  }

  #rules(signal: AbortSignal): Promise<ChosenRules> {
    this.#chosen ??= chooseRules(this.#options, signal).catch((error: unknown) => {
      this.#chosen = undefined;
      throw error;
    });
    return this.#chosen;
  }

  #plan(family: IPFamily): readonly HostPortMapping[] {
    const open = [...this.#options.leases()].filter(
      ({ sandboxID }) => !this.#closed.has(sandboxID),
    );
    return planHostPorts(family, open);
  }

  /** Looks at all rules of one family. @returns Whether they had to be written. @throws as `NodeRules.ensure`. */
  async ensure(context: RuleContext, signal: AbortSignal): Promise<boolean> {
    const { family } = context;
    this.#contexts.set(family, context);
    const mappings = this.#plan(family);
    this.#written.delete(family);
    const changed = await (await this.#rules(signal))[family].ensure(context, mappings, signal);
    this.#written.set(family, mappings);
    return changed;
  }

  /** Brings host ports to what the leases say. */
  async #follow(signal: AbortSignal): Promise<void> {
    const chosen = await this.#rules(signal);
    for (const family of families) {
      const context = this.#contexts.get(family);
      const from = this.#written.get(family);
      if (context === undefined) continue;
      const to = this.#plan(family);
      this.#written.delete(family);
      // Others have been at the rules: the leases know better.
      const done = from !== undefined && (await chosen[family].change(from, to, signal));
      if (!done) await chosen[family].ensure(context, to, signal);
      this.#written.set(family, to);
    }
  }

  /**
   * Takes away what an earlier process wrote for a lease, while nobody knows the node's networks and so what else there
   * should be.
   */
  async #withdraw(
    before: (family: IPFamily) => readonly HostPortMapping[],
    signal: AbortSignal,
  ): Promise<void> {
    const chosen = await this.#rules(signal);
    for (const family of families) {
      if (!this.#contexts.has(family))
        await chosen[family].change(before(family), this.#plan(family), signal);
    }
  }

  /** Opens the host ports of a lease. @throws as `NodeRules.change`. */
  async open(lease: Lease, signal: AbortSignal): Promise<void> {
    if (lease.hostPorts.length === 0) return;
    await this.#follow(signal);
    for (const family of families) {
      const udp = leaseMappings(family, lease).filter(({ protocol }) => protocol === "UDP");
      await forgetFlowsPastHostPorts(family, udp, signal);
    }
  }

  /** Closes the host ports of a lease, which is told by {@link released} when it is gone. @throws as {@link open}. */
  async close(lease: Lease, signal: AbortSignal): Promise<void> {
    if (lease.hostPorts.length === 0) return;
    const before = new Map(families.map((family) => [family, this.#plan(family)]));
    this.#closed.add(lease.sandboxID);
    await this.#withdraw((family) => before.get(family) ?? [], signal);
    await this.#follow(signal);
    if (!lease.hostPorts.some(({ protocol }) => protocol === "UDP")) return;
    for (const ip of lease.ips) await forgetUDPFlows(ip, signal);
  }

  released(sandboxID: string): void {
    this.#closed.delete(sandboxID);
  }

  /** Removes all rules, whoever wrote them. Nothing there is success. */
  async remove(signal: AbortSignal): Promise<void> {
    this.#contexts.clear();
    this.#written.clear();
    this.#chosen = undefined;
    await removeRules(this.#options, signal);
  }
}
