import { parseCidr } from "../../lib/cidr.ts";
import type { FieldError, JsonObject, KindDefinition } from "../types.ts";
import {
  ensureRecord,
  isEmpty,
  list,
  mapOf,
  metadataOf,
  nameOf,
  record,
  records,
  strings,
  text,
} from "./access.ts";
import { at, duplicate, forbiddenField, invalidValue } from "./field-error.ts";
import { defineKind } from "./kind-builder.ts";
import { canonicalizeResources } from "./pod-defaults.ts";
import { validateResourceList } from "./resource-validation.ts";
import { validateTaints } from "./scheduling-validation.ts";
import { defineStatusStrategy, defineStrategy, subresourceVerbs } from "./strategy.ts";
import { age, ageColumn, column, nameColumn } from "./table.ts";

/** Members of `status.nodeInfo` that are always present on the wire. */
const nodeInfoMembers = [
  "machineID",
  "systemUUID",
  "bootID",
  "kernelVersion",
  "osImage",
  "containerRuntimeVersion",
  "kubeletVersion",
  "kubeProxyVersion",
  "operatingSystem",
  "architecture",
];

function nodeDefaults(node: JsonObject): void {
  const spec = ensureRecord(node, "spec");
  const podCIDR = text(spec["podCIDR"]);
  if (podCIDR !== "" && isEmpty(spec["podCIDRs"])) spec["podCIDRs"] = [podCIDR];
  if (podCIDR === "" && !isEmpty(spec["podCIDRs"])) {
    spec["podCIDR"] = strings(spec["podCIDRs"])[0];
  }
  const status = ensureRecord(node, "status");
  canonicalizeResources(status, "capacity");
  canonicalizeResources(status, "allocatable");
  if (status["allocatable"] === undefined && status["capacity"] !== undefined) {
    status["allocatable"] = structuredClone(status["capacity"]);
  }
  const endpoint = ensureRecord(ensureRecord(status, "daemonEndpoints"), "kubeletEndpoint");
  if (endpoint["Port"] === undefined) endpoint["Port"] = 0;
  const nodeInfo = ensureRecord(status, "nodeInfo");
  for (const key of nodeInfoMembers) if (nodeInfo[key] === undefined) nodeInfo[key] = "";
}

function cidrErrors(node: Readonly<JsonObject>): FieldError[] {
  return strings(record(node["spec"])["podCIDRs"]).flatMap((value, index) => {
    try {
      parseCidr(value);
      return [];
    } catch {
      return [
        invalidValue(
          at("spec.podCIDRs", index),
          value,
          "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ),
      ];
    }
  });
}

function specChangeErrors(node: Readonly<JsonObject>, old: Readonly<JsonObject>): FieldError[] {
  const spec = record(node["spec"]);
  const before = record(old["spec"]);
  const out: FieldError[] = [];
  const cidrs = list(before["podCIDRs"]);
  if (cidrs.length > 0 && JSON.stringify(cidrs) !== JSON.stringify(list(spec["podCIDRs"]))) {
    out.push(
      forbiddenField(
        "spec.podCIDRs",
        'node updates may not change podCIDR except from "" to valid',
      ),
    );
  }
  const provider = text(before["providerID"]);
  if (provider !== "" && provider !== text(spec["providerID"])) {
    out.push(
      forbiddenField(
        "spec.providerID",
        'node updates may not change providerID except from "" to valid',
      ),
    );
  }
  return out;
}

function nodeErrors(
  node: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const status = record(node["status"]);
  const out = [
    // Upstream reports taints under metadata.
    ...validateTaints(record(node["spec"])["taints"], "metadata.taints"),
    ...validateResourceList(status["capacity"], "status.capacity"),
    ...validateResourceList(status["allocatable"], "status.allocatable"),
    ...cidrErrors(node),
    ...(old === undefined ? [] : specChangeErrors(node, old)),
  ];
  const seen = new Set<string>();
  records(status["addresses"]).forEach((address, index) => {
    const key = `${text(address["type"])}/${text(address["address"])}`;
    if (seen.has(key)) out.push(duplicate(at("status.addresses", index), address));
    seen.add(key);
  });
  return out;
}

const strategy = defineStrategy({
  applyDefaults: nodeDefaults,
  // A node registers with its status; later only the status endpoint may change it.
  prepareForUpdate(node, old) {
    node["status"] = structuredClone(old["status"]);
  },
  validate: nodeErrors,
});

function readiness(node: Readonly<JsonObject>): string {
  const ready = records(record(node["status"])["conditions"]).find(
    (condition) => condition["type"] === "Ready",
  );
  let shown = "Unknown";
  if (ready !== undefined) shown = ready["status"] === "True" ? "Ready" : "NotReady";
  return record(node["spec"])["unschedulable"] === true ? `${shown},SchedulingDisabled` : shown;
}

function roles(node: Readonly<JsonObject>): string {
  const prefix = "node-role.kubernetes.io/";
  const found = new Set<string>();
  for (const [key, value] of Object.entries(mapOf(metadataOf(node)["labels"]))) {
    if (key.startsWith(prefix) && key.length > prefix.length) found.add(key.slice(prefix.length));
    else if (key === "kubernetes.io/role" && value !== "") found.add(value);
  }
  return found.size === 0 ? "<none>" : [...found].toSorted().join(",");
}

function address(node: Readonly<JsonObject>, type: string): string {
  const found = records(record(node["status"])["addresses"]).find((item) => item["type"] === type);
  return text(found?.["address"]) || "<none>";
}

export const nodeKind: KindDefinition = defineKind({
  kind: "Node",
  plural: "nodes",
  shortNames: ["no"],
  namespaced: false,
  schema: "io.k8s.api.core.v1.Node",
  strategy,
  subresources: {
    status: {
      kind: "stored",
      verbs: subresourceVerbs,
      strategy: defineStatusStrategy(strategy, { validate: nodeErrors }),
    },
    proxy: {
      kind: "custom",
      verbs: ["create", "delete", "get", "patch", "update"],
      gvk: { group: "", version: "v1", kind: "NodeProxyOptions" },
    },
  },
  fieldSelectors: {
    "spec.unschedulable": (node) => String(record(node["spec"])["unschedulable"] === true),
  },
  table: {
    columns: [
      nameColumn,
      column("Status", "Ready, NotReady or Unknown, and whether it is cordoned."),
      column("Roles", "Roles from the node-role labels."),
      ageColumn,
      column("Version", "Version of the node agent."),
      column("Internal-IP", "Address inside the cluster's network.", true),
      column("External-IP", "Address outside of it.", true),
      column("OS-Image", "Operating system.", true),
      column("Kernel-Version", "Kernel, with the architecture.", true),
      column("Container-Runtime", "Container engine and its version.", true),
    ],
    row(node, now) {
      const nodeInfo = record(record(node["status"])["nodeInfo"]);
      const shown = (key: string): string => text(nodeInfo[key]) || "<unknown>";
      const architecture = text(nodeInfo["architecture"]);
      const kernel = shown("kernelVersion");
      return [
        nameOf(node),
        readiness(node),
        roles(node),
        age(node, now),
        text(nodeInfo["kubeletVersion"]),
        address(node, "InternalIP"),
        address(node, "ExternalIP"),
        shown("osImage"),
        architecture === "" ? kernel : `${kernel} (${architecture})`,
        shown("containerRuntimeVersion"),
      ];
    },
  },
});
