import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type ServerResponse } from "node:http";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { type Clock, systemClock } from "../../../src/lib/clock.ts";
import { DockerClient } from "../../../src/runtime/docker/client.ts";

const never = new AbortController().signal;
const places = Math.max(4, availableParallelism());

/** An engine whose answers to starts are given by hand. */
async function slowEngine(directory: string): Promise<{
  readonly socketPath: string;
  readonly starting: ServerResponse[];
  readonly arrived: (count: number) => Promise<void>;
  readonly close: () => Promise<void>;
}> {
  const starting: ServerResponse[] = [];
  let total = 0;
  const waiting: { count: number; resolve: () => void }[] = [];
  const server = createServer((request, response) => {
    if (request.url?.startsWith("/version") === true) {
      response.end(JSON.stringify({ ApiVersion: "1.41", Version: "20.10.0", Arch: "amd64" }));
      return;
    }
    if (request.method === "GET") {
      response.end("{}");
      return;
    }
    starting.push(response);
    total += 1;
    for (const { count, resolve } of waiting) if (total >= count) resolve();
  });
  const socketPath = join(directory, "docker.sock");
  server.listen(socketPath);
  await once(server, "listening");
  return {
    socketPath,
    starting,
    arrived: async (count) => {
      if (total >= count) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      waiting.push({ count, resolve });
      await promise;
    },
    close: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

async function withEngine(
  clock: Clock,
  run: (
    engine: Awaited<ReturnType<typeof slowEngine>>,
    start: () => Promise<unknown>,
    client: DockerClient,
  ) => Promise<void>,
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "starts-"));
  const engine = await slowEngine(directory);
  const client = new DockerClient({ socketPath: engine.socketPath, clock });
  const start = (): Promise<unknown> =>
    client.call({ op: "start", method: "POST", path: "/containers/x/start", lane: "start" }, never);
  try {
    await run(engine, start, client);
  } finally {
    await engine.close();
    await rm(directory, { recursive: true, force: true });
  }
}

test("the engine starts no more containers at a time than it has processors for, and everything else goes on", async () => {
  await withEngine(systemClock, async ({ arrived, starting }, start, client) => {
    const all = Array.from({ length: places + 3 }, start);
    await arrived(places);
    // A read that is asked after the starts is answered before any of them.
    await client.call({ op: "read", method: "GET", path: "/containers/json" }, never);
    assert.equal(starting.length, places);
    for (let at = 0; at < all.length; at += 1) {
      await arrived(Math.min(places + at, all.length));
      starting[at]?.end("{}");
    }
    await Promise.all(all);
  });
});

test("a start that takes long does not hold up the next one", async () => {
  const clock: Clock = { ...systemClock, sleep: () => Promise.resolve() };
  await withEngine(clock, async ({ arrived, starting }, start) => {
    const all = Array.from({ length: places + 1 }, start);
    await arrived(places + 1);
    for (const response of starting) response.end("{}");
    await Promise.all(all);
  });
});
