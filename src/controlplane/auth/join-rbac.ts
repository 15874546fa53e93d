import { clusterInfo, nodeBootstrappersGroup } from "../../api/bootstrap-token.ts";
import type { JsonObject } from "../types.ts";
import type { BootstrapObject } from "./bootstrap-rbac.ts";

const group = "rbac.authorization.k8s.io";
const nodesGroup = "system:nodes";
const systemNamespace = "kube-system";

/** ConfigMaps in kube-system that a joining node reads, with the names that kubeadm gave them. */
export const joinConfigMaps = { kubelet: "kubelet-config", cluster: "kubeadm-config" } as const;

function rbacObject(
  plural: string,
  kind: string,
  at: { readonly name: string; readonly namespace?: string },
  body: JsonObject,
): BootstrapObject {
  return {
    resource: `${plural}.${group}`,
    namespace: at.namespace ?? "",
    object: {
      apiVersion: `${group}/v1`,
      kind,
      metadata: {
        ...at,
        labels: { "kubernetes.io/bootstrapping": "rbac-defaults" },
        annotations: { "rbac.authorization.kubernetes.io/autoupdate": "true" },
      },
      ...body,
    },
  };
}

function groups(...names: readonly string[]): JsonObject[] {
  return names.map((name) => ({ apiGroup: group, kind: "Group", name }));
}

function clusterRole(name: string, rules: readonly JsonObject[]): BootstrapObject {
  return rbacObject("clusterroles", "ClusterRole", { name }, { rules });
}

function clusterBinding(
  name: string,
  role: string,
  subjects: readonly JsonObject[],
): BootstrapObject {
  const roleRef = { apiGroup: group, kind: "ClusterRole", name: role };
  return rbacObject("clusterrolebindings", "ClusterRoleBinding", { name }, { roleRef, subjects });
}

/** `get` of one ConfigMap, for `subjects`. */
function readableConfigMap(
  at: { readonly name: string; readonly namespace: string },
  configMap: string,
  subjects: readonly JsonObject[],
): BootstrapObject[] {
  const rules = [
    { apiGroups: [""], resources: ["configmaps"], resourceNames: [configMap], verbs: ["get"] },
  ];
  const roleRef = { apiGroup: group, kind: "Role", name: at.name };
  return [
    rbacObject("roles", "Role", at, { rules }),
    rbacObject("rolebindings", "RoleBinding", at, { roleRef, subjects }),
  ];
}

/**
 * The rights with which a machine becomes a node, under the names that kubeadm gives them: who comes with a token asks
 * for a certificate and reads the configuration; nodes renew their certificates; everybody reads the signed cluster-info.
 */
export function joinRbacObjects(): BootstrapObject[] {
  const certificates = "system:certificates.k8s.io:certificatesigningrequests";
  const joiners = groups(nodeBootstrappersGroup);
  const readers = groups(nodesGroup, nodeBootstrappersGroup);
  const servingApprover = "remora:kubelet-serving-approver";
  return [
    ...readableConfigMap(
      { name: "kubeadm:bootstrap-signer-clusterinfo", namespace: clusterInfo.namespace },
      clusterInfo.name,
      [{ apiGroup: group, kind: "User", name: "system:anonymous" }],
    ),
    clusterBinding("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", joiners),
    clusterBinding("kubeadm:node-autoapprove-bootstrap", `${certificates}:nodeclient`, joiners),
    clusterBinding(
      "kubeadm:node-autoapprove-certificate-rotation",
      `${certificates}:selfnodeclient`,
      groups(nodesGroup),
    ),
    clusterRole("kubeadm:get-nodes", [{ apiGroups: [""], resources: ["nodes"], verbs: ["get"] }]),
    clusterBinding("kubeadm:get-nodes", "kubeadm:get-nodes", joiners),
    ...readableConfigMap(
      { name: "kubeadm:kubelet-config", namespace: systemNamespace },
      joinConfigMaps.kubelet,
      readers,
    ),
    ...readableConfigMap(
      { name: "kubeadm:nodes-kubeadm-config", namespace: systemNamespace },
      joinConfigMaps.cluster,
      readers,
    ),
    // The proxy half of the agent works under the name of its node, so that a joiner needs one identity only.
    clusterBinding("remora:node-proxier", "system:node-proxier", groups(nodesGroup)),
    clusterRole(servingApprover, [
      {
        apiGroups: ["certificates.k8s.io"],
        resources: ["certificatesigningrequests/approval"],
        verbs: ["update"],
      },
      {
        apiGroups: ["certificates.k8s.io"],
        resources: ["signers"],
        resourceNames: ["kubernetes.io/kubelet-serving"],
        verbs: ["approve"],
      },
    ]),
    clusterBinding(servingApprover, servingApprover, [
      { kind: "ServiceAccount", name: "kubelet-serving-approver", namespace: systemNamespace },
    ]),
  ];
}
