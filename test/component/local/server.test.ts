import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdir, readdir, stat, writeFile } from "node:fs/promises";
import { createConnection, type Socket } from "node:net";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, test } from "node:test";

import { askSnapshot, followSnapshots } from "../../../src/agent/local/local-client.ts";
import { LocalServer } from "../../../src/agent/local/local-server.ts";
import type { AgentPlace } from "../../../src/agent/local/places.ts";
import type { Taken } from "../../../src/agent/local/snapshot-source.ts";
import { type Clock, systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { inTemporary } from "../../fakes/temporary.ts";
import { emptySnapshot } from "../../fakes/node-snapshots.ts";

/** Sleeps a fiftieth of what it is told. */
const quickClock: Clock = {
  ...systemClock,
  sleep: (ms, signal) => systemClock.sleep(ms / 50, signal),
};

interface World {
  readonly place: AgentPlace;
  readonly signal: AbortSignal;
  readonly counts: { taken: number; forgotten: number };
}

async function withServer(
  work: (world: World) => Promise<void>,
  take: () => Taken = () => ({ snapshot: emptySnapshot(), at: 0, costMs: 1 }),
): Promise<void> {
  await inTemporary(async (stateDir) => {
    const socket = join(stateDir, "local.sock");
    const stop = new AbortController();
    const counts = { taken: 0, forgotten: 0 };
    const server = new LocalServer({
      path: socket,
      group: undefined,
      source: {
        take: async () => {
          counts.taken += 1;
          return take();
        },
        forget: () => {
          counts.forgotten += 1;
        },
      },
      clock: quickClock,
      logger: silentLogger,
    });
    const running = server.run(stop.signal);
    const place = { stateDir, socket, pid: undefined };
    try {
      await until(() =>
        stat(socket).then(
          (found) => (found.mode & 0o777) === 0o660,
          () => false,
        ),
      );
      await work({ place, signal: stop.signal, counts });
    } finally {
      stop.abort();
      await running;
    }
    await assert.rejects(stat(socket), { code: "ENOENT" });
  });
}

async function until(condition: () => Promise<boolean> | boolean): Promise<void> {
  for (let tries = 0; tries < 500; tries += 1) {
    if (await condition()) return;
    await systemClock.sleep(5, AbortSignal.timeout(1000));
  }
  assert.fail("it never came to that");
}

async function connected(path: string): Promise<Socket> {
  const socket = createConnection(path);
  socket.on("error", () => undefined);
  await once(socket, "connect");
  return socket;
}

describe("the agent's own socket", () => {
  test("answers who asks, is for its owner and a group, and is gone with the agent", async () => {
    await withServer(async ({ place, signal, counts }) => {
      const answer = await askSnapshot(place, signal);
      assert.deepEqual(answer, { kind: "snapshot", snapshot: emptySnapshot() });
      assert.equal(counts.taken, 1);
    });
  });

  test("looks at nothing while nobody follows, and stops looking with the last who does", async () => {
    await withServer(async ({ place, counts }) => {
      await systemClock.sleep(50, AbortSignal.timeout(1000));
      assert.equal(counts.taken, 0);
      const leave = new AbortController();
      let seen = 0;
      for await (const answer of followSnapshots(place, leave.signal)) {
        assert.equal(answer.kind, "snapshot");
        seen += 1;
        if (seen === 3) leave.abort();
      }
      assert.equal(seen, 3);
      await until(() => counts.forgotten === 1);
      const { taken } = counts;
      await systemClock.sleep(100, AbortSignal.timeout(1000));
      assert.equal(counts.taken, taken);
      // Another one begins anew.
      const again = new AbortController();
      for await (const answer of followSnapshots(place, again.signal)) {
        assert.equal(answer.kind, "snapshot");
        seen += 1;
        if (seen === 6) again.abort();
      }
      assert.equal(seen, 6);
    });
  });

  test("who does not read loses snapshots; who reads gets them all the same", async () => {
    const large = emptySnapshot({ stateDir: "x".repeat(1_000_000) });
    await withServer(
      async ({ place, counts }) => {
        const lazy = await connected(place.socket);
        lazy.pause();
        lazy.write("GET /v1/snapshots HTTP/1.1\r\nHost: localhost\r\n\r\n");
        await until(() => counts.taken > 0);
        const leave = new AbortController();
        let seen = 0;
        for await (const answer of followSnapshots(place, leave.signal)) {
          assert.equal(answer.kind, "snapshot");
          seen += 1;
          if (seen === 20) leave.abort();
        }
        assert.equal(seen, 20);
        // What is kept for it is one snapshot, whatever it has missed.
        let bytes = 0;
        lazy.on("data", (chunk: Buffer) => (bytes += chunk.length));
        lazy.resume();
        await until(() => bytes > 1_000_000);
        assert.ok(bytes < 4_000_000, `${bytes} bytes were waiting`);
        lazy.destroy();
      },
      () => ({ snapshot: large, at: 0, costMs: 1 }),
    );
  });

  test("takes no more than sixteen followers, and says so to the next", async () => {
    await withServer(async ({ place, signal, counts }) => {
      const sockets: Socket[] = [];
      for (let index = 0; index < 16; index += 1) {
        const socket = await connected(place.socket);
        socket.resume();
        socket.write("GET /v1/snapshots HTTP/1.1\r\nHost: localhost\r\n\r\n");
        sockets.push(socket);
      }
      await until(() => counts.taken >= 16);
      const next = await followSnapshots(place, signal).next();
      assert.deepEqual(next.value, {
        kind: "none",
        why: "the agent refused: 16 others follow this node already",
        remedy: "ask again in a moment",
      });
      // One question is always answered.
      assert.equal((await askSnapshot(place, signal)).kind, "snapshot");
      for (const socket of sockets) socket.destroy();
    });
  });

  test("a thousand connections are hung up on, and afterwards it answers", async () => {
    await withServer(async ({ place, signal }) => {
      const sockets = Array.from({ length: 1000 }, () => {
        const socket = createConnection(place.socket);
        socket.on("error", () => undefined);
        return socket;
      });
      let open = 1000;
      for (const socket of sockets) socket.on("close", () => (open -= 1));
      await until(() => open <= 64);
      for (const socket of sockets) socket.destroy();
      await until(async () => (await askSnapshot(place, signal)).kind === "snapshot");
    });
  });

  test("who asks without a pause is answered in turn, and is hung up on when he does not wait", async () => {
    await withServer(async ({ place, signal, counts }) => {
      const socket = await connected(place.socket);
      let text = "";
      socket.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
      socket.write("GET /v1/snapshot HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000));
      await until(() => socket.destroyed || text.includes(" 503 "));
      const answers = text.split("HTTP/1.1 200").length - 1;
      assert.ok(answers <= 16, `${answers} answers`);
      assert.ok(counts.taken <= 17, `${counts.taken} taken`);
      socket.destroy();
      assert.equal((await askSnapshot(place, signal)).kind, "snapshot");
    });
  });

  test("garbage, other paths and other methods are refused", async () => {
    await withServer(async ({ place, counts }) => {
      const cases = [
        ["\u0000\u0001 garbage\r\n\r\n", "400"],
        [`GET /${"x".repeat(20_000)} HTTP/1.1\r\n\r\n`, "431"],
        ["GET /v1/pods HTTP/1.1\r\nHost: a\r\n\r\n", "404"],
        ["GET http://a/v1/snapshot/../.. HTTP/1.1\r\nHost: a\r\n\r\n", "404"],
        ["POST /v1/snapshot HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "405"],
      ] as const;
      for (const [text, status] of cases) {
        const socket = await connected(place.socket);
        socket.write(text);
        const answer = (await once(socket, "data")).map(String).join("");
        assert.equal(answer.split(" ")[1], status);
        socket.destroy();
      }
      assert.equal(counts.taken, 0);
    });
  });

  test("a state directory of any depth will do", async () => {
    await inTemporary(async (directory) => {
      const stateDir = join(directory, "a-rather-long-name".repeat(6), "é".repeat(40));
      await mkdir(stateDir, { recursive: true });
      const place = { stateDir, socket: join(stateDir, "local.sock"), pid: undefined };
      const signal = AbortSignal.timeout(10_000);
      const before = await askSnapshot(place, signal);
      assert.match(before.kind === "none" ? before.why : "", /^no agent runs on this machine/);
      const stop = new AbortController();
      const take = (): Promise<Taken> =>
        Promise.resolve({ snapshot: emptySnapshot(), at: 0, costMs: 1 });
      const source = { take, forget: () => undefined };
      const options = { group: undefined, source, clock: systemClock, logger: silentLogger };
      const running = new LocalServer({ ...options, path: place.socket }).run(stop.signal);
      await until(async () => (await askSnapshot(place, signal)).kind === "snapshot");
      stop.abort();
      await running;
      assert.deepEqual(await readdir(stateDir), []);
    });
  });

  test("the socket that a killed agent left is replaced; anything else is not", async () => {
    await inTemporary(async (stateDir) => {
      const path = join(stateDir, "local.sock");
      const serve = (): Promise<void> =>
        new LocalServer({
          path,
          group: undefined,
          source: { take: () => Promise.reject(new Error("no")), forget: () => undefined },
          clock: systemClock,
          logger: silentLogger,
        }).run(AbortSignal.timeout(100));
      const former = createServer();
      former.listen(path);
      await once(former, "listening");
      await serve();
      former.close();
      await writeFile(path, "somebody's");
      await assert.rejects(serve(), { name: "SetupError" });
    });
  });
});

describe("asking an agent", () => {
  const signal = AbortSignal.timeout(10_000);

  test("none runs: it says so, and what to do", async () => {
    await inTemporary(async (stateDir) => {
      const place = { stateDir, socket: join(stateDir, "local.sock"), pid: undefined };
      const answer = await askSnapshot(place, signal);
      assert.equal(answer.kind, "none");
      assert.match(answer.why, /^no agent runs on this machine/);
      assert.match(answer.remedy, /sudo remora up/);
    });
  });

  test("one is starting: it is not said that there is none", async () => {
    await inTemporary(async (stateDir) => {
      const place = { stateDir, socket: join(stateDir, "local.sock"), pid: 4711 };
      const answer = await askSnapshot(place, signal);
      assert.equal(answer.kind, "none");
      assert.match(answer.why, /pid 4711.* does not answer yet/);
    });
  });

  test("something else answers, or another version: it is not taken for a snapshot", async () => {
    await withServer(
      async ({ place }) => {
        const answer = await askSnapshot(place, signal);
        assert.equal(answer.kind, "none");
        assert.match(answer.why, /different versions/);
      },
      () => ({ snapshot: { ...emptySnapshot(), schema: 2 as 1 }, at: 0, costMs: 1 }),
    );
  });
});
