import type { FieldError, JsonObject } from "../types.ts";
import { dig, int, mapOf, metadataOf, nameOf, record, text } from "./access.ts";
import {
  invalidAll,
  invalidValue,
  nonNegative,
  notSupported,
  required,
  tooLong,
} from "./field-error.ts";
import { jobLabels } from "./job-labels.ts";
import { validatePodFailurePolicy, validateSuccessPolicy } from "./job-policy-validation.ts";
import { selectorMatches } from "./label-selector.ts";
import { dns1123Label, dns1123Subdomain } from "./names.ts";
import { validatePodTemplate } from "./pod-validation.ts";
import { validateLabelSelector } from "./scheduling-validation.ts";

const limits = {
  indexedParallelism: 100_000,
  failedIndexes: 100_000,
  /** Above so many completions the lists of indexes must stay short. */
  completions: 100_000,
  highParallelism: 10_000,
  highFailedIndexes: 10_000,
  managedByBytes: 63,
} as const;

function generatedSelectorErrors(
  job: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const spec = record(job["spec"]);
  if (spec["manualSelector"] === true || spec["selector"] === undefined) return [];
  const uid = text(metadataOf(job)["uid"]);
  const out: FieldError[] = [];
  if (uid === "") out.push(required("metadata.uid"));
  const template = mapOf(dig(spec, "template", "metadata", "labels"));
  const before = mapOf(dig(old, "spec", "template", "metadata", "labels"));
  // Jobs from before 1.27 carry the old labels only.
  const prefixed = old === undefined || (jobLabels.name in before && jobLabels.uid in before);
  const expected: Record<string, string> = {};
  const wanted = [
    [jobLabels.legacyUID, uid],
    [jobLabels.legacyName, nameOf(job)],
    ...(prefixed
      ? [
          [jobLabels.uid, uid],
          [jobLabels.name, nameOf(job)],
        ]
      : []),
  ] as const;
  for (const [key = "", value = ""] of wanted) {
    const field = `spec.template.metadata.labels[${key}]`;
    expected[key] = value;
    if (template[key] === undefined) out.push(required(field, `must be '${value}'`));
    else if (template[key] !== value) out.push(invalidValue(field, template, `must be '${value}'`));
  }
  if (!selectorMatches(spec["selector"], expected))
    out.push(invalidValue("spec.selector", spec["selector"], "`selector` not auto-generated"));
  return out;
}

function managedByErrors(value: unknown): FieldError[] {
  const field = "spec.managedBy";
  if (value === undefined) return [];
  const path = text(value);
  const out: FieldError[] = [];
  const slash = path.indexOf("/");
  const [host, rest] = [path.slice(0, Math.max(slash, 0)), path.slice(slash + 1)];
  if (path === "") out.push(required(field));
  else if (slash < 1 || rest === "") {
    out.push(invalidValue(field, path, 'must be a domain-prefixed path (such as "acme.io/foo")'));
  } else {
    out.push(...invalidAll(field, host, dns1123Subdomain(host)));
    const pattern = String.raw`[A-Za-z0-9/\-._~%!$&'()*+,;=:]+`;
    if (!new RegExp(`^${pattern}$`).test(rest)) {
      out.push(
        invalidValue(field, rest, `Invalid path (regex used for validation is '${pattern}')`),
      );
    }
  }
  if (Buffer.byteLength(path) > limits.managedByBytes)
    out.push(tooLong(field, limits.managedByBytes));
  return out;
}

function atMost(field: string, value: number | undefined, limit: number, tail = ""): FieldError[] {
  return value !== undefined && value > limit
    ? [invalidValue(field, value, `must be less than or equal to ${limit}${tail}`)]
    : [];
}

function indexedErrors(spec: Readonly<JsonObject>): FieldError[] {
  const completions = int(spec["completions"]);
  const parallelism = int(spec["parallelism"]);
  const maxFailed = int(spec["maxFailedIndexes"]);
  const out: FieldError[] = [];
  if (completions === undefined)
    out.push(required("spec.completions", "when completion mode is Indexed"));
  out.push(
    ...atMost(
      "spec.parallelism",
      parallelism,
      limits.indexedParallelism,
      " when completion mode is Indexed",
    ),
  );
  if (completions !== undefined && maxFailed !== undefined && maxFailed > completions) {
    out.push(
      invalidValue("spec.maxFailedIndexes", maxFailed, "must be less than or equal to completions"),
    );
  }
  out.push(...atMost("spec.maxFailedIndexes", maxFailed, limits.failedIndexes));
  const perIndex = spec["backoffLimitPerIndex"] !== undefined;
  if ((completions ?? 0) <= limits.completions || !perIndex) return out;
  const tail = ` when completions are above ${limits.completions} and used with backoff limit per index`;
  if (maxFailed === undefined) {
    out.push(
      required(
        "spec.maxFailedIndexes",
        `must be specified when completions is above ${limits.completions}`,
      ),
    );
  }
  out.push(
    ...atMost("spec.parallelism", parallelism, limits.highParallelism, tail),
    ...atMost("spec.maxFailedIndexes", maxFailed, limits.highFailedIndexes, tail),
  );
  return out;
}

function completionModeErrors(spec: Readonly<JsonObject>): FieldError[] {
  const mode = spec["completionMode"];
  const out: FieldError[] = [];
  if (mode !== undefined && mode !== "NonIndexed" && mode !== "Indexed")
    out.push(notSupported("spec.completionMode", mode, ["NonIndexed", "Indexed"]));
  if (mode === "Indexed") out.push(...indexedErrors(spec));
  if (mode === undefined || mode === "NonIndexed") {
    for (const key of ["backoffLimitPerIndex", "maxFailedIndexes"]) {
      if (spec[key] !== undefined)
        out.push(invalidValue(`spec.${key}`, spec[key], "requires indexed completion mode"));
    }
  }
  return out;
}

function policyErrors(spec: Readonly<JsonObject>): FieldError[] {
  const out: FieldError[] = [];
  const byFailure = spec["podFailurePolicy"] !== undefined;
  if (byFailure) out.push(...validatePodFailurePolicy(spec, "spec.podFailurePolicy"));
  if (spec["successPolicy"] !== undefined) {
    const field = "spec.successPolicy";
    if (spec["completionMode"] === "Indexed") out.push(...validateSuccessPolicy(spec, field));
    else out.push(invalidValue(field, spec["successPolicy"], "requires indexed completion mode"));
  }
  const replacement = spec["podReplacementPolicy"];
  const supported = byFailure ? ["Failed"] : ["Failed", "TerminatingOrFailed"];
  if (replacement !== undefined && !supported.includes(text(replacement)))
    out.push(notSupported("spec.podReplacementPolicy", replacement, supported));
  return out;
}

function restartPolicyErrors(spec: Readonly<JsonObject>): FieldError[] {
  const field = "spec.template.spec.restartPolicy";
  const policy = text(dig(spec, "template", "spec", "restartPolicy"));
  if (policy === "" || policy === "Always")
    return [required(field, 'valid values: "OnFailure", "Never"')];
  if (policy !== "OnFailure" && policy !== "Never")
    return [notSupported(field, policy, ["OnFailure", "Never"])];
  return spec["podFailurePolicy"] !== undefined && policy !== "Never"
    ? [invalidValue(field, policy, 'only "Never" is supported when podFailurePolicy is specified')]
    : [];
}

function specErrors(spec: Readonly<JsonObject>): FieldError[] {
  const out: FieldError[] = [];
  for (const key of [
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
  ]) {
    out.push(...nonNegative(`spec.${key}`, spec[key]));
  }
  if (spec["maxFailedIndexes"] !== undefined && spec["backoffLimitPerIndex"] === undefined)
    out.push(required("spec.backoffLimitPerIndex", "when maxFailedIndexes is specified"));
  const template = record(spec["template"]);
  out.push(
    ...managedByErrors(spec["managedBy"]),
    ...completionModeErrors(spec),
    ...policyErrors(spec),
    ...validatePodTemplate(template, "spec.template"),
    ...restartPolicyErrors(spec),
  );
  if (spec["selector"] === undefined) return [...out, required("spec.selector")];
  out.push(...validateLabelSelector(spec["selector"], "spec.selector"));
  const labels = metadataOf(template)["labels"];
  if (!selectorMatches(spec["selector"], labels)) {
    out.push(
      invalidValue(
        "spec.template.metadata.labels",
        labels,
        "`selector` does not match template `labels`",
      ),
    );
  }
  return out;
}

/** Rules for a Job that hold at create and at update (`old` is what was stored before). */
export function validateJob(
  job: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const spec = record(job["spec"]);
  const out = [...generatedSelectorErrors(job, old), ...specErrors(spec)];
  const completions = int(spec["completions"]) ?? 0;
  if (spec["completionMode"] === "Indexed" && completions > 0) {
    const hostname = `${nameOf(job)}-${completions - 1}`;
    if (dns1123Label(hostname).length > 0) {
      out.push(
        invalidValue(
          "metadata.name",
          nameOf(job),
          `will not able to create pod with invalid DNS label: ${hostname}`,
        ),
      );
    }
  }
  return out;
}
