import { type BootstrapObject, bootstrapRbacObjects } from "./auth/bootstrap-rbac.ts";
import { joinRbacObjects } from "./auth/join-rbac.ts";
import { localVolumesRbacObjects } from "./controllers/local-volumes/rbac.ts";
import { nameServiceRbacObjects } from "./name-service.ts";

const namespaces = ["default", "kube-system", "kube-public", "kube-node-lease"];

const priorityClasses = [
  {
    name: "system-cluster-critical",
    value: 2_000_000_000,
    description: "For pods the cluster cannot do without; another node may run them.",
  },
  {
    name: "system-node-critical",
    value: 2_000_001_000,
    description: "For pods their node cannot do without.",
  },
];

/** What a cluster holds before anybody has created anything; namespaces come first. */
export function bootstrapObjects(): BootstrapObject[] {
  return [
    ...namespaces.map((name) => ({
      resource: "namespaces",
      namespace: "",
      object: { apiVersion: "v1", kind: "Namespace", metadata: { name } },
    })),
    ...bootstrapRbacObjects(),
    ...joinRbacObjects(),
    ...nameServiceRbacObjects(),
    ...localVolumesRbacObjects(),
    ...priorityClasses.map(({ name, value, description }) => ({
      resource: "priorityclasses.scheduling.k8s.io",
      namespace: "",
      object: {
        apiVersion: "scheduling.k8s.io/v1",
        kind: "PriorityClass",
        metadata: { name },
        value,
        description,
      },
    })),
  ];
}
