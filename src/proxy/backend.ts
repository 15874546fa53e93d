import type { IPFamily } from "../lib/cidr.ts";
import type { Deletion } from "../netfilter/monitor.ts";
import type { PlannedPort } from "./plan.ts";

/** The program that rules are written for. */
export type ProxyMode = "nftables" | "iptables";

/**
 * How traffic of this node's own pods is told from all other (KubeProxyConfiguration `detectLocalMode`). Without, nobody
 * counts as a pod: nothing to a ClusterIP gets a new source address for it.
 */
export type LocalDetector =
  | { readonly kind: "none" }
  /** By source address; at least one network, of the context's family. */
  | { readonly kind: "cidrs"; readonly cidrs: readonly string[] }
  /** By the interface that packets come in by: never true of what the node itself sends. */
  | { readonly kind: "interface"; readonly name: string }
  | { readonly kind: "interface-prefix"; readonly prefix: string };

/** What the rules of one family depend on besides Services. */
export interface RulesContext {
  readonly family: IPFamily;
  readonly local: LocalDetector;
  /** Addresses that node ports answer on, of the family; undefined = all of the node (loopback by `localhostNodePorts`). */
  readonly nodePortIPs: readonly string[] | undefined;
  /** Node ports answer on 127.0.0.0/8, IPv4 only. */
  readonly localhostNodePorts: boolean;
  /** Networks that ClusterIPs come from: what is sent there and is no Service must not leave the node (nftables only). */
  readonly serviceCIDRs: readonly string[];
  /** Bit of the packet mark, as a number, that means: needs a new source address. */
  readonly mark: number;
  /** All that goes to a ClusterIP gets a new source address, also from pods. */
  readonly masqueradeAll: boolean;
}

/** What one synchronisation did. */
export interface ApplyResult {
  /** Things that differed; 0 = the kernel was right. */
  readonly changes: number;
  readonly transactions: number;
  /** Characters sent. */
  readonly bytes: number;
  /** Undefined when the kernel was trusted; else whether the read-back found what nobody here had changed. */
  readonly drift: boolean | undefined;
  /** Unused objects could not be deleted. */
  readonly cleanupFailed: boolean;
  /** By table: all rules of ours, and those that this synchronisation wrote (iptables only). */
  readonly rules?: ReadonlyMap<string, { readonly total: number; readonly written: number }>;
}

/** Packets that fixed rules of iptables met since they were made; undefined where there is no such rule. */
export interface PacketCounters {
  /** Forwarded ones in conntrack state INVALID, which were dropped. */
  readonly invalidDropped: number | undefined;
  /** First ones of flows to a node port on 127.0.0.0/8. */
  readonly localhostNodePorts: number | undefined;
}

/**
 * The rules of one family in the kernel, written by one program. Plans come in, differences go out: what a change costs
 * does not depend on how many Services there are.
 */
export interface RuleBackend {
  readonly mode: ProxyMode;
  /** Plans are set again by the caller where more than `nodePortIPs` or `serviceCIDRs` changed. */
  setContext(context: RulesContext): void;
  /** Puts `plan` in the place of the one before; undefined = the port is gone. */
  set(key: string, plan: PlannedPort | undefined): void;
  /** Node ports of health checks, which hosts that drop by default must let in (iptables only). */
  setHealthPorts(ports: readonly number[]): void;
  /** Ports that want an address and port which this one or an older one has: `[loser, winner]`. */
  conflicts(key: string): readonly (readonly [string, string])[];
  /** Whether an address is the ClusterIP of a planned port. */
  isClusterIP(ip: string): boolean;
  /**
   * Brings the kernel to what is wanted. The wanted must not change until it ends.
   *
   * @throws {NftError}, {IptablesError}, {SetupError}, `AbortError`; the next call then reads back first.
   */
  sync(signal: AbortSignal): Promise<ApplyResult>;
  /** The kernel may not hold what was committed: the next synchronisation reads it back. */
  distrust(): void;
  /** Whether a deletion that the kernel reported is in our rules and not our own. */
  concerns(deletion: Deletion): boolean;
  /**
   * Whether what others tend to remove is still in the kernel, for programs that report no deletions. Asked every
   * syncPeriod; false = distrust and synchronise. Without it the backend hears of deletions by itself.
   *
   * @throws `AbortError`. What cannot be found out now counts as there.
   */
  check?(signal: AbortSignal): Promise<boolean>;
  /** True while objects wait for their deletion in a later transaction. */
  readonly hasGarbage: boolean;
  /** Read from the kernel, for the page of metrics (iptables only). */
  packetCounters?(signal: AbortSignal): Promise<PacketCounters>;
  /** All rules as they should be, in the program's own language. */
  render(): string;
  /** The wanted state as comparable pairs: equal maps, equal rules. */
  snapshot(): Map<string, string>;
}
