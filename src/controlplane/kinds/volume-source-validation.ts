import type { FieldError, JsonObject } from "../types.ts";
import { int, record, strings, text } from "./access.ts";
import {
  forbiddenField,
  invalidAll,
  invalidValue,
  notSupported,
  required,
  tooLong,
} from "./field-error.ts";
import { dns1123Label, dns1123Subdomain, subdomainName } from "./names.ts";
import { noBacksteps } from "./path-validation.ts";
import {
  byteNumber,
  namedSecret,
  requireLists,
  requireTexts,
  type SourceCheck,
  type SourceRule,
} from "./volume-source-members.ts";

const hostPathTypes = [
  "",
  "BlockDevice",
  "CharDevice",
  "Directory",
  "DirectoryOrCreate",
  "File",
  "FileOrCreate",
  "Socket",
];
const maxDriverNameBytes = 63;
const maxTenantLength = 64;

/** Rules of `hostPath`. */
export const hostPathCheck: SourceCheck = (source, field) => {
  const path = text(source["path"]);
  if (path === "") return [required(`${field}.path`)];
  const type = text(source["type"]);
  return [
    ...noBacksteps(path, `${field}.path`),
    ...(hostPathTypes.includes(type) ? [] : [notSupported(`${field}.type`, type, hostPathTypes)]),
  ];
};

const fcCheck: SourceCheck = (source, field) => {
  const path = `${field}.targetWWNs`;
  const wwns = strings(source["targetWWNs"]);
  const wwids = strings(source["wwids"]);
  const out: FieldError[] = [];
  if (wwns.length === 0 && wwids.length === 0) {
    out.push(required(path, "must specify either targetWWNs or wwids, but not both"));
  }
  if (wwns.length === 0) return out;
  if (wwids.length > 0) {
    out.push(invalidValue(path, wwns, "targetWWNs and wwids can not be specified simultaneously"));
  }
  if (int(source["lun"]) === undefined) {
    out.push(required(`${field}.lun`, "lun is required if targetWWNs is specified"));
  } else out.push(...byteNumber(source["lun"], `${field}.lun`, [0, 255]));
  return out;
};

const nfsCheck: SourceCheck = (source, field) => [
  ...requireTexts(source, field, "server", "path"),
  ...(text(source["path"]).startsWith("/")
    ? []
    : [invalidValue(`${field}.path`, text(source["path"]), "must be an absolute path")]),
];

const registryMessage = "must be a host:port pair or multiple pairs separated by commas";

const quobyteCheck: SourceCheck = (source, field) => {
  const registry = text(source["registry"]);
  const out: FieldError[] = [];
  if (registry === "") out.push(required(`${field}.registry`, registryMessage));
  else if (text(source["tenant"]).length > maxTenantLength) {
    out.push(
      required(`${field}.tenant`, "must be a UUID and may not exceed a length of 64 characters"),
    );
  } else {
    for (const pair of registry.split(",")) {
      if (!/^(\[[^\]]*\]|[^:]*):[^:]*$/.test(pair)) {
        out.push(invalidValue(`${field}.registry`, registry, registryMessage));
      }
    }
  }
  return [...out, ...requireTexts(source, field, "volume")];
};

const flockerCheck: SourceCheck = (source, field) => {
  const name = text(source["datasetName"]);
  const uuid = text(source["datasetUUID"]);
  const out: FieldError[] = [];
  if (name === "" && uuid === "") {
    out.push(required(field, "one of datasetName and datasetUUID is required"));
  }
  if (name !== "" && uuid !== "") {
    const detail = "datasetName and datasetUUID can not be specified simultaneously";
    out.push(invalidValue(field, "resource", detail));
  }
  if (name.includes("/")) {
    out.push(invalidValue(`${field}.datasetName`, name, "must not contain '/'"));
  }
  return out;
};

const flexVolumeCheck: SourceCheck = (source, field) => [
  ...requireTexts(source, field, "driver"),
  ...Object.keys(record(source["options"])).flatMap((key) => {
    const domain = `.${(key.split("/")[0] ?? "").toLowerCase()}`;
    return domain.endsWith(".kubernetes.io") || domain.endsWith(".k8s.io")
      ? [
          invalidValue(
            `${field}.options[${key}]`,
            key,
            "kubernetes.io and k8s.io namespaces are reserved",
          ),
        ]
      : [];
  }),
];

const cachingModes = ["None", "ReadOnly", "ReadWrite"];
const diskKinds = ["Dedicated", "Managed", "Shared"];
const managedURI =
  "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
const blobURI = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";

const azureDiskCheck: SourceCheck = (source, field) => {
  const { cachingMode, kind } = source;
  const diskURI = text(source["diskURI"]);
  const out = requireTexts(source, field, "diskName", "diskURI");
  if (cachingMode !== undefined && !cachingModes.includes(text(cachingMode))) {
    out.push(notSupported(`${field}.cachingMode`, cachingMode, cachingModes));
  }
  if (kind === undefined) return out;
  if (!diskKinds.includes(text(kind))) out.push(notSupported(`${field}.kind`, kind, diskKinds));
  const managed = kind === "Managed";
  if (!diskURI.startsWith(managed ? "/subscriptions/" : "https://")) {
    out.push(notSupported(`${field}.diskURI`, diskURI, [managed ? managedURI : blobURI]));
  }
  return out;
};

function storageOSCheck(namespaced: boolean): SourceCheck {
  return (source, field) => {
    const name = text(source["volumeName"]);
    const namespace = text(source["volumeNamespace"]);
    return [
      ...(name === ""
        ? [required(`${field}.volumeName`)]
        : invalidAll(`${field}.volumeName`, name, dns1123Label(name))),
      ...(namespace === ""
        ? []
        : invalidAll(`${field}.volumeNamespace`, namespace, dns1123Label(namespace))),
      ...namedSecret(source, field, namespaced),
    ];
  };
}

/** The name of a CSI driver: at most 63 bytes, a subdomain in any case. */
export function validateDriverName(name: string, field: string): FieldError[] {
  if (name === "") return [required(field)];
  return [
    ...(Buffer.byteLength(name) > maxDriverNameBytes ? [tooLong(field, maxDriverNameBytes)] : []),
    ...invalidAll(field, name, dns1123Subdomain(name.toLowerCase())),
  ];
}

/** Rules of `csi` in a pod. */
export const csiInlineCheck: SourceCheck = (source, field) => {
  const out = validateDriverName(text(source["driver"]), `${field}.driver`);
  if (source["nodePublishSecretRef"] === undefined) return out;
  const name = text(record(source["nodePublishSecretRef"])["name"]);
  if (name === "") return [...out, required(`${field}.nodePublishSecretRef.name`)];
  return [...out, ...invalidAll(`${field}.name`, name, subdomainName(name, false))];
};

function secretReference(reference: unknown, field: string): FieldError[] {
  const name = text(record(reference)["name"]);
  const namespace = text(record(reference)["namespace"]);
  return [
    ...(name === ""
      ? [required(`${field}.name`)]
      : invalidAll(`${field}.name`, name, dns1123Subdomain(name))),
    ...(namespace === ""
      ? [required(`${field}.namespace`)]
      : invalidAll(`${field}.namespace`, namespace, dns1123Label(namespace))),
  ];
}

/** Secrets of a CSI PersistentVolume whose references are checked. */
const checkedSecrets = [
  "controllerPublishSecretRef",
  "controllerExpandSecretRef",
  "nodePublishSecretRef",
  "nodeExpandSecretRef",
];

/** Rules of `csi` in a PersistentVolume. */
export const csiPersistentCheck: SourceCheck = (source, field) => [
  ...validateDriverName(text(source["driver"]), `${field}.driver`),
  ...requireTexts(source, field, "volumeHandle"),
  ...checkedSecrets.flatMap((key) =>
    source[key] === undefined ? [] : secretReference(source[key], `${field}.${key}`),
  ),
];

const glusterfsPersistentCheck: SourceCheck = (source, field) => {
  const out = requireTexts(source, field, "endpoints", "path");
  const namespace = source["endpointsNamespace"];
  if (namespace === undefined) return out;
  const path = `${field}.endpointsNamespace`;
  const messages =
    namespace === ""
      ? ["if the endpointnamespace is set, it must be a valid namespace name"]
      : dns1123Label(text(namespace));
  return [...out, ...invalidAll(path, namespace, messages)];
};

const azureFilePersistentCheck: SourceCheck = (source, field) => [
  ...requireTexts(source, field, "secretName", "shareName"),
  ...(source["secretNamespace"] === "" ? [required(`${field}.secretNamespace`)] : []),
];

const gcePersistentDisk: SourceRule = {
  key: "gcePersistentDisk",
  shown: "persistentDisk",
  shownAsSecond: "gcePersistentDisk",
  check: (source, field) => [
    ...requireTexts(source, field, "pdName"),
    ...byteNumber(source["partition"], `${field}.partition`, [1, 255]),
  ],
};
const awsElasticBlockStore: SourceRule = {
  key: "awsElasticBlockStore",
  check: (source, field) => [
    ...requireTexts(source, field, "volumeID"),
    ...byteNumber(source["partition"], `${field}.partition`, [1, 255]),
  ],
};
const nfs: SourceRule = { key: "nfs", check: nfsCheck };
const flocker: SourceRule = { key: "flocker", check: flockerCheck };
const quobyte: SourceRule = { key: "quobyte", check: quobyteCheck };
const fc: SourceRule = { key: "fc", check: fcCheck };
const azureDisk: SourceRule = { key: "azureDisk", check: azureDiskCheck };
const hostPath: SourceRule = { key: "hostPath", check: hostPathCheck };
const rbd: SourceRule = {
  key: "rbd",
  check: (source, field) => [
    ...requireLists(source, field, "monitors"),
    ...requireTexts(source, field, "image"),
  ],
};
const cephfs: SourceRule = {
  key: "cephfs",
  shownAsSecond: "cephFS",
  check: (source, field) => requireLists(source, field, "monitors"),
};
const simple = (key: string, ...members: readonly string[]): SourceRule => ({
  key,
  check: (source, field) => requireTexts(source, field, ...members),
});
const vsphereVolume = simple("vsphereVolume", "volumePath");
const photonPersistentDisk = simple("photonPersistentDisk", "pdID");
const portworxVolume = simple("portworxVolume", "volumeID");
const scaleIO = simple("scaleIO", "gateway", "system", "volumeName");

function cinder(namespaced: boolean): SourceRule {
  return {
    key: "cinder",
    check: (source, field) => [
      ...requireTexts(source, field, "volumeID"),
      ...namedSecret(source, field, namespaced),
    ],
  };
}

/** The sources that a pod shares with PersistentVolumes, by name. */
export const podRemoteSources = {
  hostPath,
  gcePersistentDisk,
  awsElasticBlockStore,
  nfs,
  glusterfs: simple("glusterfs", "endpoints", "path"),
  flocker,
  rbd,
  cinder: cinder(false),
  cephfs,
  quobyte,
  fc,
  flexVolume: { key: "flexVolume", check: flexVolumeCheck },
  azureFile: simple("azureFile", "secretName", "shareName"),
  vsphereVolume,
  photonPersistentDisk,
  portworxVolume,
  azureDisk,
  storageos: { key: "storageos", check: storageOSCheck(false) },
  scaleIO,
  csi: { key: "csi", check: csiInlineCheck },
} as const;

/** The sources of a PersistentVolume but `iscsi` and `local`, which look beyond themselves; in upstream's order. */
export const persistentSources = {
  beforeISCSI: [
    hostPath,
    gcePersistentDisk,
    awsElasticBlockStore,
    { key: "glusterfs", check: glusterfsPersistentCheck },
    flocker,
    nfs,
    rbd,
    quobyte,
    cephfs,
  ],
  beforeLocal: [
    cinder(true),
    fc,
    { key: "flexVolume", check: flexVolumeCheck, neverSecond: true },
    { key: "azureFile", check: azureFilePersistentCheck },
    vsphereVolume,
    photonPersistentDisk,
    portworxVolume,
    azureDisk,
    scaleIO,
  ],
  afterLocal: [
    { key: "storageos", check: storageOSCheck(true) },
    { key: "csi", check: csiPersistentCheck },
  ],
} as const satisfies Readonly<Record<string, readonly SourceRule[]>>;

/** Checks a union of volume sources: exactly one of `rules` has to be there. */
export function validateSourceUnion(
  owner: Readonly<JsonObject>,
  field: string,
  rules: readonly SourceRule[],
): FieldError[] {
  const out: FieldError[] = [];
  let found = 0;
  for (const { key, check, shown, shownAsSecond, neverSecond } of rules) {
    const source = owner[key];
    if (source === undefined) continue;
    if (found > 0 && neverSecond !== true) {
      const path = `${field}.${shownAsSecond ?? shown ?? key}`;
      out.push(forbiddenField(path, "may not specify more than 1 volume type"));
      continue;
    }
    found += 1;
    out.push(...check(record(source), `${field}.${shown ?? key}`));
  }
  if (found === 0) out.push(required(field, "must specify a volume type"));
  return out;
}
