import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { insideOwnNamespace, sh } from "../namespace.ts";
import { Stage } from "./stage.ts";

/** Folders with a dockerd, and the containerd and runc that belong to it, besides the machine's own. */
const folders = (process.env["REMORA_TEST_DOCKERS"] ?? "").split(":").filter((each) => each !== "");

interface Engine {
  readonly name: string;
  readonly path: string;
  readonly options: readonly string[];
}

function engines(): readonly Engine[] {
  return ["", ...folders].flatMap((folder): Engine[] => {
    const path = `${folder === "" ? "" : `${folder}:`}${process.env["PATH"] ?? ""}:/usr/sbin`;
    let version: string;
    try {
      version = execFileSync("dockerd", ["--version"], { env: { PATH: path } }).toString();
    } catch {
      return [];
    }
    const [, number = "?"] = /version v?([\d.]+)/.exec(version) ?? [];
    const name = `Docker ${number}`;
    const plain = { name, path, options: [] };
    return Number(number.split(".")[0]) < 29
      ? [plain]
      : [plain, { name: `${name}, nftables`, path, options: ["--firewall-backend=nftables"] }];
  });
}

/** A dockerd with its own bridge and rules, in this namespace and nowhere else. */
class Dockerd {
  readonly #engine: Engine;
  readonly #directory: string;
  #child: ChildProcess | undefined;
  #log = "";

  constructor(engine: Engine, directory: string) {
    this.#engine = engine;
    this.#directory = directory;
  }

  async start(): Promise<void> {
    const at = (name: string): string => join(this.#directory, name);
    const argv = [
      `--exec-root=${at("exec")}`,
      `--data-root=${at("data")}`,
      `--pidfile=${at("pid")}`,
      `--host=unix://${at("sock")}`,
      ...this.#engine.options,
    ];
    const child = spawn("dockerd", argv, {
      stdio: ["ignore", "ignore", "pipe"],
      env: { PATH: this.#engine.path },
    });
    child.stderr.on("data", (chunk: Buffer) => {
      this.#log = (this.#log + chunk.toString()).slice(-4000);
    });
    this.#child = child;
    for (let tries = 0; !this.#log.includes("API listen on"); tries += 1) {
      assert.ok(tries < 300 && child.exitCode === null, `dockerd does not start: ${this.#log}`);
      await delay(100);
    }
    this.#log = "";
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null) return;
    const ended = once(child, "close");
    child.kill("SIGTERM");
    await ended;
  }
}

if (insideOwnNamespace(import.meta.filename)) {
  const found = engines();
  it("there is a dockerd", { skip: found.length > 0 ? false : "no dockerd is installed" }, () => {
    assert.ok(found.length > 0);
  });
  for (const engine of found) {
    describe(`beside ${engine.name}`, { concurrency: false }, () => {
      let stage: Stage;
      let dockerd: Dockerd;
      let directory = "";

      before(async () => {
        directory = await mkdtemp(join(tmpdir(), "remora-docker-"));
        // The machine's own engine must not be found.
        for (const path of ["/run/containerd", "/run/docker"]) {
          if (existsSync(path)) await sh("mount", "-t", "tmpfs", "tmpfs", path);
        }
        await mkdir(join(directory, "data"));
        // A dockerd that finds forwarding off turns it on, and drops what others forward; for nftables it only complains.
        const off = engine.options.length === 0 ? "0" : "1";
        await sh("sysctl", "-qw", `net.ipv4.ip_forward=${off}`);
        await sh("sysctl", "-qw", `net.ipv6.conf.all.forwarding=${off}`);
        dockerd = new Dockerd(engine, directory);
        await dockerd.start();
        stage = await Stage.start();
      });

      after(async () => {
        await stage.stop();
        await dockerd.stop();
        await sh("ip", "link", "del", "docker0").catch(() => undefined);
        await sh("nft", "flush", "ruleset");
        for (const path of ["/run/containerd", "/run/docker"]) {
          if (existsSync(path)) await sh("umount", path);
        }
        await rm(directory, { recursive: true, force: true });
      });

      it("everything passes, and nothing is reported", async () => {
        assert.deepEqual(await stage.blocked(), []);
        assert.deepEqual(stage.network.problems, []);
        assert.equal((await readFile("/proc/sys/net/ipv4/ip_forward", "utf8")).trim(), "1");
        if (engine.options.length > 0) return;
        assert.match(await sh("iptables", "-S", "FORWARD"), /-P FORWARD DROP/);
      });

      it("also when dockerd was started again, before and after the next look", async () => {
        await dockerd.stop();
        await dockerd.start();
        assert.deepEqual(await stage.blocked(), []);
        await stage.ensure();
        assert.deepEqual(await stage.blocked(), []);
        if (engine.options.length > 0) return;
        assert.match(await sh("iptables", "-S", "FORWARD", "1"), /-j REMORA-FORWARD/);
      });
    });
  }
}
