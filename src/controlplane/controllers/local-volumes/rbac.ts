import type { BootstrapObject } from "../../auth/bootstrap-rbac.ts";
import type { JsonObject } from "../../types.ts";

const group = "rbac.authorization.k8s.io";

function roleWithBinding(
  name: string,
  rules: readonly JsonObject[],
  subject: JsonObject,
): BootstrapObject[] {
  const apiVersion = `${group}/v1`;
  const metadata = {
    name,
    labels: { "kubernetes.io/bootstrapping": "rbac-defaults" },
    annotations: { "rbac.authorization.kubernetes.io/autoupdate": "true" },
  };
  return [
    {
      resource: `clusterroles.${group}`,
      namespace: "",
      object: { apiVersion, kind: "ClusterRole", metadata, rules },
    },
    {
      resource: `clusterrolebindings.${group}`,
      namespace: "",
      object: {
        apiVersion,
        kind: "ClusterRoleBinding",
        metadata,
        roleRef: { apiGroup: group, kind: "ClusterRole", name },
        subjects: [subject],
      },
    },
  ];
}

function rule(
  apiGroup: string,
  resources: readonly string[],
  verbs: readonly string[],
): JsonObject {
  return { apiGroups: [apiGroup], resources, verbs };
}

/**
 * Who makes local volumes, and who keeps their data: a node follows all volumes to find its own, and of those may take
 * its finalizer only, which the admission of nodes sees to.
 */
export function localVolumesRbacObjects(): BootstrapObject[] {
  return [
    ...roleWithBinding(
      "remora:local-volume-provisioner",
      [
        rule("", ["persistentvolumes"], ["get", "create", "update", "delete"]),
        rule("", ["persistentvolumeclaims"], ["get", "update"]),
        rule("", ["persistentvolumeclaims/status"], ["update"]),
        rule("storage.k8s.io", ["storageclasses"], ["create"]),
        {
          apiGroups: ["", "events.k8s.io"],
          resources: ["events"],
          verbs: ["create", "patch", "update"],
        },
      ],
      { kind: "ServiceAccount", namespace: "kube-system", name: "local-volume-provisioner" },
    ),
    ...roleWithBinding(
      "remora:node-local-volumes",
      [rule("", ["persistentvolumes"], ["list", "watch", "patch"])],
      { kind: "Group", apiGroup: group, name: "system:nodes" },
    ),
  ];
}
