import { isRecord } from "../../lib/guard.ts";
import type { FieldError, JsonObject, KindDefinition } from "../types.ts";
import {
  ensureRecord,
  int,
  mapOf,
  metadataOf,
  nameOf,
  record,
  semanticEqual,
  text,
} from "./access.ts";
import { forbiddenField, invalidAll, invalidValue, required, tooLong } from "./field-error.ts";
import { defineKind } from "./kind-builder.ts";
import { subdomainName } from "./names.ts";
import { validateInlineVolumeSpec } from "./persistent-volume-validation.ts";
import { volumeSourceDefaults } from "./persistent-volume.ts";
import { defineStatusStrategy, defineStrategy, restore, subresourceVerbs } from "./strategy.ts";
import { age, ageColumn, column, nameColumn } from "./table.ts";
import { validateDriverName } from "./volume-source-validation.ts";

const maxMetadataBytes = 256 * 1024;
const maxMessageBytes = 1024;
const maxInt32 = 2_147_483_647;

function sourceErrors(source: Readonly<JsonObject>, field: string): FieldError[] {
  const { inlineVolumeSpec, persistentVolumeName } = source;
  const exactlyOne = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
  if (persistentVolumeName === undefined) {
    return inlineVolumeSpec === undefined
      ? [required(field, exactlyOne)]
      : validateInlineVolumeSpec(inlineVolumeSpec, `${field}.inlineVolumeSpec`);
  }
  if (inlineVolumeSpec !== undefined) return [forbiddenField(field, exactlyOne)];
  return persistentVolumeName === ""
    ? [required(`${field}.persistentVolumeName`, "must specify non empty persistentVolumeName")]
    : [];
}

function volumeErrorErrors(value: unknown, field: string): FieldError[] {
  const error = record(value);
  const code = int(error["errorCode"]);
  return [
    // Upstream checks one limit and names the other.
    ...(Buffer.byteLength(text(error["message"])) > maxMessageBytes
      ? [tooLong(`${field}.message`, maxMetadataBytes)]
      : []),
    ...(code !== undefined && code < 0
      ? [invalidValue(`${field}.errorCode`, code, `must be between 0 and ${maxInt32}, inclusive`)]
      : []),
  ];
}

function statusErrors(attachment: Readonly<JsonObject>): FieldError[] {
  const status = record(attachment["status"]);
  const size = Object.entries(mapOf(status["attachmentMetadata"])).reduce(
    (sum, [key, value]) => sum + Buffer.byteLength(key) + Buffer.byteLength(value),
    0,
  );
  return [
    ...(size > maxMetadataBytes ? [tooLong("status.attachmentMetadata", maxMetadataBytes)] : []),
    ...volumeErrorErrors(status["attachError"], "status.attachError"),
    ...volumeErrorErrors(status["detachError"], "status.detachError"),
  ];
}

function attachmentErrors(
  attachment: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const spec = record(attachment["spec"]);
  const source = record(spec["source"]);
  const nodeName = text(spec["nodeName"]);
  const volume = source["persistentVolumeName"];
  const out = [
    ...validateDriverName(text(spec["attacher"]), "spec.attacher"),
    ...sourceErrors(source, "spec.source"),
    ...invalidAll("spec.nodeName", nodeName, subdomainName(nodeName, false)),
    ...statusErrors(attachment),
  ];
  if (typeof volume === "string") {
    const field = "spec.source.persistentVolumeName";
    out.push(...invalidAll(field, volume, subdomainName(volume, false)));
  }
  if (old !== undefined && !semanticEqual(spec, old["spec"])) {
    out.push(invalidValue("spec", spec, "field is immutable"));
  }
  return out;
}

const strategy = defineStrategy({
  hasStatus: true,
  allowUnconditionalUpdate: false,
  applyDefaults(attachment) {
    const source = ensureRecord(ensureRecord(attachment, "spec"), "source");
    const inline = source["inlineVolumeSpec"];
    if (isRecord(inline)) volumeSourceDefaults(inline);
    ensureRecord(attachment, "status")["attached"] ??= false;
  },
  prepareForCreate(attachment) {
    attachment["status"] = { attached: false };
  },
  validate: attachmentErrors,
});

export const volumeAttachmentKind: KindDefinition = defineKind({
  group: "storage.k8s.io",
  kind: "VolumeAttachment",
  plural: "volumeattachments",
  namespaced: false,
  schema: "io.k8s.api.storage.v1.VolumeAttachment",
  strategy: { ...strategy, returnsDeletedObject: true },
  subresources: {
    status: {
      kind: "stored",
      verbs: subresourceVerbs,
      strategy: defineStatusStrategy(strategy, {
        prepareForUpdate(attachment, old) {
          // Whoever reports on an attachment cannot relabel it, nor take off what holds it.
          const metadata = ensureRecord(attachment, "metadata");
          for (const key of ["labels", "annotations", "finalizers", "ownerReferences"]) {
            restore(metadata, metadataOf(old), key);
          }
        },
        validate: attachmentErrors,
      }),
    },
  },
  table: {
    columns: [
      nameColumn,
      { ...column("Attacher", "CSI driver that attaches it."), format: "name" },
      column("PV", "The volume."),
      column("Node", "The node that it is to be attached to."),
      { ...column("Attached", "Whether it is."), type: "boolean" },
      ageColumn,
    ],
    row(attachment, now) {
      const spec = record(attachment["spec"]);
      return [
        nameOf(attachment),
        text(spec["attacher"]),
        text(record(spec["source"])["persistentVolumeName"]),
        text(spec["nodeName"]),
        record(attachment["status"])["attached"] === true,
        age(attachment, now),
      ];
    },
  },
});
