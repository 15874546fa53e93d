import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import type { Route } from "../../../src/kubelet/server/route.ts";
import { routes } from "../../../src/kubelet/server/routes.ts";
import { type Answer, type Client, dayMs, NodeUnderTest, TestCA } from "./node-under-test.ts";

/** A path that fits a row of the table, and a method that it has. */
function example({ path, methods }: Route): { readonly path: string; readonly method: string } {
  const names: Readonly<Record<string, string>> = {
    namespace: "ns",
    pod: "web",
    uid: "uid-1",
    container: "c",
    check: "ping",
    path: "some/where",
  };
  return {
    path: path.replaceAll(/\{(\w+)\*?\}/g, (_all, name: string) => names[name] ?? name),
    method: methods === "any" || methods.some((method) => method === "GET") ? "GET" : "POST",
  };
}

/** What the kubelet asks for (its documentation, KEP-2862), and `create` for what reaches into pods. */
const rights: Readonly<Record<string, string>> = {
  "/healthz": "get healthz|proxy",
  "/pods": "get pods|proxy",
  "/runningpods": "get pods|proxy",
  "/configz": "get configz|proxy",
  "/flagz": "get configz",
  "/statusz": "get statusz",
  "/stats": "get stats",
  "/metrics": "get metrics",
  "/logs": "get log",
  "/checkpoint": "create checkpoint",
  "/containerLogs": "get proxy",
  "/debug": "get proxy",
  "/exec": "create proxy",
  "/attach": "create proxy",
  "/portForward": "create proxy",
  "/run": "create proxy",
};

const subresources = "checkpoint configz healthz log metrics pods proxy stats statusz".split(" ");

describe("who may ask for what", () => {
  const node = new NodeUnderTest();
  const other = new TestCA("other");
  const now = Date.now();
  const viewer = node.ca.issue("viewer");
  /** Those who are nobody here, whatever they ask for. */
  const strangers: Readonly<Record<string, Client>> = {
    "no credential": {},
    "certificate of another CA": other.issue("admin", ["system:masters"]),
    "certificate of another CA of the same name": new TestCA("ca").issue("admin", [
      "system:masters",
    ]),
    "expired certificate": node.ca.issue("admin", ["system:masters"], {
      notBefore: now - 2 * dayMs,
      notAfter: now - dayMs,
    }),
    "certificate of tomorrow": node.ca.issue("admin", ["system:masters"], {
      notBefore: now + dayMs,
      notAfter: now + 2 * dayMs,
    }),
    "a server's certificate": node.ca.issue("admin", ["system:masters"], { usages: ["server"] }),
    "certificate that names nobody": node.ca.issue("", ["system:masters"]),
    "unknown token": { token: "unknown" },
    "expired token": { token: "expired" },
  };

  before(() => node.start());
  after(() => node.stop());

  async function ask(route: Route, client: Client): Promise<Answer> {
    const { path, method } = example(route);
    return node.get(path, client, { method });
  }

  function admitted({ status, body }: Answer): boolean {
    return status !== 401 && status !== 403 && !body.startsWith("Authorization error");
  }

  test("every row stands in the list of rights, and the list in the rows", () => {
    const heads = new Set(routes.map(({ path }) => `/${path.split("/")[1] ?? ""}`));
    assert.deepEqual([...heads].toSorted(), Object.keys(rights).toSorted());
  });

  for (const [name, client] of Object.entries(strangers)) {
    test(`${name}: 401 everywhere`, async () => {
      for (const route of routes) {
        const { body, headers, status } = await ask(route, client);
        assert.deepEqual([status, body], [401, "Unauthorized"], route.path);
        assert.equal(headers.connection, "close");
      }
    });
  }

  test("a known user without rights: 403 everywhere, with upstream's text", async () => {
    for (const route of routes) {
      const { method } = example(route);
      const [verb = "", list = ""] = (rights[`/${route.path.split("/")[1] ?? ""}`] ?? "").split(
        " ",
      );
      const answer = await ask(route, viewer);
      const subresources = list.split("|").join(" ");
      assert.deepEqual(
        [answer.status, answer.body],
        [
          403,
          `Forbidden (user=viewer, verb=${verb}, resource=nodes, subresource(s)=[${subresources}])\n`,
        ],
        `${method} ${route.path}`,
      );
    }
  });

  test("system:masters may everything, and is not asked about", async () => {
    node.reviews.asked.length = 0;
    for (const route of routes) assert(admitted(await ask(route, node.admin)), route.path);
    assert.deepEqual(node.reviews.asked, []);
  });

  test("the node itself has no rights of its own", async () => {
    const self = node.ca.issue("system:node:n1", ["system:nodes"]);
    assert.equal((await node.get("/pods", self)).status, 403);
  });

  for (const verb of ["get", "create", "update"]) {
    for (const subresource of subresources) {
      test(`only "${verb} nodes/${subresource}" opens what it should and nothing else`, async () => {
        const user = `${verb}-${subresource}`;
        node.reviews.allowed.add(`${user} ${verb} ${subresource}`);
        for (const route of routes) {
          const needed = rights[`/${route.path.split("/")[1] ?? ""}`] ?? "";
          const [neededVerb, list = ""] = needed.split(" ");
          const expected = neededVerb === verb && list.split("|").includes(subresource);
          const answer = await ask(route, { token: `good-${user}` });
          assert.equal(
            admitted(answer),
            expected,
            `${route.path}: ${answer.status} ${answer.body}`,
          );
        }
      });
    }
  }

  test("a path that stands for nothing needs nodes/proxy, and is not found then", async () => {
    node.reviews.allowed.add("prober get proxy");
    const client = { token: "good-prober" };
    for (const path of ["/", "/nowhere", "//pods", "/podsecret", "/Pods"]) {
      assert.equal((await node.get(path, viewer)).status, 403, path);
    }
    assert.equal((await node.get("/nowhere", client)).status, 404);
    assert.equal((await node.get("//pods", client)).status, 404);
  });
});

describe("while the API server is away", () => {
  const node = new NodeUnderTest();
  before(() => node.start());
  after(() => node.stop());

  test("answers from before count, everybody else is refused as upstream does", async () => {
    const seen = { token: "good-seen" };
    node.reviews.allowed.add("seen get pods");
    assert.equal((await node.get("/pods", seen)).status, 200);
    node.reviews.away = true;
    assert.equal((await node.get("/pods", seen)).status, 200);
    assert.deepEqual(await statusAndBody("/metrics", seen), [
      500,
      "Authorization error (user=seen, verb=get, resource=nodes, subresource=metrics)",
    ]);
    assert.deepEqual(await statusAndBody("/pods", { token: "good-new" }), [401, "Unauthorized"]);
    assert.deepEqual(await statusAndBody("/pods", node.ca.issue("viewer")), [
      500,
      "Authorization error (user=viewer, verb=get, resource=nodes, subresource=pods)",
    ]);
    assert.equal((await node.get("/pods", node.admin)).status, 200);
    assert.equal((await node.get("/pods", {})).status, 401);
    node.reviews.away = false;
    // A failure is no answer to be kept.
    assert.equal((await node.get("/pods", node.ca.issue("viewer"))).status, 403);
  });

  async function statusAndBody(path: string, client: Client): Promise<[number, string]> {
    const { status, body } = await node.get(path, client);
    return [status, body];
  }
});

describe("authentication.anonymous.enabled", () => {
  const node = new NodeUnderTest();
  before(() => node.start({ authentication: { anonymousEnabled: true } }));
  after(() => node.stop());

  test("callers without a credential are system:anonymous, and have that user's rights", async () => {
    const answer = await node.get("/healthz", {});
    assert.equal(answer.status, 403);
    assert.match(answer.body, /^Forbidden \(user=system:anonymous, verb=get, /);
    node.reviews.allowed.add("system:anonymous get healthz");
    assert.equal((await node.get("/healthz", {})).status, 403, "a denial is kept for its time");
    node.reviews.allowed.add("system:anonymous get pods");
    assert.equal((await node.get("/pods", {})).status, 200);
  });

  test("a credential that does not hold is not taken for none", async () => {
    assert.equal((await node.get("/pods", { token: "unknown" })).status, 401);
    assert.equal((await node.get("/pods", new TestCA("other").issue("x"))).status, 401);
  });
});

test("authorization.mode AlwaysAllow asks nobody, but still who you are", async () => {
  const node = await new NodeUnderTest().start({ authorization: { mode: "AlwaysAllow" } });
  try {
    assert.equal((await node.get("/pods", node.ca.issue("anybody"))).status, 200);
    assert.equal((await node.get("/pods", {})).status, 401);
    assert.deepEqual(node.reviews.asked, []);
  } finally {
    await node.stop();
  }
});

test("authentication.webhook.enabled false looks at no token", async () => {
  const node = await new NodeUnderTest().start({ authentication: { webhookEnabled: false } });
  try {
    assert.equal((await node.get("/pods", { token: "good-x" })).status, 401);
    assert.deepEqual(node.reviews.asked, []);
  } finally {
    await node.stop();
  }
});

test("with enableDebuggingHandlers off pages are kept, refused or gone as upstream's", async () => {
  const node = await new NodeUnderTest().start({ enableDebuggingHandlers: false });
  try {
    for (const [path, status, method] of [
      ["/healthz", 200],
      ["/pods", 200],
      ["/metrics", 200],
      ["/runningpods/", 405],
      ["/containerLogs/ns/web/c", 405],
      ["/exec/ns/web/c", 405, "POST"],
      ["/attach/ns/web/c", 405],
      ["/portForward/ns/web", 405],
      ["/run/ns/web/c", 405, "POST"],
      ["/logs/", 405],
      ["/debug/pprof/", 405],
      ["/configz", 404],
      ["/flagz", 404],
      ["/statusz", 404],
      ["/checkpoint/ns/web/c", 404, "POST"],
      ["/debug/flags/v", 404, "PUT"],
    ] as const) {
      const answer = await node.get(path, node.admin, { method: method ?? "GET" });
      assert.equal(answer.status, status, path);
      if (status === 405) assert.equal(answer.body, "Debug endpoints are disabled.\n");
    }
  } finally {
    await node.stop();
  }
});
