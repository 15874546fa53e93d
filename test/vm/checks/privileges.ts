import assert from "node:assert/strict";

import type { Check } from "../check.ts";
import { qemu, says, script } from "../lib/manifests.ts";

const capabilities = "grep CapEff /proc/self/status";
/** Reads from the node's disk, vda or sda, by a device file of the container's own making. */
const readDisk = `cd /sys/class/block; mknod /disk b $(cat vda/dev sda/dev 2>/dev/null | head -n 1 | tr : ' ')
cd /; head -c 512 /disk 2>/dev/null | wc -c`;

const findDevices = "find /dev -maxdepth 1 '(' -type b -o -name kvm ')' | sort | tr '\\n' ' '";

const profileFile = "/etc/apparmor.d/remora-test";
const profile = `
profile remora-test flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  signal,
  deny /forbidden w,
}
`;
const noDirectories = JSON.stringify({
  defaultAction: "SCMP_ACT_ALLOW",
  syscalls: [{ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO" }],
});
const confinement = "cat /proc/self/attr/current";

/** The first 38 capabilities; engines of different ages know some more. */
const wellKnown = 2n ** 38n - 1n;

function assertAllCapabilities(line: string | undefined): void {
  const held = BigInt(`0x${line?.split("\t")[1] ?? "0"}`);
  assert.equal(held & wellKnown, wellKnown, line);
}

/** A machine for a machine: it says which kernel it runs, and switches itself off. */
const guest = `mkdir -p /m/bin /m/proc && cp /bin/busybox /m/bin/ && cat >/m/init <<'INIT' && chmod 755 /m/init &&
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox echo "inside: $(/bin/busybox uname -sr)"
/bin/busybox poweroff -f
INIT
(cd /m && find . | cpio -o -H newc 2>/dev/null) >/initrd
accelerator=tcg; [ -c /dev/kvm ] && accelerator=kvm
echo "by $accelerator"
qemu-system-x86_64 -M q35 -accel $accelerator -cpu max -m 192 -nodefaults -no-user-config -display none -no-reboot \
  -kernel /boot/vmlinuz -initrd /initrd -serial stdio \
  -append 'console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check' </dev/null 2>/dev/null |
  grep -o 'inside: .*'`;

const kernel = { name: "kernel", mountPath: "/boot/vmlinuz", readOnly: true };

const looksAround = `${capabilities}; cat /proc/self/attr/current
${findDevices}; echo
${readDisk}; mkdir /m; mount -t tmpfs none /m && echo mounted
touch /proc/sys/kernel/hostname && echo writable`;

/** What containers may do, as the kernel has it. */
export const privilegeChecks: readonly Check[] = [
  {
    name: "containers have the capabilities, devices and parts of /proc that their pod names, a privileged one all of the node's",
    objects: [
      says("powers", {
        privileged: script(looksAround, { securityContext: { privileged: true } }),
        all: script(`${capabilities}; ${readDisk}`, {
          securityContext: { capabilities: { add: ["ALL"] } },
        }),
        few: script(`${capabilities}; mount -t tmpfs none /tmp && echo mounted || true`, {
          securityContext: { capabilities: { drop: ["ALL"], add: ["NET_BIND_SERVICE"] } },
        }),
        masked:
          script(`wc -c </proc/timer_list; find /proc/acpi /proc/scsi -mindepth 1 2>/dev/null | wc -l
          touch /proc/sys/kernel/hostname || touch /proc/sysrq-trigger || true`),
      }),
    ],
    run: async (node) => {
      const devices = await node.machine.sh(findDevices);
      const [held, ...rest] = (await node.words("powers", "privileged")).split("\n");
      assertAllCapabilities(held);
      const expected = ["unconfined", `${devices} `, "512", "mounted", "writable"];
      assert.deepEqual(rest, expected);
      // ALL is all capabilities and no device; what is dropped is gone.
      const [all, read] = (await node.words("powers", "all")).split("\n");
      assertAllCapabilities(all);
      assert.equal(read, "0");
      assert.match(await node.words("powers", "few"), /^CapEff:\t0000000000000400\nmount: /);
      assert.match(
        await node.words("powers", "masked"),
        /^0\n0\ntouch: .*Read-only file system\ntouch: .*Read-only file system$/,
      );
    },
  },
  {
    name: "sysctls are set in the pod and nowhere else, and those of the whole node are refused",
    objects: [
      says(
        "sysctls",
        {
          one: script(
            "cd /proc/sys; cat net/ipv4/ip_local_port_range kernel/shm_rmid_forced net/ipv4/tcp_syncookies",
          ),
        },
        {
          securityContext: {
            sysctls: [
              { name: "net.ipv4.ip_local_port_range", value: "2000 3000" },
              { name: "kernel.shm_rmid_forced", value: "1" },
              { name: "net.ipv4.tcp_syncookies", value: "0" },
            ],
          },
        },
      ),
      says(
        "sysctl-of-the-node",
        { one: {} },
        { securityContext: { sysctls: [{ name: "kernel.msgmax", value: "100000" }] } },
      ),
    ],
    run: async (node) => {
      assert.equal(await node.words("sysctls", "one"), "2000\t3000\n1\n0");
      const own = "cd /proc/sys; cat net/ipv4/ip_local_port_range kernel/shm_rmid_forced";
      assert.notEqual(await node.machine.sh(own), "2000\t3000\n1");
      const { status } = await node.ended("sysctl-of-the-node");
      assert.equal(status?.reason, "SysctlForbidden");
    },
  },
  {
    name: "AppArmor and seccomp confine a container as its pod says, and nothing filters one that names no profile",
    prepare: async ({ machine }) => {
      await machine.writeFile(profileFile, profile);
      await machine.sh(`apparmor_parser -r ${profileFile}`);
      await machine.writeFile("/var/lib/remora/kubelet/seccomp/no-directories.json", noDirectories);
    },
    objects: [
      says("confined", {
        "armour-default": script(confinement),
        "armour-none": script(confinement, {
          securityContext: { appArmorProfile: { type: "Unconfined" } },
        }),
        "armour-own": script(`${confinement}; touch /allowed; touch /forbidden || true`, {
          securityContext: {
            appArmorProfile: { type: "Localhost", localhostProfile: "remora-test" },
          },
        }),
        "armour-missing": script("true", {
          securityContext: {
            appArmorProfile: { type: "Localhost", localhostProfile: "not-loaded" },
          },
        }),
        "filter-none": script("unshare -U true && echo allowed"),
        "filter-default": script("unshare -U true && echo allowed || true", {
          securityContext: { seccompProfile: { type: "RuntimeDefault" } },
        }),
        "filter-own": script("mkdir /d || touch /f && echo made", {
          securityContext: {
            seccompProfile: { type: "Localhost", localhostProfile: "no-directories.json" },
          },
        }),
      }),
    ],
    run: async (node) => {
      assert.equal(await node.words("confined", "armour-default"), "docker-default (enforce)");
      assert.equal(await node.words("confined", "armour-none"), "unconfined");
      assert.match(
        await node.words("confined", "armour-own"),
        /^remora-test \(enforce\)\ntouch: \/forbidden: Permission denied$/,
      );
      await node.until("a profile that is not loaded is told", async () => {
        const { status } = await node.pod("confined");
        const state = status?.containerStatuses?.find(({ name }) => name === "armour-missing");
        const { message = "", reason } = state?.state?.waiting ?? {};
        return reason === "CreateContainerError" && /not-loaded/.test(message) ? true : undefined;
      });
      assert.equal(await node.words("confined", "filter-none"), "allowed");
      const refused = /^unshare: .*Operation not permitted$/;
      assert.match(await node.words("confined", "filter-default"), refused);
      const own = await node.words("confined", "filter-own");
      assert.match(own, /^mkdir: .*Operation not permitted\nmade$/);
      await node.machine.sh(`apparmor_parser -R ${profileFile}; rm ${profileFile}`);
    },
  },
  {
    name: "a privileged container runs a virtual machine",
    objects: [
      says(
        "machine",
        {
          one: script(guest, {
            securityContext: { privileged: true },
            volumeMounts: [...qemu.volumeMounts, kernel],
          }),
        },
        {
          volumes: [
            ...(qemu.volumes ?? []),
            { name: "kernel", hostPath: { path: "/vmlinuz", type: "File" } },
          ],
        },
      ),
    ],
    run: async (node) => {
      const expected = await node.machine.sh("uname -sr");
      const words = await node.words("machine", "one");
      assert.match(words, new RegExp(`^by (kvm|tcg)\ninside: ${expected}$`));
    },
  },
];
