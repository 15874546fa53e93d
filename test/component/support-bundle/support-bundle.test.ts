// Secrets are planted wherever a bundle looks, and must be nowhere in it.
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer, type RequestListener, type Server } from "node:http";
import { join } from "node:path";
import { describe, it } from "node:test";
import { gunzipSync } from "node:zlib";

import * as fc from "fast-check";

import type { DoctorReport } from "../../../src/agent/doctor/report.ts";
import { archive, type BundleFile } from "../../../src/agent/support-bundle/archive.ts";
import { collectBundle } from "../../../src/agent/support-bundle/collect.ts";
import { sources } from "../../../src/agent/support-bundle/sources.ts";
import { newPrivateKey, privateKeyPEM } from "../../../src/lib/x509.ts";
import { inTemporary } from "../../fakes/temporary.ts";
import { healthy, makeMachine, never } from "../doctor/made-machine.ts";
import { FakeEngine } from "../runtime/fake-engine.ts";

async function listen(server: Server, path?: string): Promise<string> {
  if (path === undefined) server.listen(0, "127.0.0.1");
  else server.listen(path);
  await once(server, "listening");
  const bound = server.address();
  return bound !== null && typeof bound === "object" ? `127.0.0.1:${bound.port}` : "";
}

async function withServers(
  answers: {
    readonly api: RequestListener;
    readonly metrics: RequestListener;
    readonly local: RequestListener;
  },
  socket: string,
  work: (addresses: { readonly api: string; readonly metrics: string }) => Promise<void>,
): Promise<void> {
  const servers = [answers.api, answers.metrics, answers.local].map((answer) =>
    createServer(answer),
  );
  try {
    const [api, metrics, local] = servers;
    assert.ok(api !== undefined && metrics !== undefined && local !== undefined);
    await listen(local, socket);
    await work({ api: `http://${await listen(api)}`, metrics: await listen(metrics) });
  } finally {
    for (const server of servers) {
      server.closeAllConnections();
      server.close();
    }
  }
}

function answering(text: (path: string) => string): RequestListener {
  return (request, response) => {
    response.writeHead(200, { "Content-Type": "application/json" });
    response.end(text(request.url ?? ""));
  };
}

/** One secret for each place that it may be in. Those below `told` are told again by others. */
interface Secrets {
  readonly kubeconfigToken: string;
  readonly privateKey: string;
  readonly bootstrapToken: string;
  readonly dockerAuth: string;
  readonly proxyPassword: string;
  readonly environment: string;
  readonly podSecretEnv: string;
  readonly podPlainEnv: string;
  readonly podArgument: string;
  readonly podHeader: string;
  /** Came from a Secret, and is in no object that is asked for. */
  readonly containerEnv: string;
  readonly annotation: string;
  readonly engineLabel: string;
  readonly containerLabel: string;
  readonly configHeader: string;
  readonly configPassword: string;
  readonly unitEnvironment: string;
  readonly flagPassword: string;
  readonly caKey: string;
  /** Of others, who are told of in logs only. */
  readonly logged: string;
}

/** What a log may tell of a secret that nobody here knows, each with a form by which it is recognised. */
function loggedForms(secret: string): readonly string[] {
  return [
    `{"level":"error","password":${JSON.stringify(secret)}}`,
    `request failed: Authorization: Bearer ${secret}`,
    `pull from https://someone:${secret}@registry.example.com/v2/ failed`,
    `level=error token=${secret} msg=refused`,
    `started helper --client-secret ${secret} --verbose`,
  ];
}

function podOf(secrets: Secrets): object {
  return {
    metadata: {
      name: "web",
      namespace: "default",
      uid: "u1",
      resourceVersion: "6",
      annotations: { "example.com/any": secrets.annotation },
    },
    spec: {
      nodeName: "here",
      containers: [
        {
          name: "main",
          image: "web:1",
          command: ["run", "--key", secrets.podArgument],
          args: [secrets.podArgument],
          env: [
            { name: "DB_PASSWORD", value: secrets.podSecretEnv },
            { name: "GREETING", value: secrets.podPlainEnv },
          ],
          livenessProbe: {
            exec: { command: ["check", secrets.podArgument] },
            httpGet: { port: 80, httpHeaders: [{ name: "X-Any", value: secrets.podHeader }] },
          },
          lifecycle: { preStop: { exec: { command: ["stop", secrets.podArgument] } } },
        },
      ],
      volumes: [{ name: "tls", secret: { secretName: "web-tls" } }],
    },
    status: {
      phase: "Running",
      message: `exited: cannot log in with ${secrets.podSecretEnv} or ${secrets.containerEnv}`,
    },
  };
}

/** The bundle of a machine in which all of them are. */
async function bundleOf(secrets: Secrets): Promise<readonly BundleFile[]> {
  let bundle: readonly BundleFile[] | undefined;
  await inTemporary(async (root) => {
    await using engine = await FakeEngine.start();
    const inspected = { Config: { Env: [`SESSION_TOKEN=${secrets.containerEnv}`, "PATH=/bin"] } };
    engine.answer = ({ path }) => ({
      status: 200,
      json: path.startsWith("/containers/c1/")
        ? inspected
        : path === "/info"
          ? {
              Driver: "overlay2",
              HttpProxy: `http://proxy:${encodeURIComponent(secrets.proxyPassword)}@10.0.0.1:3128`,
              Labels: [`any=${secrets.engineLabel}`],
            }
          : [
              {
                Id: "c1",
                Names: ["/k8s_main_web"],
                Command: `run ${secrets.podArgument}`,
                Labels: {
                  "io.kubernetes.pod.name": "web",
                  "annotation.any": secrets.containerLabel,
                },
              },
            ],
    });
    await mkdir(join(root, "state"));
    const everything = [
      ...Object.entries(secrets).flatMap(([key, value]) =>
        key === "logged" ? loggedForms(String(value)) : [],
      ),
      `dialling with ${secrets.kubeconfigToken} and ${secrets.bootstrapToken}`,
      `key: ${JSON.stringify(secrets.caKey)}`,
      secrets.privateKey,
      `docker said ${secrets.dockerAuth}; proxy ${secrets.proxyPassword}; ${secrets.environment}`,
      `${secrets.configHeader} ${secrets.configPassword} ${secrets.flagPassword}`,
    ].join("\n");
    const report = {
      schema: 1,
      checks: [],
      summary: { ok: 0, warning: 0, error: 0, skipped: 0, unknown: 0 },
      node: `here ${secrets.kubeconfigToken}`,
    } as unknown as DoctorReport;
    const data = (text: string): string => Buffer.from(text).toString("base64");
    await withServers(
      {
        api: answering((path) =>
          path.includes("/pods")
            ? JSON.stringify({
                kind: "PodList",
                metadata: { resourceVersion: "7" },
                items: [podOf(secrets)],
              })
            : JSON.stringify({
                metadata: { name: "here", annotations: { any: secrets.annotation } },
                status: { conditions: [{ type: "Ready", message: secrets.kubeconfigToken }] },
              }),
        ),
        metrics: answering(() => `some_total{error=${JSON.stringify(everything)}} 1\n`),
        local: answering(() =>
          JSON.stringify({
            schema: 1,
            agent: {},
            node: {},
            services: {},
            usage: {},
            pods: [{ name: "web", why: `no: ${secrets.podSecretEnv}` }],
            pulls: [],
            events: [{ message: everything }],
          }),
        ),
      },
      join(root, "state", "local.sock"),
      async ({ api, metrics }) => {
        const kubeconfig = join(root, "node.conf");
        await writeFile(
          kubeconfig,
          JSON.stringify({
            "current-context": "c",
            contexts: [{ name: "c", context: { cluster: "k", user: "u" } }],
            clusters: [{ name: "k", cluster: { server: api } }],
            users: [
              { name: "u", user: { token: secrets.kubeconfigToken } },
              { name: "other", user: { "client-key-data": data(secrets.privateKey) } },
            ],
          }),
        );
        const machine = await makeMachine(
          root,
          {
            ...healthy,
            "etc/remora/config.yaml": [
              "kind: KubeletConfiguration",
              `staticPodURLHeader: {"X-Any": [${JSON.stringify(secrets.configHeader)}]}`,
              `somePassword: ${JSON.stringify(secrets.configPassword)}`,
            ].join("\n"),
            "etc/remora/remora.env": `REMORA_FLAGS="--node-ip 10.0.0.1 --token ${secrets.bootstrapToken}"\n`,
            "etc/docker/daemon.json": JSON.stringify({
              proxies: {
                "http-proxy": `http://p:${encodeURIComponent(secrets.proxyPassword)}@h:1`,
              },
            }),
            "proc/812/comm": "remora\n",
            "proc/812/cmdline": `remora\0run\0--password\0${secrets.flagPassword}\0--token=${secrets.bootstrapToken}\0`,
            "proc/812/environ": `HOME=/\0MY_SECRET=${secrets.environment}\0HTTPS_PROXY=http://p:${secrets.proxyPassword}@h:1\0`,
            "state/control-plane/pki/ca.key": secrets.caKey,
            "state/remora.json": '{"schema":1,"mode":"run","version":"0.1.0"}',
            "root/.docker/config.json": JSON.stringify({
              auths: { "registry.example.com": { auth: data(`user:${secrets.dockerAuth}`) } },
            }),
          },
          {
            site: {
              pid: 812,
              mode: "run",
              stateDir: "/state",
              rootDir: "/state",
              dockerSocket: engine.socketPath,
              metricsAddress: metrics,
              identities: [{ name: "node", kubeconfig }],
            },
            programs: {
              journalctl: everything,
              systemctl: `[Service]\nEnvironment=ANY=${secrets.unitEnvironment}\nExecStart=/usr/bin/remora run --token ${secrets.bootstrapToken}\n`,
              nft: `table ip any {\n comment ${JSON.stringify(secrets.kubeconfigToken)}\n}\n`,
              "iptables-save": `-A FORWARD -m comment --comment ${JSON.stringify(secrets.dockerAuth)}\n`,
              ip: "1: lo\n",
              ss: "LISTEN\n",
              df: "/dev/vda1\n",
            },
          },
        );
        bundle = await collectBundle(sources, machine, report, never);
      },
    );
  });
  assert.ok(bundle !== undefined);
  return bundle;
}

const word = fc
  .stringMatching(/^[A-Za-z0-9_.~+=!$%^*()-]{12,40}$/)
  .filter((text) => !text.startsWith("-"));
/** With what has a meaning in JSON, in shells and in addresses. */
const wild = fc
  .array(
    fc.oneof(
      fc.stringMatching(/^[A-Za-z0-9]{3,6}$/),
      fc.constantFrom('"', "'", "\\", "@", "/", ":", "{", "ü"),
    ),
    {
      minLength: 6,
      maxLength: 12,
    },
  )
  .map((parts) => `S${parts.join("")}9`);

const anySecrets: fc.Arbitrary<Secrets> = fc.record({
  kubeconfigToken: wild.map((text) => text.replaceAll(/[^\u0021-\u007e]/g, "x")),
  privateKey: fc.constant(0).map(() => privateKeyPEM(newPrivateKey())),
  bootstrapToken: fc.stringMatching(/^[a-z0-9]{6}\.[a-z0-9]{16}$/),
  dockerAuth: wild,
  proxyPassword: word.map((text) => text.replaceAll(/[%]/g, "x")),
  environment: wild,
  podSecretEnv: wild,
  podPlainEnv: wild,
  podArgument: wild,
  podHeader: wild,
  containerEnv: wild,
  annotation: wild,
  engineLabel: wild,
  containerLabel: wild,
  configHeader: wild,
  configPassword: wild,
  unitEnvironment: word,
  flagPassword: wild,
  caKey: fc.constant(0).map(() => privateKeyPEM(newPrivateKey())),
  logged: fc.stringMatching(/^[A-Za-z0-9_.~+-]{12,40}$/).filter((text) => !text.startsWith("-")),
});

function assertAbsent(where: string, secret: string, name: string): void {
  const lines = secret.split("\n").filter((line) => line.length >= 16 && !line.startsWith("-----"));
  for (const part of secret.includes("\n") ? lines : [secret]) {
    for (const form of [
      part,
      JSON.stringify(part).slice(1, -1),
      Buffer.from(part).toString("base64").replace(/=+$/, ""),
    ]) {
      const at = where.indexOf(form);
      assert.equal(at, -1, `${name} ${form}: ${where.slice(Math.max(0, at - 200), at + 100)}`);
    }
  }
}

describe("a support bundle", () => {
  it("has none of the secrets that are planted in all that it looks at", async () => {
    await fc.assert(
      fc.asyncProperty(anySecrets, async (secrets) => {
        const files = await bundleOf(secrets);
        for (const { name, text } of files) {
          // What was taken out leaves the rest as it was.
          if (name.endsWith(".json")) assert.doesNotThrow(() => JSON.parse(text), text);
        }
        const bundle = await archive(files);
        const text = gunzipSync(bundle).toString("utf8");
        assert.doesNotMatch(text.slice(0, 4096), /left out: .*/);
        for (const [name, secret] of Object.entries(secrets)) {
          assertAbsent(bundle.toString("latin1"), String(secret), name);
          assertAbsent(text, String(secret), name);
        }
        // It is not empty for that.
        for (const part of ["pods.json", "k8s_main_web", "web-tls", "GREETING", "some_total"]) {
          assert.ok(text.includes(part), part);
        }
      }),
      { numRuns: 20, endOnFailure: true },
    );
  });

  it("says what it left out and why, and is whole where nothing answers", async () => {
    await inTemporary(async (root) => {
      const machine = await makeMachine(root, healthy);
      const report = { checks: [], summary: {}, node: "here" } as unknown as DoctorReport;
      const files = await collectBundle(sources, machine, report, never);
      const [first] = files;
      assert.equal(first?.name, "README.txt");
      assert.match(first.text, /docker\/engine\.json +left out: .*ENOENT/);
      assert.match(first.text, /snapshot\.json +left out: there is none on this machine/);
      const names = new Set(files.map(({ name }) => name));
      for (const { name } of sources) assert.ok(first.text.includes(name), name);
      assert.ok(names.has("doctor.json") && names.has("machine/kernel.txt"));
    });
  });

  it("does not wait for a source that hangs, and keeps the end of a long log", async () => {
    await inTemporary(async (root) => {
      const machine = await makeMachine(root, healthy, {
        programs: { journalctl: `${"a line of a log\n".repeat(600_000)}the last line` },
      });
      const report = { checks: [], summary: {}, node: "here" } as unknown as DoctorReport;
      const failing = {
        name: "broken.txt",
        what: "nothing",
        keep: "head",
        guess: false,
        collect: () => Promise.reject(new Error("this disk is on fire")),
      } as const;
      const files = await collectBundle(
        [...sources.filter(({ name }) => name === "logs/agent.txt"), failing],
        machine,
        report,
        never,
      );
      const log = files.find(({ name }) => name === "logs/agent.txt");
      assert.match(log?.text ?? "", /^# \d+ characters are left out here\n/);
      assert.match(log?.text ?? "", /the last line\n$/);
      assert.match(files[0]?.text ?? "", /broken\.txt +left out: this disk is on fire/);
    });
  });
});
