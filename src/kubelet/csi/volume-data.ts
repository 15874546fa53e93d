import { readFile, unlink } from "node:fs/promises";
import { join } from "node:path";

import { writeFileAtomic } from "../../lib/atomic-file.ts";
import { errorCode, errorMessage } from "../../lib/errors.ts";
import { asRecord, stringMap } from "../../lib/guard.ts";
import { VolumeError } from "../volumes/payload.ts";

/** What is kept beside a mount, so that another process can undo it: the words are the kubelet's, all are strings. */
export interface VolumeData {
  readonly driverName: string;
  readonly volumeHandle: string;
  /** Of the PersistentVolume; of an inline volume its name in the pod. */
  readonly specVolID?: string;
  readonly nodeName?: string;
  readonly attachmentID?: string;
  readonly volumeLifecycleMode?: "Persistent" | "Ephemeral";
}

const fileName = "vol_data.json";

/** Replaces what is kept in `directory`. */
export async function saveVolumeData(directory: string, data: VolumeData): Promise<void> {
  const sorted = Object.fromEntries(
    Object.entries(data).toSorted(([one], [other]) => (one < other ? -1 : 1)),
  );
  await writeFileAtomic(join(directory, fileName), `${JSON.stringify(sorted)}\n`);
}

/**
 * What is kept in `directory`; undefined when it is nothing.
 *
 * @throws {VolumeError} when it cannot be understood.
 */
export async function loadVolumeData(directory: string): Promise<VolumeData | undefined> {
  const path = join(directory, fileName);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ENOTDIR") return undefined;
    throw error;
  }
  try {
    const { driverName, volumeHandle, ...rest } = stringMap(asRecord(JSON.parse(text), "$"));
    if (driverName === undefined || volumeHandle === undefined) {
      throw new VolumeError("it names no driver or no volume");
    }
    return { ...rest, driverName, volumeHandle };
  } catch (error) {
    throw new VolumeError(
      `kubernetes.io/csi: failed to parse volume data file [${path}]: ${errorMessage(error)}`,
      { cause: error },
    );
  }
}

/** Not there is success. */
export async function removeVolumeData(directory: string): Promise<void> {
  try {
    await unlink(join(directory, fileName));
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
  }
}
