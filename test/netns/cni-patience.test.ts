import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, describe, it } from "node:test";

import { systemClock } from "../../src/lib/clock.ts";
import { jsonLogger } from "../../src/lib/log.ts";
import { type CniNetwork, createCniNetwork } from "../../src/network/cni/cni-network.ts";
import { insideOwnNamespace, Machine } from "./namespace.ts";

const { signal } = new AbortController();
const answer = '{"cniVersion":"1.1.0","ips":[{"address":"10.9.0.2/24"}]}';

if (insideOwnNamespace(import.meta.filename)) {
  describe("plug-ins that misbehave", { concurrency: false }, () => {
    let directory = "";
    let pod: Machine;
    let network: CniNetwork;
    let lines: string[] = [];
    const sandboxID = "s1";

    const create = (): CniNetwork =>
      createCniNetwork({
        stateDir: join(directory, "state"),
        confDir: join(directory, "net.d"),
        binDirs: [join(directory, "bin")],
        clusterCIDRs: [],
        patienceMs: 150,
        giveUpMs: 400,
        limits: { ADD: 2000, DEL: 300 },
        clock: systemClock,
        logger: jsonLogger({
          write: (line) => void lines.push(line),
          now: () => 0,
          level: "debug",
        }),
      });
    /** What the plug-in does for a command; nothing is success. */
    const does = async (command: string, script: string): Promise<void> =>
      writeFile(join(directory, `do.${command}`), script);
    const calls = async (): Promise<readonly string[]> =>
      (await readFile(join(directory, "calls"), "utf8").catch(() => "")).trim().split("\n");
    const setUp = (): Promise<{ readonly ips: readonly string[] }> =>
      network.setUp(
        { sandboxID, podUID: "u", podKey: "shop/web", pid: pod.pid, hostPorts: [] },
        signal,
      );
    const until = async (check: () => boolean | Promise<boolean>): Promise<void> => {
      while (!(await check())) await systemClock.sleep(10, signal);
    };
    const records = async (): Promise<readonly string[]> =>
      readdir(join(directory, "state/cni/results")).catch((): string[] => []);

    before(async () => {
      directory = await mkdtemp(join(tmpdir(), "remora-cni-patience-"));
      await mkdir(join(directory, "bin"));
      await mkdir(join(directory, "net.d"));
      const file = join(directory, "bin/odd");
      await writeFile(
        file,
        `#!/bin/sh
cat >${directory}/in.$CNI_COMMAND
[ "$CNI_COMMAND" = VERSION ] && echo '{"supportedVersions":["1.1.0"]}' && exit 0
echo $CNI_COMMAND >>${directory}/calls
. ${directory}/do.$CNI_COMMAND
`,
      );
      await chmod(file, 0o755);
      await writeFile(
        join(directory, "net.d/10-odd.conflist"),
        '{"cniVersion":"1.1.0","name":"odd","plugins":[{"type":"odd"}]}',
      );
      pod = await Machine.start();
    });

    after(async () => {
      await Machine.stopAll();
      await rm(directory, { recursive: true, force: true });
    });

    beforeEach(async () => {
      lines = [];
      await rm(join(directory, "calls"), { force: true });
      await rm(join(directory, "state"), { recursive: true, force: true });
      for (const command of ["DEL", "STATUS", "GC", "CHECK"]) await does(command, "exit 0");
      await does("ADD", `echo '${answer}'`);
      network = create();
      await network.look(signal);
    });

    it("by taking long hold nobody up: the caller is told, and the next one gets what has come", async () => {
      await does("ADD", `sleep 0.5; echo '${answer}'`);
      await assert.rejects(setUp(), {
        message:
          'networkPlugin cni failed to set up pod "web_shop" network: the plug-ins have been at ADD for 0 s, and are not waited for',
      });
      await until(() => network.addresses(sandboxID) !== undefined);
      assert.deepEqual(await setUp(), { ips: ["10.9.0.2"] });
      assert.deepEqual((await calls()).filter((call) => call === "ADD").length, 1);
    });

    it("by hanging are killed for a pod that is to go, and asked to delete", async () => {
      await does("ADD", "sleep 60");
      await assert.rejects(setUp(), /not waited for/);
      await network.tearDown(sandboxID, signal);
      assert.deepEqual((await calls()).slice(-2), ["ADD", "DEL"]);
      assert.deepEqual(await records(), []);
    });

    it("by failing ADD are asked to delete what they made, and asked again for the next try", async () => {
      await does("ADD", `echo '{"code":11,"msg":"pool is empty"}'; exit 1`);
      await assert.rejects(setUp(), {
        message:
          'networkPlugin cni failed to set up pod "web_shop" network: plugin type="odd" failed (add): pool is empty',
        cniCode: 11,
      });
      assert.deepEqual((await calls()).slice(-2), ["ADD", "DEL"]);
      assert.deepEqual(await records(), []);
      await does("DEL", "exit 1");
      await assert.rejects(setUp(), /pool is empty/);
      assert.equal((await records()).length, 1);
      await does("DEL", "exit 0");
      await does("ADD", `echo '${answer}'`);
      assert.deepEqual(await setUp(), { ips: ["10.9.0.2"] });
      assert.deepEqual((await calls()).slice(-4), ["ADD", "DEL", "DEL", "ADD"]);
    });

    it("by giving no address, or nonsense, have failed", async () => {
      await does("ADD", `echo '{"cniVersion":"1.1.0","ips":[]}'`);
      await assert.rejects(setUp(), /the plug-ins gave the sandbox no address/);
      await does("ADD", `echo '{"cniVersion":"1.1.0","ips":[{"address":"?"}]}'`);
      await assert.rejects(setUp(), /its result has "\?" for an address/);
      assert.deepEqual(await records(), []);
    });

    it("by failing DEL keep a pod for a while only, and are asked until they succeed", async () => {
      await setUp();
      await does("DEL", `echo '{"code":5,"msg":"disk is full"}'; exit 1`);
      await assert.rejects(network.tearDown(sandboxID, signal), {
        message:
          'networkPlugin cni failed to teardown pod "web_shop" network: plugin type="odd" failed (delete): disk is full',
      });
      await systemClock.sleep(450, signal);
      await network.tearDown(sandboxID, signal);
      assert.match(lines.join(""), /does not wait for its network plug-ins any longer/);
      assert.equal(network.addresses(sandboxID), undefined);
      assert.equal((await records()).length, 1, "it is not forgotten");
      await does("DEL", "exit 0");
      const stop = new AbortController();
      const running = network.run(stop.signal);
      await until(async () => (await records()).length === 0);
      stop.abort();
      await running;
    });

    it("by hanging in DEL do not keep the agent from ending, and its next run goes on", async () => {
      await setUp();
      await does("DEL", "sleep 60");
      const stop = new AbortController();
      const running = network.run(stop.signal);
      await assert.rejects(network.tearDown(sandboxID, signal), /at DEL for 0 s/);
      stop.abort();
      await running;
      network = create();
      await network.load();
      await does("DEL", "exit 0");
      await network.tearDown(sandboxID, signal);
      assert.deepEqual(await records(), []);
    });

    it("of version 1.1.0 are told once which attachments are left, with nothing else going on", async () => {
      await setUp();
      const next = create();
      const stop = new AbortController();
      await next.look(signal);
      const running = next.run(stop.signal);
      await next.collectGarbage(new Set([sandboxID]), signal);
      await next.collectGarbage(new Set([sandboxID]), signal);
      await until(async () => (await calls()).includes("GC"));
      await until(() => lines.some((line) => line.includes("collected garbage")));
      const told = JSON.parse(await readFile(join(directory, "in.GC"), "utf8")) as Record<
        string,
        unknown
      >;
      assert.deepEqual(told["cni.dev/valid-attachments"], [
        { containerID: sandboxID, ifname: "eth0" },
      ]);
      stop.abort();
      await running;
      assert.equal((await calls()).filter((call) => call === "GC").length, 1);
    });

    it("by finding fault with a pod that has its addresses are not believed", async () => {
      await setUp();
      await pod.sh("ip", "link", "add", "name", "eth0", "type", "bridge");
      await pod.sh("ip", "addr", "add", "10.9.0.2/24", "dev", "eth0");
      await does("CHECK", `echo '{"code":1,"msg":"odd route"}'; exit 1`);
      const next = create();
      await next.look(signal);
      const stop = new AbortController();
      const running = next.run(stop.signal);
      await next.collectGarbage(new Set([sandboxID]), signal);
      await until(() =>
        lines.some((line) => /find fault with a running pod.*odd route/.test(line)),
      );
      assert.equal(next.isIntact?.(sandboxID), true);
      stop.abort();
      await running;
    });
  });
}
