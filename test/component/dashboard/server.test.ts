import assert from "node:assert/strict";
import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { describe, test } from "node:test";

import { readAssets } from "../../../src/agent/dashboard/assets.ts";
import { Feed } from "../../../src/agent/dashboard/feed.ts";
import type { FeedMessage } from "../../../src/agent/dashboard/page/model/messages.ts";
import { DashboardServer, type DashboardLimits } from "../../../src/agent/dashboard/server.ts";
import { askSnapshot, followSnapshots } from "../../../src/agent/local/local-client.ts";
import type { Clock } from "../../../src/lib/clock.ts";
import { SetupError } from "../../../src/lib/errors.ts";
import { inTemporary } from "../../fakes/temporary.ts";
import { FakeAgent } from "./agent.ts";
import { pod, snapshot } from "./snapshots.ts";

const now = Date.parse("2026-03-01T12:00:00Z");
const token = "AAAAAAAAAAAAAAAAAAAAAA";
const first = snapshot(now);

/** Waits for nothing: the next try comes at once. */
const hurriedClock: Clock = {
  now: () => now,
  monotonic: () => 0,
  sleep: async (ms, signal) => {
    signal.throwIfAborted();
    // Ten seconds without a page are long.
    if (ms < 10_000) return new Promise((resolve) => setTimeout(resolve, 2));
    await once(signal, "abort");
    throw signal.reason;
  },
};

interface Served {
  readonly agent: FakeAgent;
  readonly port: number;
  readonly get: (path: string, headers?: Record<string, string>) => Promise<IncomingMessage>;
  readonly open: () => Promise<OpenPage>;
}

/** A page's end of the feed. */
class OpenPage {
  readonly #response: IncomingMessage;
  readonly #lines: AsyncIterator<FeedMessage>;

  constructor(response: IncomingMessage) {
    this.#response = response;
    this.#lines = linesOf(response);
  }

  async next(): Promise<FeedMessage> {
    const line = await this.#lines.next();
    assert.ok(line.done !== true, "the feed has ended");
    return line.value;
  }

  /** The next message for which `wanted` says so. */
  async until(wanted: (message: FeedMessage) => boolean): Promise<FeedMessage> {
    for (;;) {
      const message = await this.next();
      if (wanted(message)) return message;
    }
  }

  close(): void {
    this.#response.destroy();
  }
}

async function* linesOf(response: IncomingMessage): AsyncGenerator<FeedMessage> {
  let rest = "";
  for await (const piece of response.setEncoding("utf8")) {
    const lines = (rest + String(piece)).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) yield JSON.parse(line) as FeedMessage;
  }
}

async function serve(
  work: (served: Served) => Promise<void>,
  limits: Partial<DashboardLimits> = {},
): Promise<void> {
  await inTemporary(async (directory) => {
    const path = join(directory, "local.sock");
    const agent = new FakeAgent(path, first);
    await agent.start();
    const place = { stateDir: directory, socket: path, pid: undefined };
    const stop = new AbortController();
    const feed = new Feed({
      clock: hurriedClock,
      random: () => 0.5,
      agent: {
        ask: (signal) => askSnapshot(place, signal),
        follow: (signal) => followSnapshots(place, signal),
      },
    });
    const assets = await readAssets();
    const server = new DashboardServer({
      address: "127.0.0.1",
      port: 0,
      token,
      feed,
      assets,
      limits,
    });
    const port = await server.listen();
    const running = feed.run(stop.signal);
    const get: Served["get"] = async (target, headers = {}) => {
      const asked = request({ host: "127.0.0.1", port, path: target, headers, agent: false });
      asked.end();
      const [response] = (await once(asked, "response")) as [IncomingMessage];
      // A server that goes is no error of the test.
      response.on("error", () => undefined);
      return response;
    };
    const open = async (): Promise<OpenPage> => {
      const response = await get("/v1/feed", { authorization: `Bearer ${token}` });
      assert.equal(response.statusCode, 200);
      return new OpenPage(response);
    };
    try {
      await work({ agent, port, get, open });
    } finally {
      stop.abort();
      await running;
      await server.close();
      await agent.stop();
    }
  });
}

async function bodyOf(response: IncomingMessage): Promise<string> {
  let text = "";
  for await (const piece of response.setEncoding("utf8")) text += String(piece);
  return text;
}

describe("the server of the dashboard", () => {
  test("every answer keeps browsers from doing more than showing it", () =>
    serve(async ({ get }) => {
      for (const path of ["/", "/main.js", "/v1/feed", "/nothing"]) {
        const response = await get(path);
        const { headers } = response;
        const policy = String(headers["content-security-policy"]);
        assert.match(policy, /default-src 'none'/);
        assert.doesNotMatch(policy, /unsafe|\*|http|data:/);
        assert.equal(headers["x-content-type-options"], "nosniff");
        assert.equal(headers["x-frame-options"], "DENY");
        assert.equal(headers["cache-control"], "no-store");
        assert.equal(headers["referrer-policy"], "no-referrer");
        assert.equal(headers["set-cookie"], undefined);
        assert.equal(headers["access-control-allow-origin"], undefined);
        response.resume();
      }
    }));

  test("the page and its parts are there for everybody, and say nothing of the node", () =>
    serve(async ({ get }) => {
      const page = await get("/");
      assert.equal(page.headers["content-type"], "text/html; charset=utf-8");
      assert.match(await bodyOf(page), /<!doctype html>/i);
      for (const [path, type] of [
        ["/main.js", "text/javascript; charset=utf-8"],
        ["/page.css", "text/css; charset=utf-8"],
        ["/icon.svg", "image/svg+xml"],
      ] as const) {
        const part = await get(path);
        assert.equal(part.statusCode, 200);
        assert.equal(part.headers["content-type"], type);
        assert.doesNotMatch(await bodyOf(part), /node-a/);
      }
    }));

  test("nothing of the file system is", () =>
    serve(async ({ get }) => {
      for (const path of ["/../server.ts", "/%2e%2e/server.ts", "//etc/passwd", "/tsconfig.json"]) {
        const response = await get(path);
        assert.equal(response.statusCode, 404, path);
        response.resume();
      }
    }));

  test("without the token there is nothing, also with it in the address", () =>
    serve(async ({ get }) => {
      for (const [path, headers] of [
        ["/v1/feed", {}],
        ["/v1/feed", { authorization: "Bearer AAAAAAAAAAAAAAAAAAAAAB" }],
        ["/v1/feed", { cookie: `token=${token}` }],
        [`/v1/feed?token=${token}`, {}],
      ] as const) {
        const response = await get(path, headers);
        assert.equal(response.statusCode, 401);
        assert.doesNotMatch(await bodyOf(response), /node-a/);
      }
    }));

  test("a name that somebody has pointed at this machine gets nothing, even with the token", () =>
    serve(async ({ get }) => {
      for (const path of ["/", "/v1/feed"]) {
        const headers = { host: "rebound.example", authorization: `Bearer ${token}` };
        const response = await get(path, headers);
        assert.equal(response.statusCode, 403);
        response.resume();
      }
    }));

  test("a page is told everything first, then what changes", () =>
    serve(async ({ agent, open }) => {
      const page = await open();
      const whole = await page.until(({ snapshot }) => snapshot !== undefined);
      assert.deepEqual(whole.snapshot, { ...first, unscheduled: [] });
      assert.deepEqual(whole.link, { state: "live" });
      const pods = [pod({ name: "new" })];
      agent.tell({ ...first, pods });
      const change = await page.until(({ snapshot }) => snapshot !== undefined);
      assert.deepEqual(change.snapshot, { schema: 1, time: first.time, pods });
      page.close();
    }));

  test("an agent that goes is told with the reason, and comes back by itself", () =>
    serve(async ({ agent, open }) => {
      const page = await open();
      await page.until(({ link }) => link.state === "live");
      await agent.stop();
      const away = await page.until(({ link }) => link.state === "away");
      assert.ok(away.link.state === "away" && away.link.since === now);
      const gone = await page.until(
        ({ link }) => link.state === "away" && link.why.includes("no agent runs on this machine"),
      );
      assert.equal(gone.snapshot, undefined, "what was known is not told again");
      await agent.start();
      agent.tell({ ...first, pods: [] });
      const back = await page.until(({ link }) => link.state === "live");
      assert.equal(back.link.state, "live");
      page.close();
    }));

  test("nonsense of the agent is told and does not end the dashboard", () =>
    serve(async ({ agent, open }) => {
      const page = await open();
      await page.until(({ link }) => link.state === "live");
      agent.tellText("{}\n");
      const away = await page.until(({ link }) => link.state === "away");
      assert.ok(away.link.state === "away" && /is not understood/.test(away.link.why));
      agent.tell(first);
      await page.until(({ link }) => link.state === "live");
      page.close();
    }));

  test("the agent is followed once for all pages, and not at all without one", () =>
    serve(async ({ agent, open }) => {
      const pages = [await open(), await open(), await open()];
      for (const page of pages) await page.until(({ link }) => link.state === "live");
      assert.equal(agent.followers, 1);
      for (const page of pages) page.close();
      while (agent.followers > 0) await new Promise((resolve) => setTimeout(resolve, 2));
    }));

  test("a quiet node says that it is there", () =>
    serve(
      async ({ open }) => {
        const page = await open();
        await page.until(({ snapshot }) => snapshot !== undefined);
        const sign = await page.next();
        assert.equal(sign.snapshot, undefined);
        page.close();
      },
      { heartbeatMs: 10 },
    ));

  test("a page that does not read is given up, and costs one line until then", () =>
    serve(
      async ({ agent, open, port }) => {
        const stuck = connect(port, "127.0.0.1");
        stuck.on("error", () => undefined);
        await once(stuck, "connect");
        stuck.pause();
        stuck.write(
          `GET /v1/feed HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${token}\r\n\r\n`,
        );
        const reader = await open();
        const ended = once(stuck, "close");
        const large = pod({ name: "x", why: "y".repeat(1024 * 1024) });
        // More than the kernel keeps for a connection.
        for (let count = 1; count <= 16; count += 1) {
          agent.tell({ ...first, pods: [{ ...large, restarts: count }] });
          await reader.until(({ snapshot }) => snapshot?.pods?.[0]?.restarts === count);
        }
        reader.close();
        // A paused socket learns of the end when it reads.
        await new Promise((resolve) => setTimeout(resolve, 60));
        stuck.resume();
        await ended;
      },
      { stallMs: 30, heartbeatMs: 5000 },
    ));

  test("there are not more pages than it can serve", () =>
    serve(
      async ({ get, open }) => {
        const pages = [await open(), await open()];
        const third = await get("/v1/feed", { authorization: `Bearer ${token}` });
        assert.equal(third.statusCode, 503);
        third.resume();
        for (const page of pages) page.close();
      },
      { pages: 2 },
    ));

  test("garbage ends its connection and nothing else", () =>
    serve(async ({ get, port }) => {
      for (const text of ["\0\0\0\r\n\r\n", `GET / HTTP/1.1\r\nX: ${"y".repeat(9000)}\r\n\r\n`]) {
        const socket = connect(port, "127.0.0.1");
        socket.on("error", () => undefined);
        socket.write(text);
        socket.resume();
        await once(socket, "close");
      }
      const response = await get("/");
      assert.equal(response.statusCode, 200);
      response.resume();
    }));

  test("a port that is taken is told with the remedy", () =>
    serve(async ({ port }) => {
      const feed = new Feed({
        clock: hurriedClock,
        random: () => 0,
        agent: {
          ask: () => Promise.reject(new Error("never")),
          follow: () => assert.fail("never"),
        },
      });
      const assets = new Map();
      const second = new DashboardServer({ address: "127.0.0.1", port, token, feed, assets });
      await assert.rejects(second.listen(), (error) => {
        assert.ok(error instanceof SetupError);
        assert.match(error.message, /--port 0/);
        return true;
      });
    }));
});
