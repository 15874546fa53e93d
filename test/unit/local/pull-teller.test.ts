import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { PullTeller } from "../../../src/agent/local/pull-teller.ts";
import type { ImagePull } from "../../../src/kubelet/types.ts";

const MiB = 1024 ** 2;

function pull(doneMiB: number | undefined, more: Partial<ImagePull> = {}): ImagePull {
  const progress =
    doneMiB === undefined
      ? undefined
      : { doneBytes: doneMiB * MiB, totalBytes: 58 * MiB, unpacking: false };
  const about = { image: "r.test/app:1", startedAt: 0, pods: ["default/web"] };
  return { ...about, queued: false, progress, ...more };
}

describe("somebody who watches an agent that fetches images", () => {
  test("is told of those that take their time, when they get on, and not too often", () => {
    const teller = new PullTeller();
    assert.deepEqual(teller.lines([pull(undefined)], 2000), [], "most are here by then");
    assert.deepEqual(teller.lines([pull(undefined)], 3000), [
      "pulling r.test/app:1 for default/web: nothing has come yet (3s)",
    ]);
    assert.deepEqual(teller.lines([pull(5)], 4000), []);
    assert.deepEqual(teller.lines([pull(12)], 8000), [
      "pulling r.test/app:1 for default/web: 12 MiB of 58 MiB (8s)",
    ]);
    assert.deepEqual(teller.lines([pull(12)], 60_000), [], "nothing has changed");
    const unpacking = { doneBytes: 58 * MiB, totalBytes: 58 * MiB, unpacking: true };
    assert.deepEqual(teller.lines([pull(0, { progress: unpacking })], 61_000), [
      "pulling r.test/app:1 for default/web: unpacking 58 MiB (61s)",
    ]);
    assert.deepEqual(teller.lines([], 62_000), []);
  });

  test("is told of an image that waits for others, and of the next pull of the same anew", () => {
    const teller = new PullTeller();
    assert.deepEqual(teller.lines([pull(undefined, { queued: true })], 3000), [
      "pulling r.test/app:1 for default/web: waits until others are pulled (3s)",
    ]);
    teller.lines([], 4000);
    const words = { doneBytes: MiB, totalBytes: undefined, unpacking: false };
    assert.deepEqual(teller.lines([pull(0, { startedAt: 2000, progress: words })], 5000), [
      "pulling r.test/app:1 for default/web: 1.0 MiB so far (3s)",
    ]);
  });

  test("gets no control characters out of names", () => {
    const teller = new PullTeller();
    const [line = ""] = teller.lines([pull(1, { image: "a\u001B[2Jb" })], 5000);
    assert.equal(line, "pulling ab for default/web: 1.0 MiB of 58 MiB (5s)");
  });
});
