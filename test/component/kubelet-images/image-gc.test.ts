import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import {
  type DiskUsage,
  formatSize,
  ImageCollector,
  type ImageCollectorOptions,
} from "../../../src/kubelet/images/image-gc.ts";
import { PullRecords } from "../../../src/kubelet/images/pull-records.ts";
import type { Clock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { RuntimeError } from "../../../src/runtime/errors.ts";
import type { Image, PodRecord } from "../../../src/runtime/types.ts";
import { record } from "../../unit/kubelet-pods/builders.ts";

const never = new AbortController().signal;
const minute = 60_000;

function idOf(name: string): string {
  return `sha256:${Buffer.from(name).toString("hex").padEnd(64, "0")}`;
}

/** A node with images on a disk of 1000 bytes. */
class World implements AsyncDisposable {
  readonly images = new Map<string, Image>();
  readonly used = new Set<string>();
  readonly foreignUsed = new Set<string>();
  readonly events: string[] = [];
  readonly records: PullRecords;
  readonly #rootDir: string;
  disk: DiskUsage = { capacityBytes: 1000, availableBytes: 900 };
  now = Date.parse("2026-01-01T00:00:00Z");

  private constructor(rootDir: string) {
    this.#rootDir = rootDir;
    this.records = new PullRecords(rootDir, () => this.now);
  }

  static async make(): Promise<World> {
    return new World(await mkdtemp(join(tmpdir(), "gc-")));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#rootDir, { recursive: true, force: true });
  }

  get left(): readonly string[] {
    return [...this.images.keys()].toSorted();
  }

  add(name: string, more: Partial<Image> = {}): void {
    const tags = [`r.test/${name}:1`];
    const fresh = { digests: [], sizeBytes: 100, user: {}, stopSignal: undefined };
    this.images.set(name, { id: idOf(name), tags, ...fresh, ...more });
  }

  async pulled(name: string, more: Partial<Image> = {}): Promise<void> {
    this.add(name, more);
    await this.records.begin(`r.test/${name}:1`);
    await this.records.pulled(`r.test/${name}:1`, idOf(name), undefined);
  }

  collector(config: Partial<ImageCollectorOptions["config"]> = {}): ImageCollector {
    const clock: Clock = {
      now: () => this.now,
      monotonic: () => this.now,
      sleep: () => Promise.reject(new Error("nothing sleeps here")),
    };
    const pod = (): PodRecord => ({
      uid: "uid-1",
      name: "web",
      namespace: "ns",
      sandboxes: [],
      containers: [...this.used].map((name) =>
        record("web", { kind: "created", createdAt: 0 }, { imageID: idOf(name) }),
      ),
    });
    return new ImageCollector({
      config: { nodeName: "worker", ...config },
      images: {
        listImages: () => Promise.resolve([...this.images.values()]),
        imageStatus: () => Promise.reject(new Error("not asked")),
        pullImage: () => Promise.reject(new Error("not asked")),
        removeImage: (id) => {
          const name = this.left.find((one) => idOf(one) === id) ?? "";
          if (this.foreignUsed.has(name)) {
            return Promise.reject(new RuntimeError("WrongState", "in use"));
          }
          this.images.delete(name);
          return Promise.resolve();
        },
      },
      runtime: { snapshot: () => Promise.resolve(new Map([["uid-1", pod()]])) },
      records: this.records,
      disk: () => Promise.resolve(this.disk),
      events: {
        event: (target, type, reason, message) => {
          this.events.push(`${target.kind}/${target.name} ${type} ${reason} ${message}`);
        },
      },
      clock,
      logger: silentLogger,
    });
  }

  fill(percent: number): void {
    this.disk = { capacityBytes: 1000, availableBytes: 1000 - percent * 10 };
  }
}

describe("images that nobody uses", () => {
  test("stay while the disk is not full", async () => {
    await using world = await World.make();
    await world.pulled("a");
    world.fill(84);
    await world.collector().collect(never);
    assert.deepEqual(world.left, ["a"]);
  });

  test("go, the longest unused first, until the disk is at the low threshold", async () => {
    await using world = await World.make();
    for (const name of ["a", "b", "c"]) await world.pulled(name);
    const collector = world.collector();
    for (const name of ["b", "a", "c"]) {
      world.used.clear();
      world.used.add(name);
      world.now += minute;
      await collector.collect(never);
    }
    world.used.clear();
    world.now += minute;
    // 90 - 80 percent of 1000 bytes: one image is enough.
    world.fill(90);
    await collector.collect(never);
    assert.deepEqual(world.left, ["a", "c"]);
    world.fill(95);
    await collector.collect(never);
    assert.deepEqual(world.left, []);
    assert.equal((await world.records.broughtImages()).size, 0, "the records go with them");
  });

  test("are left alone when they are not ours: never pulled, there before, or named by somebody", async () => {
    await using world = await World.make();
    world.add("loaded");
    await world.pulled("before");
    await world.records.found(idOf("before"));
    await world.pulled("tagged", { tags: ["r.test/tagged:1", "my-own-name:latest"] });
    await world.pulled("pinned", { pinned: true });
    await world.pulled("ours");
    world.fill(99);
    await assert.rejects(world.collector().collect(never));
    assert.deepEqual(world.left, ["before", "loaded", "pinned", "tagged"]);
  });

  test("are kept for two minutes, and while any container has them", async () => {
    await using world = await World.make();
    const collector = world.collector();
    await collector.collect(never);
    for (const name of ["fresh", "used", "foreign"]) await world.pulled(name);
    world.used.add("used");
    world.foreignUsed.add("foreign");
    world.fill(90);
    await assert.rejects(collector.collect(never));
    assert.deepEqual(world.left, ["foreign", "fresh", "used"]);
    world.now += 2 * minute;
    await collector.collect(never);
    assert.deepEqual(world.left, ["foreign", "used"]);
  });

  test("that are not enough are told on the node", async () => {
    await using world = await World.make();
    await world.pulled("a");
    world.fill(95);
    await assert.rejects(world.collector().collect(never));
    assert.deepEqual(world.events, [
      "Node/worker Warning FreeDiskSpaceFailed Insufficient free disk space on the node's image filesystem (95% of 1000 B used). Failed to free sufficient space by deleting unused images (freed 100 bytes). Investigate disk usage, as it could be used by active images, logs, volumes, or other data.",
    ]);
  });

  test("go when they are old, whatever the disk says", async () => {
    await using world = await World.make();
    await world.pulled("old");
    await world.pulled("new");
    const collector = world.collector({ imageMaximumGCAgeMs: 10 * minute });
    world.used.add("new");
    world.now += 9 * minute;
    await collector.collect(never);
    assert.deepEqual(world.left, ["new", "old"]);
    world.used.clear();
    world.now += 2 * minute;
    await collector.collect(never);
    assert.deepEqual(world.left, ["new"]);
  });

  test("are never looked at with a threshold of 100", async () => {
    await using world = await World.make();
    await world.pulled("a");
    world.fill(100);
    await world.collector({ imageGCHighThresholdPercent: 100 }).run(never);
    assert.deepEqual(world.left, ["a"]);
  });
});

test("sizes are written as the kubelet writes them", () => {
  const sizes = [12, 2048, 3 * 2 ** 20, 1.5 * 2 ** 30, 2 ** 42].map(formatSize);
  assert.deepEqual(sizes, ["12 B", "2.0 KiB", "3.0 MiB", "1.5 GiB", "4.0 TiB"]);
});
