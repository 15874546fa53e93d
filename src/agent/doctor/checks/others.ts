import { findOtherProxy } from "../../../proxy/other-proxy.ts";
import { findIpvs } from "../../../proxy/left-overs/ipvs.ts";
import { installedIptables, Iptables, mayHaveRules } from "../../../netfilter/iptables.ts";
import { removalText } from "../../../proxy/iptables/cleanup.ts";
import { tables as iptablesTables } from "../../../proxy/iptables/fixed.ts";
import { parseSave } from "../../../proxy/iptables/listing.ts";
import { defineCheck, type Finding, judged, skipped } from "../check.ts";
import type { Machine } from "../machine.ts";
import { listProcesses, type ProcessFacts } from "../processes.ts";

interface Other {
  readonly pattern: RegExp;
  readonly what: string;
  readonly level: "error" | "warning";
  readonly remedy: string;
}

const others: readonly Other[] = [
  {
    pattern: /^kubelet$/,
    what: "a kubelet",
    level: "error",
    remedy: "systemctl disable --now kubelet",
  },
  {
    pattern: /^(k3s|k3s-server|k3s-agent)$/,
    what: "k3s",
    level: "error",
    remedy: "systemctl disable --now k3s k3s-agent && k3s-killall.sh",
  },
  { pattern: /^k0s$/, what: "k0s", level: "error", remedy: "k0s stop && k0s reset" },
  {
    pattern: /^rke2$/,
    what: "RKE2",
    level: "error",
    remedy: "systemctl disable --now rke2-server rke2-agent && rke2-killall.sh",
  },
  {
    pattern: /^kubelite$/,
    what: "MicroK8s",
    level: "error",
    remedy: "snap stop --disable microk8s",
  },
  {
    pattern: /^kube-proxy$/,
    what: "a kube-proxy",
    level: "error",
    remedy:
      "kubectl -n kube-system delete daemonset kube-proxy # or: systemctl disable --now kube-proxy",
  },
  {
    pattern: /^cri-dockerd$/,
    what: "cri-dockerd",
    level: "warning",
    remedy: "systemctl disable --now cri-docker.service cri-docker.socket",
  },
  { pattern: /^crio$/, what: "CRI-O", level: "warning", remedy: "systemctl disable --now crio" },
];

export const otherAgents = defineCheck({
  id: "other-agents",
  title: "Other node agents",
  group: "machine",
  looks:
    "programs that do the same work: kubelet, kube-proxy, k3s, k0s, RKE2, MicroK8s, cri-dockerd",
  reference: "docs/join.md",
  problems: {
    "other-agent": {
      level: "error",
      means: "Another node agent runs on this machine.",
      cause:
        "Two would register one Node, remove each other's pods, and tear at one set of packet rules.",
      remedy: "systemctl disable --now kubelet",
    },
    "other-agent-idle": {
      level: "warning",
      means: "A part of another node agent runs that Remora does not need.",
      cause:
        "It was left from an installation before; it costs memory, and may start things again.",
      remedy: "systemctl disable --now cri-docker.service cri-docker.socket",
    },
    "other-proxy": {
      level: "error",
      means: "Another Service proxy answers on this machine.",
      cause:
        "Both write rules for the same Services: which endpoint gets a packet depends on who wrote last.",
      remedy:
        "kubectl -n kube-system delete daemonset kube-proxy # or: systemctl disable --now kube-proxy",
    },
  },
  collect: async (machine, signal) => ({
    processes: await listProcesses(machine),
    // The agent itself answers on these ports.
    proxy:
      machine.root === "" && machine.site.pid === undefined
        ? await findOtherProxy(signal)
        : undefined,
  }),
  judge: ({ processes, proxy }) => {
    const findings: Finding<"other-agent" | "other-agent-idle" | "other-proxy">[] = [];
    // Those of pods and containers have a network of their own, and so are not this machine's.
    const here = processes.filter((one) => one.here !== false);
    for (const { level, pattern, remedy, what } of others) {
      const found: ProcessFacts | undefined = here.find(({ name }) => pattern.test(name));
      if (found === undefined) continue;
      findings.push({
        problem: level === "error" ? "other-agent" : "other-agent-idle",
        text: `${what} runs (pid ${found.pid})`,
        remedy,
      });
    }
    if (proxy !== undefined && findings.length === 0) {
      findings.push({ problem: "other-proxy", text: `another Service proxy answers on ${proxy}` });
    }
    return judged("none", findings);
  },
});

interface LeftOverFacts {
  /** Lines such as `IPv4 iptables (nf_tables) table nat: chains KUBE-*`. */
  readonly chains: readonly string[];
  readonly tables: readonly string[];
  readonly ipvs: boolean;
  readonly devices: readonly string[];
  readonly cniFiles: readonly string[];
  /** In mode iptables the chains are the agent's own. */
  readonly ownChains: boolean;
  readonly mode: "up" | "run";
  readonly running: boolean;
}

const foreignDevices =
  /^(cni0|flannel\.\d+|cilium_host|cilium_net|kube-ipvs0|weave|vxlan\.calico|cali[0-9a-f]{11}|kube-bridge)$/;

/** Tables of iptables with chains of kube-proxy; those of a kubelet are also written by the agent, for others. */
async function proxyChains(signal: AbortSignal): Promise<readonly string[]> {
  const found: string[] = [];
  for (const program of await installedIptables(signal)) {
    for (const family of ["IPv4", "IPv6"] as const) {
      if (!(await mayHaveRules(program, family))) continue;
      const iptables = new Iptables(family, program);
      for (const table of iptablesTables) {
        const saved = await iptables.save(table, signal).catch(() => "");
        if (removalText(table, parseSave(saved), true) === "") continue;
        found.push(`${family} iptables (${program.variant}) table ${table}: chains KUBE-*`);
      }
    }
  }
  return found;
}

async function collectLeftOvers(
  machine: Machine,
  signal: AbortSignal,
): Promise<LeftOverFacts | undefined> {
  const { mode, pid, facts } = machine.site;
  const cniFiles = (await machine.names("/etc/cni/net.d")).filter((name) =>
    /\.(conf|conflist|json)$/.test(name),
  );
  const devices = (await machine.names("/sys/class/net")).filter((name) =>
    foreignDevices.test(name),
  );
  const kernel = machine.root === "" && machine.isRoot;
  const tables = kernel ? await machine.run(["nft", "list", "tables"], { signal }) : undefined;
  return {
    chains: kernel ? await proxyChains(signal) : [],
    tables: (tables?.stdout ?? "").split("\n").filter((line) => line.endsWith(" kube-proxy")),
    ipvs: kernel && (await findIpvs(signal)).sets.length > 0,
    devices,
    cniFiles,
    ownChains: facts?.mode === "iptables",
    mode,
    running: pid !== undefined,
  };
}

export const leftOvers = defineCheck({
  id: "left-overs",
  title: "Left-overs of others",
  group: "network",
  looks:
    "rules of kube-proxy, IPVS, interfaces and CNI configurations of networks that were here before",
  reference: "docs/service-proxy.md",
  problems: {
    "kube-proxy-rules": {
      level: "warning",
      means: "Rules of a kube-proxy are in the kernel.",
      cause:
        "It was ended and not cleaned up. While no agent runs they keep sending packets to endpoints that may be gone; the agent removes them when its own rules are in place.",
      remedy: "kube-proxy --cleanup # or start the agent, which removes them",
    },
    "foreign-interfaces": {
      level: "warning",
      means: "Interfaces of another pod network are here.",
      cause:
        "A network plug-in was removed without its interfaces: their addresses and routes may overlap with those of pods.",
      remedy: "ip link delete cni0; ip link delete flannel.1",
    },
    "cni-configuration": {
      level: "warning",
      means: "CNI configurations are in /etc/cni/net.d.",
      cause:
        "`remora run` takes plug-ins where they are configured (--pod-network auto); what an earlier cluster left makes pods wait for plug-ins that are not there.",
      remedy: "mv /etc/cni/net.d /etc/cni/net.d.before # or run with --pod-network bridge",
    },
  },
  collect: collectLeftOvers,
  judge: (facts) => {
    if (facts === undefined) return skipped("this machine's kernel cannot be asked");
    const findings: Finding<"kube-proxy-rules" | "foreign-interfaces" | "cni-configuration">[] = [];
    const rules = [
      ...(facts.ownChains ? [] : facts.chains),
      ...facts.tables,
      ...(facts.ipvs ? ["IPVS and ipset"] : []),
    ];
    if (rules.length > 0) {
      findings.push({ problem: "kube-proxy-rules", text: rules.join("; ") });
    }
    // Plug-ins that are in use have interfaces.
    if (facts.devices.length > 0 && facts.cniFiles.length === 0) {
      findings.push({
        problem: "foreign-interfaces",
        text: facts.devices.join(", "),
        remedy: facts.devices.map((device) => `ip link delete ${device}`).join("; "),
      });
    }
    if (facts.cniFiles.length > 0 && facts.mode === "run" && !facts.running) {
      findings.push({
        problem: "cni-configuration",
        text: `/etc/cni/net.d has ${facts.cniFiles.join(", ")}`,
      });
    }
    return judged("none", findings);
  },
});
