import { amounts, podRequests } from "../../api/pod-requests.ts";
import type { Quantity } from "../../api/types.gen.ts";
import { metadataOf, record, text } from "../kinds/access.ts";
import { forbidden, StatusError } from "../status-error.ts";
import type { AdmissionAttributes, AdmissionPlugin, JsonObject } from "../types.ts";

function refuse(attributes: AdmissionAttributes, message: string, reason: string): never {
  const error = forbidden(attributes.kind, attributes.name, message);
  const causes = [{ reason, message: "" }];
  throw new StatusError(error.status, error.reason, error.message, { ...error.details, causes });
}

/** What of a pod's requests the node could never give; cpu in millicores, memory in bytes. */
function beyondNode(pod: Readonly<JsonObject>, node: Readonly<JsonObject>): readonly string[] {
  const wanted = podRequests(pod);
  const list = record(record(node["status"])["allocatable"]) as Readonly<Record<string, Quantity>>;
  const allocatable = amounts(list);
  return ["cpu", "memory"].flatMap((name) => {
    const [asked, given] = [wanted.get(name) ?? 0, allocatable.get(name) ?? 0];
    return asked > given ? [`${name}, requested: ${asked}, allocatable: ${given}`] : [];
  });
}

/** PodResizeValidator: a pod is resized only where its node could have it, whatever else runs there. */
export const podResize: AdmissionPlugin = {
  name: "PodResizeValidator",
  validate(attributes) {
    const { kind, subresource, operation, object, oldObject, objects } = attributes;
    const ours = kind.kind === "Pod" && kind.group === "" && subresource === "resize";
    if (!ours || operation !== "UPDATE" || object === undefined || oldObject === undefined) return;
    const nodeName = text(record(object["spec"])["nodeName"]);
    // The generation counts changes of the spec.
    if (nodeName === "" || metadataOf(object)["generation"] === metadataOf(oldObject)["generation"])
      return;
    const node = objects.get("nodes", "", nodeName);
    if (node === undefined) {
      throw forbidden(kind, attributes.name, `node ${JSON.stringify(nodeName)} not found`);
    }
    const os = record(metadataOf(node)["labels"])["kubernetes.io/os"];
    if (os !== undefined && os !== "linux") {
      const message = `pod resize is only supported on linux nodes, node ${JSON.stringify(nodeName)} is ${JSON.stringify(os)}`;
      refuse(attributes, message, "UnsupportedPlatform");
    }
    const beyond = beyondNode(object, node);
    if (beyond.length === 0) return;
    const message = `node didn't have enough allocatable resources: ${beyond.join("; ")}`;
    refuse(attributes, message, "NodeCapacity");
  },
};
