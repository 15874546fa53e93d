import { formatQuantity } from "../../api/quantity.ts";
import type { FieldError, JsonObject, KindDefinition } from "../types.ts";
import {
  ensureRecord,
  int,
  list,
  mapOf,
  nameOf,
  record,
  records,
  semanticEqual,
  strings,
  text,
} from "./access.ts";
import {
  at,
  duplicate,
  immutable,
  invalidAll,
  invalidValue,
  nonNegative,
  notSupported,
  required,
} from "./field-error.ts";
import { defineKind } from "./kind-builder.ts";
import { qualifiedName, subdomainName } from "./names.ts";
import { deprecatedLabelMessage } from "./placement-warnings.ts";
import { canonicalQuantity, quantityOf } from "./quantity.ts";
import { validateLabelSelector } from "./scheduling-validation.ts";
import { defineStrategy } from "./strategy.ts";
import { age, ageColumn, column, nameColumn, numberColumn } from "./table.ts";
import { validateDriverName } from "./volume-source-validation.ts";

const group = "storage.k8s.io";
const maxNodeIDBytes = 256;
const minUpdatePeriodSeconds = 10;
const minTokenSeconds = 600;
const maxTokenSeconds = 2 ** 32;
const groupPolicies = ["File", "None", "ReadWriteOnceWithFSType"];
const lifecycleModes = ["Persistent", "Ephemeral"];

const driverDefaults: Readonly<Record<string, unknown>> = {
  attachRequired: true,
  podInfoOnMount: false,
  storageCapacity: false,
  fsGroupPolicy: "ReadWriteOnceWithFSType",
  requiresRepublish: false,
  seLinuxMount: false,
};

function tokenRequestErrors(value: unknown, field: string): FieldError[] {
  const seen = new Set<string>();
  return records(value).flatMap((request, index) => {
    const path = at(field, index);
    const audience = text(request["audience"]);
    if (seen.has(audience)) return [duplicate(`${path}.audience`, audience)];
    seen.add(audience);
    const seconds = int(request["expirationSeconds"]);
    if (seconds === undefined) return [];
    const problem = (detail: string): FieldError[] => [
      invalidValue(`${path}.expirationSeconds`, seconds, detail),
    ];
    if (seconds < minTokenSeconds)
      return problem("may not specify a duration less than 10 minutes");
    return seconds > maxTokenSeconds
      ? problem("may not specify a duration larger than 2^32 seconds")
      : [];
  });
}

function driverErrors(
  driver: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const spec = record(driver["spec"]);
  const modes = strings(spec["volumeLifecycleModes"]);
  const period = int(spec["nodeAllocatableUpdatePeriodSeconds"]);
  const out: FieldError[] = [];
  if (!groupPolicies.includes(text(spec["fsGroupPolicy"]))) {
    out.push(notSupported("spec.fsGroupPolicy", spec["fsGroupPolicy"], groupPolicies));
  }
  out.push(...tokenRequestErrors(spec["tokenRequests"], "spec.tokenRequests"));
  for (const mode of modes) {
    if (lifecycleModes.includes(mode)) continue;
    out.push(notSupported("spec.volumeLifecycleModes", mode, lifecycleModes));
  }
  if (period !== undefined && period < minUpdatePeriodSeconds) {
    out.push(
      invalidValue(
        "spec.nodeAllocatableUpdatePeriodSeconds",
        period,
        "must be greater than or equal to 10 seconds",
      ),
    );
  }
  const inSecrets = spec["serviceAccountTokenInSecrets"];
  if (inSecrets !== undefined && list(spec["tokenRequests"]).length === 0) {
    out.push(
      invalidValue(
        "spec.serviceAccountTokenInSecrets",
        inSecrets,
        "serviceAccountTokenInSecrets is set but no tokenRequests are specified",
      ),
    );
  }
  if (old === undefined) return out;
  const before = record(old["spec"]);
  return [
    ...out,
    // Upstream spells this one field otherwise.
    ...immutable("spec.attachedRequired", spec["attachRequired"], before["attachRequired"]),
    ...immutable("spec.volumeLifecycleModes", modes, strings(before["volumeLifecycleModes"])),
  ];
}

function driverWarnings(
  driver: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): string[] {
  const { tokenRequests, serviceAccountTokenInSecrets } = record(driver["spec"]);
  const same =
    old !== undefined && semanticEqual(record(old["spec"])["tokenRequests"], tokenRequests);
  return list(tokenRequests).length === 0 || serviceAccountTokenInSecrets !== undefined || same
    ? []
    : [
        "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes",
      ];
}

function shownAudiences(value: unknown): string {
  return value === undefined
    ? "<unset>"
    : records(value)
        .map((request) => text(request["audience"]))
        .join(",");
}

const flag = (name: string, description: string) =>
  ({ ...column(name, description), type: "boolean" }) as const;

export const csiDriverKind: KindDefinition = defineKind({
  group,
  kind: "CSIDriver",
  plural: "csidrivers",
  namespaced: false,
  schema: "io.k8s.api.storage.v1.CSIDriver",
  strategy: {
    ...defineStrategy({
      hasGeneration: true,
      generationOfNew: 0,
      allowUnconditionalUpdate: false,
      applyDefaults(driver) {
        const spec = ensureRecord(driver, "spec");
        for (const [key, value] of Object.entries(driverDefaults)) spec[key] ??= value;
        if (list(spec["volumeLifecycleModes"]).length === 0) {
          spec["volumeLifecycleModes"] = ["Persistent"];
        }
        for (const request of records(spec["tokenRequests"])) request["audience"] ??= "";
      },
      prepareForCreate(driver) {
        // Its gate is off by default: the field is dropped, as upstream does.
        delete ensureRecord(driver, "spec")["preventPodSchedulingIfMissing"];
      },
      prepareForUpdate(driver) {
        delete ensureRecord(driver, "spec")["preventPodSchedulingIfMissing"];
      },
      validate: driverErrors,
      warnings: driverWarnings,
    }),
    returnsDeletedObject: true,
  },
  table: {
    columns: [
      nameColumn,
      flag("AttachRequired", "Whether volumes are attached to a node before they are mounted."),
      flag("PodInfoOnMount", "Whether the driver is told about the pod."),
      flag("StorageCapacity", "Whether the scheduler looks at the capacity that is left."),
      column("TokenRequests", "Audiences of the tokens that the driver is given."),
      flag("RequiresRepublish", "Whether volumes are published again and again."),
      column("Modes", "Persistent volumes, ephemeral ones, or both."),
      ageColumn,
    ],
    row(driver, now) {
      const spec = record(driver["spec"]);
      return [
        nameOf(driver),
        spec["attachRequired"] !== false,
        spec["podInfoOnMount"] === true,
        spec["storageCapacity"] === true,
        shownAudiences(spec["tokenRequests"]),
        spec["requiresRepublish"] === true,
        strings(spec["volumeLifecycleModes"]).join(",") || "<none>",
        age(driver, now),
      ];
    },
  },
});

function nodeDriverErrors(
  driver: Readonly<JsonObject>,
  field: string,
  seen: Set<string>,
): FieldError[] {
  const name = text(driver["name"]);
  const nodeID = text(driver["nodeID"]);
  const out = validateDriverName(name, `${field}.name`);
  if (nodeID === "") out.push(required(`${field}.nodeID`));
  if (Buffer.byteLength(nodeID) > maxNodeIDBytes) {
    const detail = `must be ${maxNodeIDBytes} characters or less`;
    out.push(invalidValue(`${field}.nodeID`, nodeID, detail));
  }
  out.push(...nonNegative(`${field}.allocatable.count`, record(driver["allocatable"])["count"]));
  if (seen.has(name)) out.push(duplicate(`${field}.name`, name));
  seen.add(name);
  const keys = strings(driver["topologyKeys"]);
  keys.forEach((key, index) => {
    // Upstream names the driver, not the key, in these three.
    if (key === "") out.push(required(field));
    if (keys.indexOf(key) < index) out.push(duplicate(field, key));
    out.push(...invalidAll(field, key, qualifiedName(key)));
  });
  return out;
}

/** What may not change of a driver while it is registered: all but how many volumes it can take (KEP-4876). */
function fixedPart(driver: Readonly<JsonObject>): JsonObject {
  const { allocatable: _count, ...rest } = driver;
  return rest;
}

function csiNodeErrors(
  node: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const seen = new Set<string>();
  const drivers = records(record(node["spec"])["drivers"]);
  const out = drivers.flatMap((driver, index) =>
    nodeDriverErrors(driver, at("spec.drivers", index), seen),
  );
  for (const before of records(record(old?.["spec"])["drivers"])) {
    for (const driver of drivers.filter((one) => one["name"] === before["name"])) {
      if (semanticEqual(fixedPart(driver), fixedPart(before))) continue;
      out.push(invalidValue("spec.drivers", fixedPart(driver), "field is immutable"));
    }
  }
  return out;
}

export const csiNodeKind: KindDefinition = defineKind({
  group,
  kind: "CSINode",
  plural: "csinodes",
  namespaced: false,
  schema: "io.k8s.api.storage.v1.CSINode",
  strategy: {
    ...defineStrategy({
      validate: csiNodeErrors,
      allowUnconditionalUpdate: false,
      applyDefaults(node) {
        // The API prints lists that are not there.
        const spec = ensureRecord(node, "spec");
        if (list(spec["drivers"]).length === 0) spec["drivers"] = null;
        for (const driver of records(spec["drivers"])) driver["topologyKeys"] ??= null;
      },
    }),
    returnsDeletedObject: true,
  },
  table: {
    columns: [nameColumn, numberColumn("Drivers", "Drivers registered on the node."), ageColumn],
    row: (node, now) => [
      nameOf(node),
      records(record(node["spec"])["drivers"]).length,
      age(node, now),
    ],
  },
});

/** `old` is stored: when its selector is wrong, the new one may be. */
function capacityErrors(
  capacity: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const { nodeTopology, storageClassName } = capacity;
  const storedIsWrong =
    old?.["nodeTopology"] !== undefined &&
    validateLabelSelector(old["nodeTopology"], "").length > 0;
  const out =
    nodeTopology === undefined || storedIsWrong
      ? []
      : validateLabelSelector(nodeTopology, "nodeTopology");
  const name = text(storageClassName);
  out.push(...invalidAll("storageClassName", name, subdomainName(name, false)));
  const amount = quantityOf(capacity["capacity"]);
  if (amount !== undefined && amount.nanos < 0n) {
    const detail = "must be greater than or equal to 0";
    out.push(invalidValue("capacity", formatQuantity(amount), detail));
  }
  if (old === undefined) return out;
  const before = old["nodeTopology"];
  const isAsGiven = (before === undefined) === (nodeTopology === undefined);
  if (!isAsGiven || !semanticEqual(nodeTopology, before)) {
    out.push(invalidValue("nodeTopology", nodeTopology, "field is immutable"));
  }
  return [...out, ...immutable("storageClassName", name, text(old["storageClassName"]))];
}

function capacityWarnings(capacity: Readonly<JsonObject>): string[] {
  const selector = record(capacity["nodeTopology"]);
  const expressions = records(selector["matchExpressions"]).flatMap((expression, index) => {
    const key = text(expression["key"]);
    const message = deprecatedLabelMessage(key);
    const path = at("nodeTopology.matchExpressions", index);
    return message === undefined ? [] : [`${path}.key: ${key} is ${message}`];
  });
  const labels = Object.keys(mapOf(selector["matchLabels"])).flatMap((label) => {
    const message = deprecatedLabelMessage(label);
    return message === undefined ? [] : [`nodeTopology.matchLabels.${label}: ${message}`];
  });
  return [...expressions, ...labels];
}

export const csiStorageCapacityKind: KindDefinition = defineKind({
  group,
  kind: "CSIStorageCapacity",
  plural: "csistoragecapacities",
  schema: "io.k8s.api.storage.v1.CSIStorageCapacity",
  strategy: defineStrategy({
    allowUnconditionalUpdate: false,
    applyDefaults(capacity) {
      for (const key of ["capacity", "maximumVolumeSize"]) {
        if (capacity[key] !== undefined) capacity[key] = canonicalQuantity(capacity[key]);
      }
    },
    validate: capacityErrors,
    warnings: capacityWarnings,
  }),
  table: {
    columns: [
      nameColumn,
      column("StorageClassName", "StorageClass that the capacity is for."),
      column("Capacity", "What is left there."),
    ],
    row: (capacity) => [
      nameOf(capacity),
      text(capacity["storageClassName"]),
      text(capacity["capacity"]) || "<unset>",
    ],
  },
});
