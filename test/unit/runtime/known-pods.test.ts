import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";

import { KnownPods } from "../../../src/runtime/docker/known-pods.ts";
import { ManualClock } from "../../component/api/manual-clock.ts";

function known(): { readonly clock: ManualClock; readonly pods: KnownPods } {
  const clock = new ManualClock();
  const pods = new KnownPods(clock);
  pods.listening(true);
  return { clock, pods };
}

type Shown = ReadonlyMap<string, ReadonlySet<string>>;

const none: Shown = new Map();

/** A list under way; it ends when its function is called. */
function begin(pods: KnownPods, only?: string): (shown: Shown | Error) => Promise<void> {
  const { promise, reject, resolve } = Promise.withResolvers<{ pods: Shown; of: undefined }>();
  const done = pods.list(async () => promise, only);
  return async (shown) => {
    if (shown instanceof Error) reject(shown);
    else resolve({ pods: shown, of: undefined });
    await done.catch(() => undefined);
  };
}

describe("what is known of pods", () => {
  it("is nothing while the engine's events are not heard", async () => {
    const { pods } = known();
    pods.listening(false);
    await begin(pods)(new Map([["a", new Set(["1"])]]));
    pods.made("a", "2");
    assert.equal(pods.ids("a"), undefined);
  });

  it("includes that a pod has nothing, once everything was listed", async () => {
    const { pods } = known();
    assert.equal(pods.ids("a"), undefined);
    await begin(pods, "a")(none);
    assert.equal(pods.ids("a"), undefined);
    await begin(pods)(none);
    assert.deepEqual(pods.ids("a"), new Set());
    pods.made("a", "1");
    assert.deepEqual(pods.ids("a"), new Set(["1"]));
  });

  it("ages", async () => {
    const { clock, pods } = known();
    await begin(pods)(new Map([["a", new Set(["1"])]]));
    clock.advance(4_999);
    assert.deepEqual(pods.ids("a"), new Set(["1"]));
    clock.advance(1);
    assert.equal(pods.ids("a"), undefined);
    pods.made("a", "2");
    assert.equal(pods.ids("a"), undefined);
  });

  it("does not come from a list that was under way when the events were interrupted", async () => {
    const { pods } = known();
    const listed = begin(pods);
    pods.listening(true);
    await listed(new Map([["a", new Set(["1"])]]));
    assert.equal(pods.ids("a"), undefined);
    assert.equal(pods.ids("b"), undefined);
  });

  it("does not come from a list that failed", async () => {
    const { pods } = known();
    await begin(pods)(new Error("no answer"));
    assert.equal(pods.ids("a"), undefined);
    await begin(pods)(none);
    assert.deepEqual(pods.ids("a"), new Set());
  });

  it("is the truth whenever it is said to be known, however lists and changes overlap", async () => {
    const uid = fc.constantFrom("a", "b");
    const step = fc.oneof(
      fc.record({ kind: fc.constant("make" as const), uid }),
      fc.record({ kind: fc.constant("foreign" as const), uid }),
      fc.record({ kind: fc.constant("begin" as const), uid: fc.option(uid, { nil: undefined }) }),
      fc.record({ kind: fc.constant("answer" as const) }),
      fc.record({ kind: fc.constant("finish" as const) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const { pods } = known();
        const truth = new Map<string, Set<string>>();
        const lists: {
          readonly take: ReturnType<typeof begin>;
          readonly only: string | undefined;
          shown?: Map<string, Set<string>>;
        }[] = [];
        let next = 0;
        const add = (to: string): string => {
          next += 1;
          truth.set(to, new Set([...(truth.get(to) ?? []), String(next)]));
          return String(next);
        };
        for (const step of steps) {
          if (step.kind === "make") pods.made(step.uid, add(step.uid));
          else if (step.kind === "foreign") {
            add(step.uid);
            pods.doubt(step.uid);
          } else if (step.kind === "begin")
            lists.push({ take: begin(pods, step.uid), only: step.uid });
          else if (step.kind === "answer") {
            const list = lists.find(({ shown }) => shown === undefined);
            if (list !== undefined) {
              list.shown = new Map(
                [...truth].filter(([of]) => list.only === undefined || of === list.only),
              );
            }
          } else {
            const at = lists.findIndex(({ shown }) => shown !== undefined);
            const [list] = at < 0 ? [] : lists.splice(at, 1);
            await list?.take(list.shown ?? none);
          }
          for (const pod of ["a", "b"]) {
            const ids = pods.ids(pod);
            if (ids !== undefined) assert.deepEqual(ids, truth.get(pod) ?? new Set());
          }
        }
      }),
      { numRuns: 2000 },
    );
  });
});
