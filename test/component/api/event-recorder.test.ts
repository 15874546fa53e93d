import assert from "node:assert/strict";
import { describe, it } from "node:test";

import {
  createEventRecorder,
  type EventPatience,
  eventPatience,
  type RunningRecorder,
} from "../../../src/api/event-recorder.ts";
import type { EventTarget } from "../../../src/api/event-types.ts";
import type { Stored } from "../../../src/api/object.ts";
import { EVENTS } from "../../../src/api/resources.ts";
import type { Event } from "../../../src/api/types.gen.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { type FakeApiServer, startFakeApiServer } from "../../fakes/api-server.ts";
import { ManualClock, until } from "./manual-clock.ts";

const pod: EventTarget = {
  kind: "Pod",
  apiVersion: "v1",
  namespace: "shop",
  name: "web",
  uid: "u-1",
  fieldPath: "spec.containers{c}",
};

interface Scene {
  readonly server: FakeApiServer;
  readonly recorder: RunningRecorder;
  readonly clock: ManualClock;
  readonly events: () => Stored<Event>[];
  readonly stop: () => Promise<void>;
}

async function scene(
  body: (scene: Scene) => Promise<void>,
  patience: EventPatience = { quietMs: 0, maxMs: 0 },
): Promise<void> {
  const server = await startFakeApiServer();
  const clock = new ManualClock();
  const abort = new AbortController();
  const recorder = createEventRecorder({
    client: server.client,
    component: "kubelet",
    host: "n1",
    clock,
    logger: silentLogger,
    random: () => 0.5,
    patience,
  });
  const running = recorder.run(abort.signal);
  const stop = async (): Promise<void> => {
    abort.abort();
    await running;
  };
  try {
    await body({ server, recorder, clock, events: () => server.list(EVENTS), stop });
  } finally {
    await stop();
    await server.close();
  }
}

describe("event recorder", () => {
  it("sends Normal events when no more of them come", () =>
    scene(async ({ recorder, events, clock }) => {
      recorder.event(pod, "Normal", "Created", "Container created");
      await until(() => clock.sleeping);
      clock.advance(499);
      recorder.event(pod, "Normal", "Started", "Container started");
      clock.advance(1);
      await until(() => clock.sleeps.length === 2 && clock.sleeping);
      assert.equal(events().length, 0);
      clock.advance(499);
      await until(() => events().length === 2);
      assert.deepEqual(
        events().map(({ reason }) => reason),
        ["Created", "Started"],
      );
    }, eventPatience));

  it("sends a Normal event after three seconds whatever still comes", () =>
    scene(async ({ recorder, events, clock }) => {
      for (let at = 0; at < 3000; at += 300) {
        assert.equal(events().length, 0);
        recorder.event({ ...pod, uid: `u-${at}` }, "Normal", "Created", "Container created");
        await until(() => clock.sleeping);
        clock.advance(300);
      }
      await until(() => events().length > 0);
    }, eventPatience));

  it("sends a Warning at once, behind what came before it", () =>
    scene(async ({ recorder, events, clock }) => {
      recorder.event(pod, "Normal", "Created", "Container created");
      await until(() => clock.sleeping);
      recorder.event(pod, "Warning", "Failed", "Error: no such file");
      await until(() => events().length === 2);
      assert.deepEqual(
        events().map(({ reason }) => reason),
        ["Created", "Failed"],
      );
      recorder.event(pod, "Normal", "Created", "Container created");
      await until(() => clock.sleeping);
      assert.equal(events().length, 2);
    }, eventPatience));

  it("writes an event with everything kubectl describe shows", () =>
    scene(async ({ recorder, events, clock }) => {
      recorder.event(pod, "Normal", "Pulled", "Container image already present");
      await until(() => events().length === 1);
      const [event] = events();
      assert.ok(event !== undefined);
      assert.match(event.metadata.name, /^web\.[0-9a-f]{16}$/);
      assert.equal(event.metadata.namespace, "shop");
      assert.deepEqual(event.involvedObject, pod);
      assert.deepEqual(event.source, { component: "kubelet", host: "n1" });
      assert.equal(event.reportingComponent, "kubelet");
      assert.equal(event.reportingInstance, "n1");
      assert.equal(event.count, 1);
      const now = `${new Date(clock.now()).toISOString().slice(0, 19)}Z`;
      assert.equal(event.firstTimestamp, now);
      assert.equal(event.lastTimestamp, now);
    }));

  it("puts events about the node into the default namespace", () =>
    scene(async ({ recorder, events }) => {
      const node = { kind: "Node", apiVersion: "v1", namespace: "", name: "n1", uid: "n1" };
      recorder.event(node, "Normal", "Starting", "Starting kubelet.");
      await until(() => events().length === 1);
      assert.equal(events()[0]?.metadata.namespace, "default");
      assert.equal(events()[0]?.involvedObject.namespace, undefined);
    }));

  it("counts the same event instead of writing it again", () =>
    scene(async ({ recorder, events, clock }) => {
      recorder.event(pod, "Warning", "BackOff", "Back-off restarting");
      await until(() => events().length === 1);
      clock.advance(20_000);
      recorder.event(pod, "Warning", "BackOff", "Back-off restarting");
      await until(() => events()[0]?.count === 2);
      const [event] = events();
      assert.equal(events().length, 1);
      assert.notEqual(event?.firstTimestamp, event?.lastTimestamp);
    }));

  it("creates a counted event again when the server has forgotten it", () =>
    scene(async ({ server, recorder, events }) => {
      recorder.event(pod, "Warning", "BackOff", "again");
      await until(() => events().length === 1);
      const name = events()[0]?.metadata.name ?? "";
      server.remove(EVENTS, `shop/${name}`);
      recorder.event(pod, "Warning", "BackOff", "again");
      await until(() => events().length === 1);
      assert.equal(events()[0]?.count, 2);
      assert.equal(events()[0]?.metadata.name, name);
    }));

  it("combines the tenth similar event and those that follow", () =>
    scene(async ({ recorder, events }) => {
      for (let index = 0; index < 12; index += 1) {
        recorder.event(pod, "Warning", "Unhealthy", `probe failed: try ${index}`);
      }
      const combined = (): Stored<Event> | undefined =>
        events().find(({ message }) => message?.startsWith("(combined from similar events): "));
      await until(() => combined()?.count === 3);
      assert.equal(events().length, 10);
      assert.equal(combined()?.message, "(combined from similar events): probe failed: try 11");
    }));

  it("lets 25 events of one object pass, then one each five minutes", () =>
    scene(async ({ server, recorder, clock }) => {
      for (let index = 0; index < 40; index += 1) {
        recorder.event(pod, "Normal", `Reason${index}`, "m");
      }
      recorder.event({ ...pod, name: "other", uid: "u-2" }, "Normal", "Last", "m");
      const reasons = (): number => server.list(EVENTS).length;
      await until(() => server.list(EVENTS).some(({ reason }) => reason === "Last"));
      assert.equal(reasons(), 26);
      clock.advance(301_000);
      recorder.event(pod, "Normal", "Later", "m");
      recorder.event(pod, "Normal", "TooMany", "m");
      recorder.event({ ...pod, name: "other", uid: "u-2" }, "Normal", "Last2", "m");
      await until(() => server.list(EVENTS).some(({ reason }) => reason === "Last2"));
      assert.equal(reasons(), 28);
    }));

  it("keeps an event while the server is away and counts it once", () =>
    scene(async ({ server, recorder, events, clock }) => {
      server.inject(() => true, "reset", 2);
      recorder.event(pod, "Normal", "Started", "Container started");
      await until(() => clock.sleeping);
      clock.advance(10_000);
      await until(() => server.requests.length === 2 && clock.sleeping);
      clock.advance(10_000);
      await until(() => events().length === 1);
      assert.equal(events()[0]?.count, 1);
      assert.deepEqual(clock.sleeps, [5000, 10_000]);
    }));

  it("gives an event up that the server refuses", () =>
    scene(async ({ server, recorder, events }) => {
      server.inject(() => true, { status: 403, reason: "Forbidden" });
      recorder.event(pod, "Normal", "A", "m");
      recorder.event(pod, "Normal", "B", "m");
      await until(() => events().length === 1);
      assert.equal(events()[0]?.reason, "B");
      assert.equal(server.requests.length, 2);
    }));

  it("never grows without limit and never throws", () =>
    scene(async ({ server, recorder, stop }) => {
      server.inject(() => true, "hang", 1);
      recorder.event(pod, "Normal", "First", "m");
      await until(() => server.requests.length === 1);
      for (let index = 0; index < 5000; index += 1) {
        recorder.event({ ...pod, uid: `u-${index}` }, "Normal", "Flood", "m");
      }
      await stop();
      assert.ok(server.requests.length > 10 && server.requests.length <= 1002);
    }));

  it("sends what is queued when it is stopped", () =>
    scene(async ({ server, recorder, events, clock, stop }) => {
      server.inject(() => true, "reset", 1);
      recorder.event(pod, "Normal", "Killing", "Stopping container c");
      await until(() => clock.sleeping);
      recorder.event(pod, "Normal", "Shutdown", "bye");
      await stop();
      assert.deepEqual(
        events().map(({ reason, count }) => [reason, count]),
        [
          ["Killing", 1],
          ["Shutdown", 1],
        ],
      );
    }));
});
