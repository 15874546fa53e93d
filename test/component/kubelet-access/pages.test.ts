import assert from "node:assert/strict";
import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { text } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";
import { parse } from "yaml";

import type { PodView } from "../../../src/kubelet/types.ts";
import { isRecord } from "../../../src/lib/guard.ts";
import { RuntimeError } from "../../../src/runtime/errors.ts";
import type { ContainerRuntime, ExecResult } from "../../../src/runtime/types.ts";
import { type Answer, freePort, NodeUnderTest } from "./node-under-test.ts";

describe("the node's pages", () => {
  const node = new NodeUnderTest();
  let healthzPort = 0;
  let trouble: string | undefined;
  let ran: readonly string[] = [];
  let result: () => ExecResult = () => {
    throw new Error("no command is expected");
  };
  const pods: PodView = {
    pods: () => [
      { metadata: { name: "web", namespace: "ns", uid: "uid-1", resourceVersion: "1" } },
    ],
    healthy: () => trouble,
    findContainer: async ({ pod, container }) => {
      if (pod !== "web") return { kind: "podNotFound" };
      if (container !== "c") return { kind: "containerNotFound" };
      return { kind: "found", containerID: "id1", running: true, tty: false, stdin: false };
    },
  };
  const runtime = {
    snapshot: async () =>
      new Map([
        [
          "uid-1",
          {
            uid: "uid-1",
            name: "web",
            namespace: "ns",
            sandboxes: [],
            containers: [
              { name: "c", image: "busybox", state: { kind: "running" } },
              { name: "gone", image: "busybox", state: { kind: "exited" } },
            ],
          },
        ],
        ["uid-2", { uid: "uid-2", name: "old", namespace: "ns", sandboxes: [], containers: [] }],
        [
          "uid-3",
          {
            uid: "uid-3",
            name: "young",
            namespace: "ns",
            sandboxes: [{ ready: true }],
            containers: [],
          },
        ],
      ]),
    execSync: async (_id: string, command: readonly string[]) => {
      ran = command;
      return result();
    },
  } as unknown as ContainerRuntime;

  before(async () => {
    healthzPort = await freePort();
    await node.start({ kubeletHealthzPort: healthzPort }, { pods, runtime });
  });
  after(() => node.stop());

  async function get(path: string, method = "GET"): Promise<Answer> {
    return node.get(path, node.admin, { method });
  }

  async function expected(
    path: string,
    status: number,
    body: string,
    method = "GET",
  ): Promise<void> {
    const answer = await get(path, method);
    assert.deepEqual([answer.status, answer.body], [status, body], `${method} ${path}`);
  }

  test("health is one word, or each check by name", async () => {
    await expected("/healthz", 200, "ok");
    await expected("/healthz/", 200, "ok");
    for (const name of ["ping", "log", "syncloop"]) await expected(`/healthz/${name}`, 200, "ok");
    await expected("/healthz/other", 404, "404 page not found\n");
    await expected(
      "/healthz?verbose",
      200,
      "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n",
    );
    await expected(
      "/healthz?verbose&exclude=log&exclude=nothing",
      200,
      `[+]ping ok\n[+]log excluded: ok\n[+]syncloop ok\nwarn: some health checks cannot be excluded: no matches for "nothing"\nhealthz check passed\n`,
    );
  });

  test("what is wrong is told by the check itself, not by the summary", async () => {
    trouble = "PLEG is not healthy";
    try {
      await expected(
        "/healthz",
        500,
        "[+]ping ok\n[+]log ok\n[-]syncloop failed: reason withheld\nhealthz check failed\n",
      );
      await expected("/healthz?exclude=syncloop", 200, "ok");
      await expected("/healthz/syncloop", 500, "internal server error: PLEG is not healthy\n");
      const { headers } = await get("/healthz");
      assert.equal(headers["content-type"], "text/plain; charset=utf-8");
      assert.equal(headers["x-content-type-options"], "nosniff");
    } finally {
      trouble = undefined;
    }
  });

  test("the answers of health are counted, until somebody starts anew", async () => {
    await expected("/metrics/slis", 200, "metrics reset\n", "DELETE");
    await get("/healthz");
    trouble = "no engine";
    await get("/healthz").finally(() => (trouble = undefined));
    const { body } = await get("/metrics/slis");
    assert.match(body, /^# TYPE kubernetes_healthcheck gauge$/m);
    assert.match(body, /^kubernetes_healthcheck\{name="ping",type="healthz"\} 1$/m);
    assert.match(body, /^kubernetes_healthcheck\{name="syncloop",type="healthz"\} 0$/m);
    const total = "kubernetes_healthchecks_total";
    for (const [name, status, count] of [
      ["ping", "success", 2],
      ["syncloop", "success", 1],
      ["syncloop", "error", 1],
    ] as const) {
      const labels = `{name="${name}",status="${status}",type="healthz"}`;
      assert(body.includes(`${total}${labels} ${count}\n`), labels);
    }
    await get("/metrics/slis", "DELETE");
    await expected("/metrics/slis", 200, "");
  });

  test("the loopback health check tells that the agent answers, whatever ails the engine", async () => {
    const ask = async (path: string): Promise<[number, string]> => {
      const asked = request({ host: "127.0.0.1", port: healthzPort, path, agent: false });
      asked.end();
      const [response] = (await once(asked, "response")) as [IncomingMessage];
      return [response.statusCode ?? 0, await text(response)];
    };
    trouble = "no engine";
    try {
      assert.deepEqual(await ask("/healthz"), [200, "ok"]);
      assert.deepEqual(await ask("/healthz/ping"), [200, "ok"]);
      assert.deepEqual(await ask("/healthz?verbose"), [200, "[+]ping ok\nhealthz check passed\n"]);
      assert.equal((await ask("/pods"))[0], 404);
    } finally {
      trouble = undefined;
    }
  });

  test("pods are a PodList, desired or running", async () => {
    const desired: unknown = JSON.parse((await get("/pods/")).body);
    assert(isRecord(desired));
    assert.equal(desired["kind"], "PodList");
    assert.deepEqual(desired["items"], [
      { metadata: { name: "web", namespace: "ns", uid: "uid-1", resourceVersion: "1" } },
    ]);
    const answer = await get("/runningpods/");
    assert.equal(answer.headers["content-type"], "application/json");
    assert.deepEqual(JSON.parse(answer.body), {
      kind: "PodList",
      apiVersion: "v1",
      metadata: {},
      items: [
        {
          metadata: { name: "web", namespace: "ns", uid: "uid-1" },
          spec: { containers: [{ name: "c", image: "busybox" }] },
          status: {},
        },
        {
          metadata: { name: "young", namespace: "ns", uid: "uid-3" },
          spec: { containers: [] },
          status: {},
        },
      ],
    });
  });

  test("statusz is text for people and an object for who asks for it", async () => {
    const { body, headers } = await get("/statusz");
    assert.match(body, /^\nkubelet statusz\nWarning: /);
    assert.match(body, /^Up: 0 hr 00 min \d\d sec$/m);
    assert.match(body, /^Paths: \/configz \/flagz \/healthz \/metrics \/pods .*\/statusz$/m);
    assert.equal(headers["content-type"], "text/plain; charset=utf-8");
    const ask = async (accept: string): Promise<Answer> =>
      node.get("/statusz", node.admin, { headers: { accept } });
    const beta = await ask("application/json;g=config.k8s.io;v=v1beta1;as=Statusz");
    const status: unknown = JSON.parse(beta.body);
    assert(isRecord(status));
    assert.equal(status["kind"], "Statusz");
    assert.equal(status["apiVersion"], "config.k8s.io/v1beta1");
    assert.deepEqual(status["metadata"], { name: "kubelet" });
    const alpha = await ask("application/json;v=v1alpha1;as=Statusz;g=config.k8s.io");
    assert.match(String(alpha.headers["warning"]), /deprecated/);
    assert.match((await ask("application/json, */*")).body, /^\nkubelet statusz/);
    assert.equal((await ask("application/json")).status, 406);
  });

  test("flagz has each flag with its value", async () => {
    const flags = { "max-pods": "37", "cluster-dns": "[10.96.0.10]" };
    const flagged = await new NodeUnderTest().start({ flags });
    try {
      const { body } = await flagged.get("/flagz", flagged.admin);
      assert.match(body, /^\nkubelet flagz\nWarning: .*\n/);
      assert.deepEqual(body.split("\n").slice(3), ["cluster-dns=[10.96.0.10]", "max-pods=37", ""]);
      const ask = async (accept: string): Promise<Answer> =>
        flagged.get("/flagz", flagged.admin, { headers: { accept } });
      const json = await ask("application/json;g=config.k8s.io;v=v1beta1;as=Flagz");
      const expected = {
        kind: "Flagz",
        apiVersion: "config.k8s.io/v1beta1",
        metadata: { name: "kubelet" },
        flags,
      };
      assert.deepEqual(JSON.parse(json.body), expected);
      const yaml = await ask("application/yaml;g=config.k8s.io;v=v1beta1;as=Flagz");
      assert.equal(yaml.headers["content-type"], "application/yaml");
      assert.deepEqual(parse(yaml.body), expected);
      assert.equal(
        (await ask("application/json;g=config.k8s.io;v=v1beta1;as=Statusz")).status,
        406,
      );
    } finally {
      await flagged.stop();
    }
  });

  test("run answers with both outputs, or with how the command failed", async () => {
    const bytes = (value: string): Uint8Array => new TextEncoder().encode(value);
    const ended = (exitCode: number): ExecResult => ({
      exitCode,
      stdout: bytes("out"),
      stderr: bytes("err"),
      timedOut: false,
    });
    result = () => ended(0);
    await expected("/run/ns/web/c?cmd=echo%20a%20b", 200, "outerr", "POST");
    assert.deepEqual(ran, ["echo", "a", "b"]);
    await expected("/run/ns/web/uid-1/c?cmd=true", 200, "outerr", "POST");
    result = () => ended(3);
    await expected(
      "/run/ns/web/c?cmd=false+x",
      500,
      "command 'false x' exited with 3: err",
      "POST",
    );
    result = () => {
      throw new RuntimeError("WrongState", "container is not running");
    };
    await expected("/run/ns/web/c?cmd=x", 500, "container is not running", "POST");
    await expected("/run/ns/none/c?cmd=x", 404, "pod does not exist", "POST");
    await expected("/run/ns/web/other?cmd=x", 500, `container not found ("other")`, "POST");
    await expected("/run/ns/web/c?cmd=x", 405, "405: Method Not Allowed");
    await expected("/run/ns", 404, "404 page not found\n", "POST");
  });

  test("checkpoint says what is missing", async () => {
    const path = "/checkpoint/ns/web/c";
    await expected(
      path,
      500,
      "checkpointing of ns/web/c failed (rpc error: code = Unimplemented desc = method CheckpointContainer not implemented)",
      "POST",
    );
    await expected("/checkpoint/ns/none/c", 404, "pod does not exist", "POST");
    await expected("/checkpoint/ns/web/x", 404, "container x does not exist", "POST");
    const text = "cannot parse value of timeout parameter";
    await expected(`${path}?timeout=1&timeout=x`, 404, text, "POST");
    await expected(path, 405, "405: Method Not Allowed");
  });

  for (const [method, path, status, allow] of [
    ["POST", "/pods", 405, "GET, HEAD"],
    ["PUT", "/metrics", 405, "GET, HEAD"],
    ["DELETE", "/containerLogs/ns/web/c", 405, "GET, HEAD"],
    ["PUT", "/exec/ns/web/c", 405, "GET, POST"],
    ["OPTIONS", "/pods", 405, "GET, HEAD"],
    ["GET", "/debug/pprof/heap", 404, undefined],
    ["PUT", "/debug/flags/v", 405, undefined],
    ["HEAD", "/pods", 200, undefined],
    ["GET", "/flagz", 200, undefined],
    ["POST", "/flagz", 405, "GET, HEAD"],
    ["GET", "/flagz/more", 404, undefined],
    ["GET", "/stats/container", 404, undefined],
    ["GET", "/exec/ns/web/c", 400, undefined],
    ["GET", "/exec/ns/web", 404, undefined],
    ["GET", "/nowhere", 404, undefined],
    ["POST", "/attach/ns/web/c", 400, undefined],
    ["GET", "/portForward/ns/web", 400, undefined],
  ] as const) {
    test(`${method} ${path} answers ${status}`, async () => {
      const answer = await get(path, method);
      assert.equal(answer.status, status);
      assert.equal(answer.headers.allow, allow);
    });
  }

  test("profiling that is switched off says so as upstream", async () => {
    const other = await new NodeUnderTest().start({ enableProfilingHandler: false });
    try {
      const answer = await other.get("/debug/pprof/", other.admin);
      assert.deepEqual([answer.status, answer.body], [405, "profiling endpoint is disabled.\n"]);
    } finally {
      await other.stop();
    }
  });

  test("an upgrade that a plain page does not have is no reason not to answer", async () => {
    const answer = await node.get("/healthz", node.admin, {
      headers: { connection: "upgrade", upgrade: "h2c" },
    });
    assert.deepEqual([answer.status, answer.body], [200, "ok"]);
  });

  for (const [path, status] of [
    ["/pods/../configz", 200],
    ["/pods/%2e%2e/configz", 200],
    ["/pods%2f..%2fconfigz", 400],
    ["/containerLogs/ns/..%2fweb/c", 400],
    ["/containerLogs/ns/web%00/c", 400],
    ["/containerLogs/%zz/web/c", 400],
    ["/containerLogs/ns//c", 404],
    ["/containerLogs/ns/web/c/d", 404],
    ["/run/ns/web/uid-1/c/d", 404],
    ["*", 400],
    ["https://node/healthz", 200],
    ["https://[/healthz", 400],
  ] as const) {
    test(`the path ${path} answers ${status}`, async () => {
      assert.equal((await get(path)).status, status);
    });
  }

  test("a port in use is a setup error that names port, remedy and option", async () => {
    const second = new NodeUnderTest();
    await assert.rejects(
      second.start({ kubeletPort: node.port }),
      new RegExp(`port ${node.port} on 127.0.0.1 is in use: stop .* another kubeletPort`),
    );
  });
});
