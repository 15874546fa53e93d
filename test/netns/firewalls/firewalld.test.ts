import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { insideOwnNamespace, inventory, sh } from "../namespace.ts";
import { obey, Stage, type Way } from "./stage.ts";

const missing = ["/usr/sbin/firewalld", "/usr/bin/firewall-cmd", "/usr/bin/dbus-daemon"].filter(
  (path) => !existsSync(path),
);
const skip =
  missing.length === 0
    ? false
    : `${missing.join(", ")} not installed (apt-get install firewalld dbus)`;

/** A message bus on which anybody may be firewalld. */
function busConfig(socket: string): string {
  return `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=${socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
`;
}

if (insideOwnNamespace(import.meta.filename)) {
  describe("beside firewalld with the nftables backend", { concurrency: false, skip }, () => {
    let stage: Stage;
    let directory = "";
    const children: ChildProcess[] = [];

    const start = (...argv: [string, ...string[]]): void => {
      const [file, ...args] = argv;
      children.push(spawn(file, args, { stdio: process.env["VERBOSE"] ? "inherit" : "ignore" }));
    };

    before(async () => {
      directory = await mkdtemp(join(tmpdir(), "remora-firewalld-"));
      const socket = join(directory, "bus");
      await writeFile(join(directory, "bus.conf"), busConfig(socket));
      process.env["DBUS_SYSTEM_BUS_ADDRESS"] = `unix:path=${socket}`;
      // Its configuration is the machine's; this mount namespace gets a copy of its own.
      const copy = join(directory, "etc");
      await cp("/etc/firewalld", copy, { recursive: true });
      await sh("mount", "--bind", copy, "/etc/firewalld");
      await mkdir(join(directory, "run"));
      await sh("mount", "--bind", join(directory, "run"), "/run/firewalld").catch(() => undefined);
      start(
        "dbus-daemon",
        `--config-file=${join(directory, "bus.conf")}`,
        "--nofork",
        "--nopidfile",
      );
      while (!existsSync(socket)) await delay(20);
      start("firewalld", "--nofork", "--nopid");
      for (let tries = 0; ; tries += 1) {
        const state = await sh("firewall-cmd", "--state").catch((error: unknown) => String(error));
        if (state.trim() === "running") break;
        assert.ok(tries < 100, `firewalld does not come up: ${state}`);
        await delay(200);
      }
      stage = await Stage.start();
    });

    after(async () => {
      await stage.stop();
      for (const child of children.toReversed()) {
        const ended = once(child, "close");
        child.kill("SIGTERM");
        await ended;
      }
      await sh("umount", "/etc/firewalld");
      await rm(directory, { recursive: true, force: true });
    });

    const forwarded: readonly Way[] = [
      "pod to pod",
      "pod to a pod of another node",
      "pod of another node to pod",
      "pod to outside",
    ];
    const asks: readonly Way[] = [
      "pod to the node's name server",
      "pod to the API server on the node",
      "another machine to the kubelet's port",
    ];

    it("with the zone public it lets only translated packets through; the rest is told with its command", async () => {
      assert.deepEqual(await stage.blocked(), [...forwarded, ...asks]);
      const { problems } = stage.network;
      // The name server and what is forwarded, for each family.
      assert.equal(problems.length, 4, problems.join("\n"));
      assert.match(
        problems[0] ?? "",
        /^pods cannot resolve names, pods cannot reach the API server, no kubectl logs: firewalld drops the packets in table inet firewalld, chain filter_INPUT/,
      );
      assert.match(
        problems[0] ?? "",
        /--zone=trusted --add-source=10\.244\.0\.0\/16; firewall-cmd/,
      );
      assert.match(
        problems[1] ?? "",
        /^pods of this node cannot reach each other, pods cannot reach other networks, pods of other nodes cannot reach pods of this one: firewalld drops the packets in table inet firewalld, chain filter_FORWARD/,
      );
    });

    it("with a strict zone it drops everything new of pods, which is told; its command opens it, also after a reload", async () => {
      await sh("firewall-cmd", "--set-default-zone=drop");
      assert.deepEqual(await stage.blocked(), [...forwarded, ...asks]);
      await stage.ensure();
      assert.match(
        stage.network.problems.join("\n"),
        /pods cannot reach other networks[^\n]*firewalld drops the packets in table inet firewalld, chain filter_FORWARD/,
      );
      await obey(stage.network.problems);
      await sh("firewall-cmd", "--reload");
      assert.deepEqual(await stage.blocked(), []);
      await stage.ensure();
      assert.deepEqual(stage.network.problems, []);
    });

    it("is left as it was", async () => {
      await stage.network.cleanUp(new AbortController().signal);
      assert.doesNotMatch(await inventory(), /REMORA|remora-network/);
      assert.equal((await sh("firewall-cmd", "--state")).trim(), "running");
    });
  });
}
