import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";

import { NODES } from "../../src/api/resources.ts";
import type { ProxyMode } from "../../src/proxy/backend.ts";
import { insideOwnNamespace } from "./namespace.ts";
import type { Addresses } from "./proxy/addresses.ts";
import {
  assertNames,
  assertNodeCalled,
  assertSilence,
  briefly,
  callers,
} from "./proxy/cases/expect.ts";
import { Stage, type TestService } from "./proxy/stage.ts";
import { bothFamilies } from "./proxy/topology.ts";
import { eventually, World } from "./proxy/world.ts";

const everyWay = { type: "LoadBalancer", external: true } as const;

/** All addresses of a Service that clients from outside use. */
function outside(service: TestService): readonly (readonly ["tcp" | "udp", string])[] {
  return (["t", "u"] as const).flatMap((kind) => {
    const protocol = kind === "t" ? "tcp" : "udp";
    return [
      [protocol, service.atNode(kind)],
      [protocol, service.atLoadBalancer(kind)],
      [protocol, service.atExternal(kind)],
    ] as const;
  });
}

/** The setting of `remora up`: who is the only node keeps the source of clients from outside. */
function clientSourceTests(mode: ProxyMode): void {
  const world = new World(mode);

  /** One test in each family. */
  const packet = (title: string, body: (stage: Stage, at: Addresses) => Promise<void>): void => {
    for (const at of bothFamilies) {
      it(`${title} [${mode} ${at.family}]`, { timeout: 60_000 }, async () => {
        const stage = new Stage(world, at, `source-${at.suffix}-${world.takeNumber()}`);
        try {
          await body(stage, at);
        } finally {
          await stage.close();
        }
      });
    }
  };

  describe(`client sources with real packets, ${mode}`, { concurrency: false }, () => {
    before(async () => {
      await world.setUp();
      await world.restart({ keepClientSource: true });
    });
    after(() => world.tearDown());

    packet("a client's address is kept on every way in", async (stage, at) => {
      const service = await stage.served({ ...everyWay, targets: ["a", "b"] });
      const { client } = stage.peers;
      for (const [protocol, to] of outside(service)) {
        const answers = await client.ask(protocol, to, { count: 20, parallel: 4 });
        assertNames(answers, "a", "b");
        assert.deepEqual(callers(answers), [at.client], `${protocol} ${to}`);
      }
      assertNodeCalled(await client.ask("tcp", service.at(), { count: 3 }), at);
    });

    packet("clients keep their addresses with session affinity, too", async (stage) => {
      const service = await stage.served({
        ...everyWay,
        targets: ["a", "b", "c"],
        spec: { sessionAffinity: "ClientIP" },
      });
      const clients = stage.clients(30);
      const from = { from: clients };
      const first = await stage.peers.client.ask("tcp", service.atNode(), from);
      assertNames(first, "a", "b", "c");
      assert.deepEqual(callers(first), clients.toSorted());
      assert.deepEqual(await stage.peers.client.ask("tcp", service.atNode(), from), first);
    });

    packet("a pod keeps its address, and gets answers from itself", async (stage, at) => {
      const service = await stage.served({ ...everyWay, targets: ["a", "b"] });
      for (const [protocol, to] of outside(service)) {
        const answers = await stage.peers.a.ask(protocol, to, { count: 30, parallel: 4 });
        assertNames(answers, "a", "b");
        assertNodeCalled(
          answers.filter((answer) => answer.startsWith("a ")),
          at,
        );
        const other = answers.filter((answer) => answer.startsWith("b "));
        assert.deepEqual(callers(other), [at.pods.a], "only hairpins get another source");
      }
    });

    packet("the node reaches it under an address of its own", async (stage, at) => {
      const service = await stage.served({ ...everyWay, targets: ["a", "b"] });
      for (const [protocol, to] of outside(service)) {
        const answers = await stage.peers.node.ask(protocol, to, { count: 20 });
        assertNames(answers, "a", "b");
        assertNodeCalled(answers, at);
      }
    });

    packet(
      "on an address that the node itself has, as load balancers get it",
      async (stage, at) => {
        const service = await stage.served({ ...everyWay, targets: ["a", "b"] });
        const { client, node, c } = stage.peers;
        const own = `${service.loadBalancerIP}/${at.single}`;
        await node.sh("ip", "addr", "add", own, "dev", "lo");
        stage.atEnd(() => node.sh("ip", "addr", "del", own, "dev", "lo"));
        const to = service.atLoadBalancer();
        assert.deepEqual(callers(await client.ask("tcp", to, { count: 10 })), [at.client]);
        assert.deepEqual(callers(await c.ask("tcp", to, { count: 10 })), [at.pods.c]);
        assertNames(await node.ask("tcp", to, { count: 20 }), "a", "b");
      },
    );

    if (mode === "iptables") {
      const [at] = bothFamilies;
      it(`node ports answer on the loopback address [${mode} IPv4]`, async () => {
        assert.ok(at !== undefined);
        const stage = new Stage(world, at, `source-lo-${world.takeNumber()}`);
        try {
          const service = await stage.served({ ...everyWay, targets: ["a", "b"] });
          const to = service.atNode("t", at.loopback);
          const answers = await stage.peers.node.ask("tcp", to, { count: 20 });
          assertNames(answers, "a", "b");
          assertNodeCalled(answers, at);
        } finally {
          await stage.close();
        }
      });
    }

    packet("source ranges ask for the client's address as before", async (stage, at) => {
      const ranges = (ip: string): { readonly loadBalancerSourceRanges: string[] } => ({
        loadBalancerSourceRanges: [`${ip}/${at.single}`],
      });
      const open = await stage.served({ ...everyWay, targets: ["c"], spec: ranges(at.client) });
      const shut = await stage.served({ ...everyWay, targets: ["c"], spec: ranges(at.pods.a) });
      const { client } = stage.peers;
      const answers = await client.ask("tcp", open.atLoadBalancer(), { count: 3 });
      assert.deepEqual(callers(answers), [at.client]);
      assertSilence(await client.ask("tcp", shut.atLoadBalancer(), briefly));
    });

    packet("an endpoint elsewhere means a new address for all", async (stage, at) => {
      const service = await stage.served({ ...everyWay, targets: ["a", "remote"] });
      for (const [protocol, to] of outside(service)) {
        const answers = await stage.peers.client.ask(protocol, to, { count: 30, parallel: 4 });
        assertNames(answers, "a", "remote");
        assertNodeCalled(answers, at);
      }
      service.setTargets("a");
      await stage.settled();
      const answers = await stage.peers.client.ask("tcp", service.atNode(), { count: 5 });
      assert.deepEqual(callers(answers), [at.client]);
    });

    packet(
      "a second Node means a new address, and its end the old way; connections go on",
      async (stage, at) => {
        const service = await stage.served({
          ...everyWay,
          ports: ["t", "u", "e"],
          targets: ["a", "b"],
        });
        const { client } = stage.peers;
        const ask = (): Promise<readonly string[]> =>
          client.ask("tcp", service.atNode(), { count: 10 });
        const early = await client.open(service.atNode("e"));
        stage.atEnd(() => early.end());
        assert.deepEqual(callers(await ask()), [at.client]);
        world.api.put(NODES, { metadata: { name: "there" } });
        try {
          await eventually(
            async () => !callers(await ask()).includes(at.client),
            "a new source address",
          );
          assertNodeCalled(await ask(), at);
          assertNodeCalled(await client.ask("udp", service.atNode("u"), { count: 5 }), at);
          assert.equal(await early.say("one"), "one");
          const late = await client.open(service.atNode("e"));
          stage.atEnd(() => late.end());
          world.api.remove(NODES, "there");
          await eventually(
            async () => callers(await ask()).join() === at.client,
            "the client's address again",
          );
          assert.equal(await early.say("two"), "two");
          assert.equal(await late.say("three"), "three");
        } finally {
          world.api.remove(NODES, "there");
        }
      },
    );
  });
}

if (insideOwnNamespace(import.meta.filename)) {
  clientSourceTests("nftables");
  clientSourceTests("iptables");
}
