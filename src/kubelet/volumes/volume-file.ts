import { open } from "node:fs/promises";

import { errorCode } from "../../lib/errors.ts";
import { VolumeError } from "./payload.ts";
import { openInVolume } from "./subpath.ts";

/**
 * Reads a small file that a container left in a volume. Links are followed inside the volume and never out of it; what
 * is no plain file (a named pipe would wait for a writer) is refused. Undefined when there is none.
 *
 * @param limit Bytes; a larger file is refused.
 * @throws {VolumeError} otherwise.
 */
export async function readVolumeFile(
  volumePath: string,
  path: string,
  limit: number,
): Promise<string | undefined> {
  const handle = await openInVolume(volumePath, path);
  if (handle === undefined) return undefined;
  try {
    const stats = await handle.stat();
    if (!stats.isFile()) throw new VolumeError(`${path} is not a regular file`);
    if (stats.size > limit) throw new VolumeError(`${path} is larger than ${limit} bytes`);
    // The descriptor only names the file; this opens what it names, whatever the path leads to by now.
    const file = await open(`/proc/self/fd/${handle.fd}`, "r");
    try {
      const buffer = Buffer.alloc(limit + 1);
      let length = 0;
      while (length < buffer.length) {
        const { bytesRead } = await file.read(buffer, length, buffer.length - length, length);
        if (bytesRead === 0) break;
        length += bytesRead;
      }
      if (length > limit) throw new VolumeError(`${path} is larger than ${limit} bytes`);
      return buffer.toString("utf8", 0, length);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  } finally {
    await handle.close();
  }
}
