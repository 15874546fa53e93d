import { loadKubeconfig } from "../../../api/kubeconfig.ts";
import { cidrAddress, type IPFamily, parseCidr } from "../../../lib/cidr.ts";
import {
  defaultForwardChain,
  defaultInputChain,
  jumpPosition,
} from "../../../netfilter/forward-accept.ts";
import type { FirewallNeeds } from "../../../network/firewall-plan.ts";
import { listNodeRoutes } from "../../../network/node-routes.ts";
import { type FamilyLook, findObstacles } from "../../../network/obstacles.ts";
import { isAddressOfMachine, servicesOfNode } from "../../pod-network-runner.ts";
import { defineCheck, type Finding, judged, skipped, unknown } from "../check.ts";
import type { Machine } from "../machine.ts";
import {
  addressesOf,
  cidrsOf,
  families,
  type IptablesListing,
  listIptables,
  lookAtNetwork,
  type NetworkLook,
} from "../network-look.ts";
import { listProcesses } from "../processes.ts";

async function apiServer(machine: Machine): Promise<string> {
  const [identity] = machine.site.identities;
  if (identity === undefined) return "";
  try {
    return (await loadKubeconfig(identity.kubeconfig)).cluster.server;
  } catch {
    // The check of the API server says what is wrong with it.
    return "";
  }
}

/** A network that pods of this node would have, where none has been given to it. */
function guessedPodCIDR(cluster: readonly string[], family: IPFamily): string | undefined {
  const [first] = cidrsOf(cluster, family);
  if (first === undefined) return undefined;
  const prefix = Math.max(first.prefix, family === "IPv4" ? 24 : 64);
  return `${cidrAddress(first, 0)}/${prefix}`;
}

/** What firewalls have to let pass in each family that pods have, or would have. */
async function needsOf(
  machine: Machine,
  look: NetworkLook,
  signal: AbortSignal,
): Promise<readonly FirewallNeeds[]> {
  const { bridge, clusterCIDRs, dns } = machine.site;
  const server = await apiServer(machine);
  const otherNodes = (await listNodeRoutes(signal)).length > 0;
  return families.flatMap((family): FirewallNeeds[] => {
    const given = look.podCIDRs.find((cidr) => cidr.family === family);
    const guess = look.bridge === undefined ? guessedPodCIDR(clusterCIDRs, family) : undefined;
    const podCIDR = given ?? (guess === undefined ? undefined : parseCidr(guess));
    if (podCIDR === undefined) return [];
    const { uplink } = look;
    const address = uplink?.addresses.find(
      ({ ip }) => ip.includes(":") === (family === "IPv6") && !ip.startsWith("fe80:"),
    )?.ip;
    return [
      {
        family,
        bridge,
        podCIDR,
        clusterCIDRs: cidrsOf(clusterCIDRs, family),
        uplink: uplink === undefined ? undefined : { device: uplink.name, address },
        nameServers: addressesOf(dns?.addresses ?? [], family),
        nodeServices: servicesOfNode(server, 10_250, isAddressOfMachine),
        otherNodes,
      },
    ];
  });
}

interface FirewallFacts {
  /** Sentences about rules that drop what pods need. */
  readonly obstacles: readonly string[];
  readonly listings: readonly IptablesListing[];
  /** The agent runs, and pods are on its bridge. */
  readonly ours: boolean;
  /** Of the bridge: families that are carried. */
  readonly families: readonly IPFamily[];
  readonly firewalls: readonly string[];
}

function filterTable(listing: string): string {
  const start = listing.indexOf("*filter");
  if (start < 0) return "";
  const end = listing.indexOf("\nCOMMIT", start);
  return listing.slice(start, end < 0 ? undefined : end);
}

async function collect(machine: Machine, signal: AbortSignal): Promise<FirewallFacts | "not root"> {
  if (!machine.isRoot) return "not root";
  const look = await lookAtNetwork(machine, signal);
  const listings = await listIptables(machine, signal);
  const looks = (await needsOf(machine, look, signal)).map((needs): FamilyLook => ({
    needs,
    reports: listings
      .filter(({ family }) => family === needs.family)
      .map(({ listing, program }) => ({ program, state: "right", listing: filterTable(listing) })),
  }));
  const processes = await listProcesses(machine);
  const ufw = /^ENABLED=yes/m.test((await machine.read("/etc/ufw/ufw.conf")) ?? "");
  const firewalld = processes.some(({ name, here }) => name === "firewalld" && here !== false);
  return {
    obstacles: look.plugIns ? [] : await findObstacles(looks, signal),
    listings,
    ours: machine.site.pid !== undefined && look.bridge !== undefined && !look.plugIns,
    families: look.podCIDRs.map(({ family }) => family),
    firewalls: [...(ufw ? ["ufw"] : []), ...(firewalld ? ["firewalld"] : [])],
  };
}

type FirewallProblem = "firewall-blocks" | "accept-missing";

/** Ways out of FORWARD and INPUT that the agent keeps. */
function judgeAccepts({
  families: carried,
  listings,
}: FirewallFacts): readonly Finding<FirewallProblem>[] {
  return listings.flatMap(({ family, listing, program }): Finding<FirewallProblem>[] => {
    const filter = filterTable(listing);
    const isUsed = /^-A |^:(FORWARD|INPUT) DROP/m.test(filter);
    if (!carried.includes(family) || !isUsed) return [];
    const ways = [
      ["FORWARD", defaultForwardChain],
      ["INPUT", defaultInputChain],
    ] as const;
    const lost = ways.filter(([from, chain]) => !jumpPosition(filter, chain, from).right);
    if (lost.length === 0) return [];
    const chains = lost.map(([from, chain]) => `${from} to ${chain}`).join(", ");
    return [
      {
        problem: "accept-missing",
        text: `${family} iptables (${program.variant}): no jump in its place from ${chains}`,
      },
    ];
  });
}

/** Before the agent runs, nobody lets pods through a FORWARD that drops. */
function judgePolicies({ listings, ours }: FirewallFacts): string {
  const dropping = listings.filter(({ listing }) => /^:FORWARD DROP/m.test(filterTable(listing)));
  if (dropping.length === 0) return "FORWARD accepts";
  return ours
    ? "FORWARD drops, the agent's chain comes first"
    : "FORWARD drops; the agent puts a chain of its own before";
}

export const firewalls = defineCheck<FirewallProblem, FirewallFacts | "not root">({
  id: "firewalls",
  title: "Firewalls",
  group: "network",
  looks:
    "rules of others in nftables and iptables, ufw and firewalld, that drop what pods need; and the agent's ways past them",
  reference: "docs/networking.md",
  deadlineMs: 20_000,
  problems: {
    "firewall-blocks": {
      level: "error",
      means: "Rules of somebody else drop packets that pods need.",
      cause:
        "A firewall of the machine drops them where no rule of the agent can help: in nftables a packet that one table drops is dropped, whatever others accept.",
      remedy:
        "the finding has the commands that allow them; firewalld: firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/16 && firewall-cmd --reload",
    },
    "accept-missing": {
      level: "error",
      means: "The agent's accept rules are not in their place in iptables.",
      cause:
        "Somebody emptied or reloaded the firewall (iptables -F, a restart of Docker, a script). The agent puts them back within 30 seconds; if they stay away, something removes them again and again.",
      remedy:
        "sleep 30; remora doctor --only firewalls # then: journalctl -u 'remora*' | grep 'forwarding of pod traffic repaired'",
    },
  },
  collect,
  judge: (facts) => {
    if (facts === "not root") return unknown("packet rules may only be read by root: use sudo");
    const blocked = facts.obstacles.map((text): Finding<FirewallProblem> => {
      const at = text.indexOf(" Allow them there: ");
      return at < 0
        ? { problem: "firewall-blocks", text }
        : {
            problem: "firewall-blocks",
            text: text.slice(0, at),
            remedy: text.slice(at + " Allow them there: ".length),
          };
    });
    const accepts = facts.ours ? judgeAccepts(facts) : [];
    const names = facts.firewalls.length === 0 ? "" : `${facts.firewalls.join(" and ")} on; `;
    return judged(`${names}${judgePolicies(facts)}`, [...blocked, ...accepts]);
  },
});

/** Rules of others in a listing, by table. */
function foreignRules(listing: string): number {
  return listing
    .split("\n")
    .filter((line) => line.startsWith("-A ") && !/\b(REMORA|KUBE)-/.test(line)).length;
}

export const iptablesMix = defineCheck({
  id: "iptables-mix",
  title: "Kinds of iptables",
  group: "network",
  looks: "whether rules were written with both kinds of iptables, nf_tables and legacy",
  reference: "docs/networking.md",
  problems: {
    "iptables-mixed": {
      level: "warning",
      means: "Rules were written with both kinds of iptables.",
      cause:
        "The kernel obeys both, and each program shows its own only: what one accepts the other may drop, and nobody sees why. Most often Docker or a firewall was started before the default was changed.",
      remedy:
        "update-alternatives --set iptables /usr/sbin/iptables-nft && reboot # or clear one kind: iptables-legacy -F; iptables-legacy -t nat -F",
    },
  },
  collect: async (machine, signal) => (machine.isRoot ? listIptables(machine, signal) : undefined),
  judge: (listings) => {
    if (listings === undefined) return unknown("packet rules may only be read by root: use sudo");
    if (listings.length === 0) return skipped("iptables is not installed");
    const findings = families.flatMap((family): Finding<"iptables-mixed">[] => {
      const used = listings.flatMap((one) => {
        const rules = foreignRules(one.listing);
        return one.family === family && rules > 0
          ? [`${rules} rules in ${one.program.variant}`]
          : [];
      });
      return used.length < 2
        ? []
        : [{ problem: "iptables-mixed", text: `${family}: ${used.join(", ")}` }];
    });
    const kinds = [...new Set(listings.map(({ program }) => program.variant))];
    return judged(`used: ${kinds.join(", ")}`, findings);
  },
});
