import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { NodeCondition, NodeStatus } from "../../../src/api/types.gen.ts";
import {
  computeAllocatable,
  computeCapacity,
  formatBytes,
  type MachineCapacity,
  parseAmount,
  thresholdValue,
} from "../../../src/kubelet/node/allocatable.ts";
import { chooseNodeIPs, nodeAddresses } from "../../../src/kubelet/node/choose-node-ips.ts";
import { computeConditions, conditionEvents } from "../../../src/kubelet/node/conditions.ts";
import { meminfoBytes, prettyName } from "../../../src/kubelet/node/host.ts";
import {
  computeNodeStatus,
  imageList,
  statusChanged,
  statusPatch,
} from "../../../src/kubelet/node/node-status.ts";
import { PressureMemory, pressureNow } from "../../../src/kubelet/node/pressure.ts";
import { ParseError } from "../../../src/lib/errors.ts";
import type { Image, RuntimeInfo } from "../../../src/runtime/types.ts";

describe("capacity and allocatable", () => {
  const machine: MachineCapacity = {
    cpuMillicores: 2000,
    memoryBytes: 24684092 * 1024,
    ephemeralStorageBytes: 264212084 * 1024,
    maxPods: 110,
    hugePages: new Map([
      [2 ** 21, 0],
      [2 ** 30, 0],
    ]),
  };
  const defaults = { "memory.available": "100Mi", "nodefs.available": "10%" };

  test("are those that the reference kubelet recorded for the same machine", () => {
    const none = { kubeReserved: {}, systemReserved: {} };
    assert.deepEqual(computeCapacity(machine), {
      cpu: "2",
      "ephemeral-storage": "264212084Ki",
      "hugepages-1Gi": "0",
      "hugepages-2Mi": "0",
      memory: "24684092Ki",
      pods: "110",
    });
    // The recorded kubelet ran with memory.available < 50Mi and nodefs.available < 1 %.
    const evictionHard = { "memory.available": "50Mi", "nodefs.available": "1%" };
    assert.deepEqual(computeAllocatable(machine, { ...none, evictionHard }), {
      cpu: "2",
      "ephemeral-storage": "267847642337",
      "hugepages-1Gi": "0",
      "hugepages-2Mi": "0",
      memory: "24632892Ki",
      pods: "110",
    });
  });

  test("reservations, thresholds and huge pages come off, never below zero", () => {
    const allocatable = computeAllocatable(
      { ...machine, memoryBytes: 2 ** 30, hugePages: new Map([[2 ** 21, 2 ** 29]]) },
      {
        kubeReserved: { cpu: "250m", memory: "128Mi" },
        systemReserved: { cpu: "2", memory: "64Mi", "ephemeral-storage": "1000Ti" },
        evictionHard: defaults,
      },
    );
    assert.deepEqual(allocatable, {
      cpu: "0",
      "ephemeral-storage": "0",
      "hugepages-2Mi": "512Mi",
      memory: "220Mi",
      pods: "110",
    });
  });

  for (const [text, value] of [
    ["1", 1],
    ["500m", 0.5],
    ["1.5Gi", 1.5 * 2 ** 30],
    ["2e3", 2000],
    ["10M", 1e7],
  ] as const) {
    test(`${text} is ${value}`, () => {
      assert.equal(parseAmount(text, "x"), value);
    });
  }

  for (const bad of ["", "1KB", "-1", "10%", "one", "1 Gi"]) {
    test(`${JSON.stringify(bad)} is refused with its path`, () => {
      assert.throws(
        () => parseAmount(bad, "kubeReserved.cpu"),
        (error) => error instanceof ParseError && error.path === "kubeReserved.cpu",
      );
    });
  }

  test("a threshold may be a percentage", () => {
    assert.equal(thresholdValue("10%", 1005, "x"), 100);
    assert.equal(thresholdValue("1Ki", 1005, "x"), 1024);
  });

  test("bytes carry the largest suffix that divides them", () => {
    assert.deepEqual([0, 1, 1023, 1024, 1536, 2 ** 21, 2 ** 40].map(formatBytes), [
      "0",
      "1",
      "1023",
      "1Ki",
      "1536",
      "2Mi",
      "1Ti",
    ]);
  });
});

describe("node addresses", () => {
  const host = [
    { interfaceName: "lo", address: "127.0.0.1" },
    { interfaceName: "docker0", address: "172.17.0.1" },
    { interfaceName: "eth0", address: "192.0.2.2" },
    { interfaceName: "eth0", address: "fe80::1" },
    { interfaceName: "eth0", address: "FD00::2" },
  ];
  const facts = { configured: [], nodeName: "n1", host, routeSources: {} };

  test("the default route's source wins, IPv4 first", () => {
    const routeSources = { IPv4: "192.0.2.2", IPv6: "fd00::2" };
    assert.deepEqual(chooseNodeIPs({ ...facts, routeSources }), {
      kind: "chosen",
      ips: ["192.0.2.2"],
    });
    assert.deepEqual(chooseNodeIPs({ ...facts, routeSources: { IPv6: "fd00::2" } }), {
      kind: "chosen",
      ips: ["fd00::2"],
    });
  });

  test("without a default route the first real interface serves, never one of the containers'", () => {
    assert.deepEqual(chooseNodeIPs(facts), { kind: "chosen", ips: ["192.0.2.2"] });
  });

  test("a node named by its address has that address", () => {
    assert.deepEqual(chooseNodeIPs({ ...facts, nodeName: "172.17.0.1" }), {
      kind: "chosen",
      ips: ["172.17.0.1"],
    });
  });

  test("both families are reported when both are configured", () => {
    assert.deepEqual(chooseNodeIPs({ ...facts, configured: ["192.0.2.2", "fd00:0::2"] }), {
      kind: "chosen",
      ips: ["192.0.2.2", "fd00::2"],
    });
    assert.deepEqual(nodeAddresses(["192.0.2.2", "fd00::2"], "n1"), [
      { type: "InternalIP", address: "192.0.2.2" },
      { type: "InternalIP", address: "fd00::2" },
      { type: "Hostname", address: "n1" },
    ]);
  });

  for (const [address, why] of [
    ["127.0.0.1", /loopback/],
    ["::1", /loopback/],
    ["224.0.0.1", /multicast/],
    ["169.254.1.1", /link-local/],
    ["fe80::1", /link-local/],
    ["0.0.0.0,fd00::2", /all zeros/],
    ["203.0.113.9", /not found in the host's network interfaces/],
    ["eth0", /must be a valid IP/],
  ] as const) {
    test(`a configured ${address} is refused`, () => {
      const choice = chooseNodeIPs({ ...facts, configured: address.split(",") });
      assert.equal(choice.kind, "none");
      assert.match(choice.kind === "none" ? choice.why : "", why);
    });
  }

  test("a host with nothing but loopback says what to do", () => {
    const choice = chooseNodeIPs({ ...facts, host: host.slice(0, 2) });
    assert.match(choice.kind === "none" ? choice.why : "", /--node-ip/);
  });
});

describe("node conditions", () => {
  const well = { memoryPressure: false, diskPressure: false, pidPressure: false, notReady: [] };
  const t0 = "2026-01-01T00:00:00Z";
  const t1 = "2026-01-01T00:00:10Z";

  test("a well node reports the four in order, Ready last", () => {
    assert.deepEqual(
      computeConditions(well, [], t0).map(({ type, status, reason }) => [type, status, reason]),
      [
        ["MemoryPressure", "False", "KubeletHasSufficientMemory"],
        ["DiskPressure", "False", "KubeletHasNoDiskPressure"],
        ["PIDPressure", "False", "KubeletHasSufficientPID"],
        ["Ready", "True", "KubeletReady"],
      ],
    );
  });

  test("only a changed status moves its transition time, every look its heartbeat", () => {
    const first = computeConditions(well, [], t0);
    const second = computeConditions({ ...well, diskPressure: true }, first, t1);
    assert.deepEqual(
      second.map(({ lastTransitionTime }) => lastTransitionTime),
      [t0, t1, t0, t0],
    );
    assert.ok(second.every(({ lastHeartbeatTime }) => lastHeartbeatTime === t1));
  });

  test("Unknown, which the control plane sets, is left with a transition", () => {
    const unknown = computeConditions(well, [], t0).map((condition) => ({
      ...condition,
      status: "Unknown",
    }));
    const [memory] = computeConditions(well, unknown, t1);
    assert.equal(memory?.lastTransitionTime, t1);
  });

  test("foreign conditions stay, in front of ours", () => {
    const foreign: NodeCondition = { type: "NetworkUnavailable", status: "False" };
    const types = computeConditions(well, [foreign], t0).map(({ type }) => type);
    assert.deepEqual(types, [
      "NetworkUnavailable",
      "MemoryPressure",
      "DiskPressure",
      "PIDPressure",
      "Ready",
    ]);
  });

  test("several troubles are joined as an aggregate", () => {
    const message = (notReady: string[]): string | undefined =>
      computeConditions({ ...well, notReady }, [], t0).at(-1)?.message;
    assert.equal(message(["a"]), "a");
    assert.equal(message(["a", "b"]), "[a, b]");
  });

  test("events tell of changes, and at the start of a node that is not ready nothing", () => {
    const start = computeConditions({ ...well, notReady: ["x"] }, [], t0);
    assert.deepEqual(conditionEvents([], start), [
      "NodeHasSufficientMemory",
      "NodeHasNoDiskPressure",
      "NodeHasSufficientPID",
    ]);
    const ready = computeConditions(well, start, t1);
    assert.deepEqual(conditionEvents(start, ready), ["NodeReady"]);
    assert.deepEqual(conditionEvents(ready, start), ["NodeNotReady"]);
    assert.deepEqual(conditionEvents(ready, ready), []);
  });
});

describe("pressure", () => {
  const evictionHard = { "memory.available": "100Mi", "nodefs.available": "10%", "x.y": "1" };

  test("is what falls below its threshold; what could not be read is none", () => {
    const readings = {
      "memory.available": { available: 2 ** 20, capacity: 2 ** 30 },
      "nodefs.available": { available: 10, capacity: 100 },
    };
    assert.deepEqual([...pressureNow(readings, evictionHard)], ["memory"]);
    assert.deepEqual([...pressureNow({}, evictionHard)], []);
  });

  test("stays for five minutes after it was last seen", () => {
    const memory = new PressureMemory();
    assert.deepEqual([...memory.observe(new Set(["disk"] as const), 0)], ["disk"]);
    assert.deepEqual([...memory.observe(new Set(), 299_999)], ["disk"]);
    assert.deepEqual([...memory.observe(new Set(), 300_000)], []);
  });
});

describe("node status", () => {
  const runtime: RuntimeInfo = {
    name: "docker",
    version: "20.10.24",
    apiVersion: "1.41",
    cgroupDriver: "cgroupfs",
    cgroupVersion: 1,
    rootDir: "/var/lib/docker",
    handlers: ["runc", ""],
    features: new Set(["supplementalGroupsStrict"]),
    warnings: [],
  };
  const facts = {
    addresses: nodeAddresses(["192.0.2.2"], "n1"),
    capacity: { cpu: "2" },
    allocatable: { cpu: "2" },
    nodeInfo: {
      architecture: "amd64",
      bootID: "b",
      containerRuntimeVersion: "docker://20.10.24",
      kernelVersion: "6",
      kubeProxyVersion: "",
      kubeletVersion: "v1.36.2",
      machineID: "m",
      operatingSystem: "linux",
      osImage: "Debian",
      systemUUID: "s",
    },
    conditions: [{ type: "Ready", status: "True", lastHeartbeatTime: "2026-01-01T00:00:00Z" }],
    images: [],
    runtime,
    kubeletPort: 10250,
  };

  test("resources that others announced are kept", () => {
    const status = computeNodeStatus(facts, { capacity: { "example.com/gpu": "4", cpu: "1" } });
    assert.deepEqual(status.capacity, { "example.com/gpu": "4", cpu: "2" });
  });

  test("volumes in use are told, and which are attached is left to others", () => {
    const attached = { volumesAttached: [{ name: "a", devicePath: "" }] };
    const before = computeNodeStatus(facts, attached);
    assert.equal("volumesInUse" in before, false, "nobody knows of any");
    const after = computeNodeStatus({ ...facts, volumesInUse: ["a"] }, before);
    assert.deepEqual(statusPatch(before, after), {
      status: { conditions: [], volumesInUse: ["a"] },
    });
    assert.deepEqual(after.volumesAttached, attached.volumesAttached);
    const none = computeNodeStatus({ ...facts, volumesInUse: [] }, after);
    assert.deepEqual(statusPatch(after, none), { status: { conditions: [], volumesInUse: [] } });
  });

  test("handlers are sorted and features are only what is true", () => {
    const status = computeNodeStatus(facts, {});
    assert.deepEqual(
      status.runtimeHandlers?.map(({ name }) => name),
      ["", "runc"],
    );
    const recursive = (handlers: typeof runtime): unknown =>
      computeNodeStatus({ ...facts, runtime: handlers }, {}).runtimeHandlers?.map(
        ({ features }) => features?.recursiveReadOnlyMounts,
      );
    assert.deepEqual(recursive(runtime), [false, false]);
    assert.deepEqual(recursive({ ...runtime, recursiveReadOnlyHandlers: new Set(["runc"]) }), [
      false,
      true,
    ]);
    assert.deepEqual(status.features, { supplementalGroupsPolicy: true });
    assert.deepEqual(status.declaredFeatures, [
      "ExtendWebSocketsToKubelet",
      "InPlacePodLevelResourcesVerticalScaling",
      "InPlacePodVerticalScalingInitContainers",
      "RestartAllContainersOnContainerExits",
    ]);
    assert.equal(status.daemonEndpoints?.kubeletEndpoint?.Port, 10250);
  });

  test("heartbeats and the order of conditions are no change; a reason is", () => {
    const base: NodeStatus = {
      conditions: [
        { type: "A", status: "True", lastHeartbeatTime: "1" },
        { type: "B", status: "True" },
      ],
    };
    const later: NodeStatus = {
      conditions: [
        { type: "B", status: "True" },
        { type: "A", status: "True", lastHeartbeatTime: "2" },
      ],
    };
    assert.equal(statusChanged(base, later), false);
    assert.equal(
      statusChanged(base, { conditions: [{ type: "A", status: "True", reason: "x" }] }),
      true,
    );
    assert.equal(statusChanged(base, { ...base, images: [{ names: ["a"] }] }), true);
  });

  test("a patch holds what changed, and replaces addresses as a whole", () => {
    const before = computeNodeStatus(facts, {});
    const after = computeNodeStatus(
      {
        ...facts,
        addresses: nodeAddresses(["192.0.2.2", "fd00::2"], "n1"),
        conditions: [{ type: "Ready", status: "False", lastHeartbeatTime: "2026-01-01T00:00:10Z" }],
      },
      before,
    );
    assert.deepEqual(statusPatch(before, after), {
      status: {
        conditions: [{ type: "Ready", status: "False", lastHeartbeatTime: "2026-01-01T00:00:10Z" }],
        addresses: [
          { type: "InternalIP", address: "192.0.2.2" },
          { type: "InternalIP", address: "fd00::2" },
          { type: "Hostname", address: "n1" },
          { $patch: "replace" },
        ],
      },
    });
  });

  test("images are sorted by size and name, digests first, cut to the limit", () => {
    const image = (tags: string[], sizeBytes: number, digests: string[] = []): Image => ({
      id: `sha256:${tags.join()}`,
      tags,
      digests,
      sizeBytes,
      user: {},
      stopSignal: undefined,
    });
    const images = [
      image(["b:1"], 5),
      image(["a:1"], 5),
      image([], 99),
      image(["z:2", "z:1"], 7, ["z@sha256:1"]),
    ];
    assert.deepEqual(imageList(images, -1), [
      { names: ["z@sha256:1", "z:1", "z:2"], sizeBytes: 7 },
      { names: ["a:1"], sizeBytes: 5 },
      { names: ["b:1"], sizeBytes: 5 },
    ]);
    assert.equal(imageList(images, 1).length, 1);
    assert.deepEqual(imageList(images, 0), []);
    assert.equal(imageList([image(["1", "2", "3", "4", "5", "6"], 1)], -1)[0]?.names?.length, 5);
  });
});

describe("host facts", () => {
  test("os-release names are read with and without quotes", () => {
    assert.equal(prettyName('NAME=x\nPRETTY_NAME="Debian GNU/Linux 12"\n'), "Debian GNU/Linux 12");
    assert.equal(prettyName("PRETTY_NAME=Alpine\n"), "Alpine");
    assert.equal(prettyName(""), "Linux");
  });

  test("a meminfo name is matched whole", () => {
    const meminfo = "MemTotal:  10 kB\nInactive:  7 kB\nInactive(file):   3 kB\n";
    assert.equal(meminfoBytes(meminfo, "Inactive(file)"), 3072);
    assert.equal(meminfoBytes(meminfo, "Inactive"), 7168);
    assert.equal(meminfoBytes(meminfo, "SwapTotal"), 0);
  });
});
