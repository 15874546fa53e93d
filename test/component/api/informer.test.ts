import assert from "node:assert/strict";
import { describe, it } from "node:test";

import type { ApiClient } from "../../../src/api/client.ts";
import { ApiUnavailableError } from "../../../src/api/errors.ts";
import type { Change } from "../../../src/api/informer-types.ts";
import { createInformer, type InformerOptions } from "../../../src/api/informer.ts";
import { parseStored } from "../../../src/api/object.ts";
import { CONFIG_MAPS } from "../../../src/api/resources.ts";
import type { ConfigMap } from "../../../src/api/types.gen.ts";
import { ParseError } from "../../../src/lib/errors.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { type FakeApiServer, startFakeApiServer } from "../../fakes/api-server.ts";
import { ManualClock, until } from "./manual-clock.ts";

type Projection = Record<string, string>;

/** What the tests care about: the data. */
function project(value: unknown): Projection {
  const { data = {} } = parseStored<ConfigMap>(value);
  if (data["bad"] !== undefined) throw new ParseError("$.data.bad", "nothing");
  return data;
}

interface Scene {
  readonly server: FakeApiServer;
  readonly clock: ManualClock;
  readonly informer: ReturnType<typeof createInformer<Projection>>;
  /** `+key`, `~key`, `-key`, in order. */
  readonly seen: string[];
  readonly put: (
    name: string,
    data?: Record<string, string>,
    labels?: Record<string, string>,
  ) => void;
  /** Requests of the collection so far: `watch`, `stream` or `list`. */
  readonly asked: () => string[];
}

const marks = { added: "+", updated: "~", deleted: "-" } as const;

async function scene(
  body: (scene: Scene) => Promise<void>,
  prepare: (server: FakeApiServer) => void = () => undefined,
  options: Partial<InformerOptions<Projection>> = {},
): Promise<void> {
  const server = await startFakeApiServer();
  const clock = new ManualClock();
  const stop = new AbortController();
  const put: Scene["put"] = (name, data = {}, labels = {}) => {
    server.put(CONFIG_MAPS, { metadata: { name, labels }, data });
  };
  server.put(CONFIG_MAPS, { metadata: { name: "a" }, data: { v: "1" } });
  server.put(CONFIG_MAPS, { metadata: { name: "b" }, data: { v: "1" } });
  prepare(server);
  const informer = createInformer<Projection>({
    client: server.client,
    resource: CONFIG_MAPS,
    project,
    clock,
    logger: silentLogger,
    random: () => 0.5,
    ...options,
  });
  const seen: string[] = [];
  informer.subscribe((change: Change<Projection>) => {
    seen.push(`${marks[change.kind]}${change.key.replace("default/", "")}`);
  });
  const running = informer.run(stop.signal);
  const asked = (): string[] =>
    server.requests.map(({ query }) => {
      if (query.get("sendInitialEvents") === "true") return "stream";
      return query.get("watch") === "true" ? "watch" : "list";
    });
  try {
    await body({ server, clock, informer, seen, put, asked });
  } finally {
    stop.abort();
    await running;
    await server.close();
  }
}

describe("informer", () => {
  it("fills the cache from a streaming list and follows changes", () =>
    scene(async ({ server, informer, seen, put, asked }) => {
      await informer.whenSynced(AbortSignal.timeout(2000));
      assert.deepEqual(informer.get("default/a"), { v: "1" });
      put("a", { v: "2" });
      put("c");
      server.remove(CONFIG_MAPS, "default/b");
      await until(() => seen.length === 5);
      assert.deepEqual(seen, ["+a", "+b", "~a", "+c", "-b"]);
      assert.deepEqual(informer.get("default/a"), { v: "2" });
      assert.equal(informer.size, 2);
      assert.deepEqual(asked(), ["stream"]);
    }));

  it("shows nothing before the list is complete, and all of it to a late subscriber", () =>
    scene(async ({ informer }) => {
      assert.equal(informer.synced, false);
      await informer.whenSynced(AbortSignal.timeout(2000));
      const late: string[] = [];
      informer.subscribe((change) => late.push(change.key));
      assert.deepEqual(late, ["default/a", "default/b"]);
    }));

  for (const answer of ["invalid", "error-event"] as const) {
    it(`lists by pages and watches when streaming lists are refused (${answer}), and remembers it`, () =>
      scene(
        async ({ server, clock, informer, seen, put, asked }) => {
          await informer.whenSynced(AbortSignal.timeout(2000));
          await until(() => server.watchCount === 1);
          put("a", { v: "2" });
          await until(() => seen.length === 3);
          assert.deepEqual(asked(), ["stream", "list", "watch"]);
          clock.advance(60_000);
          server.expireWatches();
          await until(() => asked().length === 5);
          assert.deepEqual(asked().slice(3), ["list", "watch"]);
          assert.deepEqual(seen, ["+a", "+b", "~a"]);
        },
        (server) => {
          server.streamingLists = answer;
        },
      ));
  }

  it("does not try a streaming list where another informer of the same client was refused one", () =>
    scene(
      async ({ server, clock, informer, asked }) => {
        await informer.whenSynced(AbortSignal.timeout(2000));
        await until(() => server.watchCount === 1);
        const stop = new AbortController();
        const second = createInformer<Projection>({
          client: server.client,
          resource: CONFIG_MAPS,
          project,
          clock,
          logger: silentLogger,
          random: () => 0.5,
        });
        const running = second.run(stop.signal);
        await second.whenSynced(AbortSignal.timeout(2000));
        await until(() => server.watchCount === 2);
        stop.abort();
        await running;
        assert.deepEqual(asked(), ["stream", "list", "watch", "list", "watch"]);
      },
      (server) => {
        server.streamingLists = "invalid";
      },
    ));

  it("reads long collections in pages of 500", () =>
    scene(
      async ({ informer, asked }) => {
        await informer.whenSynced(AbortSignal.timeout(2000));
        assert.equal(informer.size, 1202);
        await until(() => asked().length === 5);
        assert.deepEqual(asked(), ["stream", "list", "list", "list", "watch"]);
      },
      (server) => {
        server.streamingLists = "invalid";
        for (let index = 0; index < 1200; index += 1) {
          server.put(CONFIG_MAPS, { metadata: { name: `x${index}` } });
        }
      },
    ));

  it("resumes a torn watch at the last change, without a list", () =>
    scene(async ({ server, clock, informer, seen, put, asked }) => {
      await informer.whenSynced(AbortSignal.timeout(2000));
      put("c");
      await until(() => informer.size === 3);
      clock.advance(60_000);
      server.tearWatches();
      put("d");
      await until(() => informer.size === 4);
      assert.deepEqual(asked(), ["stream", "watch"]);
      assert.deepEqual(seen, ["+a", "+b", "+c", "+d"]);
    }));

  it("resumes at the last bookmark", () =>
    scene(async ({ server, clock, informer, asked }) => {
      await informer.whenSynced(AbortSignal.timeout(2000));
      server.compact();
      server.sendBookmarks();
      const resumeAt = String(server.resourceVersion);
      await until(() => server.watchCount === 1);
      await new Promise((resolve) => setTimeout(resolve, 20));
      clock.advance(60_000);
      server.endWatches();
      await until(() => asked().length === 2);
      assert.equal(server.requests.at(-1)?.query.get("resourceVersion"), resumeAt);
    }));

  it("lists again after 410 and tells only real differences, deletions included", () =>
    scene(async ({ server, clock, informer, seen, put, asked }) => {
      await informer.whenSynced(AbortSignal.timeout(2000));
      clock.advance(60_000);
      server.stallWatches(true);
      put("a", { v: "2" });
      put("c");
      server.remove(CONFIG_MAPS, "default/b");
      server.stallWatches(false);
      server.expireWatches();
      await until(() => asked().length === 2);
      await until(() => seen.length === 5);
      assert.deepEqual(seen.slice(2).toSorted(), ["+c", "-b", "~a"]);
      assert.deepEqual(asked(), ["stream", "stream"]);
    }));

  it("shows an object that was replaced under its name as deleted and added", () =>
    scene(async ({ server, clock, informer, seen, put }) => {
      await informer.whenSynced(AbortSignal.timeout(2000));
      clock.advance(60_000);
      server.stallWatches(true);
      server.remove(CONFIG_MAPS, "default/a");
      put("a", { v: "new" });
      server.stallWatches(false);
      server.expireWatches();
      await until(() => seen.length === 4);
      assert.deepEqual(seen, ["+a", "+b", "-a", "+a"]);
      assert.deepEqual(informer.get("default/a"), { v: "new" });
    }));

  it("follows a selector: leaving it is a deletion", () =>
    scene(
      async ({ informer, seen, put }) => {
        await informer.whenSynced(AbortSignal.timeout(2000));
        put("c", {}, { app: "web" });
        await until(() => informer.size === 1);
        put("c", {}, { app: "db" });
        await until(() => informer.size === 0);
        assert.deepEqual(seen, ["+c", "-c"]);
      },
      undefined,
      { labelSelector: "app=web" },
    ));

  it("finds by a list what a silent watch kept back", () =>
    scene(
      async ({ server, clock, informer, put }) => {
        await informer.whenSynced(AbortSignal.timeout(2000));
        server.stallWatches(true);
        put("c");
        clock.advance(60_000);
        await until(() => informer.size === 3, "the change after the stall");
      },
      undefined,
      { stallMs: 50 },
    ));

  it("takes silence for rest while lists show nothing new, and never polls for it", async () => {
    const clock = new ManualClock();
    const stop = new AbortController();
    const asked: string[] = [];
    // Every watch is accepted, brings nothing for two minutes and then counts as dead.
    const client: ApiClient = {
      request: async () => {
        asked.push("list");
        return { metadata: { resourceVersion: "1" }, items: [] };
      },
      watch: async function* watch(request) {
        asked.push("watch");
        if (asked.length > 12) stop.abort();
        request.onOpen?.();
        clock.advance(request.stallMs);
        yield* [];
        throw new ApiUnavailableError("the stream fell silent");
      },
    };
    const informer = createInformer({
      client,
      resource: CONFIG_MAPS,
      project,
      clock,
      logger: silentLogger,
      random: () => 0.5,
      streaming: { refused: true },
    });
    await informer.run(stop.signal);
    assert.deepEqual(asked.slice(0, 12), Array.from({ length: 6 }, () => ["list", "watch"]).flat());
    assert.deepEqual(clock.sleeps, []);
  });

  it("does not count a resting watch that is cut now and then as torn", () =>
    scene(async ({ server, clock, informer, asked }) => {
      await informer.whenSynced(AbortSignal.timeout(2000));
      for (let round = 1; round <= 5; round += 1) {
        await until(() => server.watchCount === 1);
        clock.advance(55_000);
        server.tearWatches();
        await until(() => asked().length === 1 + round);
      }
      assert.deepEqual(
        asked().slice(1),
        Array.from({ length: 5 }, () => "watch"),
      );
      assert.deepEqual(clock.sleeps, []);
    }));

  it("backs off with jitter while the server is away", () =>
    scene(
      async ({ clock, informer }) => {
        for (let failures = 1; failures <= 7; failures += 1) {
          await until(() => clock.sleeping);
          clock.advance(60_000);
          await until(() => clock.sleeps.length > failures || informer.synced);
        }
        assert.deepEqual(clock.sleeps.slice(0, 7), [600, 1200, 2400, 4800, 9600, 19_200, 22_500]);
      },
      (server) => server.inject(() => true, "reset", 100),
    ));

  it("waits as long as an overloaded server asks", () =>
    scene(
      async ({ clock, informer }) => {
        await until(() => clock.sleeping);
        assert.deepEqual(clock.sleeps, [17_000]);
        clock.advance(17_000);
        await informer.whenSynced(AbortSignal.timeout(2000));
      },
      (server) => server.inject(() => true, { status: 429, retryAfterSeconds: 17 }),
    ));

  it("polls after three watches that did not live, until one holds", () =>
    scene(async ({ server, clock, informer, seen, put, asked }) => {
      await informer.whenSynced(AbortSignal.timeout(2000));
      server.watchesServed = false;
      server.tearWatches();
      while (
        asked()
          .slice(1)
          .every((kind) => kind !== "list")
      ) {
        clock.advance(1000);
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      await until(() => clock.sleeping);
      assert.equal(clock.sleeps.at(-1), 10_000);
      put("c");
      clock.advance(10_000);
      await until(() => informer.size === 3, "the polled change");
      await until(() => clock.sleeping);
      server.watchesServed = true;
      clock.advance(10_000);
      await until(() => server.watchCount === 1);
      put("d");
      await until(() => informer.size === 4, "the watched change");
      clock.advance(10_000);
      const before = asked().length;
      server.tearWatches();
      await until(() => asked().length === before + 1 && server.watchCount === 1);
      assert.equal(asked().at(-1), "watch");
      assert.deepEqual(seen, ["+a", "+b", "+c", "+d"]);
    }));

  it("never skips an object it cannot understand: the watch ends and comes back to it", () =>
    scene(async ({ server, clock, informer, put, asked }) => {
      await informer.whenSynced(AbortSignal.timeout(2000));
      clock.advance(60_000);
      put("c", { bad: "1" });
      put("d");
      await until(() => clock.sleeping);
      assert.equal(informer.get("default/d"), undefined);
      put("c", { good: "1" });
      server.compact();
      for (let turn = 0; informer.size < 4; turn += 1) {
        assert.ok(turn < 500, "the informer never recovered");
        clock.advance(1000);
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
      assert.deepEqual(informer.get("default/c"), { good: "1" });
      assert.ok(asked().length > 2);
    }));

  it("treats garbage in the stream as a torn watch", () =>
    scene(async ({ server, clock, informer, put, asked }) => {
      await informer.whenSynced(AbortSignal.timeout(2000));
      clock.advance(60_000);
      server.sendToWatches('{"type":"ADD');
      await until(() => asked().length === 2);
      put("c");
      await until(() => informer.size === 3);
    }));

  it("keeps a listener that throws from hurting anybody else", () =>
    scene(async ({ informer, seen, put }) => {
      informer.subscribe(() => {
        throw new Error("broken listener");
      });
      await informer.whenSynced(AbortSignal.timeout(2000));
      put("c");
      await until(() => seen.length === 3);
    }));

  it("ends whenSynced with the caller's signal", () =>
    scene(
      async ({ informer }) => {
        await assert.rejects(informer.whenSynced(AbortSignal.timeout(5)), { name: "TimeoutError" });
      },
      (server) => server.inject(() => true, "hang", 100),
    ));
});
