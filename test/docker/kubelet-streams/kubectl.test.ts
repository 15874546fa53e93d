// The node's server against the real kubectl, with a gateway in between that forwards as an API server does.
import assert from "node:assert/strict";
import { type ChildProcessByStdio, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer, type IncomingMessage, type Server } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { join } from "node:path";
import type { Duplex, Readable, Writable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { connect as connectTls } from "node:tls";
import { after, before, describe, test } from "node:test";

import type { ApiClient } from "../../../src/api/client.ts";
import { createNodeServer } from "../../../src/kubelet/server/server.ts";
import type { AssignedPod, PodView } from "../../../src/kubelet/types.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { ContainerRuntime, PodRecord, StreamSession } from "../../../src/runtime/types.ts";
import { agentConfig, type TestPki, testPki } from "../../component/kubelet-node/fixtures.ts";

const kubectl = ["/usr/local/bin/kubectl", "/usr/bin/kubectl"].find((path) => existsSync(path));

async function* processOutput(
  child: ChildProcessByStdio<Writable, Readable, Readable>,
): AsyncGenerator<{ stream: "stdout" | "stderr"; chunk: Uint8Array }> {
  // Read from the start: what nobody reads is thrown away when the process exits.
  const stderr = buffer(child.stderr);
  for await (const chunk of child.stdout) yield { stream: "stdout", chunk: chunk as Buffer };
  yield { stream: "stderr", chunk: await stderr };
}

/** Runs the command on this machine: a container as good as any for what is tested here. */
function processSession(command: readonly string[]): StreamSession {
  const [file = "false", ...args] = command;
  const child = spawn(file, args, { stdio: "pipe" });
  child.stdin.on("error", () => undefined);
  const closed = once(child, "close");
  return {
    writeStdin: async (chunk) => {
      if (!child.stdin.write(chunk)) await once(child.stdin, "drain");
    },
    closeStdin: () => child.stdin.end(),
    output: processOutput(child),
    resize: async () => undefined,
    exitCode: closed.then(() => child.exitCode ?? 137),
    abort: async () => {
      child.kill("SIGKILL");
    },
  };
}

const pod = {
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "web", namespace: "default", uid: "uid-1", resourceVersion: "1" },
  spec: { nodeName: "n1", containers: [{ name: "c", image: "i" }] },
  status: { phase: "Running" },
} satisfies AssignedPod;

/** As much discovery as kubectl needs to know what a pod is. */
const discovery: Readonly<Record<string, unknown>> = {
  "/api": { kind: "APIVersions", versions: ["v1"] },
  "/apis": { kind: "APIGroupList", apiVersion: "v1", groups: [] },
  "/api/v1": {
    kind: "APIResourceList",
    groupVersion: "v1",
    resources: [
      { name: "pods", singularName: "pod", namespaced: true, kind: "Pod", verbs: ["get", "list"] },
    ],
  },
};

describe("kubectl", { skip: kubectl === undefined ? "kubectl is not installed" : false }, () => {
  const stop = new AbortController();
  let pki: TestPki;
  let gateway: Server;
  let target: Server;
  let running: Promise<void>;
  let kubeconfig: string;
  let port: number;
  const upgrades: string[] = [];

  before(async () => {
    pki = testPki();
    const serving = pki.issue("serving", "/CN=node");
    const admin = pki.issue("admin", "/O=system:masters/CN=admin");
    const probe = createTcpServer().listen(0, "127.0.0.1");
    await once(probe, "listening");
    ({ port } = probe.address() as AddressInfo);
    probe.close();
    target = createHttpServer((request, response) => {
      buffer(request).then(
        (body) => response.end(`${request.method ?? ""} ${body.length}`),
        () => response.destroy(),
      );
    }).listen(0, "127.0.0.1");
    await once(target, "listening");
    const pods: PodView = {
      pods: () => [pod],
      healthy: () => undefined,
      findContainer: async () => ({
        kind: "found",
        containerID: "id",
        running: true,
        tty: false,
        stdin: true,
      }),
    };
    const record = {
      sandboxes: [{ ready: true, pid: 1, network: "node" }],
    } as unknown as PodRecord;
    const runtime = {
      exec: async (_id: string, { command }: { command: readonly string[] }) =>
        processSession(command),
      podRecord: async () => record,
    } as unknown as ContainerRuntime;
    const server = createNodeServer({
      config: agentConfig(pki.directory, {
        kubeletPort: port,
        clientCAFile: pki.ca,
        tlsCertFile: serving.cert,
        tlsPrivateKeyFile: serving.key,
      }),
      client: {} as ApiClient,
      runtime,
      pods,
      node: { node: () => undefined, hostIPs: () => [], subscribe: () => () => undefined },
      clock: systemClock,
      logger: silentLogger,
    });
    running = server.run(stop.signal);
    gateway = createHttpServer((request, response) => {
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(discovery[(request.url ?? "").split("?")[0] ?? ""] ?? pod));
    });
    gateway.on("upgrade", (request: IncomingMessage, socket: Duplex) => {
      upgrades.push(`${request.method ?? ""} ${String(request.headers.upgrade)}`);
      forward(request, socket, { cert: pki.read(admin.cert), key: pki.read(admin.key) });
    });
    gateway.listen(0, "127.0.0.1");
    await once(gateway, "listening");
    kubeconfig = join(pki.directory, "kubeconfig");
    const url = `http://127.0.0.1:${(gateway.address() as AddressInfo).port}`;
    writeFileSync(
      kubeconfig,
      JSON.stringify({
        apiVersion: "v1",
        kind: "Config",
        clusters: [{ name: "c", cluster: { server: url } }],
        users: [{ name: "u", user: {} }],
        contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
        "current-context": "x",
      }),
    );
  });

  after(async () => {
    stop.abort();
    await running;
    for (const server of [gateway, target]) {
      server.close();
      server.closeAllConnections();
    }
    pki.remove();
  });

  function forward(
    request: IncomingMessage,
    socket: Duplex,
    credentials: { cert: Buffer; key: Buffer },
  ): void {
    const url = new URL(request.url ?? "/", "http://gateway");
    const query = new URLSearchParams();
    for (const [name, value] of url.searchParams) {
      if (name === "command") query.append(name, value);
      const flag = { stdin: "input", stdout: "output", stderr: "error", tty: "tty" }[name];
      if (flag !== undefined && value === "true") query.set(flag, "1");
    }
    const path = url.pathname.endsWith("/portforward")
      ? "/portForward/default/web"
      : `/exec/default/web/c?${query.toString()}`;
    const upstream = connectTls({ host: "127.0.0.1", port, ca: pki.read(pki.ca), ...credentials });
    const headers = request.rawHeaders
      .map((text, index) => (index % 2 === 0 ? `${text}: ` : `${text}\r\n`))
      .join("");
    upstream.write(`${request.method ?? ""} ${path} HTTP/1.1\r\n${headers}\r\n`);
    upstream.pipe(socket);
    socket.pipe(upstream);
    for (const end of [upstream, socket]) {
      end.on("error", () => undefined);
      end.on("close", () => {
        upstream.destroy();
        socket.destroy();
      });
    }
  }

  async function run(
    args: readonly string[],
    stdin: string | Uint8Array,
    env: Readonly<Record<string, string>>,
  ): Promise<{ code: number | null; stdout: Buffer; stderr: string }> {
    const child = spawn(kubectl ?? "", ["--kubeconfig", kubeconfig, ...args], {
      stdio: "pipe",
      env: { PATH: process.env["PATH"] ?? "", HOME: pki.directory, ...env },
      timeout: 30_000,
    });
    child.stdin.on("error", () => undefined);
    child.stdin.end(stdin);
    const [stdout, stderr] = await Promise.all([
      buffer(child.stdout),
      buffer(child.stderr),
      once(child, "close"),
    ]);
    return { code: child.exitCode, stdout, stderr: stderr.toString() };
  }

  for (const [carrier, env, upgrade] of [
    ["WebSocket", {}, "GET websocket"],
    ["SPDY", { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: "false" }, "POST SPDY/3.1"],
  ] as const) {
    test(`exec over ${carrier}: outputs, exit code`, async () => {
      upgrades.length = 0;
      const result = await run(
        ["exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7"],
        "",
        env,
      );
      assert.deepEqual(upgrades, [upgrade]);
      assert.equal(result.stdout.toString(), "out\n", result.stderr);
      assert.match(result.stderr, /^err\n/);
      assert.equal(result.code, 7, result.stderr);
    });

    test(`exec over ${carrier}: eight megabytes in, and the same out`, async () => {
      const bytes = Buffer.alloc(8 * 1024 * 1024, "remora\n");
      const result = await run(["exec", "-i", "web", "--", "cat"], bytes, env);
      assert.equal(result.code, 0, result.stderr);
      assert.ok(result.stdout.equals(bytes), `${result.stdout.length} bytes came back`);
    });
  }

  for (const [carrier, env, upgrade] of [
    ["WebSocket", { KUBECTL_PORT_FORWARD_WEBSOCKETS: "true" }, "GET websocket"],
    ["SPDY", { KUBECTL_PORT_FORWARD_WEBSOCKETS: "false" }, "POST SPDY/3.1"],
  ] as const) {
    test(`port-forward over ${carrier}: several connections at once, and a refused one`, async () => {
      upgrades.length = 0;
      const remote = (target.address() as AddressInfo).port;
      const child = spawn(
        kubectl ?? "",
        ["--kubeconfig", kubeconfig, "port-forward", "web", `:${remote}`, ":1"],
        { stdio: "pipe", env: { PATH: process.env["PATH"] ?? "", HOME: pki.directory, ...env } },
      );
      let output = "";
      child.stdout.on("data", (chunk: Buffer) => {
        output += chunk.toString();
      });
      let errors = "";
      child.stderr.on("data", (chunk: Buffer) => {
        errors += chunk.toString();
      });
      try {
        const local = async (port: number): Promise<string> => {
          const pattern = new RegExp(`127.0.0.1:(\\d+) -> ${port}\\b`);
          for (let tries = 0; tries < 250 && !pattern.test(output); tries += 1) {
            await systemClock.sleep(20, stop.signal);
          }
          return `http://127.0.0.1:${pattern.exec(output)?.[1] ?? "0"}/`;
        };
        const url = await local(remote);
        assert.deepEqual(upgrades, [upgrade]);
        const answers = await Promise.all(
          [1, 100_000, 3_000_000].map(async (size) => {
            const response = await fetch(url, { method: "POST", body: Buffer.alloc(size) });
            return response.text();
          }),
        );
        assert.deepEqual(answers, ["POST 1", "POST 100000", "POST 3000000"]);
        await assert.rejects(fetch(await local(1)));
        for (let tries = 0; tries < 100 && !errors.includes("ECONNREFUSED"); tries += 1) {
          await systemClock.sleep(20, stop.signal);
        }
        assert.match(
          errors,
          /error forwarding port 1 to pod web_default, uid : uid-1: .*ECONNREFUSED/,
        );
      } finally {
        child.kill("SIGKILL");
        await once(child, "close");
      }
    });
  }
});

test("the version of kubectl that was used", { skip: kubectl === undefined }, (context) => {
  context.diagnostic(
    execFileSync(kubectl ?? "", ["version", "--client"])
      .toString()
      .trim(),
  );
});
