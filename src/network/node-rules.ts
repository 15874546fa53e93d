import { type Cidr, formatCidr, type IPFamily } from "../lib/cidr.ts";
import type { HostPortMapping } from "./host-ports.ts";

/** What the rules of one family depend on. */
export interface RuleContext {
  readonly family: IPFamily;
  readonly bridge: string;
  /** The node's own pod network of this family. */
  readonly podCIDR: Cidr;
  /** Networks that pods reach under their own address. */
  readonly clusterCIDRs: readonly Cidr[];
  /** Addresses that the node answers on for itself, as its name server does: host ports are not served there. */
  readonly localAddresses?: readonly string[];
}

/**
 * The rules for traffic of pods in one family, whatever program writes them: host ports, masquerading, and what keeps
 * pods from the node's loopback. Calls must not overlap.
 */
export interface NodeRules {
  /**
   * Looks whether all is as it should be, and makes it so, at once, only when it is not. Flows that exist go on.
   *
   * @returns Whether something had to be written.
   * @throws {SetupError}, {NftError} or {IptablesError}, `AbortError`.
   */
  ensure(
    context: RuleContext,
    mappings: readonly HostPortMapping[],
    signal: AbortSignal,
  ): Promise<boolean>;
  /**
   * Brings the host ports from one plan to another at once, without a look.
   *
   * @returns False when the kernel did not have what it should: nothing was changed then, and {@link ensure} helps.
   * @throws as {@link ensure}.
   */
  change(
    from: readonly HostPortMapping[],
    to: readonly HostPortMapping[],
    signal: AbortSignal,
  ): Promise<boolean>;
  /** Nothing there is success. */
  remove(signal: AbortSignal): Promise<void>;
}

/** Networks that packets of pods go to under the pod's own address, multicast among them. */
export function networksKept(context: RuleContext): readonly string[] {
  const networks = [context.podCIDR, ...context.clusterCIDRs].map(formatCidr);
  return [...new Set([...networks, context.family === "IPv4" ? "224.0.0.0/4" : "ff00::/8"])];
}

export function loopbackOf(family: IPFamily): string {
  return family === "IPv4" ? "127.0.0.0/8" : "::1";
}
