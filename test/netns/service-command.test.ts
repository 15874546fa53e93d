import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";

import { askAgent } from "../../src/agent/service/agent-facts.ts";
import {
  readNode,
  readServedServices,
  readService,
  readSlices,
} from "../../src/agent/service/cluster.ts";
import {
  countPackets,
  type KernelOptions,
  readFlows,
  readKernel,
  targetsOf,
} from "../../src/agent/service/kernel.ts";
import { systemClock } from "../../src/lib/clock.ts";
import type { ProxyMode } from "../../src/proxy/backend.ts";
import { explainService } from "../../src/proxy/explain/explain.ts";
import { insideOwnNamespace, sh } from "./namespace.ts";
import type { Addresses } from "./proxy/addresses.ts";
import { Stage, type TestService } from "./proxy/stage.ts";
import { bothFamilies } from "./proxy/topology.ts";
import { eventually, World } from "./proxy/world.ts";

const never = new AbortController().signal;

/** What `remora service` reads of a Service, as it reads it. */
async function looked(world: World, service: TestService): Promise<KernelOptions> {
  const { client } = world.api;
  const asked = await askAgent("127.0.0.1:10249", never);
  assert.ok(asked.facts !== undefined);
  const { facts } = asked;
  const raw = await readService(client, "default", service.name, never);
  const slices = await readSlices(client, "default", service.name, never);
  const { services } = await readServedServices(client, never);
  const { node } = await readNode(client, facts.nodeName, never);
  const viewpoint = { nodeName: facts.nodeName, nodeIPs: facts.nodeIPs, zone: node?.zone };
  const explanation = explainService({
    service: raw,
    slices,
    others: services,
    node: viewpoint,
    families: facts.families.map(({ family }) => family),
    externalIPs: facts.externalIPs,
  });
  return { facts, node: viewpoint, service: raw, slices, others: services, explanation };
}

async function drift(options: KernelOptions): Promise<readonly string[]> {
  const { views, missing } = await readKernel(options, never);
  assert.equal(missing, undefined);
  assert.equal(Object.keys(views).length, 1);
  return Object.values(views).flatMap((view) =>
    view.drift.map(({ where, key, wanted, found }) =>
      [where, key, found ?? "nothing", "instead of", wanted ?? "nothing"].join(" "),
    ),
  );
}

/** Takes the rule of the ClusterIP away. */
async function damage(mode: ProxyMode, at: Addresses, service: TestService): Promise<void> {
  const v4 = at.family === "IPv4";
  if (mode === "nftables") {
    const key = `{ ${service.clusterIP} . tcp . 80 }`;
    await sh("nft", "delete", "element", v4 ? "ip" : "ip6", "remora-proxy", "svc", key);
    return;
  }
  const program = v4 ? "iptables" : "ip6tables";
  const rules = await sh(program, "-t", "nat", "-S", "KUBE-SERVICES");
  const lines = rules.split("\n").filter((line) => line.startsWith("-A"));
  const number = lines.findIndex(
    (line) => line.includes(`-d ${service.clusterIP}/`) && line.includes("-p tcp"),
  );
  await sh(program, "-t", "nat", "-D", "KUBE-SERVICES", String(number + 1));
}

function serviceTests(mode: ProxyMode): void {
  describe(`remora service, ${mode}`, { concurrency: false }, () => {
    const world = new World(mode);
    before(() => world.setUp());
    after(() => world.tearDown());

    for (const at of bothFamilies) {
      const named = (name: string): Stage => new Stage(world, at, `${name}-${at.suffix}`);

      it(`finds the rules of every kind of Service right, ${at.family}`, async () => {
        const stage = named("right");
        const local = { externalTrafficPolicy: "Local", internalTrafficPolicy: "Local" } as const;
        const range = at.family === "IPv4" ? "203.0.113.0/24" : "2001:db8:9::/64";
        const services = [
          stage.service({ targets: ["a", "b", "remote"] }),
          stage.service({ targets: [], type: "NodePort" }),
          stage.service({ targets: ["a", "remote"], type: "LoadBalancer", external: true }),
          stage.service({ targets: ["remote"], type: "LoadBalancer", spec: local }),
          stage.service({
            targets: ["a", "remote"],
            type: "LoadBalancer",
            spec: { ...local, loadBalancerSourceRanges: [range] },
          }),
          stage.service({ targets: ["a", "b", "c"], spec: { sessionAffinity: "ClientIP" } }),
        ];
        await stage.settled();
        for (const service of services)
          assert.deepEqual(await drift(await looked(world, service)), []);
        // Endpoints keep their places while others come and go.
        for (const service of services.filter((_, index) => index !== 1)) {
          service.setTargets("c", "b");
          await stage.settled();
          service.setTargets("remote", "b", "a");
          await stage.settled();
          assert.deepEqual(await drift(await looked(world, service)), []);
        }
        await stage.close();
      });

      it(`tells what somebody changed, ${at.family}`, async () => {
        const stage = named("wrong");
        const service = await stage.served({ targets: ["a", "b"] });
        const options = await looked(world, service);
        // Else it would mend it before anybody looks.
        await world.stop();
        await damage(mode, at, service);
        const found = await drift(options);
        assert.equal(found.length, 1, found.join("\n"));
        assert.match(found[0] ?? "", /nothing instead of/);
        await world.start();
        assert.deepEqual(await drift(options), []);
        await stage.close();
      });

      it(`counts flows and packets by endpoint, ${at.family}`, async () => {
        const stage = named("count");
        const service = await stage.served({ targets: ["a"], type: "NodePort" });
        const refused = await stage.served({ targets: [] });
        const options = await looked(world, service);
        const targets = [
          ...targetsOf(options.explanation, options.facts),
          ...targetsOf((await looked(world, refused)).explanation, options.facts),
        ];
        // One that was killed has left its table; another one still counts.
        for (const pid of [76, 78]) await sh("nft", "add", "table", "ip", `remora-count-${pid}`);
        const counting = countPackets(
          { targets, seconds: 2, pid: 77, isAlive: (pid) => pid === 78, clock: systemClock },
          never,
        );
        await eventually(
          async () => (await sh("nft", "list", "tables")).includes("remora-count-77"),
          "the table is there",
        );
        const answers = await stage.peers.b.ask("tcp", service.at("t"), { count: 5 });
        assert.equal(answers.length, 5);
        await stage.peers.client.ask("tcp", service.atNode("t"));
        await stage.peers.b.ask("tcp", refused.at("t"), { timeoutMs: 300 });
        const { arrived, counts } = await counting;
        const to = (ip: string) => counts.filter(({ target }) => target.ip === ip);
        const [own] = to(service.clusterIP);
        assert.equal(to(service.clusterIP).length, 1);
        const endpoint = at.pods.a.includes(":") ? `[${at.pods.a}]:8080` : `${at.pods.a}:8080`;
        assert.equal(own?.endpoint, endpoint);
        // A connection is three packets at least in each direction.
        assert.ok((own?.asked.packets ?? 0) >= 15, String(own?.asked.packets));
        assert.ok((own?.answered.packets ?? 0) >= 10, String(own?.answered.packets));
        assert.equal(to(at.node)[0]?.endpoint, endpoint);
        assert.ok(arrived.some(({ target }) => target.ip === refused.clusterIP));
        assert.deepEqual(to(refused.clusterIP), []);
        const left = await sh("nft", "list", "tables");
        assert.deepEqual(left.match(/remora-count-\d+/g), ["remora-count-78"]);
        await sh("nft", "delete", "table", "ip", "remora-count-78");
        const known = await readFlows(targets, never);
        assert.ok("flows" in known);
        const flows = known.flows.find(({ target }) => target.ip === service.clusterIP);
        assert.equal(flows?.answeredBy, endpoint);
        assert.ok(flows.flows >= 5);
        await stage.close();
      });
    }
  });
}

if (insideOwnNamespace(import.meta.filename)) {
  serviceTests("nftables");
  serviceTests("iptables");
}
