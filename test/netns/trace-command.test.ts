// `remora trace` as people run it: the program, the kernel's rules, an API server that knows a pod.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { NODES, PODS } from "../../src/api/resources.ts";
import { cleanUpProxy } from "../../src/proxy/cleanup.ts";
import { cleanUpIptables } from "../../src/proxy/iptables/cleanup.ts";
import { type FakeApiServer, startFakeApiServer } from "../fakes/api-server.ts";
import { addressesOf, here, makeBackend, rulesFor, settingsOf } from "../unit/proxy/model/build.ts";
import { modelService, type ModelCluster } from "../unit/proxy/model/cluster.ts";
import { insideOwnNamespace, sh } from "./namespace.ts";

const { signal } = new AbortController();
const main = new URL("../../src/agent/main.ts", import.meta.url).pathname;
const at = addressesOf.IPv4;

interface Told {
  readonly code: number | null;
  readonly text: string;
  readonly errors: string;
  readonly last: string;
}

function isTold(value: unknown): value is { outcome: string; ends: { text: string }[] } {
  return typeof value === "object" && value !== null && "outcome" in value;
}

/** One Service with an endpoint on another node only, one with affinity, one without endpoints. */
function cluster(): ModelCluster {
  const port = { name: "p", protocol: "tcp", port: 80 } as const;
  const service = (
    name: string,
    id: number,
    more: object,
  ): [string, ReturnType<typeof modelService>] => [
    name,
    modelService({
      name,
      type: "NodePort",
      clusterIPs: { IPv4: at.clusterIP(id), IPv6: addressesOf.IPv6.clusterIP(id) },
      ports: [{ ...port, nodePort: 30_000 + id }],
      ...more,
    }),
  ];
  const ready = { ready: true, serving: true, terminating: false };
  const slice = (name: string, family: "IPv4" | "IPv6", ips: readonly string[]) =>
    [
      `${name}-${family}`,
      {
        name: `${name}-${family.toLowerCase()}`,
        service: name,
        family,
        ports: [{ ...port, port: 8080 }],
        endpoints: ips.map((ip) => ({ ip, node: "there", ...ready })),
      },
    ] as const;
  return {
    services: new Map([
      service("far", 1, { externalLocal: true }),
      service("sticky", 2, { affinitySeconds: 60 }),
      service("empty", 3, {}),
    ]),
    slices: new Map([
      slice("far", "IPv4", [at.otherPod(2), at.otherPod(3)]),
      slice("far", "IPv6", [addressesOf.IPv6.otherPod(2)]),
      slice("sticky", "IPv4", [at.otherPod(2), at.otherPod(3)]),
    ]),
  };
}

if (insideOwnNamespace(import.meta.filename)) {
  describe("remora trace", { concurrency: false }, () => {
    let directory = "";
    let api: FakeApiServer;
    let kubeconfig = "";

    async function trace(...args: readonly string[]): Promise<Told> {
      const { NODE_TEST_CONTEXT: _context, ...env } = process.env;
      const child = spawn(process.execPath, [main, "trace", ...args], {
        stdio: ["ignore", "pipe", "pipe"],
        env: { ...env, KUBECONFIG: kubeconfig },
      });
      let [text, errors] = ["", ""];
      child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()));
      child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
      const [code] = (await once(child, "close")) as [number | null];
      return { code, text, errors, last: text.trimEnd().split("\n").at(-1) ?? "" };
    }

    before(async () => {
      directory = await mkdtemp(join(tmpdir(), "remora-trace-"));
      const lines = [
        "link set lo up",
        "link add up0 type veth peer name up1",
        "link set up1 up",
        "link set up0 up",
        "addr add 192.0.2.1/24 dev up0",
        "addr add 2001:db8:5::1/64 dev up0 nodad",
        "route add default via 192.0.2.254",
        "route add ::/0 via 2001:db8:5::fe",
        "link add remora0 type bridge",
        "link set remora0 up",
        "addr add 10.244.0.1/24 dev remora0",
      ];
      for (const line of lines) await sh("ip", ...line.split(" "));
      api = await startFakeApiServer();
      api.put(NODES, { metadata: { name: "here" } });
      api.put(PODS, {
        metadata: { namespace: "shop", name: "client" },
        spec: { containers: [] },
        status: { phase: "Running", podIP: at.pod(9), podIPs: [{ ip: at.pod(9) }] },
      });
      kubeconfig = join(directory, "kubeconfig");
      await writeFile(
        kubeconfig,
        JSON.stringify({
          apiVersion: "v1",
          kind: "Config",
          "current-context": "c",
          clusters: [{ name: "c", cluster: { server: api.url } }],
          contexts: [{ name: "c", context: { cluster: "c", user: "u", namespace: "shop" } }],
          users: [{ name: "u", user: {} }],
        }),
      );
    });
    after(async () => {
      await api.close();
      await rm(directory, { recursive: true, force: true });
    });

    for (const mode of ["nftables", "iptables"] as const) {
      describe(mode, () => {
        before(async () => {
          for (const family of ["IPv4", "IPv6"] as const) {
            const settings = settingsOf(mode, family);
            await rulesFor(cluster(), settings, here, makeBackend(settings)).sync();
          }
        });
        after(() => (mode === "nftables" ? cleanUpProxy(signal) : cleanUpIptables(signal)));

        it("a pod by its name, found at the API server: delivered, exit code 0", async () => {
          const told = await trace("--from", "client", "--to", `${at.clusterIP(1)}:80`);
          assert.equal(told.code, 0, told.errors);
          assert.match(
            told.text,
            /^tcp from pod shop\/client \(10\.244\.0\.9.*\), comes in through remora0, to 172\.30\.0\.1:80$/m,
          );
          assert.match(
            told.text,
            /50 % {2}backend 10\.244\.1\.2:8080, source 10\.244\.0\.9 kept$/m,
          );
          assert.equal(told.last, "delivered: one of 2 backends");
        });

        it("the node, in IPv6", async () => {
          const to = `[${addressesOf.IPv6.clusterIP(1)}]:80`;
          const told = await trace("--from", "node", "--to", to);
          assert.equal(told.code, 0, told.errors);
          assert.match(told.last, /^delivered: backend \[fd00:244:0:1::2\]:8080, source rewritten/);
        });

        it("nobody here for externalTrafficPolicy Local: not delivered, exit code 1, and why", async () => {
          const told = await trace("--from", at.outside, "--to", `${at.node}:30001`);
          assert.equal(told.code, 1, told.errors);
          const why =
            mode === "nftables"
              ? "not delivered: dropped: externalTrafficPolicy Local and no local endpoint (noep-np)"
              : "not delivered: dropped: ns/far:p has no local endpoints";
          assert.ok(told.last.startsWith(why), told.last);
        });

        it("JSON for programs", async () => {
          const told = await trace(
            "--from",
            at.pod(4),
            "--to",
            `${at.clusterIP(3)}:80`,
            "-o",
            "json",
          );
          assert.equal(told.code, 1, told.errors);
          const report: unknown = JSON.parse(told.text);
          assert.ok(isTold(report));
          assert.equal(report.outcome, "not delivered");
          assert.match(report.ends[0]?.text ?? "", /^rejected \(TCP reset\)/);
        });

        it("who is remembered goes to one backend", async () => {
          const ask = ["--from", at.pod(9), "--to", `${at.clusterIP(2)}:80`];
          assert.equal((await trace(...ask)).last, "delivered: one of 2 backends");
          if (mode === "nftables") {
            const sets = await sh("nft", "list", "sets", "ip");
            const [, set = ""] = /set (aff-\w+)/.exec(sets) ?? [];
            await sh("nft", "add", "element", "ip", "remora-proxy", set, `{ ${at.pod(9)} }`);
          } else {
            const lists = await sh("ls", "/proc/net/xt_recent");
            const [list = ""] = lists.trim().split("\n");
            await writeFile(`/proc/net/xt_recent/${list}`, `+${at.pod(9)}\n`);
          }
          assert.match((await trace(...ask)).last, /^delivered: backend 10\.244\.1\.[23]:8080/);
        });

        it("rules of others in iptables are executed, others' tables are named", async () => {
          await sh("iptables", "-P", "FORWARD", "DROP");
          await sh("nft", "add", "table", "inet", "wall");
          await sh(
            "nft",
            "add",
            "chain",
            "inet",
            "wall",
            "c",
            "{ type filter hook forward priority 5 ; policy drop ; }",
          );
          try {
            const told = await trace("--from", at.pod(9), "--to", `${at.clusterIP(2)}:80`);
            assert.match(
              told.text,
              /^not simulated: nft inet wall c \(filter hook forward, priority 5, policy drop\)$/m,
            );
            assert.match(told.last, /^not delivered: dropped: policy of iptables filter FORWARD/);
          } finally {
            await sh("nft", "delete", "table", "inet", "wall");
            await sh("iptables", "-P", "FORWARD", "ACCEPT");
          }
        });

        it("a rule of others that is not understood, in the packet's way: cannot tell, exit code 2", async () => {
          const rule = "FORWARD -i remora0 -m length --length 0:100 -j DROP".split(" ");
          await sh("iptables", "-I", ...rule);
          try {
            const told = await trace("--from", at.pod(9), "--to", `${at.clusterIP(2)}:80`);
            assert.equal(told.code, 2);
            assert.match(told.errors, /not understood at "-m length": filter FORWARD -i remora0/);
            // Elsewhere it does not matter.
            const other = await trace("--from", "node", "--to", `${at.clusterIP(2)}:80`);
            assert.equal(other.code, 0, other.errors);
          } finally {
            await sh("iptables", "-D", ...rule);
          }
        });
      });
    }

    it("what was asked wrongly: a sentence and exit code 2", async () => {
      for (const [args, pattern] of [
        [["--from", "node", "--to", "web:80"], /must be an address and a port/],
        [["--from", "shop/nobody", "--to", "172.30.0.1:80"], /there is no pod shop\/nobody/],
        [["--from", "fd00::1", "--to", "172.30.0.1:80"], /not of one IP family/],
      ] as const) {
        const told = await trace(...args);
        assert.equal(told.code, 2);
        assert.match(told.errors, pattern);
        assert.doesNotMatch(told.errors, /\n\s+at /);
      }
    });

    it("without rules nothing has the address: cannot tell", async () => {
      const told = await trace("--from", "node", "--to", `${at.clusterIP(1)}:80`);
      assert.equal(told.code, 2, told.errors);
      assert.match(told.text, /no rules of Remora or iptables were found|read: /);
      assert.match(told.last, /^cannot tell: leaves for 172\.30\.0\.1:80; no Service has that/);
    });
  });
}
