import assert from "node:assert/strict";
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { type DecodedPacket, decode, encode, type RecordType } from "dns-packet";

import { askUDP } from "../../src/dns/exchange.ts";
import { createNameServer } from "../../src/dns/name-server.ts";
import { systemClock } from "../../src/lib/clock.ts";
import type { Logger } from "../../src/lib/log.ts";
import { connectOutside, insideOwnNamespace, Machine, sh } from "./namespace.ts";

const own = "10.96.0.10";
/** Of the machine at the far end of the uplink. */
const far = "192.0.2.2";

function lacks(program: string): string | false {
  try {
    execFileSync("sh", ["-c", `command -v ${program}`], { stdio: "ignore" });
    return false;
  } catch {
    return `${program} is not installed`;
  }
}

interface Lines {
  readonly logger: Logger;
  readonly all: string[];
  /** Resolves when a line has been logged whose message matches. */
  said(pattern: RegExp): Promise<void>;
}

function lines(): Lines {
  const all: string[] = [];
  const logger: Logger = {
    log: (_level, msg, fields = {}) => void all.push(`${msg} ${JSON.stringify(fields)}`),
    child: () => logger,
  };
  return {
    logger,
    all,
    async said(pattern) {
      for (let turn = 0; turn < 1000; turn += 1) {
        if (all.some((line) => pattern.test(line))) return;
        await delay(10);
      }
      assert.fail(`nothing like ${String(pattern)} in\n${all.join("\n")}`);
    },
  };
}

async function ask(
  name: string,
  type: RecordType = "A",
): Promise<DecodedPacket & { readonly rcode: string }> {
  const message = encode({ type: "query", id: 7, flags: 0x100, questions: [{ name, type }] });
  const outgoing = { message, id: 7, question: message.subarray(12) };
  const reply = await askUDP({ address: own, port: 53 }, outgoing, AbortSignal.timeout(8000));
  return decode(reply) as DecodedPacket & { readonly rcode: string };
}

async function address(name: string): Promise<string> {
  const { answers = [], rcode } = await ask(name);
  return answers.flatMap((answer) => (answer.type === "A" ? [answer.data] : [])).join() || rcode;
}

if (insideOwnNamespace(import.meta.filename)) {
  describe("name servers of the host", { skip: lacks("dnsmasq"), concurrency: false }, () => {
    let directory = "";
    let resolvConf = "";
    let other: Machine;
    const children: ChildProcess[] = [];

    /** dnsmasq at `at`, here or on the other machine, with these further arguments. */
    async function dnsmasq(at: string, ...args: string[]): Promise<void> {
      const child = spawn(
        "nsenter",
        [
          "-t",
          String(at === far ? other.pid : process.pid),
          "-n",
          "dnsmasq",
          "--keep-in-foreground",
          "--conf-file=/dev/null",
          "--no-resolv",
          "--no-hosts",
          "--user=root",
          "--bind-interfaces",
          `--listen-address=${at}`,
          "--except-interface=none",
          "--pid-file",
          "--log-facility=-",
          ...args,
        ],
        { stdio: ["ignore", "ignore", "ignore"] },
      );
      children.push(child);
      const output = (...argv: [string, ...string[]]): Promise<string> =>
        at === far ? other.sh(...argv) : sh(...argv);
      const question = encode({ type: "query", id: 1, questions: [{ name: "x", type: "A" }] });
      const outgoing = { message: question, id: 1, question: question.subarray(12) };
      for (let turn = 0; turn < 200; turn += 1) {
        const answered = askUDP({ address: at, port: 53 }, outgoing, AbortSignal.timeout(200));
        const up = await answered.then(
          () => true,
          // A circle answers nothing, but it listens.
          async () => (await output("ss", "-Hlnu", `src ${at}:53`)).includes(at),
        );
        if (up) return;
        await delay(20);
      }
      assert.fail(`dnsmasq does not listen at ${at}`);
    }

    async function running<T>(log: Lines, work: () => Promise<T>): Promise<T> {
      const stop = new AbortController();
      const listening = Promise.withResolvers<void>();
      const server = createNameServer({
        settings: {
          domain: "cluster.local",
          addresses: [own],
          port: 53,
          ownNetworks: ["10.96.0.0/16"],
          resolvConf,
        },
        clock: systemClock,
        logger: log.logger,
        random: Math.random,
        onListening: listening.resolve,
      });
      const ended = server.run(stop.signal);
      try {
        await listening.promise;
        return await work();
      } finally {
        stop.abort();
        await ended;
      }
    }

    before(async () => {
      directory = await mkdtemp(join(tmpdir(), "remora-dns-"));
      resolvConf = join(directory, "resolv.conf");
      other = await connectOutside();
      await sh("ip", "addr", "add", `${own}/32`, "dev", "lo");
      await other.sh("ip", "route", "add", own, "via", "192.0.2.1");
    });

    async function stopChildren(): Promise<void> {
      for (const child of children.splice(0)) {
        const ended = once(child, "close");
        child.kill("SIGKILL");
        await ended;
      }
    }

    afterEach(stopChildren);

    after(async () => {
      await Machine.stopAll();
      await rm(directory, { recursive: true, force: true });
    });

    it("answer in the spelling and with the EDNS that they are asked with", async () => {
      await dnsmasq("127.0.0.11", "--address=/example.test/192.0.2.1");
      await writeFile(resolvConf, "nameserver 127.0.0.11\n");
      const log = lines();
      await running(log, async () => {
        for (const name of ["a.example.test", "some-long-name.example.test"]) {
          assert.equal(await address(name), "192.0.2.1");
        }
      });
      assert.deepEqual(
        log.all.filter((line) => /do not|does not|no question/.test(line)),
        [],
      );
    });

    it("are others within a second when resolv.conf says so", async () => {
      await dnsmasq("127.0.0.11", "--address=/example.test/192.0.2.1");
      await dnsmasq("127.0.0.12", "--address=/example.test/192.0.2.2");
      await writeFile(resolvConf, "nameserver 127.0.0.11\n");
      await running(lines(), async () => {
        assert.equal(await address("a.example.test"), "192.0.2.1");
        await writeFile(resolvConf, "search example.org\nnameserver 127.0.0.12\n");
        await delay(1100);
        // Asked for before, and forgotten.
        assert.equal(await address("a.example.test"), "192.0.2.2");
      });
    });

    it("a dead one costs the first question its time, and no other", async () => {
      await dnsmasq("127.0.0.12", "--address=/example.test/192.0.2.2");
      // Packets to it are lost, as to a machine that is switched off.
      await sh("nft", "add table ip t");
      await sh("nft", "add chain ip t i { type filter hook input priority 0; }");
      await sh("nft", "add rule ip t i ip daddr 127.0.0.11 drop");
      await writeFile(resolvConf, "nameserver 127.0.0.11\nnameserver 127.0.0.12\n");
      const log = lines();
      await running(log, async () => {
        const timed = async (name: string): Promise<number> => {
          const started = performance.now();
          assert.equal(await address(name), "192.0.2.2");
          return performance.now() - started;
        };
        assert.ok((await timed("a.example.test")) > 1500);
        await log.said(/down or up again.*"down":true/);
        for (const name of ["b", "c", "d"]) assert.ok((await timed(`${name}.example.test`)) < 1500);
        await sh("nft", "delete table ip t");
        await dnsmasq("127.0.0.11", "--address=/example.test/192.0.2.1");
        await log.said(/down or up again.*"down":false/);
        assert.equal(await address("e.example.test"), "192.0.2.1");
      });
    });

    it("one of another machine that asks us is found out before anybody asks it", async () => {
      await writeFile(resolvConf, `nameserver ${far}\n`);
      const log = lines();
      // dnsmasq asks no address of its own machine: this circle needs two.
      await dnsmasq(far, `--server=${own}`);
      await running(log, async () => {
        await log.said(/passes questions on to this one/);
        const started = performance.now();
        assert.equal(await address("a.example.test"), "SERVFAIL");
        assert.ok(performance.now() - started < 1500, "at once");
      });
    });

    it("one that begins to ask us is found out when it is silent", async () => {
      await dnsmasq(far, "--address=/example.test/192.0.2.1");
      await writeFile(resolvConf, `nameserver ${far}\n`);
      const log = lines();
      await running(log, async () => {
        assert.equal(await address("a.example.test"), "192.0.2.1");
        await stopChildren();
        await dnsmasq(far, `--server=${own}`);
        assert.equal(await address("b.example.test"), "SERVFAIL");
        await log.said(/passes questions on to this one/);
        const started = performance.now();
        assert.equal(await address("c.example.test"), "SERVFAIL");
        assert.ok(performance.now() - started < 1500, "at once");
      });
    });
  });
}
