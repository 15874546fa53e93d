import { join } from "node:path";

import { namesIn } from "../../lib/names-in.ts";
import { podPaths, podsDirectory } from "./pod-paths.ts";

/** Uids of the pods that have a directory for the PersistentVolume of this name, whatever its type. */
export async function podsWithVolume(rootDir: string, name: string): Promise<readonly string[]> {
  const found: string[] = [];
  for (const uid of await namesIn(podsDirectory(rootDir))) {
    const { volumeDevices, volumes } = podPaths(rootDir, uid);
    for (const directory of [volumes, volumeDevices]) {
      for (const plugin of await namesIn(directory)) {
        if ((await namesIn(join(directory, plugin))).includes(name)) found.push(uid);
      }
    }
  }
  return found;
}
