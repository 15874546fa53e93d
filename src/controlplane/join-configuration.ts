import { clusterInfo, clusterInfoKey } from "../api/bootstrap-token.ts";
import { isRecord } from "../lib/guard.ts";
import { joinConfigMaps } from "./auth/join-rbac.ts";
import type { JsonObject, ObjectRef, Registry, RequestContext } from "./types.ts";

/** What a machine that joins has to know. */
export interface JoinConfiguration {
  /** URL under which other machines reach the API server. */
  readonly server: string;
  readonly caPEM: string;
  /** For example `v1.36.2`. */
  readonly kubernetesVersion: string;
  /** Address of the cluster's name server. */
  readonly clusterDNS: string;
  readonly clusterDomain: string;
  readonly podSubnet: string;
  readonly serviceSubnet: string;
}

function clusterInfoText({ server, caPEM }: JoinConfiguration): string {
  return `apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: ${Buffer.from(caPEM).toString("base64")}
    server: ${server}
  name: ""
contexts: null
current-context: ""
kind: Config
users: null
`;
}

function kubeletText({ clusterDNS, clusterDomain }: JoinConfiguration): string {
  return `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous:
    enabled: false
  webhook:
    enabled: true
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
authorization:
  mode: Webhook
clusterDNS:
- ${JSON.stringify(clusterDNS)}
clusterDomain: ${clusterDomain}
rotateCertificates: true
serverTLSBootstrap: true
`;
}

function clusterText(configuration: JoinConfiguration): string {
  const { server, kubernetesVersion, clusterDomain, podSubnet, serviceSubnet } = configuration;
  return `apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
clusterName: kubernetes
controlPlaneEndpoint: ${JSON.stringify(new URL(server).host)}
kubernetesVersion: ${kubernetesVersion}
networking:
  dnsDomain: ${clusterDomain}
  podSubnet: ${podSubnet}
  serviceSubnet: ${serviceSubnet}
`;
}

function put(
  registry: Registry,
  context: RequestContext,
  at: ObjectRef,
  data: { readonly key: string; readonly text: string; readonly follow: boolean },
): void {
  const { key, text, follow } = data;
  const current = registry.get("configmaps", at.namespace, at.name);
  if (current === undefined) {
    const object = {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { ...at },
      data: { [key]: text },
    };
    registry.create("configmaps", at.namespace, object, context, "remora");
    return;
  }
  const present = isRecord(current["data"]) ? current["data"] : {};
  if (present[key] === text || (!follow && present[key] !== undefined)) return;
  const change = (object: JsonObject): JsonObject => ({
    ...object,
    data: { ...(isRecord(object["data"]) ? object["data"] : {}), [key]: text },
  });
  registry.update("configmaps", at, change, { context, fieldManager: "remora" });
}

/**
 * Writes what joining machines read, in kubeadm's places: kube-public/cluster-info (to be signed with each token) and
 * kube-system/kubeadm-config follow this control plane; kube-system/kubelet-config is the administrator's once it exists.
 */
export function publishJoinConfiguration(
  registry: Registry,
  context: RequestContext,
  configuration: JoinConfiguration,
): void {
  const system = (name: string): ObjectRef => ({ namespace: "kube-system", name });
  put(registry, context, clusterInfo, {
    key: clusterInfoKey,
    text: clusterInfoText(configuration),
    follow: true,
  });
  put(registry, context, system(joinConfigMaps.cluster), {
    key: "ClusterConfiguration",
    text: clusterText(configuration),
    follow: true,
  });
  put(registry, context, system(joinConfigMaps.kubelet), {
    key: "kubelet",
    text: kubeletText(configuration),
    follow: false,
  });
}
