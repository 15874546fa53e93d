import assert from "node:assert/strict";

import type { Subject } from "../packet-case.ts";
import {
  assertNames,
  assertNodeCalled,
  assertRefused,
  assertSilence,
  briefly,
  callers,
  names,
} from "./expect.ts";

/** ClusterIPs: who gets there, and under which address. */
export function clusterIPCases({ mode, at, packet }: Subject): void {
  packet(1, "a pod's connections to a ClusterIP are split evenly", async (stage) => {
    const service = await stage.served({ targets: ["a", "b"] });
    const answers = await stage.peers.c.ask("tcp", service.at(), { count: 400, parallel: 8 });
    assertNames(answers, "a", "b");
    const first = answers.filter((answer) => answer.startsWith("a ")).length;
    // Four standard deviations of 400 tosses.
    assert.ok(Math.abs(first - 200) <= 40, `${first} of 400`);
    assertNames(
      await stage.peers.c.ask("udp", service.at("u"), { count: 40, parallel: 8 }),
      "a",
      "b",
    );
  });

  packet(1, "endpoints here and on another node are both used", async (stage) => {
    const service = await stage.served({ targets: ["a", "remote"] });
    const answers = await stage.peers.c.ask("tcp", service.at(), { count: 40, parallel: 4 });
    assertNames(answers, "a", "remote");
    assert.deepEqual(callers(answers), [at.pods.c]);
  });

  packet(2, "the server sees the pod's own address", async (stage) => {
    const service = await stage.served({ targets: ["b"] });
    const { a } = stage.peers;
    assert.deepEqual(callers(await a.ask("tcp", service.at(), { count: 5 })), [at.pods.a]);
    assert.deepEqual(callers(await a.ask("udp", service.at("u"), { count: 5 })), [at.pods.a]);
  });

  packet(3, "the node reaches a ClusterIP under an address of its own", async (stage) => {
    const service = await stage.served({ targets: ["a", "b"] });
    const { node } = stage.peers;
    const tcp = await node.ask("tcp", service.at(), { count: 20 });
    const udp = await node.ask("udp", service.at("u"), { count: 20 });
    for (const answers of [tcp, udp]) {
      assertNames(answers, "a", "b");
      assertNodeCalled(answers, at);
    }
  });

  packet(4, "an off-cluster client's source is rewritten", async (stage) => {
    const service = await stage.served({ targets: ["a", "b", "remote"] });
    const { client } = stage.peers;
    const answers = await client.ask("tcp", service.at(), { count: 40, parallel: 4 });
    assertNames(answers, "a", "b", "remote");
    assertNodeCalled(answers, at);
  });

  for (const kind of ["tcp", "udp"] as const) {
    packet(
      kind === "tcp" ? 19 : 20,
      `a pod reaches itself by ${kind.toUpperCase()}`,
      async (stage) => {
        const service = await stage.served({ targets: ["a", "b"] });
        const to = service.at(kind === "tcp" ? "t" : "u");
        const answers = await stage.peers.a.ask(kind, to, { count: 40, parallel: 4 });
        assertNames(answers, "a", "b");
        const own = answers.filter((answer) => answer.startsWith("a "));
        assertNodeCalled(own, at);
        const other = answers.filter((answer) => answer.startsWith("b "));
        assert.deepEqual(callers(other), [at.pods.a], "only hairpins get another source");
      },
    );
  }

  packet(21, "a pod reaches itself by a node port and a load balancer address", async (stage) => {
    const service = await stage.served({
      type: "LoadBalancer",
      external: true,
      targets: ["a"],
    });
    const { a } = stage.peers;
    for (const to of [service.atNode(), service.atLoadBalancer(), service.atExternal()]) {
      const answers = await a.ask("tcp", to, { count: 5 });
      assertNames(answers, "a");
      assertNodeCalled(answers, at);
    }
    service.change({ spec: { externalTrafficPolicy: "Local" } });
    await stage.settled();
    for (const to of [service.atNode(), service.atLoadBalancer()]) {
      const answers = await a.ask("tcp", to, { count: 5 });
      assertNames(answers, "a");
      assertNodeCalled(answers, at);
    }
  });

  const wrongPort =
    mode === "nftables"
      ? "a port that a ClusterIP does not have is refused at once"
      : "a port that a ClusterIP does not have is nobody's: packets leave by the default route";
  packet(49, wrongPort, async (stage) => {
    const service = await stage.served({ targets: ["a"] });
    const port = 4949;
    const to = service.at().replace(/:80$/, `:${port}`);
    const { c, node } = stage.peers;
    if (mode === "nftables") {
      assertRefused(await c.ask("tcp", to, { count: 10 }));
      assertRefused(await node.ask("tcp", to, { count: 10 }));
      assert.deepEqual(await stage.leftFor(service.clusterIP, port), []);
      return;
    }
    assertSilence(await c.ask("tcp", to, briefly));
    await stage.assertLeft(service.clusterIP, port);
  });

  packet(39, "without affinity one client spreads at once", async (stage) => {
    const service = await stage.served({
      targets: ["a", "b"],
      spec: { sessionAffinity: "ClientIP" },
    });
    const { c } = stage.peers;
    assert.equal(names(await c.ask("tcp", service.at(), { count: 20 })).length, 1);
    service.change({ spec: { sessionAffinity: "None" } });
    await stage.settled();
    assertNames(await c.ask("tcp", service.at(), { count: 30 }), "a", "b");
    service.change({ spec: { sessionAffinity: "ClientIP" } });
    await stage.settled();
    assert.equal(names(await c.ask("tcp", service.at(), { count: 20 })).length, 1);
  });
}
