import type { FieldError, JsonObject } from "../types.ts";
import { isEmpty, list, metadataOf, record, records, semanticEqual, text } from "./access.ts";
import { at, forbiddenField, invalidValue } from "./field-error.ts";
import { qosClass } from "./pod-qos.ts";
import { validatePod } from "./pod-validation.ts";
import { canonicalQuantity } from "./quantity.ts";

/** What pods/resize (KEP-1287, KEP-5419) changes: no other resource can be given to what runs. */
const resizable = ["cpu", "memory"];
const lists = ["limits", "requests"];
/** How the API prints the path of the object itself. */
const root = "[]";

/** Whether both have the same containers at the same places: what is not so is refused as it was written. */
function sameNames(after: readonly JsonObject[], before: readonly JsonObject[]): boolean {
  return (
    after.length === before.length &&
    after.every((container, index) => container["name"] === before[index]?.["name"])
  );
}

/**
 * The old spec with what the endpoint takes from the wanted one: resources and resize policies of its containers, and the
 * pod's own resources. Containers that came, went or moved stay as they were wanted, for the validation to name them.
 */
export function resizedSpec(
  wanted: Readonly<JsonObject>,
  old: Readonly<JsonObject>,
): Readonly<JsonObject> {
  const containers = ["containers", "initContainers"] as const;
  if (containers.some((key) => list(wanted[key]).length !== list(old[key]).length)) return wanted;
  const out: JsonObject = structuredClone(old);
  for (const key of containers) {
    const after = records(wanted[key]);
    const before = records(out[key]);
    if (!sameNames(after, before)) {
      out[key] = wanted[key];
      continue;
    }
    before.forEach((container, index) => {
      for (const member of ["resources", "resizePolicy"]) {
        const value = after[index]?.[member];
        if (value === undefined) delete container[member];
        else container[member] = value;
      }
    });
  }
  if (wanted["resources"] === undefined) delete out["resources"];
  else out["resources"] = wanted["resources"];
  return out;
}

function orderErrors(
  spec: Readonly<JsonObject>,
  old: Readonly<JsonObject>,
  key: "containers" | "initContainers",
): FieldError[] {
  const after = records(spec[key]);
  const before = records(old[key]);
  if (after.length !== before.length) {
    return [forbiddenField(`spec.${key}`, `${key} may not be added or removed on resize`)];
  }
  return before.flatMap((container, index) =>
    after[index]?.["name"] === container["name"]
      ? []
      : [
          forbiddenField(
            `${at(`spec.${key}`, index)}.name`,
            `${key} may not be renamed or reordered on resize`,
          ),
        ],
  );
}

/** What was there has to stay there, whatever its amount. */
function removalErrors(
  after: unknown,
  before: unknown,
  path: string,
  what: (list: string) => string,
): FieldError[] {
  return ["requests", "limits"].flatMap((name) => {
    const kept = record(record(after)[name]);
    const gone = Object.keys(record(record(before)[name])).some((key) => !(key in kept));
    return gone ? [forbiddenField(`${path}.${name}`, what(name))] : [];
  });
}

/** The amounts in one form, with those that may change as they were. */
function masked(resources: unknown, old: unknown): JsonObject {
  const out: JsonObject = { ...record(resources) };
  for (const name of lists) {
    const own: JsonObject = { ...record(out[name]) };
    const before = record(record(old)[name]);
    for (const key of resizable) {
      if (before[key] === undefined) delete own[key];
      else own[key] = before[key];
    }
    out[name] = Object.fromEntries(
      Object.entries(own).map(([key, value]) => [key, canonicalQuantity(value)]),
    );
  }
  return out;
}

/** Whether nothing of a container changes but amounts of cpu and memory. */
function onlyResized(after: Readonly<JsonObject>, before: Readonly<JsonObject>): boolean {
  const { resources: own } = before;
  return semanticEqual(
    { ...after, resources: masked(after["resources"], own) },
    { ...before, resources: masked(own, own) },
  );
}

function containerErrors(spec: Readonly<JsonObject>, old: Readonly<JsonObject>): FieldError[] {
  const out: FieldError[] = [];
  const removed = (name: string): string => `resource ${name} cannot be removed`;
  for (const key of ["initContainers", "containers"]) {
    const after = records(spec[key]);
    records(old[key]).forEach((before, index) => {
      const path = `${at(`spec.${key}`, index)}.resources`;
      out.push(...removalErrors(after[index]?.["resources"], before["resources"], path, removed));
    });
  }
  const after = records(spec["containers"]);
  records(old["containers"]).forEach((before, index) => {
    if (!onlyResized(after[index] ?? {}, before)) {
      out.push(forbiddenField("spec", "only cpu and memory resources are mutable"));
    }
  });
  return [...out, ...initContainerErrors(spec, old)];
}

function initContainerErrors(spec: Readonly<JsonObject>, old: Readonly<JsonObject>): FieldError[] {
  const after = records(spec["initContainers"]);
  return records(old["initContainers"]).flatMap((before, index) => {
    const path = at("spec.initContainers", index);
    const container = after[index] ?? {};
    const out: FieldError[] = [];
    if (!onlyResized(container, before)) {
      out.push(
        forbiddenField(
          path,
          "only cpu and memory resources for init or sidecar containers are mutable",
        ),
      );
    }
    const sidecar = container["restartPolicy"] === "Always";
    if (sidecar || semanticEqual(container, before)) return out;
    for (const policy of records(container["resizePolicy"])) {
      if (policy["restartPolicy"] !== "RestartContainer") continue;
      out.push(
        forbiddenField(
          path,
          "non-sidecar init containers with a resize policy of RestartContainer cannot be resized",
        ),
      );
    }
    return out;
  });
}

/** Rules for the resources of the pod as a whole. */
function podLevelErrors(spec: Readonly<JsonObject>, old: Readonly<JsonObject>): FieldError[] {
  const after = spec["resources"];
  const before = old["resources"];
  if (before !== undefined && after === undefined) {
    return [forbiddenField("spec.resources", "pod-level resources cannot be removed")];
  }
  const removed = (name: string): string => `pod-level resource ${name} cannot be removed`;
  const out = removalErrors(after, before, "spec.resources", removed);
  if (!semanticEqual(masked(after, before), masked(before, before))) {
    out.push(forbiddenField("spec", "only cpu and memory resources are mutable at pod-level"));
  }
  return out;
}

/** A node that says nothing of a running container's resources does not resize it. */
function nodeResizes(status: Readonly<JsonObject>): boolean {
  const running = records(status["containerStatuses"]).find(
    ({ state }) => record(state)["running"] !== undefined,
  );
  return running === undefined || running["resources"] !== undefined;
}

function hasPodLevel(spec: Readonly<JsonObject>): boolean {
  const own = record(spec["resources"]);
  return lists.some((name) => !isEmpty(own[name]));
}

/** Rules for pods/resize: cpu and memory of what runs, and nothing that makes it another class of pod. */
export function validatePodResize(
  pod: Readonly<JsonObject>,
  oldPod: Readonly<JsonObject>,
): FieldError[] {
  const spec = record(pod["spec"]);
  const old = record(oldPod["spec"]);
  const status = record(oldPod["status"]);
  if ("kubernetes.io/config.mirror" in record(metadataOf(oldPod)["annotations"])) {
    return [forbiddenField(root, "static pods cannot be resized")];
  }
  if (record(old["os"])["name"] === "windows") {
    return [forbiddenField(root, "windows pods cannot be resized")];
  }
  const out = validatePod(pod);
  const before = text(status["qosClass"]) === "" ? qosClass(old) : text(status["qosClass"]);
  if (before !== qosClass(spec)) {
    out.push(
      invalidValue(
        "spec",
        text(record(pod["status"])["qosClass"]),
        "Pod QOS Class may not change as a result of resizing",
      ),
    );
  }
  if (!nodeResizes(status)) {
    out.push(forbiddenField("spec", "Pod running on node without support for resize"));
  }
  if (hasPodLevel(old) || hasPodLevel(spec)) out.push(...podLevelErrors(spec, old));
  const order = [
    ...orderErrors(spec, old, "containers"),
    ...orderErrors(spec, old, "initContainers"),
  ];
  return order.length > 0 ? [...out, ...order] : [...out, ...containerErrors(spec, old)];
}
