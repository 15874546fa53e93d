import { RuntimeError } from "../errors.ts";
import type { ImageMount, Mount } from "../types.ts";
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

type MountEntry = Readonly<Record<string, unknown>>;

/**
 * The name by which a container's mount of an image asks for it. Docker 28 calls the layer that it makes for a mount by the
 * container and this name, and so mounts an image only once under the same one: all but the first are asked for by a
 * shorter part of the id.
 */
function imageName(id: string, earlier: number): string {
  const hex = id.replace(/^sha256:/, "");
  return earlier === 0 ? id : hex.slice(0, Math.max(hex.length + 1 - earlier, 12));
}

/** True for the first of those names. */
export function isFullImageName(name: string): boolean {
  return /^sha256:[0-9a-f]{64}$/.test(name);
}

function imageEntry(
  { id, subPath }: ImageMount,
  containerPath: string,
  earlier: number,
): MountEntry {
  return {
    Type: "image",
    Source: imageName(id, earlier),
    Target: containerPath,
    ReadOnly: true,
    ...(subPath === "" ? {} : { ImageOptions: { Subpath: subPath } }),
  };
}

function bindEntry(mount: Mount, host: HostFacts): MountEntry {
  const { containerPath, hostPath, readOnly } = mount;
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

/** `HostConfig.Mounts` of one container. */
export function mountEntries(mounts: readonly Mount[], host: HostFacts): readonly MountEntry[] {
  const seen = new Map<string, number>();
  return mounts.map((mount) => {
    const { containerPath, image } = mount;
    if (image === undefined) return bindEntry(mount, host);
    const earlier = seen.get(image.id) ?? 0;
    seen.set(image.id, earlier + 1);
    return imageEntry(image, containerPath, earlier);
  });
}
