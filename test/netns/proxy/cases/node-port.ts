import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";

import type { Subject } from "../packet-case.ts";
import type { Stage, TestService } from "../stage.ts";
import { hostPorts } from "../topology.ts";
import { eventually } from "../world.ts";
import {
  assertNames,
  assertNodeCalled,
  assertRefused,
  assertSilence,
  briefly,
  callers,
} from "./expect.ts";

function localPolicy(
  stage: Stage,
  targets: readonly ("a" | "b" | "remote")[],
): Promise<TestService> {
  return stage.served({ type: "NodePort", targets, spec: { externalTrafficPolicy: "Local" } });
}

/** Node ports under both external traffic policies. */
export function nodePortCases({ mode, at, packet }: Subject): void {
  packet(5, "a client's flow to a node port goes to any endpoint, from the node", async (stage) => {
    const service = await stage.served({ type: "NodePort", targets: ["a", "remote"] });
    const { client } = stage.peers;
    const tcp = await client.ask("tcp", service.atNode(), { count: 40, parallel: 4 });
    assertNames(tcp, "a", "remote");
    assertNodeCalled(tcp, at);
    const udp = await client.ask("udp", service.atNode("u"), { count: 40, parallel: 4 });
    assertNames(udp, "a", "remote");
    assertNodeCalled(udp, at);
  });

  packet(
    6,
    "externalTrafficPolicy Local: a local endpoint, the client's address kept",
    async (stage) => {
      const service = await localPolicy(stage, ["a", "remote"]);
      const { client } = stage.peers;
      const answers = await client.ask("tcp", service.atNode(), { count: 20 });
      assertNames(answers, "a");
      assert.deepEqual(callers(answers), [at.client]);
    },
  );

  packet(7, "externalTrafficPolicy Local without a local endpoint: silence", async (stage) => {
    const service = await localPolicy(stage, ["remote"]);
    const { client } = stage.peers;
    assertSilence(await client.ask("tcp", service.atNode(), { ...briefly, count: 3, parallel: 3 }));
    assertSilence(await client.ask("udp", service.atNode("u"), briefly));
  });

  packet(
    8,
    "externalTrafficPolicy Local: a pod reaches remote endpoints under its own address",
    async (stage) => {
      const service = await localPolicy(stage, ["remote"]);
      const answers = await stage.peers.a.ask("tcp", service.atNode(), { count: 5 });
      assertNames(answers, "remote");
      assert.deepEqual(callers(answers), [at.pods.a]);
    },
  );

  packet(
    9,
    "externalTrafficPolicy Local: the node reaches remote endpoints under its own address",
    async (stage) => {
      const service = await localPolicy(stage, ["remote"]);
      const answers = await stage.peers.node.ask("tcp", service.atNode(), { count: 5 });
      assertNames(answers, "remote");
      assertNodeCalled(answers, at);
    },
  );

  packet(
    53,
    "a host port does not steal from a Service on an address of the node",
    async (stage) => {
      const [hostPort] = hostPorts;
      const service = await stage.served({ type: "LoadBalancer", targets: ["a"], port: hostPort });
      const { node, client } = stage.peers;
      const own = `${service.loadBalancerIP}/${at.single}`;
      await node.sh("ip", "addr", "add", own, "dev", "lo");
      stage.atEnd(() => node.sh("ip", "addr", "del", own, "dev", "lo"));
      assertNames(await client.ask("tcp", service.atLoadBalancer(), { count: 10 }), "a");
      assertNames(await client.ask("tcp", service.at(), { count: 10 }), "a");
      const host = at.family === "IPv4" ? at.node : `[${at.node}]`;
      assertNames(await client.ask("tcp", `${host}:${hostPort}`, { count: 5 }), "c");
    },
  );

  packet(54, "a node port goes before a host port of the same number", async (stage) => {
    const [, hostPort] = hostPorts;
    const service = stage.service({ type: "NodePort", targets: ["a"], ports: ["t"] });
    service.change({
      spec: {
        type: "NodePort",
        ports: [{ name: "t", port: 80, protocol: "TCP", nodePort: hostPort }],
      },
    });
    await stage.settled();
    const host = at.family === "IPv4" ? at.node : `[${at.node}]`;
    const { client, node } = stage.peers;
    assertNames(await client.ask("tcp", `${host}:${hostPort}`, { count: 10 }), "a");
    assertNames(await node.ask("tcp", `${host}:${hostPort}`, { count: 10 }), "a");
    service.remove();
    await stage.settled();
    await eventually(async () => {
      const [answer = ""] = await client.ask("tcp", `${host}:${hostPort}`);
      return answer.startsWith("c ");
    }, "the host port is free again");
  });

  packet(51, "by default node ports answer on the addresses that the mode names", async (stage) => {
    const service = await stage.served({ type: "NodePort", targets: ["a"] });
    const { client } = stage.peers;
    const second = service.atNode("t", at.nodeSecond);
    assertNames(await client.ask("tcp", service.atNode(), { count: 5 }), "a");
    // nftables: the node's primary addresses; iptables: all it has.
    if (mode === "nftables") assertRefused(await client.ask("tcp", second, { count: 5 }));
    else assertNames(await client.ask("tcp", second, { count: 5 }), "a");
  });
}

/** What needs a proxy with other settings. */
export function nodePortSettingsCases({ world, mode, at, packet }: Subject): void {
  packet(
    51,
    "nodePortAddresses: others refuse; an address that comes at run time answers",
    async (stage) => {
      const service = await stage.served({ type: "NodePort", targets: ["a"] });
      const { client, node } = stage.peers;
      await world.withSettings({ nodePortAddresses: [at.nodeOthers] }, async () => {
        assertRefused(await client.ask("tcp", service.atNode(), { count: 3 }));
        assertNames(await client.ask("tcp", service.atNode("t", at.nodeSecond), { count: 3 }), "a");
        const later = `${at.nodeLater}/${at.single}`;
        const change = (verb: string): Promise<string> =>
          node.sh(
            "ip",
            "addr",
            verb,
            later,
            "dev",
            "up0",
            ...(at.suffix === "v6" ? ["nodad"] : []),
          );
        await change("add");
        let there = true;
        stage.atEnd(async () => (there ? change("del") : ""));
        const asked = async (wanted: RegExp): Promise<boolean> => {
          const to = service.atNode("t", at.nodeLater);
          const [answer = ""] = await client.ask("tcp", to, { timeoutMs: 200 });
          return wanted.test(answer);
        };
        await eventually(() => asked(/^a /), "the new address answers", { seconds: 3 });
        await node.sh("ip", "addr", "del", later, "dev", "up0");
        there = false;
        await eventually(() => asked(/timeout|EHOSTUNREACH|ECONNREFUSED/), "and no longer");
      });
    },
  );

  const loopback =
    mode === "iptables" && at.family === "IPv4"
      ? "localhostNodePorts: a node port answers on the loopback address, unless switched off"
      : "node ports do not answer on the loopback address";
  packet(52, loopback, async (stage) => {
    const { node } = stage.peers;
    const service = await stage.served({ type: "NodePort", targets: ["a", "remote"] });
    const to = service.atNode("t", at.loopback);
    if (mode !== "iptables" || at.family !== "IPv4") {
      assertRefused(await node.ask("tcp", to, { count: 5 }));
      return;
    }
    const answers = await node.ask("tcp", to, { count: 20 });
    assertNames(answers, "a", "remote");
    assertNodeCalled(answers, at);
    service.change({ spec: { externalTrafficPolicy: "Local" } });
    await stage.settled();
    assertNames(await node.ask("tcp", to, { count: 20 }), "a", "remote");
    await world.withSettings({ localhostNodePorts: false }, async () => {
      assertRefused(await node.ask("tcp", to, { count: 5 }));
    });
  });

  packet(
    52,
    "packets from outside to a loopback address of the node are dropped",
    async (stage) => {
      const { node, client } = stage.peers;
      // The client has no loopback address of its own now, and a route that says the node has it.
      const six = at.suffix === "v6";
      const own = six ? "::1/128" : "127.0.0.1/8";
      const ip = six ? ["ip", "-6"] : ["ip"];
      await client.sh(...ip, "addr", "del", own, "dev", "lo");
      stage.atEnd(() => client.sh(...ip, "addr", "add", own, "dev", "lo"));
      await client.sh(...ip, "route", "add", `${at.loopback}/${at.single}`, "via", at.node);
      stage.atEnd(() => client.sh(...ip, "route", "del", `${at.loopback}/${at.single}`));
      const service = await stage.served({ type: "NodePort", targets: ["a"] });
      const before = await node.received(9090);
      const host = six ? `[${at.loopback}]` : at.loopback;
      const stop = await client.stream(`${host}:9090`, stage.flowPort());
      await delay(200);
      await stop();
      assert.equal(await node.received(9090), before, "a socket of the node heard it");
      const answers = await client.ask("tcp", service.atNode("t", at.loopback), briefly);
      assert.match(answers[0] ?? "", /^(timeout|E[A-Z]+)$/);
    },
  );
}
