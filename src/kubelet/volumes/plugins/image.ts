import { imageDirectory } from "../image-volumes.ts";
import type { VolumePlugin } from "../plugin.ts";

/**
 * `image`: the content of an image (KEP-4639). It is pulled and mounted when containers are started, so
 * that the container's status tells what it waits for; see `ImageVolumes`.
 */
export function imagePlugin(): VolumePlugin {
  return {
    directory: imageDirectory,
    supports: ({ volume, persistent }) => persistent === undefined && volume.image !== undefined,
    setUp: async (_, { path }) =>
      Promise.resolve({ hostPath: path, readOnly: true, ownership: "done" }),
  };
}
