import { metadataOf } from "../kinds/access.ts";
import { StatusError, forbidden, notFound, qualifiedResource } from "../status-error.ts";
import type { AdmissionPlugin } from "../types.ts";

/** Namespaces the cluster cannot do without. */
const permanent = new Set(["default", "kube-system", "kube-public"]);

/** Kinds that are questions about a namespace, not content of it. */
const exempt = new Set(["LocalSubjectAccessReview"]);

/** Refuses content in namespaces that do not exist or are going away, and the deletion of permanent ones. */
export const namespaceLifecycle: AdmissionPlugin = {
  name: "NamespaceLifecycle",
  validate({ operation, kind, subresource, namespace, name, objects }) {
    if (operation === "DELETE" && kind.kind === "Namespace" && permanent.has(name)) {
      throw forbidden(kind, name, "this namespace may not be deleted");
    }
    if (!kind.namespaced || operation !== "CREATE" || exempt.has(kind.kind)) return;
    const found = objects.get("namespaces", "", namespace);
    if (found === undefined) {
      throw notFound({ plural: "namespaces", kind: "Namespace", group: "" }, namespace);
    }
    // Subresources (eviction, binding, tokens) act on what is there already.
    if (subresource !== undefined || metadataOf(found)["deletionTimestamp"] === undefined) return;
    const message = `unable to create new content in namespace ${namespace} because it is being terminated`;
    const subject = name === "" ? qualifiedResource(kind) : `${qualifiedResource(kind)} "${name}"`;
    throw new StatusError(403, "Forbidden", `${subject} is forbidden: ${message}`, {
      ...(name === "" ? {} : { name }),
      ...(kind.group === "" ? {} : { group: kind.group }),
      kind: kind.plural,
      causes: [
        {
          reason: "NamespaceTerminating",
          message: `namespace ${namespace} is being terminated`,
          field: "metadata.namespace",
        },
      ],
    });
  },
};
