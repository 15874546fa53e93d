import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, test } from "node:test";

import { type WebSocket, WebSocketServer } from "ws";

import { openExec } from "../../../../src/agent/demo/api-exec.ts";
import type { Kubeconfig } from "../../../../src/api/kubeconfig-types.ts";

const { signal } = new AbortController();
const target = { namespace: "shop", pod: "frontend-1", argv: ["ask", "a b"] as const };

async function withServer(
  onSession: (socket: WebSocket, url: URL) => void,
  body: (kubeconfig: Kubeconfig) => Promise<void>,
  refuse = false,
): Promise<void> {
  const server = createServer();
  const sockets = new WebSocketServer({ noServer: true });
  server.on("upgrade", (request, socket, head) => {
    if (refuse) {
      socket.end("HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
      return;
    }
    assert.equal(request.headers["sec-websocket-protocol"], "v5.channel.k8s.io");
    sockets.handleUpgrade(request, socket, head, (one) => {
      onSession(one, new URL(request.url ?? "", "http://server"));
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  try {
    await body({
      path: "",
      context: "",
      namespace: "default",
      cluster: { name: "", server: `http://127.0.0.1:${port}`, insecureSkipTLSVerify: false },
      user: { name: "" },
    });
  } finally {
    for (const socket of sockets.clients) socket.terminate();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

const frame = (channel: number, text: string): Buffer =>
  Buffer.concat([Buffer.of(channel), Buffer.from(text)]);

describe("exec without kubectl", () => {
  test("asks for the command, exchanges lines, and ends the program by the end of its input", async () => {
    const seen: string[] = [];
    await withServer(
      (socket, url) => {
        seen.push(url.pathname, url.searchParams.getAll("command").join("|"));
        socket.on("message", (message: Buffer) => {
          if (message[0] === 255) {
            seen.push(`closed ${message[1]}`);
            socket.send(frame(3, '{"status":"Success"}'));
            socket.close(1000);
          } else {
            // In two pieces, as a network may cut it.
            socket.send(frame(1, `echo ${message.subarray(1, -1).toString("utf8")}`));
            socket.send(frame(1, "!\n"));
          }
        });
      },
      async (kubeconfig) => {
        const session = await openExec(kubeconfig, target, signal);
        assert.equal(await session.exchange("one", signal), "echo one!");
        assert.equal(await session.exchange("two", signal), "echo two!");
        await session.close();
      },
    );
    assert.deepEqual(seen, ["/api/v1/namespaces/shop/pods/frontend-1/exec", "ask|a b", "closed 0"]);
  });

  test("a program that fails is told in the server's words", () =>
    withServer(
      (socket) => {
        socket.send(
          frame(3, '{"status":"Failure","message":"command terminated with exit code 7"}'),
        );
        socket.close(1000);
      },
      async (kubeconfig) => {
        const session = await openExec(kubeconfig, target, signal);
        await assert.rejects(session.exchange("one", signal), { message: /with exit code 7/ });
        await session.close();
      },
    ));

  test("a refused handshake is a sentence, not a stack", () =>
    withServer(
      () => undefined,
      async (kubeconfig) => {
        await assert.rejects(openExec(kubeconfig, target, signal), {
          code: "REMORA_SETUP",
          message: /exec: .*403/,
        });
      },
      true,
    ));

  test("an abort cuts the session at once", () =>
    withServer(
      () => undefined,
      async (kubeconfig) => {
        const stop = new AbortController();
        const session = await openExec(kubeconfig, target, stop.signal);
        const waiting = session.exchange("one", signal);
        stop.abort();
        await assert.rejects(waiting, { message: /exec in frontend-1 ended/ });
        await session.close();
      },
    ));
});
