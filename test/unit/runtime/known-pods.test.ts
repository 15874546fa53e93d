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

const none: ReadonlyMap<string, ReadonlySet<string>> = new Map();

describe("what is known of pods", () => {
  it("is nothing while the engine's events are not heard", () => {
    const { pods } = known();
    pods.listening(false);
    pods.list()(new Map([["a", new Set(["1"])]]));
    pods.made("a", "2");
    assert.equal(pods.ids("a"), undefined);
  });

  it("includes that a pod has nothing, once everything was listed", () => {
    const { pods } = known();
    assert.equal(pods.ids("a"), undefined);
    pods.list()(none, "a");
    assert.equal(pods.ids("a"), undefined);
    pods.list()(none);
    assert.deepEqual(pods.ids("a"), new Set());
    pods.made("a", "1");
    assert.deepEqual(pods.ids("a"), new Set(["1"]));
  });

  it("ages", () => {
    const { clock, pods } = known();
    pods.list()(new Map([["a", new Set(["1"])]]));
    clock.advance(4_999);
    assert.deepEqual(pods.ids("a"), new Set(["1"]));
    clock.advance(1);
    assert.equal(pods.ids("a"), undefined);
    pods.made("a", "2");
    assert.equal(pods.ids("a"), undefined);
  });

  it("does not come from a list that was under way when the events were interrupted", () => {
    const { pods } = known();
    const listed = pods.list();
    pods.listening(true);
    listed(new Map([["a", new Set(["1"])]]));
    assert.equal(pods.ids("a"), undefined);
    assert.equal(pods.ids("b"), undefined);
  });

  it("is the truth whenever it is said to be known, however lists and changes overlap", () => {
    const uid = fc.constantFrom("a", "b");
    const step = fc.oneof(
      fc.record({ kind: fc.constant("make" as const), uid }),
      fc.record({ kind: fc.constant("foreign" as const), uid }),
      fc.record({ kind: fc.constant("begin" as const), uid: fc.option(uid, { nil: undefined }) }),
      fc.record({ kind: fc.constant("answer" as const) }),
      fc.record({ kind: fc.constant("finish" as const) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const { pods } = known();
        const truth = new Map<string, Set<string>>();
        const lists: {
          readonly take: ReturnType<KnownPods["list"]>;
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
          } else if (step.kind === "begin") lists.push({ take: pods.list(), only: step.uid });
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
            list?.take(list.shown ?? none, list.only);
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
