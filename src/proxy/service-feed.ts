import type { Informer } from "../api/informer-types.ts";
import type { IPFamily } from "../lib/cidr.ts";
import type { ProxyInformers } from "./own-informers.ts";
import type { ServiceView, SliceView } from "./parse.ts";
import { SliceIndex } from "./slice-index.ts";

/** Is told what happens to Services. Must not throw. */
export interface FeedListener {
  /** A Service, or one of its EndpointSlices, changed, came or went. */
  changed(serviceKey: string): void;
  /** A slice says when the pods changed that it follows; milliseconds since the epoch. */
  triggered?(family: IPFamily, serviceKey: string, at: number): void;
  /** A slice is gone: the time that it told was that of an earlier change. */
  untriggered?(family: IPFamily, serviceKey: string): void;
}

/** What of Services and EndpointSlices changes, as keys of Services. */
export class ServiceFeed {
  readonly index: SliceIndex;
  readonly #services: Informer<ServiceView>;
  readonly #slices: Informer<SliceView>;
  readonly #listeners: FeedListener[] = [];

  constructor({ services, slices }: ProxyInformers, nodeName: string) {
    this.index = new SliceIndex(nodeName);
    this.#services = services;
    this.#slices = slices;
  }

  /** @returns Undefined when there is no such Service any more. */
  service(key: string): ServiceView | undefined {
    return this.#services.get(key);
  }

  keys(): readonly string[] {
    return [...this.#services.values()].map(({ key }) => key);
  }

  listen(listener: FeedListener): void {
    this.#listeners.push(listener);
  }

  /**
   * Follows the informers. Once only.
   *
   * @param seen Is told of each change, by what changed.
   */
  start(seen: { service(): void; slice(): void }): void {
    this.#services.subscribe((change) => {
      seen.service();
      this.#changed(change.key);
    });
    this.#slices.subscribe((change) => {
      seen.slice();
      const before = change.kind === "added" ? undefined : change.previous;
      const after = change.kind === "deleted" ? undefined : change.object;
      if (before !== undefined) this.index.delete(before);
      if (after !== undefined) this.index.set(after);
      this.#tellTrigger(before, after);
      for (const slice of [before, after]) {
        if (slice?.service !== undefined) this.#changed(slice.service);
      }
    });
  }

  /** Resolves when both informers have delivered all there is. */
  async whenSynced(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#services.whenSynced(signal), this.#slices.whenSynced(signal)]);
  }

  #changed(key: string): void {
    for (const listener of this.#listeners) listener.changed(key);
  }

  #tellTrigger(before: SliceView | undefined, after: SliceView | undefined): void {
    const { family, service, triggeredAt } = after ?? before ?? {};
    if (family === undefined || service === undefined) return;
    // A slice that changed for another reason still carries the time of its last one.
    if (after !== undefined && triggeredAt === before?.triggeredAt) return;
    for (const listener of this.#listeners) {
      if (after === undefined) listener.untriggered?.(family, service);
      else if (triggeredAt !== undefined) listener.triggered?.(family, service, triggeredAt);
    }
  }
}
