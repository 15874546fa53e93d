import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { VolumesInUse } from "../../../src/kubelet/volumes/in-use.ts";

describe("volumes in use", () => {
  it("are those of pods, each once, in order", () => {
    const inUse = new VolumesInUse();
    inUse.add("b", "one");
    inUse.add("a", "one");
    inUse.add("b", "other");
    assert.deepEqual(inUse.list(undefined), ["a", "b"]);
  });

  it("are nothing to report where there never were any", () => {
    const inUse = new VolumesInUse();
    inUse.restore([]);
    assert.equal(inUse.list(undefined), undefined);
    assert.deepEqual(inUse.list(["gone"]), []);
  });

  it("stay until they are dropped, and while a pod has them", () => {
    const inUse = new VolumesInUse();
    inUse.add("a", "one");
    inUse.drop("a");
    assert.deepEqual(inUse.list([]), ["a"]);
    inUse.release("a", "one");
    assert.deepEqual(inUse.list([]), ["a"]);
    inUse.restore([]);
    inUse.drop("a");
    assert.deepEqual(inUse.list(["a"]), []);
  });

  it("of before a restart stay until the disk was looked at", () => {
    const inUse = new VolumesInUse();
    inUse.add("new", "one");
    assert.deepEqual(inUse.list(["old", "older"]), ["new", "old", "older"]);
    inUse.restore(["old", "not attachable"]);
    assert.deepEqual(inUse.list(["old", "older"]), ["new", "old"]);
    inUse.drop("old");
    assert.deepEqual(inUse.list(["new", "old"]), ["new"]);
  });

  it("tell when the list may have changed, and only then", () => {
    const inUse = new VolumesInUse();
    let told = 0;
    const end = inUse.subscribe(() => (told += 1));
    inUse.add("a", "one");
    inUse.add("a", "other");
    assert.equal(told, 1);
    inUse.release("a", "one");
    inUse.drop("a");
    assert.equal(told, 1);
    inUse.release("a", "other");
    inUse.drop("a");
    assert.equal(told, 2);
    end();
    inUse.add("b", "one");
    assert.equal(told, 2);
  });
});
