import assert from "node:assert/strict";
import { once } from "node:events";
import { access } from "node:fs/promises";
import { type IncomingMessage, request } from "node:http";
import { after, before, describe, test } from "node:test";

import { readLogs, type ReadLogsOptions } from "../../../src/kubelet/logs/read-logs.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { createFixture, type Fixture, socketPath, testSignal } from "../runtime/fixture.ts";

const skip = await access(socketPath).then(
  () => false,
  () => `needs a Docker Engine at ${socketPath}`,
);

describe("logs that the engine writes", { skip }, () => {
  let fixture: Fixture;
  before(async () => {
    fixture = await createFixture();
  });
  after(async () => {
    await fixture[Symbol.asyncDispose]();
  });

  async function call(
    method: "GET" | "POST",
    path: string,
    body?: Readonly<Record<string, unknown>>,
  ): Promise<unknown> {
    const given = body === undefined ? {} : { body };
    const op = `${method} ${path}`;
    return fixture.client.call({ op, method, path, timeoutMs: 60_000, ...given }, testSignal());
  }

  /** Starts a shell script with these logging options; swept with the fixture. */
  async function start(
    script: string,
    log: { readonly Type: string; readonly Config: Record<string, string> },
  ): Promise<{ readonly id: string; readonly path: string }> {
    const { Id } = (await call("POST", "/containers/create", {
      Image: fixture.busybox,
      Entrypoint: ["/bin/busybox", "sh", "-c", script],
      NetworkDisabled: true,
      Labels: { "remora.io/scope": fixture.scope },
      HostConfig: { LogConfig: log },
    })) as { Id: string };
    await call("POST", `/containers/${Id}/start`);
    return { id: Id, path: (await inspect(Id)).LogPath };
  }

  async function inspect(
    id: string,
  ): Promise<{ readonly LogPath: string; readonly State: { readonly Running: boolean } }> {
    return (await call("GET", `/containers/${id}/json`)) as Awaited<ReturnType<typeof inspect>>;
  }

  function options(id: string, path: string, more: Partial<ReadLogsOptions>): ReadLogsOptions {
    return {
      path,
      follow: true,
      tailLines: undefined,
      since: undefined,
      limitBytes: undefined,
      timestamps: false,
      stream: "all",
      running: async () => (await inspect(id)).State.Running,
      clock: systemClock,
      ...more,
    };
  }

  async function read(given: ReadLogsOptions): Promise<Buffer> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of readLogs(given, testSignal())) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  /** What Docker's own API says, without the headers of its frames. */
  async function engineLog(id: string, query: string): Promise<Buffer> {
    const outgoing = request({ socketPath, path: `/containers/${id}/logs?${query}` });
    outgoing.end();
    const [incoming] = (await once(outgoing, "response")) as [IncomingMessage];
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk as Buffer);
    const bytes = Buffer.concat(chunks);
    const parts: Buffer[] = [];
    for (let at = 0; at < bytes.length;) {
      const end = at + 8 + bytes.readUInt32BE(at + 4);
      parts.push(bytes.subarray(at + 8, end));
      at = end;
    }
    return Buffer.concat(parts);
  }

  const lines = 40_000;
  // Waits now and then: a reader is expected to keep up with three files, not with any speed.
  const writer = `i=0; while [ $i -lt ${lines} ]; do
    i=$((i+1)); echo "$i xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
    [ $((i % 500)) = 0 ] && busybox usleep 10000
  done; exit 0`;

  for (const compress of ["false", "true"]) {
    test(`a follower reads every line once while the engine rotates, compress=${compress}`, async () => {
      const { id, path } = await start(writer, {
        Type: "json-file",
        Config: { "max-size": "500k", "max-file": "5", compress },
      });
      const text = (await read(options(id, path, {}))).toString();
      const numbers = text.split("\n").map((line) => line.split(" ")[0]);
      const expected = Array.from({ length: lines }, (_, at) => String(at + 1));
      assert.deepEqual(numbers, [...expected, ""]);
      // Now that it has ended: what is left of it is what Docker shows, of all files and of the last lines.
      for (const [tail, tailLines] of [
        ["all", undefined],
        ["10", 10],
        ["12000", 12_000],
      ] as const) {
        const ours = await read(options(id, path, { follow: false, tailLines }));
        const theirs = await engineLog(id, `stdout=1&stderr=1&tail=${tail}`);
        assert.ok(
          ours.equals(theirs),
          `tail=${tail}: ${ours.length} against ${theirs.length} bytes`,
        );
      }
    });
  }

  test("what a container writes comes out byte by byte as the engine keeps it", async () => {
    const script = String.raw`printf 'plain\n\000nul\n\033[1mcolour\033[0m <&> "q" \\ \342\200\250\n\377\376bad\n\360\237\230\200\n'
      echo error >&2; head -c 40000 /dev/zero | tr '\000' z; echo; printf 'no newline'`;
    const { id, path } = await start(
      `PATH=/; alias head='busybox head' tr='busybox tr'; ${script}`,
      {
        Type: "json-file",
        Config: {},
      },
    );
    const ours = await read(options(id, path, {}));
    const theirs = await engineLog(id, "stdout=1&stderr=1");
    assert.equal(ours.toString("latin1"), theirs.toString("latin1"));
    for (const stream of ["stdout", "stderr"] as const) {
      const one = await read(options(id, path, { stream }));
      // Between two streams the order is the engine's; within one it is the program's.
      assert.match(one.toString(), stream === "stderr" ? /^error\n$/ : /\nz{40000}\nno newline$/);
      assert.ok(one.equals(await engineLog(id, `${stream}=1`)), stream);
    }
    const stamped = await read(options(id, path, { timestamps: true, tailLines: 1 }));
    const theirStamped = await engineLog(id, "stdout=1&stderr=1&timestamps=1&tail=1");
    assert.equal(stamped.toString(), theirStamped.toString());
  });

  test("a driver that is not json-file leaves no file to read", async () => {
    for (const Type of ["none", "local"]) {
      const { path } = await start("echo x", { Type, Config: {} });
      assert.equal(path, "", Type);
    }
  });
});
