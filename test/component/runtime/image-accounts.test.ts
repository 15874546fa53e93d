import assert from "node:assert/strict";
import type { ServerResponse } from "node:http";
import { test } from "node:test";

import { systemClock } from "../../../src/lib/clock.ts";
import { DockerClient } from "../../../src/runtime/docker/client.ts";
import { ImageAccounts } from "../../../src/runtime/docker/image-accounts.ts";
import { tarFile } from "../../../src/runtime/docker/tar.ts";
import { FakeEngine } from "./fake-engine.ts";

const never = new AbortController().signal;
const image = "sha256:1";
const expected = { user: "web", passwd: "root:x:0:0\n", group: "" };

interface Reading {
  readonly engine: FakeEngine;
  readonly accounts: ImageAccounts;
  /** Lets the creations that wait, and all later ones, go on. */
  readonly release: () => void;
  /** Resolves when one waits. */
  readonly held: Promise<void>;
  readonly count: (what: string) => number;
}

/** An engine with one image that has a passwd and no group file; it makes containers when it is told to. */
async function reading(engine: FakeEngine): Promise<Reading> {
  const waiting: ServerResponse[] = [];
  const held = Promise.withResolvers<void>();
  let open = false;
  const created = (response: ServerResponse): void => {
    response.writeHead(201, { "Content-Type": "application/json" });
    response.end('{"Id":"made"}');
  };
  engine.stream = ({ method, path, query }, response) => {
    if (path === "/containers/create") {
      if (open) created(response);
      else waiting.push(response);
      held.resolve();
      return true;
    }
    if (method === "GET" && query.get("path") === "/etc/passwd") {
      response.writeHead(200, { "Content-Type": "application/x-tar" });
      response.end(tarFile("passwd", Buffer.from(expected.passwd), 0o644));
      return true;
    }
    return false;
  };
  engine.answer = ({ method, path }) => {
    if (path === `/images/${image}/json`) return { status: 200, json: { Config: { User: "web" } } };
    if (method === "DELETE") return { status: 204 };
    return { status: 404, json: { message: "no such file" } };
  };
  const client = new DockerClient({ socketPath: engine.socketPath, clock: systemClock });
  return {
    engine,
    accounts: new ImageAccounts(client, { nodeName: "n", scope: "" }),
    release: () => {
      open = true;
      for (const response of waiting.splice(0)) created(response);
    },
    held: held.promise,
    count: (what) => engine.seen.filter((call) => call === what).length,
  };
}

test("many that want an image's accounts at once share one look, and later ones its result", async () => {
  await using engine = await FakeEngine.start();
  const { accounts, count, held, release } = await reading(engine);
  const all = [1, 2, 3].map(async () => accounts.read(image, never));
  await held;
  release();
  assert.deepEqual(await Promise.all(all), [expected, expected, expected]);
  assert.deepEqual(await accounts.read(image, never), expected);
  assert.equal(count("POST /containers/create"), 1);
  assert.equal(count("DELETE /containers/made"), 1);
});

test("one that gives up takes nobody with it, and does not wait for the others", async () => {
  await using engine = await FakeEngine.start();
  const { accounts, count, held, release } = await reading(engine);
  const first = new AbortController();
  const second = new AbortController();
  const reason = new Error("enough");
  const begun = accounts.read(image, first.signal);
  await held;
  const impatient = accounts.read(image, second.signal);
  const patient = accounts.read(image, never);
  second.abort(reason);
  await assert.rejects(impatient, (error) => error === reason);
  first.abort(reason);
  await assert.rejects(begun, (error) => error === reason);
  release();
  assert.deepEqual(await patient, expected);
  assert.equal(count("POST /containers/create"), 2);
});
