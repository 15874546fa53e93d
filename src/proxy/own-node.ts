import type { Informer } from "../api/informer-types.ts";
import { deadline } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { NodeCondition } from "./node-condition.ts";
import { Wake } from "./wake.ts";

const patienceMs = 2000;

/** The Node object of this machine, as far as it is known. */
export class OwnNode {
  readonly #informer: Informer<NodeCondition>;
  readonly #name: string;
  readonly #logger: Logger;
  #podCIDRs: readonly string[] = [];

  constructor(informer: Informer<NodeCondition>, name: string, logger: Logger) {
    this.#informer = informer;
    this.#name = name;
    this.#logger = logger;
  }

  run(signal: AbortSignal): Promise<void> {
    return this.#informer.run(signal);
  }

  /** Undefined while it is not known, and when there is none. */
  get condition(): NodeCondition | undefined {
    return this.#informer.get(this.#name);
  }

  /** No other Node is in the cluster. Says so only where the informer follows all of them. */
  get isAlone(): boolean {
    const { size, synced } = this.#informer;
    return synced && size === (this.condition === undefined ? 0 : 1);
  }

  /** Empty when it is not known. */
  get zone(): string {
    return this.condition?.zone ?? "";
  }

  /** Also when the Node is gone, or was made anew and has none yet: its pods keep theirs. */
  get podCIDRs(): readonly string[] {
    const { podCIDRs = [] } = this.condition ?? {};
    if (podCIDRs.length > 0) this.#podCIDRs = podCIDRs;
    return this.#podCIDRs;
  }

  /** @param listener Is told of each change. @returns Ends the subscription. */
  subscribe(listener: () => void): () => void {
    return this.#informer.subscribe(listener);
  }

  /** Waits for the zone: a moment is enough, because a proxy without it is right, only less near. */
  async whenKnown(signal: AbortSignal): Promise<void> {
    try {
      await this.#informer.whenSynced(deadline(signal, patienceMs));
    } catch (error) {
      if (signal.aborted) throw error;
      this.#logger.log("warn", "own Node is not readable yet; topology zones are not used", {});
    }
  }

  /** Waits until the cluster has given this node networks for pods. */
  async whenPodCIDRsKnown(signal: AbortSignal): Promise<void> {
    const changed = new Wake();
    const unsubscribe = this.subscribe(() => {
      changed.set();
    });
    try {
      for (let told = false; this.podCIDRs.length === 0; told = true) {
        if (!told) {
          this.#logger.log("warn", "no Service rules before the Node has a podCIDR", {
            setting: "detectLocalMode: NodeCIDR",
          });
        }
        await changed.wait(signal);
      }
    } finally {
      unsubscribe();
    }
  }
}
