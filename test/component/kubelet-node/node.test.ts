import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";

import type { EventTarget } from "../../../src/api/event-types.ts";
import { LEASES, NODES } from "../../../src/api/resources.ts";
import type { Node } from "../../../src/api/types.gen.ts";
import type { AgentConfig } from "../../../src/config/types.ts";
import { parseHardware } from "../../../src/kubelet/node/hardware-parse.ts";
import type { Host } from "../../../src/kubelet/node/host.ts";
import { createNode, type NodeAgent } from "../../../src/kubelet/node/node.ts";
import { type Logger, silentLogger } from "../../../src/lib/log.ts";
import type { RuntimeInfo } from "../../../src/runtime/types.ts";
import {
  type FakeApiServer,
  type SeenRequest,
  startFakeApiServer,
} from "../../fakes/api-server.ts";
import { ManualClock, until } from "../api/manual-clock.ts";
import { agentConfig } from "./fixtures.ts";

const runtimeInfo: RuntimeInfo = {
  name: "docker",
  version: "20.10.24",
  apiVersion: "1.41",
  cgroupDriver: "cgroupfs",
  cgroupVersion: 1,
  rootDir: "/var/lib/docker",
  handlers: [],
  features: new Set(),
  warnings: [],
};

interface Network {
  addresses: Host["addresses"];
  routeSources: Host["routeSources"];
}

function fakeHost(bootID: string, network: Network): Host {
  return {
    identity: () => ({
      hostname: "n1",
      machineID: "m",
      systemUUID: "s",
      bootID,
      kernelVersion: "6.1",
      osImage: "Debian",
      architecture: "amd64",
      swapBytes: 0,
    }),
    capacity: async () => ({
      cpuMillicores: 2000,
      memoryBytes: 2 ** 30,
      ephemeralStorageBytes: 2 ** 34,
      maxPods: 110,
      hugePages: new Map(),
    }),
    signals: async () => ({}),
    addresses: () => network.addresses(),
    routeSources: async () => network.routeSources(),
  };
}

describe("the node", () => {
  let api: FakeApiServer;
  let clock: ManualClock;
  let stop: AbortController;
  let running: Promise<void>;
  let node: NodeAgent;
  let trouble: string | undefined;
  let networkTrouble: string | undefined;
  let info: RuntimeInfo | undefined;
  let readyCalls = 0;
  let events: string[];
  let warnings: string[];
  let network: Network;

  /** What a machine has that is in one network. */
  const at = (...addresses: readonly string[]): Network => ({
    addresses: () => addresses.map((address) => ({ interfaceName: "eth0", address })),
    routeSources: async () => {
      const IPv4 = addresses.find((address) => !address.includes(":"));
      const IPv6 = addresses.find((address) => address.includes(":"));
      return { ...(IPv4 === undefined ? {} : { IPv4 }), ...(IPv6 === undefined ? {} : { IPv6 }) };
    },
  });

  before(async () => {
    api = await startFakeApiServer();
  });
  after(async () => {
    await api.close();
  });
  beforeEach(() => {
    clock = new ManualClock();
    stop = new AbortController();
    network = at("192.0.2.2");
    [trouble, info, readyCalls, events, warnings] = [undefined, runtimeInfo, 0, [], []];
    networkTrouble = undefined;
  });
  afterEach(async () => {
    stop.abort();
    await running;
    for (const item of api.list(NODES)) api.remove(NODES, item.metadata.name);
    for (const item of api.list(LEASES))
      api.remove(LEASES, `kube-node-lease/${item.metadata.name}`);
  });

  const logger: Logger = {
    ...silentLogger,
    log: (level, msg, fields) => {
      if (level === "warn" || level === "error")
        warnings.push(`${msg}: ${String(fields?.["error"])}`);
    },
  };

  function start(more: Partial<AgentConfig> = {}, bootID = "boot-1"): void {
    node = createNode({
      config: agentConfig("/", more),
      client: api.client,
      leaseClient: api.client,
      runtime: () => info,
      images: { listImages: async () => [] },
      health: () => trouble,
      networkNotReady: () => networkTrouble,
      events: {
        event: (target: EventTarget, type, reason, message) => {
          events.push(`${target.uid} ${type} ${reason} ${message}`);
        },
      },
      clock,
      logger,
      random: () => 0.5,
      version: "v1.36.2",
      onReady: () => {
        readyCalls += 1;
      },
      host: fakeHost(bootID, {
        addresses: () => network.addresses(),
        routeSources: async () => network.routeSources(),
      }),
      hardware: async () => parseHardware({ cpu: { vendor: "AMD" }, cpuFlags: "aes" }),
    });
    running = node.run(stop.signal);
  }

  const stored = (): Node | undefined => api.get(NODES, "n1");
  const readyStatus = (): string | undefined =>
    stored()?.status?.conditions?.find(({ type }) => type === "Ready")?.status;
  const labels = (): Record<string, string> => stored()?.metadata?.labels ?? {};
  const seen = (matches: (request: SeenRequest) => boolean): number =>
    api.requests.filter((request) => matches(request)).length;
  const statusWrites = (): number =>
    seen(({ method, path }) => method === "PATCH" && path.endsWith("/nodes/n1/status"));
  const creations = (request: SeenRequest): boolean =>
    request.method === "POST" && request.path.endsWith("/nodes");
  const leaseTime = (): unknown => api.get(LEASES, "kube-node-lease/n1")?.spec?.renewTime;

  test("registers with labels, taints, annotation and a complete status", async () => {
    start({
      nodeLabels: { rack: "7", "kubernetes.io/hostname": "other" },
      registerWithTaints: [{ key: "dedicated", value: "x", effect: "NoSchedule" }],
    });
    await until(() => labels()["feature.node.remora.io/cpu-aes"] === "true", "hardware labels");
    const object = stored();
    assert.deepEqual(
      { ...object?.metadata?.labels },
      {
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "kubernetes.io/hostname": "other",
        rack: "7",
        "feature.node.remora.io/cpu-aes": "true",
        "feature.node.remora.io/cpu-vendor": "AMD",
        "feature.node.remora.io/firmware": "bios",
        "feature.node.remora.io/virtualisation": "none",
      },
    );
    assert.deepEqual(object?.spec?.taints, [
      { key: "dedicated", value: "x", effect: "NoSchedule" },
    ]);
    assert.equal(
      object?.metadata?.annotations?.["volumes.kubernetes.io/controller-managed-attach-detach"],
      "true",
    );
    assert.equal(object?.status?.nodeInfo?.containerRuntimeVersion, "docker://20.10.24");
    assert.deepEqual(object?.status?.addresses, [
      { type: "InternalIP", address: "192.0.2.2" },
      { type: "Hostname", address: "n1" },
    ]);
    assert.equal(readyStatus(), "True");
    await until(() => readyCalls === 1, "onReady");
    assert.deepEqual(node.view.hostIPs(), ["192.0.2.2"]);
    assert.equal(node.view.node()?.metadata.name, "n1");
    await until(() => events.includes("n1 Normal Starting Starting kubelet."), "the event");
    await until(
      () => events.includes("n1 Normal NodeReady Node n1 status is now: NodeReady"),
      "the event",
    );
  });

  test("an existing node is taken over: labels are repaired, taints and podCIDR are not ours", async () => {
    api.put(NODES, {
      metadata: { name: "n1", labels: { "kubernetes.io/os": "plan9", mine: "1" } },
      spec: { podCIDR: "10.244.0.0/24" },
      status: { nodeInfo: { ...emptyNodeInfo, bootID: "boot-0" } },
    });
    start({ registerWithTaints: [{ key: "k", value: "", effect: "NoExecute" }] });
    await until(() => readyStatus() === "True", "Ready");
    assert.equal(labels()["kubernetes.io/os"], "linux");
    assert.equal(labels()["mine"], "1");
    assert.equal(stored()?.spec?.taints, undefined);
    assert.equal(stored()?.spec?.podCIDR, "10.244.0.0/24");
    const rebooted = "n1 Warning Rebooted Node n1 has been rebooted, boot id: boot-1";
    await until(() => events.includes(rebooted), "the event");
    await until(() => readyCalls === 1, "onReady");
  });

  test("a resolv.conf that cannot be read is an event of the node", async () => {
    start({ resolvConf: "/nonexistent/resolv.conf" });
    const event =
      "n1 Warning CheckLimitsForResolvConf open /nonexistent/resolv.conf: no such file or directory";
    await until(() => events.includes(event), "the event");
    await until(() => readyStatus() === "True", "Ready all the same");
  });

  test("a Ready that a former run wrote counts for nothing", async () => {
    api.put(NODES, {
      metadata: { name: "n1" },
      status: { conditions: [{ type: "Ready", status: "True" }] },
    });
    trouble = "x";
    start();
    await until(() => readyStatus() === "False", "the truth");
    assert.equal(readyCalls, 0);
    await until(
      () => events.includes("n1 Normal NodeNotReady Node n1 status is now: NodeNotReady"),
      "the event",
    );
  });

  test("a network of pods that is not ready is told in the kubelet's words, before other troubles", async () => {
    const message = (): string =>
      stored()?.status?.conditions?.find(({ type }) => type === "Ready")?.message ?? "";
    networkTrouble = "cni config uninitialized";
    start();
    await until(() => readyStatus() === "False", "the truth");
    const words =
      "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:cni config uninitialized";
    assert.equal(message(), words);
    trouble = "PLEG is not healthy";
    await until(() => {
      clock.advance(100);
      return message() === `[${words}, PLEG is not healthy]`;
    }, "both");
    networkTrouble = undefined;
    trouble = undefined;
    await until(() => {
      clock.advance(100);
      return readyStatus() === "True";
    }, "Ready");
  });

  describe("a restarted agent whose node was ready", () => {
    const nodeInfo = {
      architecture: "amd64",
      bootID: "boot-1",
      containerRuntimeVersion: "",
      kernelVersion: "",
      kubeProxyVersion: "",
      kubeletVersion: "",
      machineID: "",
      operatingSystem: "linux",
      osImage: "",
      systemUUID: "",
    };
    const ready: Node = {
      metadata: { name: "n1" },
      status: { conditions: [{ type: "Ready", status: "True" }], nodeInfo },
    };
    const looksFor = async (ms: number): Promise<void> => {
      for (const end = clock.monotonic() + ms; clock.monotonic() < end; clock.advance(100)) {
        const sleeps = clock.sleeps.length;
        await until(() => clock.sleeps.length > sleeps || clock.sleeping, "a look");
        await new Promise((done) => setImmediate(done));
      }
    };

    test("says nothing while it takes over what runs: its pods stay in their Services", async () => {
      api.put(NODES, ready);
      trouble = "running pods have not been taken over yet";
      start();
      await looksFor(5000);
      assert.equal(readyStatus(), "True");
      trouble = undefined;
      await until(() => {
        clock.advance(100);
        return readyCalls === 1;
      }, "onReady");
      assert.deepEqual(
        events.filter((line) => line.includes("Ready")),
        [],
      );
    });

    test("tells the truth after 30 s", async () => {
      api.put(NODES, ready);
      trouble = "container runtime is down";
      start();
      await until(() => {
        clock.advance(1000);
        return readyStatus() === "False";
      }, "the truth");
    });

    test("tells it at once after a reboot: nothing runs any more", async () => {
      api.put(NODES, ready);
      trouble = "running pods have not been taken over yet";
      start({}, "boot-2");
      await until(() => readyStatus() === "False", "the truth");
    });
  });

  test("a node it may not create is taken over when it exists", async () => {
    api.put(NODES, { metadata: { name: "n1" } });
    api.inject(creations, { status: 403, reason: "Forbidden" });
    start();
    await until(() => readyStatus() === "True", "Ready");
    assert.equal(warnings.length, 0);
  });

  test("missing rights are told once, with the remedy, and tried again at growing intervals", async () => {
    api.inject(creations, { status: 403, reason: "Forbidden", message: "no" }, 5);
    start();
    for (let retry = 0; stored() === undefined && retry < 20; retry += 1) {
      await until(() => clock.sleeping || stored() !== undefined, "a retry");
      clock.advance(7000);
    }
    await until(() => readyStatus() === "True", "Ready");
    assert.deepEqual(clock.sleeps.slice(0, 5), [100, 200, 400, 800, 1600]);
    assert.deepEqual(
      warnings.filter((line) => line.startsWith("node is not registered")),
      [
        "node is not registered yet: no: the credential must belong to user system:node:n1 in group system:nodes, and the server must run the Node authorizer (or bind that user to ClusterRole system:node)",
      ],
    );
  });

  test("the status is written when it changes, else only every five minutes", async () => {
    start();
    await until(() => readyCalls === 1 && clock.sleeping, "the first status");
    await until(() => labels()["feature.node.remora.io/cpu-aes"] === "true", "hardware labels");
    const tick = async (): Promise<void> => {
      const sleeps = clock.sleeps.length;
      clock.advance(10_000);
      await until(() => clock.sleeps.slice(sleeps).includes(10_000), "the next tick");
    };
    await tick();
    const quiet = statusWrites();
    for (let count = 0; count < 5; count += 1) await tick();
    assert.equal(statusWrites(), quiet);
    trouble = "PLEG is not healthy";
    await tick();
    assert.equal(statusWrites(), quiet + 1);
    assert.equal(readyStatus(), "False");
    await until(
      () => events.includes("n1 Normal NodeNotReady Node n1 status is now: NodeNotReady"),
      "the event",
    );
    for (let count = 0; count < 32; count += 1) await tick();
    assert.equal(statusWrites(), quiet + 2);
    assert.equal(readyCalls, 1);
  });

  test("until it is first ready it looks every 100 ms", async () => {
    info = undefined;
    start();
    await until(() => clock.sleeps.includes(100), "the fast path");
    assert.equal(readyStatus(), "False");
    assert.match(stored()?.status?.conditions?.at(-1)?.message ?? "", /container runtime is down/);
    info = runtimeInfo;
    await until(() => {
      clock.advance(100);
      return readyStatus() === "True";
    }, "Ready");
    await until(() => readyCalls === 1, "onReady");
  });

  test("a write that fails is tried again against a fresh read", async () => {
    start();
    await until(() => readyCalls === 1 && clock.sleeping, "the first status");
    trouble = "x";
    api.inject(({ method, path }) => method === "PATCH" && path.endsWith("/status"), {
      status: 409,
      reason: "Conflict",
    });
    clock.advance(10_000);
    await until(() => readyStatus() === "False", "the second try");
  });

  test("a status it may not write is told once, with the remedy, and tried quietly", async () => {
    const writes = ({ method, path }: SeenRequest): boolean =>
      method === "PATCH" && path.endsWith("/status");
    api.inject(writes, { status: 403, reason: "Forbidden", message: "no" }, 3);
    const before = statusWrites();
    start();
    await until(() => {
      clock.advance(10_000);
      return statusWrites() >= before + 4;
    }, "the write after three refused ones");
    const told = warnings.filter((line) => line.startsWith("node status was not written"));
    assert.equal(told.length, 1);
    assert.match(told[0] ?? "", /must belong to user system:node:n1/);
  });

  test("a deleted node is not registered again, and that is said once", async () => {
    start();
    await until(() => readyCalls === 1 && clock.sleeping, "the first status");
    api.remove(NODES, "n1");
    trouble = "x";
    for (let count = 0; count < 3; count += 1) {
      const sleeps = clock.sleeps.length;
      clock.advance(10_000);
      await until(() => clock.sleeps.slice(sleeps).includes(10_000), "the next tick");
    }
    assert.equal(stored(), undefined);
    assert.equal(warnings.filter((line) => line.includes("was deleted")).length, 1);
  });

  test("the lease is created with the node as owner and renewed each ten seconds", async () => {
    start();
    await until(() => leaseTime() !== undefined, "the lease");
    const lease = api.get(LEASES, "kube-node-lease/n1");
    assert.equal(lease?.spec?.holderIdentity, "n1");
    assert.equal(lease?.spec?.leaseDurationSeconds, 40);
    assert.deepEqual(lease?.metadata.ownerReferences, [
      { apiVersion: "v1", kind: "Node", name: "n1", uid: stored()?.metadata?.uid },
    ]);
    const first = leaseTime();
    await until(() => clock.sleeps.includes(10_200), "the lease's sleep");
    clock.advance(10_200);
    await until(() => leaseTime() !== first, "the renewal");
    await until(() => node.heartbeat().leaseRenewals === 2, "the count");
  });

  test("a lease that somebody else changed or deleted is renewed all the same", async () => {
    start();
    await until(() => clock.sleeps.includes(10_200), "the first renewal");
    const held = api.get(LEASES, "kube-node-lease/n1");
    assert.ok(held);
    api.put(LEASES, { ...held, spec: { ...held.spec, holderIdentity: "thief" } });
    clock.advance(10_200);
    await until(
      () => api.get(LEASES, "kube-node-lease/n1")?.spec?.holderIdentity === "n1",
      "the conflict's repair",
    );
    await until(() => node.heartbeat().leaseRenewals === 2 && clock.sleeping, "renewal");
    api.remove(LEASES, "kube-node-lease/n1");
    await until(() => {
      clock.advance(10_200);
      return leaseTime() !== undefined;
    }, "the new lease");
  });

  test("changes of podCIDRs wake those who asked", async () => {
    start();
    await until(() => readyStatus() === "True", "Ready");
    let woken = 0;
    const unsubscribe = node.view.subscribe(() => {
      woken += 1;
    });
    const held = api.get(NODES, "n1");
    assert.ok(held);
    api.put(NODES, { ...held, spec: { podCIDRs: ["10.244.9.0/24"] } });
    await until(() => node.view.node()?.spec?.podCIDRs?.[0] === "10.244.9.0/24", "the change");
    assert.ok(woken > 0);
    unsubscribe();
  });

  const addresses = (): readonly string[] =>
    (stored()?.status?.addresses ?? []).map(({ type, address }) => `${type} ${address}`);

  test("a machine in another network has another address, at once when somebody noticed", async () => {
    start();
    await until(() => readyCalls === 1, "ready");
    network = at("198.51.100.7");
    node.refresh();
    await until(() => addresses()[0] === "InternalIP 198.51.100.7", "the new address");
    assert.deepEqual(addresses(), ["InternalIP 198.51.100.7", "Hostname n1"]);
    assert.deepEqual(node.view.hostIPs(), ["198.51.100.7"]);
    assert.equal(readyStatus(), "True");
  });

  test("a default route that has moved counts after a second, while the address of before is there", async () => {
    start();
    await until(() => readyCalls === 1, "ready");
    network = at("198.51.100.7", "192.0.2.2");
    node.refresh();
    await until(() => clock.sleeps.at(-1) === 1000, "a look in a second");
    assert.deepEqual(addresses(), ["InternalIP 192.0.2.2", "Hostname n1"]);
    clock.advance(1000);
    await until(() => addresses()[0] === "InternalIP 198.51.100.7", "the new address");
  });

  test("a machine without any network keeps its address and stays Ready; it is said once", async () => {
    start();
    await until(() => readyCalls === 1, "ready");
    const said = (): number => warnings.filter((line) => line.includes("address is gone")).length;
    const told: (boolean | undefined)[] = [];
    const unsubscribe = node.view.subscribe(() => told.push(node.view.addressLost?.()));
    network = at();
    node.refresh();
    await until(() => told.includes(true), "those who ask pods at that address are told");
    unsubscribe();
    assert.equal(said(), 1);
    const before = statusWrites();
    // The next report comes whether or not anything changed.
    clock.advance(300_000);
    await until(() => statusWrites() > before, "the next report");
    assert.deepEqual(addresses(), ["InternalIP 192.0.2.2", "Hostname n1"]);
    assert.deepEqual([readyStatus(), said()], ["True", 1]);
    assert.deepEqual(node.view.hostIPs(), ["192.0.2.2"]);
    assert.equal(node.view.addressLost?.(), true);
    network = at("192.0.2.3");
    node.refresh();
    await until(() => addresses()[0] === "InternalIP 192.0.2.3", "the new address");
    assert.equal(node.view.addressLost?.(), false);
  });

  test("a machine that boots without network knows the address it had", async () => {
    network = at();
    api.put(NODES, {
      metadata: { name: "n1" },
      status: { addresses: [{ type: "InternalIP", address: "192.0.2.44" }] },
    });
    start();
    await until(() => readyCalls === 1, "ready");
    assert.deepEqual(addresses(), ["InternalIP 192.0.2.44", "Hostname n1"]);
    assert.deepEqual(node.view.hostIPs(), ["192.0.2.44"]);
  });

  test("one that never had an address is not Ready until it has one", async () => {
    network = at();
    start();
    await until(() => readyStatus() === "False", "NotReady");
    assert.deepEqual(addresses(), ["Hostname n1"]);
    network = at("192.0.2.5");
    node.refresh();
    await until(() => readyStatus() === "True", "ready");
    assert.deepEqual(addresses(), ["InternalIP 192.0.2.5", "Hostname n1"]);
  });

  test("a configured address that is gone stays in the status; another one does not take its place", async () => {
    network = at("192.0.2.2", "198.51.100.7");
    start({ nodeIPs: ["198.51.100.7"] });
    await until(() => readyCalls === 1, "ready");
    network = at("192.0.2.2");
    node.refresh();
    await until(() => warnings.some((line) => line.includes("address is gone")), "the warning");
    assert.ok(warnings.some((line) => line.includes('node IP: "198.51.100.7" not found')));
    assert.deepEqual(addresses(), ["InternalIP 198.51.100.7", "Hostname n1"]);
    assert.equal(readyStatus(), "True");
  });

  test("a configured address that never was there is no address", async () => {
    api.put(NODES, {
      metadata: { name: "n1" },
      status: { addresses: [{ type: "InternalIP", address: "192.0.2.44" }] },
    });
    start({ nodeIPs: ["203.0.113.9"] });
    await until(() => readyStatus() === "False", "NotReady");
    assert.deepEqual(addresses(), ["Hostname n1"]);
  });

  test("a node whose pods get addresses of both families tells its own of both", async () => {
    network = at("192.0.2.2", "fd00::2");
    start();
    await until(() => readyCalls === 1, "ready");
    assert.deepEqual(addresses(), ["InternalIP 192.0.2.2", "Hostname n1"]);
    const object = stored();
    api.put(NODES, { ...object, spec: { podCIDRs: ["10.244.1.0/24", "fd00:244:1::/64"] } });
    await until(() => addresses().length === 3, "both addresses");
    assert.deepEqual(addresses(), ["InternalIP 192.0.2.2", "InternalIP fd00::2", "Hostname n1"]);
    network = at("192.0.2.2");
    node.refresh();
    await until(() => addresses().length === 2, "one address");
  });
});

const emptyNodeInfo = {
  architecture: "",
  bootID: "",
  containerRuntimeVersion: "",
  kernelVersion: "",
  kubeProxyVersion: "",
  kubeletVersion: "",
  machineID: "",
  operatingSystem: "",
  osImage: "",
  systemUUID: "",
};
