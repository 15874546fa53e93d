import assert from "node:assert/strict";
import { it } from "node:test";

import { VolumeError } from "../../../src/kubelet/volumes/payload.ts";
import {
  PodRejection,
  SetUpError,
  SetUpReport,
} from "../../../src/kubelet/volumes/set-up-report.ts";

const clock = { monotonic: () => 0 };

function failed(cause: unknown): {
  kind: "failed";
  error: unknown;
  news: boolean;
  retryAt: number;
} {
  const error = new SetUpError("FailedMount", "MountVolume.WaitForAttach", "pv-1", cause);
  return { kind: "failed", error, news: true, retryAt: 1000 };
}

it("a volume that can never be had on the node rejects its pod, any other failure does not", () => {
  const rejection = new PodRejection("VolumeAttachmentLimitExceeded", "The node is full.");
  const works = new Map([
    ["a", failed(new VolumeError("not yet"))],
    ["b", failed(rejection)],
  ]);
  const result = new SetUpReport().of(works, new Set(), clock);
  assert.deepEqual(result.rejection, {
    reason: "VolumeAttachmentLimitExceeded",
    message:
      "The node is full. unmounted volumes=[a b], unattached volumes=[a b], failed to process volumes=[]: timed out waiting for the condition",
  });
  works.delete("b");
  assert.equal(new SetUpReport().of(works, new Set(), clock).rejection, undefined);
});
