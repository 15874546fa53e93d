import { lstat, readFile } from "node:fs/promises";
import { join } from "node:path";

import { errorCode } from "../../lib/errors.ts";
import { isRecord, optionalString } from "../../lib/guard.ts";

/** More than any account file has; what is larger is left to the engine. */
const maxBytes = 1 << 20;

function hasLayers(image: unknown): boolean {
  const rootFS = isRecord(image) ? image["RootFS"] : undefined;
  const layers = isRecord(rootFS) ? rootFS["Layers"] : undefined;
  return !isRecord(rootFS) || (Array.isArray(layers) && layers.length > 0);
}

/** Directories of an image's layers on this machine, topmost first; undefined where its storage has none (`GET /images/ID/json`). */
export function layerDirectories(image: unknown): readonly string[] | undefined {
  const driver = isRecord(image) ? image["GraphDriver"] : undefined;
  if (!isRecord(driver) || driver["Name"] !== "overlay2") return undefined;
  const data = isRecord(driver["Data"]) ? driver["Data"] : {};
  const upper = optionalString(data["UpperDir"]);
  if (upper === undefined) return hasLayers(image) ? undefined : [];
  const lower = optionalString(data["LowerDir"])?.split(":") ?? [];
  return [upper, ...lower].filter((path) => path.startsWith("/"));
}

type Found = { readonly kind: "file"; readonly path: string } | { readonly kind: "no" | "hidden" };

/** Looks for a file in one layer. Undefined for anything but plain directories and files: links would lead elsewhere. */
async function findIn(layer: string, parts: readonly string[]): Promise<Found | undefined> {
  let path = layer;
  for (const [index, part] of parts.entries()) {
    path = join(path, part);
    try {
      const stats = await lstat(path);
      // A whiteout: what lower layers have here is gone.
      if (stats.isCharacterDevice()) return { kind: "hidden" };
      const last = index === parts.length - 1;
      if (last ? !stats.isFile() || stats.size > maxBytes : !stats.isDirectory()) return undefined;
    } catch (error) {
      if (errorCode(error) === "ENOENT") return { kind: "no" };
      throw error;
    }
  }
  return { kind: "file", path };
}

/**
 * The text of a file of an image, read from its layers; empty when the image has none. Undefined when that cannot be
 * told: links, layers that are not here. A directory that a layer replaces as a whole passes for one that it adds to,
 * so this is for what may be a guess.
 */
export async function readLayered(
  layers: readonly string[],
  path: string,
): Promise<string | undefined> {
  try {
    for (const layer of layers) {
      await lstat(layer);
      const found = await findIn(layer, path.split("/"));
      if (found === undefined) return undefined;
      if (found.kind === "hidden") return "";
      if (found.kind === "file") return await readFile(found.path, "utf8");
    }
    return "";
  } catch {
    return undefined;
  }
}
