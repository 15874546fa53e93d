import assert from "node:assert/strict";

import { ENDPOINT_SLICES } from "../../../../src/api/resources.ts";
import { families, otherFamily } from "../addresses.ts";
import { sliceObject, type Target } from "../objects.ts";
import type { Subject } from "../packet-case.ts";
import { eventually, zone } from "../world.ts";
import {
  assertAmong,
  assertNames,
  assertRefused,
  assertSilence,
  briefly,
  callers,
} from "./expect.ts";

function leaving(pod: "a" | "b" | "remote", serving = true): Target {
  return { pod, ready: false, terminating: true, serving };
}

/** Which endpoints are asked: policies, conditions, topology. */
export function policyCases({ world, at, packet }: Subject): void {
  const internalLocal = { internalTrafficPolicy: "Local" } as const;

  packet(
    26,
    "internalTrafficPolicy Local, none local: silence, and the node port works",
    async (stage) => {
      const service = await stage.served({
        type: "NodePort",
        targets: ["remote"],
        spec: internalLocal,
      });
      const { a, node, client } = stage.peers;
      assertSilence(await a.ask("tcp", service.at(), { ...briefly, count: 2, parallel: 2 }));
      assertSilence(await node.ask("tcp", service.at(), briefly));
      assertSilence(await client.ask("udp", service.at("u"), briefly));
      assertNames(await client.ask("tcp", service.atNode(), { count: 5 }), "remote");
      const name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
      const line = new RegExp(`^${name}\\{(?=.*"${at.family}")(?=.*"internal").*\\} (\\d+)$`, "m");
      assert.ok(Number(line.exec(await world.metrics())?.[1] ?? 0) >= 1);
    },
  );

  packet(27, "internalTrafficPolicy Local, one local: all go there", async (stage) => {
    const service = await stage.served({ targets: ["a", "remote"], spec: internalLocal });
    const { b, node } = stage.peers;
    const answers = await b.ask("tcp", service.at(), { count: 40, parallel: 4 });
    assertNames(answers, "a");
    assert.deepEqual(callers(answers), [at.pods.b]);
    assertNames(await node.ask("tcp", service.at(), { count: 20 }), "a");
    assertNames(await b.ask("udp", service.at("u"), { count: 20 }), "a");
  });

  packet(27, "both policies Local: each destination keeps its own rule", async (stage) => {
    const service = await stage.served({
      type: "NodePort",
      targets: ["a", "remote"],
      spec: { ...internalLocal, externalTrafficPolicy: "Local" },
    });
    const { b, client } = stage.peers;
    assertNames(await b.ask("tcp", service.at(), { count: 20 }), "a");
    assertNames(await b.ask("tcp", service.atNode(), { count: 30 }), "a", "remote");
    const outside = await client.ask("tcp", service.atNode(), { count: 20 });
    assertNames(outside, "a");
    assert.deepEqual(callers(outside), [at.client]);
  });

  packet(28, "of ready and terminating endpoints only ready ones are asked", async (stage) => {
    const service = await stage.served({ targets: [leaving("a"), "b"] });
    assertNames(await stage.peers.c.ask("tcp", service.at(), { count: 30 }), "b");
    service.setTargets("a", "b");
    await stage.settled();
    assertNames(await stage.peers.c.ask("tcp", service.at(), { count: 30 }), "a", "b");
  });

  packet(29, "when all terminate those that serve are asked", async (stage) => {
    const service = await stage.served({ targets: [leaving("a"), leaving("b", false)] });
    assertNames(await stage.peers.c.ask("tcp", service.at(), { count: 20 }), "a");
    assertNames(await stage.peers.node.ask("udp", service.at("u"), { count: 10 }), "a");
  });

  packet(30, "terminating and not serving: refused", async (stage) => {
    const service = await stage.served({ type: "NodePort", targets: [leaving("a", false)] });
    assertRefused(await stage.peers.c.ask("tcp", service.at(), { count: 5, timeoutMs: 900 }));
    assertRefused(await stage.peers.client.ask("tcp", service.atNode(), { timeoutMs: 900 }));
  });

  packet(
    31,
    "a local endpoint that terminates serves outsiders; the health port says 503",
    async (stage) => {
      const healthPort = 31_000 + world.takeNumber();
      const service = await stage.served({
        type: "LoadBalancer",
        targets: [leaving("a"), "remote"],
        spec: { externalTrafficPolicy: "Local", healthCheckNodePort: healthPort },
      });
      const { client, b } = stage.peers;
      for (const to of [service.atNode(), service.atLoadBalancer()]) {
        const answers = await client.ask("tcp", to, { count: 10 });
        assertNames(answers, "a");
        assert.deepEqual(callers(answers), [at.client]);
      }
      assertNames(await b.ask("tcp", service.atNode(), { count: 20 }), "remote");
      const host = at.suffix === "v4" ? at.node : `[${at.node}]`;
      await eventually(async () => {
        const answer = await fetch(`http://${host}:${healthPort}/`, {
          headers: { connection: "close" },
        }).catch(() => undefined);
        await answer?.arrayBuffer();
        return answer?.status === 503;
      }, "503");
    },
  );

  packet(58, "a dual-stack Service: each family has its own endpoints", async (stage) => {
    const service = stage.service({ targets: ["a"] });
    const number = world.takeNumber();
    const ips = { v4: families.IPv4.clusterIP(number), v6: families.IPv6.clusterIP(number) };
    service.change({
      spec: {
        clusterIP: ips.v4,
        clusterIPs: [ips.v4, ips.v6],
        ipFamilies: ["IPv4", "IPv6"],
        ipFamilyPolicy: "RequireDualStack",
      },
    });
    const other = otherFamily(at);
    const slice = sliceObject(service.name, other, { targets: ["b"] });
    world.api.put(ENDPOINT_SLICES, slice);
    stage.atEnd(async () => {
      world.api.remove(ENDPOINT_SLICES, `default/${slice.metadata?.name ?? ""}`);
    });
    await Promise.all([stage.settled(), world.settled(other)]);
    const [own, foreign] = at.suffix === "v4" ? [ips.v4, ips.v6] : [ips.v6, ips.v4];
    const { c } = stage.peers;
    assertNames(await c.ask("tcp", `${own}:80`, { count: 20 }), "a");
    assertNames(await c.ask("tcp", `${foreign}:80`, { count: 20 }), "b");
    service.setTargets();
    await stage.settled();
    assertRefused(await c.ask("tcp", `${own}:80`, { count: 3, timeoutMs: 900 }));
    assertNames(await c.ask("tcp", `${foreign}:80`, { count: 3 }), "b");
  });

  packet(
    59,
    "zone hints filter, unless one endpoint has none; node hints go first",
    async (stage) => {
      const here = { zone };
      const there = { zone: "elsewhere" };
      const service = await stage.served({
        targets: [
          { pod: "a", ...here },
          { pod: "b", ...there },
        ],
      });
      const { c } = stage.peers;
      const ask = (): Promise<readonly string[]> => c.ask("tcp", service.at(), { count: 30 });
      assertNames(await ask(), "a");
      service.setTargets({ pod: "a", ...here }, { pod: "b", ...there }, "remote");
      await stage.settled();
      assertNames(await ask(), "a", "b", "remote");
      service.setTargets(
        { pod: "a", ...here, node: "other" },
        { pod: "b", ...there, node: "here" },
        { pod: "remote", ...here, node: "other" },
      );
      await stage.settled();
      assertNames(await ask(), "b");
      // Nobody is in this zone: hints that lead nowhere do not count.
      service.setTargets({ pod: "a", ...there }, { pod: "b", ...there });
      await stage.settled();
      assertNames(await ask(), "a", "b");
      // Topology is ignored among those that terminate.
      service.setTargets(
        { pod: "a", ...there, terminating: true },
        { pod: "b", ...here, terminating: true },
      );
      await stage.settled();
      assertNames(await ask(), "a", "b");
    },
  );

  packet(
    68,
    "the label service-proxy-name, put on a live Service, takes its rules away",
    async (stage) => {
      const service = await stage.served({ targets: ["a"] });
      const { c } = stage.peers;
      assertNames(await c.ask("tcp", service.at()), "a");
      service.change({ labels: { "service.kubernetes.io/service-proxy-name": "other" } });
      await stage.settled();
      const [answer = ""] = await c.ask("tcp", service.at(), briefly);
      assert.match(answer, /^(timeout|ECONNREFUSED)$/);
      service.change({ labels: {} });
      await stage.settled();
      assertNames(await c.ask("tcp", service.at()), "a");
    },
  );

  packet(69, "the label headless, put on a live slice, takes its endpoints away", async (stage) => {
    const service = await stage.served({ targets: ["a"] });
    const { c } = stage.peers;
    assertNames(await c.ask("tcp", service.at()), "a");
    service.change({ sliceLabels: { "service.kubernetes.io/headless": "" } });
    await stage.settled();
    assertRefused(await c.ask("tcp", service.at(), { count: 3, timeoutMs: 900 }));
    service.change({ sliceLabels: {} });
    await stage.settled();
    assertAmong(await c.ask("tcp", service.at()), "a");
  });
}

/** What changes the Node. */
export function nodeZoneCases({ world, packet }: Subject): void {
  packet(59, "another zone label on the Node changes what is near", async (stage) => {
    const service = await stage.served({
      targets: [
        { pod: "a", zone },
        { pod: "b", zone: "zone-2" },
      ],
    });
    const { c } = stage.peers;
    const all = async (name: string): Promise<boolean> => {
      const answers = await c.ask("tcp", service.at(), { count: 12 });
      return answers.every((answer) => answer.startsWith(`${name} `));
    };
    assert.ok(await all("a"));
    world.putNode({ "topology.kubernetes.io/zone": "zone-2" });
    stage.atEnd(async () => {
      world.putNode();
      await eventually(() => all("a"), "back");
    });
    await eventually(() => all("b"), "the other zone");
  });
}
