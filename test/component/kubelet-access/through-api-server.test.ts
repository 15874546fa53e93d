// Who may reach into pods through the embedded API server, which is somebody else to the node than its caller is.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { request } from "node:https";
import { text } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";

import { createHttpClient, type HttpClient } from "../../../src/api/http-client.ts";
import { loadKubeconfig } from "../../../src/api/kubeconfig.ts";
import { pemText } from "../../../src/agent/pem.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { ContainerRuntime, PodRecord } from "../../../src/runtime/types.ts";
import { eventually, startWorld, type World } from "../controlplane-controllers/world.ts";
import { FakeSession } from "../kubelet-streams/fake-session.ts";
import { NodeUnderTest } from "./node-under-test.ts";

/** A command that has ended at once. */
function ended(): FakeSession {
  const session = new FakeSession();
  session.exit(0);
  return session;
}

const runtime = {
  exec: async () => ended(),
  attach: async () => ended(),
  podRecord: async () =>
    ({ sandboxes: [{ ready: true, pid: 1, network: "node" }] }) as unknown as PodRecord,
  execSync: async () => ({
    exitCode: 0,
    stdout: Buffer.from("ran"),
    stderr: Buffer.alloc(0),
    timedOut: false,
  }),
} as unknown as ContainerRuntime;

/** What a user of that name may do; `viewer` only reads, `operator` may do all of it. */
const users: Readonly<Record<string, readonly string[]>> = {
  nobody: [],
  viewer: ["get"],
  creator: ["create"],
  operator: ["create", "get"],
};
const resources = [
  "nodes/proxy",
  "pods/attach",
  "pods/exec",
  "pods/log",
  "pods/portforward",
  "pods/proxy",
];

type Way = "WebSocket" | "SPDY" | "GET" | "POST";

/** Headers and method of a way to ask. */
const ways: Readonly<
  Record<Way, { readonly method: string; readonly headers: Readonly<Record<string, string>> }>
> = {
  WebSocket: {
    method: "GET",
    headers: {
      connection: "Upgrade",
      upgrade: "websocket",
      "sec-websocket-version": "13",
      "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
      "sec-websocket-protocol": "v4.channel.k8s.io",
    },
  },
  SPDY: {
    method: "POST",
    headers: {
      connection: "Upgrade",
      upgrade: "SPDY/3.1",
      "x-stream-protocol-version": "v4.channel.k8s.io",
    },
  },
  GET: { method: "GET", headers: {} },
  POST: { method: "POST", headers: {} },
};

const proxied = "/api/v1/nodes/n1/proxy";
const pod = "/api/v1/namespaces/ns/pods/web";

/** Path, way, and the status that each user gets. */
const table: readonly (readonly [
  path: string,
  way: Way,
  expected: Readonly<Record<string, number>>,
])[] = [
  ...["exec", "%65xec", "/exec", "attach"].map(
    (spelling) =>
      [
        `${proxied}/${spelling}/ns/web/c?command=true&output=1`,
        "WebSocket",
        // A path with an empty part names nothing, but that too is for those to learn who may.
        { viewer: 403, creator: 403, operator: spelling.startsWith("/") ? 404 : 101 },
      ] as const,
  ),
  [`${proxied}/exec/ns/web/c?command=true&output=1`, "SPDY", { viewer: 403, operator: 101 }],
  [`${proxied}/attach/ns/web/uid-1/c?output=1`, "SPDY", { viewer: 403, operator: 101 }],
  [`${proxied}/exec/ns/web/c?command=true&output=1`, "GET", { viewer: 400, operator: 400 }],
  [`${proxied}/portForward/ns/web`, "WebSocket", { viewer: 403, creator: 403 }],
  [`${proxied}/portForward/ns/web`, "GET", { viewer: 400, operator: 400 }],
  [`${proxied}/run/ns/web/c?cmd=true`, "GET", { viewer: 405, creator: 403, operator: 405 }],
  [`${proxied}/run/ns/web/c?cmd=true`, "WebSocket", { viewer: 403, operator: 405 }],
  [`${proxied}/run/ns/web/c?cmd=true`, "POST", { viewer: 403, creator: 200, operator: 200 }],
  [`${proxied}/pods`, "GET", { viewer: 200, creator: 403, operator: 200 }],
  [`${proxied}/pods`, "WebSocket", { viewer: 403, operator: 200 }],
  [
    `${pod}/exec?command=true&stdout=true`,
    "WebSocket",
    { viewer: 403, creator: 403, operator: 101 },
  ],
  [`${pod}/exec?command=true&stdout=true`, "SPDY", { viewer: 403, creator: 101, operator: 101 }],
  [`${pod}/attach?stdout=true`, "WebSocket", { viewer: 403, creator: 403, operator: 101 }],
  [`${pod}/attach?stdout=true`, "SPDY", { viewer: 403, creator: 101 }],
  [`${pod}/portforward`, "WebSocket", { viewer: 403, creator: 403 }],
  [`${pod}/portforward`, "SPDY", { viewer: 403 }],
];

interface Answer {
  readonly status: number;
  readonly body: string;
}

describe("reaching into pods through the API server", () => {
  const node = new NodeUnderTest();
  const { signal } = new AbortController();
  let world: World;
  let nodeClient: HttpClient;
  let admin: { readonly cert: string; readonly key: string };

  const create = async (path: string, body: object): Promise<unknown> =>
    world.client.request({ method: "POST", path, body, signal });

  before(async () => {
    world = await startWorld();
    const { files } = world.controlPlane;
    const read = async (path: string): Promise<string> => readFile(path, "utf8");
    const { user } = await loadKubeconfig(files.adminKubeconfig);
    assert(user.clientCertificate !== undefined && user.clientKey !== undefined);
    admin = { cert: await pemText(user.clientCertificate), key: await pemText(user.clientKey) };
    nodeClient = createHttpClient({
      kubeconfig: await loadKubeconfig(files.nodeKubeconfig),
      userAgent: "test",
      clock: systemClock,
      logger: silentLogger,
    });
    const serving = { cert: await read(files.kubeletCert), key: await read(files.kubeletKey) };
    await node.start(
      {},
      {
        client: nodeClient,
        clientCA: await read(files.clientCA),
        tls: { current: () => serving, onChange: () => () => undefined },
        runtime,
      },
    );
    await create("/api/v1/nodes", { metadata: { name: "n1" } });
    await world.client.request({
      method: "PATCH",
      path: "/api/v1/nodes/n1/status",
      contentType: "application/merge-patch+json",
      body: {
        status: {
          addresses: [{ type: "InternalIP", address: "127.0.0.1" }],
          daemonEndpoints: { kubeletEndpoint: { Port: node.port } },
        },
      },
      signal,
    });
    await create("/api/v1/namespaces", { metadata: { name: "ns" } });
    const spec = { nodeName: "n1", containers: [{ name: "c", image: "i" }] };
    // Pods are taken as soon as their namespace has its service account.
    await eventually("the pod", async () =>
      create("/api/v1/namespaces/ns/pods", { metadata: { name: "web" }, spec }).catch(
        () => undefined,
      ),
    );
    for (const [name, verbs] of Object.entries(users)) {
      if (verbs.length === 0) continue;
      const rbac = "/apis/rbac.authorization.k8s.io/v1";
      const rules = [{ apiGroups: [""], resources, verbs }];
      await create(`${rbac}/clusterroles`, { metadata: { name }, rules });
      await create(`${rbac}/clusterrolebindings`, {
        metadata: { name },
        roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name },
        subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name }],
      });
    }
  });

  after(async () => {
    await node.stop();
    await nodeClient.close();
    await world.close();
  });

  async function ask(user: string, path: string, way: Way): Promise<Answer> {
    const { headers, method } = ways[way];
    const outgoing = request({
      host: "127.0.0.1",
      port: world.controlPlane.port,
      path,
      method,
      headers: { ...headers, "impersonate-user": user },
      ...admin,
      agent: false,
      rejectUnauthorized: false,
    });
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    outgoing.on("error", reject);
    outgoing.on("upgrade", (response, socket) => {
      socket.destroy();
      resolve({ status: response.statusCode ?? 0, body: "" });
    });
    outgoing.on("response", (response: IncomingMessage) => {
      const status = response.statusCode ?? 0;
      text(response).then((body) => resolve({ status, body }), reject);
    });
    outgoing.end();
    return promise;
  }

  for (const [path, way, expected] of table) {
    for (const [user, status] of Object.entries({ nobody: 403, ...expected })) {
      test(`${user}, ${way} ${path}: ${status}`, async () => {
        const answer = await ask(user, path, way);
        assert.equal(answer.status, status, answer.body);
        if (status !== 403) return;
        const verb = way === "SPDY" || way === "POST" ? "create" : "(get|create)";
        assert.match(answer.body, new RegExp(`cannot ${verb} resource`));
      });
    }
  }

  test("who may only read a node is told that it takes create to open a stream", async () => {
    const path = `${proxied}/exec/ns/web/c?command=true&output=1`;
    const { body } = await ask("viewer", path, "WebSocket");
    const status = JSON.parse(body) as { readonly message: string };
    assert.equal(
      status.message,
      'nodes "n1" is forbidden: User "viewer" cannot create resource "nodes/proxy" in API group "" at the cluster scope',
    );
  });
});
