import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Lines, retryMs } from "../../../src/agent/dashboard/page/model/lines.ts";
import type { UsagePoint } from "../../../src/agent/dashboard/page/model/messages.ts";
import {
  emptyState,
  noticeOf,
  receive,
  titleOf,
} from "../../../src/agent/dashboard/page/model/state.ts";
import { pod, snapshot } from "../../component/dashboard/snapshots.ts";

const nodeTime = Date.parse("2026-03-01T12:00:00Z");
/** The browser is an hour behind. */
const browserTime = nodeTime - 3_600_000;

function point(time: number, cpu: number): UsagePoint {
  return [time, cpu, 0, 0, 0, 0];
}

const known = receive(
  emptyState,
  {
    now: nodeTime,
    link: { state: "live" },
    snapshot: snapshot(nodeTime),
    usage: [point(100, 1), point(105, 1)],
  },
  browserTime,
);

describe("what the page knows", () => {
  test("members that did not change stay", () => {
    const { node, pods } = snapshot(nodeTime);
    const next = receive(
      known,
      { now: nodeTime, link: { state: "live" }, snapshot: { node: { ...node, ready: false } } },
      browserTime,
    );
    assert.equal(next.snapshot?.node.ready, false);
    assert.deepEqual(next.snapshot?.pods, pods);
  });

  test("a message without a snapshot is a sign of life", () => {
    const next = receive(known, { now: nodeTime, link: { state: "live" } }, browserTime + 5);
    assert.equal(next.snapshot, known.snapshot);
    assert.equal(next.heard, browserTime + 5);
  });

  test("the last point comes again until it is complete", () => {
    const next = receive(
      known,
      { now: nodeTime, link: { state: "live" }, usage: [point(105, 3), point(110, 4)] },
      browserTime,
    );
    assert.deepEqual(next.usage, [point(100, 1), point(105, 3), point(110, 4)]);
  });

  test("points of a clock that was put back replace what was later", () => {
    const next = receive(
      known,
      { now: nodeTime, link: { state: "live" }, usage: [point(50, 9)] },
      browserTime,
    );
    assert.deepEqual(next.usage, [point(50, 9)]);
  });

  test("no more than an hour is kept", () => {
    const next = receive(
      known,
      { now: nodeTime, link: { state: "live" }, usage: [point(3704, 1)] },
      browserTime,
    );
    assert.deepEqual(
      next.usage.map(([time]) => time),
      [105, 3704],
    );
  });
});

describe("what the page says about its data", () => {
  const open = { state: "open" } as const;

  test("nothing while all is well, by whatever clock", () => {
    assert.deepEqual(noticeOf(known, open, browserTime + 9000), {
      tone: "good",
      label: "Live",
      text: "",
    });
  });

  test("the agent is away: since when, why, and how old the data is by the node's clock", () => {
    const away = receive(
      known,
      {
        now: nodeTime + 60_000,
        link: { state: "away", since: nodeTime, why: "the agent has ended", remedy: "start it" },
      },
      browserTime + 60_000,
    );
    assert.deepEqual(noticeOf(away, open, browserTime + 65_000), {
      tone: "bad",
      label: "Agent away",
      text: "No word from the agent for 65s. The agent has ended. Start it. What you see is 65s old.",
    });
  });

  test("the dashboard is away: when it is tried again", () => {
    const { label, text } = noticeOf(
      known,
      { state: "closed", retryAt: browserTime + 4000 },
      browserTime + 1500,
    );
    assert.equal(label, "Disconnected");
    assert.equal(text, "remora dashboard does not answer. Next try in 3s. What you see is 1s old.");
  });

  test("an open connection that says nothing is not believed", () => {
    assert.equal(noticeOf(known, open, browserTime + 26_000).label, "Silent");
  });

  test("a refusal is told before there is any data", () => {
    const { text, tone } = noticeOf(emptyState, { state: "refused", why: "No." }, 0);
    assert.deepEqual([text, tone], ["No.", "bad"]);
  });

  test("the first connection is no alarm, a later one is", () => {
    assert.equal(noticeOf(emptyState, { state: "connecting" }, 0).text, "");
    assert.match(noticeOf(known, { state: "connecting" }, browserTime).text, /Connecting/);
    assert.equal(noticeOf(emptyState, open, 0).label, "Waiting");
  });

  test("the tab's title counts pods in trouble and marks old data", () => {
    const troubled = receive(
      known,
      {
        now: nodeTime,
        link: { state: "live" },
        snapshot: { pods: [pod({ name: "a", ready: false, status: "CrashLoopBackOff" })] },
      },
      browserTime,
    );
    assert.equal(titleOf(known, noticeOf(known, open, browserTime)), "node-a - Remora");
    assert.equal(titleOf(troubled, noticeOf(troubled, open, browserTime)), "(1) node-a - Remora");
    assert.equal(
      titleOf(troubled, noticeOf(troubled, { state: "connecting" }, browserTime)),
      "? node-a - Remora",
    );
    assert.equal(titleOf(emptyState, noticeOf(emptyState, open, 0)), "Remora");
  });
});

describe("the feed in the page", () => {
  test("pieces become lines wherever they were cut", () => {
    const text = '{"a":1}\n{"b":"é"}\n\n{"c":3}\n';
    for (let cut = 0; cut <= text.length; cut += 1) {
      const lines = new Lines();
      const got = [...lines.push(text.slice(0, cut)), ...lines.push(text.slice(cut))];
      assert.deepEqual(got, ['{"a":1}', '{"b":"é"}', '{"c":3}']);
    }
    assert.deepEqual(new Lines().push("not complete"), []);
  });

  test("pauses grow to ten seconds and are never the same for all pages", () => {
    assert.deepEqual(
      [1, 2, 3, 5, 6, 100].map((failures) => retryMs(failures, 1)),
      [500, 1000, 2000, 8000, 10_000, 10_000],
    );
    assert.equal(retryMs(1, 0), 350);
  });
});
