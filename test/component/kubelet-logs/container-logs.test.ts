import assert from "node:assert/strict";
import { once } from "node:events";
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
  closeSync,
} from "node:fs";
import { createServer, type IncomingMessage, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { serveContainerLogs } from "../../../src/kubelet/server/container-logs.ts";
import { HttpRefusal } from "../../../src/kubelet/server/http-refusal.ts";
import type { ContainerLookup, PodView } from "../../../src/kubelet/types.ts";
import { type Clock, systemClock } from "../../../src/lib/clock.ts";

const root = mkdtempSync(join(tmpdir(), "remora-container-logs-"));
let server: Server;

/** Twenty times as fast as the real one. */
const clock: Clock = {
  ...systemClock,
  monotonic: () => systemClock.monotonic() * 20,
  sleep: async (ms, signal) => systemClock.sleep(ms / 20, signal),
};

/** Containers by name: what a lookup answers, and where the log is. */
interface Known {
  lookup: ContainerLookup;
  path: string | undefined;
}
const known = new Map<string, Known>();
let lookupError: Error | undefined;

const pods: PodView = {
  pods: () => [],
  healthy: () => undefined,
  findContainer: async ({ pod, container }) => {
    if (lookupError !== undefined) throw lookupError;
    if (pod !== "web") return { kind: "podNotFound" };
    return known.get(container)?.lookup ?? { kind: "containerNotFound" };
  },
};

const runtime = {
  containerLogPath: async (id: string): Promise<string | undefined> => {
    const [, found] = [...known].find(([name]) => id === name) ?? [];
    if (found === undefined || found.path === "gone") throw new Error("no such container");
    return found.path;
  },
};

function add(name: string, path: string | undefined, running = false): Known {
  const lookup = { kind: "found", containerID: name, running, tty: false, stdin: false } as const;
  const entry: Known = { lookup, path };
  known.set(name, entry);
  return entry;
}

function line(text: string, stream = "stdout"): string {
  return `${JSON.stringify({ log: text, stream, time: "2026-01-01T00:00:00.5Z" })}\n`;
}

function newLog(name: string, content: string): string {
  const directory = join(root, name);
  mkdirSync(directory);
  const path = join(directory, `${name}-json.log`);
  writeFileSync(path, content);
  return path;
}

before(async () => {
  server = createServer((incoming, response) => {
    const url = new URL(incoming.url ?? "/", "http://node");
    const left = new AbortController();
    response.once("close", () => {
      left.abort();
    });
    serveContainerLogs({ runtime, pods, clock }, url, response, left.signal).catch(
      (error: unknown) => {
        if (left.signal.aborted || response.headersSent) response.destroy();
        else if (error instanceof HttpRefusal) {
          response.writeHead(error.status).end(error.message);
        } else response.writeHead(599).end(String(error));
      },
    );
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
});

after(async () => {
  server.closeAllConnections();
  server.close();
  await once(server, "close");
  rmSync(root, { recursive: true, force: true });
});

async function open(path: string, method = "GET"): Promise<IncomingMessage> {
  const { port } = server.address() as AddressInfo;
  const asked = request({ host: "127.0.0.1", port, path, method, agent: false });
  asked.end();
  const [response] = (await once(asked, "response")) as [IncomingMessage];
  return response;
}

async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

/** Reads on until the text so far satisfies `done`. */
async function readUntil(
  response: IncomingMessage,
  done: (text: string) => boolean,
): Promise<void> {
  let text = "";
  while (!done(text)) {
    const chunk = response.read() as Buffer | null;
    if (chunk === null) await once(response, "readable");
    else text += chunk.toString();
  }
}

/** Descriptors of this process on files below `directory`. */
function openBelow(directory: string): number {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(directory);
    } catch {
      return false;
    }
  }).length;
}

describe("a container's log over HTTP", () => {
  test("what cannot be is answered in the kubelet's words", async () => {
    add("c", newLog("c", line("hello\n")));
    add("nolog", undefined);
    add("gone", "gone");
    const waiting = (reason: string): Known => ({
      lookup: { kind: "notStarted", reason },
      path: undefined,
    });
    known.set("creating", waiting("ContainerCreating"));
    known.set("pull", waiting("ErrImagePull"));
    known.set("backoff", waiting("ImagePullBackOff"));
    known.set("new", waiting(""));
    const start = 'in pod "web" is waiting to start';
    for (const [path, status, body] of [
      ["ns/web/c", 200, "hello\n"],
      ["ns/none/c", 404, 'pod "none" does not exist'],
      ["ns/web/x", 404, 'container "x" not found in pod "web"'],
      ["ns/web/c?tailLines=-1", 422, '{"message": "Invalid request."}'],
      ["ns/web/c?stream=Both", 422, '{"message": "Invalid request."}'],
      ["ns/web/c?tailLines=x", 400, '{"message": "Unable to decode query."}'],
      ["ns/web/creating", 400, `container "creating" ${start}: ContainerCreating`],
      ["ns/web/pull", 400, `container "pull" ${start}: image can't be pulled`],
      ["ns/web/backoff", 400, `container "backoff" ${start}: trying and failing to pull image`],
      ["ns/web/new", 400, `container "new" ${start} - no logs yet`],
      [
        "ns/web/new?previous=true",
        400,
        'previous terminated container "new" in pod "web" not found',
      ],
      ["ns/web/gone", 400, "unable to retrieve container logs for docker://gone"],
      [
        "ns/web/nolog",
        400,
        'unable to retrieve container logs for docker://nolog: container "nolog" in pod "web" has no log file, only Docker\'s json-file logging driver writes one',
      ],
    ] as const) {
      const response = await open(`/containerLogs/${path}`);
      assert.deepEqual([path, response.statusCode, await textOf(response)], [path, status, body]);
    }
  });

  test("HEAD has no body and no end to wait for", async () => {
    add("head", newLog("head", line("hello\n")), true);
    const response = await open("/containerLogs/ns/web/head?follow=true", "HEAD");
    assert.deepEqual([response.statusCode, await textOf(response)], [200, ""]);
  });

  test("a follower sees each line at once, and its end when the container was restarted", async () => {
    const path = newLog("restarted", "");
    const entry = add("restarted", path, true);
    const response = await open("/containerLogs/ns/web/restarted?follow=true");
    appendFileSync(path, line("first\n"));
    await readUntil(response, (text) => text === "first\n");
    appendFileSync(path, line("last\n"));
    entry.lookup = { kind: "found", containerID: "next", running: true, tty: false, stdin: false };
    assert.equal(await textOf(response), "last\n");
  });

  test("a follower of a container that is removed has read all of it", async () => {
    const path = newLog("removed", line("a\n"));
    add("removed", path, true);
    const response = await open("/containerLogs/ns/web/removed?follow=true");
    await readUntil(response, (text) => text === "a\n");
    const descriptor = openSync(path, "a");
    rmSync(join(root, "removed"), { recursive: true });
    writeSync(descriptor, line("b\n"));
    closeSync(descriptor);
    known.delete("removed");
    assert.equal(await textOf(response), "b\n");
  });

  test("a follower outlives an engine that does not answer", async () => {
    const path = newLog("away", line("a\n"));
    const entry = add("away", path, true);
    const response = await open("/containerLogs/ns/web/away?follow=true");
    await readUntil(response, (text) => text === "a\n");
    lookupError = new Error("the engine does not answer");
    try {
      // Longer than an answer is believed.
      await delay(40);
      appendFileSync(path, line("b\n"));
      await readUntil(response, (text) => text === "b\n");
    } finally {
      lookupError = undefined;
    }
    entry.lookup = { kind: "podNotFound" };
    assert.equal(await textOf(response), "");
  });

  test("a slow reader stops the reading, and nothing is lost to rotation meanwhile", async () => {
    const text = `${"x".repeat(8000)}\n`;
    const path = newLog("slow", line(text).repeat(4000));
    add("slow", path, true);
    const response = await open("/containerLogs/ns/web/slow?follow=true");
    response.pause();
    await delay(50);
    // What the kernel and both streams hold is much less than the log.
    assert.ok(openBelow(join(root, "slow")) > 0);
    renameSync(path, `${path}.1`);
    writeFileSync(path, line("end\n"));
    let bytes = 0;
    response.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes === 4000 * text.length + 4) known.delete("slow");
    });
    response.resume();
    await once(response, "end");
    assert.equal(bytes, 4000 * text.length + 4);
  });

  test("a reader that leaves takes its descriptors along, following or not", async () => {
    const path = newLog("left", line(`${"x".repeat(8000)}\n`).repeat(4000));
    add("left", path, true);
    for (const query of ["", "?follow=true", "?follow=true&tailLines=1"]) {
      for (let round = 0; round < 5; round += 1) {
        const response = await open(`/containerLogs/ns/web/left${query}`);
        await once(response, "readable");
        response.destroy();
      }
    }
    while (openBelow(join(root, "left")) > 0) await delay(10);
  });
});
