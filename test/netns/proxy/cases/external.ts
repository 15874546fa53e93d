import assert from "node:assert/strict";

import { otherFamily } from "../addresses.ts";
import type { Subject } from "../packet-case.ts";
import { assertNames, assertNodeCalled, assertSilence, briefly, callers, names } from "./expect.ts";

/** Load balancer addresses, external IPs and source ranges. */
export function externalCases({ at, packet }: Subject): void {
  packet(10, "a pod's packets to a load balancer address do not leave the node", async (stage) => {
    const service = await stage.served({
      type: "LoadBalancer",
      targets: ["b", "remote"],
      spec: { externalTrafficPolicy: "Local" },
    });
    const answers = await stage.peers.a.ask("tcp", service.atLoadBalancer(), { count: 30 });
    assertNames(answers, "b", "remote");
    assert.deepEqual(callers(answers), [at.pods.a]);
    const fromNode = await stage.peers.node.ask("tcp", service.atLoadBalancer(), { count: 30 });
    assertNames(fromNode, "b", "remote");
    assertNodeCalled(fromNode, at);
    assert.deepEqual(await stage.leftFor(service.loadBalancerIP, 80), []);
    assertNames(await stage.peers.client.ask("tcp", service.atLoadBalancer(), { count: 10 }), "b");
  });

  packet(11, "ipMode Proxy: packets go out to the load balancer", async (stage) => {
    const service = await stage.served({ type: "LoadBalancer", ipMode: "Proxy", targets: ["b"] });
    const { a, node } = stage.peers;
    assertSilence(await a.ask("tcp", service.atLoadBalancer(), briefly));
    assertSilence(await node.ask("tcp", service.atLoadBalancer(), briefly));
    await stage.assertLeft(service.loadBalancerIP, 80);
    assertNames(await a.ask("tcp", service.at()), "b");
    service.change({ ipMode: "VIP" });
    await stage.settled();
    assertNames(await a.ask("tcp", service.atLoadBalancer(), { count: 3 }), "b");
  });

  packet(12, "an external IP that no interface has is served", async (stage) => {
    const service = await stage.served({ external: true, targets: ["a", "b"] });
    const { c, node, client } = stage.peers;
    for (const peer of [c, node, client]) {
      const answers = await peer.ask("tcp", service.atExternal(), { count: 30, parallel: 2 });
      assertNames(answers, "a", "b");
      assertNodeCalled(answers, at);
    }
    assertNames(await c.ask("udp", service.atExternal("u"), { count: 20 }), "a", "b");
    assert.deepEqual(await stage.leftFor(service.externalIP, 80), []);
  });

  packet(14, "source ranges admit one pod and not the other, and no client", async (stage) => {
    const service = await stage.served({
      type: "LoadBalancer",
      external: true,
      targets: ["c"],
      spec: { loadBalancerSourceRanges: [`${at.pods.a}/${at.single}`, " 198.18.0.0/15 "] },
    });
    const { a, b, client } = stage.peers;
    assertNames(await a.ask("tcp", service.atLoadBalancer(), { count: 5 }), "c");
    assertSilence(await b.ask("tcp", service.atLoadBalancer(), briefly));
    assertSilence(await client.ask("tcp", service.atLoadBalancer(), briefly));
    assertSilence(await b.ask("udp", service.atLoadBalancer("u"), briefly));
    assertNames(await b.ask("tcp", service.atExternal()), "c");
    service.change({
      spec: { loadBalancerSourceRanges: [`${at.pods.b}/${at.single}`] },
    });
    await stage.settled();
    assertNames(await b.ask("tcp", service.atLoadBalancer(), { count: 5 }), "c");
    assertSilence(await a.ask("tcp", service.atLoadBalancer(), briefly));
  });

  packet(
    15,
    "a range that holds the node admits it, also under the address itself",
    async (stage) => {
      const { node } = stage.peers;
      const network = at.suffix === "v4" ? "192.0.2.0/24" : "2001:db8:5::/64";
      const service = await stage.served({
        type: "LoadBalancer",
        targets: ["c"],
        spec: { loadBalancerSourceRanges: [network] },
      });
      const shut = await stage.served({
        type: "LoadBalancer",
        targets: ["c"],
        spec: { loadBalancerSourceRanges: [`${at.pods.a}/${at.single}`] },
      });
      assertNames(await node.ask("tcp", service.atLoadBalancer(), { count: 3 }), "c");
      assertSilence(await node.ask("tcp", shut.atLoadBalancer(), briefly));
      for (const { loadBalancerIP } of [service, shut]) {
        const own = `${loadBalancerIP}/${at.single}`;
        await node.sh("ip", "addr", "add", own, "dev", "lo");
        stage.atEnd(() => node.sh("ip", "addr", "del", own, "dev", "lo"));
      }
      const from = { from: [service.loadBalancerIP] };
      assertNames(await node.ask("tcp", service.atLoadBalancer(), from), "c");
      assertSilence(
        await node.ask("tcp", shut.atLoadBalancer(), { ...briefly, from: [shut.loadBalancerIP] }),
      );
    },
  );

  packet(16, "a range of all addresses is no restriction", async (stage) => {
    const service = await stage.served({
      type: "LoadBalancer",
      targets: ["c"],
      spec: { loadBalancerSourceRanges: [`${at.pods.a}/${at.single}`, at.everything] },
    });
    for (const peer of [stage.peers.b, stage.peers.client]) {
      assertNames(await peer.ask("tcp", service.atLoadBalancer(), { count: 3 }), "c");
    }
  });

  packet(17, "ranges of the other family only are no restriction", async (stage) => {
    const other = otherFamily(at);
    const service = await stage.served({
      type: "LoadBalancer",
      targets: ["c"],
      spec: { loadBalancerSourceRanges: [`${other.pods.a}/${other.single}`] },
    });
    for (const peer of [stage.peers.b, stage.peers.client]) {
      assertNames(await peer.ask("tcp", service.atLoadBalancer(), { count: 3 }), "c");
    }
  });

  packet(18, "who may not use the load balancer address may use the node port", async (stage) => {
    const service = await stage.served({
      type: "LoadBalancer",
      targets: ["c"],
      spec: { loadBalancerSourceRanges: [`${at.pods.a}/${at.single}`] },
    });
    const { client } = stage.peers;
    assertSilence(await client.ask("tcp", service.atLoadBalancer(), briefly));
    assertNames(await client.ask("tcp", service.atNode(), { count: 5 }), "c");
  });

  packet(63, "of two Services with one address the older has it; then the other", async (stage) => {
    const wish = { ports: ["t"], createdAt: "2024-01-01T00:00:00Z" } as const;
    const younger = stage.service({ ...wish, targets: ["b"], createdAt: "2024-02-01T00:00:00Z" });
    const older = stage.service({ ...wish, targets: ["a"] });
    const shared = at.external(24_000 + (stage.world.takeNumber() % 900));
    const host = at.suffix === "v4" ? shared : `[${shared}]`;
    for (const service of [younger, older]) service.change({ spec: { externalIPs: [shared] } });
    await stage.settled();
    const { c } = stage.peers;
    const ask = (): Promise<readonly string[]> => c.ask("tcp", `${host}:80`, { count: 20 });
    assertNames(await ask(), "a");
    younger.change({ spec: { externalIPs: [shared], sessionAffinity: "None" } });
    await stage.settled();
    assertNames(await ask(), "a");
    older.remove();
    await stage.settled();
    assertNames(await ask(), "b");
    older.put();
    await stage.settled();
    assertNames(await ask(), "a");
  });
}

/** What needs a proxy with other settings. */
export function externalSettingsCases({ world, packet }: Subject): void {
  packet(13, "without the gate of external IPs packets to them are routed out", async (stage) => {
    const service = await stage.served({ external: true, targets: ["a"] });
    const { c } = stage.peers;
    assert.deepEqual(names(await c.ask("tcp", service.atExternal())), ["a"]);
    await world.withSettings({ externalIPs: false }, async () => {
      assertSilence(await c.ask("tcp", service.atExternal(), briefly));
      await stage.assertLeft(service.externalIP, 80);
      assertNames(await c.ask("tcp", service.at()), "a");
    });
    assertNames(await c.ask("tcp", service.atExternal()), "a");
  });
}
