import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { ENDPOINT_SLICES, NODES, SERVICES } from "../../src/api/resources.ts";
import type { EndpointSlice } from "../../src/api/types.gen.ts";
import type { ProxySettings } from "../../src/config/types.ts";
import { cleanUpProxy, leftOfProxy } from "../../src/proxy/cleanup.ts";
import { type FakeApiServer, startFakeApiServer } from "../fakes/api-server.ts";
import { insideOwnNamespace, inventory, sh } from "./namespace.ts";

const { signal } = new AbortController();
const processFile = new URL("proxy-process.ts", import.meta.url).pathname;
const vip = "172.30.0.1";
const backend = "10.244.0.2";
/** An address that nobody's source is rewritten from: a node's own would become that of the loopback interface. */
const pod = "10.244.0.3";

/** Rules as a kube-proxy of each mode leaves them, and what belongs to others. */
const kubeProxyTables = `
table ip kube-proxy { chain services { }
}
table ip6 kube-proxy { chain services { }
}
table ip mine { chain services { }
}
`;
const natOfOthers = `
table ip others {
  chain output { type nat hook output priority -100; ct state invalid drop; }
}
`;
const kubeProxyChains = `*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAAA - [0:0]
:MINE - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 172.30.0.9/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A KUBE-SVC-AAAAAAAAAAAAAAAA -j KUBE-SEP-AAAAAAAAAAAAAAAA
-A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -m tcp -j DNAT --to-destination 10.244.0.9:80
-A MINE -j RETURN
COMMIT
*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-PROXY-CANARY - [0:0]
COMMIT
`;

function webSlice(ips: readonly string[]): EndpointSlice {
  return {
    metadata: {
      name: "web",
      namespace: "default",
      labels: { "kubernetes.io/service-name": "web" },
    },
    addressType: "IPv4",
    ports: [{ name: "t", port: 8080, protocol: "TCP" }],
    endpoints: ips.map((ip) => ({
      addresses: [ip],
      nodeName: "here",
      conditions: { ready: true },
    })),
  };
}

interface Running {
  readonly child: ChildProcess;
  log: string;
}

if (insideOwnNamespace(import.meta.filename)) {
  describe("the rules of another proxy, and of another mode", { concurrency: false }, () => {
    let api: FakeApiServer;
    let server: Server;
    let programs = "";
    let untouched = "";
    const running = new Set<Running>();
    const sockets = new Set<Socket>();

    /** @param wrapper Words before the program. */
    function launch(
      settings: Partial<ProxySettings>,
      { wrapper = [], metricsPort = 0 }: { wrapper?: readonly string[]; metricsPort?: number } = {},
    ): Running {
      const argv = [
        ...wrapper,
        process.execPath,
        processFile,
        JSON.stringify(api.kubeconfig),
        JSON.stringify(settings),
        String(metricsPort),
      ];
      const [file = "", ...args] = argv;
      const { NODE_TEST_CONTEXT: _context, ...env } = process.env;
      const child = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"], env });
      const proxy: Running = { child, log: "" };
      for (const stream of [child.stdout, child.stderr]) {
        stream.on("data", (chunk: Buffer) => (proxy.log += chunk.toString()));
      }
      running.add(proxy);
      return proxy;
    }

    async function end({ child }: Running, how: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<void> {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, "close");
      child.kill(how);
      await ended;
    }

    async function eventually(
      probe: () => Promise<boolean>,
      what: string,
      seconds = 10,
    ): Promise<void> {
      const until = performance.now() + seconds * 1000;
      while (!(await probe())) {
        if (performance.now() > until) {
          const logs = [...running].map(({ log }) => log.split("\n").slice(-12).join("\n"));
          assert.fail(`not within ${seconds} s: ${what}\n${logs.join("\n---\n")}`);
        }
        await delay(50);
      }
    }

    /** A connection to the Service's address; the server echoes. */
    async function dial(): Promise<Socket> {
      const socket = connect({ host: vip, port: 80, localAddress: pod });
      sockets.add(socket);
      socket.on("error", () => undefined);
      try {
        await once(socket, "connect", { signal: AbortSignal.timeout(1000) });
      } catch (error) {
        socket.destroy();
        throw error;
      }
      return socket;
    }

    async function serves(): Promise<boolean> {
      try {
        (await dial()).destroy();
        return true;
      } catch {
        return false;
      }
    }

    async function echoes(socket: Socket): Promise<void> {
      socket.write("ping");
      const [answer] = (await once(socket, "data", { signal: AbortSignal.timeout(2000) })) as [
        Buffer,
      ];
      assert.equal(answer.toString(), "ping");
    }

    const tables = (): Promise<string> => sh("nft", "list", "tables");
    const saved = async (): Promise<string> =>
      [
        await sh("iptables-nft-save"),
        await sh("iptables-legacy-save"),
        await sh("ip6tables-nft-save"),
      ].join("\n");

    async function plantKubeProxy(): Promise<void> {
      await restore("nft", ["-f", "-"], kubeProxyTables);
      await restore("iptables-nft-restore", ["--noflush"], kubeProxyChains);
      await restore("iptables-legacy-restore", ["--noflush"], kubeProxyChains);
      // A real one is of type dummy, which not every kernel has.
      await sh("ip", "link", "add", "kube-ipvs0", "type", "veth", "peer", "name", "ipvs1");
      await sh("ip", "address", "add", "172.30.0.9/32", "dev", "kube-ipvs0");
    }

    async function restore(file: string, args: readonly string[], text: string): Promise<void> {
      const child = spawn(file, args, { stdio: ["pipe", "ignore", "inherit"] });
      child.stdin.end(text);
      assert.deepEqual(await once(child, "close"), [0, null], file);
    }

    /** What a real kube-proxy left is gone; what others made, and a kubelet, is not. */
    async function kubeProxyIsGone(): Promise<boolean> {
      const chains = await saved();
      const links = await sh("ip", "-o", "link");
      return (
        !(await tables()).includes("kube-proxy") &&
        !chains.includes("KUBE-SVC-AAAA") &&
        !chains.includes("10.244.0.9") &&
        !links.includes("kube-ipvs0")
      );
    }

    async function removePlanted(): Promise<void> {
      await sh("nft", "destroy", "table", "ip", "mine").catch(() =>
        sh("nft", "delete", "table", "ip", "mine").catch(() => ""),
      );
      for (const kind of ["iptables-nft", "iptables-legacy"]) {
        await sh(kind, "-t", "nat", "-F", "MINE").catch(() => "");
        await sh(kind, "-t", "nat", "-X", "MINE").catch(() => "");
      }
    }

    before(async () => {
      programs = await mkdtemp(join(tmpdir(), "remora-take-over-"));
      await sh("ip", "link", "set", "lo", "up");
      await sh("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1");
      for (const name of ["up0", "up1"]) await sh("ip", "link", "set", name, "up");
      await sh("ip", "address", "add", "192.0.2.1/24", "dev", "up0");
      for (const ip of [backend, pod]) await sh("ip", "address", "add", `${ip}/32`, "dev", "up0");
      await sh("ip", "route", "add", "default", "dev", "up0");
      // Tables of iptables that were asked for once stay.
      await saved();
      server = createServer((socket) => {
        sockets.add(socket);
        socket.on("error", () => undefined);
        socket.pipe(socket);
      });
      server.listen({ host: backend, port: 8080 });
      await once(server, "listening");
      api = await startFakeApiServer();
      api.put(NODES, { metadata: { name: "here" } });
      api.put(SERVICES, {
        metadata: { name: "web", namespace: "default" },
        spec: {
          type: "NodePort",
          clusterIP: vip,
          clusterIPs: [vip],
          ports: [{ name: "t", port: 80, protocol: "TCP", nodePort: 30_080 }],
        },
      });
      api.put(ENDPOINT_SLICES, webSlice([backend]));
      // The first time makes what the kernel's translation keeps.
      const proxy = launch({ mode: "iptables" });
      await eventually(serves, "served");
      await end(proxy);
      await cleanUpProxy(signal);
      untouched = await inventory();
    });

    afterEach(async () => {
      for (const proxy of running) await end(proxy);
      running.clear();
      for (const socket of sockets) socket.destroy();
      sockets.clear();
      await removePlanted();
      await cleanUpProxy(signal);
      await sh("ip", "link", "delete", "kube-ipvs0").catch(() => "");
    });

    after(async () => {
      server.close();
      await api.close();
      await rm(programs, { recursive: true, force: true });
    });

    for (const mode of ["nftables", "iptables"] as const) {
      it(`what a kube-proxy of any mode left goes when our rules are there, and nothing else [${mode}]`, async () => {
        await plantKubeProxy();
        launch({ mode });
        await eventually(serves, "served");
        await eventually(kubeProxyIsGone, "left-overs are gone");
        assert.match(await tables(), /table ip mine/);
        const chains = await saved();
        assert.equal(chains.match(/^:MINE /gm)?.length, 2, chains);
        assert.equal(chains.match(/^:KUBE-IPTABLES-HINT /gm)?.length, 2, chains);
        assert.equal(await serves(), true);
        // The hint of the kubelet is in the nf_tables kind.
        assert.equal(/remora-proxy/.test(await tables()), mode === "nftables");
        assert.equal(/KUBE-SERVICES/.test(await saved()), mode === "iptables");
        assert.doesNotMatch(await sh("iptables-legacy-save"), /KUBE-SERVICES|KUBE-PROXY-CANARY/);
      });
    }

    it("one mode follows the other: established connections live, new ones are served all the time", async () => {
      let proxy = launch({ mode: "nftables" });
      await eventually(serves, "served");
      // What was asked for before there were rules is known as not translated, for two minutes: a new connection that
      // happens to get one of those ports goes nowhere.
      await sh("conntrack", "-F");
      const old = await dial();
      await echoes(old);
      let failures = 0;
      let attempts = 0;
      const over = new AbortController();
      const watching = (async () => {
        while (!over.signal.aborted) {
          attempts += 1;
          if (!(await serves())) failures += 1;
          await delay(10);
        }
      })();
      try {
        for (const mode of ["iptables", "nftables"] as const) {
          await end(proxy);
          proxy = launch({ mode });
          await eventually(
            async () =>
              /remora-proxy/.test(await tables()) === (mode === "nftables") &&
              /KUBE-SERVICES/.test(await saved()) === (mode === "iptables"),
            `only ${mode}`,
          );
          await echoes(old);
        }
      } finally {
        over.abort();
        await watching;
      }
      assert.equal(failures, 0, `${failures} of ${attempts} failed`);
    });

    for (const mode of ["nftables", "iptables"] as const) {
      it(`a connection that was begun before there were rules is served when they are there [${mode}]`, async () => {
        // As Docker's: with rules of its kind every packet is remembered as translated or not.
        await restore("nft", ["-f", "-"], natOfOthers);
        const neighbour = [vip, "lladdr", "02:00:00:00:00:01", "dev", "up0"] as const;
        await sh("ip", "neighbour", "replace", ...neighbour);
        const socket = connect({ host: vip, port: 80, localAddress: pod });
        sockets.add(socket);
        const connected = once(socket, "connect");
        await eventually(
          async () => (await sh("conntrack", "-L", "-p", "tcp", "-d", vip)).includes("SYN_SENT"),
          "on its way to nowhere",
        );
        launch({ mode });
        await connected;
        await echoes(socket);
        await sh("ip", "neighbour", "delete", ...neighbour);
        await sh("nft", "delete", "table", "ip", "others");
      });
    }

    it("while another proxy runs its rules stay; when it ends they go [nftables]", async () => {
      const other = await startOther();
      await plantKubeProxy();
      const proxy = launch({ mode: "nftables" });
      await eventually(serves, "served");
      await eventually(() => Promise.resolve(/TwoServiceProxies/.test(proxy.log)), "told");
      assert.match(proxy.log, /answers on 127\.0\.0\.1:10249 \(mode iptables\)/);
      await delay(500);
      assert.match(await tables(), /kube-proxy/);
      other.kill("SIGKILL");
      await once(other, "close");
      await eventually(kubeProxyIsGone, "left-overs are gone", 15);
    });

    it("two proxies do not write one set of chains: ours waits for the other's end [iptables]", async () => {
      const other = await startOther();
      const proxy = launch({ mode: "iptables" });
      await eventually(() => Promise.resolve(/TwoServiceProxies/.test(proxy.log)), "told");
      await delay(500);
      assert.doesNotMatch(await saved(), /KUBE-SERVICES/);
      other.kill("SIGKILL");
      await once(other, "close");
      await eventually(serves, "served", 15);
    });

    async function startOther(): Promise<ChildProcess> {
      const code =
        'require("http").createServer((q, r) => r.end("iptables")).listen(10249, "127.0.0.1", () => console.log("up"))';
      const other = spawn(process.execPath, ["-e", code], { stdio: ["ignore", "pipe", "inherit"] });
      await once(other.stdout, "data");
      return other;
    }

    it("a proxy's own answers are not another's", async () => {
      await plantKubeProxy();
      const proxy = launch({ mode: "nftables" }, { metricsPort: 10_249 });
      await eventually(kubeProxyIsGone, "left-overs are gone");
      assert.doesNotMatch(proxy.log, /TwoServiceProxies/);
      await end(proxy);
    });

    it("killed at any moment of start, switch and take-over: the next start makes all right", async () => {
      const seed = Number(process.env["SEED"] ?? Date.now() % 1_000_000);
      process.stderr.write(`seed ${seed}\n`);
      let state = seed;
      const random = (): number => {
        state = (state * 48_271 + 11) % 2_147_483_647;
        return state / 2_147_483_647;
      };
      await plantKubeProxy();
      for (let round = 0; round < 14; round += 1) {
        const proxy = launch({ mode: random() < 0.5 ? "nftables" : "iptables" });
        // Reading the program alone takes longer than anything that is to be hit.
        await eventually(() => Promise.resolve(proxy.log.includes("service proxy starts")), "runs");
        await delay(random() * 900);
        await end(proxy, "SIGKILL");
        running.delete(proxy);
      }
      for (const mode of ["iptables", "nftables"] as const) {
        const proxy = launch({ mode });
        await eventually(serves, "served");
        await eventually(
          async () =>
            (await kubeProxyIsGone()) &&
            /remora-proxy/.test(await tables()) === (mode === "nftables") &&
            /KUBE-(SERVICES|PROXY-CANARY)/.test(await saved()) === (mode === "iptables"),
          `only ${mode}`,
        );
        const afterKills = await rules(mode);
        await end(proxy);
        await cleanUpProxy(signal);
        const fresh = launch({ mode });
        await eventually(serves, "served");
        await eventually(async () => (await rules(mode)) === afterKills, `as from scratch`).catch(
          async () => assert.equal(afterKills, await rules(mode)),
        );
        await end(fresh);
      }
    });

    /** Without what counts and what has no order. */
    async function rules(mode: "nftables" | "iptables"): Promise<string> {
      const text =
        mode === "nftables"
          ? `${await sh("nft", "list", "table", "ip", "remora-proxy")}${await sh("nft", "list", "table", "ip6", "remora-proxy")}`
          : `${await sh("iptables-nft-save")}${await sh("ip6tables-nft-save")}`;
      return text
        .split("\n")
        .filter((line) => !line.startsWith("#") && !line.includes("MINE") && !line.includes("HINT"))
        .map((line) => line.replace(/\[\d+:\d+\]/, ""))
        .toSorted()
        .join("\n");
    }

    it("the end leaves nothing, and says so", async () => {
      for (const mode of ["nftables", "iptables"] as const) {
        const proxy = launch({ mode });
        await eventually(serves, "served");
        await end(proxy);
        if (mode === "iptables") assert.notDeepEqual(await leftOfProxy(signal), []);
        await cleanUpProxy(signal);
        assert.deepEqual(await leftOfProxy(signal), []);
        assert.equal(await inventory(), untouched);
      }
    });

    it("a machine without nft gets its rules by iptables", async () => {
      const sbin = join(programs, "sbin");
      const script = `mkdir -p ${sbin} && mount --bind /usr/sbin ${sbin} && mount -t tmpfs none /usr/sbin && for f in ${sbin}/*; do [ "$f" = ${sbin}/nft ] || ln -s "$f" /usr/sbin/; done && exec "$@"`;
      const proxy = launch({}, { wrapper: ["unshare", "--mount", "--", "sh", "-c", script, "sh"] });
      await eventually(serves, "served");
      assert.match(proxy.log, /"mode":"iptables"/);
      assert.match(proxy.log, /nft is not installed/);
      assert.match(await saved(), /KUBE-SERVICES/);
    });

    it("of mode ipvs go the servers and sets that a kube-proxy made, by their tools; others stay", async () => {
      await sh("mount", "-t", "tmpfs", "none", "/usr/local/sbin");
      try {
        const asked = join(programs, "asked");
        const answers: Readonly<Record<string, readonly string[]>> = {
          "ipset list -n": ["KUBE-NODE-PORT-TCP", "KUBE-CLUSTER-IP", "KUBE-SRC-ABC", "mine"],
          "ipset save KUBE-NODE-PORT-TCP": ["add KUBE-NODE-PORT-TCP 30080"],
          "ipvsadm -Sn": [
            "-A -t 172.30.0.9:80 -s rr",
            "-A -t 192.0.2.1:30080 -s rr",
            "-A -t 192.0.2.1:8443 -s rr",
          ],
        };
        for (const name of ["ipset", "ipvsadm"]) {
          const cases = Object.entries(answers).map(
            ([call, lines]) =>
              `"${call}") printf '%s\\n' ${lines.map((line) => `'${line}'`).join(" ")};;`,
          );
          const script = `#!/bin/sh\necho "${name} $*" >> ${asked}\ncase "${name} $*" in ${cases.join(" ")} esac\n`;
          await writeFile(`/usr/local/sbin/${name}`, script);
          await chmod(`/usr/local/sbin/${name}`, 0o755);
        }
        await plantKubeProxy();
        launch({ mode: "nftables" });
        await eventually(kubeProxyIsGone, "left-overs are gone");
        const changes = (await readFile(asked, "utf8"))
          .split("\n")
          .filter((call) => call !== "" && !(call in answers));
        assert.deepEqual(changes, [
          "ipvsadm -D -t 172.30.0.9:80",
          "ipvsadm -D -t 192.0.2.1:30080",
          "ipset destroy KUBE-NODE-PORT-TCP",
          "ipset destroy KUBE-CLUSTER-IP",
        ]);
      } finally {
        await sh("umount", "/usr/local/sbin");
      }
    });

    /** Puts a program of the name nft before the real one. */
    async function launchWithNft(script: string): Promise<Running> {
      const wrapper = join(programs, "nft");
      await writeFile(wrapper, `#!/bin/sh\n${script}\n`);
      await chmod(wrapper, 0o755);
      const setUp = `mount -t tmpfs none /usr/local/sbin && ln -s ${wrapper} /usr/local/sbin/nft && exec "$@"`;
      return launch(
        { mode: "nftables" },
        { wrapper: ["unshare", "--mount", "--", "sh", "-c", setUp, "sh"] },
      );
    }

    it("a transaction that fails once is tried again soon", async () => {
      const failed = join(programs, "failed");
      const proxy = await launchWithNft(
        `case "$*" in "-f -") [ -e ${failed} ] || { touch ${failed}; echo made to fail >&2; exit 1; };; esac\nexec /usr/sbin/nft "$@"`,
      );
      await eventually(serves, "served");
      assert.match(proxy.log, /made to fail/);
      assert.equal(await readFile(failed, "utf8"), "");
    });

    it("a family that cannot be written does not hold up the other", async () => {
      const text = join(programs, "text");
      const proxy = await launchWithNft(
        `[ "$*" = "-f -" ] || exec /usr/sbin/nft "$@"\ncat > ${text}.$$\nif grep -q 'ip6 remora-proxy' ${text}.$$; then echo made to fail >&2; exit 1; fi\n/usr/sbin/nft -f ${text}.$$`,
      );
      await eventually(serves, "served");
      const failures = (): number =>
        proxy.log.match(/"IPv6","error":"nft: made to fail"/g)?.length ?? 0;
      // From here on the next attempt is seconds away.
      await eventually(() => Promise.resolve(failures() >= 4), "fails again and again");
      api.put(ENDPOINT_SLICES, webSlice([]));
      await eventually(async () => !(await serves()), "follows", 2);
      api.put(ENDPOINT_SLICES, webSlice([backend]));
      await eventually(serves, "follows back", 2);
      assert.doesNotMatch(await tables(), /ip6 remora-proxy/);
    });

    it("a table that is taken away in the middle of changes comes back right", async () => {
      launch({ mode: "nftables" });
      await eventually(serves, "served");
      for (let turn = 0; turn < 20; turn += 1) {
        api.put(ENDPOINT_SLICES, webSlice(turn % 2 === 0 ? [backend, "10.244.0.7"] : []));
        await delay(turn);
        await sh("nft", "delete", "table", turn % 3 === 0 ? "ip6" : "ip", "remora-proxy").catch(
          () => "",
        );
      }
      api.put(ENDPOINT_SLICES, webSlice([backend]));
      await eventually(serves, "served again", 5);
      await eventually(async () => /ip6 remora-proxy/.test(await tables()), "both tables", 5);
      // Unused objects go a second later.
      await delay(1500);
      const mended = await rules("nftables");
      for (const proxy of running) await end(proxy);
      await cleanUpProxy(signal);
      launch({ mode: "nftables" });
      await eventually(serves, "served from scratch");
      await eventually(async () => (await rules("nftables")) === mended, "as from scratch").catch(
        async () => assert.equal(mended, await rules("nftables")),
      );
    });
  });
}
