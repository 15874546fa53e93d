import assert from "node:assert/strict";
import { describe, it } from "node:test";

import type { Standing } from "../../../src/kubelet/volumes/operations.ts";
import {
  ResolveError,
  SetUpError,
  SetUpReport,
} from "../../../src/kubelet/volumes/set-up-report.ts";

function at(ms: number): { monotonic: () => number } {
  return { monotonic: () => ms };
}

const done: Standing<undefined> = { kind: "done", value: undefined };
const running: Standing<undefined> = { kind: "running" };

function failed(error: Error, retryAt = 500, news = true): Standing<undefined> {
  return { kind: "failed", error, news, retryAt };
}

const notFound = new SetUpError(
  "FailedMount",
  "MountVolume.SetUp",
  "x",
  new Error('configmap "c" not found'),
);

describe("the report on a pod's volumes", () => {
  it("of volumes that are all done has nothing to tell", () => {
    const report = new SetUpReport();
    assert.deepEqual(report.of(new Map([["a", done]]), new Set(["a"]), at(0)), {
      ready: true,
      current: true,
      problems: [],
      retryInMs: undefined,
    });
  });

  it("tells each failure once, in upstream's words", () => {
    const report = new SetUpReport();
    const first = report.of(
      new Map([
        ["x", failed(notFound)],
        ["y", done],
      ]),
      new Set(["y"]),
      at(0),
    );
    assert.deepEqual(first.problems, [
      {
        reason: "FailedMount",
        message: 'MountVolume.SetUp failed for volume "x" : configmap "c" not found',
      },
    ]);
    assert.equal(first.ready, false);
    assert.equal(first.retryInMs, 500);
    const again = report.of(new Map([["x", failed(notFound, 500, false)]]), new Set(), at(100));
    assert.deepEqual(again.problems, []);
    assert.equal(again.retryInMs, 400);
  });

  it("names what could not be processed together with all that is not mounted", () => {
    const report = new SetUpReport();
    const standings = new Map([
      ["b", failed(new ResolveError(new Error('persistentvolumeclaim "p" not found')))],
      ["a", running],
      ["c", done],
    ]);
    assert.deepEqual(report.of(standings, new Set(["c"]), at(0)).problems, [
      {
        reason: "FailedMount",
        message:
          'Unable to attach or mount volumes: unmounted volumes=[a b], unattached volumes=[], failed to process volumes=[b]: persistentvolumeclaim "p" not found',
      },
    ]);
  });

  it("tells of waiting after two minutes and three seconds, and again after as long", () => {
    const report = new SetUpReport();
    const standings = new Map([["x", running]]);
    assert.equal(report.of(standings, new Set(), at(0)).retryInMs, 123_000);
    assert.deepEqual(report.of(standings, new Set(), at(122_000)).problems, []);
    const [problem] = report.of(standings, new Set(), at(123_000)).problems;
    assert.equal(
      problem?.message,
      "Unable to attach or mount volumes: unmounted volumes=[x], unattached volumes=[], failed to process volumes=[]: context deadline exceeded",
    );
    assert.deepEqual(report.of(standings, new Set(), at(124_000)).problems, []);
    assert.equal(report.of(standings, new Set(), at(246_000)).problems.length, 1);
  });

  it("lets containers start with what was ready before, though it is not current", () => {
    const report = new SetUpReport();
    const result = report.of(new Map([["x", failed(notFound)]]), new Set(["x"]), at(0));
    assert.equal(result.ready, true);
    assert.equal(result.current, false);
    assert.equal(result.problems.length, 1);
  });
});
