import assert from "node:assert/strict";
import { describe, it } from "node:test";

import {
  mergeKubeconfig,
  removeFromKubeconfig,
  renderKubeconfig,
} from "../../../src/api/kubeconfig-write.ts";
import { parseKubeconfig } from "../../../src/api/kubeconfig.ts";
import { SetupError } from "../../../src/lib/errors.ts";

const pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const data = Buffer.from(pem).toString("base64");

interface Parts {
  readonly cluster?: string;
  readonly user?: string;
  readonly context?: string;
  readonly current?: string;
}

/** A kubeconfig with one of each; a part is YAML in flow style. */
function config({
  cluster = "server: https://10.0.0.1:6443",
  user = "token: t",
  context = "cluster: c, user: u",
  current = "x",
}: Parts = {}): string {
  return `apiVersion: v1
kind: Config
current-context: ${current}
clusters: [{name: c, cluster: {${cluster}}}]
contexts: [{name: x, context: {${context}}}]
users: [{name: u, user: {${user}}}]
`;
}

describe("kubeconfig", () => {
  it("resolves the current context", async () => {
    const kubeconfig = await parseKubeconfig(
      config({
        cluster: `server: "https://10.0.0.1:6443/", certificate-authority-data: ${data}, tls-server-name: kubernetes`,
        user: "client-certificate: pki/c.pem, client-key: /etc/k.pem, tokenFile: token",
        context: "cluster: c, user: u, namespace: shop",
      }),
      "/etc/remora/kubeconfig",
    );
    assert.deepEqual(kubeconfig, {
      path: "/etc/remora/kubeconfig",
      context: "x",
      namespace: "shop",
      cluster: {
        name: "c",
        server: "https://10.0.0.1:6443",
        ca: { kind: "data", pem },
        tlsServerName: "kubernetes",
        insecureSkipTLSVerify: false,
      },
      user: {
        name: "u",
        clientCertificate: { kind: "file", path: "/etc/remora/pki/c.pem" },
        clientKey: { kind: "file", path: "/etc/k.pem" },
        tokenFile: "/etc/remora/token",
      },
    });
  });

  it("reads a credential plug-in", async () => {
    const kubeconfig = await parseKubeconfig(
      config({
        user: "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./login, args: [-q], env: [{name: A, value: b}], interactiveMode: Never}",
      }),
      "/home/me/.kube/config",
    );
    assert.deepEqual(kubeconfig.user.exec, {
      apiVersion: "client.authentication.k8s.io/v1",
      command: "/home/me/.kube/login",
      args: ["-q"],
      env: { A: "b" },
      provideClusterInfo: false,
      installHint: "",
    });
  });

  const refusals: readonly (readonly [string, string, string])[] = [
    ["no YAML", "a: [", "kubeconfig F is not YAML: "],
    ["a list", "- a", "kubeconfig F does not hold an object"],
    ["another kind", "kind: Pod", "kubeconfig F: kind must be Config, not Pod"],
    ["nothing", "", "kubeconfig F: current-context is missing; set it to one of contexts"],
    [
      "an unknown context",
      config({ current: "y" }),
      'kubeconfig F: current-context "y" is not in contexts; set current-context to one of: x',
    ],
    [
      "an unknown cluster",
      config({ context: "cluster: d, user: u" }),
      'kubeconfig F: contexts[0].context.cluster "d" is not in clusters; add it or correct the name',
    ],
    [
      "an unknown user",
      config({ context: "cluster: c, user: w" }),
      'kubeconfig F: contexts[0].context.user "w" is not in users; add it or correct the name',
    ],
    ["no server", config({ cluster: "" }), "kubeconfig F: clusters[0].cluster.server is missing"],
    [
      "a server that is no URL",
      config({ cluster: "server: 10.0.0.1" }),
      'kubeconfig F: clusters[0].cluster.server "10.0.0.1" must be a URL',
    ],
    [
      "a proxy",
      config({ cluster: 'server: "https://a", proxy-url: "http://p"' }),
      "kubeconfig F: clusters[0].cluster.proxy-url is not supported",
    ],
    [
      "a CA that is no PEM",
      config({ cluster: 'server: "https://a", certificate-authority-data: AAAA' }),
      "kubeconfig F: clusters[0].cluster.certificate-authority-data must be base64 of PEM text",
    ],
    [
      "a CA that would not be used",
      config({
        cluster: `server: "https://a", certificate-authority-data: ${data}, insecure-skip-tls-verify: true`,
      }),
      "kubeconfig F: clusters[0].cluster.insecure-skip-tls-verify cannot be true together with",
    ],
    [
      "impersonation",
      config({ user: "token: t, as: admin" }),
      "kubeconfig F: users[0].user.as is not supported",
    ],
    [
      "a password",
      config({ user: "username: a, password: b" }),
      "kubeconfig F: users[0].user.username is not supported: API servers take no passwords",
    ],
    [
      "a certificate without its key",
      config({ user: "client-certificate: c.pem" }),
      "kubeconfig F: users[0].user.client-key is missing",
    ],
    [
      "an interactive plug-in",
      config({
        user: "exec: {apiVersion: client.authentication.k8s.io/v1, command: a, interactiveMode: Always}",
      }),
      "kubeconfig F: users[0].user.exec.interactiveMode Always cannot work for a daemon",
    ],
    [
      "a plug-in of an old version",
      config({ user: "exec: {apiVersion: client.authentication.k8s.io/v1alpha1, command: a}" }),
      'kubeconfig F: users[0].user.exec.apiVersion "client.authentication.k8s.io/v1alpha1" must be',
    ],
    [
      "a number for a string",
      config({ user: "token: 5" }),
      "kubeconfig F: users[0].user.token must be a string",
    ],
  ];
  for (const [what, text, message] of refusals) {
    it(`refuses ${what}, naming file and field`, async () => {
      await assert.rejects(parseKubeconfig(text, "F"), (error) => {
        assert.ok(error instanceof SetupError);
        assert.ok(error.message.startsWith(message), error.message);
        return true;
      });
    });
  }
});

describe("writing a kubeconfig", () => {
  const entry = {
    name: "remora",
    server: "https://127.0.0.1:6443",
    caPEM: pem,
    clientCertPEM: pem,
    clientKeyPEM: pem,
  };

  it("renders a file that reads back", async () => {
    const kubeconfig = await parseKubeconfig(await renderKubeconfig(entry), "F");
    assert.equal(kubeconfig.context, "remora");
    assert.equal(kubeconfig.cluster.server, entry.server);
    assert.deepEqual(kubeconfig.user.clientKey, { kind: "data", pem });
  });

  it("adds our entries to a file of somebody else and changes nothing of theirs", async () => {
    const theirs = `# my clusters
apiVersion: v1
kind: Config
current-context: work # do not touch
preferences: {colors: true}
clusters:
  - name: work
    cluster:
      server: https://work.example.com # VPN only
      x-note: keep
contexts:
  - name: work
    context: {cluster: work, user: me}
users:
  - name: me
    user: {token: abc}
`;
    const merged = await mergeKubeconfig(theirs, entry);
    for (const kept of [
      "# my clusters",
      "current-context: work # do not touch",
      "# VPN only",
      "x-note: keep",
      "token: abc",
    ]) {
      assert.ok(merged.includes(kept), kept);
    }
    const ours = merged.replace("current-context: work", "current-context: remora");
    assert.equal((await parseKubeconfig(ours, "F")).cluster.server, entry.server);
    assert.equal((await parseKubeconfig(merged, "F")).cluster.server, "https://work.example.com");
  });

  it("replaces our own entries and stays the same when nothing changed", async () => {
    const first = await mergeKubeconfig(undefined, entry);
    const moved = await mergeKubeconfig(first, { ...entry, server: "https://127.0.0.1:7443" });
    assert.equal((await parseKubeconfig(moved, "F")).cluster.server, "https://127.0.0.1:7443");
    assert.equal(moved.match(/name: remora/g)?.length, 3);
    assert.equal(
      await mergeKubeconfig(moved, { ...entry, server: "https://127.0.0.1:7443" }),
      moved,
    );
  });

  it("fills an empty skeleton and sets the current context only when none is set", async () => {
    const skeleton =
      'apiVersion: v1\nkind: Config\nclusters: null\ncontexts: []\ncurrent-context: ""\n';
    const merged = await mergeKubeconfig(skeleton, entry);
    assert.equal((await parseKubeconfig(merged, "F")).context, "remora");
  });

  it("takes only our entries out again", async () => {
    const merged = await mergeKubeconfig(config(), entry);
    const removed = await removeFromKubeconfig(merged, "remora");
    assert.equal(removed.includes("remora"), false);
    assert.equal((await parseKubeconfig(removed, "F")).context, "x");
    const alone = await removeFromKubeconfig(await renderKubeconfig(entry), "remora");
    assert.match(alone, /current-context: ""/);
  });

  it("gives a file back as it was, byte for byte, in whose hand it may be", async () => {
    const kubectl = `apiVersion: v1
# a remark
clusters:
- cluster:
    server: https://zoo.example
  name: zoo
contexts:
- context:
    cluster: zoo
    user: keeper
  name: zoo
current-context: zoo
kind: Config
preferences: {}
users:
- name: keeper
  user:
    token: "0123"
`;
    const indented = kubectl.replaceAll(/^([- ] )/gm, "  $1");
    const flow = `kind: Config
clusters: [{name: zoo, cluster: {server: "https://zoo.example"}}]
contexts: [{name: zoo, context: {cluster: zoo, user: ""}}]
current-context: zoo
users: []
`;
    const padded = flow
      .replaceAll(/\[\{/g, "[ { ")
      .replaceAll(": {", ": { ")
      .replaceAll("}}]", " } } ]");
    for (const theirs of [kubectl, indented, flow, padded]) {
      const merged = await mergeKubeconfig(theirs, entry);
      assert.notEqual(merged, theirs);
      assert.equal(await removeFromKubeconfig(merged, "remora"), theirs);
    }
  });

  it("leaves a file alone that it cannot understand", async () => {
    await assert.rejects(mergeKubeconfig("clusters: {a: b}", entry), /clusters is not a list/);
    await assert.rejects(mergeKubeconfig("a: [", entry), /is not YAML/);
  });
});
