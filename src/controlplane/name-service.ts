import { cidrAddress, cidrSize, type Cidr } from "../lib/cidr.ts";
import { errorMessage } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { BootstrapObject } from "./auth/bootstrap-rbac.ts";
import type { Registry, RequestContext } from "./types.ts";

const namespace = "kube-system";
const name = "kube-dns";
const tenth = 10;

/** Nodes look for namespaces when they answer DNS: a name in one that exists is not there, in another it cannot be. */
export function nameServiceRbacObjects(): BootstrapObject[] {
  const apiVersion = "rbac.authorization.k8s.io/v1";
  const apiGroup = "rbac.authorization.k8s.io";
  const metadata = {
    name: "remora:node-dns",
    labels: { "kubernetes.io/bootstrapping": "rbac-defaults" },
    annotations: { "rbac.authorization.kubernetes.io/autoupdate": "true" },
  };
  return [
    {
      resource: "clusterroles.rbac.authorization.k8s.io",
      namespace: "",
      object: {
        apiVersion,
        kind: "ClusterRole",
        metadata,
        rules: [{ apiGroups: [""], resources: ["namespaces"], verbs: ["get", "list", "watch"] }],
      },
    },
    {
      resource: "clusterrolebindings.rbac.authorization.k8s.io",
      namespace: "",
      object: {
        apiVersion,
        kind: "ClusterRoleBinding",
        metadata,
        roleRef: { apiGroup, kind: "ClusterRole", name: metadata.name },
        subjects: [
          { apiGroup, kind: "User", name: "system:kube-proxy" },
          { apiGroup, kind: "Group", name: "system:nodes" },
        ],
      },
    },
  ];
}

function nameService(clusterIP: string): BootstrapObject["object"] {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: {
      namespace,
      name,
      labels: {
        "k8s-app": "kube-dns",
        "kubernetes.io/cluster-service": "true",
        "kubernetes.io/name": "CoreDNS",
        // Service proxies leave it alone, so that packets to it stay on the node, which answers itself.
        "service.kubernetes.io/service-proxy-name": "remora-node-dns",
      },
    },
    spec: {
      type: "ClusterIP",
      clusterIP,
      clusterIPs: [clusterIP],
      ports: [
        { name: "dns", port: 53, protocol: "UDP", targetPort: 53 },
        { name: "dns-tcp", port: 53, protocol: "TCP", targetPort: 53 },
      ],
    },
  };
}

/**
 * Creates the Service of cluster DNS at the tenth address of the Service network, as everywhere. One that is there stays
 * as it is: who runs a name server of their own has changed it. Whoever else has the address keeps it.
 */
export function ensureNameService(
  registry: Pick<Registry, "get" | "create">,
  context: RequestContext,
  serviceNetwork: Cidr,
  logger: Logger,
): void {
  if (registry.get("services", namespace, name) !== undefined) return;
  if (cidrSize(serviceNetwork) <= BigInt(tenth + 1)) {
    logger.log("warn", "the service network has no tenth address, so there is no cluster DNS", {});
    return;
  }
  const wanted = nameService(cidrAddress(serviceNetwork, tenth));
  try {
    registry.create("services", namespace, wanted, context, "kube-apiserver");
  } catch (error) {
    logger.log("warn", "the Service of cluster DNS could not be created; pods find no names", {
      error: errorMessage(error),
    });
  }
}
