import { defineCheck, type Finding, judged, skipped } from "../check.ts";

/** Bits of capabilities (linux/capability.h) and what fails without them. */
const needed = [
  {
    bit: 12,
    name: "CAP_NET_ADMIN",
    trouble: "no packet rule and no interface of a pod can be made",
  },
  { bit: 21, name: "CAP_SYS_ADMIN", trouble: "no volume can be mounted, no namespace entered" },
  { bit: 19, name: "CAP_SYS_PTRACE", trouble: "namespaces of pods cannot be looked at" },
  { bit: 0, name: "CAP_CHOWN", trouble: "fsGroup of volumes cannot be set" },
  { bit: 1, name: "CAP_DAC_OVERRIDE", trouble: "volumes of other users cannot be cleaned up" },
] as const;
const sysResource = 24;

/** The set of a line such as `CapEff:` in /proc/PID/status. */
function capabilitySet(status: string, line: "CapEff" | "CapBnd"): bigint | undefined {
  const text = new RegExp(`^${line}:\\s*([0-9a-f]+)`, "m").exec(status)?.[1];
  return text === undefined ? undefined : BigInt(`0x${text}`);
}

function has(set: bigint, bit: number): boolean {
  return ((set >> BigInt(bit)) & 1n) === 1n;
}

export const capabilities = defineCheck({
  id: "capabilities",
  title: "Capabilities",
  group: "machine",
  looks: "capabilities of the agent, or of this command where none runs",
  reference: "docs/errors.md",
  problems: {
    "capability-missing": {
      level: "error",
      means: "A capability that the agent needs is missing.",
      cause: "It runs in a container, or a unit with CapabilityBoundingSet= that leaves it out.",
      remedy: "systemctl revert remora.service # removes drop-ins that take rights away",
    },
    "no-sys-resource": {
      level: "warning",
      means: "CAP_SYS_RESOURCE is missing.",
      cause:
        "Negative OOM score adjustments are raised to 0, and privileged containers are refused by the engine: the machine is itself a container.",
      remedy: "start the machine's container with --cap-add SYS_RESOURCE, or --privileged",
    },
  },
  collect: async (machine) => ({
    status: await machine.read(`/proc/${machine.site.pid ?? "self"}/status`),
    // Somebody who is not root has none, and an agent started by root here would have these.
    line:
      machine.site.pid === undefined && !machine.isRoot ? ("CapBnd" as const) : ("CapEff" as const),
  }),
  judge: ({ line, status }) => {
    if (status === undefined) return skipped("the agent's status cannot be read");
    const set = capabilitySet(status, line);
    if (set === undefined) return skipped("this kernel tells no capabilities");
    const findings: Finding<"capability-missing" | "no-sys-resource">[] = needed
      .filter(({ bit }) => !has(set, bit))
      .map(({ name, trouble }) => ({
        problem: "capability-missing" as const,
        text: `${name} is missing: ${trouble}`,
      }));
    if (!has(set, sysResource)) {
      findings.push({ problem: "no-sys-resource", text: "CAP_SYS_RESOURCE is missing" });
    }
    return judged(findings.length === 0 ? "all that are needed" : "some are missing", findings);
  },
});

interface ModuleFacts {
  readonly appArmor: boolean;
  /** apparmor_parser can be started. */
  readonly parser: boolean;
  readonly seLinux: "enforcing" | "permissive" | "off";
  /** The engine labels containers. */
  readonly engineLabels: boolean | undefined;
}

export const securityModules = defineCheck({
  id: "security-modules",
  title: "AppArmor and SELinux",
  group: "machine",
  looks: "which of them is on, and whether what belongs to it is there",
  reference: "docs/pod-fields.md",
  problems: {
    "apparmor-parser-missing": {
      level: "error",
      means: "AppArmor is on, and apparmor_parser is not installed.",
      cause: "Docker loads its profile with it and refuses to start any container without.",
      remedy: "apt-get install apparmor && systemctl restart docker",
    },
    "selinux-engine-off": {
      level: "warning",
      means: "SELinux enforces, and the engine does not label containers.",
      cause:
        "selinux-enabled is not set in /etc/docker/daemon.json: pods run unconfined or cannot read their volumes, and seLinuxOptions has no effect.",
      remedy: 'set "selinux-enabled": true in /etc/docker/daemon.json && systemctl restart docker',
    },
  },
  collect: async (machine, signal): Promise<ModuleFacts> => {
    const enforce = (await machine.read("/sys/fs/selinux/enforce"))?.trim();
    const appArmor =
      (await machine.read("/sys/module/apparmor/parameters/enabled"))?.startsWith("Y") === true;
    const parser = appArmor
      ? (await machine.run(["apparmor_parser", "--version"], { signal })) !== undefined
      : true;
    const config = (await machine.read("/etc/docker/daemon.json")) ?? "";
    return {
      appArmor,
      parser,
      seLinux: enforce === "1" ? "enforcing" : enforce === "0" ? "permissive" : "off",
      engineLabels: /"selinux-enabled"\s*:\s*true/.test(config),
    };
  },
  judge: ({ appArmor, engineLabels, parser, seLinux }) => {
    const findings: Finding<"apparmor-parser-missing" | "selinux-engine-off">[] = [];
    if (appArmor && !parser) {
      findings.push({ problem: "apparmor-parser-missing", text: "there is no apparmor_parser" });
    }
    if (seLinux === "enforcing" && engineLabels === false) {
      findings.push({
        problem: "selinux-engine-off",
        text: "SELinux enforces, /etc/docker/daemon.json has no selinux-enabled",
      });
    }
    return judged(`AppArmor ${appArmor ? "on" : "off"}, SELinux ${seLinux}`, findings);
  },
});
