import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { isRecord, type JsonRecord } from "../../../src/lib/guard.ts";
import {
  containerCreateBody,
  type HostFacts,
  sandboxCreateBody,
} from "../../../src/runtime/docker/container-config.ts";
import { allCapabilities } from "../../../src/runtime/docker/capabilities.ts";
import { isRuntimeFailure } from "../../../src/runtime/errors.ts";
import type {
  ContainerConfig,
  LinuxSecurityContext,
  PodSandboxConfig,
  SandboxRecord,
} from "../../../src/runtime/types.ts";

const owner = { nodeName: "n1", scope: "" };
const host: HostFacts = {
  api: 41,
  cgroupVersion: 2,
  boundingCapabilities: allCapabilities,
  appArmor: false,
  handlers: ["runc", "runsc"],
};
const limitedHost: HostFacts = {
  ...host,
  boundingCapabilities: new Set(["CHOWN", "NET_ADMIN"]),
};

function podConfig(over: Partial<PodSandboxConfig> = {}): PodSandboxConfig {
  return {
    metadata: { name: "web", namespace: "default", uid: "u1", attempt: 2 },
    hostname: "web",
    labels: { app: "web" },
    record: "{}",
    network: "pod",
    ipc: "pod",
    pid: "container",
    sysctls: {},
    cgroupParent: undefined,
    runtimeHandler: "",
    shmBytes: undefined,
    ...over,
  };
}

function sandbox(over: Partial<SandboxRecord> = {}): SandboxRecord {
  return {
    id: "sb",
    metadata: { name: "web", namespace: "default", uid: "u1", attempt: 2 },
    ready: true,
    pid: 10,
    network: "pod",
    createdAt: 0,
    labels: {},
    record: "",
    ...over,
  };
}

const security: LinuxSecurityContext = {
  privileged: false,
  runAsUser: undefined,
  runAsGroup: undefined,
  supplementalGroups: [],
  supplementalGroupsPolicy: "Merge",
  readOnlyRootFilesystem: false,
  noNewPrivileges: false,
  addCapabilities: [],
  dropCapabilities: [],
  seccomp: { kind: "runtimeDefault" },
  appArmor: undefined,
  seLinux: undefined,
  unmaskedProc: false,
};

function config(over: Partial<ContainerConfig> = {}): ContainerConfig {
  return {
    name: "main",
    attempt: 3,
    imageID: "sha256:abc",
    command: undefined,
    args: undefined,
    env: [],
    workingDir: undefined,
    mounts: [],
    devices: [],
    labels: {},
    specHash: "h",
    record: "{}",
    logPath: "a/b/3.log",
    logMaxBytes: 10,
    logMaxFiles: 5,
    stdin: false,
    stdinOnce: false,
    tty: false,
    resources: {
      cpuShares: 102,
      cpuQuotaMicros: 0,
      cpuPeriodMicros: 100_000,
      memoryLimitBytes: 0,
      oomScoreAdj: 0,
      pidsLimit: 0,
    },
    security,
    pid: "container",
    targetContainerID: undefined,
    stopSignal: undefined,
    terminationGracePeriodSeconds: 30,
    ...over,
  };
}

function body(
  over: Partial<ContainerConfig> = {},
  options: { facts?: HostFacts; sandbox?: SandboxRecord } = {},
): { readonly top: JsonRecord; readonly hostConfig: JsonRecord } {
  const top = containerCreateBody(config(over), {
    owner,
    sandbox: options.sandbox ?? sandbox(),
    host: options.facts ?? host,
    user: { user: "", groups: [] },
  });
  const hostConfig = top["HostConfig"];
  assert.ok(isRecord(hostConfig));
  return { top, hostConfig };
}

function withResources(
  over: Partial<ContainerConfig["resources"]>,
): Pick<ContainerConfig, "resources"> {
  return { resources: { ...config().resources, ...over } };
}

function withSecurity(over: Partial<LinuxSecurityContext>): Pick<ContainerConfig, "security"> {
  return { security: { ...security, ...over } };
}

describe("the create body of a container", () => {
  it("sends Entrypoint and Cmd only when the pod sets them", () => {
    const neither = body().top;
    assert.equal("Entrypoint" in neither || "Cmd" in neither, false);
    const command = body({ command: ["a"] }).top;
    assert.deepEqual(command["Entrypoint"], ["a"]);
    assert.equal("Cmd" in command, false, "the image's CMD is dropped by the engine then");
    const args = body({ args: ["b"] }).top;
    assert.equal("Entrypoint" in args, false);
    assert.deepEqual(args["Cmd"], ["b"]);
    const empty = body({ command: [], args: [] }).top;
    assert.equal("Entrypoint" in empty || "Cmd" in empty, false);
  });

  it("never sends what is refused with a joined network", () => {
    const { top, hostConfig } = body();
    assert.equal(hostConfig["NetworkMode"], "container:sb");
    for (const key of ["Hostname", "Domainname", "ExposedPorts"]) assert.equal(key in top, false);
    for (const key of ["Dns", "ExtraHosts", "PortBindings"]) {
      assert.equal(key in hostConfig, false);
    }
  });

  it("gives memory without swap, and no quota below what the kernel takes", () => {
    const { hostConfig } = body(withResources({ memoryLimitBytes: 1 << 26, cpuQuotaMicros: 500 }));
    assert.equal(hostConfig["Memory"], 1 << 26);
    assert.equal(hostConfig["MemorySwap"], 1 << 26);
    assert.equal(hostConfig["CpuQuota"], 1000);
    assert.equal("NanoCpus" in hostConfig, false);
  });

  it("refuses a memory limit below the engine's minimum, with the figure", () => {
    assert.throws(
      () => body(withResources({ memoryLimitBytes: 4 << 20 })),
      (error) => isRuntimeFailure(error, "InvalidSpec") && /4194304.*6Mi/.test(String(error)),
    );
  });

  it("keeps read-only mounts non-recursive from API 1.44 and sends no such key before", () => {
    const mounts = [
      { hostPath: "/a", containerPath: "/b", readOnly: true, propagation: "private" as const },
      {
        hostPath: "/c",
        containerPath: "/d",
        readOnly: false,
        propagation: "bidirectional" as const,
      },
    ];
    assert.deepEqual(body({ mounts }).hostConfig["Mounts"], [
      {
        Type: "bind",
        Source: "/a",
        Target: "/b",
        ReadOnly: true,
        BindOptions: {},
      },
      {
        Type: "bind",
        Source: "/c",
        Target: "/d",
        ReadOnly: false,
        BindOptions: { Propagation: "rshared" },
      },
    ]);
    const newer = JSON.stringify(body({ mounts }, { facts: { ...host, api: 44 } }).hostConfig);
    assert.equal(newer.match(/ReadOnlyNonRecursive/g)?.length, 1);
  });

  it("makes a tree of mounts read-only from API 1.44, and refuses to pretend before", () => {
    const mounts = [
      {
        hostPath: "/a",
        containerPath: "/b",
        readOnly: true,
        propagation: "private" as const,
        recursiveReadOnly: true,
      },
    ];
    const newer = JSON.stringify(body({ mounts }, { facts: { ...host, api: 44 } }).hostConfig);
    assert.match(newer, /"Propagation":"rprivate","ReadOnlyForceRecursive":true/);
    assert.doesNotMatch(newer, /ReadOnlyNonRecursive/);
    assert.throws(
      () => body({ mounts }),
      (error) => isRuntimeFailure(error, "Unsupported") && /1\.41/.test(String(error)),
    );
  });

  it("shows an image by the engine's own mount, and says nothing of propagation about it", () => {
    const mount = {
      hostPath: "",
      containerPath: "/content",
      readOnly: true,
      recursiveReadOnly: true,
      propagation: "private" as const,
    };
    const id = `sha256:${"1".repeat(64)}`;
    const whole = { ...mount, image: { id, subPath: "" } };
    const part = { ...mount, containerPath: "/part", image: { id, subPath: "a/b" } };
    const third = { ...mount, containerPath: "/third", image: { id, subPath: "" } };
    const facts = { ...host, api: 48 };
    // Docker 28 mounts an image once under each name of it.
    assert.deepEqual(body({ mounts: [whole, part, third] }, { facts }).hostConfig["Mounts"], [
      { Type: "image", Source: id, Target: "/content", ReadOnly: true },
      {
        Type: "image",
        Source: "1".repeat(64),
        Target: "/part",
        ReadOnly: true,
        ImageOptions: { Subpath: "a/b" },
      },
      { Type: "image", Source: "1".repeat(63), Target: "/third", ReadOnly: true },
    ]);
    assert.throws(
      () => body({ mounts: [whole] }, { facts: { ...host, api: 47 } }),
      (error) => isRuntimeFailure(error, "Unsupported") && /1\.47.*1\.48/.test(String(error)),
    );
    assert.throws(() => body({ mounts: [mount] }, { facts }), /must be absolute/);
  });

  const capabilityCases = [
    ["nothing", [], [], [], []],
    ["names with and without the prefix", ["CAP_NET_ADMIN"], ["chown"], ["NET_ADMIN"], ["CHOWN"]],
    ["drop ALL leaves what is added by name", ["NET_ADMIN"], ["ALL"], ["NET_ADMIN"], ["ALL"]],
    ["drop ALL wins over add ALL", ["ALL", "CHOWN"], ["ALL"], ["CHOWN"], ["ALL"]],
    ["a dropped name is not added", ["CHOWN"], ["CHOWN"], [], ["CHOWN"]],
    ["add ALL is what the engine has", ["ALL", "CHOWN"], [], ["CHOWN", "NET_ADMIN"], []],
  ] as const;
  for (const [name, addCapabilities, dropCapabilities, CapAdd, CapDrop] of capabilityCases) {
    it(`capabilities: ${name}`, () => {
      const { hostConfig } = body(withSecurity({ addCapabilities, dropCapabilities }), {
        facts: limitedHost,
      });
      assert.deepEqual([hostConfig["CapAdd"], hostConfig["CapDrop"]], [CapAdd, CapDrop]);
    });
  }

  it("capabilities: add ALL in the engine's own words where it lacks none of those it knows", () => {
    const add = (facts: HostFacts): unknown => {
      const over = { addCapabilities: ["ALL"], dropCapabilities: ["CHOWN"] };
      const { hostConfig } = body(withSecurity(over), { facts });
      assert.deepEqual(hostConfig["CapDrop"], ["CHOWN"]);
      return hostConfig["CapAdd"];
    };
    const without = (...names: readonly string[]): ReadonlySet<string> =>
      new Set([...allCapabilities].filter((name) => !names.includes(name)));
    assert.deepEqual(add(host), ["ALL"]);
    assert.deepEqual(add({ ...host, boundingCapabilities: without("BPF", "PERFMON") }), ["ALL"]);
    const fewer = { ...host, boundingCapabilities: without("SYS_RESOURCE") };
    const old = add(fewer) as string[];
    assert.equal(old.includes("SYS_ADMIN"), true);
    for (const name of ["SYS_RESOURCE", "BPF", "CHOWN"]) assert.equal(old.includes(name), false);
    assert.equal((add({ ...fewer, api: 42 }) as string[]).includes("BPF"), true);
  });

  it("masks what this machine's processors tell about its load, unless proc is unmasked", () => {
    const own = "/sys/devices/system/cpu/cpu0/thermal_throttle";
    const facts = { ...host, maskedPaths: [own] };
    const masked = body({}, { facts }).hostConfig["MaskedPaths"] as string[];
    assert.ok(masked.includes(own));
    const unmasked = body(withSecurity({ unmaskedProc: true }), { facts });
    assert.deepEqual(unmasked.hostConfig["MaskedPaths"], []);
  });

  it("refuses a mount path that is relative or used twice", () => {
    const mount = { hostPath: "/a", readOnly: false, propagation: "private" as const };
    assert.throws(
      () => body({ mounts: [{ ...mount, containerPath: "data" }] }),
      /must be absolute/,
    );
    assert.throws(
      () => body({ mounts: [1, 2].map(() => ({ ...mount, containerPath: "/data" })) }),
      /used twice/,
    );
  });

  it("names the built-in seccomp profile where the engine knows a name for it", () => {
    assert.deepEqual(body().hostConfig["SecurityOpt"], []);
    const newer = body({}, { facts: { ...host, api: 42 } });
    assert.deepEqual(newer.hostConfig["SecurityOpt"], ["seccomp=builtin"]);
    const localhost = body(withSecurity({ seccomp: { kind: "localhost", profile: "{}" } }));
    assert.deepEqual(localhost.hostConfig["SecurityOpt"], ["seccomp={}"]);
  });

  it("refuses an AppArmor profile that the host would silently not apply", () => {
    assert.throws(
      () => body(withSecurity({ appArmor: { kind: "localhost", profile: "p" } })),
      (error) =>
        isRuntimeFailure(error, "Unsupported") && /AppArmor is not enabled/.test(String(error)),
    );
  });

  it("translates SELinux options one by one", () => {
    const { hostConfig } = body(
      withSecurity({ seLinux: { user: "u", level: "s0:c1" }, seccomp: { kind: "unconfined" } }),
    );
    assert.deepEqual(hostConfig["SecurityOpt"], [
      "seccomp=unconfined",
      "label=user:u",
      "label=level:s0:c1",
    ]);
  });

  it("masks proc by default, and not for privileged or unmasked containers", () => {
    assert.ok((body().hostConfig["MaskedPaths"] as string[]).includes("/proc/kcore"));
    assert.deepEqual(body(withSecurity({ unmaskedProc: true })).hostConfig["MaskedPaths"], []);
    assert.deepEqual(body(withSecurity({ privileged: true })).hostConfig["ReadonlyPaths"], []);
  });

  it("clamps or refuses what an engine without CAP_SYS_RESOURCE cannot do", () => {
    const negative = withResources({ oomScoreAdj: -997 });
    assert.equal(body(negative).hostConfig["OomScoreAdj"], -997);
    assert.equal(body(negative, { facts: limitedHost }).hostConfig["OomScoreAdj"], 0);
    assert.throws(
      () => body(withSecurity({ privileged: true }), { facts: limitedHost }),
      (error) => isRuntimeFailure(error, "Unsupported"),
    );
    assert.throws(
      () => body(withSecurity({ addCapabilities: ["CAP_SYS_ADMIN"] }), { facts: limitedHost }),
      /SYS_ADMIN/,
    );
    const all = body(withSecurity({ addCapabilities: ["ALL"], dropCapabilities: ["CHOWN"] }), {
      facts: limitedHost,
    });
    assert.deepEqual(all.hostConfig["CapAdd"], ["NET_ADMIN"]);
    assert.deepEqual(all.hostConfig["CapDrop"], ["CHOWN"]);
  });

  it("joins the pid namespace that was asked for", () => {
    assert.equal("PidMode" in body().hostConfig, false);
    assert.equal(body({ pid: "pod" }).hostConfig["PidMode"], "container:sb");
    assert.equal(body({ pid: "node" }).hostConfig["PidMode"], "host");
    const target = body({ targetContainerID: "t", pid: "pod" });
    assert.equal(target.hostConfig["PidMode"], "container:t");
  });

  it("repeats what the sandbox has: host IPC, host UTS, cgroup parent, runtime handler", () => {
    const { hostConfig } = body(
      {},
      {
        sandbox: sandbox({
          network: "node",
          labels: {
            "remora.io/ipc": "node",
            "remora.io/cgroup-parent": "/kubepods/podu1",
            "remora.io/runtime-handler": "runsc",
          },
        }),
      },
    );
    assert.equal(hostConfig["IpcMode"], "host");
    assert.equal(hostConfig["UTSMode"], "host");
    assert.equal(hostConfig["CgroupParent"], "/kubepods/podu1");
    assert.equal(hostConfig["Runtime"], "runsc");
  });

  it("owns restarts, health checks and logs itself", () => {
    const { top, hostConfig } = body({ logMaxFiles: 1 });
    assert.deepEqual(hostConfig["RestartPolicy"], { Name: "no" });
    assert.deepEqual(top["Healthcheck"], { Test: ["NONE"] });
    assert.equal(hostConfig["Init"], false);
    assert.deepEqual(hostConfig["LogConfig"], {
      Type: "json-file",
      Config: { "max-size": "10", "max-file": "2" },
    });
  });

  it("does not let a pod's labels pass for ours", () => {
    const labels = body({ labels: { "remora.io/node": "evil", "x/y": "1" } }).top["Labels"];
    assert.ok(isRecord(labels));
    assert.equal(labels["remora.io/node"], "n1");
    assert.equal(labels["x/y"], "1");
    assert.equal(labels["io.kubernetes.sandbox.id"], "sb");
    assert.equal(labels["remora.io/attempt"], "3");
    assert.equal(labels["remora.io/schema"], "1");
  });

  it("refuses an environment name that the engine would read as something else", () => {
    assert.throws(() => body({ env: [{ name: "", value: "x" }] }), /environment/);
    assert.throws(() => body({ env: [{ name: "a=b", value: "x" }] }), /environment/);
    assert.deepEqual(body({ env: [{ name: "A", value: "b=c\nd" }] }).top["Env"], ["A=b=c\nd"]);
  });
});

describe("the create body of a sandbox", () => {
  const options = { owner, pauseImage: "p", host };

  it("has its own network namespace that the engine knows nothing about", () => {
    const top = sandboxCreateBody(podConfig({ sysctls: { "net.core.somaxconn": "1" } }), options);
    assert.equal(top["NetworkDisabled"], true);
    assert.equal(top["Hostname"], "web");
    const hostConfig = top["HostConfig"];
    assert.ok(isRecord(hostConfig));
    assert.equal(hostConfig["NetworkMode"], "none");
    assert.equal(hostConfig["IpcMode"], "shareable");
    assert.equal(hostConfig["ReadonlyRootfs"], true);
    assert.deepEqual(hostConfig["CapDrop"], ["ALL"]);
    assert.deepEqual(hostConfig["Sysctls"], { "net.core.somaxconn": "1" });
  });

  it("shares network, name and processes of the node when asked", () => {
    const top = sandboxCreateBody(
      podConfig({ network: "node", ipc: "node", pid: "node", shmBytes: 1 }),
      options,
    );
    assert.equal("Hostname" in top || "NetworkDisabled" in top, false);
    const hostConfig = top["HostConfig"];
    assert.ok(isRecord(hostConfig));
    assert.equal(hostConfig["NetworkMode"], "host");
    assert.equal(hostConfig["UTSMode"], "host");
    assert.equal(hostConfig["PidMode"], "host");
    assert.equal(hostConfig["IpcMode"], "host");
    assert.equal("ShmSize" in hostConfig, false);
  });

  it("refuses a runtime handler the engine does not have and names those it has", () => {
    assert.throws(
      () => sandboxCreateBody(podConfig({ runtimeHandler: "kata" }), options),
      /"kata".*runc, runsc/,
    );
  });
});
