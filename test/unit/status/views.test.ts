import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import type { EventSummary, NodeSnapshot } from "../../../src/agent/local/types.ts";
import { asciiGlyphs, lineWidth, paint, unicodeGlyphs } from "../../../src/agent/status/lines.ts";
import {
  gatheredWarnings,
  statusLines,
  type ViewOptions,
} from "../../../src/agent/status/status-view.ts";
import {
  firstState,
  pressed,
  rowKeys,
  selectedIndex,
  type TopState,
} from "../../../src/agent/status/top-state.ts";
import { firstShown, topReport, topScreen } from "../../../src/agent/status/top-view.ts";
import { emptySnapshot, now, podOf } from "../../fakes/node-snapshots.ts";

const options: ViewOptions = { columns: 100, rows: 30, now, glyphs: unicodeGlyphs };

function statusText(snapshot: NodeSnapshot, more: Partial<ViewOptions> = {}): string {
  return statusLines(snapshot, { ...options, ...more })
    .map((line) => paint(line, "none"))
    .join("\n");
}

function topText(
  snapshot: NodeSnapshot,
  state: Partial<TopState> = {},
  more: Partial<ViewOptions> = {},
): string {
  return topScreen(snapshot, { ...firstState, ...state }, { ...options, ...more })
    .lines.map((line) => paint(line, "none"))
    .join("\n");
}

const web = podOf({ uid: "u1", name: "web-1", cpu: 0.5, memory: 10 });
const crash = podOf({
  uid: "u2",
  name: "crash",
  ready: false,
  readyContainers: 0,
  status: "CrashLoopBackOff",
  restarts: 7,
  why: 'container "web" keeps ending: exit code 1: no database',
  cpu: undefined,
  memory: undefined,
});
const slow = podOf({
  uid: "u3",
  name: "slow",
  namespace: "shop",
  phase: "Pending",
  ready: false,
  status: "ContainerCreating",
  why: 'image "big:1" is being pulled',
  cpu: 0.1,
  memory: 500,
});
const job = podOf({
  uid: "u4",
  name: "job",
  phase: "Succeeded",
  ready: false,
  status: "Completed",
});
const busy = emptySnapshot(
  {},
  {
    pods: [web, crash, slow, job],
    pulls: [
      {
        image: "registry:5000/big:1",
        started: "2026-03-01T11:59:48Z",
        doneBytes: 30 * 1024 ** 2,
        totalBytes: 60 * 1024 ** 2,
        pods: ["shop/slow"],
      },
    ],
    events: [
      {
        time: "2026-03-01T11:58:00Z",
        type: "Normal",
        reason: "Pulling",
        object: "Pod shop/slow",
        message: "Pulling image",
        count: 1,
      },
      {
        time: "2026-03-01T11:59:00Z",
        type: "Warning",
        reason: "BackOff",
        object: "Pod default/crash",
        message: "Back-off restarting failed container",
        count: 5,
      },
    ],
  },
);

describe("remora status", () => {
  test("of a node that is well: nobody is told of trouble", () => {
    const text = statusText(emptySnapshot({}, { pods: [web, job] }));
    assert.match(
      text,
      /host-1 {2}● Ready {2}up 3h, 130 MiB, remora 0\.1\.0, Kubernetes v1\.36\.2, docker:\/\/29\.7\.0/,
    );
    assert.match(text, /API +answers {2}https:\/\/127\.0\.0\.1:6443, last heartbeat 4s ago/);
    assert.match(text, /cpu +█{7}·{13} {2}35 % {2}0\.7 of 2 cores, pods ask for 0\.5/);
    assert.match(text, /pods +1 of 2 ready, 1 done, room for 109 more/);
    assert.match(
      text,
      /services 1 Service, 1 endpoint, nftables, last change 2m ago, it took 4 ms/,
    );
    assert.doesNotMatch(text, /warnings|pulling|job|web-1/);
  });

  test("names each pod that is not ready, with the sentence why; what does not mend itself comes first", () => {
    const text = statusText(busy);
    assert.match(
      text,
      /default\/crash +CrashLoopBackOff +120m, 7 restarts\n +container "web" keeps ending/,
    );
    assert.match(text, /shop\/slow +ContainerCreating.*\n +image "big:1" is being pulled/);
    assert.ok(text.search(/default\/crash +Crash/) < text.search(/shop\/slow +Cont/));
    assert.match(
      text,
      /registry:5000\/big:1 {2}█{10}·{10} {2}30 MiB of 60 MiB {2}12s {2}shop\/slow/,
    );
    assert.match(text, /60s {2}Pod default\/crash {2}BackOff x5 {2}Back-off restarting/);
  });

  test("of a node that is not Ready: why, and what of the machine presses", () => {
    const { node } = emptySnapshot();
    const text = statusText(
      emptySnapshot(
        {},
        {
          node: {
            ...node,
            ready: false,
            reason: "KubeletNotReady",
            message: "the container engine does not answer",
            apiServer: { ...node.apiServer, reachable: false },
            conditions: [
              {
                type: "DiskPressure",
                status: "True",
                reason: "KubeletHasDiskPressure",
                message: "kubelet has disk pressure",
                since: undefined,
              },
            ],
          },
        },
      ),
    );
    assert.match(text, /✗ not Ready/);
    assert.match(text, /the container engine does not answer/);
    assert.match(text, /DiskPressure: kubelet has disk pressure/);
    assert.match(text, /does not answer {2}https/);
  });

  test("pods without a node, and Services that nobody answers for", () => {
    const { services } = emptySnapshot();
    const waiting = podOf({
      name: "large",
      phase: "Pending",
      ready: false,
      status: "Pending",
      why: "no node takes it: 0/1 nodes are available: 1 Insufficient cpu",
    });
    const [listed] = services.list;
    assert.ok(listed !== undefined);
    const text = statusText(
      emptySnapshot(
        {},
        {
          unscheduled: [waiting],
          services: { ...services, list: [{ ...listed, name: "shop", ready: 0, total: 2 }] },
        },
      ),
    );
    assert.match(text, /0 of 0 ready, 1 without a node/);
    assert.match(text, /default\/large +Pending.*\n +no node takes it: .*Insufficient cpu/);
    assert.match(text, /default\/shop {2}none of its 2 endpoints is ready/);
  });

  test("a hundred pods in trouble fit into one screen, each on one line, and it says how many are left out", () => {
    const pods = Array.from({ length: 100 }, (_, index) => ({
      ...crash,
      uid: `u${index}`,
      name: `p${index}`,
    }));
    const text = statusText({ ...busy, pods }, { columns: 120 });
    assert.match(
      statusText({ ...busy, pods }),
      /default\/p0 +container "web" keeps ending: exit code 1/,
    );
    const lines = text.split("\n");
    assert.ok(lines.length <= 30, `${lines.length} lines`);
    assert.match(text, /default\/p0 +CrashLoopBackOff {2}container "web" keeps ending/);
    assert.match(text, /and \d+ more pods/);
    assert.match(text, /services/);
    const all = statusText({ ...busy, pods }, { rows: Number.POSITIVE_INFINITY });
    assert.match(all, /default\/p99/);
  });
});

describe("warnings", () => {
  const warning = (more: Partial<EventSummary>): EventSummary => ({
    time: "2026-03-01T11:59:00Z",
    type: "Warning",
    reason: "Failed",
    object: "Pod default/crash",
    message: "Error: ErrImagePull",
    count: 1,
    ...more,
  });

  test("of one reason about one thing are one, with the newest words and all that they count", () => {
    const told = gatheredWarnings([
      warning({ message: "first", count: 2 }),
      warning({ object: "Node host-1" }),
      warning({ message: "second", count: 3 }),
      warning({ type: "Normal", message: "well" }),
    ]);
    assert.deepEqual(
      told.map(({ count, message, object }) => [object, message, count]),
      [
        ["Pod default/crash", "second", 5],
        ["Node host-1", "Error: ErrImagePull", 1],
      ],
    );
  });

  test("about what is explained above come after those that nothing else tells", () => {
    const events = [warning({ object: "Node host-1" }), warning({})];
    const text = statusText({ ...busy, events });
    assert.ok(text.indexOf("Node host-1") < text.indexOf("Pod default/crash"), text);
  });
});

describe("remora top", () => {
  const press = (...keys: readonly string[]): TopState | undefined =>
    keys.reduce<TopState | undefined>(
      (state, key) => (state === undefined ? undefined : pressed(state, key, busy, 10)),
      firstState,
    );
  const order = (state: TopState | undefined): string =>
    state === undefined
      ? "ended"
      : rowKeys(busy, state)
          .map((key) => key.replace(/^u/, ""))
          .join("");

  test("sorts by what is asked for; pods without figures come last", () => {
    assert.equal(order(press()), "1342");
    assert.equal(order(press("c")).at(-1), "2");
    assert.equal(order(press("n")), "2413");
    assert.equal(order(press("r")).at(0), "2");
    assert.equal(order(press("m")).at(-1), "2");
  });

  test("the chosen row stays on its pod when rows move", () => {
    const state = press("n", "j", "j");
    assert.equal(state?.selected, "u1");
    assert.ok(state !== undefined);
    const moved = { ...busy, pods: [podOf({ uid: "u0", name: "aaa" }), ...busy.pods] };
    const index = selectedIndex(rowKeys(moved, state), state);
    assert.equal(index, 3);
    assert.match(topText(moved, state), /web-1/);
  });

  test("moves no further than the list is long", () => {
    assert.equal(press("n", "k")?.selected, "u2");
    assert.equal(press("n", "G")?.selected, "u3");
    assert.equal(press("n", "pagedown", "pagedown", "up")?.selected, "u1");
    assert.equal(press("n", "end", "home")?.selected, "u2");
  });

  test("filters while somebody types, and keys are letters then", () => {
    const typing = press("/", "q", "r");
    assert.equal(typing?.filter, "qr");
    assert.equal(order(press("/", "c", "r", "a")), "2");
    assert.equal(order(press("/", "S", "H", "O", "P", "enter")), "3");
    assert.equal(press("/", "a", "backspace", "backspace")?.typing, false);
    assert.equal(press("/", "a", "escape")?.filter, "");
    assert.equal(press("/", "x", "enter", "escape")?.filter, "");
    assert.match(topText(busy, { filter: "nowhere" }), /no pods with that in them/);
  });

  test("lists are turned by tab, arrows and numbers", () => {
    assert.equal(press("tab")?.tab, "services");
    assert.equal(press("shift-tab")?.tab, "events");
    assert.equal(press("right", "right", "right")?.tab, "pods");
    assert.equal(press("3")?.tab, "events");
    assert.equal(press("9")?.tab, "pods");
  });

  test("ends with q and with ctrl-c, also while somebody types", () => {
    assert.equal(press("q"), undefined);
    assert.equal(press("ctrl-c"), undefined);
    assert.equal(press("/", "a", "ctrl-c"), undefined);
  });

  test("shows why the chosen pod is not ready", () => {
    assert.match(topText(busy, { selected: "u2" }), /container "web" keeps ending/);
    assert.doesNotMatch(topText(busy, { selected: "u1" }), /keeps ending/);
  });

  test("the other lists", () => {
    const services = topText(busy, { tab: "services" });
    assert.match(services, /kubernetes +ClusterIP +10\.96\.0\.1 +443\/TCP +1\/1/);
    const events = topText(busy, { tab: "events" });
    assert.ok(events.indexOf("BackOff") < events.indexOf("Pulling image"), "the newest first");
  });

  test("the window follows the chosen row and stays within the list", () => {
    assert.deepEqual(
      [
        firstShown(0, 100, 10),
        firstShown(50, 100, 10),
        firstShown(99, 100, 10),
        firstShown(2, 3, 10),
      ],
      [0, 45, 90, 0],
    );
  });

  test("without a terminal it is a report of all pods", () => {
    const text = topReport(busy, { order: "name" }, { ...options, columns: 160, rows: Infinity })
      .map((line) => paint(line, "none"))
      .join("\n");
    assert.match(text, /NAMESPACE +POD +READY +STATUS +RESTARTS +CPU +MEMORY +AGE +IP/);
    assert.match(text, /default +web-1 +1\/1 +Running +0 +0\.5 .* 10 B +120m +10\.244\.0\.5/);
    assert.match(text, /default +crash +0\/1 +CrashLoopBackOff +7 +120m/);
  });
});

const nasty = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        "\u001B[2J",
        "\u001B]0;x\u0007",
        "\n",
        "\u0000",
        "\u009B1m",
        "\u202E",
        "日本",
      ),
      fc.string({ unit: "binary", maxLength: 10 }),
      fc.constant("a-rather-long-name-of-something"),
    ),
    { maxLength: 6 },
  )
  .map((parts) => parts.join(""));

const anySnapshot = fc
  .record({
    name: nasty,
    ready: fc.boolean(),
    message: nasty,
    pods: fc.array(
      fc.record({
        name: nasty,
        namespace: nasty,
        status: nasty,
        why: nasty,
        ip: nasty,
        created: nasty,
        ready: fc.boolean(),
        restarts: fc.nat(100_000),
        cpu: fc.option(fc.float({ min: 0, max: 1000, noNaN: true }), { nil: undefined }),
      }),
      { maxLength: 8 },
    ),
    image: nasty,
    bytes: fc.nat(),
    total: fc.option(fc.nat(), { nil: undefined }),
    capacity: fc.nat(1000),
    events: fc.array(fc.record({ object: nasty, reason: nasty, message: nasty, time: nasty }), {
      maxLength: 8,
    }),
  })
  .map((any): NodeSnapshot => {
    const base = emptySnapshot();
    const [service] = base.services.list;
    return {
      ...base,
      agent: { ...base.agent, version: any.name, started: any.message },
      node: {
        ...base.node,
        name: any.name,
        ready: any.ready,
        message: any.message,
        runtime: any.name,
      },
      pods: any.pods.map((pod, index) => podOf({ ...pod, uid: String(index) })),
      unscheduled: any.pods.slice(0, 1).map((pod) => podOf({ ...pod, uid: "" })),
      pulls: [
        {
          image: any.image,
          started: any.message,
          doneBytes: any.bytes,
          totalBytes: any.total,
          pods: any.pods.map(({ name }) => name),
        },
      ],
      services: {
        ...base.services,
        list:
          service === undefined
            ? []
            : any.pods.map(({ name, namespace }) => ({
                ...service,
                name,
                namespace,
                ports: [name],
                localPods: [namespace],
                ready: 0,
                total: 1,
              })),
      },
      usage: { ...base.usage, cpuCapacity: any.capacity },
      events: any.events.map((event) => ({ ...event, type: "Warning", count: 2 })),
    };
  });

describe("any snapshot on any terminal", () => {
  test("fits into it, and has nothing in it that steers the terminal", () => {
    const size = fc.record({
      columns: fc.integer({ min: 20, max: 200 }),
      rows: fc.integer({ min: 10, max: 60 }),
      glyphs: fc.constantFrom(unicodeGlyphs, asciiGlyphs),
    });
    const anyState = fc.record({
      tab: fc.constantFrom("pods" as const, "services" as const, "events" as const),
      order: fc.constantFrom("cpu" as const, "memory" as const, "name" as const),
      filter: fc.constantFrom("", "a", "\u001B[2J"),
      typing: fc.boolean(),
      selected: fc.constantFrom(undefined, "0", "5", "gone"),
    });
    fc.assert(
      fc.property(anySnapshot, size, anyState, (snapshot, at, state) => {
        const given = { ...at, now };
        for (const lines of [
          statusLines(snapshot, given),
          topScreen(snapshot, state, given).lines,
        ]) {
          assert.ok(lines.length <= at.rows, `${lines.length} lines on ${at.rows} rows`);
          for (const line of lines) {
            const text = paint(line, "none");
            assert.ok(lineWidth(line) <= at.columns, `${lineWidth(line)} wide: ${text}`);
            assert.doesNotMatch(text, /[\p{Cc}\p{Cs}\u202A-\u202E]/u);
          }
        }
      }),
      { numRuns: 150 },
    );
  });
});
