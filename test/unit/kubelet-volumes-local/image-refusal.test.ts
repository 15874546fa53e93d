import assert from "node:assert/strict";
import { test } from "node:test";

import { refuseUnsupported } from "../../../src/kubelet/pods/unsupported.ts";
import { container, pod } from "../kubelet-pods/builders.ts";

const volumes = [{ name: "content", image: { reference: "data:1" } }];

test("a pod that mounts an image is refused by a node whose engine neither mounts images nor keeps layers", () => {
  const volumeMounts = [{ name: "content", mountPath: "/content" }];
  const subject = pod({ volumes, containers: [container("web", { volumeMounts })] });
  assert.deepEqual(refuseUnsupported(subject, new Set()), {
    reason: "PodFeatureUnsupported",
    message:
      'volume "content": image is not supported by this node: its container engine neither mounts images (Docker 28 does) nor keeps layers of them that could be mounted (the storage driver overlay2 does)',
  });
  assert.equal(refuseUnsupported(subject, new Set(["imageVolumes"])), undefined);
  assert.equal(refuseUnsupported(pod({ volumes }), new Set()), undefined, "nobody mounts it");
});
