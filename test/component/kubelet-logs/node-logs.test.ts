import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request,
  type Server,
} from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { gunzipSync } from "node:zlib";

import { HttpRefusal } from "../../../src/kubelet/server/http-refusal.ts";
import { type NodeLogsDeps, serveNodeLogs } from "../../../src/kubelet/server/node-logs.ts";

const root = mkdtempSync(join(tmpdir(), "remora-node-logs-"));
const logs = join(root, "log");
const containerID = "c".repeat(64);

/** Says what it is asked, and does what the pattern says. */
const journalctl = join(root, "journalctl");
const script = `#!/bin/sh
if [ "$1" = --field ]; then printf 'kubelet.service\\ncron.service\\n'; exit 0; fi
case "$*" in
*--grep=bad*) echo 'Bad pattern' >&2; exit 1 ;;
*--grep=forever*) echo $$ >"${root}/pid"; while echo line; do :; done ;;
*) for word; do echo "$word"; done ;;
esac
`;

let server: Server;
let deps: NodeLogsDeps;

before(async () => {
  mkdirSync(join(logs, "svc"), { recursive: true });
  mkdirSync(join(logs, "empty"));
  mkdirSync(join(logs, "containers"));
  writeFileSync(join(logs, "syslog"), "one\ntwo\n");
  writeFileSync(join(logs, "a b#?<c>"), "odd\n");
  writeFileSync(join(logs, "page.html"), "<script>alert(1)</script>");
  writeFileSync(join(logs, "binary"), Buffer.from([1, 0, 2]));
  writeFileSync(join(logs, "proxy.log"), "proxy\n");
  writeFileSync(join(logs, "svc", "svc.log"), "svc\n");
  writeFileSync(join(root, "secret"), "secret\n");
  const docker = join(root, "docker", "containers", containerID);
  mkdirSync(docker, { recursive: true });
  writeFileSync(join(docker, `${containerID}-json.log`), "container\n");
  writeFileSync(join(docker, "config.v2.json"), "secret\n");
  symlinkSync(join(docker, `${containerID}-json.log`), join(logs, "containers", "pod.log"));
  symlinkSync(join(docker, "config.v2.json"), join(logs, "containers", "config.log"));
  symlinkSync("../secret", join(logs, "escape"));
  symlinkSync("..", join(logs, "up"));
  symlinkSync("syslog", join(logs, "inside"));
  symlinkSync("loop", join(logs, "loop"));
  symlinkSync("/dev/zero", join(logs, "zero"));
  execFileSync("mkfifo", [join(logs, "pipe")]);
  writeFileSync(journalctl, script);
  chmodSync(journalctl, 0o755);
  deps = { config: { enableSystemLogQuery: true }, nodeLogDir: logs, journalctl };
  server = createServer((incoming, response) => {
    const url = new URL(incoming.url ?? "/", "http://node");
    const path = decodeURIComponent(url.pathname.replace(/^\/logs\/?/, "").replace(/\/+$/, ""));
    const left = new AbortController();
    response.once("close", () => {
      left.abort();
    });
    serveNodeLogs(deps, { request: incoming, response, url, params: { path } }, left.signal).catch(
      (error: unknown) => {
        if (left.signal.aborted || response.headersSent) response.destroy();
        else if (error instanceof HttpRefusal) {
          response.writeHead(error.status, { ...error.headers }).end(error.message);
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

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly bytes: Buffer;
  readonly body: string;
}

async function open(
  path: string,
  options: { readonly headers?: Record<string, string>; readonly method?: string } = {},
): Promise<IncomingMessage> {
  const { port } = server.address() as AddressInfo;
  const asked = request({ host: "127.0.0.1", port, path, agent: false, ...options });
  asked.end();
  const [response] = (await once(asked, "response")) as [IncomingMessage];
  return response;
}

async function get(path: string, options?: Parameters<typeof open>[1]): Promise<Answer> {
  const response = await open(path, options);
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  const bytes = Buffer.concat(chunks);
  const { headers, statusCode: status = 0 } = response;
  return { status, headers, bytes, body: bytes.toString() };
}

describe("files of the node", () => {
  test("a directory is listed as Go's file server does it, sorted and escaped", async () => {
    const { body, headers, status } = await get("/logs/");
    assert.deepEqual([status, headers["content-type"]], [200, "text/html; charset=utf-8"]);
    assert.match(
      body,
      /^<!doctype html>\n<meta [^\n]+>\n<pre>\n<a href="a%20b%23%3F%3Cc%3E">a b#\?&lt;c&gt;<\/a>\n/,
    );
    assert.match(body, /\n<a href="svc\/">svc\/<\/a>\n/);
    assert.match(body, /<\/pre>\n$/);
    assert.equal((await get("/logs/empty/")).body.match(/<a/), null);
  });

  for (const [path, body] of [
    ["/logs/syslog", "one\ntwo\n"],
    ["/logs/svc/svc.log", "svc\n"],
    ["/logs/inside", "one\ntwo\n"],
    ["/logs/a%20b%23%3F%3Cc%3E", "odd\n"],
    ["/logs/containers/pod.log", "container\n"],
    ["/logs/?query=/syslog", "one\ntwo\n"],
    ["/logs/?query=svc/svc.log", "svc\n"],
    ["/logs/?query=svc%5Csvc.log", "svc\n"],
  ] as const) {
    test(`${path} is a file`, async () => {
      const answer = await get(path);
      assert.deepEqual([answer.status, answer.body], [200, body]);
      assert.equal(answer.headers["content-length"], String(body.length));
    });
  }

  for (const path of [
    "/logs/none",
    "/logs/syslog/none",
    "/logs/escape",
    "/logs/up/secret",
    "/logs/up/",
    "/logs/..%2fsecret",
    "/logs/%2e%2e%2fsecret",
    "/logs/svc/..%2f..%2fsecret",
    "/logs/containers/config.log",
    "/logs/loop",
    "/logs/zero",
    "/logs/pipe",
    `/logs/${"x".repeat(300)}`,
    "/logs/nul%00",
  ]) {
    test(`${path.slice(0, 40)} is not found`, async () => {
      const { body, status } = await get(path);
      assert.deepEqual([status, body], [404, "404 page not found\n"]);
    });
  }

  for (const file of ["/none", "../secret", "/../../secret", "/escape", "/up/secret"]) {
    test(`?query=${file} is refused`, async () => {
      const { body, status } = await get(`/logs/?query=${encodeURIComponent(file)}`);
      assert.equal(status, 406);
      assert.match(body, /^query: Invalid value: \[".*"\]: stat .*: no such file or directory\n$/);
    });
  }

  test("the last slash says directory, and whoever is wrong is sent there, query and all", async () => {
    const directory = await get("/logs/svc?x=1");
    assert.deepEqual([directory.status, directory.headers.location], [301, "svc/?x=1"]);
    const file = await get("/logs/syslog/");
    assert.deepEqual([file.status, file.headers.location], [301, "../syslog"]);
  });

  for (const [range, status, body, contentRange] of [
    ["bytes=0-2", 206, "one", "bytes 0-2/8"],
    ["bytes=4-", 206, "two\n", "bytes 4-7/8"],
    ["bytes=-4", 206, "two\n", "bytes 4-7/8"],
    ["bytes=-100", 206, "one\ntwo\n", "bytes 0-7/8"],
    ["bytes=6-100", 206, "o\n", "bytes 6-7/8"],
    ["bytes=0-0,2-3", 200, "one\ntwo\n", undefined],
    ["lines=1-2", 200, "one\ntwo\n", undefined],
    ["bytes=8-", 416, "invalid range: failed to overlap\n", "bytes */8"],
  ] as const) {
    test(`${range} of a file is answered ${status}`, async () => {
      const answer = await get("/logs/syslog", { headers: { range } });
      assert.deepEqual(
        [answer.status, answer.body, answer.headers["content-range"]],
        [status, body, contentRange],
      );
    });
  }

  test("nothing new is 304, and HEAD has no body", async () => {
    const { headers } = await get("/logs/syslog", { method: "HEAD" });
    assert.equal(headers["content-length"], "8");
    const since = { "if-modified-since": headers["last-modified"] ?? "" };
    assert.equal((await get("/logs/syslog", { headers: since })).status, 304);
  });

  test("what is written in a log never becomes a page", async () => {
    const page = await get("/logs/page.html");
    assert.equal(page.headers["content-type"], "text/plain; charset=utf-8");
    assert.equal(page.headers["x-content-type-options"], "nosniff");
    const binary = await get("/logs/binary");
    assert.equal(binary.headers["content-type"], "application/octet-stream");
  });

  test("switched off it says so", async () => {
    const on = deps;
    deps = { ...on, config: { enableSystemLogHandler: false, enableSystemLogQuery: true } };
    try {
      const { body, status } = await get("/logs/syslog");
      assert.deepEqual([status, body], [405, "logs endpoint is disabled.\n"]);
    } finally {
      deps = on;
    }
  });
});

describe("the journal of services", () => {
  test("is asked with all options", async () => {
    const { body, headers } = await get(
      "/logs/?query=kubelet&query=cron&tailLines=2&boot=0&pattern=a&sinceTime=2026-01-01T00:00:00Z",
    );
    assert.equal(headers["content-type"], "text/plain;charset=UTF-8");
    assert.deepEqual(body.trim().split("\n"), [
      "--utc",
      "--no-pager",
      "--output=short-precise",
      "--since=2026-01-01 00:00:00 UTC",
      "--pager-end",
      "--lines=2",
      "--unit=kubelet",
      "--unit=cron",
      "--grep=a",
      "--boot=0",
    ]);
  });

  for (const [query, body] of [
    ["query=proxy", "proxy\n"],
    ["query=svc", "svc\n"],
    ["query=nobody", "\nlog not found for nobody\n"],
    ["query=escape", "\nlog not found for escape\n"],
    ["query=proxy&query=nobody", "proxy\n\nlog not found for nobody\n"],
    [
      "query=proxy&tailLines=1",
      "\noptions present and query resolved to log files for [proxy]\ntry without specifying options\n",
    ],
    ["query=kubelet&pattern=bad", "Bad pattern\n"],
  ] as const) {
    test(`?${query} says what there is`, async () => {
      const answer = await get(`/logs/?${query}`);
      assert.deepEqual([answer.status, answer.body], [200, body]);
    });
  }

  for (const [path, status, body] of [
    ["/logs/?query", 400, 'query: Invalid value: [""]: query cannot be empty\n'],
    ["/logs/?query=kubelet&boot=1", 406, "boot: Invalid value: 1: must be less than 1\n"],
    ["/logs/syslog?query=kubelet", 406, "path not allowed in query mode\n"],
    ["/logs/?tailLines=3", 406, "query: Required value: cannot be empty with options\n"],
  ] as const) {
    test(`${path} is refused`, async () => {
      const answer = await get(path);
      assert.deepEqual([answer.status, answer.body], [status, body]);
    });
  }

  test("is compressed for who asks for just that", async () => {
    const { bytes, headers } = await get("/logs/?query=proxy", {
      headers: { "accept-encoding": "gzip" },
    });
    assert.equal(headers["content-encoding"], "gzip");
    assert.equal(gunzipSync(bytes).toString(), "proxy\n");
  });

  test("a host without a journal has files only", async () => {
    const on = deps;
    deps = { ...on, journalctl: join(root, "nothing") };
    try {
      assert.equal((await get("/logs/?query=proxy")).body, "proxy\n");
      assert.equal((await get("/logs/?query=kubelet")).body, "\nlog not found for kubelet\n");
    } finally {
      deps = on;
    }
  });

  test("is not asked while queries are switched off: the path counts alone", async () => {
    const on = deps;
    deps = { ...on, config: {} };
    try {
      assert.match((await get("/logs/?query=kubelet&boot=7")).body, /<a href="syslog">/);
    } finally {
      deps = on;
    }
  });

  test("ends when its reader leaves", async () => {
    const response = await open("/logs/?query=kubelet&pattern=forever");
    await once(response, "readable");
    const pid = Number(readFileSync(join(root, "pid"), "utf8"));
    response.destroy();
    while (existsSync(`/proc/${pid}`)) await delay(10);
  });
});
