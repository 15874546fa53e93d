import { mkdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";

import { ipFamily, type IPFamily } from "../../lib/cidr.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { namesIn } from "../../lib/names-in.ts";
import { ipBatchInside } from "../links.ts";
import type { LocalAddresses, PodNetwork, SandboxNetworkConfig } from "../types.ts";
import { ensureAddressDevice } from "./address-device.ts";
import { type Attachment, Attachments } from "./attachments.ts";
import { capabilityArgs, cniArgs } from "./capabilities.ts";
import { addNetwork, collectNetwork, delNetwork, isCollectable } from "./chain.ts";
import { hasCapability, type NetworkList } from "./config.ts";
import { CniError } from "./errors.ts";
import { ensureForwardLast, removeForwardLast } from "./forward-last.ts";
import { Leftovers } from "./leftovers.ts";
import type { SettingsWitness } from "../sysctls.ts";
import { KernelSettings } from "./kernel-settings.ts";
import { NetworkSource } from "./network-source.ts";
import { type CniLimits, Plugins } from "./plugins.ts";
import { podAddresses, resultAddresses } from "./result.ts";
import { SandboxJobs } from "./sandbox-jobs.ts";
import {
  currentNamespace,
  isOwnNamespace,
  namespaceID,
  namespacePath,
} from "./sandbox-namespace.ts";

export interface CniNetworkOptions {
  /** Attachments are kept below it, in `cni/`. */
  readonly stateDir: string;
  /** Configurations, `/etc/cni/net.d`. */
  readonly confDir: string;
  /** Where plug-ins are looked for. */
  readonly binDirs: readonly string[];
  /** Networks of all pods of the cluster: accepted when forwarded. */
  readonly clusterCIDRs: readonly string[];
  /** Mark bit of Service packets that get a new source address, default 0x4000. */
  readonly serviceMark?: number;
  /** Told of settings of the machine before they are changed. */
  readonly witness?: SettingsWitness;
  /** Called when {@link PodNetwork.ready} may have changed. */
  readonly onChange?: () => void;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Milliseconds that a caller waits for plug-ins before it is told to come again; default 10 000. */
  readonly patienceMs?: number;
  /** Milliseconds after which a pod no longer waits for a DEL that fails; default 60 000. */
  readonly giveUpMs?: number;
  readonly limits?: Partial<CniLimits>;
}

/** Pods on networks of CNI plug-ins. */
export interface CniNetwork extends PodNetwork, LocalAddresses {
  /** Looks at the directory of configurations now. */
  look(signal: AbortSignal): Promise<void>;
  /** Whether the sandbox was attached by this provider, or is being. */
  holds(sandboxID: string): boolean;
  /** Whether any sandbox was. */
  readonly inUse: boolean;
  /** Whether there is a configuration that can be used. */
  readonly configured: boolean;
  /** Whether anything of this provider may be on the machine. */
  hasTraces(): Promise<boolean>;
  /** Follows configurations, and does what is left to do for sandboxes that are gone. Ends when `signal` aborts. */
  run(signal: AbortSignal): Promise<void>;
}

const ifName = "eth0";
const device = "remora-local";
const forwardChain = "REMORA-CNI";
const families: readonly IPFamily[] = ["IPv4", "IPv6"];
/** For the DEL after an ADD that failed or was ended. */
const undoMs = 60_000;

/** Makes the provider. Does nothing before it is asked. */
export function createCniNetwork(options: CniNetworkOptions): CniNetwork {
  return new PluginNetwork(options);
}

class PluginNetwork implements CniNetwork {
  readonly #options: CniNetworkOptions;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #plugins: Plugins;
  readonly #source: NetworkSource;
  readonly #attachments: Attachments;
  readonly #jobs: SandboxJobs;
  readonly #settings: KernelSettings;
  readonly #leftovers: Leftovers;
  /** When DEL was first tried, of sandboxes that it has failed for. */
  readonly #failing = new Map<string, number>();
  #loaded: Promise<void> | undefined;
  #podCIDRs: readonly string[] = [];
  /** Undefined until somebody said: those of the run before stay so long. */
  #local: readonly string[] | undefined;
  /** Plug-ins collect garbage: nothing may be added or deleted meanwhile. */
  #collecting: Promise<void> | undefined;

  constructor(options: CniNetworkOptions) {
    const { clock, logger } = options;
    this.#options = options;
    this.#logger = logger;
    this.#clock = clock;
    this.#plugins = new Plugins({
      clock,
      ...(options.limits === undefined ? {} : { limits: options.limits }),
    });
    this.#source = new NetworkSource({
      directory: options.confDir,
      pluginDirectories: options.binDirs,
      plugins: this.#plugins,
      onChange: () => options.onChange?.(),
      clock,
      logger,
    });
    this.#attachments = new Attachments({ directory: join(this.#stateDir, "results"), logger });
    this.#jobs = new SandboxJobs({ patienceMs: options.patienceMs ?? 10_000, clock, logger });
    this.#settings = new KernelSettings(logger, options.witness);
    this.#leftovers = new Leftovers({
      plugins: this.#plugins,
      attachments: this.#attachments,
      isBusy: (id) => this.#jobs.running(id) !== undefined,
      remove: (id, signal) => this.#delete(id, signal),
      collect: (signal) => this.#collect(signal),
      clock,
      logger,
    });
  }

  get #stateDir(): string {
    return join(this.#options.stateDir, "cni");
  }

  get ready(): boolean {
    return this.notReadyReason === undefined;
  }

  get notReadyReason(): string | undefined {
    return this.#source.notReadyReason;
  }

  get inUse(): boolean {
    return this.#attachments.size > 0;
  }

  get configured(): boolean {
    return this.#source.list !== undefined;
  }

  async hasTraces(): Promise<boolean> {
    return (await namesIn(this.#options.stateDir)).includes(basename(this.#stateDir));
  }

  holds(sandboxID: string): boolean {
    return (
      this.#attachments.get(sandboxID) !== undefined || this.#jobs.running(sandboxID) !== undefined
    );
  }

  load(): Promise<void> {
    this.#loaded ??= this.#attachments.load().then(
      () => this.#leftovers.adopt(),
      (error: unknown) => {
        this.#loaded = undefined;
        throw error;
      },
    );
    return this.#loaded;
  }

  look(signal: AbortSignal): Promise<void> {
    return this.#source.look(signal);
  }

  /** Nothing of a bridge: forwarding, and the node's own addresses. */
  async ensureNode(podCIDRs: readonly string[], signal: AbortSignal): Promise<void> {
    await this.load();
    await mkdir(this.#stateDir, { recursive: true, mode: 0o700 });
    this.#podCIDRs = podCIDRs;
    const { clusterCIDRs, serviceMark = 0x4000 } = this.#options;
    const known = [...clusterCIDRs, ...podCIDRs];
    const v6 = known.some((cidr) => ipFamily(cidr.split("/")[0] ?? "") === "IPv6");
    await this.#settings.ensure({ v6 }, signal);
    const podNetworks = [...new Set(known)];
    for (const family of v6 ? families : (["IPv4"] as const)) {
      const accept = { family, chain: forwardChain, podNetworks, serviceMark };
      if ((await ensureForwardLast(accept, signal)) === "changed") {
        this.#logger.log("info", "forwarding of pod traffic is accepted", { family });
      }
    }
    if (this.#local !== undefined) await ensureAddressDevice(device, this.#local, signal);
  }

  async setLocalAddresses(addresses: readonly string[], signal: AbortSignal): Promise<void> {
    this.#local = addresses;
    await ensureAddressDevice(device, addresses, signal);
  }

  async setUp(
    config: SandboxNetworkConfig,
    signal: AbortSignal,
  ): Promise<{ readonly ips: readonly string[] }> {
    await this.load();
    const { podKey, sandboxID } = config;
    const known = this.addresses(sandboxID);
    if (known !== undefined && this.isIntact(sandboxID)) return { ips: known };
    try {
      const work = (stop: AbortSignal): Promise<readonly string[]> => this.#attach(config, stop);
      return { ips: await this.#jobs.run(sandboxID, "add", work, signal) };
    } catch (error) {
      throw explain(error, "set up", podKey);
    }
  }

  async #attach(config: SandboxNetworkConfig, stop: AbortSignal): Promise<readonly string[]> {
    const { pid, podKey, podUID, sandboxID } = config;
    const startedAt = this.#clock.monotonic();
    // Of an attempt that failed, or one that a process died in; or somebody took the interface away.
    if (this.#attachments.get(sandboxID) !== undefined) await this.#detach(sandboxID, stop);
    await this.#collecting;
    const list = this.#usableList(config);
    const netns = namespacePath(pid);
    const netnsID = await namespaceID(netns);
    if (netnsID === undefined) {
      throw new CniError(`the sandbox of ${podKey} ended while its network was set up`);
    }
    if (await isOwnNamespace(netns)) {
      throw new CniError("the sandbox is in the node's own network namespace");
    }
    // What an engine does that gives pods a namespace for plug-ins; a container without a network has neither.
    await ipBatchInside(pid, ["link set dev lo up"], { enableIPv6: true }, stop);
    const attachment: Attachment = {
      sandboxID,
      podUID,
      podKey,
      ifName,
      list,
      netns,
      netnsID,
      args: cniArgs(config),
      capabilityArgs: capabilityArgs(list, config, this.#podCIDRs),
      directories: this.#options.binDirs,
      result: undefined,
    };
    await this.#attachments.begin(attachment);
    const ips = await this.#add(attachment, stop);
    this.#logger.log("debug", "pod network is up", {
      sandboxID,
      pod: podKey,
      ip: ips.join(","),
      durationMs: Math.round(this.#clock.monotonic() - startedAt),
    });
    return ips;
  }

  /** @throws {CniError} */
  #usableList(config: SandboxNetworkConfig): NetworkList {
    const { list, notReadyReason } = this.#source;
    if (list === undefined || notReadyReason !== undefined) {
      throw new CniError(notReadyReason ?? "cni config uninitialized");
    }
    if (config.hostPorts.length > 0 && !hasCapability(list, "portMappings")) {
      throw new CniError(
        `the pod has host ports, and no plug-in of network ${JSON.stringify(list.name)} has the capability "portMappings": add the plug-in portmap to its configuration`,
      );
    }
    return list;
  }

  async #add(attachment: Attachment, stop: AbortSignal): Promise<readonly string[]> {
    try {
      const result = await addNetwork(this.#plugins, attachment, stop);
      const ips = podAddresses(resultAddresses(result, attachment.ifName));
      if (ips.length === 0) throw new CniError("the plug-ins gave the sandbox no address");
      await this.#attachments.complete({ ...attachment, result });
      this.#leftovers.mended(attachment.sandboxID);
      return ips;
    } catch (error) {
      // Whoever ended it deletes, or the agent ends and its next run does.
      if (stop.aborted) throw error;
      // What was made before the failure; if this fails too, the next attempt, or the end of the pod, tries again.
      try {
        await this.#detach(attachment.sandboxID, AbortSignal.timeout(undoMs));
      } catch (second) {
        this.#logger.log("warn", "network plug-ins could not undo what they did", {
          sandboxID: attachment.sandboxID,
          pod: attachment.podKey,
          error: errorMessage(second),
        });
      }
      throw error;
    }
  }

  /** DEL with what ADD was told. */
  async #detach(sandboxID: string, signal: AbortSignal): Promise<void> {
    await this.#collecting;
    const attachment = this.#attachments.get(sandboxID);
    if (attachment === undefined) return;
    const netns = await currentNamespace(attachment);
    await delNetwork(this.#plugins, attachment, netns, signal);
    await this.#attachments.forget(sandboxID);
  }

  /** As one job; callers that come meanwhile join it. */
  async #delete(sandboxID: string, signal: AbortSignal): Promise<void> {
    const work = async (stop: AbortSignal): Promise<readonly string[]> => {
      await this.#detach(sandboxID, stop);
      this.#failing.delete(sandboxID);
      this.#leftovers.forget(sandboxID);
      return [];
    };
    await this.#jobs.run(sandboxID, "delete", work, signal);
  }

  addresses(sandboxID: string): readonly string[] | undefined {
    // It is nobody's any more.
    if (this.#leftovers.has(sandboxID)) return undefined;
    const attachment = this.#attachments.get(sandboxID);
    if (attachment?.result === undefined) return undefined;
    return podAddresses(resultAddresses(attachment.result, attachment.ifName));
  }

  isIntact(sandboxID: string): boolean {
    return this.#leftovers.isIntact(sandboxID);
  }

  /**
   * Fails as long as DEL does, so that it is tried again and told; after {@link CniNetworkOptions.giveUpMs} the pod goes,
   * and the tries go on without it.
   */
  async tearDown(sandboxID: string, signal: AbortSignal): Promise<void> {
    await this.load();
    if (!this.holds(sandboxID) || this.#leftovers.has(sandboxID)) return;
    const now = this.#clock.monotonic();
    const since = this.#failing.get(sandboxID) ?? now;
    this.#failing.set(sandboxID, since);
    const podKey = this.#attachments.get(sandboxID)?.podKey ?? "";
    try {
      await this.#delete(sandboxID, signal);
    } catch (error) {
      if (isAbort(error) && signal.aborted) throw error;
      const { giveUpMs = 60_000 } = this.#options;
      if (this.#clock.monotonic() - since < giveUpMs) throw explain(error, "teardown", podKey);
      this.#failing.delete(sandboxID);
      this.#leftovers.add(sandboxID);
      this.#logger.log("error", "the pod does not wait for its network plug-ins any longer", {
        sandboxID,
        pod: podKey,
        error: errorMessage(error),
      });
    }
  }

  async collectGarbage(sandboxIDs: ReadonlySet<string>, _signal: AbortSignal): Promise<void> {
    await this.load();
    await this.#leftovers.compare(sandboxIDs);
  }

  /** Tells plug-ins of the specification's version 1.1.0 which attachments are left. */
  async #collect(signal: AbortSignal): Promise<boolean> {
    const { list } = this.#source;
    if (list === undefined) return false;
    if (!isCollectable(list)) return true;
    // Nothing may be added or deleted while they look.
    if (!this.#jobs.idle || this.#collecting !== undefined) return false;
    const valid = this.#attachments.values().flatMap((attachment) => {
      const { sandboxID: containerID, ifName: ifname } = attachment;
      return attachment.list.name === list.name ? [{ containerID, ifname }] : [];
    });
    const target = { list, directories: this.#options.binDirs };
    const work = collectNetwork(this.#plugins, target, valid, signal);
    this.#collecting = work.catch(() => undefined);
    try {
      await work;
      this.#logger.log("info", "network plug-ins collected garbage", {
        network: list.name,
        attachments: valid.length,
      });
    } finally {
      this.#collecting = undefined;
    }
    return true;
  }

  async run(signal: AbortSignal): Promise<void> {
    try {
      await this.load();
      await Promise.all([this.#source.run(signal), this.#leftovers.run(signal)]);
    } finally {
      await this.#jobs.stopAll();
    }
  }

  async cleanUp(signal: AbortSignal): Promise<void> {
    await this.load();
    const failures: unknown[] = [];
    for (const { podKey, sandboxID } of this.#attachments.values()) {
      try {
        await this.#delete(sandboxID, signal);
      } catch (error) {
        if (isAbort(error) && signal.aborted) throw error;
        failures.push(explain(error, "teardown", podKey));
      }
    }
    await ensureAddressDevice(device, [], signal);
    for (const family of families) await removeForwardLast(family, forwardChain, signal);
    if (failures.length > 0) throw failures[0];
    await rm(this.#stateDir, { recursive: true, force: true });
    this.#loaded = undefined;
  }
}

/** In the words of the kubelet's own plug-in for CNI, which people search for. */
function explain(error: unknown, verb: "set up" | "teardown", podKey: string): unknown {
  if (isAbort(error)) return error;
  const [namespace = "", name = ""] = podKey.split("/");
  const cniCode = error instanceof CniError ? error.cniCode : undefined;
  return new CniError(
    `networkPlugin cni failed to ${verb} pod "${name}_${namespace}" network: ${errorMessage(error)}`,
    { cause: error, ...(cniCode === undefined ? {} : { cniCode }) },
  );
}
