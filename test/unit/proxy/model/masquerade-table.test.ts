import { describe, test } from "node:test";

import { addressesOf, here, judge, settingsOf } from "./build.ts";
import { modelService, type ModelSlice } from "./cluster.ts";
import { assertSameEnds, packetOf, simulate } from "./compare.ts";
import { modes } from "./modes.ts";
import { type ModelDetector, type ModelPacket, Oracle } from "./oracle.ts";

type Cell = "all kept" | "all masqueraded" | "local kept" | "host";

/** Rows: who asks. Columns: ClusterIP; external with externalTrafficPolicy Cluster; with Local. */
const withDetector: Readonly<Record<string, readonly [Cell, Cell, Cell]>> = {
  pod: ["all kept", "all masqueraded", "all kept"],
  node: ["all masqueraded", "all masqueraded", "all masqueraded"],
  outside: ["all masqueraded", "all masqueraded", "local kept"],
};
const withoutDetector: typeof withDetector = {
  pod: ["all kept", "all masqueraded", "local kept"],
  node: ["all kept", "all masqueraded", "all masqueraded"],
  outside: ["all kept", "all masqueraded", "local kept"],
};
const masqueradeAll: typeof withDetector = {
  pod: ["all masqueraded", "all masqueraded", "all kept"],
  node: ["all masqueraded", "all masqueraded", "all masqueraded"],
  outside: ["all masqueraded", "all masqueraded", "local kept"],
};

const tables: readonly {
  readonly name: string;
  readonly cells: typeof withDetector;
  readonly local: (podCIDR: string) => ModelDetector;
  readonly masqueradeAll?: boolean;
}[] = [
  {
    name: "detectLocalMode by network",
    cells: withDetector,
    local: (podCIDR) => ({ kind: "cidrs", cidrs: [podCIDR] }),
  },
  {
    name: "detectLocalMode BridgeInterface",
    cells: withDetector,
    local: () => ({ kind: "interface", name: "remora0" }),
  },
  {
    name: "detectLocalMode InterfaceNamePrefix",
    cells: withDetector,
    local: () => ({ kind: "interface-prefix", prefix: "rem" }),
  },
  { name: "no detector", cells: withoutDetector, local: () => ({ kind: "none" }) },
  {
    name: "masqueradeAll",
    cells: masqueradeAll,
    local: (podCIDR) => ({ kind: "cidrs", cidrs: [podCIDR] }),
    masqueradeAll: true,
  },
];

const columns = ["ClusterIP", "Cluster", "Local"] as const;

for (const mode of modes) {
  for (const family of ["IPv4", "IPv6"] as const) {
    const at = addressesOf[family];
    const service = (name: string, id: number, externalLocal: boolean): [string, object] => [
      name,
      modelService({
        name,
        type: "LoadBalancer",
        clusterIPs: { [family]: at.clusterIP(id) },
        externalIPs: [at.external(id)],
        ingress: [{ ip: at.balancer(id) }],
        externalLocal,
        ports: (["tcp", "udp", "sctp"] as const).map((protocol) => ({
          name: protocol,
          protocol,
          port: 80,
          nodePort: 30_000 + id,
        })),
      }),
    ];
    const targets = { here: at.pod(5), there: at.otherPod(6) };
    const slice = (name: string): [string, ModelSlice] => [
      name,
      {
        name,
        service: name,
        family,
        ports: (["tcp", "udp", "sctp"] as const).map((protocol) => ({
          name: protocol,
          protocol,
          port: 8080,
        })),
        endpoints: Object.entries(targets).map(([node, ip]) => ({
          ip,
          node,
          ready: true,
          serving: true,
          terminating: false,
        })),
      },
    ];
    const cluster = {
      services: new Map([service("wide", 1, false), service("narrow", 2, true)]) as never,
      slices: new Map([slice("wide"), slice("narrow")]),
    };
    const ends = (cell: Cell): Map<string, number> => {
      const how = cell.endsWith("masqueraded") ? "masqueraded" : "kept";
      return cell === "local kept"
        ? new Map([[`${targets.here} 8080 kept`, 1]])
        : new Map(Object.values(targets).map((ip) => [`${ip} 8080 ${how}`, 0.5]));
    };
    const sources: Readonly<Record<string, Pick<ModelPacket, "source" | "inInterface">>> = {
      pod: { source: at.pod(9), inInterface: "remora0" },
      node: { source: at.node, inInterface: "" },
      outside: { source: at.outside, inInterface: "up0" },
    };
    const destinations: Readonly<
      Record<(typeof columns)[number], readonly (readonly [string, number])[]>
    > = {
      ClusterIP: [[at.clusterIP(1), 80]],
      Cluster: [
        [at.external(1), 80],
        [at.balancer(1), 80],
        [at.node, 30_001],
      ],
      Local: [
        [at.external(2), 80],
        [at.balancer(2), 80],
        [at.node, 30_002],
      ],
    };

    for (const table of tables) {
      describe(`who gets a new source address, ${table.name} [${mode} ${family}]`, () => {
        const settings = settingsOf(mode, family, {
          local: table.local(at.podCIDR),
          masqueradeAll: table.masqueradeAll ?? false,
        });
        const oracle = new Oracle(cluster, here, settings);
        for (const [from, cells] of Object.entries(table.cells)) {
          columns.forEach((column, index) => {
            const cell = cells[index] ?? "host";
            test(`from ${from} to ${column === "ClusterIP" ? column : `external, externalTrafficPolicy ${column}`}: ${cell}`, () => {
              const { rules, host } = judge(cluster, settings);
              for (const [destination, port] of destinations[column]) {
                for (const protocol of ["tcp", "udp", "sctp"] as const) {
                  const source = sources[from];
                  if (source === undefined) throw new Error(from);
                  const packet = { ...source, destination, port, protocol };
                  const what = `${protocol} ${destination} ${port}`;
                  assertSameEnds(oracle.ends(packet), ends(cell), `oracle: ${what}`);
                  assertSameEnds(
                    simulate(rules, packetOf(packet, settings), host),
                    ends(cell),
                    `rules: ${what}`,
                  );
                }
              }
            });
          });
        }

        test("a pod that is sent to itself always gets another source", () => {
          const { rules, host } = judge(cluster, settings);
          for (const [destination, port] of Object.values(destinations).flat()) {
            for (const protocol of ["tcp", "udp", "sctp"] as const) {
              const packet: ModelPacket = {
                source: targets.here,
                inInterface: "remora0",
                destination,
                port,
                protocol,
              };
              const found = simulate(rules, packetOf(packet, settings), host);
              const what = `${protocol} ${destination} ${port}`;
              assertSameEnds(found, oracle.ends(packet), what);
              if (!found.has(`${targets.here} 8080 masqueraded`)) throw new Error(what);
            }
          }
        });

        test("from 127.0.0.1 to a node port: by mode and family", () => {
          const { rules, host } = judge(cluster, settings);
          for (const port of [30_001, 30_002]) {
            const packet: ModelPacket = {
              source: at.loopback,
              inInterface: "",
              destination: at.loopback,
              port,
              protocol: "tcp",
            };
            const expected =
              mode === "iptables" && family === "IPv4"
                ? ends("all masqueraded")
                : new Map([["host", 1]]);
            assertSameEnds(oracle.ends(packet), expected, `oracle: ${port}`);
            assertSameEnds(
              simulate(rules, packetOf(packet, settings), host),
              expected,
              `rules: ${port}`,
            );
          }
        });
      });
    }
  }
}
