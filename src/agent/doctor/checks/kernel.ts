import { defineCheck, type Finding, judged, unknown } from "../check.ts";
import { type SelfTest, selfTest } from "../self-test.ts";

const oldest = [5, 13] as const;

/** Whether a version is below another; what is no number counts as zero. */
export function isBelow(version: string, least: readonly number[]): boolean {
  const parts = version.split(/[.-]/).map((part) => Number.parseInt(part, 10) || 0);
  for (const [index, number] of least.entries()) {
    const own = parts[index] ?? 0;
    if (own !== number) return own < number;
  }
  return false;
}

export const kernel = defineCheck({
  id: "kernel",
  title: "Kernel",
  group: "machine",
  looks:
    "its version, overlay, and in a throw-away network namespace veth, bridge, NAT and conntrack",
  reference: "docs/networking.md",
  problems: {
    "kernel-old": {
      level: "warning",
      means: "The kernel is older than 5.13.",
      cause:
        "Service rules in nftables need maps that are keyed by a random index; older kernels do not have them, and iptables is used instead.",
      remedy: "apt-get install linux-image-amd64 # and reboot",
    },
    "kernel-no-overlay": {
      level: "warning",
      means: "The kernel does not know the file system overlay.",
      cause:
        "Docker then copies every image for every container (vfs), which is slow and fills the disk.",
      remedy: "modprobe overlay && echo overlay > /etc/modules-load.d/remora.conf",
    },
    "kernel-no-veth": {
      level: "error",
      means: "The kernel cannot make pairs of virtual interfaces.",
      cause: "The module veth is missing: each pod needs such a pair.",
      remedy: "modprobe veth # in a container host of a provider: ask for it",
    },
    "kernel-no-bridge": {
      level: "error",
      means: "The kernel cannot make a bridge.",
      cause: "The module bridge is missing: all pods of the node are on one.",
      remedy: "modprobe bridge",
    },
    "kernel-no-nat": {
      level: "error",
      means: "The kernel cannot translate addresses, neither for nftables nor for iptables.",
      cause:
        "nf_nat or nf_conntrack is missing: without them no Service answers and no pod reaches another network.",
      remedy: "modprobe -a nf_conntrack nf_nat nft_chain_nat nft_masq nft_ct",
    },
    "kernel-no-namespaces": {
      level: "error",
      means: "No network namespace can be made.",
      cause:
        "user.max_net_namespaces is used up or 0, or this root may not (a container without CAP_SYS_ADMIN): no pod can start.",
      remedy: "sysctl -w user.max_net_namespaces=15000",
    },
  },
  collect: async (machine, signal) => {
    const release = (await machine.read("/proc/sys/kernel/osrelease"))?.trim() ?? "";
    const filesystems = (await machine.read("/proc/filesystems")) ?? "";
    // The first mount loads it.
    const modules = (await machine.read(`/lib/modules/${release}/modules.dep`)) ?? "";
    return {
      release,
      overlay: /\boverlay$/m.test(filesystems) || /\/overlay\.ko[.\w]*:/.test(modules),
      tried: await selfTest(machine, signal),
    };
  },
  judge: ({ release, overlay, tried }) => {
    const findings: Finding<
      | "kernel-old"
      | "kernel-no-overlay"
      | "kernel-no-veth"
      | "kernel-no-bridge"
      | "kernel-no-nat"
      | "kernel-no-namespaces"
    >[] = [];
    if (isBelow(release, oldest)) {
      findings.push({ problem: "kernel-old", text: `this kernel is ${release}` });
    }
    if (!overlay) {
      const text = "/proc/filesystems has no overlay, and there is no such module";
      findings.push({ problem: "kernel-no-overlay", text });
    }
    if (tried.kind === "impossible") {
      if (!/max_net_namespaces|No space left|not permitted/i.test(tried.why)) {
        return findings.length === 0 ? unknown(tried.why) : judged(release, findings);
      }
      findings.push({ problem: "kernel-no-namespaces", text: tried.why });
      return judged(release, findings);
    }
    const { said } = tried;
    if (said.veth !== "") findings.push({ problem: "kernel-no-veth", text: said.veth });
    if (said.bridge !== "") findings.push({ problem: "kernel-no-bridge", text: said.bridge });
    const nft = said["nft-nat"] || said["nft-conntrack"];
    if (nft !== "" && said.iptables !== "") {
      findings.push({ problem: "kernel-no-nat", text: `nft: ${nft}; iptables: ${said.iptables}` });
    }
    return judged(`${release}, has veth, bridge, NAT and conntrack`, findings);
  },
});

interface NftFacts {
  readonly version: string | undefined;
  readonly iptables: string | undefined;
  readonly tried: SelfTest;
}

export const nft = defineCheck({
  id: "nft",
  title: "nft",
  group: "machine",
  looks: "its version, and in a throw-away network namespace what Service rules need of it",
  reference: "docs/service-proxy.md",
  problems: {
    "nft-missing": {
      level: "error",
      means: "nft is not installed.",
      cause: "The agent writes its packet rules with it.",
      remedy: "apt-get install nftables",
    },
    "nft-old": {
      level: "warning",
      means: "nft is older than 1.0.1.",
      cause:
        "Older ones misread or crash on rules of others; the agent uses iptables where nft cannot do what it needs.",
      remedy: "apt-get install -t stable-backports nftables # or a newer release of the system",
    },
    "nft-no-tables": {
      level: "error",
      means: "nft cannot make a table.",
      cause:
        "The kernel has no nf_tables, or this nft and this kernel do not understand each other.",
      remedy: "modprobe nf_tables",
    },
    "nft-no-maps": {
      level: "warning",
      means: "nft or the kernel refuses maps keyed by a random index.",
      cause: "Service rules are then written by iptables, which is slower with many Services.",
      remedy: "apt-get install nftables linux-image-amd64 # nft 1.0.1 and kernel 5.13 or newer",
    },
    "nft-no-readback": {
      level: "error",
      means: "nft cannot list what it has written.",
      cause:
        "Some versions of nft crash on listings; the agent could not see whether its rules are in the kernel.",
      remedy: "apt-get install --reinstall nftables",
    },
  },
  collect: async (machine, signal): Promise<NftFacts> => {
    const version = async (program: string): Promise<string | undefined> => {
      const result = await machine.run([program, "--version"], { signal });
      return result === undefined ? undefined : /v(\d+(?:\.\d+)+)/.exec(result.stdout)?.[1];
    };
    return {
      version: await version("nft"),
      iptables: await version("iptables"),
      tried: await selfTest(machine, signal),
    };
  },
  judge: ({ version, iptables, tried }) => {
    if (version === undefined) {
      return judged("", [{ problem: "nft-missing", text: "there is no program nft" }]);
    }
    const findings: Finding<
      "nft-missing" | "nft-old" | "nft-no-tables" | "nft-no-maps" | "nft-no-readback"
    >[] = isBelow(version, [1, 0, 1])
      ? [{ problem: "nft-old", text: `this nft is ${version}` }]
      : [];
    if (tried.kind === "impossible") {
      return findings.length === 0 ? unknown(tried.why) : judged(version, findings);
    }
    const { said } = tried;
    if (said["nft-tables"] !== "") {
      findings.push({ problem: "nft-no-tables", text: said["nft-tables"] });
    } else {
      if (said["nft-readback"] !== "") {
        findings.push({ problem: "nft-no-readback", text: said["nft-readback"] });
      }
      if (said["nft-maps"] !== "") {
        findings.push({ problem: "nft-no-maps", text: said["nft-maps"] });
      }
    }
    return judged(`nft ${version}, iptables ${iptables ?? "not installed"}`, findings);
  },
});

const tools = [
  ["ip", "iproute2", "error"],
  ["nsenter", "util-linux", "error"],
  ["mount", "mount", "error"],
  ["conntrack", "conntrack", "warning"],
] as const;

export const programs = defineCheck({
  id: "programs",
  title: "Programs",
  group: "machine",
  looks: "the programs that the agent starts",
  reference: "docs/install.md",
  problems: {
    "program-missing": {
      level: "error",
      means: "A program that the agent needs is not installed.",
      cause: "The agent does not start without it.",
      remedy: "apt-get install iproute2 util-linux mount",
    },
    "program-wanted": {
      level: "warning",
      means: "conntrack is not installed.",
      cause:
        "UDP flows to an endpoint that is gone then stay with it until they end by themselves.",
      remedy: "apt-get install conntrack",
    },
  },
  collect: async (machine, signal) => {
    const found: { readonly tool: string; readonly there: boolean }[] = [];
    for (const [tool] of tools) {
      const result = await machine.run([tool, tool === "ip" ? "-V" : "--version"], { signal });
      found.push({ tool, there: result !== undefined });
    }
    return found;
  },
  judge: (found) => {
    const missing = tools.filter(([tool]) => found.some((one) => one.tool === tool && !one.there));
    return judged(
      found.map(({ tool }) => tool).join(", "),
      missing.map(([tool, pkg, level]) => ({
        problem: level === "error" ? ("program-missing" as const) : ("program-wanted" as const),
        text: `${tool} is not installed`,
        remedy: `apt-get install ${pkg}`,
      })),
    );
  },
});
