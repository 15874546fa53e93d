import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { Container, Probe } from "../../../src/api/types.gen.ts";
import { Prober } from "../../../src/kubelet/pods/prober.ts";
import type { ProbeTarget } from "../../../src/kubelet/pods/probe-types.ts";
import type { ExecResult } from "../../../src/runtime/types.ts";
import { ManualClock, until } from "../api/manual-clock.ts";

const empty = new Uint8Array();

function target(
  probes: Pick<Container, "startupProbe" | "readinessProbe" | "livenessProbe">,
  more: Partial<ProbeTarget> & { readonly name?: string } = {},
): ProbeTarget {
  const { name = "web", ...rest } = more;
  const container: Container = { name, image: "app:1", ...probes };
  return {
    pod: {
      metadata: { name: "pod", namespace: "ns", uid: "uid-1", resourceVersion: "1" },
      spec: { containers: [container] },
    },
    entry: { role: "regular", container },
    containerID: `${name}-0`,
    startedAt: 1_700_000_000_000,
    podIP: "127.0.0.1",
    started: false,
    ...rest,
  };
}

function exec(word: string, more: Probe = {}): Probe {
  return { exec: { command: [word] }, ...more };
}

/** A prober on a clock that stands still, with commands that are answered by the test. */
class Bench implements AsyncDisposable {
  readonly clock = new ManualClock();
  readonly events: string[] = [];
  readonly wakes: string[] = [];
  /** Words of all commands so far. */
  readonly asked: string[] = [];
  random = 0;
  answer: (word: string, signal: AbortSignal) => Promise<Partial<ExecResult>> = async () => ({});
  readonly #stop = new AbortController();
  readonly prober = new Prober({
    runtime: {
      execSync: async (_, [word = ""], _limits, signal) => {
        this.asked.push(word);
        const answer = await this.answer(word, signal);
        return { exitCode: 0, stdout: empty, stderr: empty, timedOut: false, ...answer };
      },
    },
    events: {
      event: (_, type, reason, message) => {
        this.events.push(`${type} ${reason}: ${message}`);
      },
    },
    clock: this.clock,
    random: () => this.random,
    signal: this.#stop.signal,
    wake: (uid) => {
      this.wakes.push(uid);
    },
  });

  count(word: string): number {
    return this.asked.filter((each) => each === word).length;
  }

  /** Goes on by `seconds` and waits until `word` was asked for so often, and what it does is through. */
  async go(seconds: number, word: string, times: number): Promise<void> {
    this.clock.advance(seconds * 1000);
    await until(() => this.count(word) >= times, `${word} asked for ${times} times`);
    await this.settled();
    assert.equal(this.count(word), times);
  }

  /** All that can happen at this moment has happened. */
  async settled(): Promise<void> {
    for (let turns = 0; turns < 5; turns += 1) await new Promise((done) => setImmediate(done));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.prober.idle();
  }
}

describe("the prober", () => {
  test("flips a result only after so many in a row as its threshold says", async () => {
    await using bench = new Bench();
    const fails = [false, true, false, false, true, true, true];
    bench.answer = async () => ({ exitCode: fails[bench.asked.length - 1] === true ? 1 : 0 });
    const readinessProbe = exec("ready", { successThreshold: 2, failureThreshold: 3 });
    bench.prober.sync("uid-1", [target({ readinessProbe })], false);
    const results: (boolean | undefined)[] = [];
    for (let round = 1; round <= fails.length; round += 1) {
      await bench.go(round === 1 ? 0 : 10, "ready", round);
      results.push(bench.prober.readiness("web-0"));
    }
    assert.deepEqual(results, [undefined, undefined, undefined, true, true, true, false]);
    assert.deepEqual(bench.wakes, ["uid-1", "uid-1"]);
  });

  test("waits for initialDelaySeconds from the start of the container", async () => {
    await using bench = new Bench();
    const readinessProbe = exec("ready", { initialDelaySeconds: 7 });
    bench.prober.sync("uid-1", [target({ readinessProbe })], false);
    await bench.go(6.999, "ready", 0);
    await bench.go(0.001, "ready", 1);
  });

  test("holds the others until the startup probe is through; readiness then does not wait for its turn", async () => {
    await using bench = new Bench();
    let started = false;
    bench.answer = async (word) => ({ exitCode: word === "start" && !started ? 1 : 0 });
    const subject = target({
      startupProbe: exec("start", { periodSeconds: 3, failureThreshold: 30 }),
      readinessProbe: exec("ready", { periodSeconds: 60 }),
      livenessProbe: exec("alive"),
    });
    bench.prober.sync("uid-1", [subject], false);
    await bench.go(0, "start", 1);
    await bench.go(3, "start", 2);
    assert.deepEqual([bench.count("ready"), bench.count("alive")], [0, 0]);
    started = true;
    await bench.go(3, "start", 3);
    assert.equal(bench.prober.startup("web-0"), true);
    await bench.go(0, "ready", 1);
    assert.equal(bench.prober.readiness("web-0"), true);
    // What has started is not asked again.
    await bench.go(30, "start", 3);
    assert(bench.count("alive") > 0);
  });

  test("a liveness probe that has failed holds until its container is gone", async () => {
    await using bench = new Bench();
    bench.answer = async () => ({ exitCode: 1, stderr: Buffer.from("no") });
    const livenessProbe = exec("alive", { failureThreshold: 2 });
    const first = target({ livenessProbe });
    bench.prober.sync("uid-1", [first], false);
    await bench.go(0, "alive", 1);
    assert.equal(bench.prober.liveness("web-0"), undefined);
    await bench.go(10, "alive", 2);
    assert.equal(bench.prober.liveness("web-0"), false);
    await bench.go(100, "alive", 2);
    assert.deepEqual(bench.events, [
      "Warning Unhealthy: Liveness probe failed: no",
      "Warning Unhealthy: Liveness probe failed: no",
    ]);
    bench.answer = async () => ({});
    bench.prober.sync("uid-1", [{ ...first, containerID: "web-1" }], false);
    await bench.go(0, "alive", 3);
    assert.deepEqual(
      ["web-0", "web-1"].map((id) => bench.prober.liveness(id)),
      [undefined, true],
    );
  });

  test("a probe that cannot be made is tried three times, reported, and says nothing", async () => {
    await using bench = new Bench();
    bench.answer = async () => {
      throw new Error("no such exec");
    };
    const readinessProbe = exec("ready", { failureThreshold: 1 });
    bench.prober.sync("uid-1", [target({ readinessProbe })], false);
    await bench.go(0, "ready", 3);
    assert.equal(bench.prober.readiness("web-0"), undefined);
    assert.deepEqual(bench.events, [
      "Warning Unhealthy: Readiness probe errored and resulted in unknown state: no such exec",
    ]);
  });

  test("a command that takes too long fails, and the event says which and how long", async () => {
    await using bench = new Bench();
    bench.answer = async () => ({ timedOut: true, exitCode: 137 });
    const startupProbe = exec("start", { failureThreshold: 1, timeoutSeconds: 90 });
    bench.prober.sync("uid-1", [target({ startupProbe })], false);
    await bench.go(0, "start", 1);
    assert.equal(bench.prober.startup("web-0"), false);
    assert.deepEqual(bench.events, [
      'Warning Unhealthy: Startup probe failed: command timed out: "start" timed out after 1m30s',
    ]);
  });

  test("while the pod ends only readiness is probed", async () => {
    await using bench = new Bench();
    const subject = target({ readinessProbe: exec("ready"), livenessProbe: exec("alive") });
    bench.prober.sync("uid-1", [subject], false);
    await bench.go(0, "alive", 1);
    bench.prober.sync("uid-1", [subject], true);
    bench.answer = async () => ({ exitCode: 1 });
    await bench.go(10, "ready", 2);
    await bench.go(10, "ready", 3);
    await bench.go(10, "ready", 4);
    assert.equal(bench.prober.readiness("web-0"), false);
    assert.equal(bench.count("alive"), 1);
    assert.equal(bench.prober.liveness("web-0"), undefined);
  });

  test("a container that is gone takes its running probe with it", async () => {
    await using bench = new Bench();
    let aborted = false;
    bench.answer = (_, signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener("abort", () => {
          aborted = true;
          reject(signal.reason as Error);
        });
      });
    bench.prober.sync("uid-1", [target({ readinessProbe: exec("ready") })], false);
    await bench.go(0, "ready", 1);
    bench.prober.sync("uid-1", [], false);
    await bench.settled();
    assert(aborted);
    await bench.go(100, "ready", 1);
    assert.deepEqual(bench.events, []);
  });

  test("what started before the agent is probed at a random moment of the first period", async () => {
    await using bench = new Bench();
    bench.random = 0.5;
    const startedAt = 1_600_000_000_000;
    const readinessProbe = exec("ready", { initialDelaySeconds: 3 });
    bench.prober.sync("uid-1", [target({ readinessProbe }, { startedAt })], false);
    await bench.go(4.8, "ready", 0);
    await bench.go(0.2, "ready", 1);
  });

  test("what the API knows as started needs no startup probe from another agent", async () => {
    await using bench = new Bench();
    bench.answer = async (word) => ({ exitCode: word === "start" ? 1 : 0 });
    const probes = { startupProbe: exec("start"), livenessProbe: exec("alive") };
    bench.prober.sync("uid-1", [target(probes, { started: true })], false);
    await bench.go(0, "alive", 1);
    assert.equal(bench.prober.startup("web-0"), true);
    assert.equal(bench.count("start"), 0);
  });

  test("hundreds of probes need one timer", async () => {
    await using bench = new Bench();
    const targets = Array.from({ length: 300 }, (_, index) =>
      target({ readinessProbe: exec("ready") }, { name: `c${index}` }),
    );
    bench.prober.sync("uid-1", targets, false);
    await bench.go(0, "ready", 300);
    const before = bench.clock.sleeps.length;
    await bench.go(10, "ready", 600);
    await bench.go(10, "ready", 900);
    assert(bench.clock.sleeps.length - before <= 4, String(bench.clock.sleeps.length - before));
  });
});
