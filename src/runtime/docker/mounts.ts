import { RuntimeError } from "../errors.ts";
import type { Mount } from "../types.ts";
import type { HostFacts } from "./container-config.ts";

/** First minor of API 1.x that mounts images, their parts included (Docker 28). */
export const imageMountsSince = 48;

function checkSource({ containerPath, hostPath, image }: Mount, { api }: HostFacts): void {
  if (image === undefined) {
    if (hostPath.startsWith("/")) return;
    throw new RuntimeError("InvalidSpec", `mount source "${hostPath}" must be absolute`);
  }
  if (api >= imageMountsSince) return;
  throw new RuntimeError(
    "Unsupported",
    `mount path "${containerPath}" cannot show an image: the engine's API 1.${api} is older than 1.${imageMountsSince}`,
  );
}

function checkRecursive(
  { containerPath, image, recursiveReadOnly }: Mount,
  { api }: HostFacts,
): void {
  // Nothing is mounted below an image.
  if (recursiveReadOnly !== true || image !== undefined || api >= 44) return;
  throw new RuntimeError(
    "Unsupported",
    `mount path "${containerPath}" cannot be read-only recursively: the engine's API 1.${api} is older than 1.44`,
  );
}

/** @throws {RuntimeError} `InvalidSpec` or `Unsupported` for mounts that the engine would refuse, or misread. */
export function checkMounts(mounts: readonly Mount[], host: HostFacts): void {
  const targets = new Set<string>();
  for (const mount of mounts) {
    const { containerPath } = mount;
    checkRecursive(mount, host);
    checkSource(mount, host);
    if (!containerPath.startsWith("/")) {
      throw new RuntimeError("InvalidSpec", `mount path "${containerPath}" must be absolute`);
    }
    if (targets.has(containerPath)) {
      throw new RuntimeError("InvalidSpec", `mount path "${containerPath}" is used twice`);
    }
    targets.add(containerPath);
  }
}

function readOnlyDepth(mount: Mount): Readonly<Record<string, boolean>> {
  return mount.recursiveReadOnly === true
    ? { ReadOnlyForceRecursive: true }
    : { ReadOnlyNonRecursive: true };
}

/**
 * Private is the engine's default, and has to be left to it: it refuses the word where its own directory lies below the
 * source (the host's root, for one) and makes the mount a slave there. Only a tree made read-only needs it said.
 */
function propagationOf(mount: Mount): Readonly<Record<string, string>> {
  switch (mount.propagation) {
    case "hostToContainer":
      return { Propagation: "rslave" };
    case "bidirectional":
      return { Propagation: "rshared" };
    case "private":
      return mount.recursiveReadOnly === true ? { Propagation: "rprivate" } : {};
  }
}

/** One entry of `HostConfig.Mounts`. */
export function mountEntry(mount: Mount, host: HostFacts): Readonly<Record<string, unknown>> {
  const { containerPath, hostPath, image, readOnly } = mount;
  if (image !== undefined) {
    const { id, subPath } = image;
    return {
      Type: "image",
      Source: id,
      Target: containerPath,
      ReadOnly: true,
      ...(subPath === "" ? {} : { ImageOptions: { Subpath: subPath } }),
    };
  }
  return {
    Type: "bind",
    Source: hostPath,
    Target: containerPath,
    ReadOnly: readOnly,
    BindOptions: {
      ...propagationOf(mount),
      // From 1.44 read-only would otherwise reach into mounts below, which Kubernetes does not mean.
      ...(readOnly && host.api >= 44 ? readOnlyDepth(mount) : {}),
    },
  };
}
