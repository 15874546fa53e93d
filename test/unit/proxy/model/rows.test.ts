// The features of Services one by one, each in both families and for both programs: what must happen stands here as
// text; the description's judge and the executed rules must both say the same.
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { IptablesTraceRuleset } from "../../../../src/proxy/trace/iptables-text.ts";
import { walk } from "../../../../src/proxy/trace/walk.ts";
import { addressesOf, execute, here, hostOf, judge, rulesFor, settingsOf } from "./build.ts";
import {
  type ModelCluster,
  type ModelEndpoint,
  type ModelNode,
  modelService,
  type ModelService,
  type ModelSlice,
} from "./cluster.ts";
import { assertSameEnds, endText, packetOf, simulate } from "./compare.ts";
import { modes } from "./modes.ts";
import { type ModelPacket, type ModelSettings, Oracle } from "./oracle.ts";

type Ask = Partial<ModelPacket>;

for (const mode of modes) {
  for (const family of ["IPv4", "IPv6"] as const) {
    describe(`rows of the feature table [${mode} ${family}]`, () => {
      const at = addressesOf[family];
      const usual = settingsOf(mode, family);
      const ready = { ready: true, serving: true, terminating: false };
      const draining = { ready: false, serving: true, terminating: true };
      const local = (n: number, more: Partial<ModelEndpoint> = {}): ModelEndpoint => ({
        ip: at.pod(n),
        node: "here",
        ...ready,
        ...more,
      });
      const remote = (n: number, more: Partial<ModelEndpoint> = {}): ModelEndpoint => ({
        ip: at.otherPod(n),
        node: "there",
        ...ready,
        ...more,
      });
      const pod = { source: at.pod(9), inInterface: "remora0" };
      const node = { source: at.node, inInterface: "" };
      const outside = { source: at.outside, inInterface: "up0" };

      function one(
        fields: Partial<ModelService>,
        endpoints: readonly ModelEndpoint[],
        name = "web",
      ): ModelCluster {
        const service = modelService({
          name,
          clusterIPs: { [family]: at.clusterIP(1) },
          ...fields,
        });
        const slice: ModelSlice = {
          name,
          service: name,
          family,
          ports: service.ports.map((port) => ({ ...port, port: 8080 })),
          endpoints,
        };
        return { services: new Map([[name, service]]), slices: new Map([[name, slice]]) };
      }

      function both(...parts: readonly ModelCluster[]): ModelCluster {
        return {
          services: new Map(parts.flatMap(({ services }) => [...services])),
          slices: new Map(parts.flatMap(({ slices }) => [...slices])),
        };
      }

      function expectEnds(
        cluster: ModelCluster,
        ask: Ask,
        expected: Readonly<Record<string, number>> | string,
        settings: ModelSettings = usual,
        machine: ModelNode = here,
      ): void {
        const packet: ModelPacket = {
          ...pod,
          destination: at.clusterIP(1),
          port: 80,
          protocol: "tcp",
          ...ask,
        };
        const ends = new Map(
          typeof expected === "string" ? [[expected, 1]] : Object.entries(expected),
        );
        const what = JSON.stringify(packet);
        assertSameEnds(new Oracle(cluster, machine, settings).ends(packet), ends, `oracle ${what}`);
        const { rules, host } = judge(cluster, settings, machine);
        assertSameEnds(simulate(rules, packetOf(packet, settings), host), ends, `rules ${what}`);
      }

      const untouched = "forwarded kept";
      const kept = (ip: string, port = 8080): string => `${ip} ${port} kept`;
      const rewritten = (ip: string, port = 8080): string => `${ip} ${port} masqueraded`;
      const wrongPort = mode === "nftables" ? "rejected tcp-reset" : untouched;
      const exposed = {
        type: "LoadBalancer",
        externalIPs: [at.external(1)],
        ingress: [{ ip: at.balancer(1) }],
        ports: [{ name: "p", protocol: "tcp", port: 80, nodePort: 30_001 }],
      } as const;

      test("1: each endpoint of a ClusterIP gets its share, the source is kept", () => {
        expectEnds(one({}, [local(2), local(3), remote(4)]), pod, {
          [kept(at.pod(2))]: 1 / 3,
          [kept(at.pod(3))]: 1 / 3,
          [kept(at.otherPod(4))]: 1 / 3,
        });
      });

      test("1: a wrong port is refused by nftables and leaves in iptables; the right one of another protocol too", () => {
        expectEnds(one({}, [local(2)]), { port: 81 }, wrongPort);
        expectEnds(one({}, [local(2)]), { ...node, port: 81 }, wrongPort);
        const udp = mode === "nftables" ? "rejected icmp" : untouched;
        expectEnds(one({}, [local(2)]), { protocol: "udp" }, udp);
      });

      test("1, 18: TCP, UDP and SCTP on one number are three units", () => {
        const ports = (["tcp", "udp", "sctp"] as const).map((protocol) => ({
          name: protocol,
          protocol,
          port: 80,
          nodePort: 0,
        }));
        const cluster = both(one({ ports }, []));
        const slices = new Map(
          ports.map((port, index) => [
            port.name,
            {
              name: port.name,
              service: "web",
              family,
              ports: [{ ...port, port: 8080 }],
              endpoints: [local(index + 2)],
            },
          ]),
        );
        for (const [index, { protocol }] of ports.entries()) {
          expectEnds({ ...cluster, slices }, { protocol }, kept(at.pod(index + 2)));
        }
      });

      test("2: without endpoints TCP is reset, the rest gets ICMP, from wherever it comes", () => {
        const empty = one({ ...exposed, ports: [...exposed.ports] }, []);
        for (const from of [pod, node, outside]) {
          expectEnds(empty, from, "rejected tcp-reset");
          expectEnds(empty, { ...from, destination: at.node, port: 30_001 }, "rejected tcp-reset");
        }
        for (const from of [pod, outside]) {
          expectEnds(empty, { ...from, destination: at.external(1) }, "rejected tcp-reset");
          expectEnds(empty, { ...from, destination: at.balancer(1) }, "rejected tcp-reset");
        }
        // iptables does not ask about external addresses in OUTPUT.
        const own = mode === "nftables" ? "rejected tcp-reset" : untouched;
        expectEnds(empty, { ...node, destination: at.external(1) }, own);
        const udp = one({ ports: [{ name: "u", protocol: "udp", port: 53, nodePort: 0 }] }, []);
        expectEnds(udp, { protocol: "udp", port: 53 }, "rejected icmp");
      });

      test("2: flows that were there before stay", () => {
        const { rules, host } = judge(one({}, []), usual);
        for (const from of [pod, node]) {
          const packet = packetOf(
            { ...from, destination: at.clusterIP(1), port: 80, protocol: "tcp" },
            usual,
          );
          // What is related to a flow is a flow of its own to address translation.
          const states =
            from === pod ? (["established", "related"] as const) : (["established"] as const);
          for (const state of states) {
            const ends = walk(rules, { ...packet, state }, host).map(({ end }) => endText(end));
            assert.deepEqual(ends, [untouched], state);
          }
        }
      });

      test("3: a virtual address is asked before node ports, also when it is the node's own", () => {
        const cluster = both(
          one(
            {
              externalIPs: [at.node],
              ports: [{ name: "p", protocol: "tcp", port: 30_001, nodePort: 0 }],
            },
            [local(2)],
          ),
          one(
            {
              clusterIPs: { [family]: at.clusterIP(2) },
              type: "NodePort",
              ports: [{ name: "p", protocol: "tcp", port: 80, nodePort: 30_001 }],
            },
            [local(3)],
            "other",
          ),
        );
        const anywhere: ModelSettings = { ...usual, nodePortIPs: undefined };
        expectEnds(
          cluster,
          { ...outside, destination: at.node, port: 30_001 },
          rewritten(at.pod(2)),
          anywhere,
        );
        expectEnds(
          cluster,
          { ...outside, destination: at.secondNode, port: 30_001 },
          rewritten(at.pod(3)),
          anywhere,
        );
      });

      test("3: two protocols share one node port number", () => {
        const ports = (["tcp", "udp"] as const).map((protocol) => ({
          name: protocol,
          protocol,
          port: 80,
          nodePort: 30_001,
        }));
        const cluster = one({ type: "NodePort", ports }, [remote(4)]);
        for (const protocol of ["tcp", "udp"] as const) {
          expectEnds(
            cluster,
            { ...outside, destination: at.node, port: 30_001, protocol },
            rewritten(at.otherPod(4)),
          );
        }
        expectEnds(
          cluster,
          { ...outside, destination: at.node, port: 30_001, protocol: "sctp" },
          "host",
        );
      });

      test("4: addresses of load balancers serve on the service port, with ipMode Proxy not at all", () => {
        const cluster = one(
          {
            type: "LoadBalancer",
            ingress: [
              { ip: at.balancer(1) },
              { ip: at.balancer(2), mode: "VIP" },
              { ip: at.balancer(3), mode: "Proxy" },
            ],
          },
          [remote(4)],
        );
        expectEnds(cluster, { destination: at.balancer(1) }, rewritten(at.otherPod(4)));
        expectEnds(cluster, { destination: at.balancer(2) }, rewritten(at.otherPod(4)));
        expectEnds(cluster, { destination: at.balancer(3) }, untouched);
      });

      test("5: an external address that no interface has is served", () => {
        const cluster = one({ externalIPs: [at.external(1)] }, [local(2)]);
        for (const from of [pod, node, outside])
          expectEnds(cluster, { ...from, destination: at.external(1) }, rewritten(at.pod(2)));
      });

      const host = family === "IPv4" ? 32 : 128;
      const barred = { ...exposed, ports: [...exposed.ports] };

      test("6: source ranges hold for load balancer addresses only, also for pods", () => {
        const cluster = one({ ...barred, sourceRanges: [`${at.pod(9)}/${host}`] }, [remote(4)]);
        expectEnds(cluster, { destination: at.balancer(1) }, rewritten(at.otherPod(4)));
        expectEnds(cluster, { destination: at.balancer(1), source: at.pod(8) }, "dropped");
        expectEnds(cluster, { ...outside, destination: at.balancer(1) }, "dropped");
        expectEnds(cluster, { ...node, destination: at.balancer(1) }, "dropped");
        expectEnds(cluster, { ...outside, destination: at.external(1) }, rewritten(at.otherPod(4)));
        expectEnds(
          cluster,
          { ...outside, destination: at.node, port: 30_001 },
          rewritten(at.otherPod(4)),
        );
      });

      test("6: a range that holds the node admits the address itself as a source", () => {
        const machine = { ...here, addresses: [...here.addresses, at.balancer(1)] };
        const own = { destination: at.balancer(1), source: at.balancer(1), inInterface: "" };
        const cluster = one({ ...barred, sourceRanges: [`${at.node}/${host}`] }, [remote(4)]);
        expectEnds(cluster, own, rewritten(at.otherPod(4)), usual, machine);
        const closed = one({ ...barred, sourceRanges: [`${at.outside}/${host}`] }, [remote(4)]);
        expectEnds(closed, own, "dropped", usual, machine);
      });

      test("6: everything, and only the other family, are no filter", () => {
        const everything = family === "IPv4" ? "0.0.0.0/0" : "::/0";
        const otherFamily = family === "IPv4" ? "fd00::/8" : "10.0.0.0/8";
        for (const sourceRanges of [[everything], [otherFamily]]) {
          const cluster = one({ ...barred, sourceRanges }, [remote(4)]);
          expectEnds(
            cluster,
            { ...outside, destination: at.balancer(1) },
            rewritten(at.otherPod(4)),
          );
        }
      });

      test("7: affinity is one memory for all addresses of a unit, and another for another unit", () => {
        const ports = [
          { name: "a", protocol: "tcp", port: 80, nodePort: 30_001 },
          { name: "b", protocol: "tcp", port: 81, nodePort: 30_002 },
        ] as const;
        const cluster = one({ ...barred, ports: [...ports], affinitySeconds: 100 }, [
          local(2),
          remote(3),
          remote(4),
        ]);
        const text = rulesFor(cluster, usual, here).render();
        const machine = hostOf(here, usual);
        const ask = (destination: string, port: number): ReturnType<typeof packetOf> =>
          packetOf({ ...outside, destination, port, protocol: "tcp" }, usual);
        const fresh = execute(text, usual);
        for (const way of walk(fresh.rules, ask(at.clusterIP(1), 80), machine)) {
          const later = execute(text, usual);
          for (const seen of way.remembered) later.remember(seen);
          const again = new Map([[endText(way.end), 1]]);
          for (const [destination, port] of [
            [at.clusterIP(1), 80],
            [at.external(1), 80],
            [at.balancer(1), 80],
            [at.node, 30_001],
          ] as const) {
            assertSameEnds(
              simulate(later.rules, ask(destination, port), machine),
              again,
              destination,
            );
          }
          const other = simulate(later.rules, ask(at.clusterIP(1), 81), machine);
          assert.equal(other.size, 3);
        }
      });

      test("7: affinity and externalTrafficPolicy Local go together", () => {
        const cluster = one({ ...barred, externalLocal: true, affinitySeconds: 100 }, [
          local(2),
          local(3),
          remote(4),
        ]);
        const halves = { [kept(at.pod(2))]: 0.5, [kept(at.pod(3))]: 0.5 };
        expectEnds(cluster, { ...outside, destination: at.external(1) }, halves);
      });

      test("8: internalTrafficPolicy Local: this node's endpoints, or nothing; external traffic does not care", () => {
        const some = one({ ...barred, internalLocal: true }, [local(2), remote(4)]);
        expectEnds(some, pod, kept(at.pod(2)));
        expectEnds(some, node, rewritten(at.pod(2)));
        const none = one({ ...barred, internalLocal: true }, [remote(4)]);
        for (const from of [pod, node, outside]) expectEnds(none, from, "dropped");
        expectEnds(
          none,
          { ...outside, destination: at.node, port: 30_001 },
          rewritten(at.otherPod(4)),
        );
        expectEnds(one({ internalLocal: true }, []), pod, "rejected tcp-reset");
      });

      test("9: externalTrafficPolicy Local without a local endpoint: silence outside, a short way for pods and node", () => {
        const cluster = one({ ...barred, externalLocal: true }, [remote(4)]);
        for (const [destination, port] of [
          [at.external(1), 80],
          [at.balancer(1), 80],
          [at.node, 30_001],
        ] as const) {
          expectEnds(cluster, { ...outside, destination, port }, "dropped");
          expectEnds(cluster, { ...pod, destination, port }, kept(at.otherPod(4)));
          expectEnds(cluster, { ...node, destination, port }, rewritten(at.otherPod(4)));
        }
        expectEnds(cluster, outside, rewritten(at.otherPod(4)));
      });

      test("10: who terminates is used when nobody is ready, and here already when nobody here is", () => {
        expectEnds(one({}, [local(2), local(3, draining)]), pod, kept(at.pod(2)));
        expectEnds(one({}, [local(2, draining), remote(3, draining)]), pod, {
          [kept(at.pod(2))]: 0.5,
          [kept(at.otherPod(3))]: 0.5,
        });
        expectEnds(one({}, [local(2, { ...draining, serving: false })]), pod, "rejected tcp-reset");
        const mixed = one({ ...barred, externalLocal: true }, [local(2, draining), remote(3)]);
        expectEnds(mixed, { ...outside, destination: at.node, port: 30_001 }, kept(at.pod(2)));
        expectEnds(mixed, pod, kept(at.otherPod(3)));
      });

      test("12: hints narrow when all have them; a node's beat a zone's; local policies do not care", () => {
        const zones = [local(2, { forZones: ["b"] }), remote(3, { forZones: ["a"] })];
        expectEnds(one({}, zones), pod, kept(at.otherPod(3)));
        expectEnds(one({}, [...zones, remote(4)]), pod, {
          [kept(at.pod(2))]: 1 / 3,
          [kept(at.otherPod(3))]: 1 / 3,
          [kept(at.otherPod(4))]: 1 / 3,
        });
        const nodes = [
          local(2, { forZones: ["a"], forNodes: ["there"] }),
          remote(3, { forZones: ["b"], forNodes: ["here"] }),
        ];
        expectEnds(one({}, nodes), pod, kept(at.otherPod(3)));
        expectEnds(one({ internalLocal: true }, zones), pod, kept(at.pod(2)));
      });

      test("15: a Service of the other family alone has nothing here", () => {
        const other = family === "IPv4" ? "IPv6" : "IPv4";
        const cluster = one({ clusterIPs: { [other]: addressesOf[other].clusterIP(1) } }, [
          local(2),
        ]);
        const open: ModelSettings = { ...usual, serviceCIDRs: [] };
        expectEnds(cluster, { destination: at.clusterIP(1) }, untouched, open);
      });

      test("15: endpoints of the other family are not this one's", () => {
        const other = family === "IPv4" ? "IPv6" : "IPv4";
        const cluster = one({}, [local(2)]);
        const foreign: ModelSlice = {
          name: "foreign",
          service: "web",
          family: other,
          ports: [{ name: "p", protocol: "tcp", port: 8080 }],
          endpoints: [{ ip: addressesOf[other].pod(2), node: "here", ...ready }],
        };
        const slices = new Map([...cluster.slices, ["foreign", foreign]]);
        expectEnds({ ...cluster, slices }, pod, kept(at.pod(2)));
      });

      test("16: ready counts, also of an endpoint that does not serve", () => {
        expectEnds(one({}, [local(2, { serving: false })]), pod, kept(at.pod(2)));
      });

      test("19: packets of no flow: iptables drops what would be forwarded", () => {
        const { rules, host: machine } = judge(one({}, [local(2)]), usual);
        const packet = packetOf(
          { ...pod, destination: at.otherPod(4), port: 80, protocol: "tcp" },
          usual,
        );
        const ends = walk(rules, { ...packet, state: "invalid" }, machine).map(
          ({ end }) => end.kind,
        );
        assert.deepEqual(ends, [mode === "iptables" ? "dropped" : "forwarded"]);
      });

      test("20: a packet from outside for 127.0.0.0/8 ends here, whatever it wants", () => {
        const cluster = one({ ...barred }, [local(2)]);
        const { rules, host: machine } = judge(cluster, usual);
        const packet = packetOf(
          { ...outside, destination: at.loopback, port: 22, protocol: "tcp" },
          usual,
        );
        assert.deepEqual(
          walk(rules, packet, machine).map(({ end }) => end.kind),
          ["dropped"],
        );
      });

      test("21: node ports answer on the chosen addresses only", () => {
        const cluster = one({ ...barred }, [local(2)]);
        const ask = { ...outside, port: 30_001 };
        const chosen: ModelSettings = { ...usual, nodePortIPs: [at.secondNode] };
        expectEnds(cluster, { ...ask, destination: at.secondNode }, rewritten(at.pod(2)), chosen);
        expectEnds(cluster, { ...ask, destination: at.node }, "host", chosen);
        const nowhere: ModelSettings = { ...usual, nodePortIPs: [] };
        expectEnds(cluster, { ...ask, destination: at.node }, "host", nowhere);
        const anywhere: ModelSettings = { ...usual, nodePortIPs: undefined };
        expectEnds(cluster, { ...ask, destination: at.bridge }, rewritten(at.pod(2)), anywhere);
      });

      test("24: a pod that is sent to itself gets another source by every address, TCP, UDP and SCTP", () => {
        for (const protocol of ["tcp", "udp", "sctp"] as const) {
          const cluster = one(
            {
              ...barred,
              externalLocal: true,
              ports: [{ name: "p", protocol, port: 80, nodePort: 30_001 }],
            },
            [local(9)],
          );
          for (const [destination, port] of [
            [at.clusterIP(1), 80],
            [at.external(1), 80],
            [at.balancer(1), 80],
            [at.node, 30_001],
          ] as const) {
            expectEnds(cluster, { ...pod, destination, port, protocol }, rewritten(at.pod(9)));
          }
        }
      });

      test("25: a port that Docker publishes does not take a Service's packets", () => {
        const cluster = one({ ...barred }, [local(2)]);
        const text = rulesFor(cluster, usual, here).render();
        const docker = new IptablesTraceRuleset({ program: "iptables" });
        docker.run(
          [
            "*nat",
            ":DOCKER - [0:0]",
            "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
            `-A DOCKER ! -i docker0 -p tcp -m tcp --dport 30001 -j DNAT --to-destination ${family === "IPv4" ? "172.17.0.2:80" : "[fd00:17::2]:80"}`,
            "COMMIT",
          ].join("\n"),
        );
        const rules =
          mode === "iptables"
            ? executeTogether(docker, text)
            : { bases: [...docker.rules().bases, ...execute(text, usual).rules.bases] };
        const packet = packetOf(
          { ...outside, destination: at.node, port: 30_001, protocol: "tcp" },
          usual,
        );
        const ends = walk(rules, packet, hostOf(here, usual)).map(({ end }) => endText(end));
        assert.deepEqual(ends, [rewritten(at.pod(2))]);
      });

      test("27: addresses of the ServiceCIDRs that no Service has do not leave the node, in nftables", () => {
        const end = mode === "nftables" ? "dropped" : untouched;
        for (const from of [pod, node, outside])
          expectEnds(one({}, [local(2)]), { ...from, destination: at.clusterIP(77) }, end);
        const unknown: ModelSettings = { ...usual, serviceCIDRs: [] };
        expectEnds(one({}, [local(2)]), { destination: at.clusterIP(77) }, untouched, unknown);
      });

      test("28: of two that want an address the older has it, whatever each has to offer", () => {
        const [old, young] = [
          { created: 1, clusterIPs: { [family]: at.clusterIP(1) } },
          { created: 2, clusterIPs: { [family]: at.clusterIP(2) } },
        ];
        const shared = { externalIPs: [at.external(1)] };
        const ask = { ...outside, destination: at.external(1) };
        const two = (
          first: readonly ModelEndpoint[],
          second: readonly ModelEndpoint[],
        ): ModelCluster =>
          both(
            one({ ...young, ...shared }, second, "a-younger"),
            one({ ...old, ...shared }, first, "z-older"),
          );
        expectEnds(two([local(2)], [local(3), local(4)]), ask, rewritten(at.pod(2)));
        expectEnds(two([local(2)], []), ask, rewritten(at.pod(2)));
        expectEnds(two([], [local(3)]), ask, "rejected tcp-reset");
        // The younger one's source ranges are none of the older one's.
        const ranged = one(
          {
            ...young,
            type: "LoadBalancer",
            ingress: [{ ip: at.external(1) }],
            sourceRanges: [`${at.pod(9)}/${host}`],
          },
          [local(3)],
          "a-younger",
        );
        expectEnds(
          both(ranged, one({ ...old, ...shared }, [local(2)], "z-older")),
          ask,
          rewritten(at.pod(2)),
        );
      });

      test("29: of one address twice, who does not terminate has it", () => {
        const cluster = one({}, [local(2, draining)]);
        const fresh: ModelSlice = {
          name: "fresh",
          service: "web",
          family,
          ports: [{ name: "p", protocol: "tcp", port: 8080 }],
          endpoints: [local(2)],
        };
        const slices = new Map([...cluster.slices, ["fresh", fresh]]);
        expectEnds({ ...cluster, slices }, pod, kept(at.pod(2)));
        expectEnds({ ...cluster, slices: new Map([...slices].toReversed()) }, pod, kept(at.pod(2)));
      });

      test("1: with very many endpoints each still gets its share", () => {
        const many = Array.from({ length: mode === "nftables" ? 1030 : 100 }, (_, n) =>
          remote(n + 2),
        );
        const share = 1 / many.length;
        const ends = Object.fromEntries(many.map(({ ip }) => [kept(ip), share]));
        expectEnds(one({}, many), pod, ends);
      });
    });
  }
}

/** Docker's rules and ours in one iptables, ours put on top. */
function executeTogether(
  docker: IptablesTraceRuleset,
  ours: string,
): ReturnType<IptablesTraceRuleset["rules"]> {
  docker.run(ours);
  return docker.rules();
}
