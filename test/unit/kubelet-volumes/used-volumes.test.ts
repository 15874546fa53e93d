import assert from "node:assert/strict";
import { test } from "node:test";

import type { Container } from "../../../src/api/types.gen.ts";
import { usedVolumes } from "../../../src/kubelet/volumes/used-volumes.ts";
import { container, pod } from "../kubelet-pods/builders.ts";

function mounting(name: string): Partial<Container> {
  return { volumeMounts: [{ name, mountPath: `/${name}` }] };
}

test("the volumes of a pod are those that some container of whatever kind uses, in the order of the spec", () => {
  const names = ["spare", "env", "device", "ephemeral", "init", "main"];
  const of = pod({
    initContainers: [container("i", mounting("init"))],
    containers: [
      container("c", {
        ...mounting("main"),
        volumeDevices: [{ name: "device", devicePath: "/dev/x" }],
        env: [
          { name: "A", value: "1" },
          { name: "B", valueFrom: { fileKeyRef: { volumeName: "env", path: "f", key: "B" } } },
        ],
      }),
      container("d", mounting("main")),
    ],
    ephemeralContainers: [{ ...container("e", mounting("ephemeral")) }],
    volumes: names.map((name) => ({ name, emptyDir: {} })),
  });
  assert.deepEqual(
    usedVolumes(of).map(({ name }) => name),
    ["env", "device", "ephemeral", "init", "main"],
  );
  assert.deepEqual(usedVolumes(pod()), []);
});

test("a mount of a volume that the pod does not have uses none", () => {
  assert.deepEqual(usedVolumes(pod({ containers: [container("c", mounting("ghost"))] })), []);
});
