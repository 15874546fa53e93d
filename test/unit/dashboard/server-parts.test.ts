import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import { hasToken, isLoopback, refusal } from "../../../src/agent/dashboard/requests.ts";
import { Sections } from "../../../src/agent/dashboard/sections.ts";
import { UsageHistory } from "../../../src/agent/dashboard/usage-history.ts";
import { pod, snapshot } from "../../component/dashboard/snapshots.ts";

const now = Date.parse("2026-03-01T12:00:00Z");

describe("sections of a snapshot", () => {
  const told = (text: string | undefined): unknown => JSON.parse(text ?? "null");

  test("the first is told whole", () => {
    const sections = new Sections();
    sections.replace(snapshot(now));
    assert.deepEqual(told(sections.changedSince(0)), { ...snapshot(now), unscheduled: [] });
  });

  test("pods that no node has are gone with the agent that knew them", () => {
    const sections = new Sections();
    sections.replace(snapshot(now, { unscheduled: [pod({ name: "waits" })] }));
    const first = sections.version;
    sections.replace(snapshot(now));
    assert.deepEqual(told(sections.changedSince(first)), {
      schema: 1,
      time: snapshot(now).time,
      unscheduled: [],
    });
  });

  test("afterwards only what has changed is, with the time of the newest", () => {
    const sections = new Sections();
    sections.replace(snapshot(now));
    const first = sections.version;
    sections.replace(snapshot(now, { time: "2026-03-01T12:00:05.000Z", pulls: [] }));
    assert.equal(sections.changedSince(first), undefined, "a time alone is no news");
    const pods = [pod({ name: "other" })];
    sections.replace(snapshot(now, { time: "2026-03-01T12:00:06.000Z", pods }));
    assert.deepEqual(told(sections.changedSince(first)), {
      schema: 1,
      time: "2026-03-01T12:00:06.000Z",
      pods,
    });
  });

  test("who was told long ago is told each member once, as it is now", () => {
    const sections = new Sections();
    sections.replace(snapshot(now));
    const first = sections.version;
    sections.replace(snapshot(now, { pods: [] }));
    sections.replace(snapshot(now, { pods: [], events: [] }));
    sections.replace(snapshot(now, { pods: [pod({ name: "last" })], events: [] }));
    assert.deepEqual(told(sections.changedSince(first)), {
      schema: 1,
      time: snapshot(now).time,
      pods: [pod({ name: "last" })],
      events: [],
    });
  });
});

describe("the history of usage", () => {
  const usage = (cpu: number): Parameters<UsageHistory["add"]>[1] => ({
    ...snapshot(now).usage,
    cpu,
  });
  const cpus = (history: UsageHistory, since?: number): readonly (readonly number[])[] =>
    history.since(since).map(([time, cpu]) => [time, cpu]);

  test("points are means over five seconds", () => {
    const history = new UsageHistory();
    for (const [second, cpu] of [
      [0, 1],
      [2, 2],
      [4, 3],
      [5, 8],
    ] as const) {
      history.add(second * 1000, usage(cpu));
    }
    assert.deepEqual(cpus(history), [
      [0, 2],
      [5, 8],
    ]);
  });

  test("the last point that was told comes again", () => {
    const history = new UsageHistory();
    for (const second of [0, 5, 10]) history.add(second * 1000, usage(1));
    assert.deepEqual(cpus(history, 5), [
      [5, 1],
      [10, 1],
    ]);
  });

  test("an hour is kept and no more", () => {
    const history = new UsageHistory();
    for (let second = 0; second < 5000; second += 5) history.add(second * 1000, usage(1));
    assert.equal(history.since().length, 720);
    assert.equal(history.since()[0]?.[0], 4995 - 3595);
  });

  test("a clock that is put back begins anew, also for pages that know later points", () => {
    const history = new UsageHistory();
    history.add(9_000_000, usage(1));
    history.add(1_000_000, usage(2));
    assert.deepEqual(cpus(history), [[1000, 2]]);
    assert.deepEqual(cpus(history, 9000), [[1000, 2]]);
  });
});

describe("requests of the dashboard", () => {
  const status = (headers: Record<string, string>, method = "GET"): number | undefined =>
    refusal({ headers, method })?.status;

  for (const host of [
    "127.0.0.1:10300",
    "localhost:10300",
    "LOCALHOST",
    "[::1]:10300",
    "127.8.9.1:1",
  ]) {
    test(`the host ${host} is this machine`, () => assert.equal(status({ host }), undefined));
  }

  for (const host of [
    "",
    "evil.example:10300",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "192.168.1.20:10300",
    "0.0.0.0:10300",
    "[::]:10300",
    "[::1",
    "127.0.0.1:10300@evil.example",
    "127.0.0.1:10300, evil.example",
    "::1",
    "2130706433",
  ]) {
    test(`the host ${host || "(none)"} is not`, () => assert.equal(status({ host }), 403));
  }

  test("no host at all is refused", () => assert.equal(status({}), 403));

  test("other origins and sites are refused", () => {
    const host = "localhost:10300";
    assert.equal(status({ host, origin: "http://localhost:10300" }), undefined);
    assert.equal(status({ host, origin: "http://localhost:8080" }), 403);
    assert.equal(status({ host, origin: "null" }), 403);
    assert.equal(status({ host, "sec-fetch-site": "same-origin" }), undefined);
    assert.equal(status({ host, "sec-fetch-site": "none" }), undefined);
    assert.equal(status({ host, "sec-fetch-site": "same-site" }), 403);
    assert.equal(status({ host, "sec-fetch-site": "cross-site" }), 403);
  });

  test("nothing but reading", () => {
    const host = "localhost";
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"]) {
      assert.equal(status({ host }, method), 405);
    }
    assert.equal(status({ host }, "HEAD"), undefined);
  });

  test("the token opens and nothing else does", () => {
    const token = "pQ3-Zm0_x9vAAbbCCddEEf";
    const opens = (authorization: string | undefined): boolean =>
      hasToken({ headers: authorization === undefined ? {} : { authorization } }, token);
    assert.ok(opens(`Bearer ${token}`));
    for (const wrong of [
      undefined,
      "",
      "Bearer ",
      token,
      `Basic ${token}`,
      `Bearer ${token}x`,
      `Bearer ${token.slice(1)}`,
      `Bearer ${token.slice(0, -1)}`,
      `Bearer ${token} `,
      `Bearer ${token.toLowerCase()}`,
    ]) {
      assert.ok(!opens(wrong), wrong);
    }
    fc.assert(fc.property(fc.string(), (other) => !opens(`Bearer ${other}`)));
  });

  test("addresses of loopback are known", () => {
    for (const ip of ["127.0.0.1", "127.255.0.3", "::1", "0:0:0:0:0:0:0:1"]) {
      assert.ok(isLoopback(ip), ip);
    }
    for (const ip of ["0.0.0.0", "::", "10.0.0.1", "localhost", "", "fe80::1"]) {
      assert.ok(!isLoopback(ip), ip);
    }
  });
});
