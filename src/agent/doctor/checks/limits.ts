import { readlink } from "node:fs/promises";
import { join } from "node:path";

import { defineCheck, type Finding, judged, skipped } from "../check.ts";
import { type Machine, readNumber } from "../machine.ts";

const wanted = ["cpu", "cpuset", "memory", "pids"] as const;
/** By the agent; cpuset by the engine, where a container asks for it. */
const handedOn = ["cpu", "memory", "pids"] as const;

/** The hierarchies of cgroups, and what the root hands on. */
interface CgroupFacts {
  readonly version: 1 | 2 | undefined;
  /** Enabled controllers. */
  readonly controllers: readonly string[];
  /** Of v2: what children of the root may use; undefined in v1. */
  readonly delegated: readonly string[] | undefined;
  readonly hybrid: boolean;
  /** Limits of swap can be set. */
  readonly swapAccounting: boolean | undefined;
}

function enabledControllers(text: string): readonly string[] {
  return text.split("\n").flatMap((line) => {
    const [name = "", , , enabled] = line.split(/\s+/);
    return enabled === "1" ? [name] : [];
  });
}

async function cgroupFacts(machine: Machine): Promise<CgroupFacts> {
  const mounts = (await machine.read("/proc/self/mounts")) ?? "";
  const lines = mounts.split("\n").map((line) => line.split(" "));
  const unified = lines.find(([, path, type]) => type === "cgroup2" && path === "/sys/fs/cgroup");
  const hasV1 = lines.some(
    ([, , type, options = ""]) => type === "cgroup" && !options.includes("name="),
  );
  const second = unified ?? lines.find(([, , type]) => type === "cgroup2");
  const words = async (file: string): Promise<readonly string[]> =>
    second === undefined
      ? []
      : ((await machine.read(`${second[1] ?? ""}/${file}`)) ?? "").split(/\s+/).filter(Boolean);
  const controllers = await words("cgroup.controllers");
  // Controllers that nobody wants from v1 are in v2 by themselves.
  const hybrid = hasV1 && wanted.some((name) => controllers.includes(name));
  if (unified !== undefined) {
    const slices = await machine.names("/sys/fs/cgroup/system.slice");
    return {
      version: 2,
      controllers,
      delegated: await words("cgroup.subtree_control"),
      hybrid,
      swapAccounting: slices.length === 0 ? undefined : slices.includes("memory.swap.max"),
    };
  }
  const memory = await machine.names("/sys/fs/cgroup/memory");
  return {
    version: hasV1 ? 1 : undefined,
    controllers: enabledControllers((await machine.read("/proc/cgroups")) ?? ""),
    delegated: undefined,
    hybrid,
    swapAccounting:
      memory.length === 0 ? undefined : memory.includes("memory.memsw.limit_in_bytes"),
  };
}

export const cgroups = defineCheck({
  id: "cgroups",
  title: "Control groups",
  group: "machine",
  looks:
    "the version of cgroups, their controllers, what the root hands on, and accounting of swap",
  reference: "docs/troubleshooting.md",
  problems: {
    "cgroups-missing": {
      level: "error",
      means: "No control groups are mounted.",
      cause: "Docker cannot start containers without them.",
      remedy:
        "systemctl status # on a machine without systemd: apt-get install cgroupfs-mount && cgroupfs-mount",
    },
    "cgroup-controller-missing": {
      level: "error",
      means: "A controller of cgroups that pods need is off.",
      cause:
        "The kernel was started without it (cgroup_disable=, or cgroup_enable=memory is missing on a Raspberry Pi): limits of pods do not hold.",
      remedy:
        "sed -i 's/$/ cgroup_enable=memory cgroup_memory=1/' /boot/firmware/cmdline.txt # or GRUB_CMDLINE_LINUX; then reboot",
    },
    "cgroup-not-delegated": {
      level: "error",
      means: "The root of cgroup v2 does not hand a controller on to its children.",
      cause:
        "Another program took it out of cgroup.subtree_control of the root: groups of pods that are made from now on have no such limits.",
      remedy: "echo +cpu +memory +pids > /sys/fs/cgroup/cgroup.subtree_control",
    },
    "cgroups-v1": {
      level: "warning",
      means: "The machine uses cgroup v1.",
      cause:
        "It works, but memory protection and pressure figures of pods (memoryQoS, PSI) exist in v2 only, and systemd gives v1 up.",
      remedy: "remove systemd.unified_cgroup_hierarchy=0 from the kernel's command line and reboot",
    },
    "cgroups-hybrid": {
      level: "warning",
      means: "Controllers are divided between cgroup v1 and v2.",
      cause: "Programs that look at v2 alone see no limits, and those of v1 no v2.",
      remedy: "start the kernel with systemd.unified_cgroup_hierarchy=1",
    },
    "no-swap-accounting": {
      level: "warning",
      means: "Swap of containers is not counted.",
      cause:
        "The kernel was started without swapaccount=1, so a container at its memory limit may use the machine's swap without a limit.",
      remedy: "add swapaccount=1 to the kernel's command line and reboot, or swapoff -a",
    },
  },
  collect: async (machine) => ({
    ...(await cgroupFacts(machine)),
    running: machine.site.pid !== undefined,
    swaps: ((await machine.read("/proc/swaps")) ?? "").trim().split("\n").length - 1,
  }),
  judge: ({ version, controllers, delegated, hybrid, running, swapAccounting, swaps }) => {
    if (version === undefined) {
      return judged("", [
        { problem: "cgroups-missing", text: "no file system of type cgroup or cgroup2 is mounted" },
      ]);
    }
    const findings: Finding<
      | "cgroups-missing"
      | "cgroup-controller-missing"
      | "cgroup-not-delegated"
      | "cgroups-v1"
      | "cgroups-hybrid"
      | "no-swap-accounting"
    >[] = [];
    const missing = wanted.filter((name) => !controllers.includes(name));
    if (missing.length > 0) {
      findings.push({ problem: "cgroup-controller-missing", text: `off: ${missing.join(", ")}` });
    }
    // Before it runs nobody has asked for them: systemd hands on what units need, the agent what pods do.
    const kept = handedOn.filter(
      (name) => running && delegated?.includes(name) === false && !missing.includes(name),
    );
    if (kept.length > 0) {
      const words = kept.map((name) => `+${name}`).join(" ");
      findings.push({
        problem: "cgroup-not-delegated",
        text: `not handed on: ${kept.join(", ")}`,
        remedy: `echo ${words} > /sys/fs/cgroup/cgroup.subtree_control`,
      });
    }
    if (hybrid) findings.push({ problem: "cgroups-hybrid", text: "both kinds have controllers" });
    else if (version === 1) findings.push({ problem: "cgroups-v1", text: "cgroup v1" });
    if (swapAccounting === false && swaps > 0) {
      findings.push({
        problem: "no-swap-accounting",
        text: "swap is on, and has no limit for containers",
      });
    }
    return judged(`cgroup v${version}: ${controllers.join(" ")}`, findings);
  },
});

const kernelLimits = [
  { path: "fs/inotify/max_user_instances", least: 128, set: 512 },
  { path: "fs/inotify/max_user_watches", least: 8192, set: 524_288 },
  { path: "user/max_user_namespaces", least: 64, set: 15_000 },
  { path: "kernel/pid_max", least: 32_768, set: 4_194_304 },
] as const;

/** Inotify instances of programs of root; those of others are counted apart by the kernel. */
async function inotifyOfRoot(machine: Machine): Promise<number> {
  let count = 0;
  for (const pid of await machine.names("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    const status = (await machine.read(`/proc/${pid}/status`)) ?? "";
    if (!/^Uid:\s*0\b/m.test(status)) continue;
    for (const descriptor of await machine.names(`/proc/${pid}/fd`)) {
      const path = join(machine.root, "/proc", pid, "fd", descriptor);
      if ((await readlink(path).catch(() => "")) === "anon_inode:inotify") count += 1;
    }
  }
  return count;
}

export const limits = defineCheck({
  id: "limits",
  title: "Kernel limits",
  group: "machine",
  looks: "inotify, user namespaces, processes and open files of the whole machine",
  reference: "docs/troubleshooting.md",
  problems: {
    "kernel-limit-low": {
      level: "warning",
      means: "A limit of the kernel is lower than a node with many pods needs.",
      cause:
        "Programs in pods that watch files fail with `too many open files` or `no space left on device`; pods with hostUsers: false need user namespaces.",
      remedy:
        "echo 'fs.inotify.max_user_instances=512' > /etc/sysctl.d/90-remora.conf && sysctl --system",
    },
    "inotify-used-up": {
      level: "warning",
      means: "Root has hardly any inotify instances left.",
      cause:
        "Each program that watches files has one or more of them, and those in containers are root's too: the next one fails with `too many open files`.",
      remedy:
        "echo 'fs.inotify.max_user_instances=1024' > /etc/sysctl.d/90-remora.conf && sysctl --system",
    },
    "processes-full": {
      level: "error",
      means: "The machine has hardly any process numbers left.",
      cause:
        "Something starts processes without end, or kernel.pid_max is low: nothing can be started, no probe and no container.",
      remedy:
        "ps -eLf --sort=-nlwp | head # who has the most; then sysctl -w kernel.pid_max=4194304",
    },
    "files-full": {
      level: "error",
      means: "The machine has hardly any file handles left.",
      cause: "Something leaks descriptors, or fs.file-max is low: no connection can be opened.",
      remedy: "sysctl -w fs.file-max=2097152",
    },
  },
  collect: async (machine) => ({
    values: await Promise.all(
      kernelLimits.map(async (limit) => ({
        ...limit,
        value: await readNumber(machine, `/proc/sys/${limit.path}`),
      })),
    ),
    inotify: await inotifyOfRoot(machine),
    fileNr: (await machine.read("/proc/sys/fs/file-nr")) ?? "",
    loadavg: (await machine.read("/proc/loadavg")) ?? "",
  }),
  judge: ({ values, inotify, fileNr, loadavg }) => {
    const findings: Finding<
      "kernel-limit-low" | "inotify-used-up" | "processes-full" | "files-full"
    >[] = [];
    for (const { path, least, set, value } of values) {
      if (value === undefined || value >= least) continue;
      const name = path.replaceAll("/", ".");
      findings.push({
        problem: "kernel-limit-low",
        text: `${name} is ${value}`,
        remedy: `echo '${name}=${set}' >> /etc/sysctl.d/90-remora.conf && sysctl --system`,
      });
    }
    const instances = values.find(({ path }) => path.endsWith("/max_user_instances"))?.value;
    if (instances !== undefined && inotify >= instances * 0.75) {
      findings.push({
        problem: "inotify-used-up",
        text: `root has ${inotify} inotify instances, fs.inotify.max_user_instances is ${instances}`,
        remedy: `echo 'fs.inotify.max_user_instances=${Math.max(instances * 4, 1024)}' >> /etc/sysctl.d/90-remora.conf && sysctl --system`,
      });
    }
    const [used = 0, free = 0, most = 0] = fileNr.trim().split(/\s+/).map(Number);
    if (most > 0 && (used - free) / most > 0.9) {
      findings.push({
        problem: "files-full",
        text: `${used - free} of ${most} file handles are in use`,
      });
    }
    const tasks = Number(/ \d+\/(\d+) /.exec(loadavg)?.[1] ?? 0);
    const pidMax = values.find(({ path }) => path === "kernel/pid_max")?.value;
    if (pidMax !== undefined && tasks / pidMax > 0.9) {
      findings.push({
        problem: "processes-full",
        text: `${tasks} threads run, pid_max is ${pidMax}`,
      });
    }
    return judged(
      values.map(({ path, value }) => `${path.replaceAll("/", ".")}=${value ?? "-"}`).join(" "),
      findings,
    );
  },
});

export const conntrack = defineCheck({
  id: "conntrack",
  title: "Connection tracking",
  group: "network",
  looks: "how full the kernel's table of connections is",
  reference: "docs/service-proxy.md",
  problems: {
    "conntrack-full": {
      level: "error",
      means: "The table of tracked connections is full.",
      cause:
        "The kernel drops packets of every new connection (`nf_conntrack: table full, dropping packet`): too many connections, or something that opens them without end.",
      remedy:
        "sysctl -w net.netfilter.nf_conntrack_max=262144 # conntrack -S counts what was dropped",
    },
    "conntrack-filling": {
      level: "warning",
      means: "The table of tracked connections is three quarters full.",
      cause: "When it is full the kernel drops packets of new connections.",
      remedy: "sysctl -w net.netfilter.nf_conntrack_max=262144",
    },
    "conntrack-timeout-short": {
      level: "warning",
      means: "Idle connections are forgotten after less than an hour.",
      cause:
        "nf_conntrack_tcp_timeout_established was lowered: long-lived connections through Services hang after a pause, because the kernel no longer knows where they went.",
      remedy: "sysctl -w net.netfilter.nf_conntrack_tcp_timeout_established=86400",
    },
  },
  collect: async (machine) => {
    const of = (name: string): Promise<number | undefined> =>
      readNumber(machine, `/proc/sys/net/netfilter/${name}`);
    return {
      count: await of("nf_conntrack_count"),
      most: await of("nf_conntrack_max"),
      established: await of("nf_conntrack_tcp_timeout_established"),
    };
  },
  judge: ({ count, most, established }) => {
    if (count === undefined || most === undefined) {
      return skipped("the kernel tracks no connections yet (nf_conntrack is not loaded)");
    }
    const share = most === 0 ? 0 : count / most;
    const text = `${count} of ${most} entries are in use`;
    const remedy = `sysctl -w net.netfilter.nf_conntrack_max=${Math.max(most * 2, 131_072)}`;
    const findings: Finding<"conntrack-full" | "conntrack-filling" | "conntrack-timeout-short">[] =
      share > 0.95
        ? [{ problem: "conntrack-full", text, remedy }]
        : share > 0.75
          ? [{ problem: "conntrack-filling", text, remedy }]
          : [];
    if (established !== undefined && established < 3600) {
      findings.push({
        problem: "conntrack-timeout-short",
        text: `nf_conntrack_tcp_timeout_established is ${established} s`,
      });
    }
    return judged(text, findings);
  },
});

const scarceBytes = 64 * 2 ** 20;

function meminfo(text: string, name: string): number | undefined {
  const kilobytes = new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1];
  return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
}

function megabytes(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MB`;
}

export const memory = defineCheck({
  id: "memory",
  title: "Memory",
  group: "machine",
  looks: "free memory, swap, and how long programs wait for memory",
  reference: "docs/configuration.md",
  problems: {
    "memory-scarce": {
      level: "error",
      means: "The machine has hardly any memory left.",
      cause: "Below 100 MB (or 5 %) the node evicts pods, and the kernel kills programs.",
      remedy:
        "remora top # or: docker stats --no-stream; give pods limits, or the machine more memory",
    },
    "memory-pressure": {
      level: "warning",
      means: "Programs wait for memory a tenth of the time.",
      cause:
        "The kernel is busy freeing and reloading pages: probes time out and pods seem ill that are not.",
      remedy: "cat /proc/pressure/memory # give pods limits, or the machine more memory",
    },
    "swap-on": {
      level: "warning",
      means: "Swap is on.",
      cause:
        "Pods may be slowed down by it without showing it; a configuration with failSwapOn: true refuses to start.",
      remedy:
        "swapoff -a && sed -i '/\\sswap\\s/s/^/#/' /etc/fstab # unless it is wanted (memorySwap.swapBehavior)",
    },
  },
  collect: async (machine) => ({
    meminfo: (await machine.read("/proc/meminfo")) ?? "",
    pressure: (await machine.read("/proc/pressure/memory")) ?? "",
    swaps: (await machine.read("/proc/swaps")) ?? "",
  }),
  judge: (facts) => {
    const total = meminfo(facts.meminfo, "MemTotal") ?? 0;
    const free = meminfo(facts.meminfo, "MemAvailable");
    const findings: Finding<"memory-scarce" | "memory-pressure" | "swap-on">[] = [];
    if (free !== undefined && free < Math.max(scarceBytes, Math.min(total * 0.05, 100 * 2 ** 20))) {
      findings.push({
        problem: "memory-scarce",
        text: `${megabytes(free)} of ${megabytes(total)} are available`,
      });
    }
    const some = Number(/^some avg10=([\d.]+)/m.exec(facts.pressure)?.[1] ?? 0);
    if (some >= 10) {
      findings.push({
        problem: "memory-pressure",
        text: `programs waited ${some} % of the last ten seconds`,
      });
    }
    const swaps = facts.swaps.trim().split("\n").slice(1);
    if (swaps.length > 0) {
      const names = swaps.map((line) => line.split(/\s+/)[0]).join(", ");
      findings.push({ problem: "swap-on", text: `swap on ${names}` });
    }
    return judged(`${megabytes(free ?? 0)} of ${megabytes(total)} available`, findings);
  },
});
