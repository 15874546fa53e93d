import type { JsonObject } from "../types.ts";
import { ensureRecord, metadataOf, nameOf, record, text } from "./access.ts";

/** Labels that tie pods to their Job. */
export const jobLabels = {
  uid: "batch.kubernetes.io/controller-uid",
  name: "batch.kubernetes.io/job-name",
  legacyUID: "controller-uid",
  legacyName: "job-name",
} as const;

/**
 * Gives the template labels that no other pod has, and selects by them, unless `spec.manualSelector` leaves that to the
 * user. Labels that are there stay: validation refuses wrong ones.
 */
export function generateSelector(job: JsonObject): void {
  const spec = ensureRecord(job, "spec");
  if (spec["manualSelector"] === true) return;
  const labels = ensureRecord(ensureRecord(ensureRecord(spec, "template"), "metadata"), "labels");
  const uid = text(metadataOf(job)["uid"]);
  labels[jobLabels.legacyName] ??= nameOf(job);
  labels[jobLabels.name] ??= nameOf(job);
  labels[jobLabels.legacyUID] ??= uid;
  labels[jobLabels.uid] ??= uid;
  const selector = ensureRecord(ensureRecord(spec, "selector"), "matchLabels");
  selector[jobLabels.uid] ??= uid;
}

/** A Job without labels of its own shows those of its template, the generated ones too. */
export function labelsFromTemplate(job: JsonObject): void {
  const labels = record(metadataOf(record(record(job["spec"])["template"])))["labels"];
  const metadata = ensureRecord(job, "metadata");
  if (Object.keys(record(metadata["labels"])).length > 0 || labels === undefined) return;
  // The same map on purpose: what is generated into the template's labels is then also in the Job's.
  metadata["labels"] = labels;
}
