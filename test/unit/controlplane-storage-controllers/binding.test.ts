import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import {
  boundClaim,
  boundStatus,
  boundVolume,
  unboundStatus,
  unboundVolume,
} from "../../../src/controlplane/controllers/persistent-volume-binder/bind.ts";
import {
  defaultClass,
  isBoundTo,
  type StoredVolume,
  storageOf,
} from "../../../src/controlplane/controllers/persistent-volume-binder/claims.ts";
import {
  type ClaimView,
  decideClaim,
} from "../../../src/controlplane/controllers/persistent-volume-binder/decide-claim.ts";
import {
  decideReclaim,
  decideVolume,
} from "../../../src/controlplane/controllers/persistent-volume-binder/decide-volume.ts";
import {
  findVolume,
  whyUnsuitable,
} from "../../../src/controlplane/controllers/persistent-volume-binder/match.ts";
import { claim, refTo, storageClass, volume } from "./builders.ts";

const completed = { "pv.kubernetes.io/bind-completed": "yes" };
const byController = { "pv.kubernetes.io/bound-by-controller": "yes" };
const at = "2026-01-01T00:00:00Z";

describe("which volume a claim gets", () => {
  const now = { delayed: false };
  const cases: readonly (readonly [
    string,
    Parameters<typeof claim>[0],
    readonly StoredVolume[],
    string | undefined,
  ])[] = [
    [
      "the smallest that is big enough",
      { storage: "2Gi" },
      [
        volume({ name: "a", storage: "5Gi" }),
        volume({ name: "b", storage: "3Gi" }),
        volume({ name: "c", storage: "1Gi" }),
      ],
      "b",
    ],
    [
      "one with fewer access modes before a smaller one with more",
      {},
      [
        volume({ name: "a", spec: { accessModes: ["ReadWriteOnce", "ReadWriteMany"] } }),
        volume({ name: "b", storage: "9Gi" }),
      ],
      "b",
    ],
    [
      "none that lacks an access mode",
      { spec: { accessModes: ["ReadWriteMany"] } },
      [volume()],
      undefined,
    ],
    ["none of another class", { spec: { storageClassName: "x" } }, [volume()], undefined],
    ["none of the other mode", { spec: { volumeMode: "Block" } }, [volume()], undefined],
    [
      "none of another attributes class",
      { spec: { volumeAttributesClassName: "gold" } },
      [volume()],
      undefined,
    ],
    [
      "one that its selector selects",
      { spec: { selector: { matchLabels: { disk: "ssd" } } } },
      [
        volume({ name: "a" }),
        volume({ name: "b", storage: "5Gi", metadata: { labels: { disk: "ssd" } } }),
      ],
      "b",
    ],
    [
      "none that is being deleted",
      {},
      [volume({ metadata: { deletionTimestamp: at } })],
      undefined,
    ],
    ["none that is not available yet", {}, [volume({ status: { phase: "Pending" } })], undefined],
    [
      "the one that is reserved for it, whatever its class and phase",
      {},
      [
        volume({ name: "a" }),
        volume({
          name: "b",
          storage: "7Gi",
          status: { phase: "Pending" },
          spec: { storageClassName: "z", claimRef: { namespace: "default", name: "claim" } },
        }),
      ],
      "b",
    ],
    [
      "none that is reserved for another",
      {},
      [volume({ spec: { claimRef: { namespace: "default", name: "other" } } })],
      undefined,
    ],
    [
      "none that belonged to a former claim of its name",
      {},
      [volume({ spec: { claimRef: { namespace: "default", name: "claim", uid: "old" } } })],
      undefined,
    ],
    [
      "by its class in the words of old objects",
      { annotations: { "volume.beta.kubernetes.io/storage-class": "old" } },
      [volume({ spec: { storageClassName: "old" } })],
      "volume",
    ],
  ];
  for (const [what, parts, volumes, wanted] of cases)
    test(what, () => {
      assert.equal(findVolume(claim(parts), volumes, now)?.metadata.name, wanted);
    });

  test("where the scheduler chooses, only one that is reserved for it", () => {
    const reserved = volume({
      name: "r",
      spec: { claimRef: { namespace: "default", name: "claim" } },
    });
    const delayed = { delayed: true };
    assert.equal(findVolume(claim(), [volume()], delayed), undefined);
    assert.equal(findVolume(claim(), [volume(), reserved], delayed), reserved);
  });

  test("never one that is too small, in another class or somebody else's (any volumes)", () => {
    const size = fc.integer({ min: 1, max: 8 });
    const volumes = fc.array(
      fc.record({
        size,
        className: fc.constantFrom("", "x"),
        owner: fc.constantFrom(undefined, "claim", "other"),
        phase: fc.constantFrom("Available", "Bound", "Released"),
      }),
      { maxLength: 8 },
    );
    fc.assert(
      fc.property(size, volumes, (wanted, drafts) => {
        const asks = claim({ storage: `${wanted}Gi` });
        const all = drafts.map((draft, index) =>
          volume({
            name: `v${index}`,
            storage: `${draft.size}Gi`,
            spec: {
              storageClassName: draft.className,
              claimRef:
                draft.owner === undefined ? undefined : { namespace: "default", name: draft.owner },
            },
            status: { phase: draft.phase },
          }),
        );
        const found = findVolume(asks, all, now);
        const fits = all.filter(
          (each) =>
            storageOf(each.spec?.capacity).nanos >= storageOf({ storage: `${wanted}Gi` }).nanos &&
            (each.spec?.claimRef === undefined
              ? each.status?.phase === "Available" && each.spec?.storageClassName === ""
              : isBoundTo(each, asks)),
        );
        if (found === undefined) assert.deepEqual(fits, []);
        else assert.ok(fits.includes(found));
      }),
    );
  });
});

test("why a volume that was asked for by name will not do", () => {
  const cases = [
    [volume({ metadata: { deletionTimestamp: at } }), 'the volume is marked for deletion "volume"'],
    [volume({ storage: "1Mi" }), "requested PV is too small"],
    [volume({ spec: { storageClassName: "x" } }), "storageClassName does not match"],
    [
      volume({ spec: { volumeAttributesClassName: "x" } }),
      "volumeAttributesClassName does not match",
    ],
    [volume({ spec: { volumeMode: "Block" } }), "incompatible volumeMode"],
    [volume({ spec: { accessModes: ["ReadOnlyMany"] } }), "incompatible accessMode"],
    [volume(), undefined],
  ] as const;
  for (const [asked, why] of cases) assert.equal(whyUnsuitable(asked, claim()), why);
});

describe("what is done with a claim", () => {
  function view(parts: {
    readonly volumes?: readonly StoredVolume[];
    readonly classes?: readonly ReturnType<typeof storageClass>[];
    readonly pods?: readonly string[];
  }): ClaimView {
    const { volumes = [], classes = [], pods = [] } = parts;
    return {
      volume: (name) => volumes.find(({ metadata }) => metadata.name === name),
      volumes: () => volumes,
      class: (name) => classes.find(({ metadata }) => metadata.name === name),
      classes: () => classes,
      waitingPods: () => pods,
    };
  }
  const waits = storageClass("waits", { volumeBindingMode: "WaitForFirstConsumer" });
  const plain = storageClass("plain");
  const standard = storageClass("standard", {
    metadata: {
      name: "standard",
      uid: "u",
      resourceVersion: "1",
      annotations: { "storageclass.kubernetes.io/is-default-class": "true" },
    },
  });

  function messageOf(step: ReturnType<typeof decideClaim>): string | undefined {
    return "remark" in step ? step.remark?.message : undefined;
  }

  test("one that names a class with WaitForFirstConsumer waits for a pod, then for its node", () => {
    const asks = claim({ spec: { storageClassName: "waits" } });
    const idle = decideClaim(asks, view({ classes: [waits] }));
    assert.equal(messageOf(idle), "waiting for first consumer to be created before binding");
    const one = decideClaim(asks, view({ classes: [waits], pods: ["a"] }));
    assert.equal(messageOf(one), "waiting for pod a to be scheduled");
    const two = decideClaim(asks, view({ classes: [waits], pods: ["a", "b"] }));
    assert.equal(messageOf(two), "waiting for pods a,b to be scheduled");
    const chosen = claim({
      annotations: { "volume.kubernetes.io/selected-node": "n1" },
      spec: { storageClassName: "waits" },
    });
    assert.deepEqual(decideClaim(chosen, view({ classes: [waits] })), {
      kind: "provision",
      provisioner: "example.com/disks",
    });
  });

  test("one without a class gets the default one, one with an empty class never does", () => {
    const { storageClassName: _none, ...spec } = claim().spec ?? {};
    const open = { ...claim(), spec };
    assert.deepEqual(decideClaim(open, view({ classes: [standard] })), {
      kind: "assignClass",
      className: "standard",
    });
    const step = decideClaim(claim(), view({ classes: [standard] }));
    assert.match(messageOf(step) ?? "", /^no persistent volumes available for this claim/);
  });

  test("a class that nobody provisions is an answer, not a wait for somebody else", () => {
    const none = storageClass("none", { provisioner: "kubernetes.io/no-provisioner" });
    const step = decideClaim(
      claim({ spec: { storageClassName: "none" } }),
      view({ classes: [none] }),
    );
    assert.equal(step.kind, "stuck");
    assert.equal(messageOf(step), "no volume plugin matched name: kubernetes.io/no-provisioner");
    const ours = decideClaim(
      claim({ spec: { storageClassName: "plain" } }),
      view({ classes: [plain] }),
    );
    assert.equal(ours.kind, "provision");
  });

  test("one that names a volume takes that or none", () => {
    const asks = claim({ spec: { volumeName: "volume" } });
    assert.deepEqual(decideClaim(asks, view({ volumes: [volume({ name: "x" })] })), {
      kind: "pending",
    });
    assert.equal(decideClaim(asks, view({ volumes: [volume()] })).kind, "bind");
    const small = decideClaim(asks, view({ volumes: [volume({ storage: "1Mi" })] }));
    assert.equal(
      messageOf(small),
      'Cannot bind to requested volume "volume": requested PV is too small',
    );
    const taken = volume({ spec: { claimRef: refTo(claim({ name: "other" })) } });
    assert.equal(
      messageOf(decideClaim(asks, view({ volumes: [taken] }))),
      'volume "volume" already bound to a different claim.',
    );
  });

  test("one that was bound has lost its data when the volume is gone or somebody else's", () => {
    const was = claim({ annotations: completed, spec: { volumeName: "volume" } });
    const gone = decideClaim(was, view({}));
    assert.equal(gone.kind, "lost");
    const other = volume({ spec: { claimRef: refTo(claim({ name: "other" })) } });
    const stolen = decideClaim(was, view({ volumes: [other] }));
    assert.ok(stolen.kind === "lost" && stolen.remark.reason === "ClaimMisbound");
    assert.equal(decideClaim(was, view({ volumes: [volume()] })).kind, "bind");
    const cut = decideClaim(claim({ annotations: completed }), view({ volumes: [volume()] }));
    assert.ok(cut.kind === "lost" && cut.remark.reason === "ClaimLost");
  });
});

describe("what is done with a volume", () => {
  const owner = claim();
  const tied = claim({ spec: { volumeName: "volume" } });
  const owned = volume({ spec: { claimRef: refTo(owner) } });

  test("nobody's, or reserved for whoever has a name: Available", () => {
    const available = { kind: "phase", phase: "Available" };
    assert.deepEqual(decideVolume(volume(), undefined), available);
    const reserved = volume({ spec: { claimRef: { namespace: "default", name: "claim" } } });
    assert.deepEqual(decideVolume(reserved, undefined), available);
  });

  test("a claim's that names it back: Bound; that names none: the claim's turn", () => {
    assert.deepEqual(decideVolume(owned, tied), { kind: "phase", phase: "Bound" });
    assert.deepEqual(decideVolume(owned, owner), { kind: "wakeClaim", key: "default/claim" });
    const block = volume({ spec: { claimRef: refTo(owner), volumeMode: "Block" } });
    assert.equal(decideVolume(block, owner).kind, "mismatch");
  });

  test("whose claim is gone is released; whose claim took another is free again", () => {
    assert.deepEqual(decideVolume(owned, undefined), { kind: "release" });
    const elsewhere = claim({ spec: { volumeName: "another" } });
    assert.deepEqual(decideVolume(owned, elsewhere), { kind: "unbind" });
    const made = volume({
      annotations: { "pv.kubernetes.io/provisioned-by": "example.com/disks" },
      spec: { claimRef: refTo(owner), persistentVolumeReclaimPolicy: "Delete" },
    });
    assert.deepEqual(decideVolume(made, elsewhere), { kind: "release" });
  });

  test("by its policy it is left, or fails where nobody can do what it says", () => {
    const provisioned = { "pv.kubernetes.io/provisioned-by": "example.com/disks" };
    const cases = [
      [volume(), "leave"],
      [volume({ spec: { persistentVolumeReclaimPolicy: "Recycle" } }), "VolumeFailedRecycle"],
      [volume({ spec: { persistentVolumeReclaimPolicy: "Delete" } }), "VolumeFailedDelete"],
      [
        volume({ annotations: provisioned, spec: { persistentVolumeReclaimPolicy: "Delete" } }),
        "leave",
      ],
      [
        volume({
          spec: {
            persistentVolumeReclaimPolicy: "Delete",
            csi: { driver: "d", volumeHandle: "h" },
          },
        }),
        "leave",
      ],
      [
        volume({ spec: { persistentVolumeReclaimPolicy: undefined } }),
        "VolumeUnknownReclaimPolicy",
      ],
    ] as const;
    for (const [released, wanted] of cases) {
      const step = decideReclaim(released);
      assert.equal(step.kind === "leave" ? "leave" : step.remark.reason, wanted);
    }
  });
});

describe("how both are tied", () => {
  test("the controller marks what it chose, and not what a person reserved", () => {
    const owner = claim();
    const free = boundVolume(volume(), owner);
    assert.deepEqual(free.metadata.annotations, byController);
    assert.equal(free.spec?.claimRef?.uid, owner.metadata.uid);
    const reserved = volume({ spec: { claimRef: { namespace: "default", name: "claim" } } });
    const taken = boundVolume(reserved, owner);
    assert.equal(taken.metadata.annotations, undefined);
    assert.equal(boundVolume(taken, owner), taken);
    assert.equal(unboundVolume(free).spec?.claimRef, undefined);
    assert.deepEqual(unboundVolume(taken).spec?.claimRef, {
      apiVersion: "v1",
      kind: "PersistentVolumeClaim",
      namespace: "default",
      name: "claim",
    });
  });

  test("a claim that named its volume itself was not bound by the controller", () => {
    assert.deepEqual(boundClaim(claim(), volume()).metadata.annotations, {
      ...byController,
      ...completed,
    });
    const named = boundClaim(claim({ spec: { volumeName: "volume" } }), volume());
    assert.deepEqual(named.metadata.annotations, completed);
    assert.equal(boundClaim(named, volume()), named);
  });

  test("the capacity is taken over once, and never again while the volume is being expanded", () => {
    const bound = boundStatus(claim(), volume({ storage: "2Gi" }));
    assert.deepEqual(bound?.capacity, { storage: "2Gi" });
    const status = { phase: "Bound", accessModes: ["ReadWriteOnce"], capacity: { storage: "1Gi" } };
    const old = { ...claim(), status } as ReturnType<typeof claim>;
    assert.equal(boundStatus(old, volume({ storage: "9Gi" })), undefined);
    const resizing = volume({
      storage: "2Gi",
      annotations: { "volume.alpha.kubernetes.io/pre-resize-capacity": "1Gi" },
    });
    assert.deepEqual(boundStatus(claim(), resizing)?.capacity, { storage: "1Gi" });
    assert.deepEqual(unboundStatus(old, "Lost"), { phase: "Lost" });
    assert.equal(unboundStatus(claim(), "Pending"), undefined);
  });

  test("of several default classes the newest counts, then the first by name", () => {
    const made = (name: string, creationTimestamp: string): ReturnType<typeof storageClass> =>
      storageClass(name, {
        metadata: {
          name,
          uid: name,
          resourceVersion: "1",
          creationTimestamp,
          annotations: { "storageclass.kubernetes.io/is-default-class": "true" },
        },
      });
    const classes = [
      storageClass("plain"),
      made("b", "2026-01-02T00:00:00Z"),
      made("a", "2026-01-02T00:00:00Z"),
      made("old", "2026-01-01T00:00:00Z"),
    ];
    assert.equal(defaultClass(classes)?.metadata.name, "a");
    assert.equal(defaultClass([storageClass("plain")]), undefined);
  });
});
