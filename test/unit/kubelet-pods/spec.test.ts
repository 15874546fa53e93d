import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { assert as check, property, string } from "fast-check";

import { podRequests } from "../../../src/api/pod-requests.ts";
import { parseResolvConf, podResolvConf } from "../../../src/kubelet/spec/dns.ts";
import {
  ContainerConfigError,
  containerEnvironment,
  type EnvSource,
} from "../../../src/kubelet/spec/env.ts";
import { expandReferences } from "../../../src/kubelet/spec/expand.ts";
import { fieldValue, resourceFieldValue } from "../../../src/kubelet/spec/field-values.ts";
import { imageReference } from "../../../src/kubelet/spec/image-name.ts";
import { podCgroup } from "../../../src/kubelet/spec/pod-cgroup.ts";
import { podHostname } from "../../../src/kubelet/spec/pod-name.ts";
import { linuxResources, oomScoreAdj, qosClass } from "../../../src/kubelet/spec/resources.ts";
import { hostPorts } from "../../../src/kubelet/spec/sandbox-config.ts";
import { verifyRunAsNonRoot } from "../../../src/kubelet/spec/security.ts";
import { serviceEnvironment } from "../../../src/kubelet/spec/service-env.ts";
import { credentialsFor, parseKeyring } from "../../../src/kubelet/images/credentials.ts";
import { MountTable } from "../../../src/kubelet/volumes/mount-table.ts";
import { container, pod } from "./builders.ts";

describe("expandReferences", () => {
  const known: Readonly<Record<string, string>> = { A: "1", EMPTY: "" };
  const cases = [
    ["$(A)", "1"],
    ["$(A)$(A)", "11"],
    ["$$(A)", "$(A)"],
    ["$$$(A)", "$1"],
    ["$(B)", "$(B)"],
    ["$(EMPTY)x", "x"],
    ["$(A", "$(A"],
    ["$A", "$A"],
    ["a$", "a$"],
    ["$", "$"],
    ["$$", "$"],
    ["$()", "$()"],
    ["x$(A)y$(B)$$z", "x1y$(B)$z"],
  ] as const;
  for (const [input, expected] of cases) {
    test(`${input} becomes ${expected}`, () => {
      assert.equal(
        expandReferences(input, (name) => known[name]),
        expected,
      );
    });
  }
  test("text without a dollar sign is itself", () => {
    check(
      property(string(), (text) => {
        const plain = text.replaceAll("$", "");
        assert.equal(
          expandReferences(plain, () => "never"),
          plain,
        );
      }),
    );
  });
});

function source(more: Partial<EnvSource> = {}): EnvSource {
  return {
    configMap: () => undefined,
    secret: () => undefined,
    services: new Map(),
    addresses: { podIPs: ["10.244.0.2", "fd00::2"], hostIPs: ["192.0.2.10"] },
    allocatable: { cpu: "4", memory: "8Gi" },
    ...more,
  };
}

describe("containerEnvironment", () => {
  test("later values may refer to earlier ones, to envFrom and to Services, never to later ones", () => {
    const subject = container("web", {
      envFrom: [{ prefix: "P_", configMapRef: { name: "map" } }],
      env: [
        { name: "A", value: "$(P_key) $(SVC) $(C)" },
        { name: "B", value: "$(A)" },
        { name: "C", value: "c" },
      ],
    });
    const environment = containerEnvironment(pod(), subject, {
      ...source({
        services: new Map([
          ["SVC", "s"],
          ["A", "service"],
        ]),
      }),
      configMap: () => ({ key: "k" }),
    });
    assert.deepEqual(
      [...environment],
      [
        ["P_key", "k"],
        ["A", "k s $(C)"],
        ["B", "k s $(C)"],
        ["C", "c"],
        ["SVC", "s"],
      ],
    );
  });
  const missing = [
    [{ configMapKeyRef: { name: "map", key: "k" } }, 'configmap "map" not found'],
    [{ secretKeyRef: { name: "s", key: "k" } }, 'secret "s" not found'],
  ] as const;
  for (const [valueFrom, message] of missing) {
    test(`a required reference that is missing says: ${message}`, () => {
      const subject = container("web", { env: [{ name: "A", valueFrom }] });
      assert.throws(
        () => containerEnvironment(pod(), subject, source()),
        (error: unknown) => error instanceof ContainerConfigError && error.message === message,
      );
    });
  }
  test("a required key that is missing is named", () => {
    const env = [{ name: "A", valueFrom: { secretKeyRef: { name: "s", key: "k" } } }];
    assert.throws(
      () => containerEnvironment(pod(), container("web", { env }), source({ secret: () => ({}) })),
      /^ContainerConfigError: couldn't find key k in Secret ns\/s$/,
    );
  });
  test("an optional reference that is missing leaves the variable out", () => {
    const env = [
      { name: "A", valueFrom: { secretKeyRef: { name: "s", key: "k", optional: true } } },
    ];
    assert.equal(containerEnvironment(pod(), container("web", { env }), source()).size, 0);
  });
});

test("service variables: own namespace, and always the master service", () => {
  const services = [
    {
      namespace: "ns",
      name: "my-db",
      clusterIP: "10.96.0.5",
      ports: [{ name: "sql", port: 5432, protocol: "TCP" }],
    },
    { namespace: "ns", name: "headless", clusterIP: "None", ports: [] },
    {
      namespace: "default",
      name: "kubernetes",
      clusterIP: "10.96.0.1",
      ports: [{ name: "https", port: 443, protocol: "TCP" }],
    },
  ];
  const environment = serviceEnvironment(services, "ns", true);
  assert.equal(environment.get("MY_DB_SERVICE_HOST"), "10.96.0.5");
  assert.equal(environment.get("MY_DB_SERVICE_PORT_SQL"), "5432");
  assert.equal(environment.get("MY_DB_PORT_5432_TCP"), "tcp://10.96.0.5:5432");
  assert.equal(environment.get("KUBERNETES_SERVICE_HOST"), "10.96.0.1");
  assert.equal(environment.has("HEADLESS_SERVICE_HOST"), false);
  assert.deepEqual(
    [...serviceEnvironment(services, "ns", false).keys()].filter((key) => key.startsWith("MY_DB")),
    [],
  );
});

test("fieldRef reads metadata, one label, and the addresses", () => {
  const subject = pod(
    {},
    {
      metadata: {
        name: "web",
        namespace: "ns",
        uid: "u",
        resourceVersion: "1",
        labels: { "a/b": 'x"y', a: "1" },
      },
    },
  );
  const addresses = { podIPs: ["10.0.0.1", "fd00::1"], hostIPs: ["192.0.2.1"] };
  assert.equal(fieldValue(subject, "metadata.labels['a/b']", addresses), 'x"y');
  assert.equal(fieldValue(subject, "metadata.labels", addresses), 'a="1"\na/b="x\\"y"');
  assert.equal(fieldValue(subject, "status.podIPs", addresses), "10.0.0.1,fd00::1");
  assert.throws(() => fieldValue(subject, "spec.containers", addresses), /supported field path/);
});

test("resourceFieldRef rounds up and falls back to the node's allocatable", () => {
  const web = container("web", { resources: { limits: { cpu: "1500m", memory: "100Mi" } } });
  const subject = pod({ containers: [web] });
  const value = (resource: string, divisor?: string): string =>
    resourceFieldValue(subject, web, { resource, divisor }, { cpu: "4", memory: "8Gi" });
  assert.equal(value("limits.cpu"), "2");
  assert.equal(value("limits.cpu", "1m"), "1500");
  assert.equal(value("limits.memory", "1Mi"), "100");
  assert.equal(value("requests.cpu"), "0");
  const bare = container("web");
  assert.equal(
    resourceFieldValue(pod({ containers: [bare] }), bare, { resource: "limits.cpu" }, { cpu: "4" }),
    "4",
  );
});

describe("qosClass", () => {
  const full = { cpu: "1", memory: "1Gi" };
  const cases = [
    ["BestEffort", {}],
    ["Guaranteed", { limits: full }],
    ["Guaranteed", { limits: full, requests: { cpu: "1000m", memory: "1024Mi" } }],
    ["Burstable", { limits: full, requests: { cpu: "500m", memory: "1Gi" } }],
    ["Burstable", { requests: { cpu: "100m" } }],
    ["Burstable", { limits: { cpu: "1" } }],
  ] as const;
  for (const [expected, resources] of cases) {
    test(`${JSON.stringify(resources)} is ${expected}`, () => {
      assert.equal(qosClass(pod({ containers: [container("web", { resources })] })), expected);
    });
  }
});

test("a pod asks for the larger of its containers and its initialisation, sidecars counted in both", () => {
  const asks = (name: string, cpu: string, more = {}): ReturnType<typeof container> =>
    container(name, { resources: { requests: { cpu } }, ...more });
  const subject = pod({
    containers: [asks("a", "1"), asks("b", "500m")],
    initContainers: [asks("side", "200m", { restartPolicy: "Always" }), asks("one", "3")],
    overhead: { cpu: "10m" },
  });
  assert.equal(podRequests(subject).get("cpu"), 3210);
});

test("cgroup numbers follow requests and limits", () => {
  const web = container("web", {
    resources: {
      limits: { cpu: "250m", memory: "64Mi" },
      requests: { cpu: "100m", memory: "64Mi" },
    },
  });
  const resources = linuxResources(pod({ containers: [web] }), web, {
    memoryBytes: 1 << 30,
    podPidsLimit: -1,
  });
  assert.deepEqual(resources, {
    cpuShares: 102,
    cpuQuotaMicros: 25_000,
    cpuPeriodMicros: 100_000,
    memoryLimitBytes: 67_108_864,
    oomScoreAdj: 1000 - 62,
    pidsLimit: 0,
  });
  assert.equal(oomScoreAdj(pod(), container("web"), 1 << 30), 1000);
});

test("cgroup parents are paths for cgroupfs and slice names for systemd", () => {
  const uid = "a-b";
  assert.deepEqual(podCgroup(uid, "Burstable", { cgroupRoot: "/", driver: "cgroupfs" }), {
    parent: "/kubepods/burstable/poda-b",
    path: "kubepods/burstable/poda-b",
  });
  assert.deepEqual(podCgroup(uid, "Guaranteed", { cgroupRoot: "/", driver: "systemd" }), {
    parent: "kubepods-poda_b.slice",
    path: "kubepods.slice/kubepods-poda_b.slice",
  });
});

test("host names are cut, get a domain with a subdomain, and may be the FQDN", () => {
  const named = (spec: Parameters<typeof pod>[0]): ReturnType<typeof podHostname> =>
    podHostname(pod(spec), "cluster.local");
  assert.deepEqual(named({ hostname: "h", subdomain: "s" }), {
    hostname: "h",
    short: "h",
    domain: "s.ns.svc.cluster.local",
  });
  assert.equal(named({ hostname: `${"x".repeat(62)}-y` }).hostname, "x".repeat(62));
  assert.equal(
    named({ hostname: "h", subdomain: "s", setHostnameAsFQDN: true }).hostname,
    "h.s.ns.svc.cluster.local",
  );
  assert.throws(
    () => named({ hostname: "h".repeat(60), subdomain: "s", setHostnameAsFQDN: true }),
    /is too long \(64 characters is the max/,
  );
});

test("resolv.conf by dnsPolicy", () => {
  const host = parseResolvConf(
    "nameserver 1.1.1.1\nsearch old\nsearch corp. lan\noptions timeout:2\n",
  );
  const cluster = { dns: ["10.96.0.10"], domain: "cluster.local" };
  const first = podResolvConf(pod(), host, cluster);
  assert.deepEqual(first.nameservers, ["10.96.0.10"]);
  assert.deepEqual(first.searches, [
    "ns.svc.cluster.local",
    "svc.cluster.local",
    "cluster.local",
    "corp",
    "lan",
  ]);
  assert.deepEqual(first.options, ["ndots:5"]);
  const hostNetwork = podResolvConf(pod({ hostNetwork: true }), host, cluster);
  assert.deepEqual(hostNetwork.nameservers, ["1.1.1.1"]);
  const none = podResolvConf(
    pod({
      dnsPolicy: "None",
      dnsConfig: {
        nameservers: ["1.2.3.4", "2", "3", "4"],
        options: [{ name: "ndots", value: "2" }],
      },
    }),
    host,
    cluster,
  );
  assert.deepEqual(none.nameservers, ["1.2.3.4", "2", "3"]);
  assert.deepEqual(none.options, ["ndots:2"]);
  assert.equal(none.warnings[0]?.reason, "DNSConfigForming");
  assert.equal(
    podResolvConf(pod(), host, { dns: [], domain: "" }).warnings[0]?.reason,
    "MissingClusterDNS",
  );
});

test("image references get :latest, and what is none is undefined", () => {
  assert.equal(imageReference("busybox"), "busybox:latest");
  assert.equal(imageReference("localhost:5000/a/b"), "localhost:5000/a/b:latest");
  assert.equal(imageReference("a:1"), "a:1");
  const digest = `a@sha256:${"0".repeat(64)}`;
  assert.equal(imageReference(digest), digest);
  assert.equal(imageReference("UPPER"), undefined);
  assert.equal(imageReference(""), undefined);
});

test("runAsNonRoot refuses root and users nobody can check", () => {
  const strict = (runAsUser?: number): ReturnType<typeof pod> =>
    pod({
      securityContext: { runAsNonRoot: true, ...(runAsUser === undefined ? {} : { runAsUser }) },
    });
  const web = container("web");
  assert.throws(() => verifyRunAsNonRoot(strict(0), web, {}), /runAsUser breaks non-root policy/);
  assert.throws(() => verifyRunAsNonRoot(strict(), web, {}), /image will run as root/);
  assert.throws(
    () => verifyRunAsNonRoot(strict(), web, { name: "app" }),
    /non-numeric user \(app\)/,
  );
  verifyRunAsNonRoot(strict(), web, { uid: 5 });
  verifyRunAsNonRoot(strict(7), web, {});
});

test("pull secrets: the longest matching path first, Docker Hub under all its names", () => {
  const auth = Buffer.from("u:p:w").toString("base64");
  const keyring = parseKeyring(
    JSON.stringify({
      auths: {
        "https://index.docker.io/v1/": { auth },
        "*.example.com": { username: "wild" },
        "r.example.com/team": { username: "team" },
      },
    }),
  );
  assert.deepEqual(
    credentialsFor("busybox:1", keyring).map(({ auth: { username, password } }) => [
      username,
      password,
    ]),
    [["u", "p:w"]],
  );
  assert.deepEqual(
    credentialsFor("r.example.com/team/app:1", keyring).map(({ auth: { username } }) => username),
    ["team", "wild"],
  );
  assert.deepEqual(
    credentialsFor("r.example.com/teamwork/app", keyring).map(({ auth: { username } }) => username),
    ["team", "wild"],
    "paths are prefixes, as in the kubelet",
  );
  assert.deepEqual(parseKeyring("not json"), []);
});

test("mount points below a directory come deepest first, stacked ones in order of removal", () => {
  const line = (path: string): string => `1 2 0:1 / ${path} rw - tmpfs tmpfs rw`;
  const table = [line("/p"), line("/p/a"), line("/p/a/b\\040c"), line("/pods"), line("/p/a")].join(
    "\n",
  );
  const below = new MountTable(table).below("/p").map(({ path }) => path);
  assert.deepEqual(below, ["/p/a/b c", "/p/a", "/p/a", "/p"]);
});

test("host ports are those of containers that last, and none of a pod on the node's network", () => {
  const ports = (hostPort: number) => ({ ports: [{ containerPort: 80, hostPort }] });
  const spec = {
    initContainers: [
      container("init", ports(1)),
      container("sidecar", { ...ports(2), restartPolicy: "Always" }),
    ],
    containers: [
      container("web", {
        ports: [
          { containerPort: 80, hostPort: 3, hostIP: "127.0.0.1", protocol: "UDP" },
          { containerPort: 81 },
        ],
      }),
    ],
  };
  assert.deepEqual(hostPorts(pod(spec)), [
    { protocol: "TCP", hostIP: "", hostPort: 2, containerPort: 80 },
    { protocol: "UDP", hostIP: "127.0.0.1", hostPort: 3, containerPort: 80 },
  ]);
  assert.deepEqual(hostPorts(pod({ ...spec, hostNetwork: true })), []);
});
