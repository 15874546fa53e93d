import type { Container } from "../../api/types.gen.ts";
import type { RuntimeFeature } from "../../runtime/types.ts";
import { allContainers } from "../spec/containers.ts";
import type { AssignedPod } from "../types.ts";
import type { Refusal } from "./admission.ts";

const reason = "PodFeatureUnsupported";

function refuse(field: string, remedy: string): Refusal {
  return { reason, message: `${field} is not supported by this node: ${remedy}` };
}

function unsupportedPodField(
  pod: AssignedPod,
  features: ReadonlySet<RuntimeFeature>,
): Refusal | undefined {
  const { spec } = pod;
  if (spec?.hostUsers === false && !features.has("userNamespaces")) {
    return refuse(
      "spec.hostUsers: false",
      "its container engine cannot give a pod its own user namespace",
    );
  }
  if ((spec?.resourceClaims ?? []).length > 0) {
    return refuse(
      "spec.resourceClaims",
      "dynamic resource allocation needs a driver that it does not run",
    );
  }
  if (spec?.securityContext?.windowsOptions !== undefined) {
    return refuse("spec.securityContext.windowsOptions", "it runs Linux");
  }
  return undefined;
}

function unsupportedContainerField(
  container: Container,
  features: ReadonlySet<RuntimeFeature>,
): Refusal | undefined {
  const at = `container "${container.name}": `;
  const security = container.securityContext;
  if ((container.volumeDevices ?? []).length > 0) {
    return refuse(
      `${at}volumeDevices`,
      "raw block volumes need a volume driver that it does not run",
    );
  }
  if ((container.resources?.claims ?? []).length > 0) {
    return refuse(
      `${at}resources.claims`,
      "dynamic resource allocation needs a driver that it does not run",
    );
  }
  if (security?.privileged === true && !features.has("privileged")) {
    return refuse(
      `${at}securityContext.privileged`,
      "its container engine lacks the capabilities itself",
    );
  }
  const recursive = (container.volumeMounts ?? []).some(
    (mount) => mount.recursiveReadOnly === "Enabled",
  );
  if (recursive) {
    return refuse(`${at}volumeMounts recursiveReadOnly: Enabled`, "use Disabled or IfPossible");
  }
  if ((container.env ?? []).some(({ valueFrom }) => valueFrom?.fileKeyRef !== undefined)) {
    return refuse(`${at}env fileKeyRef`, "use a configMapKeyRef or secretKeyRef");
  }
  return undefined;
}

/** Fields that this node cannot honour. They are refused: silently ignoring one would be a lie. Pure. */
export function refuseUnsupported(
  pod: AssignedPod,
  features: ReadonlySet<RuntimeFeature>,
): Refusal | undefined {
  const ofPod = unsupportedPodField(pod, features);
  if (ofPod !== undefined) return ofPod;
  for (const { container } of allContainers(pod)) {
    const refusal = unsupportedContainerField(container, features);
    if (refusal !== undefined) return refusal;
  }
  return undefined;
}
