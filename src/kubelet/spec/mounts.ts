import type { VolumeMount } from "../../api/types.gen.ts";
import type { Mount } from "../../runtime/types.ts";
import { ContainerConfigError } from "./env.ts";
import { expandReferences } from "./expand.ts";

/**
 * The part of the volume that a mount shows, relative to its root; empty for all of it.
 *
 * @param environment The container's; `subPathExpr` may refer to it.
 * @throws {ContainerConfigError} for a reference without a value, or a path that leaves the volume.
 */
export function mountSubPath(mount: VolumeMount, environment: ReadonlyMap<string, string>): string {
  const path = expandedSubPath(mount, environment);
  if (path.startsWith("/")) {
    throw new ContainerConfigError(`error SubPath \`${path}\` must not be an absolute path`);
  }
  if (path.split("/").includes("..")) {
    throw new ContainerConfigError(
      `unable to provision SubPath \`${path}\`: must not contain '..'`,
    );
  }
  return path;
}

function expandedSubPath(mount: VolumeMount, environment: ReadonlyMap<string, string>): string {
  const { subPath = "", subPathExpr = "" } = mount;
  if (subPathExpr === "") return subPath;
  const missing = new Set<string>();
  const expanded = expandReferences(subPathExpr, (name) => {
    const value = environment.get(name) ?? "";
    // Nothing would silently name another directory, also when it is what the variable holds.
    if (value === "") missing.add(name);
    return value;
  });
  if (missing.size === 0) return expanded;
  throw new ContainerConfigError(`missing value for ${[...missing].toSorted().join(", ")}`);
}

/** A sub-path that cannot be prepared. Why stays in the log: it would tell about files of the node. */
export function subPathError(
  mount: VolumeMount,
  containerName: string,
  cause: Error,
): ContainerConfigError {
  return new ContainerConfigError(
    `failed to prepare subPath for volumeMount "${mount.name}" of container "${containerName}"`,
    { cause },
  );
}

/** The same of a volume that shows an image: nobody can make it, so it is the container that cannot be created. */
export class ImageSubPathError extends ContainerConfigError {}

/** A path in a container in the one form that can be compared: absolute, no empty parts, no slash at its end. */
export function containerPath(path: string): string {
  return `/${path
    .split("/")
    .filter((part) => part !== "" && part !== ".")
    .join("/")}`;
}

/** @throws {ContainerConfigError} for a mode that does not exist. */
export function mountPropagation(mount: VolumeMount): Mount["propagation"] {
  const mode: string = mount.mountPropagation ?? "None";
  if (mode === "Bidirectional") return "bidirectional";
  if (mode === "HostToContainer") return "hostToContainer";
  if (mode === "None" || mode === "") return "private";
  throw new ContainerConfigError(`invalid MountPropagation mode: "${mode}"`);
}

/**
 * The same of an image that the container runtime mounts: the node mounts nothing below it, and gets nothing back.
 *
 * @throws {ContainerConfigError} for `Bidirectional`, and for a mode that does not exist.
 */
export function imagePropagation(mount: VolumeMount): Mount["propagation"] {
  if (mountPropagation(mount) !== "bidirectional") return "private";
  throw new ContainerConfigError(
    `volume "${mount.name}" is an image that the container engine mounts: mount propagation "Bidirectional" is not supported for it`,
  );
}

/** Whether a mount asks for what {@link mountsRecursivelyReadOnly} needs the runtime for. */
export function asksForRecursiveReadOnly({ recursiveReadOnly = "" }: VolumeMount): boolean {
  return recursiveReadOnly !== "" && recursiveReadOnly !== "Disabled";
}

/**
 * Whether the mounts below this one become read-only with it (KEP-3857).
 *
 * @param supported By the pod's runtime handler.
 * @throws {ContainerConfigError} when it is asked for and cannot be.
 */
export function mountsRecursivelyReadOnly(mount: VolumeMount, supported: boolean): boolean {
  const { mountPropagation: propagation, name, readOnly, recursiveReadOnly: mode } = mount;
  if (!asksForRecursiveReadOnly(mount)) return false;
  const refuse = (why: string): ContainerConfigError =>
    new ContainerConfigError(
      `failed to resolve recursive read-only mode: volume "${name}" requested recursive read-only mode, but it is ${why}`,
    );
  if (readOnly !== true) throw refuse("not read-only");
  if (propagation !== undefined && propagation !== "None") {
    throw refuse(`not compatible with propagation "${propagation}"`);
  }
  if (mode === "IfPossible") return supported;
  if (mode === "Enabled") {
    if (!supported) throw refuse("not supported by the runtime");
    return true;
  }
  throw new ContainerConfigError(
    `failed to resolve recursive read-only mode: unknown recursive read-only mode "${mode ?? ""}"`,
  );
}
