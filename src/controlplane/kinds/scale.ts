import { badRequest, invalid, notFound } from "../status-error.ts";
import type { CustomSubresource, JsonObject, SubresourceRequest } from "../types.ts";
import { ensureRecord, int, metadataOf, record, text } from "./access.ts";
import { nonNegative } from "./field-error.ts";
import { subresourceVerbs } from "./strategy.ts";

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
  const version = text(metadataOf(body)["resourceVersion"]);
  const updated = request.registry.update(
    resource,
    { namespace: request.namespace, name: request.name },
    (object) => {
      if (version !== "") ensureRecord(object, "metadata")["resourceVersion"] = version;
      ensureRecord(object, "spec")["replicas"] = wanted;
      return object;
    },
    { context: request.context },
  );
  return scaleOf(target, updated);
}

/** The `scale` subresource (autoscaling/v1 Scale) of a kind that counts its pods in `spec.replicas`. */
export function scaleSubresource(target: ScaleTarget): CustomSubresource {
  return {
    kind: "custom",
    verbs: subresourceVerbs,
    gvk: { group: "autoscaling", version: "v1", kind: "Scale" },
    handle: (request) => answerScale(target, request),
  };
}
