import type { VolumeSpec } from "./plugin.ts";

const annotation = "volume.beta.kubernetes.io/mount-options";

/** All of them, each once, in the order that upstream gives them to mount(8). */
export function joinMountOptions(...lists: readonly (readonly string[])[]): readonly string[] {
  return [...new Set(lists.flat())].filter((option) => option !== "").toSorted();
}

/** What the PersistentVolume asks mount(8) for; the annotation is the older way and comes first. */
export function mountOptions({ persistent }: Pick<VolumeSpec, "persistent">): readonly string[] {
  const volume = persistent?.volume;
  const annotated = volume?.metadata?.annotations?.[annotation];
  if (annotated !== undefined) return annotated.split(",").filter((option) => option !== "");
  return volume?.spec?.mountOptions ?? [];
}

/** Flags of one mount, apart from those of its file system: what a bind can have of its own. */
const bindFlags = new Set([
  "ro",
  "nosuid",
  "nodev",
  "noexec",
  "noatime",
  "nodiratime",
  "relatime",
  "nosymfollow",
]);

/** The flags among them that a bind mount lacks. */
export function missingFlags(
  wanted: readonly string[],
  present: readonly string[],
): readonly string[] {
  return wanted.filter((flag) => bindFlags.has(flag) && !present.includes(flag));
}

/** Name of what is set up: the PersistentVolume's, where there is one. */
export function volumeName({ name, persistent }: VolumeSpec): string {
  return persistent?.volume.metadata?.name ?? name;
}
