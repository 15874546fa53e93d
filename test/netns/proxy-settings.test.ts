import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";

import { NODES } from "../../src/api/resources.ts";
import type { ProxySettings } from "../../src/config/types.ts";
import type { ProxyMode } from "../../src/proxy/backend.ts";
import { insideOwnNamespace, sh } from "./namespace.ts";
import type { Addresses } from "./proxy/addresses.ts";
import {
  assertNames,
  assertNodeCalled,
  assertRefused,
  assertSilence,
  briefly,
  callers,
} from "./proxy/cases/expect.ts";
import { Stage } from "./proxy/stage.ts";
import { bothFamilies } from "./proxy/topology.ts";
import { eventually, World, zone } from "./proxy/world.ts";

/** Runs `body` once for each family. */
async function inBothFamilies(
  world: World,
  name: string,
  body: (stage: Stage, at: Addresses) => Promise<void>,
): Promise<void> {
  for (const at of bothFamilies) {
    const stage = new Stage(world, at, `${name}-${at.suffix}-${world.takeNumber()}`);
    try {
      await body(stage, at);
    } finally {
      await stage.close();
    }
  }
}

/** The first rows of the masquerade table: who gets a new source address on the way to a ClusterIP. */
async function assertPodsAreKnown(stage: Stage, at: Addresses): Promise<void> {
  const service = await stage.served({ targets: ["a"] });
  const { c, client, node } = stage.peers;
  for (const [kind, to] of [
    ["tcp", service.at()],
    ["udp", service.at("u")],
  ] as const) {
    assert.deepEqual(callers(await c.ask(kind, to, { count: 3 })), [at.pods.c]);
    assertNodeCalled(await node.ask(kind, to, { count: 3 }), at);
    assertNodeCalled(await client.ask(kind, to, { count: 3 }), at);
  }
}

/** Pods of the node, and nobody else from outside, are sent past externalTrafficPolicy Local. */
async function assertShortCircuit(stage: Stage): Promise<void> {
  const service = await stage.served({
    targets: ["remote"],
    type: "LoadBalancer",
    spec: { externalTrafficPolicy: "Local" },
  });
  const { c, client } = stage.peers;
  assertNames(await c.ask("tcp", service.atLoadBalancer(), { count: 3 }), "remote");
  assertSilence(await client.ask("tcp", service.atLoadBalancer(), { count: 1, ...briefly }));
}

function settingsTests(mode: ProxyMode): void {
  const world = new World(mode);

  describe(`settings with real packets, ${mode}`, { concurrency: false }, () => {
    before(() => world.setUp());
    after(() => world.tearDown());

    const detectors: readonly Partial<ProxySettings>[] = [
      { detectLocalMode: "BridgeInterface", bridgeInterface: "remora0" },
      { detectLocalMode: "InterfaceNamePrefix", interfaceNamePrefix: "remo" },
      { masqueradeBit: 0 },
      { masqueradeBit: 31, detectLocalMode: "BridgeInterface", bridgeInterface: "remora0" },
    ];
    for (const settings of detectors) {
      it(
        `${JSON.stringify(settings)}: pods are told from others`,
        { timeout: 60_000 },
        async () => {
          await world.withSettings(settings, async () => {
            await inBothFamilies(world, "pods", assertPodsAreKnown);
            await inBothFamilies(world, "local", assertShortCircuit);
          });
        },
      );
    }

    it("an interface that no pod comes by: pods are like others", { timeout: 60_000 }, async () => {
      const settings = { detectLocalMode: "BridgeInterface", bridgeInterface: "remor" } as const;
      await world.withSettings(settings, async () => {
        await inBothFamilies(world, "others", async (stage, at) => {
          const service = await stage.served({ targets: ["a"] });
          assertNodeCalled(await stage.peers.c.ask("tcp", service.at(), { count: 3 }), at);
        });
      });
    });

    it(
      "masqueradeAll: pods are nobody special, hairpins neither",
      { timeout: 60_000 },
      async () => {
        await world.withSettings({ masqueradeAll: true }, async () => {
          await inBothFamilies(world, "all", async (stage, at) => {
            const service = await stage.served({ targets: ["a"] });
            for (const peer of [stage.peers.c, stage.peers.a, stage.peers.client]) {
              assertNodeCalled(await peer.ask("tcp", service.at(), { count: 3 }), at);
              assertNodeCalled(await peer.ask("udp", service.at("u"), { count: 3 }), at);
            }
          });
        });
      },
    );

    it("NodeCIDR: the Node's pod networks count, and follow it", { timeout: 60_000 }, async () => {
      const putNode = (podCIDRs: string[]): void => {
        const labels = { "topology.kubernetes.io/zone": zone };
        world.api.put(NODES, { metadata: { name: "here", labels }, spec: { podCIDRs } });
      };
      putNode(["10.244.0.0/24", "fd00:244::/64"]);
      try {
        await world.withSettings({ detectLocalMode: "NodeCIDR" }, async () => {
          await inBothFamilies(world, "node", async (stage, at) => {
            const service = await stage.served({ targets: ["a", "b"] });
            const called = async (): Promise<readonly string[]> =>
              callers(await stage.peers.c.ask("tcp", service.at(), { count: 3 }));
            assert.deepEqual(await called(), [at.pods.c]);
            // A pod of another node is no pod of this one.
            const { remote } = stage.peers;
            assertNodeCalled(await remote.ask("tcp", service.at(), { count: 3 }), at);
            putNode(["10.244.7.0/24", "fd00:244:0:7::/64"]);
            await eventually(
              async () => !(await called()).includes(at.pods.c),
              "the change counts",
            );
            putNode(["10.244.0.0/24", "fd00:244::/64"]);
            await eventually(async () => (await called()).join() === at.pods.c, "and back");
          });
        });
      } finally {
        world.putNode();
      }
    });

    it("bindAddress takes the place of the node's address", { timeout: 60_000 }, async () => {
      for (const at of bothFamilies) {
        const settings = { bindAddress: at.nodeSecond, nodePortAddresses: ["primary"] };
        await world.withSettings(settings, async () => {
          const stage = new Stage(world, at, `bind-${at.suffix}-${world.takeNumber()}`);
          try {
            const service = await stage.served({ targets: ["a"], type: "NodePort" });
            const { client } = stage.peers;
            assertRefused(await client.ask("tcp", service.atNode(), { count: 3 }));
            const second = service.atNode("t", at.nodeSecond);
            assertNames(await client.ask("tcp", second, { count: 3 }), "a");
          } finally {
            await stage.close();
          }
        });
      }
    });

    it("no address left: node ports answer nowhere, Services do", { timeout: 60_000 }, async () => {
      const settings = { nodePortAddresses: ["203.0.113.0/24", "2001:db8:77::/64"] };
      await world.withSettings(settings, async () => {
        await inBothFamilies(world, "none", async (stage, at) => {
          const service = await stage.served({ targets: ["a"], type: "NodePort" });
          const { client, c } = stage.peers;
          assertNames(await c.ask("tcp", service.at(), { count: 3 }), "a");
          assertRefused(await client.ask("tcp", service.atNode(), { count: 3 }));
          assertRefused(await client.ask("tcp", service.atNode("t", at.nodeSecond), { count: 3 }));
        });
      });
    });

    it(
      "a network that mends its forwarding lets nothing pass by",
      { timeout: 60_000 },
      async () => {
        // As Docker does when it starts.
        for (const program of ["iptables", "ip6tables"])
          await sh(program, "-I", "FORWARD", "-i", "lo0");
        try {
          await world.topology.restoreNetwork();
          await inBothFamilies(world, "mended", async (stage) => {
            const service = await stage.served({
              type: "LoadBalancer",
              spec: { loadBalancerSourceRanges: ["203.0.113.0/24", "2001:db8:77::/64"] },
            });
            const { c } = stage.peers;
            assertRefused(await c.ask("tcp", service.at(), { count: 3 }));
            service.setTargets("a");
            await stage.settled();
            assertNames(await c.ask("tcp", service.at(), { count: 3 }), "a");
            assertSilence(await c.ask("tcp", service.atLoadBalancer(), { count: 1, ...briefly }));
            assert.deepEqual(await stage.leftFor(service.loadBalancerIP, 80), []);
          });
        } finally {
          for (const program of ["iptables", "ip6tables"])
            await sh(program, "-D", "FORWARD", "-i", "lo0");
          await world.topology.restoreNetwork();
        }
      },
    );

    it("minSyncPeriod: changes wait for each other that long", { timeout: 60_000 }, async () => {
      await world.withSettings({ minSyncPeriodMs: 600 }, async () => {
        const [at] = bothFamilies;
        assert.ok(at !== undefined);
        const stage = new Stage(world, at, `pace-${world.takeNumber()}`);
        try {
          await stage.served({ targets: ["a"] });
          const startedAt = performance.now();
          // Two more, each after the one before: the second has to wait for the first's pause.
          await stage.settled();
          await stage.settled();
          const took = performance.now() - startedAt;
          assert.ok(took > 600, `${took} ms`);
        } finally {
          await stage.close();
        }
      });
    });
  });
}

if (insideOwnNamespace(import.meta.filename)) {
  settingsTests("nftables");
  settingsTests("iptables");
}
