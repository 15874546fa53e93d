import type { FieldError, JsonObject } from "../types.ts";
import { record, records, text } from "./access.ts";
import { validateClaimTemplate } from "./claim-spec-validation.ts";
import {
  at,
  duplicate,
  enumeration,
  forbiddenField,
  invalidAll,
  invalidValue,
  required,
} from "./field-error.ts";
import { iscsiCheck } from "./iscsi-validation.ts";
import { dns1123Label, subdomainName } from "./names.ts";
import { descendingPath, fileMode } from "./path-validation.ts";
import { downwardFile, keysToPaths, validateProjected } from "./projected-validation.ts";
import { quantityOf } from "./quantity.ts";
import { requireTexts, type SourceCheck, type SourceRule } from "./volume-source-members.ts";
import { podRemoteSources, validateSourceUnion } from "./volume-source-validation.ts";

const remote = podRemoteSources;

const emptyDirCheck: SourceCheck = (source, field) => {
  const limit = quantityOf(source["sizeLimit"]);
  return limit !== undefined && limit.nanos < 0n
    ? [forbiddenField(`${field}.sizeLimit`, "SizeLimit field must be a valid resource quantity")]
    : [];
};

function objectCheck(nameKey: string): SourceCheck {
  return (source, field) => [
    ...requireTexts(source, field, nameKey),
    ...fileMode(source, "defaultMode", field),
    ...keysToPaths(source, field),
  ];
}

const downwardAPICheck: SourceCheck = (source, field) => [
  ...fileMode(source, "defaultMode", field),
  ...records(source["items"]).flatMap((file) => downwardFile(file, field)),
];

/** @param podName Empty for a template, whose pods' names are not known. */
function ephemeralCheck(podName: string, volumeName: string): SourceCheck {
  return (source, field) => {
    const path = `${field}.volumeClaimTemplate`;
    const template = source["volumeClaimTemplate"];
    const out = template === undefined ? [required(path)] : validateClaimTemplate(template, path);
    if (podName === "" || volumeName === "") return out;
    const claim = `${podName}-${volumeName}`;
    const name = `${field.slice(0, field.lastIndexOf("."))}.name`;
    const messages = subdomainName(claim, false).map(
      (message) => `PVC name ${JSON.stringify(claim)}: ${message}`,
    );
    return [...out, ...invalidAll(name, volumeName, messages)];
  };
}

/** In the order in which upstream looks at them: the first one that is there counts. */
function sourceRules(volumeName: string, pod: PodOfVolumes): readonly SourceRule[] {
  return [
    { key: "emptyDir", check: emptyDirCheck },
    remote.hostPath,
    {
      key: "gitRepo",
      check: (source, field) => [
        ...requireTexts(source, field, "repository"),
        ...descendingPath(text(source["directory"]), `${field}.directory`),
      ],
    },
    remote.gcePersistentDisk,
    remote.awsElasticBlockStore,
    { key: "secret", check: objectCheck("secretName") },
    remote.nfs,
    { key: "iscsi", check: iscsiCheck(volumeName) },
    remote.glusterfs,
    remote.flocker,
    {
      key: "persistentVolumeClaim",
      check: (source, field) => requireTexts(source, field, "claimName"),
    },
    remote.rbd,
    remote.cinder,
    remote.cephfs,
    remote.quobyte,
    { key: "downwardAPI", shownAsSecond: "downwarAPI", check: downwardAPICheck },
    remote.fc,
    remote.flexVolume,
    { key: "configMap", check: objectCheck("name") },
    remote.azureFile,
    remote.vsphereVolume,
    remote.photonPersistentDisk,
    remote.portworxVolume,
    remote.azureDisk,
    remote.storageos,
    { key: "projected", check: validateProjected },
    remote.scaleIO,
    remote.csi,
    { key: "ephemeral", check: ephemeralCheck(pod.name, volumeName) },
    {
      key: "image",
      check: (source, field) => [
        ...(pod.isPod ? requireTexts(source, field, "reference") : []),
        ...enumeration(`${field}.pullPolicy`, source["pullPolicy"], [
          "Always",
          "IfNotPresent",
          "Never",
        ]),
      ],
    },
  ];
}

/** Whose volumes are checked. */
export interface PodOfVolumes {
  /** A Pod itself, not a template of one. */
  readonly isPod: boolean;
  /** Name of the Pod; empty for a template, or while it is still to be generated. */
  readonly name: string;
}

/** Claims that will be made for the generic ephemeral volumes of a pod. */
function claimsToBeMade(volumes: readonly JsonObject[], { name }: PodOfVolumes): Set<string> {
  return new Set(
    volumes
      .filter((volume) => name !== "" && volume["ephemeral"] !== undefined)
      .map((volume) => `${name}-${text(volume["name"])}`),
  );
}

/** Checks `spec.volumes`. Only volumes without an error may be mounted; they are in `volumes`. */
export function validateVolumes(
  value: unknown,
  field: string,
  pod: PodOfVolumes,
): {
  readonly errors: FieldError[];
  readonly volumes: ReadonlyMap<string, Readonly<JsonObject>>;
} {
  const errors: FieldError[] = [];
  const volumes = new Map<string, Readonly<JsonObject>>();
  const made = claimsToBeMade(records(value), pod);
  records(value).forEach((volume, index) => {
    const path = at(field, index);
    const name = text(volume["name"]);
    const own = validateSourceUnion(volume, path, sourceRules(name, pod));
    if (name === "") own.push(required(`${path}.name`));
    else own.push(...invalidAll(`${path}.name`, name, dns1123Label(name)));
    if (volumes.has(name)) own.push(duplicate(`${path}.name`, name));
    if (own.length === 0) volumes.set(name, volume);
    errors.push(...own);
    const claim = text(record(volume["persistentVolumeClaim"])["claimName"]);
    if (claim === "" || !made.has(claim)) return;
    const detail = "must not reference a PVC that gets created for an ephemeral volume";
    errors.push(invalidValue(`${path}.persistentVolumeClaim.claimName`, claim, detail));
  });
  return { errors, volumes };
}
