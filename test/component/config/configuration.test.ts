import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { agentConfig, proxyDefaults } from "../../../src/config/agent-config.ts";
import { agentMembers } from "../../../src/config/agent-members.ts";
import {
  type Configuration,
  type ConfigurationSources,
  readConfiguration,
  refuseErrors,
} from "../../../src/config/configuration.ts";
import { remarkText } from "../../../src/config/decode.ts";
import { cgroupRemarks } from "../../../src/config/file-checks.ts";
import { hostRemarks } from "../../../src/config/host-checks.ts";

const kubelet = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
const proxy = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
const remora = "apiVersion: config.remora.io/v1alpha1\nkind: RemoraConfiguration\n";

let directory = "";
let serial = 0;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "remora-config-"));
});

after(async () => rm(directory, { recursive: true, force: true }));

async function file(text: string | Uint8Array, name?: string): Promise<string> {
  serial += 1;
  const path = join(directory, name ?? `c${serial}.yaml`);
  await writeFile(path, text);
  return path;
}

async function read(sources: Partial<ConfigurationSources>): Promise<Configuration> {
  return readConfiguration({ files: [], directory: undefined, flags: [], ...sources });
}

async function readText(text: string): Promise<Configuration> {
  return read({ files: [await file(text)] });
}

function texts(configuration: Configuration, severity?: "error" | "unknown" | "ignored"): string[] {
  return configuration.remarks
    .filter((remark) => severity === undefined || remark.severity === severity)
    .map((remark) => remarkText(remark).replaceAll(`${directory}/`, ""));
}

async function fixture(name: string): Promise<Configuration> {
  return read({ files: [join(import.meta.dirname, "fixtures", name)] });
}

describe("configuration", () => {
  test("without files and flags everything has its default", async () => {
    const configuration = await read({});
    assert.deepEqual(configuration.remarks, []);
    assert.equal(configuration.kubelet.maxPods, 110);
    assert.equal(configuration.kubelet.authentication.webhook.cacheTTL, 120_000);
    assert.equal(configuration.proxy.healthzBindAddress, "0.0.0.0:10256");
    assert.equal(configuration.remora.rootDir, "/var/lib/kubelet");
  });

  test("flags win over the directory, the directory over files, files over defaults", async () => {
    const drop = join(directory, "order.d");
    await mkdir(drop);
    await file(`${kubelet}maxPods: 30\npodsPerCore: 3\n`, "order.d/10-a.conf");
    await file(`${kubelet}podsPerCore: 4\n`, "order.d/20-b.conf");
    const configuration = await read({
      files: [await file(`${kubelet}maxPods: 20\npodsPerCore: 2\nport: 1234\nregistryBurst: 7\n`)],
      directory: drop,
      flags: [{ name: "max-pods", texts: ["40", "41"] }],
    });
    const { maxPods, podsPerCore, port, registryBurst } = configuration.kubelet;
    assert.deepEqual(
      { maxPods, podsPerCore, port, registryBurst },
      {
        maxPods: 41,
        podsPerCore: 4,
        port: 1234,
        registryBurst: 7,
      },
    );
    const from = configuration.settings.KubeletConfiguration;
    assert.deepEqual(from.get("maxPods")?.origin, { kind: "flag", flag: "max-pods" });
    assert.deepEqual(from.get("podsPerCore")?.origin, {
      kind: "file",
      file: join(drop, "20-b.conf"),
      line: 3,
    });
  });

  test("drop-ins merge maps, replace lists, and null takes a field away", async () => {
    const drop = join(directory, "merge.d");
    await mkdir(join(drop, "sub"), { recursive: true });
    await file(
      `${kubelet}evictionHard: {nodefs.available: 5%}\nclusterDNS: [192.0.2.2]\n`,
      "merge.d/sub/a.conf",
    );
    await file(`${kubelet}maxPods: null\n`, "merge.d/z.conf");
    await file("not: read", "merge.d/notes.txt");
    const configuration = await read({
      files: [
        await file(
          `${kubelet}evictionHard: {memory.available: 1Gi}\nclusterDNS: [192.0.2.1, "2001:db8::1"]\nmaxPods: 9\n`,
        ),
      ],
      directory: drop,
    });
    assert.deepEqual(configuration.kubelet.evictionHard, {
      "memory.available": "1Gi",
      "nodefs.available": "5%",
    });
    assert.deepEqual(configuration.kubelet.clusterDNS, ["192.0.2.2"]);
    assert.equal(configuration.kubelet.maxPods, 110);
    assert.deepEqual(configuration.skipped, [join(drop, "notes.txt")]);
    assert.deepEqual(configuration.remarks, []);
  });

  test("one file may hold all three kinds; JSON is YAML", async () => {
    const configuration = await readText(
      `${kubelet}maxPods: 12\n---\n${proxy}clusterCIDR: 10.9.0.0/16\n---\n${JSON.stringify({
        apiVersion: "config.remora.io/v1alpha1",
        kind: "RemoraConfiguration",
        nodeIPs: ["192.0.2.5"],
      })}\n`,
    );
    assert.deepEqual(texts(configuration), []);
    const members = agentMembers(configuration, 4);
    assert.equal(members.maxPods, 12);
    assert.deepEqual(members.clusterCIDRs, ["10.9.0.0/16"]);
    assert.deepEqual(members.nodeIPs, ["192.0.2.5"]);
  });

  test("a kind that was given before is refused", async () => {
    const first = await file(kubelet, "twice-a.yaml");
    const second = await file(`${kubelet}maxPods: 3\n`, "twice-b.yaml");
    const configuration = await read({ files: [first, second] });
    assert.deepEqual(texts(configuration), [
      "twice-b.yaml:1: a KubeletConfiguration was given before (twice-a.yaml:1); put what overrides it into a file of --config-dir",
    ]);
  });

  test("feature gates of flags add to those of files", async () => {
    const configuration = await read({
      files: [await file(`${kubelet}featureGates: {NodeSwap: true, LoggingAlphaOptions: true}\n`)],
      flags: [
        {
          name: "feature-gates",
          texts: ["LoggingAlphaOptions=false", "CBORServingAndStorage=true"],
        },
      ],
    });
    assert.deepEqual(configuration.kubelet.featureGates, {
      NodeSwap: true,
      LoggingAlphaOptions: false,
      CBORServingAndStorage: true,
    });
  });

  test("relative paths are relative to their file", async () => {
    const configuration = await read({
      files: [await file(`${kubelet}tlsCertFile: pki/c.pem\ntlsPrivateKeyFile: /k.pem\n`)],
    });
    assert.equal(configuration.kubelet.tlsCertFile, join(directory, "pki/c.pem"));
    assert.equal(configuration.kubelet.tlsPrivateKeyFile, "/k.pem");
  });

  test("defaults that follow other fields follow them", async () => {
    const configuration = await readText(
      `${kubelet}nodeStatusUpdateFrequency: 30s\nmaxParallelImagePulls: 3\ncgroupsPerQOS: false\n---\n${proxy}bindAddress: "::"\nhealthzBindAddress: "2001:db8::1"\n`,
    );
    assert.deepEqual(texts(configuration, "error"), []);
    assert.equal(configuration.kubelet.nodeStatusReportFrequency, 30_000);
    assert.equal(configuration.kubelet.serializeImagePulls, false);
    assert.deepEqual(configuration.kubelet.enforceNodeAllocatable, []);
    assert.equal(configuration.proxy.metricsBindAddress, "[::1]:10249");
    assert.equal(configuration.proxy.healthzBindAddress, "[2001:db8::1]:10256");
  });
});

describe("members of the agent's configuration", () => {
  test("what nobody said is left to whoever starts the agent", async () => {
    const members = agentMembers(await read({}), 4);
    for (const name of [
      "bindAddress",
      "nodeIPs",
      "clusterDNS",
      "clusterDomain",
      "clusterCIDRs",
      "podCIDRs",
      "serviceCIDRs",
      "kubeletPeerCIDRs",
      "serverTLSBootstrap",
      "rotateCertificates",
      "certDir",
    ])
      assert.equal(Object.hasOwn(members, name), false, name);
    assert.equal(members.dockerSocket, "/var/run/docker.sock");
  });

  test("nobody at all may be a peer", async () => {
    const members = agentMembers(await readText(`${remora}kubeletPeerCIDRs: []\n`), 4);
    assert.deepEqual(members.kubeletPeerCIDRs, []);
  });

  test("podsPerCore limits maxPods by the processors", async () => {
    assert.equal(agentMembers(await readText(`${kubelet}podsPerCore: 5\n`), 4).maxPods, 20);
    assert.equal(agentMembers(await readText(`${kubelet}podsPerCore: 50\n`), 4).maxPods, 110);
  });

  test("given thresholds replace the defaults, or are merged with them", async () => {
    const given = `${kubelet}evictionHard: {memory.available: 5%}\n`;
    assert.deepEqual(agentMembers(await readText(given), 4).evictionHard, {
      "memory.available": "5%",
    });
    const merged = agentMembers(await readText(`${given}mergeDefaultEvictionSettings: true\n`), 4);
    assert.deepEqual(merged.evictionHard, {
      "memory.available": "5%",
      "nodefs.available": "10%",
      "nodefs.inodesFree": "5%",
      "imagefs.available": "15%",
      "imagefs.inodesFree": "5%",
    });
  });
});

describe("configurations that kubeadm writes", () => {
  test("its config.yaml is accepted as it is", async () => {
    const configuration = await fixture("kubeadm-kubelet.yaml");
    refuseErrors(configuration);
    assert.deepEqual(texts(configuration, "unknown"), []);
    assert.deepEqual(
      configuration.remarks.map(({ path }) => path),
      ["staticPodPath", "cgroupDriver"],
    );
    const config = agentConfig({
      nodeName: "n1",
      kubeconfig: "/k",
      proxyKubeconfig: "/p",
      ...agentMembers(configuration, 2),
    });
    assert.equal(config.clientCAFile, "/etc/kubernetes/pki/ca.crt");
    assert.equal(config.resolvConf, "/run/systemd/resolve/resolv.conf");
    assert.equal(config.rotateCertificates, true);
    assert.equal(config.nodeStatusReportFrequencyMs, 300_000);
    assert.deepEqual(config.authentication, {
      anonymousEnabled: false,
      webhookEnabled: true,
      webhookCacheTTLMs: 120_000,
    });
  });

  test("the ConfigMap of its kube-proxy is accepted as it is", async () => {
    const configuration = await fixture("kubeadm-kube-proxy-config-map.yaml");
    refuseErrors(configuration);
    assert.deepEqual(texts(configuration), []);
    const { clusterCIDRs, proxy: settings } = agentMembers(configuration, 2);
    assert.deepEqual(clusterCIDRs, ["10.244.0.0/16"]);
    const { conntrack, ...rules } = proxyDefaults;
    assert.deepEqual(settings, {
      ...rules,
      conntrack: {
        ...conntrack,
        maxPerCore: 32_768,
        min: 131_072,
        onlyRaiseMax: true,
        tcpEstablishedTimeoutMs: 86_400_000,
        tcpCloseWaitTimeoutMs: 3_600_000,
      },
    });
    // Lines are those of the file, not those of the text in it.
    const origin = configuration.settings.KubeProxyConfiguration.get("clusterCIDR")?.origin;
    assert.equal(origin?.kind === "file" ? origin.line : 0, 13);
  });

  test("what somebody changed in that ConfigMap counts", async () => {
    const text = await readFile(
      join(import.meta.dirname, "fixtures", "kubeadm-kube-proxy-config-map.yaml"),
      "utf8",
    );
    const changed = Object.entries({
      'mode: ""': "mode: iptables",
      "nodePortAddresses: null": "nodePortAddresses: [192.0.2.0/24]",
      "localhostNodePorts: null": "localhostNodePorts: false",
      "maxPerCore: null": "maxPerCore: 0",
      'detectLocalMode: ""': "detectLocalMode: BridgeInterface",
      'bridgeInterface: ""': "bridgeInterface: br0",
    }).reduce((all, [from, to]) => {
      assert.ok(all.includes(from), from);
      return all.replace(from, to);
    }, text);
    const configuration = await readText(changed);
    assert.deepEqual(texts(configuration), []);
    const { proxy: settings } = agentMembers(configuration, 2);
    assert.equal(settings?.mode, "iptables");
    assert.deepEqual(settings.nodePortAddresses, ["192.0.2.0/24"]);
    assert.equal(settings.localhostNodePorts, false);
    assert.equal(settings.conntrack.maxPerCore, 0);
    assert.deepEqual(
      [settings.detectLocalMode, settings.bridgeInterface],
      ["BridgeInterface", "br0"],
    );
  });

  test("a cluster with kube-proxy in ipvs mode is told what to say instead", async () => {
    const configuration = await readText(`${proxy}mode: ipvs\nipvs: {scheduler: lc}\n`);
    assert.match(
      texts(configuration, "error").join("\n"),
      /:3: .*mode: "ipvs" is not supported: .*say "nftables" or "iptables"/,
    );
    assert.throws(() => {
      refuseErrors(configuration);
    }, /ipvs/);
  });

  test("the ConfigMap of its kubelets is accepted, with lines of the file", async () => {
    const text = await readFile(
      join(import.meta.dirname, "fixtures", "kubeadm-kubelet.yaml"),
      "utf8",
    );
    const data = text.replaceAll(/^/gm, "    ");
    const configuration = await readText(
      `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kubelet-config}\ndata:\n  kubelet: |\n${data}\n`,
    );
    refuseErrors(configuration);
    assert.deepEqual(configuration.kubelet.clusterDNS, ["10.96.0.10"]);
    const line = text.split("\n").indexOf("clusterDNS:") + 1;
    const origin = configuration.settings.KubeletConfiguration.get("clusterDNS")?.origin;
    assert.equal(origin?.kind === "file" ? origin.line : 0, line + 5);
  });

  test("the flags of its kubeadm-flags.env are accepted, old and new", async () => {
    const configuration = await read({
      flags: [
        {
          name: "container-runtime-endpoint",
          texts: ["unix:///var/run/containerd/containerd.sock"],
        },
        { name: "pod-infra-container-image", texts: ["registry.k8s.io/pause:3.9"] },
        { name: "container-runtime", texts: ["remote"] },
        { name: "network-plugin", texts: ["cni"] },
        { name: "hostname-override", texts: ["node-7"] },
        {
          name: "register-with-taints",
          texts: ["node-role.kubernetes.io/control-plane:NoSchedule"],
        },
      ],
    });
    assert.deepEqual(texts(configuration, "error"), []);
    const members = agentMembers(configuration, 2);
    assert.equal(members.dockerSocket, "/var/run/docker.sock");
    assert.deepEqual(members.registerWithTaints, [
      { key: "node-role.kubernetes.io/control-plane", value: "", effect: "NoSchedule" },
    ]);
    assert.deepEqual(
      (await hostRemarks(configuration)).map(({ path }) => path),
      ["containerRuntimeEndpoint"],
    );
  });
});

describe("bad input of a configuration", () => {
  const refused: readonly (readonly [what: string, text: string, message: RegExp])[] = [
    ["nothing", "", /^c\d+\.yaml: is empty; say at least apiVersion and kind$/],
    ["a comment", "# later\n", /is empty/],
    ["a list", "- a\n", /^c\d+\.yaml:1: an object with apiVersion and kind belongs here$/],
    ["a scalar", "hello\n", /an object with apiVersion and kind belongs here/],
    ["no kind", "maxPods: 3\n", /no apiVersion\/kind; say for example apiVersion: kubelet/],
    [
      "another kind",
      "apiVersion: v1\nkind: Pod\n",
      /unknown kind v1 Pod; a configuration consists of Kubelet/,
    ],
    [
      "an old version",
      "apiVersion: kubelet.config.k8s.io/v1alpha1\nkind: KubeletConfiguration\n",
      /unknown apiVersion kubelet.config.k8s.io\/v1alpha1 of KubeletConfiguration; use kubelet.config.k8s.io\/v1beta1/,
    ],
    [
      "a tab",
      `${kubelet}authentication:\n\tx509: {}\n`,
      /^c\d+\.yaml:4: is not YAML: .*; indent with spaces$/,
    ],
    ["half a document", `${kubelet}clusterDNS: [1.2.3.4\n`, /is not YAML/],
    ["an unknown alias", `${kubelet}maxPods: *none\n`, /alias/i],
    ["bytes", "\u0000\u0001\u0002", /c\d+\.yaml/],
    [
      "a list in the place of an object",
      `${kubelet}authentication: []\n`,
      /:3: KubeletConfiguration.authentication: an object belongs here$/,
    ],
    [
      "text in the place of a number",
      `${kubelet}maxPods: many\n`,
      /:3: KubeletConfiguration.maxPods: "many" is a string; it must be a whole number$/,
    ],
    [
      "a number in quotes",
      `${kubelet}maxPods: "20"\n`,
      /it must be a whole number, without quotes$/,
    ],
    ["a fraction", `${kubelet}maxPods: 1.5\n`, /"1.5" is a number; it must be a whole number$/],
    ["a number out of range", `${kubelet}maxPods: 3000000000\n`, /3000000000 is out of range/],
    [
      "a word that is a boolean",
      `${kubelet}clusterDomain: on\n`,
      /"on" is a boolean where text belongs; put it in quotes$/,
    ],
    [
      "a duration without unit",
      `${kubelet}syncFrequency: 10\n`,
      /"10" is an integer where a duration such as 10s or 1h30m belongs; put it in quotes$/,
    ],
    ["no duration", `${kubelet}syncFrequency: soon\n`, /"soon" is not a duration; write it as 10s/],
    [
      "an object in a list of strings",
      `${kubelet}clusterDNS: [{a: b}]\n`,
      /is an object where text belongs$/,
    ],
    [
      "an unknown field of ours",
      `${remora}nodeips: [192.0.2.1]\n`,
      /:3: RemoraConfiguration.nodeips: unknown field; did you mean nodeIPs\?$/,
    ],
    [
      "a ConfigMap of something else",
      "apiVersion: v1\nkind: ConfigMap\ndata: {a: b}\n",
      /has no data\["kubelet"\]/,
    ],
  ];
  for (const [what, text, message] of refused) {
    test(`${what} is refused with its place`, async () => {
      const errors = texts(await readText(text), "error");
      assert.equal(errors.length, 1, errors.join("\n"));
      assert.match(errors[0] ?? "", message);
    });
  }

  test("a field of upstream's that nobody knows is left out, and said with the nearest name", async () => {
    const configuration = await readText(
      `${kubelet}maxPod: 3\nauthentication:\n  x509:\n    clientCaFile: /x\n`,
    );
    refuseErrors(configuration);
    assert.deepEqual(
      texts(configuration, "unknown").map((text) => text.replace(/^\S+ /, "")),
      [
        "KubeletConfiguration.maxPod: unknown field; did you mean maxPods?",
        "KubeletConfiguration.authentication.x509.clientCaFile: unknown field; did you mean clientCAFile?",
      ],
    );
    assert.equal(configuration.kubelet.maxPods, 110);
  });

  test("of a key that stands twice the last one counts, and it is said", async () => {
    const configuration = await readText(`${kubelet}maxPods: 3\nmaxPods: 4\n`);
    assert.equal(configuration.kubelet.maxPods, 4);
    assert.match(
      texts(configuration, "unknown").join(),
      /:4: maxPods stands twice; the last one counts/,
    );
  });

  test("0644 is octal and anchors work", async () => {
    const configuration = await readText(
      `${kubelet}port: 0644\nclusterDNS: &dns [192.0.2.1]\nallowedUnsafeSysctls: *dns\n`,
    );
    assert.equal(configuration.kubelet.port, 420);
    assert.deepEqual(configuration.kubelet.allowedUnsafeSysctls, ["192.0.2.1"]);
  });

  test("a merge key gives what an object does not say itself", async () => {
    const configuration = await readText(
      `${kubelet}evictionHard: &base {memory.available: 1Gi, pid.available: 5%}\nevictionSoft: {<<: *base, pid.available: 9%}\n`,
    );
    assert.deepEqual(configuration.kubelet.evictionSoft, {
      "memory.available": "1Gi",
      "pid.available": "9%",
    });
    assert.match(
      texts(await readText(`${kubelet}evictionHard: {<<: 3}\n`)).join(),
      /:3: << takes an object, or a list of objects/,
    );
  });

  test("aliases of aliases do not fill the memory", async () => {
    const levels = Array.from({ length: 12 }, (_, i) =>
      i === 0
        ? "a0: &a0 [x, x, x, x, x, x, x, x, x]"
        : `a${i}: &a${i} [${Array.from({ length: 9 }, () => `*a${i - 1}`).join(", ")}]`,
    );
    const errors = texts(await readText(`${kubelet}${levels.join("\n")}\n`), "error");
    assert.match(
      errors.join(),
      /has more than 50000 values; a configuration needs no aliases of aliases/,
    );
  });

  test("an alias of itself is refused", async () => {
    const errors = texts(await readText(`${kubelet}a: &a [*a]\n`), "error");
    assert.equal(errors.length, 1);
  });

  for (const [name, nest] of [
    ["a nest of 150 lists", `a: ${"[".repeat(150)}${"]".repeat(150)}`],
    ["a nest of lists that the parser cannot follow", `a: ${"[".repeat(20_000)}`],
    ["a nest of objects", `a: ${"{a: ".repeat(5000)}`],
    ["a staircase", Array.from({ length: 500 }, (_, at) => `${" ".repeat(at)}a:`).join("\n")],
  ] as const) {
    test(`${name} is refused in plain words`, async () => {
      const errors = texts(await readText(`${kubelet}${nest}\n`), "error");
      assert.equal(errors.length, 1);
      assert.match(errors.join(), /:\d+: is nested more than 100 levels deep, which no config/);
    });
  }

  test("a file of many megabytes is not read", async () => {
    const path = await file(new Uint8Array(2 * 1024 * 1024));
    const errors = texts(await read({ files: [path] }), "error");
    assert.match(errors.join(), /has 2097152 bytes; a configuration has at most 1048576/);
  });

  test("paths that are no files say what they are", async () => {
    const nested = join(directory, "is.d");
    await mkdir(nested, { recursive: true });
    const missing = join(directory, "missing.yaml");
    const configuration = await read({ files: [nested, missing, "/dev/null"], directory: missing });
    assert.deepEqual(texts(configuration), [
      "is.d: is a directory; give a YAML or JSON file, or use --config-dir",
      "missing.yaml: there is no such file; check the path",
      "/dev/null: is no regular file; give a YAML or JSON file",
      "missing.yaml: there is no such file; check the path (--config-dir)",
    ]);
  });

  test("a file in place of the directory is refused", async () => {
    const path = await file(kubelet);
    assert.match(
      texts(await read({ directory: path })).join(),
      /is not a directory \(--config-dir\)/,
    );
  });

  test("a drop-in that is a broken link is refused by its name", async () => {
    const drop = join(directory, "link.d");
    await mkdir(drop);
    await symlink("/nowhere/at/all", join(drop, "a.conf"));
    assert.match(texts(await read({ directory: drop })).join(), /a\.conf: there is no such file/);
  });

  test(
    "a file that may not be read says so",
    { skip: process.getuid?.() === 0 && "root may read everything" },
    async () => {
      const path = await file(kubelet);
      await chmod(path, 0);
      assert.match(texts(await read({ files: [path] })).join(), /may not be read; run as root/);
    },
  );

  test("all errors are told at once", async () => {
    const configuration = await readText(
      `${kubelet}maxPods: -1\nport: 0x1ffff\nreadOnlyPort: 10255\n---\n${proxy}mode: ipvs\n`,
    );
    assert.throws(() => refuseErrors(configuration), {
      message: /^the configuration cannot be used:(\n {2}\S+:\d+: \S+: .+){4}$/,
    });
  });

  test("a header's secret is not shown", async () => {
    const configuration = await readText(
      `${kubelet}staticPodURLHeader: {Authorization: [Bearer s3cret]}\n`,
    );
    assert.equal(texts(configuration).join().includes("s3cret"), false);
    assert.match(texts(configuration).join(), /staticPodURLHeader: this is not supported/);
  });
});

describe("host checks", () => {
  test("failSwapOn and failCgroupV1 are looked after when they are asked for", async () => {
    const swaps = await file(
      "Filename\tType\tSize\tUsed\tPriority\n/swap.img file 1 0 -2\n",
      "swaps",
    );
    const places = { swaps, cgroupControllers: join(directory, "none") };
    const quiet = await read({});
    assert.deepEqual(await hostRemarks(quiet, places), []);
    const asked = await readText(`${kubelet}failSwapOn: true\nfailCgroupV1: true\n`);
    assert.deepEqual(
      (await hostRemarks(asked, places)).map(({ path, severity }) => `${severity} ${path}`),
      ["error failCgroupV1", "error failSwapOn"],
    );
    const modern = { swaps: await file("Filename\n", "no-swaps"), cgroupControllers: swaps };
    assert.deepEqual(await hostRemarks(asked, modern), []);
  });

  test("pods' cgroups need a place that can hand controllers down", async () => {
    const mounted = join(directory, "cgroup");
    const cgroup = async (path: string, files: Readonly<Record<string, string>>): Promise<void> => {
      await mkdir(join(mounted, path), { recursive: true });
      for (const [name, text] of Object.entries(files))
        await writeFile(join(mounted, path, `cgroup.${name}`), text);
    };
    const all = "cpuset cpu io memory pids\n";
    await cgroup("", { controllers: all, subtree_control: "cpu\n", procs: "1\n2\n" });
    await cgroup("free", { controllers: "cpu\n", subtree_control: "\n", procs: "" });
    await cgroup("taken", { controllers: all, subtree_control: "\n", procs: "7\n" });
    await cgroup("handed", { controllers: all, subtree_control: all, procs: "" });
    const told = async (cgroupRoot: string): Promise<readonly string[]> =>
      (await cgroupRemarks(await readText(`${kubelet}cgroupRoot: ${cgroupRoot}\n`), mounted)).map(
        ({ severity, text }) => `${severity}: ${text}`,
      );
    for (const good of ["/", "/free", "/free/new", "/new/newer", "/handed"])
      assert.deepEqual(await told(good), [], good);
    assert.deepEqual(await told("/taken/new"), [
      "error: processes live in the cgroup /taken, so it cannot hand cpu, memory, pids down to those of pods; choose another",
    ]);
    assert.deepEqual(await told("/free/../taken"), [
      "error: /free/../taken is no plain path below the root of cgroups",
    ]);
    assert.deepEqual(await cgroupRemarks(await readText(kubelet), mounted), []);
  });

  test("manifests of static pods are refused, an empty directory is not", async () => {
    const path = join(directory, "manifests");
    await mkdir(path);
    const configuration = await readText(`${kubelet}staticPodPath: ${path}\n`);
    assert.deepEqual(await hostRemarks(configuration), []);
    await file("x", "manifests/etcd.yaml");
    const [remark] = await hostRemarks(configuration);
    assert.equal(remark?.severity, "error");
    assert.match(remark?.text ?? "", /holds etcd.yaml: static pods are not run/);
  });
});
