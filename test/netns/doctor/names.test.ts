// Names, disks and other proxies, each really broken.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, describe, it } from "node:test";

import { disk } from "../../../src/agent/doctor/checks/disk.ts";
import { programs } from "../../../src/agent/doctor/checks/kernel.ts";
import { clusterNames, hostNames } from "../../../src/agent/doctor/checks/names.ts";
import { leftOvers, otherAgents } from "../../../src/agent/doctor/checks/others.ts";
import type { Site } from "../../../src/agent/doctor/site.ts";
import { look } from "../../component/doctor/made-machine.ts";
import { inTemporary } from "../../fakes/temporary.ts";
import { insideOwnNamespace, sh } from "../namespace.ts";
import { mountOwnSysfs, realMachine } from "./real-machine.ts";

const noError = 0;
const serverFailure = 2;
const noSuchName = 3;
const refused = 5;

/** A name server on port 53 of an address. @param rcode Of the answer to a name; with 0 goes one address. */
async function serving(
  address: string,
  rcode: (name: string) => number,
  work: () => Promise<void>,
): Promise<void> {
  const socket = createSocket("udp4");
  socket.on("message", (query, from) => {
    const code = rcode(query.toString("latin1", 12).toLowerCase());
    const answer = Buffer.from("c00c00010001000000050004c0000201", "hex");
    const reply = Buffer.concat([query, ...(code === noError ? [answer] : [])]);
    reply.writeUInt16BE(0x8180 | code, 2);
    reply.writeUInt16BE(code === noError ? 1 : 0, 6);
    socket.send(reply, from.port, from.address);
  });
  socket.bind(53, address);
  await once(socket, "listening");
  try {
    await work();
  } finally {
    socket.close();
    await once(socket, "close");
  }
}

async function withResolvConf(
  text: string | undefined,
  work: (dns: (addresses?: readonly string[]) => Partial<Site>) => Promise<void>,
): Promise<void> {
  await inTemporary(async (directory) => {
    const resolvConf = join(directory, "resolv.conf");
    if (text !== undefined) await writeFile(resolvConf, text);
    await work((addresses = []) => ({
      pid: process.pid,
      dns: { addresses, domain: "cluster.local", resolvConf },
    }));
  });
}

async function problemsOfHost(
  text: string | undefined,
  own: readonly string[] = [],
): Promise<readonly string[]> {
  let problems: readonly string[] = [];
  await withResolvConf(text, async (dns) => {
    ({ problems } = await look(hostNames, realMachine(dns(own))));
  });
  return problems;
}

async function problemsOfCluster(): Promise<readonly string[]> {
  let problems: readonly string[] = [];
  await withResolvConf("nameserver 127.0.0.7\n", async (dns) => {
    ({ problems } = await look(clusterNames, realMachine(dns(["127.0.0.8"]))));
  });
  return problems;
}

const good = (): number => noSuchName;
const knowsAll = (): number => noError;

if (insideOwnNamespace(import.meta.filename)) {
  describe("what is wrong with names", { concurrency: false }, () => {
    before(() => sh("ip", "link", "set", "lo", "up"));

    it("a server that answers is fine", async () => {
      await serving("127.0.0.7", good, async () => {
        assert.deepEqual(await problemsOfHost("nameserver 127.0.0.7\nsearch example.com\n"), []);
      });
    });

    it("resolv-conf-missing: no file, and one that names nobody", async () => {
      for (const text of [undefined, "search example.com\n"]) {
        assert.deepEqual(await problemsOfHost(text), ["resolv-conf-missing"]);
      }
    });

    it("resolv-conf-loop: it leads back to this node", async () => {
      const text = "nameserver 127.0.0.8\n";
      assert.deepEqual(await problemsOfHost(text, ["127.0.0.8"]), ["resolv-conf-loop"]);
    });

    it("resolv-conf-stub: nobody is behind systemd-resolved", async () => {
      assert.deepEqual(await problemsOfHost("nameserver 127.0.0.53\n"), ["resolv-conf-stub"]);
    });

    it("resolv-conf-long: more servers than anybody asks", async () => {
      await serving("127.0.0.7", good, async () => {
        const text = "nameserver 127.0.0.7\n".repeat(4);
        assert.deepEqual(await problemsOfHost(text), ["resolv-conf-long"]);
      });
    });

    it("resolver-silent and resolver-refuses", async () => {
      assert.deepEqual(await problemsOfHost("nameserver 127.0.0.9\n"), ["resolver-silent"]);
      await serving(
        "127.0.0.7",
        () => refused,
        async () => {
          assert.deepEqual(await problemsOfHost("nameserver 127.0.0.7\n"), ["resolver-refuses"]);
        },
      );
    });

    it("the node's own name server: fine, silent, empty, and without the world", async () => {
      assert.deepEqual(await problemsOfCluster(), ["cluster-dns-silent"]);
      await serving("127.0.0.7", good, async () => {
        await serving("127.0.0.8", knowsAll, async () => {
          assert.deepEqual(await problemsOfCluster(), []);
        });
        await serving("127.0.0.8", good, async () => {
          assert.deepEqual(await problemsOfCluster(), ["cluster-dns-empty"]);
        });
        const alone = (name: string): number =>
          name.includes("cluster") ? noError : serverFailure;
        await serving("127.0.0.8", alone, async () => {
          assert.deepEqual(await problemsOfCluster(), ["cluster-dns-no-world"]);
        });
      });
    });
  });

  describe("what others left or run", { concurrency: false }, () => {
    before(mountOwnSysfs);

    it("other-proxy: one that answers as kube-proxy does", async () => {
      assert.deepEqual((await look(otherAgents, realMachine())).problems, []);
      const program = `require("node:http").createServer((_, r) => r.end('{"lastUpdated":""}'))
        .listen(10256, "127.0.0.1", () => process.stdout.write("ready"))`;
      const child = spawn(process.execPath, ["-e", program], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      await once(child.stdout, "data");
      const said = await look(otherAgents, realMachine());
      const ended = once(child, "close");
      child.kill();
      await ended;
      assert.deepEqual(said.problems, ["other-proxy"], said.text);
    });

    it("kube-proxy-rules, and foreign-interfaces with the command that removes them", async () => {
      assert.deepEqual((await look(leftOvers, realMachine())).problems, []);
      await sh("iptables", "-t", "nat", "-N", "KUBE-SERVICES");
      await sh("iptables", "-t", "nat", "-A", "OUTPUT", "-j", "KUBE-SERVICES");
      await sh("ip", "link", "add", "flannel.1", "type", "bridge");
      const said = await look(leftOvers, realMachine());
      assert.deepEqual(said.problems, ["kube-proxy-rules", "foreign-interfaces"], said.text);
      await sh("sh", "-c", said.remedies[1] ?? "false");
      await sh("nft", "flush", "ruleset");
      assert.deepEqual((await look(leftOvers, realMachine())).problems, []);
    });
  });

  describe("what is wrong with disks and programs", { concurrency: false }, () => {
    before(() => sh("mount", "--make-rprivate", "/"));

    async function problemsOn(options: string, fill: (at: string) => Promise<unknown>) {
      let problems: readonly string[] = [];
      await inTemporary(async (directory) => {
        const at = join(directory, "state");
        await mkdir(at);
        await sh("mount", "-t", "tmpfs", "-o", options, "tmpfs", at);
        try {
          await fill(at);
          const found = await look(disk, realMachine({ stateDir: at }));
          // The other disks are this machine's own business.
          problems = found.problems.filter((_, index) =>
            found.text.split("\n")[index]?.startsWith(at),
          );
        } finally {
          await sh("umount", at);
        }
      });
      return problems;
    }
    const write = (megabytes: number) => (at: string) =>
      writeFile(join(at, "file"), Buffer.alloc(megabytes * 2 ** 20));

    it("disk-full, disk-filling, and one with space", async () => {
      assert.deepEqual(await problemsOn("size=40m", write(10)), []);
      assert.deepEqual(await problemsOn("size=40m", write(35)), ["disk-filling"]);
      assert.deepEqual(await problemsOn("size=40m", write(39)), ["disk-full"]);
    });

    it("inodes-full", async () => {
      const many = (at: string) => sh("sh", "-c", `cd ${at} && seq 97 | xargs touch`);
      assert.deepEqual(await problemsOn("size=40m,nr_inodes=100", many), ["inodes-full"]);
    });

    it("disk-read-only", async () => {
      const remount = (at: string) => sh("mount", "-o", "remount,ro", at);
      assert.deepEqual(await problemsOn("size=40m", remount), ["disk-read-only"]);
    });

    it("program-missing and program-wanted: a machine that has neither", async () => {
      const machine = realMachine();
      assert.deepEqual((await look(programs, machine)).problems, []);
      await inTemporary(async (directory) => {
        const paths = await sh("sh", "-c", "command -v nsenter; command -v conntrack");
        const empty = join(directory, "none");
        await writeFile(empty, "");
        for (const path of paths.trim().split("\n")) await sh("mount", "--bind", empty, path);
        const said = await look(programs, machine);
        for (const path of paths.trim().split("\n")) await sh("umount", path);
        assert.deepEqual(said.problems, ["program-missing", "program-wanted"], said.text);
        assert.deepEqual(said.remedies, [
          "apt-get install util-linux",
          "apt-get install conntrack",
        ]);
      });
    });
  });
}
