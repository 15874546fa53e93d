import { isDeepStrictEqual } from "node:util";

import { ensureRecord, record, records, text } from "../kinds/access.ts";
import { forbidden } from "../status-error.ts";
import type { AdmissionAttributes, AdmissionPlugin, JsonObject } from "../types.ts";

function newPod({
  kind,
  subresource,
  object,
  operation,
}: AdmissionAttributes): JsonObject | undefined {
  const ours = kind.kind === "Pod" && kind.group === "" && subresource === undefined;
  return ours && operation === "CREATE" ? object : undefined;
}

function refuse(attributes: AdmissionAttributes, message: string): never {
  throw forbidden(attributes.kind, attributes.name, message);
}

function classOf(
  attributes: AdmissionAttributes,
  spec: Readonly<JsonObject>,
): Readonly<JsonObject> | undefined {
  const name = text(spec["runtimeClassName"]);
  if (name === "") return undefined;
  const found = attributes.objects.get("runtimeclasses.node.k8s.io", "", name);
  return found ?? refuse(attributes, `pod rejected: RuntimeClass "${name}" not found`);
}

/** What the class adds to each pod (RuntimeClass.overhead.podFixed); undefined when it adds nothing. */
function overheadOf(
  runtimeClass: Readonly<JsonObject> | undefined,
): Readonly<JsonObject> | undefined {
  const overhead = runtimeClass?.["overhead"];
  return overhead === undefined ? undefined : record(record(overhead)["podFixed"]);
}

function mergeScheduling(
  attributes: AdmissionAttributes,
  spec: JsonObject,
  scheduling: Readonly<JsonObject>,
): void {
  const wanted = Object.entries(record(scheduling["nodeSelector"]));
  if (wanted.length > 0) {
    const selector = ensureRecord(spec, "nodeSelector");
    for (const [key, value] of wanted) {
      const own = selector[key];
      if (own !== undefined && own !== value) {
        const both = `runtimeClass.scheduling.nodeSelector[${key}] = ${text(value)}; pod.spec.nodeSelector[${key}] = ${text(own)}`;
        refuse(attributes, `conflict: ${both}`);
      }
      selector[key] = value;
    }
  }
  const own = records(spec["tolerations"]);
  const added = records(scheduling["tolerations"]).filter(
    (toleration) => !own.some((present) => isDeepStrictEqual(present, toleration)),
  );
  if (added.length > 0) spec["tolerations"] = [...own, ...structuredClone(added)];
}

/** A pod of a RuntimeClass gets the overhead, node selector and tolerations of its class (KEP-585, KEP-688). */
export const runtimeClass: AdmissionPlugin = {
  name: "RuntimeClass",
  mutate(attributes) {
    const pod = newPod(attributes);
    if (pod === undefined) return;
    const spec = ensureRecord(pod, "spec");
    const found = classOf(attributes, spec);
    const overhead = overheadOf(found);
    if (overhead !== undefined) {
      const own = record(spec["overhead"]);
      if (Object.keys(own).length > 0 && !isDeepStrictEqual(own, { ...overhead })) {
        refuse(
          attributes,
          "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        );
      }
      spec["overhead"] = { ...overhead };
    }
    if (found?.["scheduling"] !== undefined)
      mergeScheduling(attributes, spec, record(found["scheduling"]));
  },
  validate(attributes) {
    const pod = newPod(attributes);
    if (pod === undefined) return;
    const spec = record(pod["spec"]);
    if (spec["overhead"] === undefined || overheadOf(classOf(attributes, spec)) !== undefined)
      return;
    refuse(
      attributes,
      "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
    );
  },
};
