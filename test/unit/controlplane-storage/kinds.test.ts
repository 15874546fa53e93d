import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { ensureRecord } from "../../../src/controlplane/kinds/access.ts";
import { StatusError } from "../../../src/controlplane/status-error.ts";
import type { JsonObject } from "../../../src/controlplane/types.ts";
import { createCluster, now } from "../controlplane-kinds/harness.ts";

const volumes = "persistentvolumes";
const claims = "persistentvolumeclaims";
const classes = "storageclasses.storage.k8s.io";

function volume(spec: JsonObject = {}, metadata: JsonObject = {}): JsonObject {
  return {
    apiVersion: "v1",
    kind: "PersistentVolume",
    metadata: { name: "v", ...metadata },
    spec: {
      capacity: { storage: "1Gi" },
      accessModes: ["ReadWriteOnce"],
      hostPath: { path: "/x" },
      ...spec,
    },
  };
}

function claim(spec: JsonObject = {}, metadata: JsonObject = {}): JsonObject {
  return {
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: { name: "c", namespace: "default", ...metadata },
    spec: {
      accessModes: ["ReadWriteOnce"],
      resources: { requests: { storage: "1Gi" } },
      ...spec,
    },
  };
}

function affinity(value: string, key = "kubernetes.io/hostname"): JsonObject {
  return {
    required: {
      nodeSelectorTerms: [{ matchExpressions: [{ key, operator: "In", values: [value] }] }],
    },
  };
}

/** `field: message` of each cause. */
function causesOf(act: () => unknown): string[] {
  try {
    act();
  } catch (error) {
    assert.ok(error instanceof StatusError, String(error));
    const causes = (error.details?.causes ?? []) as readonly { field: string; message: string }[];
    return causes.map(({ field, message }) => `${field}: ${message}`);
  }
  return [];
}

function create(resource: string, object: JsonObject): JsonObject {
  const namespaced = resource === claims || resource === "pods";
  return createCluster().create(resource, namespaced ? "default" : "", object);
}

const without = (object: JsonObject, key: string): JsonObject => {
  const copy = structuredClone(object);
  delete ensureRecord(copy, "spec")[key];
  return copy;
};

describe("a PersistentVolume is refused", () => {
  const cases: readonly (readonly [string, JsonObject, readonly string[]])[] = [
    [
      "without a source",
      without(volume(), "hostPath"),
      ["spec: Required value: must specify a volume type"],
    ],
    [
      "with two sources",
      volume({ nfs: { server: "s", path: "/" } }),
      ["spec.nfs: Forbidden: may not specify more than 1 volume type"],
    ],
    [
      "without capacity",
      without(volume(), "capacity"),
      [
        "spec.capacity: Required value",
        'spec.capacity: Unsupported value: null: supported values: "storage"',
      ],
    ],
    [
      "with a capacity of nothing",
      volume({ capacity: { storage: "0" } }),
      ['spec.capacity[storage]: Invalid value: "0": must be greater than zero'],
    ],
    [
      "without access modes, or with unknown ones",
      volume({ accessModes: [] }),
      ["spec.accessModes: Required value"],
    ],
    [
      "with ReadWriteOncePod beside others",
      volume({ accessModes: ["ReadWriteOncePod", "ReadOnlyMany"] }),
      ["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
    ],
    [
      "with an unknown access mode",
      volume({ accessModes: ["Often"] }),
      [
        'spec.accessModes: Unsupported value: "Often": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"',
      ],
    ],
    [
      "local without node affinity",
      without(volume({ local: { path: "/d" } }), "hostPath"),
      ["spec.nodeAffinity: Required value: Local volume requires node affinity"],
    ],
    [
      "local with a path that climbs",
      without(volume({ local: { path: "/d/../e" }, nodeAffinity: affinity("n1") }), "hostPath"),
      [`spec.local.path: Invalid value: "/d/../e": must not contain '..'`],
    ],
    [
      "with an empty node affinity",
      volume({ nodeAffinity: {} }),
      ["spec.nodeAffinity.required: Required value: must specify required node constraints"],
    ],
    [
      "that recycles the root",
      volume({ hostPath: { path: "/" }, persistentVolumeReclaimPolicy: "Recycle" }),
      [
        "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
      ],
    ],
    [
      "with an unknown reclaim policy",
      volume({ persistentVolumeReclaimPolicy: "Burn" }),
      [
        'spec.persistentVolumeReclaimPolicy: Unsupported value: "Burn": supported values: "Delete", "Recycle", "Retain"',
      ],
    ],
    [
      "with an unknown volume mode",
      volume({ volumeMode: "Tape" }),
      ['spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem"'],
    ],
    [
      "of CSI without a handle, with half a secret",
      without(volume({ csi: { driver: "x", nodePublishSecretRef: { name: "s" } } }), "hostPath"),
      [
        "spec.csi.volumeHandle: Required value",
        "spec.csi.nodePublishSecretRef.namespace: Required value",
      ],
    ],
    [
      "with the annotation for mount options where there is no mount",
      volume({}, { annotations: { "volume.beta.kubernetes.io/mount-options": "ro" } }),
      [
        "metadata.annotations.volume.beta.kubernetes.io/mount-options: Forbidden: may not specify mount options for this volume type",
      ],
    ],
    [
      "with a class of attributes, but not of CSI",
      volume({ volumeAttributesClassName: "gold" }),
      ["spec.csi: Required value: has to be specified when using volumeAttributesClassName"],
    ],
    [
      "of iSCSI without a portal and with a wrong name",
      without(volume({ iscsi: { iqn: "foo", lun: 300 } }), "hostPath"),
      [
        "spec.iscsi.targetPortal: Required value",
        'spec.iscsi.iqn: Invalid value: "foo": must be valid format',
        "spec.iscsi.lun: Invalid value: 300: must be between 0 and 255, inclusive",
      ],
    ],
    [
      "of a relative NFS path",
      without(volume({ nfs: { server: "s", path: "x" } }), "hostPath"),
      ['spec.nfs.path: Invalid value: "x": must be an absolute path'],
    ],
  ];
  for (const [title, object, expected] of cases) {
    test(title, () =>
      assert.deepEqual(
        causesOf(() => create(volumes, object)),
        expected,
      ),
    );
  }
});

describe("updating a PersistentVolume", () => {
  const change = (before: JsonObject, after: JsonObject, subresource?: string): JsonObject => {
    const cluster = createCluster();
    const old = cluster.create(volumes, "", before);
    return cluster.update(
      volumes,
      old,
      { ...structuredClone(old), ...after },
      subresource === undefined ? {} : { subresource },
    );
  };

  test("its source is for life, and the answer shows what differs", () => {
    const causes = causesOf(() =>
      change(volume(), { spec: volume({ hostPath: { path: "/y" } })["spec"] }),
    );
    assert.equal(causes.length, 1);
    assert.match(
      causes[0] ?? "",
      /^spec\.persistentvolumesource: Forbidden: .*immutable after creation\n@@ -/,
    );
    assert.match(causes[0] ?? "", /\n- {2}"path": "\/x",\n\+ {2}"path": "\/y",\n/);
  });

  test("capacity, class and policy may change", () => {
    const after = change(volume(), {
      spec: volume({
        capacity: { storage: "2Gi" },
        storageClassName: "fast",
        persistentVolumeReclaimPolicy: "Delete",
      })["spec"],
    });
    assert.deepEqual((after["spec"] as JsonObject)["capacity"], { storage: "2Gi" });
  });

  test("a node affinity can be given once, and only renamed later", () => {
    change(volume(), { spec: volume({ nodeAffinity: affinity("n1") })["spec"] });
    const zone = "topology.kubernetes.io/zone";
    const beta = volume({ nodeAffinity: affinity("z", "failure-domain.beta.kubernetes.io/zone") });
    change(beta, { spec: volume({ nodeAffinity: affinity("z", zone) })["spec"] });
    assert.match(
      causesOf(() =>
        change(beta, { spec: volume({ nodeAffinity: affinity("y", zone) })["spec"] }),
      )[0] ?? "",
      /field is immutable, except for updating from beta label to GA$/,
    );
  });

  test("a CSI volume may get a secret for expansion", () => {
    const csi = (more: JsonObject): JsonObject =>
      without(volume({ csi: { driver: "d", volumeHandle: "h", ...more } }), "hostPath");
    const secret = { name: "s", namespace: "n" };
    change(csi({}), { spec: csi({ controllerExpandSecretRef: secret })["spec"] });
    assert.equal(
      causesOf(() => change(csi({ controllerExpandSecretRef: secret }), { spec: csi({})["spec"] }))
        .length,
      1,
    );
  });

  test("the time of its phase moves with the phase", () => {
    const stored = { phase: "Pending", lastPhaseTransitionTime: "2026-11-21T12:00:00Z" };
    const cluster = createCluster();
    const old = cluster.create(volumes, "", volume());
    assert.deepEqual(old["status"], stored);
    ensureRecord(old, "metadata")["resourceVersion"] = "1";
    const earlier = { ...stored, lastPhaseTransitionTime: "2020-01-01T00:00:00Z" };
    const set = (status: JsonObject): unknown =>
      cluster.update(
        volumes,
        { ...old, status: earlier },
        { ...old, status },
        { subresource: "status" },
      )["status"];
    assert.deepEqual(set({ phase: "Pending" }), earlier);
    assert.deepEqual(set({ ...earlier, phase: "Available" }), { ...stored, phase: "Available" });
    const own = { phase: "Available", lastPhaseTransitionTime: "2025-01-01T00:00:00Z" };
    assert.deepEqual(set(own), own);
  });
});

describe("a PersistentVolumeClaim is refused", () => {
  const cases: readonly (readonly [string, JsonObject, readonly string[]])[] = [
    [
      "without access modes",
      claim({ accessModes: [] }),
      ["spec.accessModes: Required value: at least 1 access mode is required"],
    ],
    ["without a size", claim({ resources: {} }), ["spec.resources[storage]: Required value"]],
    [
      "with a size of nothing",
      claim({ resources: { requests: { storage: "-1" } } }),
      ['spec.resources[storage]: Invalid value: "-1": must be greater than zero'],
    ],
    [
      "with a wrong class name",
      claim({ storageClassName: "A" }),
      [
        "spec.storageClassName: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
      ],
    ],
    [
      "with a data source reference to a core kind that is no claim",
      claim({ dataSourceRef: { kind: "Pod", name: "p" } }),
      [
        `spec.dataSource: Invalid value: "Pod": must be 'PersistentVolumeClaim' when referencing the default apiGroup`,
        `spec.dataSourceRef: Invalid value: "Pod": must be 'PersistentVolumeClaim' when referencing the default apiGroup`,
      ],
    ],
    [
      "with two data sources that differ",
      claim({
        dataSource: { kind: "PersistentVolumeClaim", name: "a" },
        dataSourceRef: { kind: "PersistentVolumeClaim", name: "b" },
      }),
      ["spec: Invalid value: {}: must match dataSourceRef"],
    ],
  ];
  for (const [title, object, expected] of cases) {
    test(title, () =>
      assert.deepEqual(
        causesOf(() => create(claims, object)),
        expected,
      ),
    );
  }
});

describe("a claim's data source", () => {
  const sourcesOf = (spec: JsonObject): unknown => {
    const { dataSource, dataSourceRef } = create(claims, claim(spec))["spec"] as JsonObject;
    return { dataSource, dataSourceRef };
  };

  test("is copied to its other name", () => {
    const source = { kind: "PersistentVolumeClaim", name: "a" };
    const shown = { ...source, apiGroup: null };
    const both = { dataSource: shown, dataSourceRef: shown };
    assert.deepEqual(sourcesOf({ dataSource: source }), both);
    assert.deepEqual(sourcesOf({ dataSourceRef: source }), both);
  });

  test("of a kind that was never honoured is dropped, unless it is a reference", () => {
    const custom = { apiGroup: "example.com", kind: "Thing", name: "a" };
    assert.deepEqual(sourcesOf({ dataSource: custom }), {
      dataSource: undefined,
      dataSourceRef: undefined,
    });
    assert.deepEqual(sourcesOf({ dataSourceRef: custom }), {
      dataSource: custom,
      dataSourceRef: custom,
    });
  });
});

describe("updating a claim", () => {
  const bound = (): JsonObject => ({
    ...claim({ volumeName: "v", storageClassName: "grows", volumeMode: "Filesystem" }),
    status: { phase: "Bound", capacity: { storage: "1Gi" } },
  });
  const update = (before: JsonObject, spec: JsonObject): (() => JsonObject) => {
    const cluster = createCluster();
    cluster.objects.put(classes, { metadata: { name: "grows" }, allowVolumeExpansion: true });
    cluster.objects.put(classes, { metadata: { name: "stays" } });
    const wanted = { ...(before["spec"] as JsonObject), ...spec };
    return () => cluster.update(claims, before, { ...structuredClone(before), spec: wanted });
  };
  const size = (storage: string): JsonObject => ({ resources: { requests: { storage } } });

  test("a volume is set once", () => {
    const pending = create(claims, claim());
    update(pending, { volumeName: "v" })();
    assert.match(
      causesOf(update(bound(), { volumeName: "w" }))[0] ?? "",
      /^spec: Forbidden: spec is immutable after creation except resources\.requests and volumeAttributesClassName for bound claims\n@@/,
    );
  });

  test("a class may be given to a claim that had none", () => {
    update(create(claims, claim()), { storageClassName: "grows" })();
    assert.equal(causesOf(update(bound(), { storageClassName: "stays" })).length, 1);
  });

  test("it grows when it is bound and its class lets it", () => {
    update(bound(), size("2Gi"))();
    assert.throws(
      update({ ...bound(), status: { phase: "Pending" } }, size("2Gi")),
      /spec is immutable after creation/,
    );
    const fixed = bound();
    ensureRecord(fixed, "spec")["storageClassName"] = "stays";
    assert.throws(
      update(fixed, size("2Gi")),
      /is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize$/,
    );
  });

  test("it shrinks only back to what an expansion failed to reach", () => {
    const growing = bound();
    ensureRecord(growing, "spec")["resources"] = { requests: { storage: "5Gi" } };
    update(growing, size("2Gi"))();
    assert.deepEqual(causesOf(update(growing, size("1Gi"))), [
      "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity",
    ]);
  });

  test("its status knows the states of an expansion, and only them", () => {
    const cluster = createCluster();
    const old = bound();
    ensureRecord(old, "metadata")["resourceVersion"] = "1";
    const write = (status: JsonObject) => () =>
      cluster.update(claims, old, { ...structuredClone(old), status }, { subresource: "status" });
    write({ phase: "Bound", allocatedResourceStatuses: { storage: "NodeResizePending" } })();
    assert.match(
      causesOf(write({ phase: "Bound", allocatedResourceStatuses: { storage: "Odd" } }))[0] ?? "",
      /^status\.allocatedResourceStatuses: Unsupported value: "storage": supported values: "ControllerResizeInProgress", /,
    );
    assert.deepEqual(causesOf(write({ phase: "Bound", allocatedResources: { cpu: "1" } })), [
      'status.allocatedResources: Unsupported value: "cpu": supported values: "storage"',
    ]);
  });
});

describe("a StorageClass", () => {
  const storageClass = (more: JsonObject = {}): JsonObject => ({
    metadata: { name: "s" },
    provisioner: "example.com/p",
    ...more,
  });

  test("is refused with what is wrong", () => {
    const term = { matchLabelExpressions: [{ key: "zone", values: ["a", "a"] }] };
    assert.deepEqual(
      causesOf(() =>
        create(
          classes,
          storageClass({
            provisioner: "",
            parameters: { "": "x" },
            reclaimPolicy: "Recycle",
            volumeBindingMode: "Later",
            allowedTopologies: [term, term],
          }),
        ),
      ),
      [
        "provisioner: Required value",
        'parameters: Invalid value: "": field can not be empty.',
        'reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"',
        'volumeBindingMode: Unsupported value: "Later": supported values: "Immediate", "WaitForFirstConsumer"',
        'allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: "a"',
        'allowedTopologies[1].matchLabelExpressions[0].values[1]: Duplicate value: "a"',
        'allowedTopologies[1].matchLabelExpressions: Duplicate value: ""',
      ],
    );
  });

  test("keeps what its volumes were made with", () => {
    const cluster = createCluster();
    const old = cluster.create(classes, "", storageClass({ parameters: { a: "1" } }));
    const causes = causesOf(() =>
      cluster.update(classes, old, {
        ...old,
        parameters: { a: "2" },
        provisioner: "q",
        reclaimPolicy: "Retain",
      }),
    );
    assert.deepEqual(causes, [
      'parameters: Invalid value: {"a":"2"}: field is immutable',
      'provisioner: Invalid value: "q": field is immutable',
      'reclaimPolicy: Invalid value: "Retain": field is immutable',
    ]);
    cluster.update(classes, old, { ...old, allowVolumeExpansion: true });
  });

  test("that is the default says so in its row", () => {
    const marked = storageClass();
    ensureRecord(marked, "metadata")["annotations"] = {
      "storageclass.kubernetes.io/is-default-class": "true",
    };
    const cluster = createCluster();
    const { table } = cluster.kind(classes);
    const row = table.row(cluster.create(classes, "", marked), now);
    assert.deepEqual(row.slice(0, 5), [
      "s (default)",
      "example.com/p",
      "Delete",
      "Immediate",
      false,
    ]);
  });
});

describe("CSI kinds", () => {
  const drivers = "csidrivers.storage.k8s.io";

  test("a CSIDriver gets upstream's defaults", () => {
    const created = create(drivers, { metadata: { name: "d" }, spec: {} });
    assert.deepEqual(created["spec"], {
      attachRequired: true,
      podInfoOnMount: false,
      storageCapacity: false,
      fsGroupPolicy: "ReadWriteOnceWithFSType",
      requiresRepublish: false,
      seLinuxMount: false,
      volumeLifecycleModes: ["Persistent"],
    });
  });

  test("a CSIDriver keeps whether it attaches, and asks for each audience once", () => {
    const cluster = createCluster();
    const old = cluster.create(drivers, "", { metadata: { name: "d" }, spec: {} });
    const spec = old["spec"] as JsonObject;
    assert.deepEqual(
      causesOf(() =>
        cluster.update(drivers, old, {
          ...old,
          spec: {
            ...spec,
            attachRequired: false,
            tokenRequests: [{ audience: "a", expirationSeconds: 60 }, { audience: "a" }],
          },
        }),
      ),
      [
        "spec.tokenRequests[0].expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes",
        'spec.tokenRequests[1].audience: Duplicate value: "a"',
        "spec.attachedRequired: Invalid value: false: field is immutable",
      ],
    );
  });

  test("a CSINode's drivers stay as they are, but for how many volumes they take", () => {
    const cluster = createCluster();
    const nodes = "csinodes.storage.k8s.io";
    const node = (driver: JsonObject): JsonObject => ({
      metadata: { name: "n1" },
      spec: { drivers: [{ name: "d", nodeID: "i", ...driver }] },
    });
    const old = cluster.create(nodes, "", node({ allocatable: { count: 2 } }));
    cluster.update(nodes, old, { ...old, spec: node({ allocatable: { count: 5 } })["spec"] });
    assert.deepEqual(
      causesOf(() => cluster.update(nodes, old, { ...old, spec: node({ nodeID: "j" })["spec"] })),
      [
        'spec.drivers: Invalid value: {"name":"d","nodeID":"j","topologyKeys":null}: field is immutable',
      ],
    );
  });

  test("a VolumeAttachment is of one volume, and never moves", () => {
    const attachments = "volumeattachments.storage.k8s.io";
    const attachment = (source: JsonObject): JsonObject => ({
      metadata: { name: "a" },
      spec: { attacher: "d", nodeName: "n1", source },
    });
    assert.deepEqual(
      causesOf(() => create(attachments, attachment({}))),
      [
        "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
      ],
    );
    const cluster = createCluster();
    const old = cluster.create(attachments, "", attachment({ persistentVolumeName: "v" }));
    assert.match(
      causesOf(() =>
        cluster.update(attachments, old, {
          ...old,
          spec: { ...(old["spec"] as JsonObject), nodeName: "n2" },
        }),
      )[0] ?? "",
      /^spec: Invalid value: .*: field is immutable$/,
    );
    const attached = cluster.update(
      attachments,
      old,
      {
        ...structuredClone(old),
        status: { attached: true },
        metadata: { name: "a", labels: { x: "y" } },
      },
      { subresource: "status" },
    );
    assert.deepEqual(attached["status"], { attached: true });
    assert.equal((attached["metadata"] as JsonObject)["labels"], undefined);
  });
});

describe("a pod's volumes are refused", () => {
  const pod = (...volumesOfPod: JsonObject[]): JsonObject => ({
    metadata: { name: "p" },
    spec: { containers: [{ name: "c", image: "nginx" }], volumes: volumesOfPod },
  });
  const projected = (...sources: JsonObject[]): JsonObject =>
    pod({ name: "x", projected: { sources } });
  const cases: readonly (readonly [string, JsonObject, readonly string[]])[] = [
    [
      "with the claim of an ephemeral volume of the same pod",
      pod(
        { name: "e", ephemeral: { volumeClaimTemplate: { spec: claim()["spec"] } } },
        { name: "x", persistentVolumeClaim: { claimName: "p-e" } },
      ),
      [
        'spec.volumes[1].persistentVolumeClaim.claimName: Invalid value: "p-e": must not reference a PVC that gets created for an ephemeral volume',
      ],
    ],
    [
      "with an ephemeral volume without a size, with a name",
      pod({
        name: "e",
        ephemeral: {
          volumeClaimTemplate: {
            metadata: { name: "no" },
            spec: { accessModes: ["ReadWriteOnce"] },
          },
        },
      }),
      [
        "spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set",
        "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value",
      ],
    ],
    [
      "with an image without a reference",
      pod({ name: "i", image: { pullPolicy: "Often" } }),
      [
        "spec.volumes[0].image.reference: Required value",
        'spec.volumes[0].image.pullPolicy: Unsupported value: "Often": supported values: "Always", "IfNotPresent", "Never"',
      ],
    ],
    [
      "with a driver whose name is too long",
      pod({ name: "d", csi: { driver: "d".repeat(64) } }),
      ["spec.volumes[0].csi.driver: Too long: may not be more than 63 bytes"],
    ],
    [
      "with two files in one place",
      projected(
        { secret: { name: "s", items: [{ key: "k", path: "a" }] } },
        { configMap: { name: "m", items: [{ key: "k", path: "a" }] } },
      ),
      ['spec.volumes[0].projected: Invalid value: "m": conflicting duplicate paths'],
    ],
    [
      "with a trust bundle of nobody",
      projected({ clusterTrustBundle: { path: "ca.pem" } }),
      [
        "spec.volumes[0].projected.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified",
      ],
    ],
    [
      "with a trust bundle by name and labels, that climbs",
      projected({ clusterTrustBundle: { name: "b", labelSelector: {}, path: "../x" } }),
      [
        "spec.volumes[0].projected.sources[0].clusterTrustBundle.labelSelector: Invalid value: {}: labelSelector must be unset if name is specified",
        `spec.volumes[0].projected.sources[0].clusterTrustBundle.path: Invalid value: "../x": must not contain '..'`,
      ],
    ],
    [
      "with a certificate without a place for it",
      projected({ podCertificate: { signerName: "example.com/s", keyType: "RSA1" } }),
      [
        'spec.volumes[0].projected.sources[0].podCertificate.keyType: Unsupported value: "RSA1": supported values: "RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"',
        "spec.volumes[0].projected.sources[0].podCertificate: Required value: specify at least one of credentialBundlePath, keyPath, and certificateChainPath",
      ],
    ],
    [
      "with two sources in one entry",
      projected({ secret: { name: "s" }, configMap: { name: "m" } }),
      [
        "spec.volumes[0].projected.sources[0]: Forbidden: may not specify more than 1 volume type per source",
      ],
    ],
  ];
  for (const [title, object, expected] of cases) {
    test(title, () =>
      assert.deepEqual(
        causesOf(() => create("pods", object)),
        expected,
      ),
    );
  }
});
