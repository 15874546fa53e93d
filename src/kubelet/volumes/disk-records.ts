import { readFile, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { errorCode } from "../../lib/errors.ts";
import { isDevicePath } from "./block-map.ts";
import { namesIn } from "./kernel-devices.ts";
import { makeDirectory } from "./make-directory.ts";
import { podPaths, podsDirectory } from "./pod-paths.ts";

export interface DiskRecordOptions<T> {
  readonly rootDir: string;
  /** The plug-in's, below `volumes/`. */
  readonly directory: string;
  /** Name of the file. */
  readonly file: string;
  readonly format: (disk: T) => string;
  /** Undefined for what is no record. */
  readonly parse: (text: string) => T | undefined;
}

/**
 * Which disk a pod's directory of a volume is for: a file in it, written before anything is done and removed when all is
 * undone. While the volume is mounted it lies below the mount, out of sight and safe.
 */
export class DiskRecords<T> {
  readonly #options: DiskRecordOptions<T>;

  constructor(options: DiskRecordOptions<T>) {
    this.#options = options;
  }

  /** Undefined when there is none. */
  async read(path: string): Promise<T | undefined> {
    const { file, parse } = this.#options;
    try {
      return parse(await readFile(join(path, file), "utf8"));
    } catch (error) {
      if (errorCode(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  /** Makes the directory too. */
  async write(path: string, disk: T): Promise<void> {
    const { file, format } = this.#options;
    await makeDirectory(path, 0o750);
    await writeFile(join(path, file), format(disk), { mode: 0o600 });
  }

  /** Not there is success. */
  async remove(path: string): Promise<void> {
    await unlink(join(path, this.#options.file)).catch((error: unknown) => {
      if (errorCode(error) !== "ENOENT") throw error;
    });
  }

  /** Directories of the same type of volume, file systems or devices as `path` is, of all pods and without itself. */
  others(path: string): readonly string[] {
    const { directory, rootDir } = this.#options;
    return namesIn(podsDirectory(rootDir)).flatMap((uid) => {
      const { volumeDevices, volumes } = podPaths(rootDir, uid);
      const parent = join(isDevicePath(path) ? volumeDevices : volumes, directory);
      return namesIn(parent)
        .map((name) => join(parent, name))
        .filter((other) => other !== path);
    });
  }
}
