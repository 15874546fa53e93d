import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import type { Stored } from "../../../src/api/object.ts";
import type { PersistentVolume } from "../../../src/api/types.gen.ts";
import { decideData } from "../../../src/kubelet/local-volumes/decide.ts";

const node = { name: "n1", labels: { "kubernetes.io/hostname": "host-1" } };
const directory = "/srv/volumes";
const at = "2026-01-01T00:00:00Z";

interface Parts {
  readonly path?: string;
  readonly provisioner?: string;
  readonly host?: string;
  readonly deleting?: boolean;
  readonly finalizers?: string[];
  readonly phase?: "Available" | "Bound" | "Released" | "Failed";
  readonly policy?: "Delete" | "Retain";
}

function volume(parts: Parts = {}): Stored<PersistentVolume> {
  const { provisioner = "remora.io/local", host = "host-1" } = parts;
  const { finalizers = ["remora.io/local-data"], phase = "Released", policy = "Delete" } = parts;
  const affinity = { key: "kubernetes.io/hostname", operator: "In", values: [host] };
  return {
    metadata: {
      name: "pvc-1",
      uid: "u",
      resourceVersion: "1",
      finalizers,
      annotations: { "pv.kubernetes.io/provisioned-by": provisioner },
      deletionTimestamp: parts.deleting === true ? at : undefined,
    },
    spec: {
      capacity: { storage: "1Ki" },
      local: { path: parts.path ?? `${directory}/pvc-1_default_data` },
      nodeAffinity: { required: { nodeSelectorTerms: [{ matchExpressions: [affinity] }] } },
      persistentVolumeReclaimPolicy: policy,
    },
    status: { phase },
  } as Stored<PersistentVolume>;
}

function decide(parts: Parts): ReturnType<typeof decideData> {
  return decideData(volume(parts), node, directory);
}

describe("what a node owes a volume", () => {
  const path = `${directory}/pvc-1_default_data`;

  test("its directory while the object lives, whatever its phase", () => {
    for (const phase of ["Available", "Bound", "Released", "Failed"] as const)
      assert.deepEqual(decide({ phase }), { kind: "keep", path, bytes: 1024n });
  });

  test("nothing for volumes of others, and for those of other nodes", () => {
    assert.deepEqual(decide({ provisioner: "example.com/disks" }), { kind: "none" });
    assert.deepEqual(decide({ host: "host-2", deleting: true }), { kind: "none" });
  });

  test("removal only when the object is being deleted, nobody has it, and its policy says so", () => {
    assert.deepEqual(decide({ deleting: true }), { kind: "remove", path });
    assert.deepEqual(decide({ deleting: true, policy: "Retain" }), { kind: "release" });
    assert.deepEqual(decide({ deleting: true, phase: "Bound" }), { kind: "none" });
    const held = ["kubernetes.io/pv-protection", "remora.io/local-data"];
    assert.deepEqual(decide({ deleting: true, finalizers: held }), { kind: "none" });
    assert.deepEqual(decide({ deleting: true, finalizers: ["other"] }), { kind: "none" });
  });

  test("nothing at all outside of its directory", () => {
    const paths = [
      "/srv/volumes",
      "/srv/volumes/",
      "/srv/volumes/..",
      "/srv/volumes/../pvc-1",
      "/srv/volumes/a/../pvc-1",
      "/srv/volumes//pvc-1",
      "/srv/volumes/pvc-1/",
      "/srv/volumes/pvc-1/..",
      "/srv/volumes/sub/pvc-1",
      "/srv/volumes/pvc-10",
      "/srv/volumes/pvc-2",
      "/etc/pvc-1",
      "pvc-1",
      "",
    ];
    for (const wrong of paths)
      for (const deleting of [true, false])
        assert.deepEqual(decide({ path: wrong, deleting }), { kind: "foreign", path: wrong });
  });

  test("whatever the path, what is removed lies directly below the directory", () => {
    const part = fc.constantFrom("..", ".", "", "pvc-1", "pvc-1_x", "pvc-2", "srv", "volumes", "/");
    fc.assert(
      fc.property(fc.array(part, { maxLength: 8 }), fc.boolean(), (parts, rooted) => {
        const wild = (rooted ? `${directory}/` : "/") + parts.join("/");
        const step = decide({ path: wild, deleting: true });
        if (step.kind !== "remove") return;
        assert.match(step.path, /^\/srv\/volumes\/pvc-1(_[^/]*)?$/);
      }),
    );
  });
});
