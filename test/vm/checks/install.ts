import assert from "node:assert/strict";

import type { Check } from "../check.ts";
import { unit } from "../lib/node.ts";
import { versions } from "../lib/packages.ts";

/** Before all others: what the rest stands on. */
export const installChecks: readonly Check[] = [
  {
    name: "the package installs without a network and starts nothing by itself, on a machine that has booted well",
    run: async ({ installation, machine }) => {
      const hierarchy = await machine.sh("stat -fc %T /sys/fs/cgroup");
      const docker = await machine.sh(
        "docker info --format '{{.CgroupVersion}} {{.CgroupDriver}} {{.SecurityOptions}}'",
      );
      assert.equal(hierarchy, "cgroup2fs");
      assert.match(docker, /^2 systemd \[.*apparmor.*seccomp/);
      assert.equal(await machine.sh("systemctl --failed --plain --no-legend"), "");
      assert.equal(installation.unasked, "", "nobody has asked for it");
      assert.match(installation.output, /systemctl enable --now remora-up/);
      const version = await machine.sh("remora --version; dpkg -s remora | grep ^Version");
      assert.match(
        version,
        new RegExp(`^remora ${versions.previous} .*\nVersion: ${versions.previous}$`),
      );
      assert.equal(await machine.sh("dpkg --verify remora"), "");
      assert.equal(await machine.sh("dpkg --audit"), "");
      assert.equal(
        await machine.sh(
          "systemd-analyze verify --man=no /lib/systemd/system/remora*.* 2>&1 | grep -i remora || true",
        ),
        "",
      );
    },
  },
  {
    name: "systemd says that the service has started when the node is ready, and watches over it",
    run: async ({ installation, machine }) => {
      assert.ok(installation.readyAtOnce, "systemctl start came back before the node was ready");
      const properties = [
        "Type",
        "ActiveState",
        "SubState",
        "NRestarts",
        "WatchdogUSec",
        "Delegate",
      ];
      const show = await machine.sh(
        `systemctl show ${properties.map((each) => `-p ${each}`).join(" ")} ${unit}`,
      );
      const held = new Map(
        show.split("\n").map((line) => line.split("=") as [string, string | undefined]),
      );
      assert.equal(held.get("Type"), "notify");
      assert.equal(held.get("ActiveState"), "active");
      assert.equal(held.get("SubState"), "running");
      assert.equal(held.get("NRestarts"), "0");
      assert.equal(held.get("Delegate"), "yes");
      assert.notEqual(held.get("WatchdogUSec") ?? "0", "0");
      assert.equal(await machine.sh(`systemctl is-enabled ${unit}`), "enabled");
      assert.notEqual(await machine.sh(`systemctl show -P StatusText ${unit}`), "");
      const warnings = await machine.sh(`journalctl -u ${unit} -p err -o cat`);
      assert.equal(warnings, "");
    },
  },
];
