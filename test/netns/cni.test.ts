import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, rmdir, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";

import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { type CniNetwork, createCniNetwork } from "../../src/network/cni/cni-network.ts";
import type { SandboxNetworkConfig } from "../../src/network/types.ts";
import { bridgeList } from "../fakes/cni-list.ts";
import {
  askFromNode,
  connectOutside,
  insideOwnNamespace,
  inventory,
  Machine,
  sh,
} from "./namespace.ts";

const { signal } = new AbortController();
const binDirs = (process.env["CNI_BIN"] ?? "/opt/cni/bin:/usr/lib/cni").split(":");

async function installed(): Promise<boolean> {
  for (const directory of binDirs) {
    const there = await stat(join(directory, "bridge")).then(
      () => true,
      () => false,
    );
    if (there) return true;
  }
  return false;
}

/** Where the real host-local keeps its addresses: a file system of this test's own. */
const ipamDir = "/var/lib/cni/networks";

function listOf(name: string): object {
  const ipam = {
    type: "host-local",
    ranges: [[{ subnet: "10.88.0.0/24" }], [{ subnet: "fd00:88::/64" }]],
    routes: [{ dst: "0.0.0.0/0" }, { dst: "::/0" }],
  };
  const bandwidth = { type: "bandwidth", capabilities: { bandwidth: true } };
  return bridgeList({ ipMasq: true, ipam }, { name, plugins: [bandwidth] });
}

function sandboxOf(
  machine: Machine,
  more: Partial<SandboxNetworkConfig> = {},
): SandboxNetworkConfig {
  return {
    sandboxID: `sandbox-${machine.pid}`,
    podUID: `uid-${machine.pid}`,
    podKey: `default/pod-${machine.pid}`,
    pid: machine.pid,
    hostPorts: [],
    ...more,
  };
}

if (insideOwnNamespace(import.meta.filename)) {
  const skip = (await installed()) ? false : `needs CNI plug-ins in ${binDirs.join(" or ")}`;

  describe("pods on CNI plug-ins", { concurrency: false, skip }, () => {
    let directory = "";
    let client: Machine;
    let a: Machine;
    let b: Machine;
    let untouched = "";
    let network: CniNetwork;

    const create = (): CniNetwork =>
      createCniNetwork({
        stateDir: join(directory, "state"),
        confDir: join(directory, "net.d"),
        binDirs,
        clusterCIDRs: ["10.88.0.0/16", "fd00:88::/48"],
        clock: systemClock,
        logger: silentLogger,
      });
    const configure = async (name: string, content: object): Promise<void> => {
      await mkdir(join(directory, "net.d"), { recursive: true });
      await writeFile(join(directory, "net.d", name), JSON.stringify(content));
      await network.look(signal);
    };
    const addresses = async (name: string): Promise<readonly string[]> =>
      (await readdir(join(ipamDir, name))).filter((each) => /^[\d.]+$|:/.test(each));
    const records = async (): Promise<readonly string[]> =>
      readdir(join(directory, "state/cni/results"));

    before(async () => {
      directory = await mkdtemp(join(tmpdir(), "remora-cni-"));
      await mkdir(ipamDir, { recursive: true });
      await sh("mount", "-t", "tmpfs", "none", ipamDir);
      client = await connectOutside();
      await sh("iptables", "-P", "FORWARD", "DROP");
      await sh("ip6tables", "-P", "FORWARD", "DROP");
      // What is not masqueraded comes back too.
      await client.sh("ip", "route", "add", "10.88.9.0/24", "via", "192.0.2.1");
      untouched = await inventory();
      [a, b] = [await Machine.start(), await Machine.start()];
      network = create();
    });

    after(async () => {
      await Machine.stopAll();
      await sh("umount", ipamDir);
      // Only where nobody else has something in them.
      for (const path of [ipamDir, dirname(ipamDir)]) await rmdir(path).catch(() => undefined);
      await rm(directory, { recursive: true, force: true });
    });

    it("are told why there is no network", async () => {
      await network.look(signal);
      assert.equal(network.ready, false);
      assert.match(
        network.notReadyReason ?? "",
        /cni config uninitialized: no network config found/,
      );
      await assert.rejects(network.setUp(sandboxOf(a), signal), {
        code: "REMORA_CNI",
        message:
          /^networkPlugin cni failed to set up pod "pod-\d+_default" network: docker: network plugin is not ready/,
      });
      await configure("05-bad.conflist", {
        cniVersion: "1.0.0",
        name: "x",
        plugins: [{ type: "none" }],
      });
      assert.match(
        network.notReadyReason ?? "",
        /05-bad.conflist: failed to find plugin "none" in path/,
      );
    });

    it("get addresses of both families from the first configuration that can be used", async () => {
      await configure("10-pods.conflist", listOf("pods"));
      assert.equal(network.notReadyReason, undefined);
      await network.ensureNode([], signal);
      const first = await network.setUp(sandboxOf(a), signal);
      const second = await network.setUp(sandboxOf(b), signal);
      assert.match(first.ips.join(" "), /^10\.88\.0\.\d+ fd00:88::\w+$/);
      assert.notDeepEqual(first.ips, second.ips);
      assert.deepEqual(network.addresses(sandboxOf(a).sandboxID), first.ips);
      assert.equal((await addresses("pods")).length, 4);
    });

    it("reach each other and the world, although FORWARD drops", async () => {
      await b.serve("b", 8080);
      await client.serve("client", 8080);
      for (const ip of network.addresses(sandboxOf(b).sandboxID) ?? []) {
        const to = `${ip}:8080`;
        const [answer = ""] = await a.ask("tcp", to);
        const own = network.addresses(sandboxOf(a).sandboxID) ?? [];
        assert.ok(own.includes(answer.replace(/^b /, "")), answer);
        // The kernel tries out the bridge's own IPv6 address for a second or two.
        const until = performance.now() + 5000;
        let fromNode = "";
        while (!fromNode.startsWith("b ") && performance.now() < until) {
          [fromNode = ""] = await askFromNode("tcp", to);
        }
        assert.match(fromNode, /^b /);
      }
      assert.match((await a.ask("tcp", "192.0.2.2:8080")).join(), /^client .*192\.0\.2\.1$/);
    });

    it("are asked for once, however often", async () => {
      const before = network.addresses(sandboxOf(a).sandboxID);
      assert.deepEqual((await network.setUp(sandboxOf(a), signal)).ips, before);
      const again = create();
      await again.load();
      assert.deepEqual(again.addresses(sandboxOf(a).sandboxID), before);
      assert.deepEqual((await again.setUp(sandboxOf(a), signal)).ips, before);
      assert.equal((await addresses("pods")).length, 4);
    });

    it("have host ports and bandwidths by the plug-ins for it", async () => {
      const pod = await Machine.start();
      const config = sandboxOf(pod, {
        hostPorts: [{ protocol: "TCP", hostIP: "", hostPort: 9090, containerPort: 8080 }],
        pod: { annotations: {}, bandwidth: { ingressBits: 10_000_000 } },
      });
      await network.setUp(config, signal);
      await pod.serve("port", 8080);
      assert.match((await client.ask("tcp", "192.0.2.1:9090")).join(), /^port .*192\.0\.2\.2$/);
      assert.match(await sh("tc", "qdisc", "show"), /tbf .*rate 10Mbit/);
      await network.tearDown(config.sandboxID, signal);
      const [late = ""] = await client.ask("tcp", "192.0.2.1:9090", { timeoutMs: 300 });
      assert.doesNotMatch(late, /^port/);
      assert.equal((await addresses("pods")).length, 4);
      await pod.stop();
    });

    it("with host ports wait where no plug-in does host ports", async () => {
      const pod = await Machine.start();
      const { plugins } = listOf("pods") as { plugins: readonly object[] };
      const less = { ...listOf("pods"), plugins: plugins.slice(0, 1) };
      await configure("10-pods.conflist", less);
      const config = sandboxOf(pod, {
        hostPorts: [{ protocol: "TCP", hostIP: "", hostPort: 9090, containerPort: 8080 }],
      });
      await assert.rejects(network.setUp(config, signal), /has the capability "portMappings"/);
      assert.equal(network.addresses(config.sandboxID), undefined);
      await configure("10-pods.conflist", listOf("pods"));
      await pod.stop();
    });

    it("are taken down with the configuration they were made with, although it is gone", async () => {
      await rm(join(directory, "net.d/10-pods.conflist"));
      await configure("20-other.conf", {
        cniVersion: "0.3.1",
        name: "other",
        type: "ptp",
        ipam: { type: "host-local", subnet: "10.88.9.0/24", routes: [{ dst: "0.0.0.0/0" }] },
      });
      const { sandboxID } = sandboxOf(b);
      await network.tearDown(sandboxID, signal);
      await network.tearDown(sandboxID, signal);
      assert.equal(network.addresses(sandboxID), undefined);
      assert.equal((await addresses("pods")).length, 2);
      assert.equal((await records()).length, 1);
    });

    it("are made anew by the configuration of now, of an old version of the specification", async () => {
      const { ips } = await network.setUp(sandboxOf(b), signal);
      assert.match(ips.join(" "), /^10\.88\.9\.\d+$/);
      const [answer = ""] = await b.ask("tcp", "192.0.2.2:8080");
      assert.match(answer, /^client/);
    });

    it("give everything back when their namespace and the agent are gone", async () => {
      const pod = await Machine.start();
      const config = sandboxOf(pod);
      await network.setUp(config, signal);
      await pod.stop();
      const next = create();
      await next.load();
      const stop = new AbortController();
      const running = next.run(stop.signal);
      const live = new Set([a, b].map((machine) => sandboxOf(machine).sandboxID));
      // A list may be older than a sandbox: once missing is not gone.
      await next.collectGarbage(live, signal);
      assert.notEqual(next.addresses(config.sandboxID), undefined);
      await next.collectGarbage(live, signal);
      while (next.holds(config.sandboxID)) await systemClock.sleep(5, signal);
      stop.abort();
      await running;
      assert.equal((await addresses("other")).length, 1);
      assert.equal((await records()).length, 2);
      network = next;
    });

    it("never has plug-ins act in a namespace that only has the number of a former pod's", async () => {
      const { sandboxID } = sandboxOf(b);
      const [name = ""] = (await records()).filter((each) => each.includes(sandboxID));
      const path = join(directory, "state/cni/results", name);
      // As after a reboot, when the process id has come to the node's own init.
      const record = (await readFile(path, "utf8")).replace(`/proc/${b.pid}/`, "/proc/self/");
      await writeFile(path, record);
      const links = await sh("ip", "-o", "link");
      network = create();
      await network.look(signal);
      await network.tearDown(sandboxID, signal);
      assert.equal((await addresses("other")).length, 0);
      assert.match(links, /up0/);
      assert.match(await sh("ip", "-o", "link"), /up0/);
    });

    it("whose interface somebody removed are found after a start, and get another", async () => {
      await b.stop();
      b = await Machine.start();
      const { ips } = await network.setUp(sandboxOf(b), signal);
      await b.sh("ip", "link", "del", "eth0");
      const next = create();
      await next.load();
      await next.look(signal);
      const stop = new AbortController();
      const running = next.run(stop.signal);
      const { sandboxID } = sandboxOf(b);
      await next.collectGarbage(new Set([sandboxID, sandboxOf(a).sandboxID]), signal);
      while (next.isIntact?.(sandboxID) !== false) await systemClock.sleep(5, signal);
      assert.equal(next.isIntact?.(sandboxOf(a).sandboxID), true);
      const mended = await next.setUp(sandboxOf(b), signal);
      assert.equal(next.isIntact?.(sandboxID), true);
      assert.match(mended.ips.join(" "), /^10\.88\.9\.\d+$/);
      assert.equal(ips.length, 1);
      assert.match((await b.ask("tcp", "192.0.2.2:8080")).join(), /^client/);
      stop.abort();
      await running;
      network = next;
    });

    it("are made anew in a sandbox that somebody started again", async () => {
      const { sandboxID } = sandboxOf(b);
      const again = await Machine.start();
      const live = new Set([sandboxID, sandboxOf(a).sandboxID]);
      await b.stop();
      await network.collectGarbage(live, signal);
      assert.equal(network.isIntact?.(sandboxID), false);
      assert.equal(network.isIntact?.(sandboxOf(a).sandboxID), true);
      await network.setUp({ ...sandboxOf(b), pid: again.pid }, signal);
      await network.collectGarbage(live, signal);
      assert.equal(network.isIntact?.(sandboxID), true);
      assert.match((await again.ask("tcp", "192.0.2.2:8080")).join(), /^client/);
      assert.equal((await addresses("other")).length, 1);
      await network.tearDown(sandboxID, signal);
      await again.stop();
    });

    it("of which a crash left an ADD half-way are deleted first", async () => {
      const pod = await Machine.start();
      const config = sandboxOf(pod);
      await network.setUp(config, signal);
      const [name = ""] = (await records()).filter((each) => each.includes(config.sandboxID));
      const path = join(directory, "state/cni/results", name);
      const record = JSON.parse(await readFile(path, "utf8")) as { result?: unknown };
      delete record.result;
      await writeFile(path, JSON.stringify(record));
      const next = create();
      await next.load();
      await next.look(signal);
      assert.equal(next.addresses(config.sandboxID), undefined);
      const { ips } = await next.setUp(config, signal);
      assert.deepEqual(await addresses("other"), ips, "the first attempt's address is free again");
      assert.match((await pod.ask("tcp", "192.0.2.2:8080")).join(), /^client/);
      // And one that was to go when the process died.
      await writeFile(path, JSON.stringify(record));
      const last = create();
      await last.tearDown(config.sandboxID, signal);
      assert.deepEqual(await addresses("other"), []);
      network = last;
      await network.look(signal);
      await pod.stop();
    });

    it("find the node's own addresses on a device of ours", async () => {
      await network.setLocalAddresses(["10.96.0.10", "fd00:96::a"], signal);
      await network.ensureNode([], signal);
      const show = await sh("ip", "-o", "addr", "show", "dev", "remora-local");
      assert.match(show, /10\.96\.0\.10\/32[\s\S]*fd00:96::a\/128/);
      await network.setLocalAddresses(["10.96.0.10"], signal);
      assert.doesNotMatch(await sh("ip", "-o", "addr", "show", "dev", "remora-local"), /fd00:96/);
    });

    it("are nowhere after cleaning up", async () => {
      await network.cleanUp(signal);
      await network.cleanUp(signal);
      assert.deepEqual(await addresses("pods"), []);
      assert.deepEqual(await addresses("other"), []);
      assert.deepEqual(await readdir(join(directory, "state")), []);
      await sh("ip", "link", "del", "cni0");
      // Debian's plug-ins (1.1.1) forget their own masquerading when DEL comes after the namespace has gone.
      const left = (await inventory())
        .split("\n")
        .filter(
          (line) =>
            !/CNI-[0-9a-f]{24}|CNI-HOSTPORT|^[*:]|COMMIT|^$|^\d+:|table|chain|^[\t}]/.test(line),
        );
      assert.deepEqual(
        left.filter((line) => !untouched.includes(line)),
        [],
      );
    });
  });
}
