import { chmodSync, chownSync } from "node:fs";
import { chmod, chown } from "node:fs/promises";

/** A volume's root is everybody's; a group owns what is made in it, and a tmpfs is sticky, as mount(8) leaves it. */
export async function openVolumeRoot(
  path: string,
  fsGroup: number | undefined,
  tmpfs: boolean,
): Promise<void> {
  const mode = 0o777 | (fsGroup === undefined ? 0 : 0o2000) | (tmpfs ? 0o1000 : 0);
  if (tmpfs) {
    // Memory waits for nobody: to ask another thread would cost more.
    if (fsGroup !== undefined) chownSync(path, 0, fsGroup);
    chmodSync(path, mode);
    return;
  }
  if (fsGroup !== undefined) await chown(path, 0, fsGroup);
  await chmod(path, mode);
}
