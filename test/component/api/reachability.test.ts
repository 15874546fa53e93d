import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { describe, it } from "node:test";

import { ApiUnavailableError } from "../../../src/api/errors.ts";
import { createHttpClient } from "../../../src/api/http-client.ts";
import { createInformer } from "../../../src/api/informer.ts";
import { Reachability } from "../../../src/api/reachability.ts";
import { CONFIG_MAPS } from "../../../src/api/resources.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { startFakeApiServer } from "../../fakes/api-server.ts";
import { ManualClock, until } from "./manual-clock.ts";

/** A wire to a server. While it is cut, bytes vanish; connections that it swallowed bytes of never work again. */
interface Wire extends AsyncDisposable {
  readonly port: number;
  cut: boolean;
}

async function startWire(target: number): Promise<Wire> {
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect(target, "127.0.0.1");
    let dead = wire.cut;
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.on("error", () => undefined);
      from.on("data", (chunk: Buffer) => {
        dead ||= wire.cut;
        if (!dead) to.write(chunk);
      });
      from.on("close", () => {
        if (!dead) to.destroy();
      });
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const wire: Wire = {
    port: (server.address() as AddressInfo).port,
    cut: false,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
  return wire;
}

async function drain(events: AsyncIterable<unknown>): Promise<void> {
  for await (const _event of events);
}

const path = "/api/v1/namespaces/default/configmaps";
const { signal } = new AbortController();

describe("a server that was away and is back", () => {
  it("ends silent watches of every client at once, and tells each", async () => {
    const server = await startFakeApiServer();
    await using wire = await startWire(Number(new URL(server.url).port));
    const clock = new ManualClock();
    const reachability = new Reachability();
    const make = () =>
      createHttpClient({
        kubeconfig: {
          ...server.kubeconfig,
          cluster: { ...server.kubeconfig.cluster, server: `http://127.0.0.1:${wire.port}` },
        },
        userAgent: "remora-test",
        clock,
        logger: silentLogger,
        reachability,
      });
    const [heartbeat, other] = [make(), make()];
    try {
      await heartbeat.request({ method: "GET", path, signal });
      const open = Promise.withResolvers<void>();
      const events = other.watch({
        path,
        query: { resourceVersion: "0" },
        stallMs: 60_000,
        onOpen: open.resolve,
        signal,
      });
      const watching = drain(events);
      await open.promise;
      let told = 0;
      other.onReturn(() => (told += 1));

      wire.cut = true;
      clock.advance(10_000);
      for (let tries = 0; tries < 2; tries += 1) {
        await assert.rejects(
          heartbeat.request({ method: "GET", path, deadlineMs: 20, signal }),
          ApiUnavailableError,
        );
      }
      wire.cut = false;
      await heartbeat.request({ method: "GET", path, signal });
      assert.equal(told, 1);
      await assert.rejects(watching, /connections to the API server were reset/);
      await other.request({ method: "GET", path, signal });
    } finally {
      await Promise.all([heartbeat.close(), other.close()]);
      await server.close();
    }
  });

  it("lets an informer try at once that would have waited for long", async () => {
    const clock = new ManualClock();
    const reachability = new Reachability();
    let tries = 0;
    const informer = createInformer({
      client: {
        request: () => {
          throw new ApiUnavailableError("away");
        },
        watch: () => {
          tries += 1;
          throw new ApiUnavailableError("away");
        },
        onReturn: (listener) => reachability.subscribe(listener),
      },
      resource: CONFIG_MAPS,
      project: (object) => object,
      clock,
      logger: silentLogger,
      random: () => 0,
    });
    const stop = new AbortController();
    const running = informer.run(stop.signal);
    await until(() => clock.sleeping);
    const before = tries;
    reachability.noteLoss(clock.monotonic());
    reachability.noteAnswer();
    await until(() => clock.sleeps.at(-1) === 0, "the wait is cut short");
    clock.advance(0);
    await until(() => tries > before, "another try");
    stop.abort();
    await running;
  });

  it("is told once per outage", () => {
    const reachability = new Reachability();
    const returns: number[] = [];
    reachability.subscribe((lostAt) => returns.push(lostAt));
    reachability.noteAnswer();
    assert.equal(reachability.noteLoss(5), true);
    assert.equal(reachability.noteLoss(9), false);
    reachability.noteAnswer();
    reachability.noteAnswer();
    assert.deepEqual(returns, [5]);
  });
});
