import assert from "node:assert/strict";
import { describe, it } from "node:test";

import type { Change, Informer } from "../../../src/api/informer-types.ts";
import { parseSlice, type ServiceView, type SliceView } from "../../../src/proxy/parse.ts";
import { ServiceFeed } from "../../../src/proxy/service-feed.ts";

/** An informer that is told what happens. */
class ToldInformer<T> implements Informer<T> {
  readonly synced = true;
  readonly size = 0;
  readonly #listeners: ((change: Change<T>) => void)[] = [];

  async run(): Promise<void> {}
  async whenSynced(): Promise<void> {}
  get(): undefined {
    return undefined;
  }
  values(): IterableIterator<T> {
    return new Map<string, T>().values();
  }
  subscribe(listener: (change: Change<T>) => void): () => void {
    this.#listeners.push(listener);
    return () => undefined;
  }
  tell(change: Change<T>): void {
    for (const listener of this.#listeners) listener(change);
  }
}

function slice(trigger: string | undefined, addresses: readonly string[]): SliceView {
  const annotations =
    trigger === undefined ? {} : { "endpoints.kubernetes.io/last-change-trigger-time": trigger };
  return parseSlice({
    metadata: {
      namespace: "ns",
      name: "web-1",
      labels: { "kubernetes.io/service-name": "web" },
      annotations,
    },
    addressType: "IPv4",
    ports: [{ port: 80 }],
    endpoints: addresses.map((ip) => ({ addresses: [ip] })),
  });
}

describe("times from which network programming latency counts", () => {
  it("are told once for each change of pods, and taken back with the slice", () => {
    const slices = new ToldInformer<SliceView>();
    const feed = new ServiceFeed({ services: new ToldInformer<ServiceView>(), slices }, "here");
    const told: string[] = [];
    feed.listen({
      changed: () => undefined,
      triggered: (family, key, at) => told.push(`${family} ${key} ${new Date(at).toISOString()}`),
      untriggered: (family, key) => told.push(`${family} ${key} gone`),
    });
    feed.start({ service: () => undefined, slice: () => undefined });
    const first = slice("2026-01-01T00:00:01Z", ["10.0.0.1"]);
    const sameTime = slice("2026-01-01T00:00:01Z", ["10.0.0.1"]);
    const later = slice("2026-01-01T00:00:09Z", ["10.0.0.2"]);
    const silent = slice(undefined, ["10.0.0.3"]);
    const key = "ns/web-1";
    slices.tell({ kind: "added", key, object: first });
    slices.tell({ kind: "updated", key, previous: first, object: sameTime });
    slices.tell({ kind: "updated", key, previous: sameTime, object: later });
    slices.tell({ kind: "updated", key, previous: later, object: silent });
    slices.tell({ kind: "deleted", key, previous: silent });
    assert.deepEqual(told, [
      "IPv4 ns/web 2026-01-01T00:00:01.000Z",
      "IPv4 ns/web 2026-01-01T00:00:09.000Z",
      "IPv4 ns/web gone",
    ]);
  });
});
