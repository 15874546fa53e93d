import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { ApiError, ApiUnavailableError, isNotFound } from "../../../src/api/errors.ts";
import { createHttpClient } from "../../../src/api/http-client.ts";
import { PODS } from "../../../src/api/resources.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { type FakeApiServer, startFakeApiServer } from "../../fakes/api-server.ts";

async function withServer(body: (server: FakeApiServer) => Promise<void>): Promise<void> {
  const server = await startFakeApiServer();
  try {
    await body(server);
  } finally {
    await server.close();
  }
}

const pods = "/api/v1/namespaces/default/pods";
const { signal } = new AbortController();
const pod = { metadata: { name: "web" }, spec: { containers: [{ name: "c", image: "i" }] } };

describe("HTTP client", () => {
  it("sends JSON, the user agent and the query, and returns the parsed answer", () =>
    withServer(async ({ client, requests }) => {
      const created = await client.request({
        method: "POST",
        path: pods,
        query: { fieldManager: "test", dryRun: undefined },
        body: pod,
        signal,
      });
      assert.equal((created as { metadata: { name: string } }).metadata.name, "web");
      const seen = requests.at(-1);
      assert.equal(seen?.contentType, "application/json");
      assert.equal(seen?.userAgent, "remora-test");
      assert.equal(seen?.query.toString(), "fieldManager=test");
    }));

  it("turns a Status into an ApiError with the server's words", () =>
    withServer(async ({ client }) => {
      await assert.rejects(
        client.request({ method: "GET", path: `${pods}/nope`, signal }),
        (error) =>
          isNotFound(error) &&
          error instanceof ApiError &&
          error.message === 'pods "nope" not found',
      );
    }));

  it("turns any other body into an ApiError, with Retry-After", () =>
    withServer(async (server) => {
      server.inject(() => true, { status: 503, text: "upstream is away\n", retryAfterSeconds: 7 });
      await assert.rejects(
        server.client.request({ method: "GET", path: pods, signal }),
        (error) => {
          assert.ok(error instanceof ApiError);
          assert.equal(error.status, 503);
          assert.equal(error.reason, "");
          assert.equal(error.retryAfterSeconds, 7);
          assert.match(error.message, /^GET .*\/pods: HTTP 503: upstream is away$/);
          return true;
        },
      );
    }));

  it("gives a request up at its deadline", () =>
    withServer(async (server) => {
      server.inject(() => true, "hang");
      await assert.rejects(
        server.client.request({ method: "GET", path: pods, deadlineMs: 20, signal }),
        (error) =>
          error instanceof ApiUnavailableError && error.message.includes("no answer within 20 ms"),
      );
    }));

  it("rejects with the caller's abort, not with a failure of the server", () =>
    withServer(async (server) => {
      server.inject(() => true, "hang");
      const cancel = new AbortController();
      const answer = server.client.request({ method: "GET", path: pods, signal: cancel.signal });
      cancel.abort();
      await assert.rejects(answer, { name: "AbortError" });
    }));

  it("repeats a read once when the connection turns out to be dead", () =>
    withServer(async (server) => {
      server.inject(() => true, "reset");
      await server.client.request({ method: "GET", path: pods, signal });
      assert.equal(server.requests.length, 2);
    }));

  it("never repeats a write by itself", () =>
    withServer(async (server) => {
      server.inject(() => true, "reset");
      await assert.rejects(
        server.client.request({ method: "POST", path: pods, body: pod, signal }),
        ApiUnavailableError,
      );
      assert.equal(server.requests.length, 1);
    }));

  it("resets all connections after two failures in a row, which also ends the watches", () =>
    withServer(async (server) => {
      const query = { resourceVersion: "100" };
      const watch = server.client.watch({ path: pods, query, stallMs: 60_000, signal });
      const next = watch[Symbol.asyncIterator]().next();
      while (server.watchCount === 0) await new Promise(setImmediate);
      server.inject(() => true, "hang", 2);
      const read = { method: "GET", path: pods, deadlineMs: 20, signal } as const;
      await assert.rejects(server.client.request(read), ApiUnavailableError);
      assert.equal(server.watchCount, 1);
      await Promise.all([
        assert.rejects(server.client.request(read), ApiUnavailableError),
        assert.rejects(next, ApiUnavailableError),
      ]);
      await server.client.request({ ...read, deadlineMs: 5000 });
    }));

  it("yields watch lines as they come, and ends with the server", () =>
    withServer(async (server) => {
      server.put(PODS, pod);
      const types: unknown[] = [];
      const watch = server.client.watch({ path: pods, query: {}, stallMs: 60_000, signal });
      for await (const event of watch) {
        types.push((event as { type: string }).type);
        if (types.length === 1) server.put(PODS, { ...pod, spec: { containers: [] } });
        if (types.length === 2) server.remove(PODS, "default/web");
        if (types.length === 3) server.endWatches();
      }
      assert.deepEqual(types, ["ADDED", "MODIFIED", "DELETED"]);
    }));

  it("reports a torn and a stalled watch as unavailable", () =>
    withServer(async (server) => {
      const path = pods;
      const torn = server.client.watch({ path, query: {}, stallMs: 60_000, signal });
      const first = torn[Symbol.asyncIterator]().next();
      while (server.watchCount === 0) await new Promise(setImmediate);
      server.tearWatches();
      await assert.rejects(first, ApiUnavailableError);
      const silent = server.client.watch({ path, query: {}, stallMs: 50, signal });
      await assert.rejects(silent[Symbol.asyncIterator]().next(), /fell silent/);
    }));

  it("watches that are quiet together do not tear down one that is not", () =>
    withServer(async (server) => {
      const watching = (stallMs: number): Promise<unknown> => {
        const watch = server.client.watch({ path: pods, query: {}, stallMs, signal });
        return watch[Symbol.asyncIterator]().next();
      };
      const patient = watching(60_000);
      const quiet = await Promise.allSettled([watching(50), watching(50), watching(50)]);
      for (const result of quiet) {
        assert.ok(result.status === "rejected" && result.reason instanceof ApiUnavailableError);
        assert.match(result.reason.message, /fell silent/);
      }
      await server.client.request({ method: "POST", path: pods, body: pod, signal });
      assert.equal(((await patient) as { value: { type: string } }).value.type, "ADDED");
    }));

  it("names the server when nobody listens, and works again when somebody does", async () => {
    const gone = await startFakeApiServer();
    await gone.close();
    const client = createHttpClient({
      kubeconfig: gone.kubeconfig,
      userAgent: "t",
      clock: systemClock,
      logger: silentLogger,
    });
    for (let attempt = 0; attempt < 3; attempt += 1) {
      await assert.rejects(client.request({ method: "GET", path: pods, signal }), (error) => {
        assert.ok(error instanceof ApiUnavailableError);
        assert.match(error.message, /ECONNREFUSED 127\.0\.0\.1/);
        return true;
      });
    }
    await client.close();
    await assert.rejects(client.request({ method: "GET", path: pods, signal }), /client is closed/);
  });
});
