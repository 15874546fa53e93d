import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer } from "node:net";
import { networkInterfaces } from "node:os";
import { test } from "node:test";

import { isWildcard, listenOn } from "../../../src/lib/listen-on.ts";

test("all addresses are those of both families, however they are written", async (t) => {
  const server = createServer((socket) => socket.end());
  t.after(() => server.close());
  server.listen(listenOn("0.0.0.0", 0));
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const families = (networkInterfaces()["lo"] ?? []).map(({ address }) => address);
  assert.ok(families.includes("127.0.0.1"));
  for (const host of families) {
    const socket = connect({ port, host });
    await once(socket, "connect");
    socket.destroy();
  }
  assert.deepEqual(
    ["0.0.0.0", "::", "0:0::0", "127.0.0.1", "::1", "localhost", ""].map(isWildcard),
    [true, true, true, false, false, false, false],
  );
});

test("one address is that one", () => {
  assert.deepEqual(listenOn("127.0.0.1", 80), { port: 80, host: "127.0.0.1" });
});
