import { badRequest, invalid, notFound } from "../status-error.ts";
import type {
  CustomSubresource,
  JsonObject,
  SubresourceRequest,
  SubresourceView,
  TableDefinition,
} from "../types.ts";
import { ensureRecord, int, metadataOf, nameOf, record, text } from "./access.ts";
import { nonNegative } from "./field-error.ts";
import { subresourceVerbs } from "./strategy.ts";
import { age, ageColumn, column, numberColumn } from "./table.ts";

/** A kind with `spec.replicas`. */
export interface ScaleTarget {
  readonly plural: string;
  readonly kind: string;
  readonly group: string;
  /** The text form of the selector of its pods; "" when it has none. */
  selectorText(selector: unknown): string;
}

function scaleOf(target: ScaleTarget, object: Readonly<JsonObject>): JsonObject {
  const metadata = metadataOf(object);
  const spec = record(object["spec"]);
  const selector = target.selectorText(spec["selector"]);
  const replicas = int(spec["replicas"]) ?? 0;
  return {
    kind: "Scale",
    apiVersion: "autoscaling/v1",
    metadata: {
      name: metadata["name"],
      namespace: metadata["namespace"],
      uid: metadata["uid"],
      resourceVersion: metadata["resourceVersion"],
      creationTimestamp: metadata["creationTimestamp"],
    },
    spec: replicas === 0 ? {} : { replicas },
    status: {
      replicas: int(record(object["status"])["replicas"]) ?? 0,
      ...(selector === "" ? {} : { selector }),
    },
  };
}

function answerScale(target: ScaleTarget, request: SubresourceRequest): JsonObject {
  const resource = target.group === "" ? target.plural : `${target.plural}.${target.group}`;
  const current = request.registry.get(resource, request.namespace, request.name);
  if (current === undefined) throw notFound(target, request.name);
  if (request.verb === "get") return scaleOf(target, current);
  const body = request.body;
  if (body === undefined) throw badRequest("a Scale object is needed");
  const wanted = int(record(body["spec"])["replicas"]) ?? 0;
  const errors = nonNegative("spec.replicas", wanted);
  if (errors.length > 0) {
    throw invalid({ plural: "scales", kind: "Scale", group: "autoscaling" }, request.name, errors);
  }
  const uid = text(metadataOf(body)["uid"]);
  const version = text(metadataOf(body)["resourceVersion"]);
  const updated = request.registry.update(
    resource,
    { namespace: request.namespace, name: request.name },
    (object) => {
      const metadata = ensureRecord(object, "metadata");
      if (uid !== "") metadata["uid"] = uid;
      if (version !== "") metadata["resourceVersion"] = version;
      ensureRecord(object, "spec")["replicas"] = wanted;
      return object;
    },
    { context: request.context, subresource: "scale" },
  );
  return scaleOf(target, updated);
}

const table: TableDefinition = {
  columns: [
    column("Name", "Name of the object, unique in its namespace."),
    numberColumn("Desired", "Pods wanted."),
    numberColumn("Available", "Pods that exist."),
    ageColumn,
  ],
  row: (scale, now) => [
    nameOf(scale),
    int(record(scale["spec"])["replicas"]) ?? 0,
    int(record(scale["status"])["replicas"]) ?? 0,
    age(scale, now),
  ],
};

function scaleView(target: ScaleTarget): SubresourceView {
  return {
    schema: "io.k8s.api.autoscaling.v1.Scale",
    read: (object) => scaleOf(target, object),
    configurationOf(applied) {
      const { name, namespace, uid, resourceVersion } = metadataOf(applied);
      const replicas = record(applied["spec"])["replicas"];
      const identity = Object.entries({ name, namespace, uid, resourceVersion });
      return {
        apiVersion: target.group === "" ? "v1" : `${target.group}/v1`,
        kind: target.kind,
        metadata: Object.fromEntries(identity.filter(([, value]) => value !== undefined)),
        ...(replicas === undefined ? {} : { spec: { replicas } }),
      };
    },
    complete(object) {
      // The kind's own default is 1; a Scale that names no number asks for none.
      ensureRecord(object, "spec")["replicas"] ??= 0;
    },
    table,
  };
}

/** The `scale` subresource (autoscaling/v1 Scale) of a kind that counts its pods in `spec.replicas`. */
export function scaleSubresource(target: ScaleTarget): CustomSubresource {
  return {
    kind: "custom",
    verbs: subresourceVerbs,
    gvk: { group: "autoscaling", version: "v1", kind: "Scale" },
    handle: (request) => answerScale(target, request),
    view: scaleView(target),
  };
}
