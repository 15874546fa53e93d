import assert from "node:assert/strict";
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, it } from "node:test";

import { SocketDirectory, type Sockets } from "../../../src/kubelet/csi/socket-directory.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";

let root: string;
let registry: string;
let stop: AbortController;
let running: Promise<void>;
let servers: Server[];
let sockets: Sockets | undefined;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "remora-sockets-"));
  registry = join(root, "registry");
  stop = new AbortController();
  servers = [];
  sockets = undefined;
  const directory = new SocketDirectory({
    path: registry,
    clock: systemClock,
    logger: silentLogger,
    onChange: (found) => {
      sockets = found;
    },
  });
  running = directory.run(stop.signal);
  await until([]);
});

afterEach(async () => {
  stop.abort();
  await running;
  for (const server of servers) server.close();
  await rm(root, { recursive: true, force: true });
});

async function listen(name: string): Promise<void> {
  const server = createServer();
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(join(registry, name), resolve));
}

async function until(names: readonly string[], and = (): boolean => true): Promise<void> {
  const wanted = names.toSorted().join();
  for (let left = 400; left > 0; left -= 1) {
    const found = [...(sockets?.keys() ?? ["?"])].map((path) => path.slice(registry.length + 1));
    if (found.toSorted().join() === wanted && and()) return;
    await systemClock.sleep(5, stop.signal);
  }
  assert.fail(`never ${wanted}, but ${[...(sockets?.keys() ?? [])].join()}`);
}

it("sockets are found in directories that come later, and go with them", async () => {
  await mkdir(join(registry, "a/b"), { recursive: true });
  await listen("a/b/one.sock");
  await listen("two.sock");
  await until(["a/b/one.sock", "two.sock"]);
  await rm(join(registry, "a"), { recursive: true });
  await until(["two.sock"]);
});

it("what is no socket, or hidden, is passed over", async () => {
  await writeFile(join(registry, "file.sock"), "");
  await listen(".hidden.sock");
  await mkdir(join(registry, ".hidden"));
  await listen(".hidden/one.sock");
  await listen("seen.sock");
  await until(["seen.sock"]);
});

it("a socket that is made anew is another one", async () => {
  await listen("one.sock");
  await until(["one.sock"]);
  const path = join(registry, "one.sock");
  const before = sockets?.get(path);
  await rm(path);
  await listen("one.sock");
  await until(["one.sock"], () => sockets?.get(path) !== before);
});

it("a directory that moves away and comes back is followed", async () => {
  await mkdir(join(registry, "a"));
  await listen("a/one.sock");
  await until(["a/one.sock"]);
  await rename(join(registry, "a"), join(root, "aside"));
  await until([]);
  await rename(join(root, "aside"), join(registry, "a"));
  await until(["a/one.sock"]);
  await listen("a/two.sock");
  await until(["a/one.sock", "a/two.sock"]);
});
