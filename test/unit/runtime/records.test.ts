import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { ownership } from "../../../src/runtime/docker/labels.ts";
import {
  containerRecord,
  type InspectedContainer,
  type ListedContainer,
  parseInspected,
  parseListed,
  parseTime,
  podRecords,
  stateOf,
  stillDescribes,
} from "../../../src/runtime/docker/records.ts";

const zero = "0001-01-01T00:00:00Z";

function inspect(state: object, over: object = {}): InspectedContainer {
  return parseInspected({
    Id: "c1",
    Created: "2026-01-01T00:00:00.5Z",
    Image: "sha256:i",
    State: { StartedAt: zero, FinishedAt: zero, ExitCode: 0, Pid: 0, ...state },
    Config: { Labels: {} },
    ...over,
  });
}

function listed(id: string, labels: Record<string, string>, state = "running"): ListedContainer {
  return parseListed({ Id: id, Created: 5, State: state, Status: "Up 2 hours", Labels: labels });
}

function podLabels(type: string, name: string, attempt: number): Record<string, string> {
  return {
    "io.kubernetes.pod.uid": "u1",
    "io.kubernetes.pod.name": "web",
    "io.kubernetes.pod.namespace": "default",
    "io.kubernetes.container.name": name,
    "io.kubernetes.docker.type": type,
    "remora.io/attempt": String(attempt),
  };
}

describe("images that a container is shown", () => {
  const image = `sha256:${"2".repeat(64)}`;
  const Mounts = [
    { Type: "bind", Source: "/a", Destination: "/b" },
    { Type: "image", Name: image, Source: "/engine/layer/merged", Destination: "/content" },
    { Type: "image", Name: "2".repeat(64), Source: "/engine/other/merged", Destination: "/part" },
  ];
  it("are read from the list as from inspect", () => {
    const entry = parseListed({ Id: "c1", State: "running", Labels: {}, Mounts });
    const seen = inspect({ Status: "running" }, { Mounts });
    assert.deepEqual(entry.mountedImages, [image]);
    assert.deepEqual(seen.mountedImages, [image]);
    assert.deepEqual(containerRecord(entry, undefined).mountedImages, [image]);
    assert.equal("mountedImages" in containerRecord(listed("c2", {}), undefined), false);
  });
});

describe("stateOf", () => {
  const created = Date.parse("2026-01-01T00:00:00.5Z");
  const times = { StartedAt: "2026-01-01T00:00:01Z", FinishedAt: "2026-01-01T00:00:02Z" };
  const cases = [
    { name: "never started", state: { Status: "created" }, kind: "created" },
    { name: "runs", state: { Status: "running", Pid: 9, ...times }, kind: "running" },
    { name: "is paused by hand", state: { Status: "paused", Pid: 9 }, kind: "running" },
    { name: "ended", state: { Status: "exited", ExitCode: 3, ...times }, kind: "exited" },
    { name: "could not be removed", state: { Status: "dead", ...times }, kind: "exited" },
    { name: "has a state nobody knows", state: { Status: "fancy" }, kind: "unknown" },
  ];
  for (const { name, state, kind } of cases) {
    it(`is ${kind} when the container ${name}`, () => {
      assert.equal(stateOf(inspect(state)).kind, kind);
    });
  }

  it("is exited with the engine's text when the start failed", () => {
    assert.deepEqual(
      stateOf(inspect({ Status: "created", ExitCode: 127, Error: "no such file" })),
      {
        kind: "exited",
        createdAt: created,
        startedAt: 0,
        finishedAt: created,
        exitCode: 127,
        oomKilled: false,
        error: "no such file",
      },
    );
  });
});

describe("podRecords", () => {
  it("groups by uid and orders by attempt, not by creation time", () => {
    const entries = [
      listed("a0", podLabels("container", "app", 0)),
      listed("s1", podLabels("podsandbox", "POD", 1)),
      listed("a2", podLabels("container", "app", 2)),
      listed("s0", podLabels("podsandbox", "POD", 0), "exited"),
      listed("tmp", podLabels("accounts", "", 0)),
    ].map((entry) => ({ listed: entry, inspected: undefined }));
    const pod = podRecords(entries).get("u1");
    assert.deepEqual(
      pod?.sandboxes.map(({ id, ready }) => [id, ready]),
      [
        ["s1", true],
        ["s0", false],
      ],
    );
    assert.deepEqual(
      pod?.containers.map(({ id, attempt, state }) => [id, attempt, state.kind]),
      [
        ["a2", 2, "unknown"],
        ["a0", 0, "unknown"],
      ],
    );
    assert.equal(pod?.namespace, "default");
  });
});

describe("stillDescribes", () => {
  const running = inspect({ Status: "running", StartedAt: "2026-01-01T00:00:00Z" });
  const now = Date.parse("2026-01-01T05:00:00Z");

  it("trusts an inspect while the list shows the same state", () => {
    assert.equal(stillDescribes(running, listed("c1", {}), now), true);
    assert.equal(stillDescribes(running, listed("c1", {}, "exited"), now), false);
  });

  it("sees that somebody restarted the container by hand", () => {
    const young = { ...listed("c1", {}), status: "Up 3 seconds" };
    assert.equal(stillDescribes(running, young, now), false);
    assert.equal(stillDescribes(running, young, Date.parse("2026-01-01T00:00:04Z")), true);
  });

  it("sees another exit code", () => {
    const exited = inspect({ Status: "exited", ExitCode: 1 });
    const entry = { ...listed("c1", {}, "exited"), status: "Exited (137) 2 hours ago" };
    assert.equal(stillDescribes(exited, entry, now), false);
  });

  it("never trusts a created container: its start may have failed since", () => {
    const entry = { ...listed("c1", {}, "created"), status: "Created" };
    assert.equal(stillDescribes(inspect({ Status: "created" }), entry, now), false);
  });
});

describe("ownership", () => {
  const owner = { nodeName: "n", scope: "" };
  const labels = { "remora.io/node": "n", "remora.io/schema": "1" };
  it("takes only our node, our scope and our layout", () => {
    assert.equal(ownership(labels, owner), "ours");
    assert.equal(ownership({ ...labels, "remora.io/schema": "2" }, owner), "newer");
    assert.equal(ownership({ ...labels, "remora.io/node": "m" }, owner), "foreign");
    assert.equal(ownership({ ...labels, "remora.io/scope": "t" }, owner), "foreign");
    assert.equal(ownership({ "remora.io/node": "n" }, owner), "foreign");
    assert.equal(ownership({}, owner), "foreign");
  });
});

describe("parseTime", () => {
  it("knows nanoseconds and Docker's zero time", () => {
    assert.equal(parseTime("2026-01-01T00:00:00.123456789Z"), Date.UTC(2026, 0, 1, 0, 0, 0, 123));
    assert.equal(parseTime(zero), 0);
    assert.equal(parseTime(undefined), 0);
  });
});

describe("as whom a container was started", () => {
  const userOf = (text: string | undefined): unknown =>
    containerRecord(listed("c", text === undefined ? {} : { "remora.io/user": text }), undefined)
      .user;
  const user = { uid: 1, gid: 2, supplementalGroups: [2, 3] };
  it("is read from its label", () => {
    assert.deepEqual(userOf(JSON.stringify(user)), user);
  });
  for (const text of [undefined, "", "{", "[]", "{}", '{"uid":1,"gid":"2"}', '{"uid":1,"gid":2}']) {
    it(`is not known with the label ${String(text)}`, () => {
      assert.equal(userOf(text), undefined);
    });
  }
});
