import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { bridgeList } from "../fakes/cni-list.ts";
import { insideOwnNamespace, Machine, sh } from "./namespace.ts";

const plugins = "/usr/lib/cni";
const program = new URL("cni-agent.ts", import.meta.url).pathname;
const chain = ["bridge", "host-local", "portmap"] as const;
type Step = `${"ADD" | "DEL"} ${(typeof chain)[number]} ${"before" | "behind"}`;

if (insideOwnNamespace(import.meta.filename)) {
  const skip = existsSync(join(plugins, "bridge")) ? false : `needs CNI plug-ins in ${plugins}`;

  describe(
    "an agent that is killed while plug-ins are at work",
    { concurrency: false, skip },
    () => {
      let directory = "";
      let pod: Machine;

      /** Runs the agent's part; it is killed at `step`, if there is one. */
      const agent = async (operation: "add" | "delete", step?: Step): Promise<string> => {
        await rm(join(directory, "killed"), { force: true });
        await writeFile(join(directory, "step"), step ?? "");
        const child = spawn(
          process.execPath,
          [
            program,
            join(directory, "state"),
            join(directory, "net.d"),
            join(directory, "bin"),
            operation,
            String(pod.pid),
          ],
          { stdio: ["ignore", "pipe", "pipe"] },
        );
        await writeFile(join(directory, "pid"), String(child.pid));
        await writeFile(join(directory, "go"), "");
        let output = "";
        let errors = "";
        child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
        child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
        await once(child, "close");
        await rm(join(directory, "go"));
        assert.equal(existsSync(join(directory, "killed")), step !== undefined, errors);
        assert.equal(child.signalCode, step === undefined ? null : "SIGKILL", errors);
        return output;
      };
      const addresses = async (): Promise<readonly string[]> => {
        const names = await readdir(join(directory, "ipam/pods")).catch((): string[] => []);
        return names.filter((name) => /^\d+\./.test(name));
      };
      const records = async (): Promise<readonly string[]> =>
        readdir(join(directory, "state/cni/results")).catch((): string[] => []);
      const hostPorts = async (): Promise<number> =>
        (await sh("iptables-save", "-t", "nat"))
          .split("\n")
          .filter((line) => line.includes("--to-destination")).length;
      const interfaces = async (): Promise<number> =>
        (await sh("ip", "-o", "link", "show", "type", "veth"))
          .split("\n")
          .filter((line) => line !== "").length;

      before(async () => {
        directory = await mkdtemp(join(tmpdir(), "remora-cni-crash-"));
        await sh("ip", "link", "set", "lo", "up");
        await mkdir(join(directory, "bin"));
        await mkdir(join(directory, "net.d"));
        for (const name of chain) {
          const file = join(directory, "bin", name);
          await writeFile(
            file,
            `#!/bin/sh
while [ ! -e ${directory}/go ]; do sleep 0.01; done
die() { [ "$(cat ${directory}/step)" = "$CNI_COMMAND ${name} $1" ] && echo >${directory}/killed && kill -9 "$(cat ${directory}/pid)"; }
die before
${plugins}/${name}; status=$?
die behind
exit $status
`,
          );
          await chmod(file, 0o755);
        }
        await writeFile(
          join(directory, "net.d/10-pods.conflist"),
          JSON.stringify(
            bridgeList({
              ipam: {
                type: "host-local",
                dataDir: join(directory, "ipam"),
                subnet: "10.77.0.0/24",
                routes: [{ dst: "0.0.0.0/0" }],
              },
            }),
          ),
        );
        pod = await Machine.start();
      });

      after(async () => {
        await Machine.stopAll();
        await rm(directory, { recursive: true, force: true });
      });

      for (const name of chain) {
        for (const when of ["before", "behind"] as const) {
          it(`${when} ADD of ${name} attaches the pod once in its next run`, async () => {
            await agent("add", `ADD ${name} ${when}`);
            const ips = await agent("add");
            assert.match(ips, /^10\.77\.0\.\d+$/);
            assert.deepEqual(await addresses(), [ips]);
            assert.deepEqual(await records(), ["pods-crash-test-eth0"]);
            assert.equal(await hostPorts(), 1);
            assert.equal(await interfaces(), 1);
            assert.match(await pod.sh("ip", "-o", "addr", "show", "eth0"), new RegExp(`${ips}/24`));
            await agent("delete");
            assert.deepEqual([await addresses(), await records()], [[], []]);
            assert.deepEqual([await hostPorts(), await interfaces()], [0, 0]);
          });

          it(`${when} DEL of ${name} leaves nothing after its next run`, async () => {
            const ips = await agent("add");
            assert.deepEqual(await addresses(), [ips]);
            await agent("delete", `DEL ${name} ${when}`);
            assert.equal((await records()).length, 1, "it is still known");
            await agent("delete");
            assert.deepEqual([await addresses(), await records()], [[], []]);
            assert.deepEqual([await hostPorts(), await interfaces()], [0, 0]);
          });
        }
      }

      it("leaves a record that libcni could read", async () => {
        const ips = await agent("add");
        const path = join(directory, "state/cni/results/pods-crash-test-eth0");
        const record = JSON.parse(await readFile(path, "utf8")) as { result: { ips: unknown } };
        assert.deepEqual(record.result.ips, [
          { address: `${ips}/24`, gateway: "10.77.0.1", interface: 2 },
        ]);
        await agent("delete");
      });
    },
  );
}
