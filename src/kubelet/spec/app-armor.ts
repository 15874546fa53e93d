import type { AppArmorProfile, Container, Pod } from "../../api/types.gen.ts";
import { allContainers } from "./containers.ts";

/** What pods said before there was a field; static pods still may. */
const annotationPrefix = "container.apparmor.security.beta.kubernetes.io/";

function fromAnnotation(pod: Pod, containerName: string): AppArmorProfile | undefined {
  const value = pod.metadata?.annotations?.[annotationPrefix + containerName];
  if (value === "runtime/default") return { type: "RuntimeDefault" };
  if (value === "unconfined") return { type: "Unconfined" };
  if (value?.startsWith("localhost/") !== true) return undefined;
  return { type: "Localhost", localhostProfile: value.slice("localhost/".length) };
}

/** The AppArmor profile of a container: its own field, its annotation, the pod's field. */
export function appArmorProfile(pod: Pod, container: Container): AppArmorProfile | undefined {
  return (
    container.securityContext?.appArmorProfile ??
    fromAnnotation(pod, container.name) ??
    pod.spec?.securityContext?.appArmorProfile
  );
}

/** Why AppArmor cannot do what the pod asks for; undefined when it can, or nothing is asked. */
export function appArmorProblem(pod: Pod, enabled: boolean): string | undefined {
  const containers = allContainers(pod).map(({ container }) => container);
  const fields = [
    pod.spec?.securityContext?.appArmorProfile,
    ...containers.map(({ securityContext }) => securityContext?.appArmorProfile),
  ];
  const annotated = Object.entries(pod.metadata?.annotations ?? {}).some(
    ([key, value]) => key.startsWith(annotationPrefix) && value !== "unconfined",
  );
  const asked =
    annotated || fields.some((profile) => profile !== undefined && profile.type !== "Unconfined");
  if (!asked) return undefined;
  if (!enabled) return "AppArmor is not enabled on the host";
  const empty = containers.some((container) => {
    const profile = appArmorProfile(pod, container);
    return profile?.type === "Localhost" && (profile.localhostProfile ?? "").trim() === "";
  });
  return empty ? 'invalid empty AppArmor profile name: ""' : undefined;
}
