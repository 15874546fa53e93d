import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import { createDemoEngine, type DemoEngine } from "../../../../src/agent/demo/engine.ts";

const { signal } = new AbortController();

interface Seen {
  readonly method: string;
  readonly url: string;
  readonly body: string;
}

async function withEngine(
  answer: (seen: Seen) => readonly [number, string],
  body: (engine: DemoEngine, seen: readonly Seen[]) => Promise<void>,
): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "demo-engine-"));
  const seen: Seen[] = [];
  const server = createServer((request, response) => {
    let text = "";
    request.on("data", (chunk: Buffer) => (text += chunk.toString("utf8")));
    request.on("end", () => {
      const call = { method: request.method ?? "", url: request.url ?? "", body: text };
      seen.push(call);
      const [status, content] = answer(call);
      response.writeHead(status).end(status === 204 ? undefined : content);
    });
  });
  server.listen(join(dir, "docker.sock"));
  await once(server, "listening");
  try {
    await body(createDemoEngine(join(dir, "docker.sock")), seen);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await rm(dir, { recursive: true, force: true });
  }
}

describe("the Docker Engine as the demo asks it", () => {
  test("a build sends the context, the tag and the arguments", () =>
    withEngine(
      () => [200, '{"stream":"ok"}\r\n'],
      async (engine, seen) => {
        const image = { tag: "shop:v1", buildArgs: { VERSION: "v1" } };
        await engine.build(Buffer.from("tar"), image, signal);
        const url = new URL(seen[0]?.url ?? "", "http://d");
        assert.equal(url.pathname, "/build");
        assert.equal(url.searchParams.get("t"), "shop:v1");
        assert.equal(url.searchParams.get("buildargs"), '{"VERSION":"v1"}');
        assert.equal(seen[0]?.body, "tar");
      },
    ));
  test("a build that fails behind its 200 is a failure in the builder's words", () =>
    withEngine(
      () => [200, '{"stream":"Step 1"}\r\n{"error":"COPY failed"}\r\n'],
      async (engine) => {
        const image = { tag: "shop:v1", buildArgs: {} };
        await assert.rejects(engine.build(Buffer.alloc(0), image, signal), {
          message: "docker build -t shop:v1: COPY failed",
        });
      },
    ));
  test("an image that containers use stays; one that is not there is no error", () =>
    withEngine(
      ({ url }) =>
        url.includes("used") ? [409, '{"message":"in use"}'] : [404, '{"message":"No such image"}'],
      async (engine) => {
        assert.equal(await engine.removeImage("used:v1", signal), false);
        assert.equal(await engine.removeImage("gone:v1", signal), true);
        assert.equal(await engine.imageSize("gone:v1", signal), undefined);
      },
    ));
  test("containers come with names and labels, whatever their state", () =>
    withEngine(
      () => [
        200,
        JSON.stringify([
          { Id: "abc", Names: ["/k8s_a"], Labels: { x: "1" }, State: "running" },
          { Id: "def", Names: ["/k8s_b"], Labels: null, State: "exited" },
        ]),
      ],
      async (engine, seen) => {
        assert.deepEqual(await engine.containers("app=shop", signal), [
          { id: "abc", name: "k8s_a", labels: { x: "1" }, running: true },
          { id: "def", name: "k8s_b", labels: {}, running: false },
        ]);
        const url = new URL(seen[0]?.url ?? "", "http://d");
        assert.equal(url.searchParams.get("filters"), '{"label":["app=shop"]}');
        assert.equal(url.searchParams.get("all"), "1");
      },
    ));
  test("a refusal is told with the engine's own sentence", () =>
    withEngine(
      () => [409, '{"message":"Container abc is not running"}'],
      async (engine) => {
        await assert.rejects(engine.kill("abc", signal), {
          message: /docker kill abc: .* 409: Container abc is not running/,
        });
      },
    ));
});
