import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { createBridgeNetwork } from "../../../src/network/bridge.ts";
import type { HostPort, PodNetwork } from "../../../src/network/types.ts";
import { inventory, sh } from "../namespace.ts";
import { families, type Addresses } from "./addresses.ts";
import { Peer } from "./peer.ts";

const { signal } = new AbortController();

/** Host ports of pod c. */
export const hostPorts = [8053, 8054] as const;

/** Programs that a test makes fail: as many of their next runs as the file beside them says. */
const breakable = [
  "nft",
  "iptables-restore",
  "ip6tables-restore",
  "iptables-nft-restore",
  "ip6tables-nft-restore",
  "iptables-legacy-restore",
  "ip6tables-legacy-restore",
];

const builtInChains = {
  nat: ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
  mangle: ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
  filter: ["INPUT", "FORWARD", "OUTPUT"],
} as const;

/**
 * This namespace is a node with the pods a, b and c on the real bridge network. Beyond its uplink are a switch that is
 * also the default route and drops what it gets, an off-cluster client and another node with the pod `remote`.
 */
export class Topology {
  readonly #peers: Peer[] = [];
  #stateDir = "";
  #network: PodNetwork | undefined;
  #inventory = "";
  #named:
    | Readonly<Record<"node" | "a" | "b" | "c" | "remote" | "client" | "far", Peer>>
    | undefined;

  /** What stood in the namespace before network and proxy. */
  get untouched(): string {
    return this.#inventory;
  }

  get peers(): Readonly<Record<"node" | "a" | "b" | "c" | "remote" | "client", Peer>> {
    if (this.#named === undefined) throw new Error("the topology does not stand yet");
    return this.#named;
  }

  get #far(): Peer {
    if (this.#named === undefined) throw new Error("the topology does not stand yet");
    return this.#named.far;
  }

  async setUp(): Promise<void> {
    await this.#wrapPrograms();
    const start = async (place?: "here"): Promise<Peer> => {
      const peer = await Peer.start(place);
      this.#peers.push(peer);
      return peer;
    };
    const [node, a, b, c, remote, client, far, node2] = [
      await start("here"),
      ...(await Promise.all(Array.from({ length: 7 }, () => start()))),
    ] as [Peer, Peer, Peer, Peer, Peer, Peer, Peer, Peer];
    this.#named = { node, a, b, c, remote, client, far };
    await this.#connect(far, client, node2, remote);
    this.#inventory = await this.takeInventory();
    this.#stateDir = await mkdtemp(join(tmpdir(), "remora-proxy-"));
    this.#network = createBridgeNetwork({
      stateDir: this.#stateDir,
      clusterCIDRs: ["10.244.0.0/16", "fd00:244::/48"],
      clock: systemClock,
      logger: silentLogger,
    });
    await this.restoreNetwork();
    const onHost = hostPorts.map((hostPort): HostPort => ({
      protocol: "TCP",
      hostIP: "",
      hostPort,
      containerPort: 8080,
    }));
    for (const [name, pod] of Object.entries({ a, b, c })) {
      await this.#network.setUp(
        {
          sandboxID: `sandbox-${name}`,
          podUID: `uid-${name}`,
          podKey: `default/${name}`,
          pid: pod.pid,
          hostPorts: name === "c" ? onHost : [],
        },
        signal,
      );
    }
    await Promise.all(
      Object.entries({ a, b, c, remote, client, node }).map(([name, peer]) => peer.serve(name)),
    );
  }

  /** All that a program could leave in this namespace, one sorted line each, with FORWARD as Docker leaves it. */
  async takeInventory(): Promise<string> {
    // iptables makes its own chains at their first use and never takes them away: so that they are there each time.
    for (const program of ["iptables", "ip6tables"] as const) {
      for (const [table, chains] of Object.entries(builtInChains)) {
        for (const chain of chains) await sh(program, "-t", table, "-P", chain, "ACCEPT");
      }
      await sh(program, "-P", "FORWARD", "DROP");
    }
    return (await inventory()).split("\n").toSorted().join("\n");
  }

  /** Puts back what a case took from the pod network. */
  async restoreNetwork(): Promise<void> {
    for (const program of ["iptables", "ip6tables"] as const) {
      await sh(program, "-P", "FORWARD", "DROP");
    }
    await this.#network?.ensureNode(["10.244.0.0/24", "fd00:244::/64"], signal);
  }

  async removeNetwork(): Promise<void> {
    await this.#network?.cleanUp(signal);
  }

  async #connect(far: Peer, client: Peer, node2: Peer, remote: Peer): Promise<void> {
    const here = (lines: readonly string[]): Promise<string> => batch(undefined, lines);
    await here([
      "link set lo up",
      `link add up0 type veth peer name node netns ${far.pid}`,
      `link add cl0 netns ${client.pid} type veth peer name client netns ${far.pid}`,
      `link add n20 netns ${node2.pid} type veth peer name node2 netns ${far.pid}`,
      `link add pod0 netns ${remote.pid} type veth peer name pod1 netns ${node2.pid}`,
      "link set up0 up",
      "addr add 192.0.2.1/24 dev up0",
      "addr add 192.0.2.17/24 dev up0",
      "addr add 2001:db8:5::1/64 dev up0 nodad",
      "addr add 2001:db8:5::17/64 dev up0 nodad",
    ]);
    await far.sh("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0");
    await batch(far, [
      "link set lo up",
      "link add sw0 type bridge",
      ...["node", "client", "node2"].flatMap((port) => [
        `link set ${port} master sw0`,
        `link set ${port} up`,
      ]),
      "link set sw0 up",
      "addr add 192.0.2.254/24 dev sw0",
      "addr add 2001:db8:5::fe/64 dev sw0 nodad",
    ]);
    await batch(client, [
      "link set lo up",
      "link set cl0 up",
      "addr add 192.0.2.2/24 dev cl0",
      "addr add 2001:db8:5::2/64 dev cl0 nodad",
      // Any address of these is the client's own.
      "route add local 10.77.0.0/16 dev lo",
      "route add local fd00:77::/64 dev lo",
      ...["172.30.0.0/16", "198.51.0.0/16"].map((to) => `route add ${to} via 192.0.2.1`),
      ...["fd00:30::/112", "2001:db8:51::/64"].map((to) => `route add ${to} via 2001:db8:5::1`),
    ]);
    await client.sh("sysctl", "-qw", "net.ipv6.ip_nonlocal_bind=1");
    await node2.sh("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1");
    await batch(node2, [
      "link set lo up",
      "link set n20 up",
      "link set pod1 up",
      "addr add 192.0.2.3/24 dev n20",
      "addr add 2001:db8:5::3/64 dev n20 nodad",
      "addr add 10.244.1.1/24 dev pod1",
      "addr add fd00:244:0:1::1/64 dev pod1 nodad",
      "route add default via 192.0.2.1",
      "route add ::/0 via 2001:db8:5::1",
    ]);
    await batch(remote, [
      "link set lo up",
      "link set pod0 up",
      "addr add 10.244.1.2/24 dev pod0",
      "addr add fd00:244:0:1::2/64 dev pod0 nodad",
      "route add default via 10.244.1.1",
      "route add ::/0 via fd00:244:0:1::1",
    ]);
    await here([
      "route add default via 192.0.2.254",
      "route add ::/0 via 2001:db8:5::fe",
      "route add 10.244.1.0/24 via 192.0.2.3",
      "route add fd00:244:0:1::/64 via 2001:db8:5::3",
      "route add 10.77.0.0/16 via 192.0.2.2",
      "route add fd00:77::/64 via 2001:db8:5::2",
    ]);
    await this.#watchUplink(far);
  }

  /** The switch writes down whom the node sends what to. Ephemeral ports are left out: they would be every answer. */
  async #watchUplink(far: Peer): Promise<void> {
    const text = ["4", "6"].map((version) => {
      const ip = version === "4" ? "ip" : "ip6";
      return `
        set seen${version} { type ipv${version}_addr . ipv${version}_addr . inet_proto . inet_service ; size 65535 ; flags dynamic ; }
        chain in${version} {
          type filter hook ingress device "node" priority 0 ;
          meta l4proto { tcp, udp, sctp } th dport < 32768 update @seen${version} { ${ip} saddr . ${ip} daddr . meta l4proto . th dport }
        }`;
    });
    const file = join(tmpdir(), `remora-uplink-${process.pid}`);
    await writeFile(file, `table netdev watch {${text.join("")}\n}\n`);
    await far.sh("nft", "-f", file);
    await rm(file);
  }

  /** Source addresses of what left the node by its uplink to an address and port. */
  async leftFor({ suffix }: Addresses, to: string, port: number): Promise<readonly string[]> {
    const set = suffix === "v4" ? "seen4" : "seen6";
    const listing = await this.#far.sh("nft", "-n", "list", "set", "netdev", "watch", set);
    const found = [...listing.matchAll(/([\da-f.:]+) \. ([\da-f.:]+) \. (\d+|[a-z]+) \. (\d+)/g)];
    return found.flatMap(([, from, ip, , number]) =>
      ip === to && Number(number) === port && from !== undefined ? [from] : [],
    );
  }

  /** Puts programs before the real ones of their names that can be made to fail. */
  async #wrapPrograms(): Promise<void> {
    const directory = "/usr/local/sbin";
    await sh("mount", "-t", "tmpfs", "wrappers", directory);
    await mkdir(join(directory, "failures"));
    for (const program of breakable) {
      const found = await sh(
        "sh",
        "-c",
        `PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v ${program}; :`,
      );
      if (found.trim() === "") continue;
      await writeFile(
        join(directory, program),
        `#!/bin/sh
left=$(cat ${directory}/failures/${program} 2>/dev/null || echo 0)
case "$*" in *monitor*) left=0 ;; esac
if [ "$left" -gt 0 ]; then echo $((left - 1)) > ${directory}/failures/${program}; echo "made to fail" >&2; exit 1; fi
exec ${found.trim()} "$@"
`,
        { mode: 0o755 },
      );
    }
  }

  /** The next `times` runs of the programs that write rules fail. */
  async breakPrograms(times: number): Promise<void> {
    for (const program of breakable) {
      await writeFile(join("/usr/local/sbin/failures", program), `${times}\n`);
    }
  }

  /** How many failures nobody has met yet, of the program that has fewest. */
  async failuresLeft(): Promise<number> {
    const texts = await sh("sh", "-c", "cat /usr/local/sbin/failures/*");
    return Math.min(...texts.trim().split("\n").map(Number));
  }

  async tearDown(): Promise<void> {
    await Promise.all(this.#peers.map((peer) => peer.stop()));
    if (this.#stateDir !== "") await rm(this.#stateDir, { recursive: true, force: true });
  }
}

async function batch(peer: Peer | undefined, lines: readonly string[]): Promise<string> {
  const file = join(tmpdir(), `remora-batch-${process.pid}`);
  await writeFile(file, `${lines.join("\n")}\n`);
  try {
    const argv = ["ip", "-batch", file] as const;
    return await (peer === undefined ? sh(...argv) : peer.sh(...argv));
  } finally {
    await rm(file);
  }
}

/** Both families, the order that tests are registered in. */
export const bothFamilies: readonly Addresses[] = [families.IPv4, families.IPv6];
