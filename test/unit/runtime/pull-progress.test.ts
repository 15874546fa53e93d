import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { PullSum } from "../../../src/runtime/docker/pull-progress.ts";

function sumOf(lines: readonly object[]): PullSum["progress"] {
  const sum = new PullSum();
  for (const line of lines) sum.note(line);
  return sum.progress;
}

const named = [
  { status: "Pulling from library/nginx", id: "1.27" },
  { status: "Pulling fs layer", progressDetail: {}, id: "a" },
  { status: "Pulling fs layer", progressDetail: {}, id: "b" },
  { status: "Waiting", progressDetail: {}, id: "b" },
];
const downloading = (id: string, current: number, total: number): object => ({
  status: "Downloading",
  progressDetail: { current, total },
  progress: "[==>  ]",
  id,
});

describe("the sum of a pull", () => {
  test("nothing is said before a layer is named", () => {
    assert.equal(sumOf(named.slice(0, 1)), undefined);
  });

  test("the whole is not known before all layers have said their size", () => {
    const one = [...named, downloading("a", 10, 100)];
    assert.deepEqual(sumOf(one), { doneBytes: 10, totalBytes: undefined, unpacking: false });
    assert.deepEqual(sumOf([...one, downloading("b", 1, 50)]), {
      doneBytes: 11,
      totalBytes: 150,
      unpacking: false,
    });
  });

  test("what is here counts in whole, also when its last bytes were not told", () => {
    const lines = [
      ...named,
      downloading("a", 10, 100),
      { status: "Download complete", progressDetail: {}, id: "a" },
      // So small that it was never told.
      { status: "Download complete", progressDetail: {}, id: "b" },
    ];
    assert.deepEqual(sumOf(lines), { doneBytes: 100, totalBytes: 100, unpacking: false });
    const unpacking = { status: "Extracting", progressDetail: { current: 5, total: 100 }, id: "a" };
    assert.deepEqual(sumOf([...lines, unpacking]), {
      doneBytes: 100,
      totalBytes: 100,
      unpacking: true,
    });
    // Where containerd keeps the images it counts seconds.
    const seconds = { status: "Extracting", progressDetail: { current: 3, units: "s" }, id: "a" };
    assert.equal(sumOf([...lines, seconds])?.doneBytes, 100);
  });

  test("one layer is unpacked while another still comes: that is a download", () => {
    const lines = [
      ...named,
      downloading("a", 100, 100),
      { status: "Extracting", progressDetail: { current: 5, total: 100 }, id: "a" },
      downloading("b", 5, 50),
    ];
    assert.deepEqual(sumOf(lines), { doneBytes: 105, totalBytes: 150, unpacking: false });
  });

  test("layers that were here before do not count", () => {
    const here = { status: "Already exists", progressDetail: {}, id: "a" };
    assert.deepEqual(sumOf([...named, here, downloading("b", 5, 50)]), {
      doneBytes: 5,
      totalBytes: 50,
      unpacking: false,
    });
  });

  test("what a layer lost on the way is not counted", () => {
    const lines = [...named.slice(0, 2), downloading("a", 90, 100), downloading("a", 3, 100)];
    assert.equal(sumOf(lines)?.doneBytes, 3);
  });

  test("lines of any other shape are passed over", () => {
    const sum = new PullSum();
    const lines: unknown[] = [
      undefined,
      "text",
      { status: 5, id: "a" },
      { status: "Downloading", id: "a", progressDetail: "much" },
      { status: "Downloading", id: "a", progressDetail: { current: -5, total: -1 } },
    ];
    for (const line of lines) sum.note(line);
    assert.deepEqual(sum.progress, { doneBytes: 0, totalBytes: undefined, unpacking: false });
    for (let index = 0; index < 5000; index += 1)
      sum.note({
        status: "Downloading",
        id: `l${index}`,
        progressDetail: { current: 1, total: 1 },
      });
    assert.ok((sum.progress?.doneBytes ?? 0) < 1100);
  });
});
