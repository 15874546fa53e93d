import assert from "node:assert/strict";

import type { Subject } from "../packet-case.ts";
import {
  assertNames,
  assertRefused,
  assertRefusedByICMP,
  assertSilence,
  briefly,
} from "./expect.ts";

/** Services that nobody is behind. */
export function rejectCases({ mode, packet }: Subject): void {
  packet(22, "no endpoints, TCP: refused 20 of 20", async (stage) => {
    const service = await stage.served();
    // More than the kernel would send ICMP errors for.
    assertRefused(await stage.peers.a.ask("tcp", service.at(), { count: 20, timeoutMs: 900 }));
  });

  packet(23, "no endpoints, UDP: refused", async (stage) => {
    const service = await stage.served();
    await assertRefusedByICMP(() => stage.peers.b.ask("udp", service.at("u"), briefly));
  });

  packet(24, "no endpoints: the node is refused too, TCP and UDP", async (stage) => {
    const service = await stage.served();
    const { node, client } = stage.peers;
    const answers = await node.ask("tcp", service.at(), { count: 20, timeoutMs: 900 });
    assert.deepEqual(await stage.leftFor(service.clusterIP, 80), [], "left the node");
    assertRefused(answers);
    await assertRefusedByICMP(() => node.ask("udp", service.at("u"), briefly));
    assertRefused(await client.ask("tcp", service.at(), { count: 5, timeoutMs: 900 }));
  });

  packet(
    25,
    "no endpoints: node port, load balancer address and external IP refuse",
    async (stage) => {
      const service = await stage.served({ type: "LoadBalancer", external: true });
      const { a, client, node } = stage.peers;
      const everything = [service.atNode(), service.atLoadBalancer(), service.atExternal()];
      for (const to of everything) {
        assertRefused(await client.ask("tcp", to, { count: 5, timeoutMs: 900 }));
        assertRefused(await a.ask("tcp", to, { count: 5, timeoutMs: 900 }));
      }
      assertRefused(await node.ask("tcp", service.atNode(), { count: 5, timeoutMs: 900 }));
      await assertRefusedByICMP(() => client.ask("udp", service.atNode("u"), briefly));
      if (mode === "nftables") {
        assertRefused(await node.ask("tcp", service.atExternal(), { count: 5, timeoutMs: 900 }));
        assert.deepEqual(await stage.leftFor(service.externalIP, 80), []);
      } else {
        // kube-proxy's chains have no such jump in OUTPUT: what the node sends there leaves it.
        assertSilence(await node.ask("tcp", service.atExternal(), briefly));
        await stage.assertLeft(service.externalIP, 80);
      }
      service.setTargets("b");
      await stage.settled();
      for (const to of everything) assertNames(await client.ask("tcp", to, { count: 3 }), "b");
    },
  );
}
