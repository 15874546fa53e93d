import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  decideProvisioning,
  type Provisioning,
} from "../../../src/controlplane/controllers/local-volumes/provision.ts";
import { decideCare } from "../../../src/controlplane/controllers/local-volumes/reclaim.ts";
import type {
  StoredClaim,
  StoredClass,
  StoredVolume,
} from "../../../src/controlplane/controllers/persistent-volume-binder/claims.ts";
import { claim, node, refTo, storageClass, volume } from "./builders.ts";

const provisioner = "remora.io/local";
const keeper = (name: string): ReturnType<typeof node> =>
  node(name, { "remora.io/local-volumes": "/srv/volumes" });
const asked = { "volume.kubernetes.io/storage-provisioner": provisioner };
const chosen = { ...asked, "volume.kubernetes.io/selected-node": "n1" };

describe("what is provisioned", () => {
  function decide(
    asks: StoredClaim,
    parts: {
      readonly class?: Partial<StoredClass>;
      readonly nodes?: readonly ReturnType<typeof node>[];
      readonly volumes?: readonly string[];
    } = {},
  ): Provisioning {
    const found = storageClass("local", { provisioner, ...parts.class });
    return decideProvisioning(asks, {
      class: (name) => (name === "local" ? found : undefined),
      nodes: () => parts.nodes ?? [keeper("n1")],
      volumeExists: (name) => parts.volumes?.includes(name) === true,
    });
  }
  const wanted = (more: Parameters<typeof claim>[0] = {}): StoredClaim =>
    claim({ annotations: asked, ...more, spec: { storageClassName: "local", ...more.spec } });
  const messageOf = (step: Provisioning): string | undefined =>
    step.kind === "fail" ? step.message : undefined;

  test("a volume of the claim's size on the node, named after the claim so that it is made once", () => {
    const step = decide(wanted({ storage: "3Gi" }));
    assert.ok(step.kind === "create");
    assert.equal(step.volume.metadata.name, "pvc-uid-claim");
    assert.equal(step.path, "/srv/volumes/pvc-uid-claim_default_claim");
    assert.deepEqual(step.volume.spec?.capacity, { storage: "3Gi" });
    assert.deepEqual(step.volume.spec?.nodeAffinity?.required?.nodeSelectorTerms, [
      {
        matchExpressions: [{ key: "kubernetes.io/hostname", operator: "In", values: ["n1"] }],
      },
    ]);
    assert.equal(step.volume.spec?.claimRef?.uid, "uid-claim");
    assert.deepEqual(decide(wanted(), { volumes: ["pvc-uid-claim"] }), { kind: "none" });
  });

  test("nothing for a claim that is bound, going, somebody else's, or waits for a pod", () => {
    const none = { kind: "none" };
    assert.deepEqual(decide(wanted({ spec: { volumeName: "v" } })), none);
    assert.deepEqual(
      decide(wanted({ metadata: { deletionTimestamp: "2026-01-01T00:00:00Z" } })),
      none,
    );
    assert.deepEqual(decide(claim({ spec: { storageClassName: "local" } })), none);
    const waits = { volumeBindingMode: "WaitForFirstConsumer" } as const;
    assert.deepEqual(decide(wanted(), { class: waits }), none);
    assert.equal(decide(wanted({ annotations: chosen }), { class: waits }).kind, "create");
    assert.deepEqual(decide(wanted(), { class: { provisioner: "other" } }), none);
  });

  test("of several nodes only the one that the scheduler chose", () => {
    const nodes = [keeper("n1"), keeper("n2")];
    const two = decide(wanted(), { nodes });
    assert.match(messageOf(two) ?? "", /^2 nodes could keep the volume, and the class does not/);
    const step = decide(wanted({ annotations: chosen }), { nodes });
    assert.ok(step.kind === "create" && step.node === "n1");
    assert.equal(messageOf(decide(wanted(), { nodes: [] })), "no node keeps local volumes");
    assert.equal(
      messageOf(decide(wanted({ annotations: chosen }), { nodes: [node("n1")] })),
      'node "n1" does not keep local volumes',
    );
    const zone = { matchLabelExpressions: [{ key: "kubernetes.io/hostname", values: ["n2"] }] };
    const allowed = decide(wanted(), { nodes, class: { allowedTopologies: [zone] } });
    assert.ok(allowed.kind === "create" && allowed.node === "n2");
  });

  test("a very long name of a claim still makes a file name", () => {
    const step = decide(wanted({ name: "x".repeat(253), metadata: { uid: "u".repeat(36) } }));
    assert.ok(step.kind === "create");
    assert.ok((step.path.split("/").at(-1) ?? "").length <= 240);
  });
});

describe("what becomes of a volume", () => {
  const owner = claim({
    name: "c",
    storage: "1Gi",
    status: { phase: "Bound", capacity: { storage: "1Gi" } },
  });
  const ours = (more: Parameters<typeof volume>[0] = {}): StoredVolume =>
    volume({
      annotations: { "pv.kubernetes.io/provisioned-by": provisioner },
      ...more,
      metadata: { finalizers: ["remora.io/local-data"], ...more.metadata },
      spec: {
        local: { path: "/srv/volumes/v" },
        claimRef: refTo(owner),
        persistentVolumeReclaimPolicy: "Delete",
        nodeAffinity: {
          required: {
            nodeSelectorTerms: [
              {
                matchExpressions: [
                  { key: "kubernetes.io/hostname", operator: "In", values: ["n1"] },
                ],
              },
            ],
          },
        },
        ...more.spec,
      },
    });

  test("released and to be deleted: deleted; retained or of others: left", () => {
    const released = { phase: "Released" } as const;
    assert.deepEqual(decideCare(ours({ status: released }), undefined, []), { kind: "delete" });
    assert.deepEqual(decideCare(ours({ status: { phase: "Bound" } }), undefined, []), {
      kind: "none",
    });
    const retained = ours({ status: released, spec: { persistentVolumeReclaimPolicy: "Retain" } });
    assert.deepEqual(decideCare(retained, undefined, []), { kind: "none" });
    assert.deepEqual(decideCare(volume({ status: released }), undefined, []), { kind: "none" });
  });

  test("deleted while its node is away: people are told what to do", () => {
    const going = ours({ metadata: { deletionTimestamp: "2026-01-01T00:00:00Z" } });
    assert.deepEqual(decideCare(going, undefined, [node("n1")]), { kind: "none" });
    const step = decideCare(going, undefined, [node("n2")]);
    assert.ok(step.kind === "stranded");
    assert.match(step.message, /\(n1: \/srv\/volumes\/v\) is not in the cluster; .* finalizer/);
  });

  test("a claim that asks for more makes it grow; one that was not told is told", () => {
    assert.deepEqual(decideCare(ours(), owner, []), { kind: "none" });
    const more = claim({ name: "c", storage: "2Gi", status: owner.status });
    assert.deepEqual(decideCare(ours(), more, []), { kind: "expand", storage: "2Gi" });
    assert.deepEqual(decideCare(ours({ storage: "2Gi" }), more, []), {
      kind: "expand",
      storage: "2Gi",
    });
    const told = claim({
      name: "c",
      storage: "2Gi",
      status: { phase: "Bound", capacity: { storage: "2Gi" } },
    });
    assert.deepEqual(decideCare(ours({ storage: "2Gi" }), told, []), { kind: "none" });
  });
});
