import assert from "node:assert/strict";
import { test } from "node:test";

import {
  hasStorageLimits,
  limitedVolumes,
  storageOverrun,
  type StorageUsage,
} from "../../../src/kubelet/pods/storage-limits.ts";
import type { Container } from "../../../src/api/types.gen.ts";
import { container, pod } from "../kubelet-pods/builders.ts";

const gib = 1 << 30;

function limited(name: string, limit: string, more: Partial<Container> = {}): Container {
  return container(name, { resources: { limits: { "ephemeral-storage": limit } }, ...more });
}

function usage(more: Partial<StorageUsage> = {}): StorageUsage {
  return { volumes: new Map(), containers: new Map(), total: 0, ...more };
}

test("which pods have limits on the disk", () => {
  const volume = (medium: string, sizeLimit?: string) =>
    pod({
      volumes: [{ name: "v", emptyDir: { medium, ...(sizeLimit ? { sizeLimit } : {}) } }],
    });
  assert.equal(hasStorageLimits(pod()), false);
  assert.equal(hasStorageLimits(volume("", "1Gi")), true);
  assert.equal(hasStorageLimits(volume("")), false);
  assert.equal(hasStorageLimits(volume("", "0")), false, "zero is none");
  assert.equal(hasStorageLimits(volume("Memory", "1Gi")), false, "the mount itself is no larger");
  assert.equal(hasStorageLimits(pod({ containers: [limited("web", "1Gi")] })), true);
  assert.equal(
    hasStorageLimits(pod({ initContainers: [limited("init", "1Gi")] })),
    true,
    "init containers write too",
  );
  assert.deepEqual(limitedVolumes(volume("", "1Gi")), ["v"]);
});

test("a volume above its limit, in the kubelet's words", () => {
  const subject = pod({
    volumes: [
      { name: "free", emptyDir: {} },
      { name: "cache", emptyDir: { sizeLimit: "1024Mi" } },
    ],
  });
  const at = (cache: number) =>
    storageOverrun(subject, usage({ volumes: new Map([["cache", cache]]) }), false);
  assert.equal(at(gib), undefined, "up to the limit");
  assert.deepEqual(at(gib + 1), {
    signal: "emptydirfs.limit",
    message: 'Usage of EmptyDir volume "cache" exceeds the limit "1Gi". ',
  });
  const other = usage({ volumes: new Map([["free", 99 * gib]]) });
  assert.equal(storageOverrun(subject, other, false), undefined);
});

test("a pod above the sum of its containers' limits", () => {
  const subject = pod({ containers: [limited("a", "1Gi"), limited("b", "512Mi"), container("c")] });
  assert.equal(storageOverrun(subject, usage({ total: 1.5 * gib }), false), undefined);
  assert.deepEqual(storageOverrun(subject, usage({ total: 1.5 * gib + 1 }), false), {
    signal: "ephemeralpodfs.limit",
    message: "Pod ephemeral local storage usage exceeds the total limit of containers 1536Mi. ",
  });
  const init = pod({ initContainers: [limited("i", "3Gi")], containers: [limited("a", "1G")] });
  assert.match(
    storageOverrun(init, usage({ total: 4 * gib }), false)?.message ?? "",
    /containers 3Gi\. $/,
    "the larger of what initialises and what runs",
  );
});

test("a container above its own limit; a layer on another disk does not count", () => {
  const subject = pod({ containers: [limited("a", "1G"), container("b")] });
  const containers = new Map([
    ["a", { logs: 600_000_000, layer: 500_000_000 }],
    ["b", { logs: 1, layer: 9 * gib }],
  ]);
  assert.deepEqual(storageOverrun(subject, usage({ containers }), false), {
    signal: "ephemeralcontainerfs.limit",
    message: 'Container a exceeded its local ephemeral storage limit "1G". ',
  });
  assert.equal(storageOverrun(subject, usage({ containers }), true), undefined);
});
