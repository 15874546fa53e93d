import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, createServer as createTcpServer, type Server } from "node:net";
import { describe, test } from "node:test";

import type { LifecycleHandler } from "../../../src/api/types.gen.ts";
import { HookError, runHook } from "../../../src/kubelet/pods/hooks.ts";
import { makePki } from "../api/tls.ts";
import { ManualClock } from "../api/manual-clock.ts";

const { signal } = new AbortController();

interface Setup {
  readonly clock: ManualClock;
  readonly events: string[];
  readonly commands: string[];
  exitCode: number;
  run(handler: LifecycleHandler): Promise<void>;
}

function setup(): Setup {
  const clock = new ManualClock();
  const metadata = { name: "pod", namespace: "ns", uid: "uid-1", resourceVersion: "1" };
  const empty = new Uint8Array();
  const self: Setup = {
    clock,
    events: [],
    commands: [],
    exitCode: 0,
    run: (handler) =>
      runHook(
        handler,
        {
          runtime: {
            execSync: async (_, command) => {
              self.commands.push(command.join(" "));
              return { exitCode: self.exitCode, stdout: empty, stderr: empty, timedOut: false };
            },
          },
          clock,
          events: {
            event: (_, type, reason, message) => {
              self.events.push(`${type} ${reason}: ${message}`);
            },
          },
          pod: { metadata },
          containerID: "web-0",
          entry: { role: "regular", container: { name: "web", image: "app:1" } },
          podIP: "127.0.0.1",
        },
        signal,
      ),
  };
  return self;
}

async function withServer<T>(server: Server, work: (port: number) => Promise<T>): Promise<T> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    return await work((server.address() as AddressInfo).port);
  } finally {
    server.close();
  }
}

describe("a lifecycle hook", () => {
  test("exec succeeds with exit code 0 only, and keeps its words as they are", async () => {
    const it = setup();
    await it.run({ exec: { command: ["say", "$(HOME)"] } });
    assert.deepEqual(it.commands, ["say $(HOME)"]);
    it.exitCode = 3;
    await assert.rejects(it.run({ exec: { command: ["no"] } }), HookError);
  });

  test("sleep ends when its time is over", async () => {
    const it = setup();
    let over = false;
    const done = it.run({ sleep: { seconds: 5 } }).then(() => (over = true));
    it.clock.advance(4999);
    await new Promise((turn) => setImmediate(turn));
    assert.equal(over, false);
    it.clock.advance(1);
    await done;
  });

  test("tcpSocket is no handler", async () => {
    await assert.rejects(setup().run({ tcpSocket: { port: 80 } }), /invalid handler/);
  });

  test("any HTTP answer will do, none will not", async () => {
    const seen: IncomingMessage[] = [];
    const server = createServer((request, response) => {
      seen.push(request);
      response.writeHead(500).end("broken");
    });
    const port = await withServer(server, async (at) => {
      await setup().run({ httpGet: { port: at, path: "/stop" } });
      return at;
    });
    assert.equal(seen[0]?.url, "/stop");
    assert.equal(seen[0]?.headers["user-agent"], "kube-lifecycle/1.36");
    await assert.rejects(setup().run({ httpGet: { port } }), /ECONNREFUSED/);
  });

  test("HTTPS takes any certificate", async () => {
    const { key, cert } = makePki().server;
    const server = createTlsServer({ key, cert }, (_, response) => response.end());
    const it = setup();
    await withServer(server, (port) => it.run({ httpGet: { port, scheme: "HTTPS" } }));
    assert.deepEqual(it.events, []);
  });

  test("a plain answer to HTTPS is asked for again in plain, without the credential, and told", async () => {
    const seen: IncomingMessage[] = [];
    const server = createServer((request, response) => {
      seen.push(request);
      response.end();
    });
    const it = setup();
    const httpHeaders = [
      { name: "Authorization", value: "Bearer secret" },
      { name: "X-Kept", value: "yes" },
    ];
    const address = await withServer(server, async (port) => {
      await it.run({ httpGet: { port, scheme: "HTTPS", httpHeaders } });
      return `127.0.0.1:${port}`;
    });
    assert.equal(seen.length, 1);
    assert.equal(seen[0]?.headers.authorization, undefined);
    assert.equal(seen[0]?.headers["x-kept"], "yes");
    assert.deepEqual(it.events, [
      `Warning LifecycleHTTPFallback: request to HTTPS lifecycle hook ${address} got HTTP response, retry with HTTP succeeded`,
    ]);
  });

  test("a server that says nothing useful is a failure", async () => {
    const server = createTcpServer((socket) => socket.end());
    await withServer(server, async (port) => {
      await assert.rejects(setup().run({ httpGet: { port } }));
    });
  });
});
