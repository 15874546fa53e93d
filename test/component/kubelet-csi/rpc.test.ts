import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { nodeMethods } from "../../../src/kubelet/csi/methods.ts";
import { RpcError, withRpc } from "../../../src/kubelet/csi/rpc.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { CallFailure, FakeCsiDriver, status } from "../../fakes/csi-driver.ts";

const forever = new AbortController().signal;
let rootDir: string;
let driver: FakeCsiDriver;

before(async () => {
  rootDir = await mkdtemp(join(tmpdir(), "remora-rpc-"));
  driver = new FakeCsiDriver({ rootDir, topology: { zone: "a" } });
  await driver.startNode();
});

after(async () => {
  await driver.stop();
  await rm(rootDir, { recursive: true, force: true });
});

async function info(
  socket: string,
  { deadlineMs = 5000, signal = forever } = {},
): Promise<unknown> {
  return withRpc(socket, systemClock, (channel) =>
    channel.call(nodeMethods.getInfo, {}, { deadlineMs, signal }),
  );
}

async function failure(work: Promise<unknown>): Promise<RpcError> {
  try {
    await work;
  } catch (error) {
    assert(error instanceof RpcError, String(error));
    return error;
  }
  throw new Error("nothing failed");
}

describe("a call over a Unix socket", () => {
  it("is answered", async () => {
    assert.deepEqual(await info(driver.endpoint), {
      nodeId: "node-1",
      maxVolumesPerNode: 0,
      accessibleTopology: { segments: { zone: "a" } },
    });
  });

  it("is refused with the driver's words, and over", async () => {
    driver.fail("getInfo", new CallFailure(status.NOT_FOUND, "no such volume"));
    const error = await failure(info(driver.endpoint));
    assert.equal(error.message, "rpc error: code = NotFound desc = no such volume");
    assert.equal(error.status, status.NOT_FOUND);
    assert.equal(error.final, true);
  });

  it("without a server is unavailable at once, and may be under way", async () => {
    const error = await failure(info(join(rootDir, "nobody.sock")));
    assert.equal(error.status, status.UNAVAILABLE);
    assert.equal(error.final, false);
  });

  it("that is not answered ends at its deadline, and may be under way", async () => {
    driver.fail("getInfo", "hang");
    const error = await failure(info(driver.endpoint, { deadlineMs: 30 }));
    assert.equal(error.status, status.DEADLINE_EXCEEDED);
    assert.equal(error.final, false);
  });

  it("ends when nobody wants it any more", async () => {
    driver.fail("getInfo", "hang");
    const stop = new AbortController();
    const waiting = info(driver.endpoint, { signal: stop.signal });
    stop.abort();
    await assert.rejects(waiting, { name: "AbortError" });
  });

  it("of a method that the driver does not have is told so", async () => {
    const other = { ...nodeMethods.getInfo, path: "/csi.v1.Node/NodeFly" };
    const call = withRpc(driver.endpoint, systemClock, (channel) =>
      channel.call(other, {}, { deadlineMs: 5000, signal: forever }),
    );
    assert.equal((await failure(call)).status, status.UNIMPLEMENTED);
  });

  it("is unavailable when the driver's process dies in the middle", async () => {
    const socket = join(rootDir, "dying.sock");
    const server = createServer();
    server.on("stream", (stream) => stream.session?.socket.destroy());
    server.on("sessionError", () => undefined);
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    try {
      const error = await failure(info(socket));
      assert.equal(error.final, false, error.message);
    } finally {
      server.close();
    }
  });

  it("to something that is no gRPC server fails", async () => {
    const socket = join(rootDir, "web.sock");
    const server = createServer((_request, response) => response.writeHead(404).end("no"));
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    try {
      assert.equal((await failure(info(socket))).status, status.UNIMPLEMENTED);
    } finally {
      server.close();
    }
  });
});
