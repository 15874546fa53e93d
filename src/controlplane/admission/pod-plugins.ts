import { ensureRecord, int, nameOf, record, records, text } from "../kinds/access.ts";
import { systemPriorities } from "../kinds/small-kinds.ts";
import { forbidden } from "../status-error.ts";
import type { AdmissionAttributes, AdmissionPlugin, JsonObject } from "../types.ts";

const notReady = "node.kubernetes.io/not-ready";
const unreachable = "node.kubernetes.io/unreachable";
/** How long a pod stays bound to a node that is gone (upstream's default). */
const tolerationSeconds = 300;
const priorityClasses = "priorityclasses.scheduling.k8s.io";

function podOf({
  kind,
  subresource,
  object,
  operation,
}: AdmissionAttributes): JsonObject | undefined {
  const ours = kind.kind === "Pod" && kind.group === "" && subresource === undefined;
  return ours && (operation === "CREATE" || operation === "UPDATE") ? object : undefined;
}

function tolerates(spec: Readonly<JsonObject>, key: string): boolean {
  return records(spec["tolerations"]).some((toleration) => {
    const own = text(toleration["key"]);
    const effect = text(toleration["effect"]);
    return (own === key || own === "") && (effect === "NoExecute" || effect === "");
  });
}

/** Pods stay five minutes on a node that stops answering, unless they say otherwise. */
export const defaultTolerationSeconds: AdmissionPlugin = {
  name: "DefaultTolerationSeconds",
  mutate(attributes) {
    const pod = podOf(attributes);
    if (pod === undefined) return;
    const spec = ensureRecord(pod, "spec");
    for (const key of [notReady, unreachable]) {
      if (tolerates(spec, key)) continue;
      spec["tolerations"] = [
        ...records(spec["tolerations"]),
        { key, operator: "Exists", effect: "NoExecute", tolerationSeconds },
      ];
    }
  },
};

/** A node is tainted from its first moment; the node lifecycle controller takes the taint off when it is Ready. */
export const taintNewNodes: AdmissionPlugin = {
  name: "TaintNodesByCondition",
  mutate({ operation, kind, subresource, object }) {
    const ours = kind.kind === "Node" && kind.group === "" && subresource === undefined;
    if (!ours || operation !== "CREATE" || object === undefined) return;
    const spec = ensureRecord(object, "spec");
    const taints = records(spec["taints"]);
    const present = taints.some(
      (taint) => taint["key"] === notReady && taint["effect"] === "NoSchedule",
    );
    if (!present) spec["taints"] = [...taints, { key: notReady, effect: "NoSchedule" }];
  },
};

interface PriorityChoice {
  readonly name: string;
  readonly value: number;
  readonly preemptionPolicy: string;
}

function choosePriority(attributes: AdmissionAttributes, wanted: string): PriorityChoice {
  const { objects, kind, name } = attributes;
  const lowest = { name: "", value: 0, preemptionPolicy: "PreemptLowerPriority" };
  if (wanted === "") {
    const defaults = [...objects.list(priorityClasses)]
      .filter((item) => item["globalDefault"] === true)
      .toSorted((left, right) => (int(left["value"]) ?? 0) - (int(right["value"]) ?? 0));
    const [lowestDefault] = defaults;
    return lowestDefault === undefined ? lowest : choiceOf(lowestDefault);
  }
  const found = objects.get(priorityClasses, "", wanted);
  if (found !== undefined) return choiceOf(found);
  const system = systemPriorities[wanted];
  if (system !== undefined) return { ...lowest, name: wanted, value: system };
  throw forbidden(kind, name, `no PriorityClass with name ${wanted} was found`);
}

function choiceOf(priorityClass: Readonly<JsonObject>): PriorityChoice {
  return {
    name: nameOf(priorityClass),
    value: int(priorityClass["value"]) ?? 0,
    preemptionPolicy: text(priorityClass["preemptionPolicy"]) || "PreemptLowerPriority",
  };
}

function admitPriority(attributes: AdmissionAttributes, pod: JsonObject): void {
  const spec = ensureRecord(pod, "spec");
  const choice = choosePriority(attributes, text(spec["priorityClassName"]));
  const given = int(spec["priority"]);
  if (given !== undefined && given !== choice.value) {
    throw forbidden(
      attributes.kind,
      attributes.name,
      `the integer value of priority (${given}) must not be provided in pod spec; priority admission controller computed ${choice.value} from the given PriorityClass name`,
    );
  }
  const policy = text(spec["preemptionPolicy"]);
  if (policy !== "" && policy !== choice.preemptionPolicy) {
    throw forbidden(
      attributes.kind,
      attributes.name,
      `the string value of PreemptionPolicy (${policy}) must not be provided in pod spec; priority admission controller computed ${choice.preemptionPolicy} from the given PriorityClass name`,
    );
  }
  if (choice.name !== "") spec["priorityClassName"] = choice.name;
  spec["priority"] = choice.value;
  spec["preemptionPolicy"] = choice.preemptionPolicy;
}

/** Turns priority class names into numbers; at most one class may be the default. */
export const priority: AdmissionPlugin = {
  name: "Priority",
  mutate(attributes) {
    const pod = podOf(attributes);
    if (pod === undefined) return;
    if (attributes.operation === "CREATE") {
      admitPriority(attributes, pod);
      return;
    }
    // A client that knows nothing of priorities must not be refused for leaving them out.
    const spec = ensureRecord(pod, "spec");
    const before = record(attributes.oldObject?.["spec"]);
    for (const key of ["priority", "preemptionPolicy"]) {
      if (spec[key] === undefined && before[key] !== undefined) spec[key] = before[key];
    }
  },
  validate({ kind, operation, object, objects, name, subresource }) {
    const ours = kind.kind === "PriorityClass" && subresource === undefined;
    if (!ours || object?.["globalDefault"] !== true || operation === "DELETE") return;
    for (const other of objects.list(priorityClasses)) {
      if (other["globalDefault"] !== true || nameOf(other) === name) continue;
      throw forbidden(
        kind,
        name,
        `PriorityClass ${nameOf(other)} is already marked as default. Only one default can exist`,
      );
    }
  },
};
