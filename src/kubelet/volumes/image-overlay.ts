import { readFile, readlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import type { MountRequest } from "./mounter.ts";
import { VolumeError } from "./payload.ts";

/** What mount(2) takes as options is one page, with its end. */
const maxOptionBytes = 4000;

/** Read-only, and else as an engine shows an image: programs in it can be run (KEP-4639 since Kubernetes 1.36). */
export const imageOptions: readonly string[] = ["ro"];

/** The layer's short name beside all others of its engine, as the engine itself stacks it; undefined without one. */
async function shortName(root: string, layer: string): Promise<string | undefined> {
  const home = dirname(layer);
  try {
    const name = join("l", (await readFile(join(home, "link"), "utf8")).trim());
    const target = await readlink(join(root, name));
    return join(root, "l", target) === layer ? name : undefined;
  } catch {
    return undefined;
  }
}

async function shortNames(
  root: string,
  layers: readonly string[],
): Promise<readonly string[] | undefined> {
  const names = await Promise.all(layers.map((layer) => shortName(root, layer)));
  const known = names.filter((name) => name !== undefined);
  return known.length === names.length ? known : undefined;
}

/** A path as overlayfs reads it in a list. @throws {VolumeError} for one that cannot be written. */
function escaped(path: string): string {
  if (path.includes(",")) throw new VolumeError(`the path of a layer has a comma: ${path}`);
  return path.replaceAll(/[\\:]/g, "\\$&");
}

/**
 * The mount that shows layers as one read-only tree. An image may have more layers than their paths fit into one mount;
 * the engine's own short links to them do.
 *
 * @param layers Topmost first; at least two, as overlayfs wants it.
 * @throws {VolumeError} when there are too many of them.
 */
export async function overlayOf(layers: readonly string[], target: string): Promise<MountRequest> {
  const root = dirname(dirname(layers[0] ?? "/"));
  const inOneRoot = layers.every(
    (layer) => dirname(dirname(layer)) === root && basename(layer) === "diff",
  );
  const short = inOneRoot ? await shortNames(root, layers) : undefined;
  const lowers = (short ?? layers.map(escaped)).join(":");
  if (lowers.length > maxOptionBytes) {
    throw new VolumeError(`its ${layers.length} layers are too many for one mount`);
  }
  return {
    source: "overlay",
    target,
    type: "overlay",
    options: [...imageOptions, `lowerdir=${lowers}`],
    ...(short === undefined ? {} : { cwd: root }),
  };
}
