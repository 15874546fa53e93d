// Each finding about the machine, by files and programs that really say so.
import assert from "node:assert/strict";
import { describe, it } from "node:test";

import type { Check } from "../../../src/agent/doctor/check.ts";
import { kernel, nft } from "../../../src/agent/doctor/checks/kernel.ts";
import { cgroups, conntrack, limits, memory } from "../../../src/agent/doctor/checks/limits.ts";
import { leftOvers, otherAgents } from "../../../src/agent/doctor/checks/others.ts";
import { settings } from "../../../src/agent/doctor/checks/pod-network.ts";
import { capabilities, securityModules } from "../../../src/agent/doctor/checks/privileges.ts";
import { state, unit } from "../../../src/agent/doctor/checks/service.ts";
import type { Site } from "../../../src/agent/doctor/site.ts";
import { inTemporary } from "../../fakes/temporary.ts";
import { healthy, look, makeMachine, type Programs } from "./made-machine.ts";

const selfTestGood = [
  "veth ok",
  "bridge ok",
  "nft-tables ok",
  "nft-readback ok",
  "nft-nat ok",
  "nft-conntrack ok",
  "nft-maps ok",
  "iptables ok",
].join("\n");

const goodPrograms: Programs = {
  unshare: selfTestGood,
  nft: "nftables v1.0.6 (Lester Gooch #5)",
  iptables: "iptables v1.8.9 (nf_tables)",
  systemctl: "LoadState=loaded\nActiveState=active\nDelegate=yes\nKillMode=process\n",
};

function selfTest(...failing: readonly string[]): string {
  return selfTestGood
    .split("\n")
    .map((line) => {
      const name = line.split(" ")[0] ?? "";
      return failing.includes(name) ? `${name} no Error: Operation not supported` : line;
    })
    .join("\n");
}

interface Case {
  readonly name: string;
  readonly check: Check;
  /** What is broken; undefined takes a file away. */
  readonly files?: Readonly<Record<string, string | undefined>>;
  readonly programs?: Readonly<Record<string, Programs[string] | undefined>>;
  readonly site?: Partial<Site>;
  readonly problem: string;
  readonly text?: RegExp;
  readonly remedy?: RegExp;
}

const v1 = {
  "proc/self/mounts":
    "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n",
  "proc/cgroups":
    "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\ncpuset\t2\t1\t1\nmemory\t3\t1\t1\npids\t4\t1\t1\n",
  "sys/fs/cgroup/memory/memory.memsw.limit_in_bytes": "1\n",
};
const swapOn = "Filename Type Size Used Priority\n/dev/vda2 partition 1000 0 -2\n";
const systemd = { "run/systemd/system/x": "" };

const cases: readonly Case[] = [
  {
    name: "a kernel of 5.10",
    check: kernel,
    files: { "proc/sys/kernel/osrelease": "5.10.0-28-amd64\n" },
    problem: "kernel-old",
    text: /5\.10\.0-28/,
  },
  {
    name: "a kernel without overlay",
    check: kernel,
    files: { "proc/filesystems": "\text4\n" },
    problem: "kernel-no-overlay",
  },
  {
    name: "no veth",
    check: kernel,
    programs: { unshare: selfTest("veth") },
    problem: "kernel-no-veth",
    text: /not supported/,
  },
  {
    name: "no bridge",
    check: kernel,
    programs: { unshare: selfTest("bridge") },
    problem: "kernel-no-bridge",
  },
  {
    name: "no NAT in either program",
    check: kernel,
    programs: { unshare: selfTest("nft-nat", "iptables") },
    problem: "kernel-no-nat",
  },
  {
    name: "no namespace can be made",
    check: kernel,
    programs: {
      unshare: {
        exitCode: 1,
        stdout: "",
        stderr: "unshare: unshare failed: No space left on device\n",
      },
    },
    problem: "kernel-no-namespaces",
    remedy: /max_net_namespaces/,
  },
  { name: "no nft", check: nft, programs: { nft: undefined }, problem: "nft-missing" },
  {
    name: "nft 0.9.8",
    check: nft,
    programs: { nft: "nftables v0.9.8 (E.D.S.)" },
    problem: "nft-old",
  },
  {
    name: "nft that makes no table",
    check: nft,
    programs: { unshare: selfTest("nft-tables", "nft-readback") },
    problem: "nft-no-tables",
  },
  {
    name: "nft that crashes on listings",
    check: nft,
    programs: { unshare: selfTest("nft-readback") },
    problem: "nft-no-readback",
  },
  {
    name: "nft without random maps",
    check: nft,
    programs: { unshare: selfTest("nft-maps") },
    problem: "nft-no-maps",
  },
  {
    name: "no control groups",
    check: cgroups,
    files: { "proc/self/mounts": "proc /proc proc rw 0 0\n" },
    problem: "cgroups-missing",
  },
  {
    name: "a Raspberry Pi without memory groups",
    check: cgroups,
    files: {
      "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n",
      "sys/fs/cgroup/cgroup.subtree_control": "cpuset cpu io pids\n",
    },
    problem: "cgroup-controller-missing",
    text: /off: memory/,
  },
  {
    name: "a root that keeps memory for itself",
    check: cgroups,
    files: { "sys/fs/cgroup/cgroup.subtree_control": "cpu pids\n" },
    site: { pid: 1 },
    problem: "cgroup-not-delegated",
    remedy: /^echo \+memory > /,
  },
  { name: "cgroup v1", check: cgroups, files: v1, problem: "cgroups-v1" },
  {
    name: "controllers in both",
    check: cgroups,
    files: {
      ...v1,
      "proc/self/mounts": `${v1["proc/self/mounts"]}cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n`,
      "sys/fs/cgroup/unified/cgroup.controllers": "pids\n",
    },
    problem: "cgroups-hybrid",
  },
  {
    name: "swap that is not counted",
    check: cgroups,
    files: {
      "sys/fs/cgroup/system.slice/memory.swap.max": undefined,
      "sys/fs/cgroup/system.slice/memory.max": "max\n",
      "proc/swaps": swapOn,
    },
    problem: "no-swap-accounting",
  },
  {
    name: "few watches",
    check: limits,
    files: { "proc/sys/fs/inotify/max_user_instances": "64\n" },
    problem: "kernel-limit-low",
    remedy: /fs\.inotify\.max_user_instances=512/,
  },
  {
    name: "watches without end",
    check: limits,
    files: {
      "proc/sys/fs/inotify/max_user_instances": "128\n",
      "proc/77/status": "Name:\twatcher\nUid:\t0\t0\t0\t0\n",
      ...Object.fromEntries(
        Array.from({ length: 100 }, (_, index) => [`proc/77/fd/${index}`, "-> anon_inode:inotify"]),
      ),
      // Another user's do not count.
      "proc/78/status": "Name:\tother\nUid:\t1000\t1000\t1000\t1000\n",
      "proc/78/fd/3": "-> anon_inode:inotify",
    },
    problem: "inotify-used-up",
    text: /root has 100 inotify instances, fs\.inotify\.max_user_instances is 128/,
  },
  {
    name: "processes without end",
    check: limits,
    files: {
      "proc/sys/kernel/pid_max": "32768\n",
      "proc/loadavg": "9 9 9 3/32000 32001\n",
    },
    problem: "processes-full",
  },
  {
    name: "files without end",
    check: limits,
    files: { "proc/sys/fs/file-nr": "99000\t0\t100000\n" },
    problem: "files-full",
  },
  {
    name: "a full table of connections",
    check: conntrack,
    files: { "proc/sys/net/netfilter/nf_conntrack_count": "262144\n" },
    problem: "conntrack-full",
    remedy: /nf_conntrack_max=524288/,
  },
  {
    name: "a table that fills",
    check: conntrack,
    files: { "proc/sys/net/netfilter/nf_conntrack_count": "200000\n" },
    problem: "conntrack-filling",
  },
  {
    name: "connections that are soon forgotten",
    check: conntrack,
    files: { "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established": "600\n" },
    problem: "conntrack-timeout-short",
  },
  {
    name: "no memory",
    check: memory,
    files: { "proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 50000 kB\n" },
    problem: "memory-scarce",
    text: /49 MB of 7813 MB/,
  },
  {
    name: "programs that wait for memory",
    check: memory,
    files: { "proc/pressure/memory": "some avg10=34.50 avg60=0 avg300=0 total=1\n" },
    problem: "memory-pressure",
  },
  {
    name: "swap",
    check: memory,
    files: { "proc/swaps": swapOn },
    problem: "swap-on",
    text: /vda2/,
  },
  {
    name: "a container without CAP_SYS_ADMIN",
    check: capabilities,
    files: { "proc/self/status": "CapEff:\t00000000a80425fb\n" },
    problem: "capability-missing",
    text: /CAP_NET_ADMIN[\s\S]*CAP_SYS_ADMIN/,
  },
  {
    name: "a container without CAP_SYS_RESOURCE",
    check: capabilities,
    files: { "proc/self/status": "CapEff:\t000001fffeffffff\n" },
    problem: "no-sys-resource",
  },
  {
    name: "AppArmor without its parser",
    check: securityModules,
    files: { "sys/module/apparmor/parameters/enabled": "Y\n" },
    problem: "apparmor-parser-missing",
  },
  {
    name: "SELinux beside an engine that labels nothing",
    check: securityModules,
    files: { "sys/fs/selinux/enforce": "1" },
    problem: "selinux-engine-off",
  },
  {
    name: "a kubelet",
    check: otherAgents,
    files: { "proc/812/comm": "kubelet\n", "proc/812/cmdline": "/usr/bin/kubelet\0" },
    problem: "other-agent",
    text: /a kubelet runs \(pid 812\)/,
    remedy: /disable --now kubelet/,
  },
  {
    name: "cri-dockerd that was left",
    check: otherAgents,
    files: { "proc/813/comm": "cri-dockerd\n", "proc/813/cmdline": "" },
    problem: "other-agent-idle",
  },
  {
    name: "interfaces of flannel",
    check: leftOvers,
    files: { "sys/class/net/flannel.1/address": "", "sys/class/net/cni0/address": "" },
    problem: "foreign-interfaces",
    remedy: /ip link delete (cni0|flannel\.1); ip link delete/,
  },
  {
    name: "CNI configurations of a cluster before",
    check: leftOvers,
    files: { "etc/cni/net.d/10-flannel.conflist": "{}" },
    site: { mode: "run" },
    problem: "cni-configuration",
  },
  {
    name: "forwarding that somebody turned off",
    check: settings,
    files: { "proc/sys/net/ipv4/ip_forward": "0\n" },
    site: { pid: 1 },
    problem: "forwarding-off",
  },
  {
    name: "forwarding of the bridge alone",
    check: settings,
    files: { "proc/sys/net/ipv4/conf/remora0/forwarding": "0\n" },
    site: { pid: 1 },
    problem: "forwarding-off",
    remedy: /remora0\.forwarding=1/,
  },
  {
    name: "a machine that answers no ARP",
    check: settings,
    files: { "proc/sys/net/ipv4/conf/all/arp_ignore": "8\n" },
    problem: "arp-ignored",
  },
  {
    name: "settings that cannot be written",
    check: settings,
    files: { "proc/self/mounts": "proc /proc/sys proc ro,nosuid 0 0\n" },
    problem: "settings-read-only",
  },
  {
    name: "plug-ins without br_netfilter",
    check: settings,
    files: {
      "proc/sys/net/bridge/bridge-nf-call-iptables": "0\n",
      "etc/cni/net.d/10-bridge.conf": "{}",
    },
    site: { mode: "run" },
    problem: "bridge-calls-off",
  },
  {
    name: "a unit that failed",
    check: unit,
    files: systemd,
    programs: { systemctl: "LoadState=loaded\nActiveState=failed\nResult=exit-code\n" },
    problem: "unit-failed",
    text: /remora-up\.service failed \(exit-code\)/,
    remedy: /journalctl -u remora-up /,
  },
  {
    name: "a unit that restarts and restarts",
    check: unit,
    files: systemd,
    programs: { systemctl: "LoadState=loaded\nActiveState=active\nNRestarts=12\n" },
    problem: "unit-restarting",
  },
  {
    name: "a unit that does not start at boot",
    check: unit,
    files: systemd,
    site: { mode: "run" },
    programs: { systemctl: "LoadState=loaded\nActiveState=active\nUnitFileState=disabled\n" },
    problem: "unit-not-enabled",
    remedy: /^systemctl enable remora$/,
  },
  {
    name: "a unit without its cgroups",
    check: unit,
    files: systemd,
    programs: { systemctl: "LoadState=loaded\nActiveState=active\nDelegate=no\n" },
    problem: "unit-not-delegated",
  },
  {
    name: "a unit whose stop ends everything",
    check: unit,
    files: systemd,
    programs: { systemctl: "LoadState=loaded\nActiveState=active\nKillMode=control-group\n" },
    problem: "unit-kills-pods",
  },
  {
    name: "Docker that does not start at boot",
    check: unit,
    files: systemd,
    programs: {
      "systemctl is-enabled docker.service": { exitCode: 1, stdout: "disabled\n", stderr: "" },
    },
    problem: "engine-not-enabled",
  },
  {
    name: "state of a newer version",
    check: state,
    files: { "var/lib/remora/remora.json": '{"schema":99,"mode":"up","version":"9.0.0"}' },
    problem: "state-newer",
    text: /remora 9\.0\.0 \(state schema 99\)/,
  },
  {
    name: "state whose mark is damaged",
    check: state,
    files: { "var/lib/remora/remora.json": '{"schema":' },
    problem: "state-damaged",
  },
  {
    name: "state of the other mode",
    check: state,
    files: { "var/lib/remora/remora.json": '{"schema":1,"mode":"run","version":"0.1.0"}' },
    problem: "state-foreign",
  },
];

function changed<T>(
  base: Readonly<Record<string, T>>,
  change: Readonly<Record<string, T | undefined>> = {},
): Record<string, T> {
  return Object.fromEntries(
    Object.entries({ ...base, ...change }).flatMap(([key, value]) =>
      value === undefined ? [] : [[key, value]],
    ),
  );
}

describe("overlay", () => {
  it("is there where its module is: the first mount loads it", async () => {
    await inTemporary(async (root) => {
      const files = {
        ...healthy,
        "proc/filesystems": "\text4\n",
        "lib/modules/6.1.0-18-amd64/modules.dep": "kernel/fs/overlayfs/overlay.ko.xz:\n",
      };
      const said = await look(kernel, await makeMachine(root, files, { programs: goodPrograms }));
      assert.deepEqual(said.problems, [], said.text);
    });
  });
});

describe("capabilities", () => {
  it("of somebody who is not root say nothing: what root may have does", async () => {
    await inTemporary(async (root) => {
      const status = "CapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\n";
      const files = { ...healthy, "proc/self/status": status };
      const said = await look(capabilities, await makeMachine(root, files, { isRoot: false }));
      assert.deepEqual(said.problems, [], said.text);
    });
  });
});

describe("what is wrong with a machine", () => {
  for (const { check, name, problem, remedy, text, ...change } of cases) {
    it(`${name} is ${problem}`, async () => {
      await inTemporary(async (root) => {
        const programs = changed(goodPrograms, change.programs);
        const machine = await makeMachine(root, changed(healthy, change.files), {
          programs,
          ...(change.site === undefined ? {} : { site: change.site }),
        });
        const said = await look(check, machine);
        assert.deepEqual([...new Set(said.problems)].includes(problem), true, said.text);
        // Nothing but what was broken.
        const also = problem === "capability-missing" ? ["no-sys-resource"] : [];
        const extra = said.problems.filter((one) => one !== problem && !also.includes(one));
        assert.deepEqual(extra, [], said.text);
        if (text !== undefined) assert.match(said.text, text);
        if (remedy !== undefined) assert.match(said.remedies.join("\n"), remedy);
      });
    });
  }

  it("a machine that is as it should be has none of them", async () => {
    await inTemporary(async (root) => {
      const machine = await makeMachine(
        root,
        { ...healthy, ...systemd },
        { programs: goodPrograms },
      );
      for (const check of new Set(cases.map((one) => one.check))) {
        const said = await look(check, machine);
        assert.deepEqual([check.id, ...said.problems], [check.id], said.text);
      }
    });
  });
});
