import type { FieldError, JsonObject } from "../types.ts";
import { int, list, record, records, semanticEqual, text } from "./access.ts";
import { at, forbiddenField, invalidAll, invalidValue } from "./field-error.ts";
import { ipAddress, qualifiedName } from "./names.ts";
import { validatePod } from "./pod-validation.ts";

const maxInt32 = 2_147_483_647;

const updatable = [
  "`spec.containers[*].image`",
  "`spec.initContainers[*].image`",
  "`spec.activeDeadlineSeconds`",
  "`spec.tolerations` (only additions to existing tolerations)",
  "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
].join(",");

function containerCount(
  spec: Readonly<JsonObject>,
  old: Readonly<JsonObject>,
  key: string,
): FieldError[] {
  return list(spec[key]).length === list(old[key]).length
    ? []
    : [forbiddenField(`spec.${key}`, "pod updates may not add or remove containers")];
}

function deadlineChange(spec: Readonly<JsonObject>, old: Readonly<JsonObject>): FieldError[] {
  const field = "spec.activeDeadlineSeconds";
  const after = int(spec["activeDeadlineSeconds"]);
  const before = int(old["activeDeadlineSeconds"]);
  if (after === undefined) {
    return before === undefined
      ? []
      : [invalidValue(field, null, "must not update from a positive integer to nil value")];
  }
  if (after < 0 || after > maxInt32) {
    return [invalidValue(field, after, `must be between 0 and ${maxInt32}, inclusive`)];
  }
  return before !== undefined && before < after
    ? [invalidValue(field, after, "must be less than or equal to previous value")]
    : [];
}

function tolerationChange(spec: Readonly<JsonObject>, old: Readonly<JsonObject>): FieldError[] {
  const bare = (toleration: JsonObject): JsonObject => {
    const { tolerationSeconds: _seconds, ...rest } = toleration;
    return rest;
  };
  const after = records(spec["tolerations"]).map(bare);
  const kept = records(old["tolerations"])
    .map(bare)
    .every((toleration) => after.some((candidate) => semanticEqual(candidate, toleration)));
  return kept
    ? []
    : [
        forbiddenField(
          "spec.tolerations",
          "existing toleration can not be modified except its tolerationSeconds",
        ),
      ];
}

function gateChange(spec: Readonly<JsonObject>, old: Readonly<JsonObject>): FieldError[] {
  const known = new Set(records(old["schedulingGates"]).map((gate) => text(gate["name"])));
  return records(spec["schedulingGates"]).flatMap((gate, index) => {
    const name = text(gate["name"]);
    return known.has(name)
      ? []
      : [
          forbiddenField(
            `${at("spec.schedulingGates", index)}.name`,
            `only deletion is allowed, but found new scheduling gate '${name}'`,
          ),
        ];
  });
}

/** The spec with everything that may change set back to what it was. */
function withoutAllowedChanges(spec: Readonly<JsonObject>, old: Readonly<JsonObject>): JsonObject {
  const munged: JsonObject = structuredClone(spec);
  for (const key of ["containers", "initContainers"]) {
    const before = records(old[key]);
    records(munged[key]).forEach((container, index) => {
      container["image"] = before[index]?.["image"];
    });
  }
  const gated = records(old["schedulingGates"]).length > 0;
  const grace = int(old["terminationGracePeriodSeconds"]);
  const graceFixed =
    grace !== undefined && grace < 0 && munged["terminationGracePeriodSeconds"] === 1;
  for (const key of [
    "activeDeadlineSeconds",
    "tolerations",
    "schedulingGates",
    ...(gated ? ["nodeSelector"] : []),
    ...(graceFixed ? ["terminationGracePeriodSeconds"] : []),
  ]) {
    munged[key] = old[key];
  }
  return munged;
}

/** The members of the spec that differ, as `-old +new` lines. */
function difference(old: Readonly<JsonObject>, spec: Readonly<JsonObject>): string {
  const keys = [...new Set([...Object.keys(old), ...Object.keys(spec)])].filter(
    (key) => !semanticEqual(old[key], spec[key]),
  );
  return keys
    .map((key) => `- ${key}: ${JSON.stringify(old[key])}\n+ ${key}: ${JSON.stringify(spec[key])}\n`)
    .join("");
}

/** Rules for updating a Pod: nearly all of the spec is fixed at create. */
export function validatePodUpdate(
  pod: Readonly<JsonObject>,
  oldPod: Readonly<JsonObject>,
): FieldError[] {
  const spec = record(pod["spec"]);
  const old = record(oldPod["spec"]);
  const out = validatePod(pod);
  for (const key of ["containers", "initContainers"]) {
    const errors = containerCount(spec, old, key);
    if (errors.length > 0) return [...out, ...errors];
  }
  const deadline = deadlineChange(spec, old);
  out.push(...deadline);
  if (deadline.length > 0 && int(spec["activeDeadlineSeconds"]) !== undefined) return out;
  out.push(...tolerationChange(spec, old), ...gateChange(spec, old));
  if (semanticEqual(spec, old)) return out;
  const munged = withoutAllowedChanges(spec, old);
  if (!semanticEqual(munged, old)) {
    out.push(
      forbiddenField(
        "spec",
        `pod updates may not change fields other than ${updatable}\n${difference(old, munged)}`,
      ),
    );
  }
  return out;
}

/** Rules for `pods/status`. */
export function validatePodStatusUpdate(
  pod: Readonly<JsonObject>,
  old: Readonly<JsonObject>,
): FieldError[] {
  const out: FieldError[] = [];
  const status = record(pod["status"]);
  const before = record(old["status"]);
  const system = ["PodScheduled", "Ready", "Initialized"];
  records(status["conditions"]).forEach((condition, index) => {
    const type = text(condition["type"]);
    if (system.includes(type)) return;
    out.push(...invalidAll(`${at("status.conditions", index)}.Type`, type, qualifiedName(type)));
  });
  if (text(status["qosClass"]) !== text(before["qosClass"])) {
    out.push(invalidValue("status.qosClass", status["qosClass"], "field is immutable"));
  }
  records(status["podIPs"]).forEach((entry, index) => {
    out.push(...ipAddress(text(entry["ip"]), at("status.podIPs", index)));
  });
  const hostIPs = records(status["hostIPs"]);
  if (hostIPs[0] !== undefined && hostIPs[0]["ip"] !== status["hostIP"]) {
    out.push(invalidValue("status.hostIPs[0].ip", hostIPs[0]["ip"], "must be equal to `hostIP`"));
  }
  return [...out, ...restartErrors(status, before, record(old["spec"]))];
}

/** A container that has ended for good must not be reported as running again. */
function restartErrors(
  status: Readonly<JsonObject>,
  before: Readonly<JsonObject>,
  spec: Readonly<JsonObject>,
): FieldError[] {
  const policy = spec["restartPolicy"];
  if (policy === "Always") return [];
  const after = records(status["containerStatuses"]);
  const rules = new Map(records(spec["containers"]).map((item) => [text(item["name"]), item]));
  return records(before["containerStatuses"]).flatMap((old) => {
    const ended = record(record(old["state"])["terminated"]);
    const own = rules.get(text(old["name"]));
    if (record(old["state"])["terminated"] === undefined) return [];
    if (own?.["restartPolicy"] !== undefined || own?.["restartPolicyRules"] !== undefined)
      return [];
    if (policy === "OnFailure" && ended["exitCode"] !== 0) return [];
    const index = after.findIndex((item) => item["name"] === old["name"]);
    const now = after[index];
    if (now === undefined || record(now["state"])["terminated"] !== undefined) return [];
    return [
      forbiddenField(
        `${at("status.containerStatuses", index)}.state`,
        "may not be transitioned to non-terminated state",
      ),
    ];
  });
}
