import { join } from "node:path";

import { ipFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { namesIn } from "../lib/names-in.ts";
import type { NetworkProblems } from "./bridge.ts";
import type { CniNetwork } from "./cni/cni-network.ts";
import type { LocalAddresses, PodNetwork, SandboxNetwork, SandboxNetworkConfig } from "./types.ts";

/** Who gives pods their network. */
export type ProviderName = "bridge" | "cni";

export interface ProviderOptions {
  /** `auto`: plug-ins where a configuration is there at the start, or comes before the first pod got an address. */
  readonly mode: ProviderName | "auto";
  readonly bridge: PodNetwork & LocalAddresses & Partial<NetworkProblems>;
  readonly cni: CniNetwork;
  /** Where both keep their state. */
  readonly stateDir: string;
  /** Called when {@link PodNetwork.ready} may have changed. */
  readonly onChange?: () => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** The network of this node's pods, whoever provides it. */
export interface ProvidedNetwork extends PodNetwork, LocalAddresses, NetworkProblems {
  /** Who provides it to new sandboxes; undefined before that was decided. */
  readonly provider: ProviderName | undefined;
  /** To be called when a configuration of plug-ins may have come or gone. */
  configurationChanged(): void;
  /** Follows configurations, and keeps in repair what no podCIDR decides. Ends when `signal` aborts. */
  run(signal: AbortSignal): Promise<void>;
}

const upkeepMs = 30_000;
const retryMs = 5_000;
/** For the first look at plug-ins, which must not keep the agent from starting. */
const firstLookMs = 30_000;

/**
 * Chooses between the bridge and CNI plug-ins. A sandbox stays with whoever made its network: it is taken down by it
 * also when new sandboxes go to the other one.
 */
export function createProvidedNetwork(options: ProviderOptions): ProvidedNetwork {
  return new Provided(options);
}

class Provided implements ProvidedNetwork {
  readonly #options: ProviderOptions;
  readonly #logger: Logger;
  #active: ProviderName | undefined;
  /** Nothing changes it any more before the next start. */
  #final = false;
  #loaded: Promise<void> | undefined;
  #podCIDRs: readonly string[] = [];
  /** Undefined until somebody said: those of the run before stay so long. */
  #local: readonly string[] | undefined;
  /** Whether the bridge has sandboxes, or what it made is still there. */
  #bridgeLeft = true;
  #upkeepDue = 0;
  /** Tail of the chain of changes to the node: they must not meet. */
  #tail: Promise<void> = Promise.resolve();
  #wake: () => void = () => undefined;

  constructor(options: ProviderOptions) {
    this.#options = options;
    this.#logger = options.logger;
  }

  get provider(): ProviderName | undefined {
    return this.#active;
  }

  get ready(): boolean {
    if (this.#active === undefined) return false;
    return this.#options[this.#active].ready;
  }

  get notReadyReason(): string | undefined {
    if (this.#active === undefined) return "the pod network has not been looked at yet";
    const { notReadyReason, ready } = this.#options[this.#active];
    return ready ? undefined : (notReadyReason ?? "the node has no pod CIDR yet");
  }

  get problems(): readonly string[] {
    return this.#active === "bridge" ? (this.#options.bridge.problems ?? []) : [];
  }

  load(): Promise<void> {
    this.#loaded ??= this.#load().catch((error: unknown) => {
      this.#loaded = undefined;
      throw error;
    });
    return this.#loaded;
  }

  async #load(): Promise<void> {
    const { bridge, cni, mode } = this.#options;
    await Promise.all([bridge.load(), cni.load()]);
    if (mode !== "bridge") await this.#firstLook();
    const held = await this.#bridgeHolds();
    // Plug-ins that attached pods are chosen again also while their configuration is away, as during their upgrade.
    const plugins = mode === "cni" || (mode === "auto" && (cni.configured || cni.inUse));
    this.#final = mode !== "auto" || plugins || held;
    this.#choose(plugins ? "cni" : "bridge");
  }

  /** Plug-ins that hang are no reason not to start; they are looked at again and again. */
  async #firstLook(): Promise<void> {
    try {
      await this.#options.cni.look(AbortSignal.timeout(firstLookMs));
    } catch (error) {
      this.#logger.log("warn", "network plug-ins could not be looked at", {
        error: errorMessage(error),
      });
    }
  }

  #choose(provider: ProviderName): void {
    this.#active = provider;
    this.#upkeepDue = 0;
    this.#logger.log("info", "provider of pod networks", { provider });
    this.#wake();
    this.#options.onChange?.();
  }

  async #bridgeHolds(): Promise<boolean> {
    const names = await namesIn(join(this.#options.stateDir, "ipam"));
    return names.some((name) => ipFamily(name) !== undefined);
  }

  configurationChanged(): void {
    const { cni, onChange } = this.#options;
    if (this.#active === "bridge" && !this.#final && cni.configured) {
      this.#final = true;
      this.#choose("cni");
      return;
    }
    onChange?.();
  }

  /** Of new sandboxes. */
  async #provider(): Promise<PodNetwork & LocalAddresses> {
    await this.load();
    return this.#options[this.#active ?? "bridge"];
  }

  /** Of a sandbox that may have a network already. */
  #holder(sandboxID: string): (PodNetwork & LocalAddresses) | undefined {
    const { bridge, cni } = this.#options;
    if (cni.holds(sandboxID)) return cni;
    return bridge.addresses(sandboxID) === undefined ? undefined : bridge;
  }

  async ensureNode(podCIDRs: readonly string[], signal: AbortSignal): Promise<void> {
    await this.load();
    this.#podCIDRs = podCIDRs;
    const { ready } = this;
    await this.#upkeep(signal);
    if (this.ready !== ready) this.#options.onChange?.();
  }

  /** Runs `work` after everything that was started before it. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    const result = this.#tail.then(work);
    this.#tail = result.catch(() => undefined);
    return result;
  }

  #upkeep(signal: AbortSignal): Promise<void> {
    return this.#inTurn(() => this.#keep(signal));
  }

  /** Keeps in repair what is used, and removes what is not. */
  async #keep(signal: AbortSignal): Promise<void> {
    const { bridge, clock, cni } = this.#options;
    this.#upkeepDue = clock.monotonic() + upkeepMs;
    const active = this.#active;
    if (active === "bridge" || (this.#bridgeLeft && (await this.#bridgeHolds()))) {
      this.#bridgeLeft = true;
      await bridge.ensureNode(this.#podCIDRs, signal);
    } else if (this.#bridgeLeft) {
      await bridge.cleanUp(signal);
      await bridge.load();
      this.#bridgeLeft = false;
    }
    if (active === "cni" || cni.inUse) {
      if (active === "cni" && this.#local !== undefined) {
        await cni.setLocalAddresses(this.#local, signal);
      }
      await cni.ensureNode(this.#podCIDRs, signal);
    } else if (await cni.hasTraces()) {
      await cni.cleanUp(signal);
      await cni.load();
    }
  }

  async setUp(config: SandboxNetworkConfig, signal: AbortSignal): Promise<SandboxNetwork> {
    const fresh = await this.#provider();
    const provider = this.#holder(config.sandboxID) ?? fresh;
    // From the first address on, pods are where others expect to reach them.
    if (provider === this.#options.bridge) this.#final = true;
    return provider.setUp(config, signal);
  }

  addresses(sandboxID: string): readonly string[] | undefined {
    return this.#holder(sandboxID)?.addresses(sandboxID);
  }

  isIntact(sandboxID: string): boolean {
    return this.#holder(sandboxID)?.isIntact?.(sandboxID) ?? true;
  }

  async tearDown(sandboxID: string, signal: AbortSignal): Promise<void> {
    const fresh = await this.#provider();
    // A crash may have left an interface of which the bridge knows nothing else.
    await (this.#holder(sandboxID) ?? fresh).tearDown(sandboxID, signal);
  }

  async collectGarbage(sandboxIDs: ReadonlySet<string>, signal: AbortSignal): Promise<void> {
    await this.load();
    const { bridge, cni } = this.#options;
    await cni.collectGarbage(sandboxIDs, signal);
    if (this.#active === "bridge" || this.#bridgeLeft)
      await bridge.collectGarbage(sandboxIDs, signal);
  }

  async setLocalAddresses(addresses: readonly string[], signal: AbortSignal): Promise<void> {
    this.#local = addresses;
    const provider = await this.#provider();
    await this.#inTurn(() => provider.setLocalAddresses(addresses, signal));
  }

  async run(signal: AbortSignal): Promise<void> {
    const { cni, mode } = this.#options;
    await this.load();
    const follow = mode !== "bridge" || cni.inUse;
    await Promise.all([follow ? cni.run(signal) : undefined, this.#keepUp(signal)]);
  }

  /** The bridge is kept up by whoever knows the node's podCIDRs; plug-ins need none. */
  async #keepUp(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    while (!signal.aborted) {
      const pause = new AbortController();
      this.#wake = () => pause.abort();
      let waitMs = this.#upkeepDue - clock.monotonic();
      if (waitMs <= 0 && this.#active === "cni") {
        try {
          await this.#upkeep(signal);
          waitMs = upkeepMs;
        } catch (error) {
          if (signal.aborted) return;
          waitMs = retryMs;
          this.#logger.log("error", "the node could not be prepared for pods, will retry", {
            error: errorMessage(error),
          });
        }
      }
      const stop = AbortSignal.any([signal, pause.signal]);
      await clock.sleep(waitMs <= 0 ? upkeepMs : waitMs, stop).catch(() => undefined);
    }
  }

  async cleanUp(signal: AbortSignal): Promise<void> {
    const { bridge, cni } = this.#options;
    const failures: unknown[] = [];
    for (const provider of [cni, bridge]) {
      try {
        await provider.cleanUp(signal);
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }
}
