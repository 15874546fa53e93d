import { badRequest, conflict, invalid } from "../status-error.ts";
import type {
  CustomSubresource,
  FieldError,
  JsonObject,
  KindDefinition,
  StoredSubresource,
  Strategy,
  SubresourceRequest,
} from "../types.ts";
import { ensureRecord, int, mapOf, metadataOf, nameOf, record, records, text } from "./access.ts";
import { setCondition } from "./condition.ts";
import { evictionSubresource } from "./eviction.ts";
import { notSupported, required } from "./field-error.ts";
import { podDefaults } from "./pod-defaults.ts";
import { qosClass } from "./pod-qos.ts";
import { resizedSpec, validatePodResize } from "./pod-resize.ts";
import { podTable } from "./pod-table.ts";
import { validatePodStatusUpdate, validatePodUpdate } from "./pod-update.ts";
import { validatePodCreate, validatePodSpec } from "./pod-validation.ts";
import { podSpecWarnings } from "./pod-warnings.ts";
import {
  allVerbs,
  defineStatusStrategy,
  defineStrategy,
  restore,
  subresourceVerbs,
} from "./strategy.ts";

function isTerminal(pod: Readonly<JsonObject>): boolean {
  const phase = record(pod["status"])["phase"];
  return phase === "Succeeded" || phase === "Failed";
}

const base = defineStrategy({
  applyDefaults: podDefaults,
  hasGeneration: true,
  prepareForCreate(pod) {
    const spec = ensureRecord(pod, "spec");
    pod["status"] = {
      phase: "Pending",
      qosClass: qosClass(spec),
      ...(records(spec["schedulingGates"]).length === 0
        ? {}
        : {
            conditions: [
              {
                type: "PodScheduled",
                status: "False",
                lastProbeTime: null,
                lastTransitionTime: null,
                reason: "SchedulingGated",
                message: "Scheduling is blocked due to non-empty scheduling gates",
              },
            ],
          }),
    };
  },
  prepareForUpdate: (pod, old) => restore(pod, old, "status"),
  allowUnconditionalUpdate: true,
  /** Nothing runs for a pod that has no node yet or has ended: it goes at once. */
  deletionGraceSeconds(pod, requested) {
    const spec = record(pod["spec"]);
    if (text(spec["nodeName"]) === "" || isTerminal(pod)) return 0;
    const wanted = requested ?? int(spec["terminationGracePeriodSeconds"]) ?? 30;
    return wanted < 0 ? 1 : wanted;
  },
  validate: (pod, old) =>
    old === undefined ? validatePodCreate(pod) : validatePodUpdate(pod, old),
  warnings: (pod, old) => (old === undefined ? podSpecWarnings(pod["spec"], "spec") : []),
});

/** The main endpoint of pods. */
export const podStrategy: Strategy = {
  ...base,
  returnsDeletedObject: true,
};

const statusStrategy = defineStatusStrategy(podStrategy, {
  prepareForUpdate(pod, old) {
    const metadata = ensureRecord(pod, "metadata");
    const before = metadataOf(old);
    // The node reports a pod; who owns it, or that it is going, is not the node's to say.
    for (const key of ["ownerReferences", "deletionTimestamp", "deletionGracePeriodSeconds"]) {
      restore(metadata, before, key);
    }
    const status = ensureRecord(pod, "status");
    if (text(status["qosClass"]) === "") restore(status, record(old["status"]), "qosClass");
  },
  validate: (pod, old) => (old === undefined ? [] : validatePodStatusUpdate(pod, old)),
});

/** What an endpoint of a part of the spec leaves alone, as those of the status do. */
const keptMetadata = [
  "annotations",
  "deletionTimestamp",
  "finalizers",
  "labels",
  "ownerReferences",
];

/** Strategy of an endpoint that may change a part of the spec only. */
function specMemberStrategy(
  apply: (pod: JsonObject, wanted: Readonly<JsonObject>) => void,
  validate: (pod: Readonly<JsonObject>, old: Readonly<JsonObject>) => FieldError[],
): Strategy {
  return {
    ...podStrategy,
    prepareForUpdate(pod, old) {
      const wanted = structuredClone(record(pod["spec"]));
      restore(pod, old, "spec");
      restore(pod, old, "status");
      apply(pod, wanted);
      const metadata = ensureRecord(pod, "metadata");
      for (const key of keptMetadata) restore(metadata, metadataOf(old), key);
      const before = int(metadataOf(old)["generation"]) ?? 0;
      const changed = JSON.stringify(pod["spec"]) !== JSON.stringify(old["spec"]);
      metadata["generation"] = changed ? before + 1 : before;
    },
    validateCreate: () => [],
    validateUpdate: (pod, old) => validate(pod, old),
  };
}

const ephemeralStrategy = specMemberStrategy(
  (pod, wanted) => {
    const spec = ensureRecord(pod, "spec");
    const containers = wanted["ephemeralContainers"];
    if (containers === undefined) delete spec["ephemeralContainers"];
    else spec["ephemeralContainers"] = containers;
  },
  (pod, old) => {
    const out = validatePodSpec(record(pod["spec"]), "spec", pod);
    const after = records(record(pod["spec"])["ephemeralContainers"]);
    for (const before of records(record(old["spec"])["ephemeralContainers"])) {
      const name = text(before["name"]);
      const now = after.find((container) => container["name"] === name);
      if (now === undefined) {
        out.push({
          type: "FieldValueForbidden",
          field: "spec.ephemeralContainers",
          message: `Forbidden: existing ephemeral containers "${name}" may not be removed\n`,
        });
      } else if (JSON.stringify(now) !== JSON.stringify(before)) {
        out.push({
          type: "FieldValueForbidden",
          field: "spec.ephemeralContainers",
          message: `Forbidden: existing ephemeral containers "${name}" may not be changed\n`,
        });
      }
    }
    return out;
  },
);

const resizeStrategy = specMemberStrategy((pod, wanted) => {
  pod["spec"] = resizedSpec(wanted, record(pod["spec"]));
}, validatePodResize);

function stored(strategy: Strategy): StoredSubresource {
  return { kind: "stored", verbs: subresourceVerbs, strategy };
}

function bind(request: SubresourceRequest, name: string): JsonObject {
  const binding = request.body ?? {};
  const metadata = metadataOf(binding);
  const node = record(binding["target"]);
  const errors = [
    ...(text(node["kind"]) === "" || node["kind"] === "Node"
      ? []
      : [notSupported("target.kind", node["kind"], ["Node", "<empty>"])]),
    ...(text(node["name"]) === "" ? [required("target.name")] : []),
  ];
  // kube-apiserver answers 500 here; a fault of the request is a 422 with the same words.
  if (errors.length > 0)
    throw invalid({ plural: "bindings", kind: "Binding", group: "" }, name, errors);
  if (name === "") throw badRequest("Name parameter required.");
  const refuse = (message: string): never => {
    throw conflict({ plural: "pods/binding", kind: "Pod", group: "" }, name, message);
  };
  request.registry.update(
    "pods",
    { namespace: request.namespace, name },
    (pod) => {
      const own = ensureRecord(pod, "metadata");
      const spec = ensureRecord(pod, "spec");
      const uid = text(metadata["uid"]);
      if (uid !== "" && uid !== own["uid"]) {
        refuse(
          `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${text(own["uid"])}`,
        );
      }
      const version = text(metadata["resourceVersion"]);
      if (version !== "" && version !== own["resourceVersion"]) {
        refuse(
          `Precondition failed: ResourceVersion in precondition: ${version}, ResourceVersion in object meta: ${text(own["resourceVersion"])}`,
        );
      }
      if (own["deletionTimestamp"] !== undefined) {
        refuse(`pod ${name} is being deleted, cannot be assigned to a host`);
      }
      if (text(spec["nodeName"]) !== "") {
        refuse(`pod ${name} is already assigned to node "${text(spec["nodeName"])}"`);
      }
      if (records(spec["schedulingGates"]).length > 0) {
        refuse(`pod ${name} has non-empty .spec.schedulingGates`);
      }
      spec["nodeName"] = node["name"];
      own["generation"] = (int(own["generation"]) ?? 0) + 1;
      for (const key of ["annotations", "labels"]) {
        const added = mapOf(metadata[key]);
        if (Object.keys(added).length > 0) Object.assign(ensureRecord(own, key), added);
      }
      const status = ensureRecord(pod, "status");
      delete status["nominatedNodeName"];
      setCondition(status, { type: "PodScheduled", status: "True" }, request.context.now);
      return pod;
    },
    // The pod strategy forbids changing spec.nodeName: binding is the one way to do it.
    { context: request.context, system: true },
  );
  return { kind: "Status", apiVersion: "v1", metadata: {}, status: "Success", code: 201 };
}

const bindingSubresource: CustomSubresource = {
  kind: "custom",
  verbs: ["create"],
  gvk: { group: "", version: "v1", kind: "Binding" },
  handle(request) {
    const name = nameOf(request.body ?? {});
    if (name !== "" && name !== request.name) {
      throw badRequest("name in URL does not match name in Binding object");
    }
    return bind(request, request.name);
  },
};

function streaming(kind: string, verbs: CustomSubresource["verbs"]): CustomSubresource {
  return { kind: "custom", verbs, gvk: { group: "", version: "v1", kind } };
}

export const podKind: KindDefinition = {
  group: "",
  version: "v1",
  kind: "Pod",
  plural: "pods",
  singular: "pod",
  shortNames: ["po"],
  categories: ["all"],
  namespaced: true,
  verbs: allVerbs,
  schema: "io.k8s.api.core.v1.Pod",
  durability: "durable",
  strategy: podStrategy,
  subresources: {
    status: stored(statusStrategy),
    ephemeralcontainers: stored(ephemeralStrategy),
    resize: stored(resizeStrategy),
    binding: bindingSubresource,
    eviction: evictionSubresource,
    log: streaming("Pod", ["get"]),
    exec: streaming("PodExecOptions", ["create", "get"]),
    attach: streaming("PodAttachOptions", ["create", "get"]),
    portforward: streaming("PodPortForwardOptions", ["create", "get"]),
    proxy: streaming("PodProxyOptions", ["create", "delete", "get", "patch", "update"]),
  },
  fieldSelectors: {
    "spec.nodeName": (pod) => text(record(pod["spec"])["nodeName"]),
    "spec.restartPolicy": (pod) => text(record(pod["spec"])["restartPolicy"]),
    "spec.schedulerName": (pod) => text(record(pod["spec"])["schedulerName"]),
    "spec.serviceAccountName": (pod) => text(record(pod["spec"])["serviceAccountName"]),
    "spec.hostNetwork": (pod) => String(record(pod["spec"])["hostNetwork"] === true),
    "status.phase": (pod) => text(record(pod["status"])["phase"]),
    "status.podIP": (pod) => text(records(record(pod["status"])["podIPs"])[0]?.["ip"]),
    "status.podIPs": (pod) => text(records(record(pod["status"])["podIPs"])[0]?.["ip"]),
    "status.nominatedNodeName": (pod) => text(record(pod["status"])["nominatedNodeName"]),
  },
  table: podTable,
};

/** Kind Binding: the old way to bind, a POST on the collection. */
export const bindingKind: KindDefinition = {
  group: "",
  version: "v1",
  kind: "Binding",
  plural: "bindings",
  singular: "binding",
  shortNames: [],
  categories: [],
  namespaced: true,
  verbs: ["create"],
  schema: "io.k8s.api.core.v1.Binding",
  durability: "ephemeral",
  strategy: defineStrategy({}),
  subresources: {},
  fieldSelectors: {},
  table: { columns: podTable.columns.slice(0, 1), row: (binding) => [nameOf(binding)] },
  answer: (request) => bind(request, nameOf(request.body ?? {})),
};
