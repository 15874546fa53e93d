// Each finding about the Docker Engine, by engines that really answer so; and about ports, by sockets that really listen.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";

import { disk } from "../../../src/agent/doctor/checks/disk.ts";
import { engine } from "../../../src/agent/doctor/checks/engine.ts";
import { portsCheck } from "../../../src/agent/doctor/checks/ports.ts";
import { getJSONOnSocket } from "../../../src/agent/doctor/engine-socket.ts";
import { listListeners, ownersOf } from "../../../src/agent/doctor/processes.ts";
import { inTemporary } from "../../fakes/temporary.ts";
import { FakeEngine } from "../runtime/fake-engine.ts";
import { healthy, look, makeMachine } from "./made-machine.ts";

const goodInfo = {
  Driver: "overlay2",
  CgroupDriver: "systemd",
  CgroupVersion: "2",
  LiveRestoreEnabled: true,
  LoggingDriver: "json-file",
  Plugins: { Log: ["json-file", "local"] },
  SecurityOptions: ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
  Warnings: null,
  ContainersRunning: 3,
};

async function judgeEngine(
  change: object,
  options: {
    readonly files?: Readonly<Record<string, string>>;
    readonly version?: object;
    readonly silent?: boolean;
  } = {},
): ReturnType<typeof look> {
  let said: Awaited<ReturnType<typeof look>> | undefined;
  await inTemporary(async (root) => {
    await using fake = await FakeEngine.start();
    if (options.version !== undefined) fake.version = options.version;
    fake.answer = ({ path }) => {
      if (options.silent === true) return "silence";
      return { status: 200, json: path === "/info" ? { ...goodInfo, ...change } : "OK" };
    };
    const machine = await makeMachine(
      root,
      { ...healthy, "run/systemd/system/x": "", ...options.files },
      { site: { dockerSocket: fake.socketPath }, patienceMs: 200 },
    );
    said = await look(engine, machine);
  });
  assert.ok(said !== undefined);
  return said;
}

describe("what is wrong with the Docker Engine", () => {
  it("one that is as it should be says its version and drivers", async () => {
    const { problems, text } = await judgeEngine({});
    assert.deepEqual(problems, []);
    assert.equal(
      text,
      "Docker 20.10.24, API 1.41, overlay2, cgroup driver systemd, 3 containers run",
    );
  });

  const cases: readonly (readonly [string, object, Parameters<typeof judgeEngine>[1]?])[] = [
    ["engine-old", {}, { version: { Version: "19.03.15", ApiVersion: "1.40" } }],
    ["engine-driver-mismatch", { CgroupDriver: "cgroupfs" }],
    ["engine-storage-slow", { Driver: "vfs" }],
    ["engine-no-live-restore", { LiveRestoreEnabled: false }],
    ["engine-log-driver", { Plugins: { Log: ["journald"] }, LoggingDriver: "journald" }],
    ["engine-userns", { SecurityOptions: ["name=seccomp", "name=userns"] }],
    ["engine-rootless", { SecurityOptions: ["name=seccomp", "name=rootless"] }],
    ["engine-no-seccomp", { SecurityOptions: ["name=apparmor"] }],
    ["engine-warning", { Warnings: ["WARNING: the disk is on fire"] }],
    [
      "engine-no-iptables",
      {},
      { files: { "etc/docker/daemon.json": '{"live-restore":true,"iptables":false}' } },
    ],
    [
      "engine-no-iptables",
      {},
      {
        files: {
          "proc/77/comm": "dockerd\n",
          "proc/77/cmdline": "/usr/sbin/dockerd\0--iptables=false\0",
        },
      },
    ],
    [
      "engine-config-broken",
      {},
      { files: { "etc/docker/daemon.json": '{"live-restore": true,}' } },
    ],
    ["engine-hangs", {}, { silent: true }],
  ];
  for (const [problem, change, options] of cases) {
    it(`${problem} ${JSON.stringify(options ?? change).slice(0, 60)}`, async () => {
      const said = await judgeEngine(change, options);
      assert.deepEqual(said.problems, [problem], said.text);
    });
  }

  it("a socket that is not there, that nobody listens on, and that may not be used are told apart", async () => {
    await inTemporary(async (root) => {
      const judge = async (dockerSocket: string): Promise<readonly string[]> => {
        const machine = await makeMachine(root, healthy, { site: { dockerSocket } });
        return (await look(engine, machine)).problems;
      };
      assert.deepEqual(await judge(join(root, "none.sock")), ["engine-missing"]);
      const path = join(root, "dead.sock");
      // A process of its own that is killed leaves its socket.
      spawnSync(
        process.execPath,
        [
          "-e",
          `require("node:net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`,
        ],
        { stdio: "ignore" },
      );
      assert.deepEqual(await judge(path), ["engine-stopped"]);
    });
  });

  it("engine-forbidden: root is kept from it; who is not root has to ask as root", () => {
    const facts = {
      socket: "/var/run/docker.sock",
      answer: { kind: "silent", failure: "forbidden", text: "connect EACCES" },
      systemd: true,
      daemonConfig: undefined,
      daemonArgs: [],
      daemonConfigError: undefined,
    } as const;
    assert.equal(engine.judge({ ...facts, isRoot: false }).kind, "unknown");
    const said = engine.judge({ ...facts, isRoot: true });
    assert.deepEqual(said.kind === "judged" && said.findings.map(({ problem }) => problem), [
      "engine-forbidden",
    ]);
  });
});

describe("where the node keeps its files", () => {
  it("disk-network: on a server, where locks and renames are not what they should be", () => {
    const facts = { bytes: undefined, inodes: undefined, readOnly: false };
    const at = (path: string, type: string) => ({ ...facts, path, purpose: "state", type });
    const said = disk.judge([at("/var/lib/remora", "nfs4"), at("/var/log", "ext4")]);
    assert.deepEqual(said.kind === "judged" && said.findings, [
      { problem: "disk-network", text: "/var/lib/remora (state) is on nfs4" },
    ]);
  });
});

/** Tables of the kernel with one listener. */
function listening(port: number, options: { readonly address?: string; readonly udp?: boolean }) {
  const { address = "00000000", udp = false } = options;
  const hex = port.toString(16).toUpperCase().padStart(4, "0");
  const state = udp ? "07" : "0A";
  const line = `   0: ${address}:${hex} 00000000:0000 ${state} 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0`;
  return {
    [`proc/self/net/${udp ? "udp" : "tcp"}`]: `  sl  local_address rem_address   st\n${line}\n`,
    "proc/812/comm": "kubelet\n",
    "proc/812/cmdline": "/usr/bin/kubelet\0",
    "proc/812/fd/7": "-> socket:[4242]",
  };
}

describe("who has the agent's ports", () => {
  it("port-taken names the program and how to end it", async () => {
    await inTemporary(async (root) => {
      const machine = await makeMachine(root, { ...healthy, ...listening(10_250, {}) });
      const said = await look(portsCheck, machine);
      assert.deepEqual(said.problems, ["port-taken"]);
      assert.equal(said.text, "port 10250/tcp (kubelet API) is taken by kubelet (pid 812)");
      assert.deepEqual(said.remedies, ["systemctl disable --now kubelet"]);
    });
  });

  it("the agent's own listeners are no trouble", async () => {
    await inTemporary(async (root) => {
      const files = { ...healthy, ...listening(10_250, {}) };
      const machine = await makeMachine(root, files, { site: { pid: 812 } });
      assert.deepEqual((await look(portsCheck, machine)).problems, []);
    });
  });

  it("port-not-answered: an agent that runs without its port", async () => {
    await inTemporary(async (root) => {
      const machine = await makeMachine(root, healthy, { site: { pid: 812 } });
      assert.deepEqual((await look(portsCheck, machine)).problems, ["port-not-answered"]);
    });
  });

  it("port-dns-taken: a name server on all addresses; one on its own address is welcome", async () => {
    const judge = async (address: string): Promise<readonly string[]> => {
      let problems: readonly string[] = [];
      await inTemporary(async (root) => {
        const files = { ...healthy, ...listening(53, { udp: true, address }) };
        problems = (await look(portsCheck, await makeMachine(root, files))).problems;
      });
      return problems;
    };
    assert.deepEqual(await judge("00000000"), ["port-dns-taken"]);
    // 127.0.0.53
    assert.deepEqual(await judge("3500007F"), []);
  });

  it("a port that this process listens on is seen in the real tables", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    try {
      const bound = server.address();
      assert.ok(bound !== null && typeof bound === "object");
      const machine = await makeMachine("", {}, {});
      const listeners = await listListeners(machine, "tcp");
      const found = listeners.find(({ port }) => port === bound.port);
      assert.equal(found?.address, "127.0.0.1");
      const owners = await ownersOf(machine, new Set([found.inode]));
      assert.equal(owners.get(found.inode)?.pid, process.pid);
      assert.equal(owners.get(found.inode)?.here, true);
    } finally {
      server.close();
      await once(server, "close");
    }
  });
});

describe("what the engine's socket may not do", () => {
  it("an answer that is no JSON is an error with its path", async () => {
    await using fake = await FakeEngine.start();
    fake.answer = () => ({ status: 500, json: { message: "no" } });
    await assert.rejects(
      getJSONOnSocket(fake.socketPath, "/info", new AbortController().signal),
      /\/info: expected status 200 and not 500/,
    );
  });
});
