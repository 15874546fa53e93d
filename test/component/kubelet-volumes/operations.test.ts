import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { Operations, type Standing } from "../../../src/kubelet/volumes/operations.ts";
import { ManualClock } from "../api/manual-clock.ts";

/** Until everything that can go on by itself has. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

interface Stage {
  readonly clock: ManualClock;
  readonly operations: Operations<string>;
  readonly settled: string[];
  readonly stop: AbortController;
}

function stage(): Stage {
  const clock = new ManualClock();
  const stop = new AbortController();
  const settled: string[] = [];
  const operations = new Operations<string>({
    clock,
    signal: stop.signal,
    onSettled: (group) => settled.push(group),
  });
  return { clock, operations, settled, stop };
}

const { signal } = new AbortController();

async function roundAt(
  { clock, operations }: Stage,
  works: Readonly<Record<string, (stop: AbortSignal) => Promise<string>>>,
  ms: number,
): Promise<ReadonlyMap<string, Standing<string>>> {
  const round = operations.round("pod", new Map(Object.entries(works)), "", signal);
  await settle();
  clock.advance(ms);
  await settle();
  return round;
}

function kinds(standings: ReadonlyMap<string, Standing<string>>): Record<string, string> {
  return Object.fromEntries([...standings].map(([key, { kind }]) => [key, kind]));
}

describe("work on volumes", () => {
  it("that hangs or fails keeps no other from being done and told", async () => {
    const at = stage();
    const hang = Promise.withResolvers<string>();
    const standings = await roundAt(
      at,
      {
        hangs: async () => hang.promise,
        fails: async () => Promise.reject(new Error("no")),
        works: async () => "yes",
      },
      1000,
    );
    assert.deepEqual(kinds(standings), { hangs: "running", fails: "failed", works: "done" });
    hang.resolve("late");
    await settle();
    assert.deepEqual(at.settled, ["pod"], "who did not wait for it is told");
  });

  it("that hangs eight times does not hold up the ninth for longer than a round lasts", async () => {
    const at = stage();
    const never = new Promise<string>(() => undefined);
    const works = Object.fromEntries(
      Array.from({ length: 20 }, (_, index) => [`h${index}`, async () => never]),
    );
    const standings = await roundAt(at, { ...works, last: async () => "yes" }, 1000);
    assert.equal(standings.get("last")?.kind, "done");
  });

  it("is waited for once, not by every look at the pod", async () => {
    const at = stage();
    const never = new Promise<string>(() => undefined);
    await roundAt(at, { hangs: async () => never }, 1000);
    const again = at.operations.round("pod", new Map([["hangs", async () => never]]), "", signal);
    assert.deepEqual(kinds(await again), { hangs: "running" });
  });

  it("that fails waits half a second, then twice as long each time, up to two minutes", async () => {
    const at = stage();
    let tries = 0;
    const fails = async (): Promise<string> => {
      tries += 1;
      return Promise.reject(new Error("no"));
    };
    const waits: number[] = [];
    for (let round = 0; round < 10; round += 1) {
      const standing = (await roundAt(at, { fails }, 0)).get("fails");
      assert.equal(standing?.kind, "failed");
      assert.equal(standing.news, true);
      const unchanged = (await roundAt(at, { fails }, 0)).get("fails");
      assert.equal(unchanged?.kind === "failed" && unchanged.news, false, "told once");
      const wait = standing.retryAt - at.clock.monotonic();
      waits.push(wait);
      at.clock.advance(wait);
    }
    assert.equal(tries, 10);
    assert.deepEqual(
      waits,
      [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 122_000, 122_000],
    );
  });

  it("that failed is done at once when something has changed", async () => {
    const at = stage();
    let there = false;
    const work = async (): Promise<string> =>
      there ? "found" : Promise.reject(new Error("not found"));
    await roundAt(at, { work }, 0);
    there = true;
    assert.equal((await roundAt(at, { work }, 0)).get("work")?.kind, "failed");
    at.operations.changed("pod");
    assert.deepEqual((await roundAt(at, { work }, 0)).get("work"), {
      kind: "done",
      value: "found",
    });
  });

  for (const what of [
    "is taken as it is",
    "with another basis is done anew",
    "that is stale is done anew",
  ]) {
    it(`that an interrupted look began ${what} by the next one`, async () => {
      const at = stage();
      const first = Promise.withResolvers<string>();
      const interrupt = new AbortController();
      const before = at.operations.round(
        "pod",
        new Map([["work", async () => first.promise]]),
        "1",
        interrupt.signal,
      );
      await settle();
      interrupt.abort();
      await assert.rejects(before, { name: "AbortError" });
      const basis = what.startsWith("with another") ? "2" : "1";
      if (what.startsWith("that is stale")) at.operations.changed("pod");
      const next = new Map([["work", async () => "new"]]);
      const after = at.operations.round("pod", next, basis, signal);
      await settle();
      first.resolve("old");
      const value = what.startsWith("is taken") ? "old" : "new";
      assert.deepEqual((await after).get("work"), { kind: "done", value });
    });
  }

  it("that always takes longer than a look waits is done once for each, not for ever", async () => {
    const at = stage();
    let begun = 0;
    let finish = (): void => undefined;
    const slow = async (): Promise<string> => {
      begun += 1;
      await new Promise<void>((resolve) => {
        finish = resolve;
      });
      return `${begun}`;
    };
    for (const turn of [1, 2]) {
      assert.equal((await roundAt(at, { slow }, 1000)).get("slow")?.kind, "running");
      finish();
      await settle();
      assert.equal(at.settled.length, turn);
      assert.deepEqual((await roundAt(at, { slow }, 0)).get("slow"), {
        kind: "done",
        value: `${turn}`,
      });
      assert.equal(begun, turn);
    }
  });

  it("ends when it is told to; what does not is named, and waited for until it has", async () => {
    const at = stage();
    const stuck = Promise.withResolvers<string>();
    const obeys = async (stop: AbortSignal): Promise<string> =>
      new Promise((_, reject) => {
        stop.addEventListener("abort", () => reject(new DOMException("stopped", "AbortError")));
      });
    await roundAt(at, { obeys, stuck: async () => stuck.promise }, 1000);
    const stopping = at.operations.stop("pod", signal);
    await settle();
    at.clock.advance(1000);
    assert.deepEqual(await stopping, ["stuck"]);
    stuck.resolve("");
    await settle();
    assert.deepEqual(await at.operations.stop("pod", signal), []);
  });

  it("that does not end does not keep the agent from ending", async () => {
    const at = stage();
    await roundAt(at, { hangs: async () => new Promise<string>(() => undefined) }, 1000);
    at.stop.abort();
    const idle = at.operations.idle();
    await settle();
    at.clock.advance(5000);
    await idle;
  });

  it("ends with the agent, and is waited for", async () => {
    const at = stage();
    let ended = false;
    const work = async (stop: AbortSignal): Promise<string> => {
      await new Promise<void>((resolve) => {
        stop.addEventListener("abort", () => resolve());
      });
      ended = true;
      return "";
    };
    await roundAt(at, { work }, 1000);
    at.stop.abort();
    await at.operations.idle();
    assert.equal(ended, true);
    assert.deepEqual(at.settled, []);
  });
});
