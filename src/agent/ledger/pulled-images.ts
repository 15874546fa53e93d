import { PullRecords } from "../../kubelet/images/pull-records.ts";
import { repositoryOf } from "../../kubelet/images/credentials.ts";
import type { ImageService } from "../../runtime/types.ts";
import type { OwnResource } from "../own-resources.ts";

/**
 * Images that pods made this node pull and that nobody else has: no container of others uses them, and they have no other
 * name. After containers: one in use cannot be removed.
 *
 * @param inUse Ids of images of other people's containers.
 */
export function pulledImages(
  rootDir: string,
  images: Pick<ImageService, "listImages" | "removeImage">,
  inUse: (signal: AbortSignal) => Promise<ReadonlySet<string>>,
): OwnResource {
  const records = new PullRecords(rootDir, () => 0);
  const ours = async (
    signal: AbortSignal,
  ): Promise<readonly { readonly id: string; readonly line: string }[]> => {
    const brought = await records.broughtImages();
    const used = await inUse(signal);
    return (await images.listImages(signal)).flatMap(({ id, tags }) => {
      const asked = brought.get(id);
      if (asked === undefined || used.has(id)) return [];
      if (!tags.every((tag) => asked.has(repositoryOf(tag)))) return [];
      return [{ id, line: tags.length === 0 ? id : tags.join(", ") }];
    });
  };
  return {
    what: "pulled images",
    remove: async (signal) => {
      for (const { id } of await ours(signal)) await images.removeImage(id, signal);
    },
    left: async (signal) => (await ours(signal)).map(({ line }) => line),
  };
}
