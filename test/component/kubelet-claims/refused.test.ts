import assert from "node:assert/strict";
import { test } from "node:test";

import { refusedPlugin } from "../../../src/kubelet/volumes/plugins/refused.ts";
import { inline, inPlace, persistent, setUp } from "./fixture.ts";

const nfs = { server: "files.example", path: "/export" };

test("types that no node mounts any more are refused, each with its reason", async () => {
  await inPlace(async (place) => {
    const plugin = refusedPlugin();
    const cases = [
      [
        inline({ name: "x", awsElasticBlockStore: { volumeID: "v" } }),
        "no volume plugin matched: awsElasticBlockStore has moved to the CSI driver ebs.csi.aws.com, use a PersistentVolume of that driver",
      ],
      [
        persistent("pv-1", { rbd: { image: "i", monitors: [] } }),
        "no volume plugin matched: rbd was removed from Kubernetes",
      ],
      [
        inline({ name: "x", gitRepo: { repository: "r" } }),
        /git-repo volume plugin has been disabled/,
      ],
      [persistent("pv-1", { flexVolume: { driver: "d" } }), /flexVolume drivers are not run/],
    ] as const;
    for (const [spec, message] of cases) {
      assert(plugin.supports(spec));
      await assert.rejects(
        setUp(place, plugin, spec),
        typeof message === "string" ? { message } : message,
      );
    }
    for (const spec of [
      inline({ name: "x", emptyDir: {} }),
      persistent("pv-1", { nfs, capacity: { storage: "1Gi" } }),
    ]) {
      assert(!plugin.supports(spec));
    }
  });
});
