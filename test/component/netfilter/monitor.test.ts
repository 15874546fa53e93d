import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import type { Clock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { type Deletion, DeletionWatch } from "../../../src/netfilter/monitor.ts";

const silent = ["sleep", "60"] as const;

/** Time that passes only when the test says so. */
class TestClock implements Clock {
  readonly sleeps: { readonly ms: number; readonly end: () => void }[] = [];
  #next = Promise.withResolvers<void>();

  now(): number {
    return 0;
  }
  monotonic(): number {
    return 0;
  }
  async sleep(ms: number, signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.sleeps.push({ ms, end: resolve });
    signal.addEventListener("abort", () => reject(new DOMException("aborted", "AbortError")), {
      once: true,
    });
    this.#next.resolve();
    this.#next = Promise.withResolvers();
    await promise;
  }
  /** Lets the next sleep that begins be over. */
  async pass(): Promise<number> {
    while (this.sleeps.length === 0) await this.#next.promise;
    const sleep = this.sleeps.shift();
    sleep?.end();
    return sleep?.ms ?? 0;
  }
}

/** Runs a watch with this monitor, and `use` with what it tells. */
async function watching(
  monitor: readonly [string, ...string[]],
  use: (of: { clock: TestClock; next: () => Promise<Deletion | "unwatched"> }) => Promise<void>,
): Promise<void> {
  const clock = new TestClock();
  const watch = new DeletionWatch({ clock, logger: silentLogger, random: () => 0.5, monitor });
  const told: (Deletion | "unwatched")[] = [];
  let more = Promise.withResolvers<void>();
  watch.subscribe((what) => {
    told.push(what);
    more.resolve();
    more = Promise.withResolvers();
  });
  const stop = new AbortController();
  const running = watch.run(stop.signal).catch((error: unknown) => {
    if (!stop.signal.aborted) throw error;
  });
  const next = async (): Promise<Deletion | "unwatched"> => {
    while (told.length === 0) await more.promise;
    return told.shift() ?? "unwatched";
  };
  try {
    await Promise.race([use({ clock, next }), running]);
  } finally {
    stop.abort();
    await running;
  }
}

describe("a watch on deletions in nftables", () => {
  test("tells them, and that events were lost", async () => {
    const text = "delete table ip a\\n# ERROR: We lost some netlink events!\\n";
    await watching(["sh", "-c", `printf '${text}'; exec ${silent.join(" ")}`], async ({ next }) => {
      assert.deepEqual(await next(), { kind: "table", family: "ip", table: "a", name: "" });
      assert.equal(await next(), "unwatched");
    });
  });

  test("says when one ends, and again when the next one listens: between them nobody looked", async (t) => {
    const directory = await mkdtemp(join(tmpdir(), "remora-monitor-"));
    t.after(async () => rm(directory, { recursive: true, force: true }));
    const script = `cd ${directory} && mkdir one && exit 1; exec ${silent.join(" ")}`;
    await watching(["sh", "-c", script], async ({ clock, next }) => {
      assert.equal(await next(), "unwatched");
      await clock.pass();
      await clock.pass();
      assert.equal(await next(), "unwatched");
    });
  });
});
