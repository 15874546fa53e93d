import assert from "node:assert/strict";
import { test } from "node:test";

import { CLUSTER_TRUST_BUNDLES } from "../../../src/api/resources.ts";
import type { Volume, VolumeProjection } from "../../../src/api/types.gen.ts";
import {
  ClusterTrustBundles,
  normalizedAnchors,
} from "../../../src/kubelet/objects/cluster-trust-bundles.ts";
import { configMapObject, secretObject } from "../../../src/kubelet/objects/keyed-object.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";
import { VolumeError } from "../../../src/kubelet/volumes/payload.ts";
import { type ProjectionSources, volumePayload } from "../../../src/kubelet/volumes/projection.ts";
import { ServiceAccountTokens } from "../../../src/kubelet/volumes/service-account-token.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { startFakeApiServer } from "../../fakes/api-server.ts";
import { podWith, until } from "./pods.ts";

const signal = new AbortController().signal;
const metadata = { name: "o", uid: "u", resourceVersion: "1" };

const configMaps: Readonly<Record<string, object>> = {
  one: { metadata, data: { a: "1", shared: "from one" } },
  two: { metadata, data: { b: "2", shared: "from two" }, binaryData: { raw: "AP8=" } },
};
const secrets: Readonly<Record<string, object>> = {
  hidden: { metadata, data: { password: Buffer.from("s3cret").toString("base64") } },
};

function sourcesWith(more: Partial<ProjectionSources> = {}): ProjectionSources {
  return {
    get: async (kind, name) => {
      const found = (kind === "ConfigMap" ? configMaps : secrets)[name];
      if (found === undefined) return undefined;
      return kind === "ConfigMap" ? configMapObject(found) : secretObject(found);
    },
    tokens: new ServiceAccountTokens({
      client: {
        request: async () => ({
          status: { token: "t0ken", expirationTimestamp: "2999-01-01T00:00:00Z" },
        }),
        watch: () => assert.fail("no watch"),
      },
      clock: systemClock,
      random: () => 0,
    }),
    addresses: { podIPs: ["10.0.0.1"], hostIPs: ["192.0.2.1"] },
    allocatable: { cpu: "3", memory: "7Gi" },
    ...more,
  };
}

interface Given {
  readonly pod?: AssignedPod;
  readonly sources?: ProjectionSources;
}

async function show(
  volume: Omit<Volume, "name">,
  given: Given = {},
): Promise<Record<string, string>> {
  const named = { name: "v", ...volume };
  const pod = given.pod ?? podWith("web", [named]);
  const payload = await volumePayload(pod, named, given.sources ?? sourcesWith(), signal);
  return Object.fromEntries(
    [...payload].map(([path, { content, mode, uid }]) => [
      path,
      `${Buffer.from(content).toString("latin1")} ${mode.toString(8)}${uid === undefined ? "" : ` of ${uid}`}`,
    ]),
  );
}

const projected = async (
  projections: VolumeProjection[],
  given: Given = {},
  defaultMode?: number,
): Promise<Record<string, string>> =>
  show({ projected: { sources: projections, defaultMode } }, given);

test("sources are merged in their order: a later one wins a path", async () => {
  assert.deepEqual(
    await projected([{ configMap: { name: "one" } }, { configMap: { name: "two" } }]),
    {
      a: "1 644",
      shared: "from two 644",
      b: "2 644",
      raw: "\u0000\u00ff 644",
    },
  );
  const items = [{ key: "a", path: "./shared" }];
  const late = await projected([
    { configMap: { name: "two" } },
    { configMap: { name: "one", items } },
  ]);
  assert.equal(late["shared"], "1 644");
});

test("modes come from the item, else from the volume", async () => {
  const items = [
    { key: "password", path: "p", mode: 0o400 },
    { key: "password", path: "deep/q" },
  ];
  const found = await projected([{ secret: { name: "hidden", items } }], {}, 0o440);
  assert.deepEqual(found, { p: "s3cret 400", "deep/q": "s3cret 440" });
  assert.deepEqual(await show({ secret: { secretName: "hidden", defaultMode: 0 } }), {
    password: "s3cret 0",
  });
});

const failures: readonly (readonly [string, Omit<Volume, "name">, string])[] = [
  ["a missing ConfigMap", { configMap: { name: "no" } }, 'configmap "no" not found'],
  ["a missing Secret", { secret: { secretName: "no" } }, 'secret "no" not found'],
  [
    "a missing key of a ConfigMap",
    { configMap: { name: "one", items: [{ key: "z", path: "z" }] } },
    "configmap references non-existent config key: z",
  ],
  [
    "a missing key of a Secret",
    { secret: { secretName: "hidden", items: [{ key: "z", path: "z" }] } },
    "references non-existent secret key: z",
  ],
  [
    "all that is missing, each thing once",
    {
      projected: {
        sources: [
          { configMap: { name: "no" } },
          { secret: { name: "nor" } },
          { configMap: { name: "no" } },
          { downwardAPI: { items: [{ path: "x", fieldRef: { fieldPath: "status.podIP" } }] } },
        ],
      },
    },
    '[configmap "no" not found, secret "nor" not found, unsupported fieldPath: status.podIP]',
  ],
  [
    "trust bundles while the gate is off",
    { projected: { sources: [{ clusterTrustBundle: { name: "x", path: "ca.pem" } }] } },
    "ClusterTrustBundle projection is not supported: the feature gate ClusterTrustBundleProjection is off",
  ],
  [
    "pod certificates",
    {
      projected: {
        sources: [{ podCertificate: { keyType: "ED25519", signerName: "a/b", keyPath: "k" } }],
      },
    },
    "podCertificate projection is unimplemented: the feature gate PodCertificateRequest is off",
  ],
  [
    "a file that would have to be a directory too",
    {
      projected: {
        sources: [
          { configMap: { name: "one", items: [{ key: "a", path: "a" }] } },
          { configMap: { name: "two", items: [{ key: "b", path: "a/b" }] } },
        ],
      },
    },
    "invalid path: a/b is below the file a",
  ],
];

for (const [what, volume, message] of failures) {
  test(`${what} is told in so many words`, async () => {
    await assert.rejects(show(volume), (error: unknown) => {
      assert(error instanceof VolumeError);
      assert.equal(error.message, message);
      return true;
    });
  });
}

test("what is optional may be missing, whole or in part", async () => {
  const items = [
    { key: "a", path: "a" },
    { key: "z", path: "z" },
  ];
  const found = await projected([
    { configMap: { name: "no", optional: true } },
    { secret: { name: "no", optional: true } },
    { configMap: { name: "one", items, optional: true } },
  ]);
  assert.deepEqual(found, { a: "1 644" });
});

test("a token belongs to its only user, or to its group, or is anybody's", async () => {
  const token = [{ serviceAccountToken: { path: "token" } }];
  const pod = (securityContext: object): AssignedPod => ({
    ...podWith("web", []),
    spec: { containers: [{ name: "a" }, { name: "b" }], securityContext },
  });
  assert.deepEqual(await projected(token, { pod: pod({}) }), { token: "t0ken 644" });
  const one = await projected(token, { pod: pod({ runAsUser: 1000 }) });
  assert.deepEqual(one, { token: "t0ken 600 of 1000" });
  const group = await projected(token, { pod: pod({ fsGroup: 3000 }) });
  assert.deepEqual(group, { token: "t0ken 600" });
  const both = await projected(token, { pod: pod({ fsGroup: 3000, runAsUser: 1000 }) });
  assert.deepEqual(both, { token: "t0ken 600 of 1000" });
  const other = await projected([{ configMap: { name: "one" } }], {
    pod: pod({ runAsUser: 1000 }),
  });
  assert.equal(other["a"], "1 644", "no other file is the user's");
});

test("the downward API shows what the pod is and what its containers may use", async () => {
  const pod: AssignedPod = {
    metadata: {
      ...podWith("web", []).metadata,
      labels: { b: "2", a: 'x "y"' },
      annotations: { note: "one\ntwo\u001b" },
    },
    spec: {
      containers: [
        {
          name: "main",
          resources: {
            limits: { memory: "64Mi", "hugepages-2Mi": "4Mi" },
            requests: { cpu: "1500m", memory: "32Mi" },
          },
        },
      ],
    },
  };
  const field = (path: string, fieldPath: string): object => ({ path, fieldRef: { fieldPath } });
  const resource = (path: string, name: string, divisor?: string): object => ({
    path,
    resourceFieldRef: { containerName: "main", resource: name, divisor },
  });
  const items = [
    field("name", "metadata.name"),
    field("namespace", "metadata.namespace"),
    field("uid", "metadata.uid"),
    field("labels", "metadata.labels"),
    field("label", "metadata.labels['a']"),
    field("annotations", "metadata.annotations"),
    field("none", "metadata.annotations['none']"),
    resource("cpu", "requests.cpu"),
    resource("millis", "requests.cpu", "1m"),
    resource("limit", "limits.memory", "1Mi"),
    resource("request", "requests.memory", "1Ki"),
    resource("node", "limits.cpu"),
    resource("pages", "limits.hugepages-2Mi", "1Mi"),
    resource("unasked", "requests.hugepages-2Mi"),
    resource("storage", "requests.ephemeral-storage"),
  ];
  const found = await show({ downwardAPI: { items: items as never } }, { pod });
  assert.deepEqual(found, {
    name: "web 644",
    namespace: "default 644",
    uid: "uid-of-web 644",
    labels: 'a="x \\"y\\""\nb="2" 644',
    label: 'x "y" 644',
    annotations: 'note="one\\ntwo\\x1b" 644',
    none: " 644",
    cpu: "2 644",
    millis: "1500 644",
    limit: "64 644",
    request: "32768 644",
    node: "3 644",
    pages: "4 644",
    unasked: "0 644",
    storage: "0 644",
  });
});

function pem(letter: string): string {
  return `-----BEGIN CERTIFICATE-----\n${letter.repeat(64)}\n${letter.repeat(8)}\n-----END CERTIFICATE-----\n`;
}

test("trust anchors are shown once each, in an order that lasts as long as the process", () => {
  const anchors = ["A", "B", "C", "D", "E"].map((letter) => letter.repeat(72));
  const twice = normalizedAnchors([...anchors, ...anchors], "seed");
  assert.equal(twice, normalizedAnchors(anchors.toReversed(), "seed"));
  const blocks = twice.match(/-----BEGIN[^]*?END CERTIFICATE-----\n/g) ?? [];
  assert.deepEqual(blocks.toSorted(), ["A", "B", "C", "D", "E"].map(pem));
  const orders = new Set(
    Array.from({ length: 20 }, (_, index) => normalizedAnchors(anchors, String(index))),
  );
  assert(orders.size > 1);
});

test("trust bundles are chosen by name, or by signer and labels, and follow changes", async () => {
  const api = await startFakeApiServer();
  const stop = new AbortController();
  const woken: string[] = [];
  const bundle = (name: string, trustBundle: string, signerName?: string, labels = {}): object => ({
    metadata: { name, labels },
    spec: { trustBundle, ...(signerName === undefined ? {} : { signerName }) },
  });
  const bundles = new ClusterTrustBundles({
    client: api.client,
    clock: systemClock,
    logger: silentLogger,
    random: () => 0,
    signal: stop.signal,
    wake: (uid) => woken.push(uid),
  });
  const sources = sourcesWith({ trustBundles: bundles });
  const projection = async (source: object): Promise<string> => {
    const clusterTrustBundle = { path: "ca.pem", ...source };
    return (await projected([{ clusterTrustBundle }], { sources }))["ca.pem"] ?? "";
  };
  try {
    api.put(CLUSTER_TRUST_BUNDLES, bundle("plain", `noise\n${pem("A")}more noise\n${pem("A")}`));
    api.put(CLUSTER_TRUST_BUNDLES, bundle("s:1", pem("B"), "example.com/s", { live: "yes" }));
    api.put(CLUSTER_TRUST_BUNDLES, bundle("s:2", pem("C"), "example.com/s", { live: "no" }));
    api.put(CLUSTER_TRUST_BUNDLES, bundle("t:1", pem("D"), "example.com/t", { live: "yes" }));
    assert.equal(await projection({ name: "plain" }), `${pem("A")} 644`);
    const live = { matchLabels: { live: "yes" } };
    const signerName = "example.com/s";
    assert.equal(await projection({ signerName, labelSelector: live }), `${pem("B")} 644`);
    const all = await projection({ signerName, labelSelector: {} });
    assert(all.includes(pem("B")) && all.includes(pem("C")) && !all.includes(pem("D")));
    await assert.rejects(projection({ signerName }), {
      message: "combination of signerName and labelSelector matched zero ClusterTrustBundles",
    });
    assert.equal(await projection({ signerName, optional: true }), " 644");
    await assert.rejects(projection({ name: "no" }), {
      message:
        'while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io "no" not found',
    });
    await assert.rejects(projection({}), {
      message: "ClusterTrustBundle projection requires either name or signerName to be set",
    });
    assert.equal(api.watchCount, 1);
    api.put(CLUSTER_TRUST_BUNDLES, bundle("plain", pem("E")));
    await until("the pod was told", () => woken.includes("uid-of-web"));
    assert.equal(await projection({ name: "plain" }), `${pem("E")} 644`);
  } finally {
    stop.abort();
    await bundles.idle();
    await api.close();
  }
});
