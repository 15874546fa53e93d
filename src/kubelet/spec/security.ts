import type { Container, Pod, PodSecurityContext, SeccompProfile } from "../../api/types.gen.ts";
import type { Image, LinuxSecurityContext, SecurityProfile } from "../../runtime/types.ts";
import { appArmorProfile } from "./app-armor.ts";
import { ContainerConfigError } from "./env.ts";
import { podLabel } from "./pod-name.ts";

/** The user the container would run as, and whether it may be root: the container's word before the pod's. */
export function effectiveUser(
  pod: Pod,
  container: Container,
): {
  readonly runAsUser: number | undefined;
  readonly runAsGroup: number | undefined;
  readonly runAsNonRoot: boolean;
} {
  const own = container.securityContext;
  const outer = pod.spec?.securityContext;
  return {
    runAsUser: own?.runAsUser ?? outer?.runAsUser,
    runAsGroup: own?.runAsGroup ?? outer?.runAsGroup,
    runAsNonRoot: own?.runAsNonRoot ?? outer?.runAsNonRoot ?? false,
  };
}

/**
 * Enforces runAsNonRoot.
 *
 * @throws {ContainerConfigError} when the container would run as root, or nobody can tell.
 */
export function verifyRunAsNonRoot(pod: Pod, container: Container, imageUser: Image["user"]): void {
  const { runAsUser, runAsNonRoot } = effectiveUser(pod, container);
  if (!runAsNonRoot) return;
  const where = `(pod: ${JSON.stringify(podLabel(pod))}, container: ${container.name})`;
  if (runAsUser !== undefined) {
    if (runAsUser === 0) {
      throw new ContainerConfigError(`container's runAsUser breaks non-root policy ${where}`);
    }
    return;
  }
  if (imageUser.uid === undefined && imageUser.name !== undefined && imageUser.name !== "") {
    throw new ContainerConfigError(
      `container has runAsNonRoot and image has non-numeric user (${imageUser.name}), cannot verify user is non-root ${where}`,
    );
  }
  if ((imageUser.uid ?? 0) === 0) {
    throw new ContainerConfigError(
      `container has runAsNonRoot and image will run as root ${where}`,
    );
  }
}

/** Seccomp profiles that are files: path below the kubelet's seccomp directory, as the pod names it. */
export function localhostSeccompProfiles(pod: Pod, container: Container): readonly string[] {
  const profile =
    container.securityContext?.seccompProfile ?? pod.spec?.securityContext?.seccompProfile;
  return profile?.type === "Localhost" && profile.localhostProfile !== undefined
    ? [profile.localhostProfile]
    : [];
}

function seccomp(
  profile: SeccompProfile | undefined,
  profiles: ReadonlyMap<string, string>,
  unset: SecurityProfile,
): SecurityProfile {
  if (profile === undefined) return unset;
  if (profile.type === "RuntimeDefault") return { kind: "runtimeDefault" };
  if (profile.type === "Localhost") {
    if ((profile.localhostProfile ?? "") === "") {
      throw new ContainerConfigError(
        "localhostProfile must be set if seccompProfile type is Localhost.",
      );
    }
    const text = profiles.get(profile.localhostProfile ?? "");
    if (text === undefined) {
      throw new ContainerConfigError(
        `seccomp profile "${profile.localhostProfile ?? ""}" cannot be read`,
      );
    }
    return { kind: "localhost", profile: text };
  }
  return { kind: "unconfined" };
}

function appArmor(pod: Pod, container: Container): SecurityProfile | undefined {
  const profile = appArmorProfile(pod, container);
  switch (profile?.type) {
    case "RuntimeDefault":
      return { kind: "runtimeDefault" };
    case "Unconfined":
      return { kind: "unconfined" };
    case "Localhost":
      return { kind: "localhost", profile: profile.localhostProfile ?? "" };
    case undefined:
      return undefined;
  }
}

function seLinux(pod: Pod, container: Container): LinuxSecurityContext["seLinux"] {
  const outer = pod.spec?.securityContext?.seLinuxOptions;
  const options = container.securityContext?.seLinuxOptions ?? outer;
  if (options === undefined) return undefined;
  const { user, role, type, level } = options;
  return {
    ...(user === undefined ? {} : { user }),
    ...(role === undefined ? {} : { role }),
    ...(type === undefined ? {} : { type }),
    ...(level === undefined ? {} : { level }),
  };
}

/**
 * All of a container's security settings, pod defaults applied.
 *
 * @param profiles Text of the seccomp files that {@link localhostSeccompProfiles} named.
 * @param seccompDefault What names no seccomp profile gets the runtime's own, and not none (KEP-2413).
 * @throws {ContainerConfigError} for a group without a user, or a seccomp file that is missing.
 */
export function linuxSecurityContext(
  pod: Pod,
  container: Container,
  profiles: ReadonlyMap<string, string>,
  seccompDefault = false,
): LinuxSecurityContext {
  const own = container.securityContext ?? {};
  const outer = pod.spec?.securityContext ?? {};
  const { runAsUser, runAsGroup } = effectiveUser(pod, container);
  const { privileged = false, capabilities = {}, readOnlyRootFilesystem = false } = own;
  const { supplementalGroupsPolicy = "Merge" } = outer;
  return {
    privileged,
    runAsUser,
    runAsGroup,
    supplementalGroups: supplementalGroups(outer),
    supplementalGroupsPolicy,
    readOnlyRootFilesystem,
    noNewPrivileges: own.allowPrivilegeEscalation === false,
    addCapabilities: capabilities.add ?? [],
    dropCapabilities: capabilities.drop ?? [],
    seccomp: privileged
      ? { kind: "unconfined" }
      : seccomp(own.seccompProfile ?? outer.seccompProfile, profiles, {
          kind: seccompDefault ? "runtimeDefault" : "unconfined",
        }),
    appArmor: appArmor(pod, container),
    seLinux: seLinux(pod, container),
    unmaskedProc: own.procMount === "Unmasked",
  };
}

function supplementalGroups(context: PodSecurityContext): readonly number[] {
  const { fsGroup, supplementalGroups: groups = [] } = context;
  return [...new Set([...(fsGroup === undefined ? [] : [fsGroup]), ...groups])];
}
