import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { insideOwnNamespace, inventory, sh } from "../namespace.ts";
import { obey, ofTheMachine, Stage } from "./stage.ts";

const skip = existsSync("/usr/sbin/ufw") ? false : "ufw is not installed (apt-get install ufw)";

if (insideOwnNamespace(import.meta.filename)) {
  describe("beside ufw as Debian installs it, enabled", { concurrency: false, skip }, () => {
    let stage: Stage;
    let copies = "";

    before(async () => {
      // Its configuration is the machine's; this mount namespace gets a copy of its own.
      copies = await mkdtemp(join(tmpdir(), "remora-ufw-"));
      for (const path of ["/etc/ufw", "/etc/default"]) {
        const copy = join(copies, path.replaceAll("/", "-"));
        await cp(path, copy, { recursive: true });
        await sh("mount", "--bind", copy, path);
      }
      await sh("ufw", "allow", "22/tcp");
      await sh("ufw", "--force", "enable");
      stage = await Stage.start();
    });

    after(async () => {
      await stage.stop();
      await sh("umount", "/etc/ufw", "/etc/default");
      await rm(copies, { recursive: true, force: true });
    });

    it("everything of the cluster passes, and what the machine itself answers is told with ufw's command", async () => {
      assert.match(await readFile("/etc/default/ufw", "utf8"), /DEFAULT_FORWARD_POLICY="DROP"/);
      assert.deepEqual(await stage.blocked(), ofTheMachine);
      const { problems } = stage.network;
      assert.equal(problems.length, 2, problems.join("\n"));
      assert.match(problems[0] ?? "", /: ufw drops the packets in table filter, chain INPUT /);
      assert.match(problems[0] ?? "", /ufw allow in on remora0 to any port 6443 proto tcp/);
      await obey(problems);
      await stage.ensure();
      assert.deepEqual(stage.network.problems, []);
      assert.deepEqual(await stage.blocked(), []);
    });

    it("`ufw reload` leaves our rules where they are, and first", async () => {
      const ours = async (): Promise<string> => {
        const rules = (await sh("iptables-save", "-t", "filter")).split("\n");
        return rules.filter((rule) => rule.includes("REMORA")).join("\n");
      };
      const before = await ours();
      await sh("ufw", "reload");
      assert.equal(await ours(), before);
      assert.match(await sh("iptables", "-S", "INPUT", "1"), /REMORA-INPUT/);
      assert.deepEqual(await stage.blocked(), []);
    });

    it("switched off and on, or told to manage the built-in chains, it passes again after the next look", async () => {
      await sh("ufw", "disable");
      assert.deepEqual(await stage.blocked(), []);
      const settings = await readFile("/etc/default/ufw", "utf8");
      await writeFile("/etc/default/ufw", settings.replace("BUILTINS=no", "BUILTINS=yes"));
      await sh("ufw", "--force", "enable");
      await stage.ensure();
      await obey(stage.network.problems);
      assert.deepEqual(await stage.blocked(), []);
    });

    it("is left as it was", async () => {
      await stage.network.cleanUp(new AbortController().signal);
      assert.doesNotMatch(await inventory(), /REMORA|remora-network/);
      assert.match(await sh("iptables", "-S", "INPUT"), /-P INPUT DROP\n-A INPUT -j ufw-before/);
    });
  });
}
