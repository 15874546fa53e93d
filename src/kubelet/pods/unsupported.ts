import type { Container } from "../../api/types.gen.ts";
import type { RuntimeFeature } from "../../runtime/types.ts";
import { appArmorProblem } from "../spec/app-armor.ts";
import { allContainers } from "../spec/containers.ts";
import type { AssignedPod } from "../types.ts";
import { usedVolumes } from "../volumes/used-volumes.ts";
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
  // Without SELinux there are no labels to change, and every policy comes to the same.
  if (spec?.securityContext?.seLinuxChangePolicy !== undefined && features.has("seLinux")) {
    return refuse(
      "spec.securityContext.seLinuxChangePolicy",
      "it leaves the labels of volumes as they are",
    );
  }
  return undefined;
}

/** AppArmor is looked at when a pod is new: what runs was allowed to. */
function refuseAppArmor(
  pod: AssignedPod,
  features: ReadonlySet<RuntimeFeature>,
): Refusal | undefined {
  if ((pod.status?.phase ?? "Pending") !== "Pending") return undefined;
  const problem = appArmorProblem(pod, features.has("appArmor"));
  if (problem === undefined) return undefined;
  return { reason: "AppArmor", message: `Cannot enforce AppArmor: ${problem}` };
}

function unsupportedContainerField(
  container: Container,
  features: ReadonlySet<RuntimeFeature>,
): Refusal | undefined {
  const at = `container "${container.name}": `;
  const security = container.securityContext;
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
  if (security?.windowsOptions !== undefined) {
    return refuse(`${at}securityContext.windowsOptions`, "it runs Linux");
  }
  return undefined;
}

/** Only what a container mounts: another image is never even pulled. */
function unsupportedVolume(
  pod: AssignedPod,
  features: ReadonlySet<RuntimeFeature>,
): Refusal | undefined {
  if (features.has("imageVolumes")) return undefined;
  const image = usedVolumes(pod).find((volume) => volume.image !== undefined);
  if (image === undefined) return undefined;
  return refuse(
    `volume "${image.name}": image`,
    "its container engine neither mounts images (Docker 28 does) nor keeps layers of them that could be mounted (the storage driver overlay2 does)",
  );
}

/** Fields that this node cannot honour. They are refused: silently ignoring one would be a lie. Pure. */
export function refuseUnsupported(
  pod: AssignedPod,
  features: ReadonlySet<RuntimeFeature>,
): Refusal | undefined {
  const appArmor = refuseAppArmor(pod, features);
  if (appArmor !== undefined) return appArmor;
  const ofPod = unsupportedPodField(pod, features);
  if (ofPod !== undefined) return ofPod;
  const volume = unsupportedVolume(pod, features);
  if (volume !== undefined) return volume;
  for (const { container } of allContainers(pod)) {
    const refusal = unsupportedContainerField(container, features);
    if (refusal !== undefined) return refusal;
  }
  return undefined;
}
