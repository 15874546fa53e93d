import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import { describe, test } from "node:test";

import { Newcomers } from "../../../src/controlplane/http/newcomers.ts";

function connection(remotePort: number): Socket {
  return Object.assign(new EventEmitter(), { remoteAddress: "10.0.0.1", remotePort }) as Socket;
}

async function isSettled(newcomers: Newcomers): Promise<boolean> {
  const settled = newcomers.settled().then(() => true);
  const soon = new Promise<boolean>((resolve) => setImmediate(() => resolve(false)));
  return Promise.race([settled, soon]);
}

describe("those who have connected to the API server", () => {
  test("are waited for until each has asked or left", async () => {
    const newcomers = new Newcomers();
    assert.equal(await isSettled(newcomers), true);
    const [first, second] = [connection(1001), connection(1002)];
    newcomers.add(first);
    newcomers.add(second);
    newcomers.asked(first);
    assert.equal(await isSettled(newcomers), false);
    second.emit("close");
    assert.equal(await isSettled(newcomers), true);
  });

  test("are known by their far end, whichever connection had it before", async () => {
    const newcomers = new Newcomers();
    const [before, now] = [connection(1001), connection(1001)];
    newcomers.add(before);
    newcomers.asked(before);
    newcomers.add(now);
    before.emit("close");
    assert.equal(await isSettled(newcomers), false);
    newcomers.asked(now);
    assert.equal(await isSettled(newcomers), true);
  });

  test("are not waited for long", async () => {
    const newcomers = new Newcomers();
    newcomers.add(connection(1001));
    await newcomers.settled();
  });
});
