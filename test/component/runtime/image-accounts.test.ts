import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { systemClock } from "../../../src/lib/clock.ts";
import { DockerClient } from "../../../src/runtime/docker/client.ts";
import { ImageAccounts } from "../../../src/runtime/docker/image-accounts.ts";
import { layerDirectories, readLayered } from "../../../src/runtime/docker/layer-files.ts";
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

test("a glance reads the layers where the engine has some here, and makes no container", async () => {
  const directory = await mkdtemp(join(tmpdir(), "layers-"));
  try {
    await using engine = await FakeEngine.start();
    const { accounts, count } = await reading(engine);
    assert.equal(await accounts.glance(image, never), undefined, "no layers are told of");
    await mkdir(join(directory, "base/etc"), { recursive: true });
    await mkdir(join(directory, "top"));
    await writeFile(join(directory, "base/etc/passwd"), "p");
    const GraphDriver = {
      Name: "overlay2",
      Data: { UpperDir: join(directory, "top"), LowerDir: join(directory, "base") },
    };
    engine.answer = () => ({ status: 200, json: { Config: { User: "web" }, GraphDriver } });
    const found = { user: "web", passwd: "p", group: "" };
    assert.deepEqual(await accounts.glance(image, never), found);
    const asked = engine.seen.length;
    assert.deepEqual(await accounts.glance(image, never), found);
    assert.equal(engine.seen.length, asked, "the second look asks nobody");
    assert.equal(count("POST /containers/create"), 0);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});

test("a file is that of the topmost layer that has it, and links are not followed", async () => {
  const directory = await mkdtemp(join(tmpdir(), "layers-"));
  try {
    const layers = ["top", "middle", "base"].map((name) => join(directory, name));
    const write = async (layer: string, path: string, text: string): Promise<void> => {
      await mkdir(join(directory, layer, "etc"), { recursive: true });
      await writeFile(join(directory, layer, path), text);
    };
    await mkdir(join(directory, "top"));
    await write("middle", "etc/passwd", "middle");
    await write("base", "etc/passwd", "base");
    await write("base", "etc/group", "group");
    await symlink("/etc/hostname", join(directory, "base/etc/link"));
    await symlink("etc", join(directory, "base/other"));
    assert.equal(await readLayered(layers, "etc/passwd"), "middle");
    assert.equal(await readLayered(layers, "etc/group"), "group");
    assert.equal(await readLayered(layers, "etc/none"), "");
    assert.equal(await readLayered(layers, "etc/link"), undefined);
    // A character device stands for "there is none any more".
    assert.equal(await readLayered(["/dev", ...layers], "null"), "");
    assert.equal(await readLayered(layers, "other/group"), undefined);
    assert.equal(await readLayered([...layers, "/no/such/layer"], "etc/none"), undefined);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});

test("layers are those of overlay2, topmost first", () => {
  const of = (Name: string, Data: object): unknown =>
    layerDirectories({ GraphDriver: { Name, Data } });
  assert.deepEqual(of("overlay2", { UpperDir: "/u", LowerDir: "/a:/b" }), ["/u", "/a", "/b"]);
  assert.deepEqual(of("overlay2", { UpperDir: "/u" }), ["/u"]);
  assert.equal(of("overlay2", {}), undefined);
  assert.equal(of("overlayfs", { UpperDir: "/u" }), undefined);
  assert.equal(layerDirectories({}), undefined);
});
