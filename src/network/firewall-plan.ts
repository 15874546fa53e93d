import {
  type Cidr,
  cidrAddress,
  cidrContains,
  formatCidr,
  type IPFamily,
  ipFamily,
} from "../lib/cidr.ts";
import type { PacketSketch } from "../netfilter/packet-sketch.ts";

/** Something the node itself answers, which a firewall of the machine has to let in. */
export interface NodeService {
  /** `pods` of this node, or the address of one machine. */
  readonly from: string;
  readonly port: number;
  readonly protocol: "tcp" | "udp";
  /** What does not work without it, for people. */
  readonly trouble: string;
}

/** What firewalls of the machine have to let pass for one family. */
export interface FirewallNeeds {
  readonly family: IPFamily;
  readonly bridge: string;
  readonly podCIDR: Cidr;
  readonly clusterCIDRs: readonly Cidr[];
  /** Interface of the default route; without one nothing comes from outside. */
  readonly uplink: { readonly device: string; readonly address: string | undefined } | undefined;
  /** Addresses on which the node answers DNS to its pods. */
  readonly nameServers: readonly string[];
  readonly nodeServices: readonly NodeService[];
  /** Whether there are other nodes, whose pods are to reach those of this one. */
  readonly otherNodes: boolean;
}

/** One way of packets that the pod network needs. */
export interface NeededFlow {
  readonly packet: PacketSketch;
  /** What does not work without it, for people. */
  readonly trouble: string;
}

/** From the blocks for documentation (RFC 5737, RFC 3849): no rule of anybody names them. */
const outside: Readonly<Record<IPFamily, string>> = { IPv4: "198.51.100.1", IPv6: "2001:db8::1" };

/** Ways of packets that pods and their clients need. Pure. */
export function neededFlows(needs: FirewallNeeds): readonly NeededFlow[] {
  const { bridge, family, podCIDR, uplink } = needs;
  const pod = cidrAddress(podCIDR, 2);
  const shared = { family, protocol: "tcp", translated: false } as const;
  const away = outside[family];
  const flows: NeededFlow[] = [
    {
      trouble: "pods of this node cannot reach each other",
      packet: {
        ...shared,
        hook: "forward",
        inDevice: bridge,
        outDevice: bridge,
        source: pod,
        destination: cidrAddress(podCIDR, 3),
        port: 8080,
      },
    },
    ...inputFlows(needs, pod),
  ];
  if (uplink === undefined) return flows;
  const inward = {
    ...shared,
    hook: "forward",
    inDevice: uplink.device,
    outDevice: bridge,
    destination: pod,
    port: 8080,
  } as const;
  flows.push(
    {
      trouble: "pods cannot reach other networks",
      packet: {
        ...shared,
        hook: "forward",
        inDevice: bridge,
        outDevice: uplink.device,
        source: pod,
        destination: away,
        port: 443,
      },
    },
    {
      trouble: "host ports and node ports cannot be reached from outside",
      packet: { ...inward, source: away, translated: true },
    },
  );
  const network = needs.clusterCIDRs.find((cidr) => formatCidr(cidr) !== formatCidr(podCIDR));
  if (needs.otherNodes && network !== undefined) {
    flows.push({
      trouble: "pods of other nodes cannot reach pods of this one",
      packet: { ...inward, source: lastAddress(network) },
    });
  }
  return flows;
}

/** The one farthest from the first node's. */
function lastAddress(cidr: Cidr): string {
  const size = 1n << BigInt((cidr.family === "IPv4" ? 32 : 128) - cidr.prefix);
  return cidrAddress(cidr, size > 4n ? size - 2n : 0n);
}

function inputFlows(needs: FirewallNeeds, pod: string): readonly NeededFlow[] {
  const { bridge, family, nameServers, nodeServices, uplink } = needs;
  const shared = { family, hook: "input", outDevice: undefined, translated: false } as const;
  const flows: NeededFlow[] = nameServers.flatMap((destination) =>
    (["udp", "tcp"] as const).map((protocol) => ({
      trouble: "pods cannot resolve names",
      packet: { ...shared, inDevice: bridge, source: pod, destination, protocol, port: 53 },
    })),
  );
  if (uplink?.address === undefined) return flows;
  for (const { from, port, protocol, trouble } of nodeServices) {
    if (from !== "pods" && ipFamily(from) !== family) continue;
    flows.push({
      trouble,
      packet: {
        ...shared,
        inDevice: from === "pods" ? bridge : uplink.device,
        source: from === "pods" ? pod : from,
        destination: uplink.address,
        protocol,
        port,
      },
    });
  }
  return flows;
}

/** Rules of somebody else that drop what the pod network needs. */
export interface Obstacle {
  /** Whose rules: it decides what to do about them. */
  readonly owner: "firewalld" | "ufw" | "nftables" | "iptables";
  readonly hook: PacketSketch["hook"];
  /** Family and name of the table of nftables, or the program of iptables. */
  readonly table: string;
  /** That the kernel calls. */
  readonly chain: string;
  /** `policy`, or the rule. */
  readonly by: string;
  readonly flows: readonly NeededFlow[];
}

/** What to tell people about it, in one sentence and the commands that help. Pure. */
export function describeObstacle(obstacle: Obstacle, needs: FirewallNeeds): string {
  const { by, chain, flows, owner, table } = obstacle;
  const troubles = [...new Set(flows.map(({ trouble }) => trouble))].join(", ");
  const rules = owner === "iptables" || owner === "ufw" ? "table filter" : `table ${table}`;
  const cause = by === "policy" ? "its policy is drop" : `its rule: ${by}`;
  return `${troubles}: ${owner} drops the packets in ${rules}, chain ${chain} (${cause}). Allow them there: ${remedy(obstacle, needs)}`;
}

function remedy({ chain, flows, hook, owner, table }: Obstacle, needs: FirewallNeeds): string {
  const { bridge } = needs;
  const packets = flows.map(({ packet }) => packet);
  const single = (render: (packet: PacketSketch) => string): string =>
    [...new Set(packets.map(render))].join("; ");
  if (owner === "firewalld") {
    // Sources beat interfaces there, and rules of a zone come before its target.
    const wide = needs.clusterCIDRs.some((cidr) =>
      cidrContains(cidr, cidrAddress(needs.podCIDR, 0)),
    );
    const networks = [...needs.clusterCIDRs, ...(wide ? [] : [needs.podCIDR])].map(formatCidr);
    const sources = networks.map((network) => `--add-source=${network}`).join(" ");
    const ports = packets
      .filter(({ inDevice }) => hook === "input" && inDevice !== bridge)
      .map(({ port, protocol }) => `firewall-cmd --permanent --add-port=${port}/${protocol}`);
    return [
      ...(packets.length > ports.length
        ? [`firewall-cmd --permanent --zone=trusted ${sources}`]
        : []),
      ...new Set(ports),
      "firewall-cmd --reload",
    ].join("; ");
  }
  if (hook === "forward") {
    return [`iifname "${bridge}"`, `oifname "${bridge}"`]
      .map((match) => `nft insert rule ${table} ${chain} ${match} accept`)
      .join("; ");
  }
  if (owner === "ufw") {
    return single(({ inDevice, port, protocol, source }) =>
      inDevice === bridge
        ? `ufw allow in on ${bridge} to any port ${port} proto ${protocol}`
        : `ufw allow from ${source} to any port ${port} proto ${protocol}`,
    );
  }
  if (owner === "iptables") {
    return single(
      ({ inDevice, port, protocol }) =>
        `${table} -I INPUT -i ${inDevice} -p ${protocol} --dport ${port} -j ACCEPT`,
    );
  }
  return single(
    ({ inDevice, port, protocol }) =>
      `nft insert rule ${table} ${chain} iifname "${inDevice}" ${protocol} dport ${port} accept`,
  );
}
