// Each finding about the cluster, by API servers that really answer so.
import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer as createHttpServer, type Server } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import { join } from "node:path";
import { describe, it } from "node:test";

import { api, certificates } from "../../../src/agent/doctor/checks/api.ts";
import { clockCheck, startTime } from "../../../src/agent/doctor/checks/clock.ts";
import { nodeObject, reversePath } from "../../../src/agent/doctor/checks/node.ts";
import { permissions } from "../../../src/agent/doctor/checks/permissions.ts";
import type { Check } from "../../../src/agent/doctor/check.ts";
import type { Identity, Site } from "../../../src/agent/doctor/site.ts";
import { isRecord } from "../../../src/lib/guard.ts";
import {
  certificate,
  certificateAuthority,
  newPrivateKey,
  privateKeyPEM,
} from "../../../src/lib/x509.ts";
import { inTemporary } from "../../fakes/temporary.ts";
import { healthy, look, makeMachine } from "./made-machine.ts";

interface Reply {
  readonly status: number;
  readonly body: unknown;
  readonly date?: Date;
}

interface Asked {
  readonly method: string;
  readonly path: string;
  readonly body: unknown;
}

type Script = (asked: Asked) => Reply | "hang";

const goodVersion: Reply = { status: 200, body: { gitVersion: "v1.36.2" } };

async function withApi(
  script: Script,
  work: (url: string) => Promise<void>,
  tls?: { readonly cert: string; readonly key: string },
): Promise<void> {
  const answer: Parameters<typeof createHttpServer>[1] = (request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const text = Buffer.concat(chunks).toString();
      const body: unknown = text === "" ? undefined : JSON.parse(text);
      const reply = script({ method: request.method ?? "", path: request.url ?? "", body });
      if (reply === "hang") return;
      if (reply.date !== undefined) response.setHeader("Date", reply.date.toUTCString());
      const isText = typeof reply.body === "string";
      response.writeHead(reply.status, {
        "Content-Type": isText ? "text/plain" : "application/json",
      });
      response.end(isText ? reply.body : JSON.stringify(reply.body));
    });
  };
  const server: Server =
    tls === undefined ? createHttpServer(answer) : createHttpsServer(tls, answer);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const bound = server.address();
  assert.ok(bound !== null && typeof bound === "object");
  try {
    await work(`${tls === undefined ? "http" : "https"}://127.0.0.1:${bound.port}`);
  } finally {
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  }
}

function kubeconfigText(
  server: string,
  options: { readonly ca?: string; readonly cert?: string; readonly key?: string } = {},
): string {
  const data = (pem: string): string => Buffer.from(pem).toString("base64");
  const { ca, cert, key } = options;
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    "current-context": "c",
    contexts: [{ name: "c", context: { cluster: "k", user: "u" } }],
    clusters: [
      {
        name: "k",
        cluster: {
          server,
          ...(ca === undefined ? {} : { "certificate-authority-data": data(ca) }),
        },
      },
    ],
    users: [
      {
        name: "u",
        user:
          cert === undefined || key === undefined
            ? {}
            : { "client-certificate-data": data(cert), "client-key-data": data(key) },
      },
    ],
  });
}

interface Options {
  readonly identities?: readonly Identity["name"][];
  readonly site?: Partial<Site>;
  readonly now?: number;
  readonly kubeconfig?: Parameters<typeof kubeconfigText>[1];
  readonly programs?: Readonly<Record<string, string>>;
  readonly files?: Readonly<Record<string, string>>;
}

/** Looks at the cluster behind `url` with the identities of a node. */
async function lookAt(check: Check, url: string, options: Options = {}): ReturnType<typeof look> {
  let said: Awaited<ReturnType<typeof look>> | undefined;
  await inTemporary(async (root) => {
    const file = join(root, "node.conf");
    await writeFile(file, kubeconfigText(url, options.kubeconfig));
    const names = options.identities ?? ["node", "proxy"];
    const machine = await makeMachine(
      root,
      { ...healthy, ...options.files },
      {
        site: {
          identities: names.map((name) => ({ name, kubeconfig: file })),
          ...options.site,
        },
        patienceMs: 300,
        ...(options.now === undefined ? {} : { now: options.now }),
        ...(options.programs === undefined ? {} : { programs: options.programs }),
      },
    );
    said = await look(check, machine);
  });
  assert.ok(said !== undefined);
  return said;
}

async function lookThrough(
  check: Check,
  script: Script,
  options: Options = {},
): ReturnType<typeof look> {
  let said: Awaited<ReturnType<typeof look>> | undefined;
  await withApi(script, async (url) => {
    said = await lookAt(check, url, options);
  });
  assert.ok(said !== undefined);
  return said;
}

describe("what is wrong with the API server", () => {
  const cases: readonly (readonly [string, Script])[] = [
    ["api-unauthorized", () => ({ status: 401, body: {} })],
    ["api-failing", () => ({ status: 503, body: {} })],
    ["api-unreachable", () => "hang"],
    ["api-skew", () => ({ status: 200, body: { gitVersion: "v1.35.9" } })],
    ["api-skew", () => ({ status: 200, body: { gitVersion: "v1.40.0" } })],
  ];
  for (const [problem, script] of cases) {
    it(problem, async () => {
      const said = await lookThrough(api, script);
      assert.deepEqual([...new Set(said.problems)], [problem], said.text);
    });
  }

  it("one that answers, of three versions on, is fine; without credentials there is nothing to ask", async () => {
    const said = await lookThrough(api, () => ({ status: 200, body: { gitVersion: "v1.39.0" } }));
    assert.deepEqual([said.status, said.problems], ["ok", []], said.text);
    assert.equal((await lookAt(api, "http://127.0.0.1:1", { identities: [] })).status, "skipped");
  });

  it("api-refused: nobody listens there", async () => {
    assert.deepEqual((await lookAt(api, "http://127.0.0.1:1")).problems, ["api-refused"]);
  });

  it("api-name: a name that nobody knows", async () => {
    const { problems, text } = await lookAt(api, "https://control-plane.invalid:6443");
    assert.deepEqual(problems, ["api-name"], text);
  });

  it("api-kubeconfig: a file that is damaged", async () => {
    await inTemporary(async (root) => {
      const kubeconfig = join(root, "node.conf");
      await writeFile(kubeconfig, "clusters: [");
      const site = { identities: [{ name: "node", kubeconfig }] } as const;
      const said = await look(api, await makeMachine(root, healthy, { site }));
      assert.deepEqual(said.problems, ["api-kubeconfig"], said.text);
    });
  });
});

const dayMs = 86_400_000;
const start = Date.UTC(2026, 0, 10);

/** A cluster's authority, and certificates that it issued. */
function madePki() {
  const key = newPrivateKey();
  const issuer = { name: { commonName: "cluster-ca" }, privateKey: key };
  const life = { notBefore: start - 400 * dayMs, notAfter: start + 4000 * dayMs };
  return {
    ca: certificateAuthority(issuer.name, key, life),
    pair: (notBefore: number, notAfter: number) => {
      const own = newPrivateKey();
      const subject = { commonName: "system:node:here", organizations: ["system:nodes"] };
      const request = {
        subject,
        alternativeNames: ["127.0.0.1"],
        usages: ["server", "client"],
        notBefore,
        notAfter,
      } as const;
      return { cert: certificate(request, own, issuer), key: privateKeyPEM(own) };
    },
  };
}

describe("what is wrong with certificates", () => {
  const pki = madePki();
  const server = pki.pair(Date.now() - dayMs, Date.now() + 300 * dayMs);

  async function judge(from: number, to: number, now: number): ReturnType<typeof look> {
    let said: Awaited<ReturnType<typeof look>> | undefined;
    await withApi(
      () => goodVersion,
      async (url) => {
        const kubeconfig = { ca: pki.ca, ...pki.pair(from, to) };
        said = await lookAt(certificates, url, { kubeconfig, now });
      },
      server,
    );
    assert.ok(said !== undefined);
    return said;
  }

  it("good ones are counted, with the first that expires", async () => {
    const now = Date.now();
    const said = await judge(now - 10 * dayMs, now + 200 * dayMs, now);
    assert.deepEqual(said.problems, [], said.text);
    assert.match(said.text, /^3, the first one expires at /);
  });

  it("certificate-expired, certificate-early and certificate-ending", async () => {
    const now = Date.now();
    const expired = await judge(now - 365 * dayMs, now - dayMs, now);
    assert.deepEqual(expired.problems, ["certificate-expired"]);
    assert.match(expired.text, /system:node:here\) expired at /);
    const early = await judge(now + dayMs, now + 365 * dayMs, now);
    assert.deepEqual(early.problems, ["certificate-early"], early.text);
    const ending = await judge(now - 360 * dayMs, now + 5 * dayMs, now);
    assert.deepEqual(ending.problems, ["certificate-ending"], ending.text);
  });

  it("api-tls: a server that another authority signed", async () => {
    const other = madePki();
    await withApi(
      () => goodVersion,
      async (url) => {
        const said = await lookAt(api, url, { kubeconfig: { ca: other.ca } });
        assert.deepEqual(said.problems, ["api-tls"], said.text);
        assert.match(said.text, /certificate-authority did not sign/);
      },
      server,
    );
  });
});

describe("what is wrong with the clock", () => {
  const now = Date.UTC(2026, 5, 1, 12);
  const at =
    (ms: number): Script =>
    () => ({ ...goodVersion, date: new Date(ms) });

  it("one that goes with the API server's is fine", async () => {
    const said = await lookThrough(clockCheck, at(now), { now });
    assert.deepEqual(said.problems, [], said.text);
    assert.match(said.text, /^2026-06-01T12:00:00\.000Z, \d s from the API server's$/);
  });

  it("clock-wrong and clock-skewed, with the direction", async () => {
    const wrong = await lookThrough(clockCheck, at(now - 3_600_000), { now });
    assert.deepEqual(wrong.problems, ["clock-wrong"]);
    assert.match(wrong.text, /60 min ahead of the API server's/);
    const skewed = await lookThrough(clockCheck, at(now + 9000), { now });
    assert.deepEqual(skewed.problems, ["clock-skewed"]);
    assert.match(skewed.text, /10 s behind|9 s behind/);
  });

  it("clock-unset: a board without a battery", async () => {
    const early = Date.UTC(1970, 0, 1, 0, 5);
    const said = await lookThrough(clockCheck, at(early), { now: early });
    assert.deepEqual(said.problems, ["clock-unset"]);
  });

  it("clock-not-synchronised: what timedatectl says", () => {
    const facts = { own: now, skewMs: undefined, jumpMs: undefined, synchronised: false };
    const said = clockCheck.judge(facts);
    assert.deepEqual(said.kind === "judged" && said.findings.map(({ problem }) => problem), [
      "clock-not-synchronised",
    ]);
  });

  it("clock-jumped: the agent's start by the wall clock and by the kernel's", () => {
    // Started 100 s after boot, 900 s ago.
    const stat = `812 (a b) c) S 1 ${Array.from({ length: 17 }, () => "0").join(" ")} 10000 0 0`;
    assert.equal(startTime(stat, "1000.00 900.00", now), now - 900_000);
    assert.equal(startTime("", "1000.00", now), undefined);
    const facts = { own: now, skewMs: undefined, synchronised: true };
    const problemsOf = (jumpMs: number): readonly string[] => {
      const said = clockCheck.judge({ ...facts, jumpMs });
      return said.kind === "judged" ? said.findings.map(({ problem }) => problem) : [];
    };
    assert.deepEqual(problemsOf(7_200_000), ["clock-jumped"]);
    assert.deepEqual(problemsOf(-500), []);
  });
});

/** A server that reviews access: what is in `refused` is not allowed. */
function reviewing(user: string, refused: readonly string[]): Script {
  return ({ path, body }) => {
    const spec: unknown = isRecord(body) ? body["spec"] : undefined;
    if (path.endsWith("/selfsubjectreviews")) {
      return { status: 201, body: { status: { userInfo: { username: user } } } };
    }
    const asked: unknown = isRecord(spec) ? spec["resourceAttributes"] : undefined;
    assert.ok(path.endsWith("/selfsubjectaccessreviews") && isRecord(asked), path);
    const right = `${String(asked["verb"])} ${String(asked["resource"])}`;
    // A node may ask for its own pods, and says so.
    const selector = JSON.stringify(asked["fieldSelector"] ?? null);
    const tooMuch = /^(list|watch) pods$/.test(right) && !/"spec.nodeName".*"here"/.test(selector);
    const allowed = !refused.includes(right) && !tooMuch;
    return { status: 201, body: { status: { allowed } } };
  };
}

describe("what the identities may not do", () => {
  it("all that is needed is fine", async () => {
    const said = await lookThrough(permissions, reviewing("system:node:here", []));
    assert.deepEqual([said.status, said.text], ["ok", "system:node:here, system:node:here"]);
  });

  it("node-rights-missing names what is missing", async () => {
    const refused = reviewing("somebody", ["patch nodes", "create leases"]);
    const said = await lookThrough(permissions, refused, { identities: ["node"] });
    assert.deepEqual(said.problems, ["node-rights-missing"]);
    assert.match(
      said.text,
      /\(somebody\) may not: patch nodes\/status, create leases\.coordination\.k8s\.io$/,
    );
  });

  it("proxy-rights-missing: a node's own identity, and one by itself", async () => {
    const node = reviewing("system:node:here", ["list endpointslices", "watch endpointslices"]);
    const said = await lookThrough(permissions, node, { identities: ["proxy"] });
    assert.deepEqual(said.problems, ["proxy-rights-missing"]);
    assert.match(said.remedies[0] ?? "", /--group=system:nodes$/);
    const other = reviewing("system:serviceaccount:kube-system:proxy", ["list services"]);
    const own = await lookThrough(permissions, other, { identities: ["proxy"] });
    assert.match(own.remedies[0] ?? "", /--user=system:serviceaccount:kube-system:proxy$/);
  });

  it("node-name-other: credentials of another node", async () => {
    const said = await lookThrough(permissions, reviewing("system:node:there", ["get nodes"]), {
      identities: ["node"],
    });
    assert.deepEqual(said.problems, ["node-name-other"]);
    assert.deepEqual(said.remedies, ["remora run --hostname-override there"]);
  });

  it("a server that is not there leaves it open", async () => {
    assert.equal((await lookAt(permissions, "http://127.0.0.1:1")).status, "unknown");
  });
});

const readyNode = {
  metadata: { name: "here" },
  spec: { podCIDR: "10.244.0.0/24" },
  status: { conditions: [{ type: "Ready", status: "True", reason: "KubeletReady", message: "" }] },
};

describe("what is wrong with the Node", () => {
  const answering =
    (node: object): Script =>
    () => ({ status: 200, body: { ...readyNode, ...node } });
  const conditions = (...list: readonly object[]): object => ({ status: { conditions: list } });
  const cases: readonly (readonly [string, Script])[] = [
    [
      "node-missing",
      () => ({
        status: 404,
        body: { kind: "Status", reason: "NotFound", message: "no", code: 404 },
      }),
    ],
    [
      "node-not-ready",
      answering(
        conditions({
          type: "Ready",
          status: "False",
          reason: "KubeletNotReady",
          message: "no network",
        }),
      ),
    ],
    [
      "node-pressure",
      answering(
        conditions({
          type: "DiskPressure",
          status: "True",
          reason: "KubeletHasDiskPressure",
          message: "",
        }),
      ),
    ],
    ["node-cordoned", answering({ spec: { ...readyNode.spec, unschedulable: true } })],
    ["node-no-pod-cidr", answering({ spec: {} })],
  ];
  for (const [problem, script] of cases) {
    it(problem, async () => {
      const said = await lookThrough(nodeObject, script);
      assert.deepEqual(said.problems, [problem], said.text);
    });
  }

  it("one that is Ready is fine", async () => {
    assert.deepEqual((await lookThrough(nodeObject, answering({}))).problems, []);
  });
});

describe("the way back from the API server", () => {
  const failing =
    (message: string, status = 500): Script =>
    () => ({ status, body: { kind: "Status", status: "Failure", message, code: status } });
  const dial = "error trying to reach service: dial tcp 192.0.2.7:10250: ";
  const cases: readonly (readonly [string, Script])[] = [
    ["reverse-timeout", failing(`${dial}i/o timeout`)],
    ["reverse-timeout", failing(`${dial}connect: no route to host`)],
    ["reverse-refused", failing(`${dial}connect: connection refused`)],
    [
      "reverse-tls",
      failing("tls: failed to verify certificate: x509: certificate signed by unknown authority"),
    ],
    ["reverse-unauthorized", () => ({ status: 401, body: "Unauthorized" })],
    ["reverse-failed", failing("no preferred addresses found; known addresses: []")],
  ];
  for (const [problem, script] of cases) {
    it(`${problem} names the blocker`, async () => {
      const said = await lookThrough(reversePath, script, {
        identities: ["node", "administrator"],
      });
      assert.deepEqual(said.problems, [problem], said.text);
    });
  }

  it("one that is free is fine, and who may not ask learns how to", async () => {
    const free = await lookThrough(reversePath, () => ({ status: 200, body: "ok" }));
    assert.deepEqual([free.status, free.text], ["ok", "the API server reaches port 10250"]);
    const forbidden = failing(
      'nodes "here" is forbidden: User "system:node:here" cannot get resource "nodes/proxy"',
      403,
    );
    const said = await lookThrough(reversePath, forbidden);
    assert.deepEqual(
      [said.status, said.text],
      ["skipped", "nobody but an administrator may ask: give --kubeconfig"],
    );
  });
});
