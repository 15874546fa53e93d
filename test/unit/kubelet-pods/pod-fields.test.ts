import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { PodSpec, SecurityContext, VolumeMount } from "../../../src/api/types.gen.ts";
import { refuseUnsupported } from "../../../src/kubelet/pods/unsupported.ts";
import { appArmorProfile } from "../../../src/kubelet/spec/app-armor.ts";
import { appliedFields } from "../../../src/kubelet/spec/applied.ts";
import {
  containerConfig,
  type ContainerFacts,
} from "../../../src/kubelet/spec/container-config.ts";
import { ephemeralContainers, regularContainers } from "../../../src/kubelet/spec/containers.ts";
import { containerEnvironment } from "../../../src/kubelet/spec/env.ts";
import { formatResolvConf, podResolvConf } from "../../../src/kubelet/spec/dns.ts";
import { resourceFieldValue } from "../../../src/kubelet/spec/field-values.ts";
import { hostNetworkHostsFile, managedHostsFile } from "../../../src/kubelet/spec/hosts-file.ts";
import {
  mountPropagation,
  mountsRecursivelyReadOnly,
  mountSubPath,
} from "../../../src/kubelet/spec/mounts.ts";
import { podHostname } from "../../../src/kubelet/spec/pod-name.ts";
import { sandboxConfig } from "../../../src/kubelet/spec/sandbox-config.ts";
import { linuxSecurityContext } from "../../../src/kubelet/spec/security.ts";
import type { Mount, RuntimeFeature } from "../../../src/runtime/types.ts";
import { container, pod, record, running } from "./builders.ts";

const volumeMount = (more: Partial<VolumeMount> = {}): VolumeMount => ({
  name: "v",
  mountPath: "/v",
  ...more,
});

describe("recursiveReadOnly", () => {
  const prefix =
    'failed to resolve recursive read-only mode: volume "v" requested recursive read-only mode, but it is ';
  // Mount, supported, answer.
  const cases: readonly (readonly [Partial<VolumeMount>, boolean, boolean | string])[] = [
    [{}, true, false],
    [{ readOnly: true }, true, false],
    [{ readOnly: true, recursiveReadOnly: "Disabled" }, true, false],
    [{ readOnly: true, recursiveReadOnly: "IfPossible" }, true, true],
    [{ readOnly: true, recursiveReadOnly: "IfPossible" }, false, false],
    [{ readOnly: true, recursiveReadOnly: "Enabled" }, true, true],
    [
      { readOnly: true, recursiveReadOnly: "Enabled", mountPropagation: "None" },
      false,
      `${prefix}not supported by the runtime`,
    ],
    [{ recursiveReadOnly: "Enabled" }, true, `${prefix}not read-only`],
    [
      { readOnly: true, recursiveReadOnly: "IfPossible", mountPropagation: "HostToContainer" },
      true,
      `${prefix}not compatible with propagation "HostToContainer"`,
    ],
    [
      { readOnly: true, recursiveReadOnly: "Maybe" },
      true,
      'failed to resolve recursive read-only mode: unknown recursive read-only mode "Maybe"',
    ],
  ];
  for (const [mount, supported, expected] of cases) {
    test(`${JSON.stringify(mount)} ${supported ? "with" : "without"} support`, () => {
      const resolve = (): boolean => mountsRecursivelyReadOnly(volumeMount(mount), supported);
      if (typeof expected === "boolean") assert.equal(resolve(), expected);
      else assert.throws(resolve, { name: "ContainerConfigError", message: expected });
    });
  }
  test("shows in the status as what came of it", () => {
    const volumeMounts = [
      volumeMount({ readOnly: true, recursiveReadOnly: "IfPossible" }),
      volumeMount({ mountPath: "plain" }),
      volumeMount({ mountPath: "/ro", readOnly: true }),
    ];
    const subject = container("web", { volumeMounts });
    const shown = (paths: readonly string[]): unknown =>
      appliedFields(
        subject,
        record("web", running, { record: JSON.stringify({ recursiveReadOnly: paths }) }),
      ).volumeMounts;
    const rest = [
      { name: "v", mountPath: "plain" },
      { name: "v", mountPath: "/ro", readOnly: true, recursiveReadOnly: "Disabled" },
    ];
    const first = { name: "v", mountPath: "/v", readOnly: true };
    assert.deepEqual(shown(["/v"]), [{ ...first, recursiveReadOnly: "Enabled" }, ...rest]);
    assert.deepEqual(shown([]), [{ ...first, recursiveReadOnly: "Disabled" }, ...rest]);
  });
});

describe("subPath and subPathExpr", () => {
  const environment = new Map([
    ["POD", "web-0"],
    ["EMPTY", ""],
    ["ABS", "/etc"],
    ["UP", "a/.."],
  ]);
  const cases: readonly (readonly [Partial<VolumeMount>, string, RegExp?])[] = [
    [{}, ""],
    [{ subPath: "a/b" }, "a/b"],
    [{ subPath: "$(POD)" }, "$(POD)"],
    [{ subPathExpr: "logs/$(POD)" }, "logs/web-0"],
    [{ subPathExpr: "$$(POD)" }, "$(POD)"],
    [{ subPathExpr: "$(Z)/$(A)/$(Z)" }, "", /^missing value for A, Z$/],
    [{ subPathExpr: "x/$(EMPTY)" }, "", /^missing value for EMPTY$/],
    [{ subPathExpr: "$(ABS)" }, "", /^error SubPath `\/etc` must not be an absolute path$/],
    [{ subPath: "/etc" }, "", /^error SubPath `\/etc` must not be an absolute path$/],
    [
      { subPathExpr: "$(UP)" },
      "",
      /^unable to provision SubPath `a\/\.\.`: must not contain '\.\.'$/,
    ],
    [{ subPath: "../x" }, "", /must not contain '\.\.'$/],
    [{ subPath: "..x" }, "..x"],
  ];
  for (const [mount, expected, refusal] of cases) {
    test(JSON.stringify(mount), () => {
      const resolve = (): string => mountSubPath(volumeMount(mount), environment);
      if (refusal === undefined) assert.equal(resolve(), expected);
      else assert.throws(resolve, { name: "ContainerConfigError", message: refusal });
    });
  }
});

test("mountPropagation has three modes and no fourth", () => {
  const of = (mode?: string): Mount["propagation"] =>
    mountPropagation({ ...volumeMount(), mountPropagation: mode } as VolumeMount);
  assert.deepEqual(
    [of(), of("None"), of("HostToContainer"), of("Bidirectional")],
    ["private", "private", "hostToContainer", "bidirectional"],
  );
  assert.throws(() => of("Shared"), { message: 'invalid MountPropagation mode: "Shared"' });
});

describe("AppArmor", () => {
  const key = "container.apparmor.security.beta.kubernetes.io/web";
  const subject = (
    given: {
      readonly annotation?: string;
      readonly ofPod?: SecurityContext["appArmorProfile"];
      readonly own?: SecurityContext["appArmorProfile"];
    },
    phase?: "Running",
  ): ReturnType<typeof pod> =>
    pod(
      {
        containers: [container("web", { securityContext: { appArmorProfile: given.own } })],
        securityContext: { appArmorProfile: given.ofPod },
      },
      {
        metadata: {
          ...pod().metadata,
          annotations: given.annotation === undefined ? {} : { [key]: given.annotation },
        },
        ...(phase === undefined ? {} : { status: { phase } }),
      },
    );
  const localhost = { type: "Localhost", localhostProfile: "p" } as const;
  test("the container's field is before its annotation, and that before the pod's field", () => {
    const of = (given: Parameters<typeof subject>[0]): unknown => {
      const whole = subject(given);
      return appArmorProfile(whole, whole.spec?.containers[0] ?? container("none"));
    };
    const ofPod = { type: "RuntimeDefault" } as const;
    assert.deepEqual(of({ annotation: "unconfined", ofPod, own: localhost }), localhost);
    assert.deepEqual(of({ annotation: "unconfined", ofPod }), { type: "Unconfined" });
    assert.deepEqual(of({ annotation: "localhost/p", ofPod }), localhost);
    assert.deepEqual(of({ annotation: "runtime/default" }), ofPod);
    assert.deepEqual(of({ annotation: "nonsense", ofPod }), ofPod);
    assert.equal(of({}), undefined);
  });
  const disabled = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
  const empty = 'Cannot enforce AppArmor: invalid empty AppArmor profile name: ""';
  const cases: readonly (readonly [string, ReturnType<typeof pod>, boolean, string?])[] = [
    ["nothing asked", subject({}), false],
    ["Unconfined", subject({ own: { type: "Unconfined" } }), false],
    ["an annotation unconfined", subject({ annotation: "unconfined" }), false],
    ["RuntimeDefault of the pod", subject({ ofPod: { type: "RuntimeDefault" } }), false, disabled],
    ["Localhost", subject({ own: localhost }), false, disabled],
    ["an annotation", subject({ annotation: "runtime/default" }), false, disabled],
    ["what runs already", subject({ own: localhost }, "Running"), false],
    ["Localhost with AppArmor", subject({ own: localhost }), true],
    ["a profile without a name", subject({ annotation: "localhost/" }), true, empty],
  ];
  for (const [name, given, enabled, message] of cases) {
    test(`${name} on a host ${enabled ? "with" : "without"} it: ${message ?? "admitted"}`, () => {
      const features = new Set<RuntimeFeature>(enabled ? ["appArmor"] : []);
      assert.deepEqual(
        refuseUnsupported(given, features),
        message === undefined ? undefined : { reason: "AppArmor", message },
      );
    });
  }
});

describe("fields that this node cannot honour are refused", () => {
  const inContainer = (more: Parameters<typeof container>[1]): Partial<PodSpec> => ({
    containers: [container("web", more)],
  });
  const cases: readonly (readonly [Partial<PodSpec>, RegExp, RuntimeFeature?])[] = [
    [{ hostUsers: false }, /hostUsers/],
    [{ resourceClaims: [{ name: "gpu" }] }, /resourceClaims/],
    [{ securityContext: { windowsOptions: {} } }, /windowsOptions/],
    [inContainer({ securityContext: { windowsOptions: {} } }), /"web".*windowsOptions/],
    [{ securityContext: { seLinuxChangePolicy: "Recursive" } }, /seLinuxChangePolicy/, "seLinux"],
    [
      { hostUsers: false, ...inContainer({ securityContext: { procMount: "Unmasked" } }) },
      /^spec\.hostUsers: false/,
    ],
    [inContainer({ resources: { claims: [{ name: "gpu" }] } }), /resources\.claims/],
    [inContainer({ securityContext: { privileged: true } }), /privileged/],
  ];
  for (const [spec, message, feature] of cases) {
    test(JSON.stringify(spec), () => {
      const features = new Set<RuntimeFeature>(feature === undefined ? [] : [feature]);
      const refusal = refuseUnsupported(pod(spec), features);
      assert.equal(refusal?.reason, "PodFeatureUnsupported");
      assert.match(refusal.message, message);
    });
  }
  test("procMount is not: the API server asks for hostUsers: false with it, the node does not", () => {
    const own = { procMount: "Unmasked" } as const;
    const subject = inContainer({ securityContext: own });
    assert.equal(refuseUnsupported(pod(subject), new Set()), undefined);
    const context = (securityContext: SecurityContext): boolean =>
      linuxSecurityContext(pod(), container("web", { securityContext }), new Map()).unmaskedProc;
    assert.deepEqual(
      [context(own), context({ procMount: "Default" }), context({})],
      [true, false, false],
    );
  });
  test("and those that mean nothing here are not", () => {
    const spec: Partial<PodSpec> = {
      hostUsers: true,
      securityContext: { seLinuxChangePolicy: "MountOption" },
      ...inContainer({ securityContext: { procMount: "Default", privileged: false } }),
    };
    assert.equal(refuseUnsupported(pod(spec), new Set()), undefined);
  });
});

describe("security context", () => {
  const of = (
    own: SecurityContext,
    outer: NonNullable<PodSpec["securityContext"]> = {},
  ): ReturnType<typeof linuxSecurityContext> => {
    const subject = container("web", { securityContext: own });
    return linuxSecurityContext(
      pod({ containers: [subject], securityContext: outer }),
      subject,
      new Map([["p.json", "{}"]]),
    );
  };
  test("the container's word is before the pod's", () => {
    const outer = { runAsUser: 1, runAsGroup: 2, seLinuxOptions: { level: "s0" } };
    assert.deepEqual(
      [of({}, outer).runAsUser, of({ runAsUser: 0 }, outer).runAsUser, of({}, outer).runAsGroup],
      [1, 0, 2],
    );
    assert.deepEqual(of({ seLinuxOptions: { user: "u" } }, outer).seLinux, { user: "u" });
  });
  test("fsGroup comes first among the groups, each of them once", () => {
    const { supplementalGroups } = of({}, { fsGroup: 9, supplementalGroups: [5, 9, 5] });
    assert.deepEqual(supplementalGroups, [9, 5]);
  });
  const profiles: readonly (readonly [string, SecurityContext, object])[] = [
    ["unset is unconfined", {}, { kind: "unconfined" }],
    ["RuntimeDefault", { seccompProfile: { type: "RuntimeDefault" } }, { kind: "runtimeDefault" }],
    [
      "Localhost is the text of the file",
      { seccompProfile: { type: "Localhost", localhostProfile: "p.json" } },
      { kind: "localhost", profile: "{}" },
    ],
    [
      "privileged overrides it",
      { privileged: true, seccompProfile: { type: "RuntimeDefault" } },
      { kind: "unconfined" },
    ],
  ];
  for (const [name, own, expected] of profiles) {
    test(`seccomp: ${name}`, () => {
      assert.deepEqual(of(own).seccomp, expected);
    });
  }
  test("seccompDefault: what names no profile gets the runtime's, what names one keeps it", () => {
    const withDefault = (own: SecurityContext, outer = {}): object => {
      const subject = container("web", { securityContext: own });
      const whole = pod({ containers: [subject], securityContext: outer });
      return linuxSecurityContext(whole, subject, new Map(), true).seccomp;
    };
    const unconfined = { seccompProfile: { type: "Unconfined" } } as const;
    assert.deepEqual(withDefault({}), { kind: "runtimeDefault" });
    assert.deepEqual(withDefault(unconfined), { kind: "unconfined" });
    assert.deepEqual(withDefault({}, unconfined), { kind: "unconfined" });
    assert.deepEqual(withDefault({ privileged: true }), { kind: "unconfined" });
  });
  test("seccomp Localhost without a name is a configuration error", () => {
    assert.throws(
      () => of({ seccompProfile: { type: "Localhost" } }),
      /localhostProfile must be set/,
    );
  });
  test("no_new_privs only where escalation is forbidden in words", () => {
    const wanted = [undefined, true, false].map(
      (allowPrivilegeEscalation) => of({ allowPrivilegeEscalation }).noNewPrivileges,
    );
    assert.deepEqual(wanted, [false, false, true]);
  });
});

describe("host names", () => {
  const long = "x".repeat(70);
  const cases: readonly (readonly [Partial<PodSpec>, string, string, string])[] = [
    [{}, "web", "web", ""],
    [{ hostname: "h" }, "h", "h", ""],
    [{ subdomain: "s" }, "web", "web", "s.ns.svc.cluster.local"],
    [{ setHostnameAsFQDN: true }, "web", "web", ""],
    [
      { subdomain: "s", setHostnameAsFQDN: true },
      "web.s.ns.svc.cluster.local",
      "web",
      "s.ns.svc.cluster.local",
    ],
    [{ hostnameOverride: "a.b.c", hostname: "h", subdomain: "s" }, "a.b.c", "a.b.c", ""],
    [{ hostname: long }, long.slice(0, 63), long.slice(0, 63), ""],
    [{ hostname: `${"x".repeat(61)}-.y` }, "x".repeat(61), "x".repeat(61), ""],
  ];
  for (const [spec, hostname, short, domain] of cases) {
    test(JSON.stringify(spec), () => {
      assert.deepEqual(podHostname(pod(spec), "cluster.local"), { hostname, short, domain });
    });
  }
  test("an FQDN that the kernel cannot hold is an error of the sandbox", () => {
    const spec = { hostname: "h".repeat(60), subdomain: "s", setHostnameAsFQDN: true };
    assert.throws(() => podHostname(pod(spec), "cluster.local"), {
      name: "HostnameError",
      message: `failed to construct FQDN from pod hostname and cluster domain, FQDN ${"h".repeat(60)}.s.ns.svc.cluster.local is too long (64 characters is the max, 83 characters requested)`,
    });
  });
  test("a pod on the node's network has the node's", () => {
    const config = sandboxConfig(pod({ hostNetwork: true, hostname: "h" }), {
      attempt: 0,
      clusterDomain: "cluster.local",
      nodeName: "worker",
      cgroup: undefined,
      runtimeHandler: "",
    });
    assert.equal(config.hostname, "worker");
  });
});

test("/etc/hosts has every address with every name, and the aliases by address", () => {
  const aliases = [{ ip: "1.2.3.4", hostnames: ["a", "b"] }, { ip: "::2" }];
  const text = managedHostsFile({
    ips: ["10.0.0.1", "fd00::1"],
    hostname: "h",
    domain: "d",
    aliases,
  });
  assert.ok(text.startsWith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
  assert.ok(
    text.endsWith(
      "fe00::2\tip6-allrouters\n10.0.0.1\th.d\th\nfd00::1\th.d\th\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n::2\t\n",
    ),
  );
  assert.equal(
    hostNetworkHostsFile("127.0.0.1 me\n", []),
    "# Kubernetes-managed hosts file (host network).\n127.0.0.1 me\n",
  );
});

describe("resolv.conf", () => {
  const host = { nameservers: ["1.1.1.1"], searches: ["corp"], options: ["timeout:2"] };
  const cluster = { dns: ["10.96.0.10"], domain: "c.local", nodeIPs: ["192.0.2.1", "fd00::9"] };
  const ofCluster =
    "search ns.svc.c.local svc.c.local c.local corp\nnameserver 10.96.0.10\noptions ndots:5\n";
  const ofHost = "search corp\nnameserver 1.1.1.1\noptions timeout:2\n";
  const dnsConfig = {
    nameservers: ["9.9.9.9", "1.1.1.1", "10.96.0.10"],
    searches: ["corp", "more"],
    options: [{ name: "ndots", value: "2" }, { name: "edns0" }],
  };
  const cases: readonly (readonly [Partial<PodSpec>, string])[] = [
    [{}, ofCluster],
    [{ dnsPolicy: "ClusterFirst" }, ofCluster],
    [{ dnsPolicy: "ClusterFirst", hostNetwork: true }, ofHost],
    [{ dnsPolicy: "ClusterFirstWithHostNet", hostNetwork: true }, ofCluster],
    [{ dnsPolicy: "ClusterFirstWithHostNet" }, ofCluster],
    [{ dnsPolicy: "Default" }, ofHost],
    [{ dnsPolicy: "None" }, ""],
    [
      { dnsPolicy: "None", dnsConfig },
      "search corp more\nnameserver 9.9.9.9\nnameserver 1.1.1.1\nnameserver 10.96.0.10\noptions ndots:2 edns0\n",
    ],
    [
      { dnsPolicy: "Default", dnsConfig },
      "search corp more\nnameserver 1.1.1.1\nnameserver 9.9.9.9\nnameserver 10.96.0.10\noptions timeout:2 ndots:2 edns0\n",
    ],
    [
      { dnsConfig },
      "search ns.svc.c.local svc.c.local c.local corp more\nnameserver 10.96.0.10\nnameserver 9.9.9.9\nnameserver 1.1.1.1\noptions ndots:2 edns0\n",
    ],
  ];
  for (const [spec, expected] of cases) {
    test(JSON.stringify(spec), () => {
      const result = podResolvConf(pod(spec), host, cluster);
      assert.equal(formatResolvConf(result), expected);
      assert.deepEqual(result.warnings, []);
    });
  }
  test("of a node that is told to give pods none", () => {
    const text = (spec: Partial<PodSpec>): string =>
      formatResolvConf(podResolvConf(pod(spec), undefined, cluster));
    assert.equal(
      text({ dnsPolicy: "Default" }),
      "search .\nnameserver 127.0.0.1\nnameserver ::1\n",
    );
    assert.equal(
      text({}),
      "search ns.svc.c.local svc.c.local c.local\nnameserver 10.96.0.10\noptions ndots:5\n",
    );
  });
  test("without cluster DNS is the node's, and says so", () => {
    const result = podResolvConf(pod(), host, { dns: [], domain: "" });
    assert.equal(formatResolvConf(result), ofHost);
    assert.deepEqual(result.warnings, [
      {
        reason: "MissingClusterDNS",
        message:
          'pod: "web_ns(uid-1)". kubelet does not have ClusterDNS IP configured and cannot create Pod using "ClusterFirst" policy. Falling back to "Default" policy.',
      },
    ]);
  });
  const manyServers = ["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"];
  const many = Array.from({ length: 33 }, (_, index) => `s${index}`);
  const wide = Array.from({ length: 10 }, (_, index) => `${"x".repeat(240)}${index}`);
  const limits: readonly (readonly [string, PodSpec["dnsConfig"], readonly string[]])[] = [
    ["three nameservers", { nameservers: manyServers }, manyServers.slice(0, 3)],
    ["32 search domains", { searches: many }, many.slice(0, 32)],
    ["2048 characters of them", { searches: wide }, wide.slice(0, 8)],
    ["253 of each", { searches: ["y".repeat(254), "ok"] }, ["ok"]],
  ];
  for (const [name, config, kept] of limits) {
    test(`has at most ${name}, and tells what it kept`, () => {
      const result = podResolvConf(pod({ dnsPolicy: "None", dnsConfig: config }), host, cluster);
      const isServers = config?.nameservers !== undefined;
      assert.deepEqual(isServers ? result.nameservers : result.searches, kept);
      const what = isServers
        ? "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "
        : "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: ";
      assert.deepEqual(result.warnings, [
        { reason: "DNSConfigForming", message: what + kept.join(" ") },
      ]);
    });
  }
});

test("a limit of the pod stands in for the node's size, and huge pages are never overcommitted", () => {
  const web = container("web", { resources: { limits: { memory: "0" } } });
  const subject = pod({ containers: [web], resources: { limits: { memory: "1Gi" } } });
  const value = (resource: string): string =>
    resourceFieldValue(
      subject,
      web,
      { resource },
      {
        cpu: "4",
        memory: "8Gi",
        "hugepages-2Mi": "1Gi",
      },
    );
  assert.equal(value("limits.memory"), String(2 ** 30));
  assert.equal(value("limits.cpu"), "4");
  assert.equal(value("limits.hugepages-2Mi"), "0");
});

test("a Secret's keys become variables, with a prefix; one that is optional may be missing", () => {
  const environment = (name: string, optional: boolean): ReadonlyMap<string, string> =>
    containerEnvironment(
      pod(),
      container("web", { envFrom: [{ prefix: "P_", secretRef: { name, optional } }] }),
      {
        configMap: () => undefined,
        secret: (wanted) => (wanted === "s" ? { "a.b": "1" } : undefined),
        services: new Map(),
        addresses: { podIPs: [], hostIPs: [] },
        allocatable: {},
      },
    );
  assert.deepEqual([...environment("s", false)], [["P_a.b", "1"]]);
  assert.deepEqual([...environment("none", true)], []);
  assert.throws(() => environment("none", false), { message: 'secret "none" not found' });
});

describe("what is made of a container", () => {
  const debug = { name: "debug", image: "b", targetContainerName: "web" };
  const facts: ContainerFacts = {
    attempt: 0,
    image: { id: "i", tags: [], digests: [], sizeBytes: 0, user: {}, stopSignal: undefined },
    environment: new Map(),
    mounts: [],
    security: linuxSecurityContext(pod(), container("web"), new Map()),
    targetContainerID: "target",
    backoffMs: 0,
    terminationMessageFile: "",
  };
  const limits = { nodeMemoryBytes: 0, podPidsLimit: -1, logMaxBytes: 1, logMaxFiles: 2 };
  const cases: readonly (readonly [Partial<PodSpec>, string, string | undefined])[] = [
    [{}, "container", "target"],
    [{ shareProcessNamespace: true }, "pod", undefined],
    [{ hostPID: true }, "node", undefined],
  ];
  test("command and args know its variables, and are left out where they are not set", () => {
    const of = (more: Parameters<typeof container>[1]): readonly unknown[] => {
      const [entry] = regularContainers(pod({ containers: [container("web", more)] }));
      assert.ok(entry !== undefined);
      const environment = new Map([["A", "x y"]]);
      const config = containerConfig(pod(), entry, { ...facts, environment }, limits);
      return [config.command, config.args, config.workingDir];
    };
    assert.deepEqual(of({ command: ["run", "$(A)", "$$(A)"], args: ["$(B)"], workingDir: "/w" }), [
      ["run", "x y", "$(A)"],
      ["$(B)"],
      "/w",
    ]);
    assert.deepEqual(of({ command: [], workingDir: "" }), [undefined, undefined, undefined]);
  });
  for (const [spec, pid, targetContainerID] of cases) {
    test(`an ephemeral one joins its target's processes unless all are shared: ${JSON.stringify(spec)}`, () => {
      const subject = pod({ ...spec, ephemeralContainers: [debug] });
      const [entry] = ephemeralContainers(subject);
      assert.ok(entry !== undefined);
      const config = containerConfig(subject, entry, facts, limits);
      assert.deepEqual([config.pid, config.targetContainerID], [pid, targetContainerID]);
    });
  }
  test("its stop signal, mounts and user show in the status", () => {
    const subject = pod({
      containers: [container("web", { lifecycle: { stopSignal: "SIGUSR1" } })],
    });
    const [entry] = regularContainers(subject);
    assert.ok(entry !== undefined);
    assert.equal(containerConfig(subject, entry, facts, limits).stopSignal, "SIGUSR1");
    const user = { uid: 1, gid: 2, supplementalGroups: [2, 3] };
    assert.deepEqual(appliedFields(entry.container, record("web", running, { user })), {
      user: { linux: user },
      stopSignal: "SIGUSR1",
    });
    assert.deepEqual(appliedFields(entry.container, undefined), {});
    assert.deepEqual(appliedFields(container("web"), record("web", running)), {});
  });
});
