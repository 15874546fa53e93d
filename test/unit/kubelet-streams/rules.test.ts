import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { ByteQueue } from "../../../src/kubelet/server/streams/byte-queue.ts";
import { HttpRefusal } from "../../../src/kubelet/server/http-refusal.ts";
import {
  exitStatus,
  failureStatus,
  parseResize,
} from "../../../src/kubelet/server/streams/remote-command.ts";
import { parseStreamOptions } from "../../../src/kubelet/server/streams/streaming.ts";
import { chooseDialect } from "../../../src/kubelet/server/streams/websocket-channels.ts";

function refusedWith(status: number): (error: unknown) => boolean {
  return (error) => error instanceof HttpRefusal && error.status === status;
}

describe("stream options", () => {
  test("a terminal has no standard error of its own", () => {
    assert.deepEqual(parseStreamOptions(new URLSearchParams("input=1&output=1&error=1&tty=1")), {
      stdin: true,
      stdout: true,
      stderr: false,
      tty: true,
    });
  });
  test("nothing to stream is refused", () => {
    assert.throws(() => parseStreamOptions(new URLSearchParams("tty=1")), refusedWith(400));
  });
});

describe("remote command", () => {
  test("a non-zero exit code travels as a cause", () => {
    assert.deepEqual(exitStatus(7).details?.causes, [{ reason: "ExitCode", message: "7" }]);
    assert.equal(exitStatus(0).status, "Success");
    assert.equal(exitStatus(undefined).status, "Success");
    assert.equal(
      failureStatus("what", new Error("why")).message,
      "Internal error occurred: what: why",
    );
  });
  test("resizes are JSON with capital letters, all else is ignored", () => {
    assert.deepEqual(parseResize('{"Width":80,"Height":24}'), { width: 80, height: 24 });
    for (const text of ["", "{", "[]", '{"Width":"80","Height":24}']) {
      assert.equal(parseResize(text), undefined);
    }
  });
  test("the best common dialect is chosen, never a bearer token", () => {
    assert.equal(
      chooseDialect(["v4.channel.k8s.io", "v5.channel.k8s.io"])?.name,
      "v5.channel.k8s.io",
    );
    assert.equal(chooseDialect([])?.name, "");
    assert.equal(chooseDialect(["base64url.bearer.authorization.k8s.io.dG9r"]), undefined);
  });
});

test("a byte queue stops its source above the mark and lets it go on below", async () => {
  const flow: boolean[] = [];
  const queue = new ByteQueue((flowing) => flow.push(flowing));
  queue.push(new Uint8Array(200 * 1024));
  queue.push(new Uint8Array(100 * 1024));
  assert.deepEqual(flow, [false]);
  queue.end();
  queue.push(new Uint8Array(1));
  const sizes: number[] = [];
  for await (const chunk of queue) sizes.push(chunk.length);
  assert.deepEqual(sizes, [200 * 1024, 100 * 1024]);
  assert.deepEqual(flow, [false, true]);
});
