import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, it } from "node:test";

import { systemClock } from "../../src/lib/clock.ts";
import type { Logger } from "../../src/lib/log.ts";
import { intermediateName, tokenBucket } from "../../src/network/bandwidth-plan.ts";
import { createBridgeNetwork } from "../../src/network/bridge.ts";
import { vethName } from "../../src/network/links.ts";
import type { PodBandwidth, PodNetwork, SandboxNetworkConfig } from "../../src/network/types.ts";
import { connectOutside, insideOwnNamespace, inventory, Machine, sh } from "./namespace.ts";

const { signal } = new AbortController();
const podCIDRs = ["10.244.0.0/24", "fd00:244::/64"];
const streamFile = new URL("stream.ts", import.meta.url).pathname;
const bits = 2_000_000;
const sendMs = 700;

interface Received {
  readonly bytes: number;
  readonly ms: number;
}

/** A pod that counts what it is sent. */
class CountingPod {
  readonly machine: Machine;
  readonly config: SandboxNetworkConfig;
  readonly #counter: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  private constructor(machine: Machine, config: SandboxNetworkConfig, counter: ChildProcess) {
    this.machine = machine;
    this.config = config;
    this.#counter = counter;
    assert.ok(counter.stdout !== null);
    this.#lines = createInterface({ input: counter.stdout })[Symbol.asyncIterator]();
  }

  static async start(name: string, bandwidth?: PodBandwidth): Promise<CountingPod> {
    const machine = await Machine.start();
    const { NODE_TEST_CONTEXT: _context, ...env } = process.env;
    const inside = ["-t", String(machine.pid), "-n", process.execPath, streamFile];
    const counter = spawn("nsenter", [...inside, "count", "9000"], {
      stdio: ["ignore", "pipe", "inherit"],
      env,
    });
    const config = {
      sandboxID: name,
      podUID: name,
      podKey: `default/${name}`,
      pid: machine.pid,
      hostPorts: [],
      pod: { annotations: {}, ...(bandwidth === undefined ? {} : { bandwidth }) },
    };
    const pod = new CountingPod(machine, config, counter);
    assert.equal(await pod.#line(), "ready");
    return pod;
  }

  async #line(): Promise<string> {
    const next = await this.#lines.next();
    assert.ok(next.done !== true, "the counter ended");
    return next.value;
  }

  /** What arrives of all that `from` can send in a while, or of so many bytes. */
  async receive(from: CountingPod, to: string, most?: number): Promise<Received> {
    const more = most === undefined ? [] : [String(most)];
    const ms = most === undefined ? sendMs : 20_000;
    const argv = [process.execPath, streamFile, "send", to, "9000", String(ms), ...more];
    await from.machine.sh(...argv);
    return JSON.parse(await this.#line()) as Received;
  }

  async stop(): Promise<void> {
    const ended = once(this.#counter, "close");
    this.#counter.kill("SIGKILL");
    await ended;
    await this.machine.stop();
  }
}

if (insideOwnNamespace(import.meta.filename)) {
  describe("bandwidth of pods on the bridge", { concurrency: false }, () => {
    let stateDir = "";
    let untouched = "";
    let network: PodNetwork;
    const pods: CountingPod[] = [];
    const told: string[] = [];
    const logger: Logger = {
      log: (level, msg) => {
        if (level !== "debug") told.push(`${level} ${msg}`);
      },
      child: () => logger,
    };
    const create = (): PodNetwork =>
      createBridgeNetwork({
        stateDir,
        clusterCIDRs: ["10.244.0.0/16", "fd00:244::/48"],
        clock: systemClock,
        logger,
      });
    const add = async (name: string, bandwidth?: PodBandwidth): Promise<CountingPod> => {
      const pod = await CountingPod.start(name, bandwidth);
      pods.push(pod);
      return pod;
    };
    let [free, other, slowIn, slowOut]: CountingPod[] = [];
    const ip = (pod: CountingPod | undefined, family: number): string =>
      network.addresses(pod?.config.sandboxID ?? "")?.[family] ?? "";

    /** What the bucket lets through in that time, and a little for what the clock does not see. */
    const allowed = ({ ms }: Received): number => {
      const { limitBytes } = tokenBucket(bits, 1500);
      return limitBytes + ((ms * bits) / 8000) * 1.1;
    };
    const assertLimited = async (family: number): Promise<void> => {
      assert.ok(free !== undefined && other !== undefined);
      assert.ok(slowIn !== undefined && slowOut !== undefined);
      const unlimited = await free.receive(other, ip(free, family));
      for (const [what, received] of [
        ["to", await slowIn.receive(free, ip(slowIn, family))],
        ["from", await free.receive(slowOut, ip(free, family))],
      ] as const) {
        assert.ok(received.bytes > 0, `${what} a limited pod nothing comes`);
        assert.ok(received.bytes <= allowed(received), `${what}: ${JSON.stringify(received)}`);
        assert.ok(unlimited.bytes > 10 * received.bytes, `${what}: ${JSON.stringify(unlimited)}`);
      }
    };

    before(async () => {
      stateDir = await mkdtemp(join(tmpdir(), "remora-bandwidth-"));
      await connectOutside();
      untouched = await inventory();
      network = create();
      await network.ensureNode(podCIDRs, signal);
      free = await add("free");
      other = await add("other");
      slowIn = await add("slow-in", { ingressBits: bits });
      slowOut = await add("slow-out", { egressBits: bits });
      for (const { config } of pods) {
        const { notLimited } = await network.setUp(config, signal);
        assert.equal(notLimited, undefined);
      }
    });

    after(async () => {
      for (const pod of pods) await pod.stop();
      await Machine.stopAll();
      await rm(stateDir, { recursive: true, force: true });
    });

    for (const [family, name] of ["IPv4", "IPv6"].entries()) {
      it(`what comes to a pod and what it sends is limited by ${name}, and nothing else`, async () => {
        await assertLimited(family);
        assert.ok(free !== undefined && slowIn !== undefined && slowOut !== undefined);
        // The other direction of each.
        for (const received of [
          await free.receive(slowIn, ip(free, family)),
          await slowOut.receive(free, ip(slowOut, family)),
        ]) {
          assert.ok(received.bytes > 10 * allowed(received), JSON.stringify(received));
        }
      });
    }

    it("what is limited comes whole", async () => {
      assert.ok(free !== undefined && slowIn !== undefined && slowOut !== undefined);
      assert.equal((await slowIn.receive(free, ip(slowIn, 0), 200_000)).bytes, 200_000);
      assert.equal((await free.receive(slowOut, ip(free, 0), 200_000)).bytes, 200_000);
    });

    it("a look at what is right changes nothing, also by the next process", async () => {
      const before = await sh("tc", "qdisc", "show");
      network = create();
      await network.ensureNode(podCIDRs, signal);
      assert.equal(await sh("tc", "qdisc", "show"), before);
      await assertLimited(0);
    });

    const into = vethName("slow-in");
    const from = vethName("slow-out");
    const intermediate = intermediateName("remora0", "slow-out");
    const damages: readonly (readonly [string, readonly (readonly [string, ...string[]])[]])[] = [
      ["the limit of what comes", [["tc", "qdisc", "del", "dev", into, "root"]]],
      ["another in its place", [["tc", "qdisc", "replace", "dev", into, "root", "pfifo"]]],
      ["the limit of what goes", [["tc", "qdisc", "del", "dev", intermediate, "root"]]],
      ["the filter", [["tc", "filter", "del", "dev", from, "ingress"]]],
      ["its hook", [["tc", "qdisc", "del", "dev", from, "ingress"]]],
      ["the device", [["ip", "link", "del", intermediate]]],
      ["the device down", [["ip", "link", "set", intermediate, "down"]]],
    ];
    for (const [name, commands] of damages) {
      it(`mended by the next look: ${name}`, async () => {
        for (const command of commands) await sh(...command);
        await network.ensureNode(podCIDRs, signal);
        await assertLimited(0);
      });
    }

    it("goes with the pod, and with a pod that vanished while nobody looked", async () => {
      await network.tearDown("slow-in", signal);
      assert.ok(slowOut !== undefined);
      assert.match(await sh("ip", "-o", "link"), new RegExp(intermediate));
      await network.collectGarbage(new Set(["free", "other"]), signal);
      assert.doesNotMatch(await sh("ip", "-o", "link"), / rm[bv]\w+[:@].*slow|\brmb/);
      // One whose lease is lost, and one of another agent on the same machine.
      const [lost, foreign] = [
        intermediateName("remora0", "lost"),
        intermediateName("other0", "lost"),
      ];
      for (const device of [lost, foreign]) {
        await sh("ip", "link", "add", "name", device, "type", "ifb");
      }
      await network.collectGarbage(new Set(["free", "other"]), signal);
      const links = await sh("ip", "-o", "link");
      assert.ok(!links.includes(lost) && links.includes(foreign), links);
      await sh("ip", "link", "del", foreign);
    });

    it("without tc a pod runs unlimited, and says so; it is limited when there is one", async () => {
      // Everything of the directory but tc; this mount namespace is the test's own.
      const real = join(stateDir, "sbin");
      await mkdir(real);
      await sh("mount", "--bind", "/usr/sbin", real);
      await sh("mount", "-t", "tmpfs", "none", "/usr/sbin");
      for (const name of await readdir(real)) {
        if (name !== "tc") await symlink(join(real, name), join("/usr/sbin", name));
      }
      const pod = await add("late", { ingressBits: bits });
      told.length = 0;
      const { ips, notLimited = "" } = await network.setUp(pod.config, signal);
      await network.ensureNode(podCIDRs, signal);
      await sh("umount", "/usr/sbin");
      await sh("umount", real);
      assert.equal(ips.length, 2);
      assert.match(notLimited, /^tc is not installed/);
      assert.deepEqual(told, ["warn the bandwidth of a pod cannot be limited, will retry"]);
      assert.ok(free !== undefined);
      const before = await pod.receive(free, ip(pod, 0));
      assert.ok(before.bytes > 10 * allowed(before), JSON.stringify(before));
      await network.ensureNode(podCIDRs, signal);
      assert.equal(told.at(-1), "info the bandwidth of a pod is limited now");
      const received = await pod.receive(free, ip(pod, 0));
      assert.ok(received.bytes <= allowed(received), JSON.stringify(received));
    });

    it("leaves nothing behind", async () => {
      const pod = await add("last", { ingressBits: bits, egressBits: bits });
      await network.setUp(pod.config, signal);
      await network.cleanUp(signal);
      assert.equal(await inventory(), untouched);
    });
  });
}
