import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { Stored } from "../../../src/api/object.ts";
import type {
  CSIDriver,
  CSINode,
  CSIStorageCapacity,
  PersistentVolume,
  PersistentVolumeClaim,
  StorageClass,
  VolumeAttachment,
} from "../../../src/api/types.gen.ts";
import type { StoredPod } from "../../../src/controlplane/controllers/shared/pod-state.ts";
import { podInfo } from "../../../src/controlplane/scheduler/pod-info.ts";
import { defaultProfile, eventsThatHelp } from "../../../src/controlplane/scheduler/profiles.ts";
import { AssumedObjects } from "../../../src/controlplane/scheduler/volumes/assumed-objects.ts";
import type { StorageView } from "../../../src/controlplane/scheduler/volumes/storage-view.ts";
import type { NodeParts } from "../controlplane-controllers/builders.ts";
import { node as storedNode, pod } from "../controlplane-controllers/builders.ts";
import {
  prepareClaims,
  volumesOn,
} from "../../../src/controlplane/scheduler/volumes/find-volumes.ts";
import { sortClaims } from "../../../src/controlplane/scheduler/volumes/pod-claims.ts";
import { place, preemption } from "./world.ts";

type Named<T> = Omit<T, "metadata">;

function stored<T extends object>(name: string, rest: T, metadata: object = {}): Stored<T> {
  const meta = { name, uid: `uid-${name}`, resourceVersion: "1", ...metadata };
  return { ...rest, metadata: meta };
}

interface Storage {
  readonly claims?: readonly Stored<PersistentVolumeClaim>[];
  readonly volumes?: readonly Stored<PersistentVolume>[];
  readonly classes?: readonly Stored<StorageClass>[];
  readonly drivers?: readonly Stored<CSIDriver>[];
  readonly csiNodes?: readonly Stored<CSINode>[];
  readonly capacities?: readonly Stored<CSIStorageCapacity>[];
  readonly attachments?: readonly Stored<VolumeAttachment>[];
}

function view(storage: Storage): StorageView {
  const byName = <T>(items: readonly Stored<T>[] = []) => {
    const map = new Map(items.map((each) => [each.metadata.name, each]));
    return (name: string) => map.get(name);
  };
  return {
    claim: (key) => byName(storage.claims)(key.split("/")[1] ?? ""),
    volume: byName(storage.volumes),
    volumesOfClass: (name) =>
      (storage.volumes ?? []).filter(({ spec }) => (spec?.storageClassName ?? "") === name),
    storageClass: byName(storage.classes),
    csiDriver: byName(storage.drivers),
    csiNode: byName(storage.csiNodes),
    capacities: () => storage.capacities ?? [],
    attachments: () => storage.attachments ?? [],
  };
}

function claim(
  name: string,
  spec: PersistentVolumeClaim["spec"] = {},
  metadata: object = {},
): Stored<PersistentVolumeClaim> {
  return stored<Named<PersistentVolumeClaim>>(
    name,
    {
      spec: {
        accessModes: ["ReadWriteOnce"],
        resources: { requests: { storage: "1Gi" } },
        ...spec,
      },
      status: { phase: "Pending" },
    },
    { namespace: "default", ...metadata },
  );
}

function bound(name: string, volume: string, spec: PersistentVolumeClaim["spec"] = {}) {
  return claim(
    name,
    { ...spec, volumeName: volume },
    { annotations: { "pv.kubernetes.io/bind-completed": "yes" } },
  );
}

function volume(
  name: string,
  storage: string,
  spec: PersistentVolume["spec"] = {},
  metadata: object = {},
): Stored<PersistentVolume> {
  return stored<Named<PersistentVolume>>(
    name,
    {
      spec: { capacity: { storage }, accessModes: ["ReadWriteOnce"], ...spec },
      status: { phase: "Available" },
    },
    metadata,
  );
}

function on(label: string, ...values: string[]): PersistentVolume["spec"] {
  return {
    nodeAffinity: {
      required: {
        nodeSelectorTerms: [{ matchExpressions: [{ key: label, operator: "In", values }] }],
      },
    },
  };
}

function class_(name: string, provisioner: string, more: object = {}): Stored<StorageClass> {
  return stored<Named<StorageClass>>(name, {
    provisioner,
    volumeBindingMode: "WaitForFirstConsumer",
    ...more,
  });
}

function using(...claims: string[]): StoredPod {
  return pod({
    name: "p",
    spec: {
      volumes: claims.map((claimName) => ({
        name: claimName,
        persistentVolumeClaim: { claimName },
      })),
    },
  });
}

const nodes = [
  { name: "n1", labels: { host: "n1", zone: "a" } },
  { name: "n2", labels: { host: "n2", zone: "b" } },
];
const placeOn = (what: StoredPod, storage: Storage, more: readonly StoredPod[] = []): string =>
  place(what, { nodes, pods: more, storage: view(storage) });

describe("a pod's claims", () => {
  const reason = (storage: Storage, what = using("c")): string =>
    placeOn(what, storage).replace("0/2 nodes are available: ", "");

  test("are there, alive, and its own", () => {
    assert.equal(reason({}), 'persistentvolumeclaim "c" not found.');
    const lost = bound("c", "v");
    lost.status = { phase: "Lost" };
    assert.equal(
      reason({ claims: [lost] }),
      'persistentvolumeclaim "c" bound to non-existent persistentvolume "v".',
    );
    const going = claim("c", {}, { deletionTimestamp: "2026-01-01T00:00:00Z" });
    assert.equal(reason({ claims: [going] }), 'persistentvolumeclaim "c" is being deleted.');
    const ephemeral = pod({ name: "p", spec: { volumes: [{ name: "e", ephemeral: {} }] } });
    assert.equal(
      reason({}, ephemeral),
      'waiting for ephemeral volume controller to create the persistentvolumeclaim "p-e".',
    );
    assert.equal(
      reason({ claims: [claim("p-e")] }, ephemeral),
      "PVC default/p-e was not created for pod default/p (pod is not owner).",
    );
  });

  test("are bound, unless their class waits for the pod", () => {
    const unbound = "pod has unbound immediate PersistentVolumeClaims.";
    assert.equal(reason({ claims: [claim("c")] }), unbound);
    assert.equal(reason({ claims: [claim("c", { storageClassName: "gone" })] }), unbound);
    const classes = [class_("w", "p")];
    // It names its volume: binding is the controller's.
    const named = claim("c", { storageClassName: "w", volumeName: "v" });
    assert.equal(reason({ claims: [named], classes }), unbound);
    assert.match(reason({ claims: [claim("c", { storageClassName: "w" })], classes }), /^n[12]$/);
  });

  test("that are bound to a volume that is gone are said to be", () => {
    assert.equal(reason({ claims: [bound("c", "v")] }), 'persistentvolume "v" not found.');
    const ephemeral = pod({ name: "p", spec: { volumes: [{ name: "e", ephemeral: {} }] } });
    const owned = bound("p-e", "v");
    owned.metadata.ownerReferences = [
      { apiVersion: "v1", kind: "Pod", name: "p", uid: ephemeral.metadata.uid, controller: true },
    ];
    assert.equal(
      reason({ claims: [owned] }, ephemeral),
      "2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s).",
    );
  });
});

describe("a volume for a claim that waits", () => {
  const classes = [class_("w", "kubernetes.io/no-provisioner")];
  const waiting = (name: string, storage = "1Gi", more: PersistentVolumeClaim["spec"] = {}) =>
    claim(name, { storageClassName: "w", resources: { requests: { storage } }, ...more });
  const free = (name: string, storage: string, more: PersistentVolume["spec"] = {}) =>
    volume(name, storage, { storageClassName: "w", ...on("host", "n1"), ...more });
  const chosen = (storage: Storage, ...claims: string[]): unknown => {
    const info = podInfo(using(...claims));
    const seen = view({ classes, ...storage });
    const found = volumesOn(
      storedNode({ name: "n1", labels: { host: "n1" } }),
      prepareClaims(sortClaims(info, seen), seen),
      seen,
    );
    return found.kind === "conflict"
      ? found.reasons
      : found.plan.bindings.map(
          (each) => `${each.claim.metadata.name}=${each.volume.metadata.name}`,
        );
  };
  const none = ["node(s) didn't find available persistent volumes to bind"];

  test("is the smallest that is big enough, the first by name of two", () => {
    const volumes = [free("c", "5Gi"), free("b", "2Gi"), free("a", "2Gi"), free("d", "500Mi")];
    assert.deepEqual(chosen({ claims: [waiting("x")], volumes }, "x"), ["x=a"]);
  });

  test("is not taken from a claim that only it can serve", () => {
    const volumes = [free("big", "5Gi"), free("small", "1Gi")];
    const claims = [waiting("x", "1Gi"), waiting("y", "4Gi")];
    assert.deepEqual(chosen({ claims, volumes }, "y", "x"), ["x=small", "y=big"]);
  });

  const unfit: readonly (readonly [
    string,
    Stored<PersistentVolume>,
    PersistentVolumeClaim["spec"]?,
  ])[] = [
    ["too small", free("v", "1Mi")],
    ["of another class", free("v", "1Gi", { storageClassName: "other" })],
    ["of another mode", free("v", "1Gi", { volumeMode: "Block" })],
    ["for other access", free("v", "1Gi", { accessModes: ["ReadOnlyMany"] })],
    ["out of reach", free("v", "1Gi", on("host", "n2"))],
    ["somebody's already", free("v", "1Gi", { claimRef: { namespace: "default", name: "z" } })],
    ["of other attributes", free("v", "1Gi", { volumeAttributesClassName: "gold" })],
    ["without the labels", free("v", "1Gi"), { selector: { matchLabels: { tier: "1" } } }],
  ];
  for (const [title, only, spec] of unfit) {
    test(`is none that is ${title}`, () =>
      assert.deepEqual(
        chosen({ claims: [waiting("x", "1Gi", spec)], volumes: [only] }, "x"),
        none,
      ));
  }

  test("is the one that is reserved for it, also when a smaller one is free", () => {
    const claimRef = { namespace: "default", name: "x" };
    const volumes = [free("a", "1Gi"), free("b", "9Gi", { claimRef })];
    assert.deepEqual(chosen({ claims: [waiting("x")], volumes }, "x"), ["x=b"]);
    const elsewhere = [free("a", "1Gi"), free("b", "9Gi", { claimRef, ...on("host", "n2") })];
    assert.deepEqual(chosen({ claims: [waiting("x")], volumes: elsewhere }, "x"), none);
  });
});

describe("a volume that is to be made", () => {
  const waiting = claim("c", { storageClassName: "w" });
  const placedWith = (more: object, storage: Storage = {}): string =>
    placeOn(using("c"), { claims: [waiting], classes: [class_("w", "csi.x", more)], ...storage });

  test("is made where the class allows it", () => {
    const term = { matchLabelExpressions: [{ key: "zone", values: ["b"] }] };
    assert.equal(placedWith({ allowedTopologies: [term] }), "n2");
    assert.match(
      placedWith({ allowedTopologies: [{ matchLabelExpressions: [] }] }),
      /2 node\(s\) didn't find available persistent volumes to bind/,
    );
  });

  test("is made where the driver has room, when it says how much it has", () => {
    const drivers = [stored<Named<CSIDriver>>("csi.x", { spec: { storageCapacity: true } })];
    const room = (name: string, zone: string, more: object): Stored<CSIStorageCapacity> =>
      stored<Named<CSIStorageCapacity>>(name, {
        storageClassName: "w",
        nodeTopology: { matchLabels: { zone } },
        ...more,
      });
    assert.match(placedWith({}, { drivers }), /2 node\(s\) did not have enough free storage/);
    const capacities = [room("1", "a", { capacity: "512Mi" }), room("2", "b", { capacity: "2Gi" })];
    assert.equal(placedWith({}, { drivers, capacities }), "n2");
    const fragmented = [room("1", "a", { capacity: "9Gi", maximumVolumeSize: "1Mi" })];
    assert.match(placedWith({}, { drivers, capacities: fragmented }), /enough free storage/);
  });

  test("is made where another pod has it made already", () => {
    const annotations = { "volume.kubernetes.io/selected-node": "n2" };
    const chosen = claim("c", { storageClassName: "w" }, { annotations });
    assert.equal(placedWith({}, { claims: [chosen] }), "n2");
  });
});

describe("zones of volumes", () => {
  const zone = "topology.kubernetes.io/zone";
  const zoned = [
    { name: "n1", labels: { [zone]: "a" } },
    { name: "n2", labels: { [zone]: "b" } },
  ];
  const placedIn = (labels: Record<string, string>, where: readonly NodeParts[] = zoned): string =>
    place(using("c"), {
      nodes: where,
      storage: view({
        claims: [bound("c", "v")],
        volumes: [volume("v", "1Gi", {}, { labels })],
      }),
    });

  test("are the zones of its pods, by either name of the label", () => {
    assert.equal(placedIn({ [zone]: "b" }), "n2");
    assert.equal(placedIn({ "failure-domain.beta.kubernetes.io/zone": "b" }), "n2");
    assert.match(placedIn({ [zone]: "c" }), /2 node\(s\) had no available volume zone/);
    assert.match(placedIn({ [zone]: "a__b" }), /^n[12]$/);
  });

  test("do not count where nodes have none", () => {
    assert.equal(placedIn({ [zone]: "c" }, [{ name: "n1", labels: {} }]), "n1");
  });
});

describe("disks and claims that only one may use", () => {
  const iscsi = (readOnly: boolean): Partial<StoredPod["spec"]> => ({
    volumes: [
      { name: "d", iscsi: { targetPortal: "t", iqn: "iqn.2026-01.x:y", lun: 0, readOnly } },
    ],
  });
  const disk = (name: string, readOnly: boolean, nodeName?: string): StoredPod =>
    pod({
      name,
      spec: { ...iscsi(readOnly), ...(nodeName === undefined ? {} : { nodeName }) },
    });

  test("a disk is on one node unless all only read it", () => {
    assert.equal(placeOn(disk("p", false), {}, [disk("q", true, "n1")]), "n2");
    assert.match(
      placeOn(disk("p", false), {}, [disk("q", true, "n1"), disk("r", true, "n2")]),
      /2 node\(s\) had no available disk/,
    );
    const one = { nodes: nodes.slice(0, 1), pods: [disk("q", true, "n1")] };
    assert.equal(place(disk("p", true), one), "n1");
  });

  test("a claim for one pod can be had by displacing that pod", () => {
    const claims = [bound("c", "v", { accessModes: ["ReadWriteOncePod"] })];
    const storage = view({ claims, volumes: [volume("v", "1Gi")] });
    const user = using("c");
    const holder = pod({ name: "q", spec: { ...user.spec, nodeName: "n1", priority: 1 } });
    const world = { nodes, pods: [holder], storage };
    assert.match(
      place(user, world),
      /2 node\(s\) unavailable due to PersistentVolumeClaim with ReadWriteOncePod/,
    );
    const important = pod({ name: "p", spec: { ...user.spec, priority: 10 } });
    assert.equal(preemption(important, world), "n1: q");
  });
});

describe("how many volumes a node takes", () => {
  const csiVolume = (name: string): Stored<PersistentVolume> =>
    volume(name, "1Gi", { csi: { driver: "d", volumeHandle: name } });
  const limit = (name: string, count: number): Stored<CSINode> =>
    stored<Named<CSINode>>(name, {
      spec: { drivers: [{ name: "d", nodeID: name, allocatable: { count } }] },
    });
  const storage = (more: Storage = {}): Storage => ({
    claims: ["1", "2", "3"].map((name) => bound(`c${name}`, `v${name}`)),
    volumes: ["1", "2", "3"].map((name) => csiVolume(`v${name}`)),
    csiNodes: [limit("n1", 2), limit("n2", 0)],
    ...more,
  });
  const running = (...claims: string[]): StoredPod =>
    pod({ name: `on-${claims.join("-")}`, spec: { ...using(...claims).spec, nodeName: "n1" } });
  const full = /2 node\(s\) exceed max volume count/;

  test("counts each volume of the driver once", () => {
    assert.equal(placeOn(using("c1", "c2"), storage()), "n1");
    assert.match(placeOn(using("c1", "c2", "c3"), storage()), full);
    assert.match(placeOn(using("c3"), storage(), [running("c1", "c2")]), full);
    assert.equal(placeOn(using("c2", "c3"), storage(), [running("c2"), running("c2", "c3")]), "n1");
  });

  test("counts what is attached although no pod uses it any more", () => {
    const attachment = (name: string): Stored<VolumeAttachment> =>
      stored<Named<VolumeAttachment>>(name, {
        spec: { attacher: "d", nodeName: "n1", source: { persistentVolumeName: name } },
      });
    const attachments = [attachment("v1"), attachment("v2")];
    assert.match(placeOn(using("c3"), storage({ attachments })), full);
    assert.equal(placeOn(using("c3"), storage({ attachments: [attachment("v1")] })), "n1");
  });

  test("counts volumes that are still to be made", () => {
    const classes = [class_("w", "d")];
    const claims = [...(storage().claims ?? []), claim("new", { storageClassName: "w" })];
    assert.match(placeOn(using("new"), storage({ classes, claims }), [running("c1", "c2")]), full);
  });
});

describe("a pod that waits for a claim", () => {
  test("is woken by its own claims only", () => {
    const helps = eventsThatHelp(
      defaultProfile,
      podInfo(using("mine")),
      new Set(["VolumeBinding"]),
    );
    assert.equal(helps.has("claim:default/mine"), true);
    assert.equal(helps.has("claim:default/other"), false);
    assert.equal(helps.has("volume-changed"), true);
    assert.equal(helps.has("pod-left"), false);
  });
});

describe("what is assumed of an object", () => {
  test("holds until the object changes, or until it is taken back", () => {
    const inCache = new Map<string, Stored<PersistentVolume>>();
    const objects = new AssumedObjects<PersistentVolume>({ get: (key) => inCache.get(key) });
    const first = volume("v", "1Gi");
    inCache.set("v", first);
    const assumed = { ...first, spec: { ...first.spec, claimRef: { name: "c" } } };
    objects.assume(assumed);
    assert.equal(objects.get("v"), assumed);
    objects.forget({ ...assumed });
    assert.equal(objects.get("v"), assumed);
    objects.forget(assumed);
    assert.equal(objects.get("v"), first);
    objects.assume(assumed);
    const second = volume("v", "1Gi", {}, { resourceVersion: "2" });
    inCache.set("v", second);
    assert.equal(objects.get("v"), second);
    inCache.delete("v");
    assert.equal(objects.get("v"), undefined);
    objects.assume(assumed);
    assert.equal(objects.get("v"), undefined);
  });
});
