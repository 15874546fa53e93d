import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  clicked,
  matchesEvent,
  matchesPod,
  matchesService,
  podTone,
  serviceTone,
  sortPods,
  usualOrder,
  wordsOf,
} from "../../../src/agent/dashboard/page/model/pods.ts";
import { event, pod, service } from "../../component/dashboard/snapshots.ts";

describe("pods of the dashboard", () => {
  const cases: readonly (readonly [ReturnType<typeof pod>, string])[] = [
    [pod({ name: "runs" }), "good"],
    [pod({ name: "starts", phase: "Pending", ready: false, status: "ContainerCreating" }), "busy"],
    [pod({ name: "inits", phase: "Pending", ready: false, status: "Init:1/3" }), "busy"],
    [pod({ name: "inits badly", phase: "Pending", ready: false, status: "Init:Error" }), "bad"],
    [pod({ name: "not ready", ready: false }), "busy"],
    [pod({ name: "loops", ready: false, status: "CrashLoopBackOff" }), "bad"],
    [pod({ name: "is held", phase: "Pending", ready: false, status: "SchedulingGated" }), "busy"],
    [pod({ name: "ends", ready: false, status: "Terminating" }), "busy"],
    [pod({ name: "ends, ready", status: "Terminating" }), "busy"],
    [pod({ name: "done", phase: "Succeeded", ready: false, status: "Completed" }), "idle"],
    [pod({ name: "failed", phase: "Failed", ready: false, status: "Error" }), "bad"],
    [pod({ name: "evicted", phase: "Failed", ready: false, status: "Evicted" }), "bad"],
  ];
  for (const [each, tone] of cases) {
    test(`one that ${each.name} (${each.status}) is ${tone}`, () =>
      assert.equal(podTone(each), tone));
  }

  const names = (pods: readonly { readonly name: string }[]): string =>
    pods.map(({ name }) => name).join(" ");

  test("those that want a person come first, then by name", () => {
    const all = [
      pod({ name: "b" }),
      pod({ name: "c", ready: false, status: "CrashLoopBackOff" }),
      pod({ name: "a" }),
      pod({ name: "d", ready: false, status: "ContainerCreating" }),
    ];
    assert.equal(names(sortPods(all, usualOrder)), "c d a b");
    assert.equal(names(all), "b c a d", "the given list stays");
  });

  test("columns sort by what they mean", () => {
    const all = [
      pod({ name: "a", cpu: 0.5, created: "2026-03-01T10:00:00Z", ip: "10.0.0.20", restarts: 1 }),
      pod({ name: "b", cpu: undefined, created: "2026-03-01T11:00:00Z", ip: "10.0.0.3" }),
      pod({ name: "c", cpu: 2, created: "2026-03-01T09:00:00Z", ip: "", restarts: 12 }),
    ];
    const by = (column: Parameters<typeof clicked>[1], descending = false): string =>
      names(sortPods(all, { column, descending }));
    assert.equal(by("cpu", true), "c a b");
    assert.equal(by("age"), "b a c", "the youngest first");
    assert.equal(by("ip"), "c b a", "10.0.0.3 before 10.0.0.20");
    assert.equal(by("restarts", true), "c a b");
    assert.equal(by("name", true), "c b a");
  });

  test("a click sorts, another turns it round; figures begin with the largest", () => {
    const byMemory = clicked(usualOrder, "memory");
    assert.deepEqual(byMemory, { column: "memory", descending: true });
    assert.deepEqual(clicked(byMemory, "memory"), { column: "memory", descending: false });
    assert.deepEqual(clicked(byMemory, "name"), { column: "name", descending: false });
  });

  test("a search finds all of its words, in any order and case", () => {
    const each = pod({ name: "cart-1", namespace: "shop", why: "waits for its image" });
    assert.ok(matchesPod(each, wordsOf(" IMAGE shop/cart ")));
    assert.ok(!matchesPod(each, wordsOf("cart default")));
    assert.ok(matchesPod(each, wordsOf("")));
    assert.ok(matchesService(service({ name: "x", localPods: ["shop/cart-1"] }), ["cart-1"]));
    assert.ok(!matchesService(service({ name: "x" }), ["cart-1"]));
    assert.ok(matchesEvent(event({ reason: "BackOff" }), ["backoff"]));
  });

  test("a Service is as well as its endpoints are", () => {
    const tone = (ready: number, total: number): string =>
      serviceTone(service({ name: "x", ready, total }));
    assert.deepEqual(
      [tone(0, 0), tone(0, 2), tone(1, 2), tone(2, 2)],
      ["idle", "bad", "busy", "good"],
    );
  });
});
