import { existsSync } from "node:fs";
import { join } from "node:path";

import {
  type Cidr,
  type IPFamily,
  canonicalIP,
  cidrAddress,
  formatCidr,
  ipFamily,
  parseCidr,
} from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { ExecError, RemoraError, SetupError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { defaultForwardChain, defaultInputChain } from "../netfilter/forward-accept.ts";
import {
  attach,
  attachCommands,
  type BridgeDevice,
  ensureBridgeDevice,
  rivals,
} from "./bridge-device.ts";
import type { RulesProgram } from "./choose-rules.ts";
import type { NodeService } from "./firewall-plan.ts";
import { type FirewalledNetwork, Firewalls } from "./firewalls.ts";
import { type Lease, type LeaseHolder, Leases } from "./leases.ts";
import {
  bridgeAddressCommands,
  cutOff,
  deleteLink,
  findUplink,
  ipBatch,
  ipBatchInside,
  type Link,
  listLinks,
  podCommands,
  vethName,
} from "./links.ts";
import type { RuleContext } from "./node-rules.ts";
import { PodBandwidths } from "./pod-bandwidth.ts";
import { PodRules } from "./pod-rules.ts";
import { defaultTableName } from "./rules.ts";
import { Forwarding, hostileSettings, type SettingsWitness } from "./sysctls.ts";
import type { LocalAddresses, PodNetwork, SandboxNetwork, SandboxNetworkConfig } from "./types.ts";

/** The network was asked for before the node has a pod CIDR. */
export class NetworkNotReadyError extends RemoraError {
  readonly code = "REMORA_NETWORK_NOT_READY";
  override readonly retryable = true;
}

export interface BridgeNetworkOptions {
  /** Leases are kept below it, in `ipam/`. */
  readonly stateDir: string;
  /** Networks of all pods of the cluster: reached without masquerading, accepted when forwarded. */
  readonly clusterCIDRs: readonly string[];
  readonly clock: Clock;
  readonly logger: Logger;
  /** Default `remora0`. */
  readonly bridgeName?: string;
  /** nftables table, default `remora-network`. */
  readonly tableName?: string;
  /** Chain in iptables' filter table, default `REMORA-FORWARD`. */
  readonly forwardChain?: string;
  /** The same for what pods ask the node, default `REMORA-INPUT`. */
  readonly inputChain?: string;
  /** What the node itself answers; firewalls that refuse it are told of, not opened. Default: nothing. */
  readonly nodeServices?: () => readonly NodeService[];
  /** Whether there are other nodes, with pods that are to reach those of this one. Default: no. */
  readonly otherNodes?: () => boolean;
  /** Who writes the packet rules; default: nftables where this machine can do it, else iptables. */
  readonly rulesProgram?: RulesProgram;
  /** Mark bit of Service packets that get a new source address, default 0x4000. */
  readonly serviceMark?: number;
  /** Default: that of the interface with the default route. */
  readonly mtu?: number;
  /** Told of settings of the machine before they are changed. */
  readonly witness?: SettingsWitness;
}

const families: readonly IPFamily[] = ["IPv4", "IPv6"];

interface NodeNetwork {
  readonly podCIDRs: readonly Cidr[];
  readonly gateways: readonly string[];
  readonly mtu: number;
}

/** What keeps packets of pods from passing although everything of ours is in place. */
export interface NetworkProblems {
  /** Found by the last `ensureNode`: sentences with the remedy. */
  readonly problems: readonly string[];
}

/**
 * Pods on a bridge of the node. Every pod holds single addresses (/32, /128) and sends everything to the bridge's
 * address, so packets between two pods of the node pass its netfilter whether or not br_netfilter is loaded: the
 * replies of Service backends need that. One interface pair per pod, named after the sandbox.
 */
export function createBridgeNetwork(
  options: BridgeNetworkOptions,
): PodNetwork & LocalAddresses & NetworkProblems {
  return new BridgeNetwork(options);
}

class BridgeNetwork implements PodNetwork, LocalAddresses, NetworkProblems {
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #bridge: string;
  readonly #firewalls: Firewalls;
  readonly #forwarding: Forwarding;
  #problems: readonly string[] = [];
  readonly #mtu: number | undefined;
  readonly #clusterCIDRs: readonly Cidr[];
  readonly #leases: Leases;
  readonly #rules: PodRules;
  readonly #bandwidths: PodBandwidths;
  readonly #configured = new Set<string>();
  /** Sandboxes whose interface is being made. */
  readonly #connecting = new Set<string>();
  /** Sandboxes with a lease whose interface others have taken away. */
  #damaged = new Set<string>();
  #loaded: Promise<void> | undefined;
  #node: NodeNetwork | undefined;
  #local: readonly string[] = [];
  /** Tail of the chain of changes to our table and bridge: they must not overtake one another. */
  #tail: Promise<void> = Promise.resolve();

  constructor(options: BridgeNetworkOptions) {
    this.#logger = options.logger;
    this.#clock = options.clock;
    this.#bridge = options.bridgeName ?? "remora0";
    this.#forwarding = new Forwarding(options.logger, options.witness);
    const chains = {
      forward: options.forwardChain ?? defaultForwardChain,
      input: options.inputChain ?? defaultInputChain,
    };
    this.#firewalls = new Firewalls({
      bridge: this.#bridge,
      chains,
      serviceMark: options.serviceMark ?? 0x4000,
      nodeServices: options.nodeServices ?? ((): readonly NodeService[] => []),
      otherNodes: options.otherNodes ?? ((): boolean => false),
      clock: options.clock,
      logger: options.logger,
    });
    this.#mtu = options.mtu;
    this.#clusterCIDRs = options.clusterCIDRs.map((text) => parseCidr(text, "clusterCIDR"));
    this.#leases = new Leases({
      directory: join(options.stateDir, "ipam"),
      logger: options.logger,
    });
    this.#rules = new PodRules({
      tableName: options.tableName ?? defaultTableName,
      chainPrefix: chains.forward.replace(/-FORWARD$/, ""),
      program: options.rulesProgram,
      logger: options.logger,
      leases: () => this.#leases.values(),
    });
    this.#bandwidths = new PodBandwidths({ bridge: this.#bridge, logger: options.logger });
    if (!/^[a-z][a-z0-9-]{0,14}$/.test(this.#bridge)) {
      throw new SetupError(
        `bridge name ${this.#bridge} is not usable: at most 15 characters of a-z, 0-9 and -`,
      );
    }
  }

  get problems(): readonly string[] {
    return this.#problems;
  }

  get ready(): boolean {
    return this.#node !== undefined;
  }

  async ensureNode(podCIDRs: readonly string[], signal: AbortSignal): Promise<void> {
    await this.load();
    await this.#inTurn(async () => {
      if (podCIDRs.length === 0) return;
      const cidrs = podCIDRs.map((text) => parseCidr(text, "podCIDR"));
      await this.#leases.setPools(podCIDRs);
      const links = await listLinks(signal);
      const uplink = await findUplink(links);
      const mtu = this.#mtu ?? uplink?.mtu ?? 1500;
      const gateways = cidrs.map((cidr) => cidrAddress(cidr, 1));
      const node: NodeNetwork = { podCIDRs: cidrs, gateways, mtu };
      const now = await ensureBridgeDevice(this.#device(node), links, this.#logger, signal);
      await this.#attachPods(now, signal);
      const settled = [...this.#leases.values()].filter(
        ({ sandboxID }) => !this.#connecting.has(sandboxID),
      );
      await this.#bandwidths.ensure(settled, { links: now, mtu }, signal);
      await this.#forwarding.ensure({
        v4: cidrs.some((cidr) => cidr.family === "IPv4"),
        v6: cidrs.some((cidr) => cidr.family === "IPv6"),
        bridge: this.#bridge,
        uplink: uplink?.name,
      });
      const before = this.#node?.podCIDRs.map(formatCidr).join(",");
      const repair = before === cidrs.map(formatCidr).join(",");
      const looks = await Promise.all(
        cidrs.map(async (cidr) => {
          const network = this.#firewalled(cidr);
          const [reports, replaced] = await Promise.all([
            this.#firewalls.accept(network, repair, signal),
            this.#rules.ensure(this.#context(cidr), signal),
          ]);
          if (repair && replaced) {
            this.#logger.log("info", "packet rules of pods repaired", { family: cidr.family });
          }
          return { network, reports };
        }),
      );
      this.#node = node;
      this.#problems = [
        ...rivals(this.#device(node), now),
        ...(await hostileSettings()),
        ...(await this.#firewalls.obstacles(looks, uplink, signal)),
      ];
    });
  }

  #device({ podCIDRs, mtu }: NodeNetwork): BridgeDevice {
    return { name: this.#bridge, podCIDRs, local: this.#local, mtu };
  }

  /** Interfaces of pods that somebody took off the bridge, or down. */
  async #attachPods(links: readonly Link[], signal: AbortSignal): Promise<void> {
    const veths = new Set(
      [...this.#leases.values()]
        .filter(({ sandboxID }) => !this.#connecting.has(sandboxID))
        .map(({ sandboxID }) => vethName(sandboxID)),
    );
    const lines = attachCommands(veths, links, this.#bridge);
    if (lines.length === 0) return;
    this.#logger.log("info", "interfaces of pods are connected to the bridge again", {
      commands: lines.length,
    });
    await attach(lines, signal);
  }

  load(): Promise<void> {
    this.#loaded ??= this.#leases.load().catch((error: unknown) => {
      this.#loaded = undefined;
      throw error;
    });
    return this.#loaded;
  }

  /** Runs `work` after everything that was started before it. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(work);
    this.#tail = result.then(
      () => undefined,
      () => undefined,
    );
    return result;
  }

  #firewalled(podCIDR: Cidr): FirewalledNetwork {
    const { family } = podCIDR;
    return {
      podCIDR,
      clusterCIDRs: this.#clusterCIDRs.filter((cidr) => cidr.family === family),
      nameServers: this.#local.filter((ip) => ipFamily(ip) === family),
    };
  }

  #context(podCIDR: Cidr): RuleContext {
    const { family } = podCIDR;
    return {
      family,
      bridge: this.#bridge,
      podCIDR,
      clusterCIDRs: this.#clusterCIDRs.filter((cidr) => cidr.family === family),
      localAddresses: this.#local,
    };
  }

  async setLocalAddresses(addresses: readonly string[], signal: AbortSignal): Promise<void> {
    await this.#inTurn(async () => {
      this.#local = addresses.map((text) => canonicalIP(text));
      const found = (await listLinks(signal)).find(({ name }) => name === this.#bridge);
      if (this.#node === undefined || found === undefined) return;
      const lines = bridgeAddressCommands(this.#device(this.#node), found, this.#bridge);
      if (lines.length > 0) await ipBatch(lines, signal);
      // Host ports are not served there.
      for (const cidr of this.#node.podCIDRs) {
        await this.#firewalls.accept(this.#firewalled(cidr), false, signal);
        await this.#rules.ensure(this.#context(cidr), signal);
      }
    });
  }

  async setUp(config: SandboxNetworkConfig, signal: AbortSignal): Promise<SandboxNetwork> {
    const node = this.#node;
    if (node === undefined) {
      throw new NetworkNotReadyError("the node has no pod CIDR yet, so pods cannot get an address");
    }
    const known = this.#leases.get(config.sandboxID);
    const done = this.#configured.has(config.sandboxID) && this.isIntact(config.sandboxID);
    if (known !== undefined && done) return { ips: known.ips };
    const startedAt = this.#clock.monotonic();
    const lease = await this.#leases.acquire(holderOf(config));
    const { podKey, sandboxID } = lease;
    this.#connecting.add(sandboxID);
    try {
      await this.#connect(config, lease, node, signal);
      // Without any it need not wait for a look at the whole node.
      if (lease.hostPorts.length > 0) await this.#inTurn(() => this.#rules.open(lease, signal));
      if (lease.bandwidth !== undefined) {
        await this.#inTurn(async () => {
          const at = { links: await listLinks(signal), mtu: node.mtu };
          await this.#bandwidths.ensure([lease], at, signal);
        });
      }
    } catch (error) {
      throw explainSetUpFailure(error, config);
    } finally {
      this.#connecting.delete(sandboxID);
    }
    this.#configured.add(sandboxID);
    this.#damaged.delete(sandboxID);
    this.#logger.log("debug", "pod network is up", {
      sandboxID,
      pod: podKey,
      ip: lease.ips.join(","),
      durationMs: Math.round(this.#clock.monotonic() - startedAt),
    });
    const notLimited = this.#bandwidths.problem(sandboxID);
    return { ips: lease.ips, ...(notLimited === undefined ? {} : { notLimited }) };
  }

  async #connect(
    config: SandboxNetworkConfig,
    lease: Lease,
    node: NodeNetwork,
    signal: AbortSignal,
  ): Promise<void> {
    const veth = vethName(config.sandboxID);
    const { pid } = config;
    // hairpin: with br_netfilter a pod's packets to its own Service leave by the port they came in by.
    const hairpin = `link set dev ${veth} type bridge_slave hairpin on`;
    const create = [
      `link add name ${veth} mtu ${node.mtu} master ${this.#bridge} up type veth peer name eth0 mtu ${node.mtu} netns ${pid}`,
      hairpin,
      // Another pod may have had the address a moment ago: after a restart, or in a small network. The node would go on to
      // send to that one's interface, for up to a minute.
      ...lease.ips.map((ip) => `neigh flush to ${ip} dev ${this.#bridge}`),
    ];
    try {
      await ipBatch(create, signal);
    } catch (error) {
      if (!(error instanceof ExecError) || !/File exists/.test(error.stderr)) throw error;
      // An earlier attempt ended half-way. The pair is right when its other end is this sandbox's eth0.
      const inside = await listLinks(signal, pid);
      const host = await listLinks(signal);
      const eth0 = inside.some((link) => link.name === "eth0" && link.kind === "veth");
      if (eth0 && host.some((link) => link.name === veth)) {
        await ipBatch([`link set dev ${veth} master ${this.#bridge} up`, hairpin], signal);
      } else {
        await deleteLink(veth, signal);
        await ipBatch(create, signal);
      }
    }
    const enableIPv6 = lease.ips.some((ip) => ipFamily(ip) === "IPv6");
    const options = { enableIPv6, isolateIPv6: true };
    await ipBatchInside(pid, podCommands(lease.ips, node.gateways), options, signal);
  }

  isIntact(sandboxID: string): boolean {
    return !this.#damaged.has(sandboxID);
  }

  addresses(sandboxID: string): readonly string[] | undefined {
    return this.#leases.get(sandboxID)?.ips;
  }

  async tearDown(sandboxID: string, signal: AbortSignal): Promise<void> {
    await this.load();
    this.#configured.delete(sandboxID);
    const lease = this.#leases.get(sandboxID);
    // The kernel removes the pair some time after the last process of the namespace; the name must not linger.
    await deleteLink(vethName(sandboxID), signal);
    if (lease === undefined) return;
    if (lease.bandwidth !== undefined) {
      await this.#inTurn(() => this.#bandwidths.remove(lease, signal));
    }
    if (lease.hostPorts.length > 0) await this.#inTurn(() => this.#rules.close(lease, signal));
    await this.#leases.release(sandboxID);
    this.#rules.released(sandboxID);
  }

  async collectGarbage(sandboxIDs: ReadonlySet<string>, signal: AbortSignal): Promise<void> {
    await this.load();
    const dead = [...this.#leases.values()].filter((lease) => !sandboxIDs.has(lease.sandboxID));
    for (const lease of dead) {
      this.#logger.log("info", "address of a vanished sandbox is freed", {
        sandboxID: lease.sandboxID,
        pod: lease.podKey,
        ip: lease.ips.join(","),
      });
      await this.tearDown(lease.sandboxID, signal);
    }
    const names = new Set([...this.#leases.values()].map((lease) => vethName(lease.sandboxID)));
    const leased = [...this.#leases.values()].map(({ sandboxID }) => sandboxID);
    const links = await listLinks(signal);
    this.#damaged = new Set(cutOff(leased, links, this.#bridge));
    await this.#bandwidths.collectGarbage(this.#leases.values(), links, signal);
    for (const link of links) {
      if (link.master === this.#bridge && link.name.startsWith("rmv") && !names.has(link.name)) {
        await deleteLink(link.name, signal);
      }
    }
  }

  async cleanUp(signal: AbortSignal): Promise<void> {
    await this.#inTurn(async () => {
      this.#node = undefined;
      this.#configured.clear();
      await this.#rules.remove(signal);
      await this.#firewalls.remove(families, signal);
      const links = await listLinks(signal);
      for (const link of links.filter(({ master }) => master === this.#bridge)) {
        await deleteLink(link.name, signal);
      }
      await this.#bandwidths.collectGarbage([], links, signal);
      if (links.some(({ name, kind }) => name === this.#bridge && kind === "bridge")) {
        await deleteLink(this.#bridge, signal);
      }
      await this.#leases.removeAll();
      this.#loaded = undefined;
    });
  }
}

function holderOf(config: SandboxNetworkConfig): LeaseHolder {
  const { sandboxID, podUID, podKey, hostPorts, pod } = config;
  const bandwidth = pod?.bandwidth;
  return {
    sandboxID,
    podUID,
    podKey,
    hostPorts,
    ...(bandwidth === undefined ? {} : { bandwidth }),
  };
}

function explainSetUpFailure(error: unknown, config: SandboxNetworkConfig): unknown {
  if (error instanceof ExecError && !existsSync(`/proc/${config.pid}`)) {
    return new NetworkNotReadyError(
      `the sandbox of ${config.podKey} ended while its network was set up`,
      { cause: error },
    );
  }
  return error;
}
