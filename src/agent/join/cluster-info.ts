import { clusterInfo } from "../../api/bootstrap-token.ts";
import { readYamlDocument, yamlRecord } from "../../api/yaml.ts";
import { SetupError } from "../../lib/errors.ts";
import { isRecord } from "../../lib/guard.ts";

/** Name of the ConfigMap, for messages. */
export const clusterInfoName = `${clusterInfo.namespace}/${clusterInfo.name}`;

/** What the kubeconfig in kube-public/cluster-info says. */
export interface ClusterInfo {
  /** URL of the API server for other machines. */
  readonly server: string;
  /** PEM. */
  readonly caPEM: string;
}

/** @throws {SetupError} when it lacks the server or its CA. */
export async function readClusterInfo(content: string): Promise<ClusterInfo> {
  const root = yamlRecord(await readYamlDocument(content, clusterInfoName), clusterInfoName);
  const clusters: readonly unknown[] = Array.isArray(root["clusters"]) ? root["clusters"] : [];
  const [first] = clusters;
  const cluster = isRecord(first) && isRecord(first["cluster"]) ? first["cluster"] : {};
  const { server, "certificate-authority-data": encoded } = cluster;
  const caPEM = typeof encoded === "string" ? Buffer.from(encoded, "base64").toString("utf8") : "";
  if (typeof server !== "string" || !caPEM.includes("-----BEGIN CERTIFICATE-----")) {
    throw new SetupError(
      `${clusterInfoName} does not name the API server and its CA: the cluster is not set up to take machines by token; "remora up" and "kubeadm init" do that`,
    );
  }
  return { server, caPEM };
}
