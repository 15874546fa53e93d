import type { PodNetwork, SandboxNetworkConfig } from "../../src/network/types.ts";

export interface FakeNetwork extends PodNetwork {
  ready: boolean;
  /** Sandboxes that have an address now. */
  readonly leases: ReadonlyMap<string, SandboxNetworkConfig>;
  /** Sandboxes whose interface somebody took away; {@link PodNetwork.setUp} brings it back. */
  readonly cut: Set<string>;
  /** As a new process: nothing is known before it is loaded. */
  forget(): void;
}

/** A pod network in memory: hands out 10.244.0.2 and upwards, frees on tear-down, keeps leases over agent restarts. */
class MemoryNetwork implements FakeNetwork {
  readonly leases = new Map<string, SandboxNetworkConfig>();
  readonly cut = new Set<string>();
  readonly #ips = new Map<string, string>();
  #loaded = false;
  ready = true;
  #next = 2;

  /** What a new process does not know before it has loaded. */
  forget(): void {
    this.#loaded = false;
  }

  async load(): Promise<void> {
    this.#loaded = true;
  }

  async ensureNode(): Promise<void> {
    this.ready = true;
  }

  async setUp(config: SandboxNetworkConfig): Promise<{ ips: readonly string[] }> {
    const ip = this.#ips.get(config.sandboxID) ?? `10.244.0.${this.#next++}`;
    this.#ips.set(config.sandboxID, ip);
    this.leases.set(config.sandboxID, config);
    this.cut.delete(config.sandboxID);
    return { ips: [ip] };
  }

  addresses(sandboxID: string): readonly string[] | undefined {
    const ip = this.#loaded ? this.#ips.get(sandboxID) : undefined;
    return ip === undefined ? undefined : [ip];
  }

  isIntact(sandboxID: string): boolean {
    return !this.cut.has(sandboxID);
  }

  async tearDown(sandboxID: string): Promise<void> {
    this.#ips.delete(sandboxID);
    this.leases.delete(sandboxID);
  }

  async collectGarbage(sandboxIDs: ReadonlySet<string>): Promise<void> {
    for (const id of this.leases.keys()) if (!sandboxIDs.has(id)) await this.tearDown(id);
  }

  async cleanUp(): Promise<void> {
    this.leases.clear();
    this.#ips.clear();
  }
}

/** A {@link FakeNetwork} that is ready from the start. */
export function fakeNetwork(): FakeNetwork {
  return new MemoryNetwork();
}
