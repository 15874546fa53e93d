import { isDevicePath } from "./block-map.ts";
import type { DiskPluginDeps } from "./disk-plugin.ts";
import type { DiskRecords } from "./disk-records.ts";
import type { VolumeOnDisk } from "./plugin.ts";
import { unmountAll } from "./volume-bind.ts";

/** What a plug-in of disks has to take one away again. */
interface DiskHandling<Disk> extends Pick<DiskPluginDeps, "attachments" | "mounter"> {
  readonly records: DiskRecords<Disk>;
  /** Lets nobody else touch the disk meanwhile. */
  readonly locked: (disk: Disk, work: () => Promise<void>) => Promise<void>;
  /** Undoes what the pod had of it. @returns Whether nothing of the disk is left on this node. */
  readonly release: (disk: Disk, path: string, signal: AbortSignal) => Promise<boolean>;
}

/** Takes a pod's disk away: what is mounted, then the disk by its record, then the record. */
export async function tearDownDisk<Disk extends { readonly uniqueName?: string | undefined }>(
  { attachments, locked, mounter, records, release }: DiskHandling<Disk>,
  { path, podUID }: VolumeOnDisk,
  signal: AbortSignal,
): Promise<void> {
  if (!isDevicePath(path)) await unmountAll(mounter, path, signal);
  const disk = await records.read(path);
  // Without a record nothing was begun.
  if (disk === undefined) return;
  await locked(disk, async () => {
    const gone = await release(disk, path, signal);
    await records.remove(path);
    if (disk.uniqueName !== undefined) attachments?.letGo(disk.uniqueName, podUID, gone);
  });
}
