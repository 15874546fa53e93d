import { mkdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

import type { Check, Judgement } from "../../../src/agent/doctor/check.ts";
import { type Machine, machineAt } from "../../../src/agent/doctor/machine.ts";
import { resultOf } from "../../../src/agent/doctor/run-checks.ts";
import type { Site } from "../../../src/agent/doctor/site.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import type { ExecResult } from "../../../src/lib/exec.ts";

export const never: AbortSignal = new AbortController().signal;

/** A machine on which no agent has ever run. */
export const emptySite: Site = {
  mode: "up",
  pid: undefined,
  used: false,
  stateDir: "/var/lib/remora",
  rootDir: "/var/lib/remora/kubelet",
  nodeName: "here",
  dockerSocket: "/nonexistent/docker.sock",
  metricsAddress: "127.0.0.1:1",
  identities: [],
  facts: undefined,
  factsMissing: "no agent runs on this machine",
  bridge: "remora0",
  clusterCIDRs: ["10.244.0.0/16"],
  serviceCIDRs: ["10.96.0.0/16"],
  dns: undefined,
};

/** A machine that is as it should be: everything that checks read of files. */
export const healthy: Readonly<Record<string, string>> = {
  "proc/sys/kernel/osrelease": "6.1.0-18-amd64\n",
  "proc/filesystems": "nodev\tproc\n\text4\nnodev\toverlay\n",
  "proc/self/mounts":
    "/dev/vda1 / ext4 rw,relatime 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\nproc /proc proc rw 0 0\n",
  "proc/self/status": "Name:\tnode\nCapEff:\t000001ffffffffff\n",
  "proc/cgroups": "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\nmemory\t0\t1\t1\n",
  "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma misc\n",
  "sys/fs/cgroup/cgroup.subtree_control": "cpuset cpu io memory pids\n",
  "sys/fs/cgroup/system.slice/memory.swap.max": "max\n",
  "proc/swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
  "proc/meminfo": "MemTotal:        8000000 kB\nMemFree:  100 kB\nMemAvailable:    6000000 kB\n",
  "proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
  "proc/loadavg": "0.10 0.10 0.10 2/300 4242\n",
  "proc/uptime": "1000.00 900.00\n",
  "proc/sys/fs/file-nr": "1000\t0\t9223372\n",
  "proc/sys/fs/inotify/max_user_instances": "1024\n",
  "proc/sys/fs/inotify/max_user_watches": "524288\n",
  "proc/sys/user/max_user_namespaces": "30000\n",
  "proc/sys/kernel/pid_max": "4194304\n",
  "proc/sys/net/netfilter/nf_conntrack_count": "100\n",
  "proc/sys/net/netfilter/nf_conntrack_max": "262144\n",
  "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established": "432000\n",
  "proc/sys/net/ipv4/ip_forward": "1\n",
  "proc/sys/net/ipv4/conf/all/arp_ignore": "0\n",
  "proc/sys/net/bridge/bridge-nf-call-iptables": "1\n",
  "etc/docker/daemon.json": '{"live-restore": true}\n',
};

/** What programs answer; those that are not named are not installed. */
export type Programs = Readonly<Record<string, string | ExecResult>>;

function resultFor(answer: string | ExecResult): ExecResult {
  return typeof answer === "string" ? { exitCode: 0, stdout: answer, stderr: "" } : answer;
}

/** Makes files below `root` (`-> target` makes a link), and the machine that they are. */
export async function makeMachine(
  root: string,
  files: Readonly<Record<string, string>>,
  options: {
    readonly site?: Partial<Site>;
    readonly programs?: Programs;
    readonly isRoot?: boolean;
    readonly now?: number;
    readonly patienceMs?: number;
  } = {},
): Promise<Machine> {
  for (const [path, text] of Object.entries(files)) {
    const at = join(root, path);
    await mkdir(dirname(at), { recursive: true });
    if (text.startsWith("-> ")) await symlink(text.slice(3), at);
    else await writeFile(at, text);
  }
  const { programs = {}, site = {}, now } = options;
  return machineAt({
    clock: now === undefined ? systemClock : { ...systemClock, now: () => now },
    root,
    isRoot: options.isRoot ?? true,
    patienceMs: options.patienceMs ?? 5000,
    random: () => 0.5,
    site: { ...emptySite, ...site },
    run: (argv) => {
      const answer = programs[argv.join(" ")] ?? programs[argv[0]];
      return Promise.resolve(answer === undefined ? undefined : resultFor(answer));
    },
  });
}

/** The problems that a check finds, and what it says of each. */
export async function look(
  check: Check,
  machine: Machine,
): Promise<{
  readonly status: string;
  readonly problems: readonly string[];
  readonly text: string;
  readonly remedies: readonly string[];
}> {
  const judgement: Judgement = await check.look(machine, never);
  const { findings, seen, status } = resultOf(check, judgement);
  return {
    status,
    problems: findings.map(({ problem }) => problem),
    text: findings.length === 0 ? seen : findings.map((one) => one.text).join("\n"),
    remedies: findings.map(({ remedy }) => remedy),
  };
}
