import { type Cidr, cidrAddress, cidrContains, formatCidr } from "../../../lib/cidr.ts";
import { defineCheck, type Finding, judged } from "../check.ts";
import type { Machine } from "../machine.ts";
import {
  cidrsOf,
  families,
  lookAtNetwork,
  type NetworkLook,
  type TakenNetwork,
} from "../network-look.ts";

export function overlaps(a: Cidr, b: Cidr): boolean {
  if (a.family !== b.family) return false;
  return cidrContains(a, cidrAddress(b, 0)) || cidrContains(b, cidrAddress(a, 0));
}

export interface PodNetworkFacts {
  readonly look: NetworkLook;
  readonly clusterCIDRs: readonly Cidr[];
  readonly serviceCIDRs: readonly Cidr[];
  readonly bridgeName: string;
  readonly running: boolean;
}

type PodNetworkProblem = "network-overlap" | "bridge-missing" | "bridge-mtu" | "no-default-route";

function judgeOverlaps(facts: PodNetworkFacts): readonly Finding<PodNetworkProblem>[] {
  const { bridgeName, clusterCIDRs, look, serviceCIDRs } = facts;
  const wanted = [
    ...clusterCIDRs.map((cidr) => ["pods", cidr] as const),
    ...serviceCIDRs.map((cidr) => ["Services", cidr] as const),
  ];
  const others = look.taken.filter(
    ({ device }) => device !== bridgeName && !isPodDevice(device, look),
  );
  return wanted.flatMap(([what, cidr]) =>
    others
      .filter((one) => overlaps(one.network, cidr) && !isWayToNode(one, cidr, look))
      .map(({ device, network }) => ({
        problem: "network-overlap" as const,
        text: `the network of ${what}, ${formatCidr(cidr)}, overlaps with ${formatCidr(network)} by ${device}`,
      })),
  );
}

/** A route to pods of another node, by whoever: a router daemon, a cloud, a person. */
function isWayToNode({ isRouted, network }: TakenNetwork, pods: Cidr, look: NetworkLook): boolean {
  return (
    isRouted && network.prefix > pods.prefix && !look.podCIDRs.some((own) => overlaps(own, network))
  );
}

/** Plug-ins have a route for each pod. */
function isPodDevice(device: string, { plugIns }: NetworkLook): boolean {
  return plugIns && /^(cni|cali|veth|flannel|cilium|lxc)/.test(device);
}

export const podNetwork = defineCheck<PodNetworkProblem, PodNetworkFacts>({
  id: "pod-network",
  title: "Networks of pods and Services",
  group: "network",
  looks:
    "the bridge, its size of packets, the default route, and whether networks of the machine overlap with those of pods and Services",
  reference: "docs/networking.md",
  problems: {
    "network-overlap": {
      level: "error",
      means: "A network that this machine has a way to overlaps with that of pods or Services.",
      cause:
        "A VPN, a container network or the local network uses the same addresses: one of the two cannot be reached.",
      remedy:
        "remora up --cluster-cidr 10.128.0.0/16 --service-cidr 10.129.0.0/16 # before the first start; else give the other network other addresses",
    },
    "bridge-missing": {
      level: "error",
      means: "The bridge of pods is not there, or down.",
      cause:
        "Somebody removed it; the agent makes it again within 30 seconds, unless the Node has no pod network yet.",
      remedy: "sleep 30; remora doctor --only pod-network,node",
    },
    "bridge-mtu": {
      level: "warning",
      means: "The bridge carries larger packets than the way out of the machine.",
      cause:
        "Pods send packets that routers have to refuse; where those refusals are filtered, large answers hang.",
      remedy:
        "systemctl restart remora # the bridge gets the size of the interface with the default route",
    },
    "no-default-route": {
      level: "warning",
      means: "The machine has no default route.",
      cause: "It is in no network, or DHCP gave it none: pods reach nothing outside.",
      remedy: "ip route add default via GATEWAY # or: systemctl restart systemd-networkd",
    },
  },
  collect: async (machine: Machine, signal) => {
    const { bridge, clusterCIDRs, pid, serviceCIDRs } = machine.site;
    const both = (texts: readonly string[]): readonly Cidr[] =>
      families.flatMap((family) => cidrsOf(texts, family));
    return {
      look: await lookAtNetwork(machine, signal),
      clusterCIDRs: both(clusterCIDRs),
      serviceCIDRs: both(serviceCIDRs),
      bridgeName: bridge,
      running: pid !== undefined,
    };
  },
  judge: (facts) => {
    const { bridgeName, look, running } = facts;
    const { bridge, plugIns, uplink } = look;
    const findings = [...judgeOverlaps(facts)];
    if (running && !plugIns && bridge?.up !== true) {
      const text = bridge === undefined ? `there is no ${bridgeName}` : `${bridgeName} is down`;
      findings.push({ problem: "bridge-missing", text });
    }
    if (bridge !== undefined && uplink !== undefined && bridge.mtu > uplink.mtu) {
      findings.push({
        problem: "bridge-mtu",
        text: `${bridgeName} has MTU ${bridge.mtu}, ${uplink.name} ${uplink.mtu}`,
      });
    }
    if (uplink === undefined) {
      findings.push({ problem: "no-default-route", text: "there is no default route" });
    }
    const pods = look.podCIDRs.map(formatCidr).join(", ");
    return judged(
      plugIns ? "CNI plug-ins" : bridge === undefined ? "no bridge yet" : `${bridgeName} ${pods}`,
      findings,
    );
  },
});

export const settings = defineCheck({
  id: "settings",
  title: "Network settings of the kernel",
  group: "network",
  looks:
    "forwarding, arp_ignore, bridge-nf-call, IPv6 of the bridge, and whether settings can be written",
  reference: "docs/networking.md",
  problems: {
    "forwarding-off": {
      level: "error",
      means: "The machine does not forward packets.",
      cause:
        "Somebody set net.ipv4.ip_forward to 0 (sysctl --system after an edit of /etc/sysctl.d); the agent sets it again within 30 seconds.",
      remedy: "sysctl -w net.ipv4.ip_forward=1; grep -rn ip_forward /etc/sysctl.conf /etc/sysctl.d",
    },
    "settings-read-only": {
      level: "error",
      means: "Settings of the kernel cannot be written.",
      cause: "/proc/sys is mounted read-only: the machine is a container without --privileged.",
      remedy: "mount -o remount,rw /proc/sys # or start the machine's container with --privileged",
    },
    "arp-ignored": {
      level: "error",
      means: "The machine answers no ARP requests.",
      cause: "net.ipv4.conf.all.arp_ignore is 8, so no pod finds its gateway.",
      remedy: "sysctl -w net.ipv4.conf.all.arp_ignore=0",
    },
    "bridge-calls-off": {
      level: "warning",
      means: "Bridged packets do not meet iptables.",
      cause:
        "br_netfilter is missing or net.bridge.bridge-nf-call-iptables is 0. Remora's own bridge does not need it; CNI plug-ins with a bridge do: a pod does not reach a Service whose endpoint is on the same node.",
      remedy:
        "modprobe br_netfilter && sysctl -w net.bridge.bridge-nf-call-iptables=1; echo br_netfilter > /etc/modules-load.d/remora.conf",
    },
  },
  collect: async (machine) => {
    const { bridge, pid } = machine.site;
    const value = async (name: string): Promise<string | undefined> =>
      (await machine.read(`/proc/sys/net/${name}`))?.trim();
    const mounts = (await machine.read("/proc/self/mounts")) ?? "";
    const sys = mounts.split("\n").findLast((line) => line.split(" ")[1] === "/proc/sys");
    return {
      running: pid !== undefined,
      forward: await value("ipv4/ip_forward"),
      ofBridge: await value(`ipv4/conf/${bridge}/forwarding`),
      bridge,
      arpIgnore: await value("ipv4/conf/all/arp_ignore"),
      calls: await value("bridge/bridge-nf-call-iptables"),
      plugIns: (await machine.names("/etc/cni/net.d")).some((name) => /\.conf(list)?$/.test(name)),
      readOnly: sys?.split(" ")[3]?.split(",").includes("ro") === true,
      mode: machine.site.mode,
    };
  },
  judge: (facts) => {
    const { arpIgnore, bridge, calls, forward, ofBridge, plugIns, readOnly, running } = facts;
    const findings: Finding<
      "forwarding-off" | "settings-read-only" | "arp-ignored" | "bridge-calls-off"
    >[] = [];
    if (running && forward === "0") {
      findings.push({ problem: "forwarding-off", text: "net.ipv4.ip_forward is 0" });
    } else if (running && ofBridge === "0") {
      findings.push({
        problem: "forwarding-off",
        text: `net.ipv4.conf.${bridge}.forwarding is 0`,
        remedy: `sysctl -w net.ipv4.conf.${bridge}.forwarding=1`,
      });
    }
    if (readOnly) findings.push({ problem: "settings-read-only", text: "/proc/sys is read-only" });
    if (arpIgnore === "8") {
      findings.push({ problem: "arp-ignored", text: "net.ipv4.conf.all.arp_ignore is 8" });
    }
    if (plugIns && facts.mode === "run" && calls !== "1") {
      findings.push({
        problem: "bridge-calls-off",
        text:
          calls === undefined
            ? "br_netfilter is not loaded"
            : "net.bridge.bridge-nf-call-iptables is 0",
      });
    }
    return judged(`ip_forward=${forward ?? "-"} bridge-nf-call-iptables=${calls ?? "-"}`, findings);
  },
});
