import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { eventSummary, RecentEvents } from "../../../src/agent/local/recent-events.ts";
import type { EventTarget, EventType } from "../../../src/api/event-types.ts";

const pod: EventTarget = { kind: "Pod", apiVersion: "v1", namespace: "a", name: "p", uid: "u" };

function world(): {
  tell: (
    at: number,
    type: EventType,
    reason: string,
    message: string,
    target?: EventTarget,
  ) => void;
  recent: RecentEvents;
  told: string[];
} {
  const time = { now: 0 };
  const clock = { now: () => time.now, monotonic: () => 0, sleep: () => Promise.resolve() };
  const recent = new RecentEvents(clock);
  const told: string[] = [];
  const recorder = recent.listenTo({
    event: (_, __, reason) => told.push(reason),
    run: () => Promise.resolve(),
  });
  const tell: ReturnType<typeof world>["tell"] = (at, type, reason, message, target = pod) => {
    time.now = at;
    recorder.event(target, type, reason, message);
  };
  return { tell, recent, told };
}

describe("recent events", () => {
  test("all are told on; what says the same is one, and then the newest", () => {
    const { recent, tell, told } = world();
    tell(1000, "Warning", "FailedMount", "x");
    tell(2000, "Normal", "Pulled", "y");
    tell(3000, "Warning", "FailedMount", "x");
    assert.deepEqual(told, ["FailedMount", "Pulled", "FailedMount"]);
    assert.deepEqual(
      recent.list().map(({ at, count, reason }) => [reason, count, at]),
      [
        ["Pulled", 1, 2000],
        ["FailedMount", 2, 3000],
      ],
    );
    const [, last] = recent.list().map(eventSummary);
    assert.deepEqual(last, {
      time: "1970-01-01T00:00:03.000Z",
      type: "Warning",
      reason: "FailedMount",
      object: "Pod a/p",
      message: "x",
      count: 2,
    });
  });

  test("two hundred are kept, none for longer than an hour, and none at any length", () => {
    const { recent, tell } = world();
    for (let index = 0; index < 1000; index += 1) tell(index, "Normal", "R", `m${index}`);
    assert.equal(recent.list().length, 200);
    assert.equal(recent.list()[0]?.message, "m800");
    tell(3_600_000 + 900, "Normal", "Long", "x".repeat(5000));
    const messages = recent.list().map(({ message }) => message);
    assert.equal(messages[0], "m900");
    assert.equal(messages.at(-1)?.length, 1024);
  });

  test("an object of the cluster has no namespace in front", () => {
    const { recent, tell } = world();
    tell(1, "Normal", "Starting", "x", { ...pod, kind: "Node", namespace: "", name: "n" });
    assert.deepEqual(recent.list().map(eventSummary)[0]?.object, "Node n");
  });
});
