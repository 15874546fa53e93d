import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { loopDevices } from "../kubelet/volumes/block-map.ts";
import { systemPrograms } from "../kubelet/volumes/host-programs.ts";
import { type IscsiDisk, parseRecord } from "../kubelet/volumes/iscsi/disk.ts";
import { IscsiSessions } from "../kubelet/volumes/iscsi/session.ts";
import { namesIn, portalHosts } from "../kubelet/volumes/kernel-devices.ts";
import { systemClock } from "../lib/clock.ts";
import { exec } from "../lib/exec.ts";
import type { Logger } from "../lib/log.ts";
import type { OwnResource } from "./own-resources.ts";

/** Loop devices that hold raw block volumes of pods. Before mounts, which are busy as long as they are held. */
export function ownLoopDevices(rootDir: string): OwnResource {
  const pods = join(rootDir, "pods");
  // Nothing here waits, but the others do.
  const left = async (): Promise<readonly string[]> => Promise.resolve(loopDevices(pods));
  return {
    what: "loop devices",
    remove: async (signal) => {
      for (const device of await left()) await exec(["losetup", "--detach", device], { signal });
    },
    left,
  };
}

/** The disks that this node's volumes have records of. */
async function iscsiDisks(rootDir: string): Promise<readonly IscsiDisk[]> {
  const root = join(rootDir, "plugins/kubernetes.io/iscsi");
  const found: IscsiDisk[] = [];
  for (const parent of [root, join(root, "volumeDevices")]) {
    for (const iface of namesIn(parent).filter((name) => name.startsWith("iface-"))) {
      for (const name of namesIn(join(parent, iface))) {
        const file = join(parent, iface, name, "iscsi.json");
        const disk = parseRecord(await readFile(file, "utf8").catch(() => ""));
        if (disk !== undefined) found.push(disk);
      }
    }
  }
  return found;
}

/** Sessions with iSCSI targets that volumes of pods needed. After mounts: the records lie below them. */
export function ownSessions(rootDir: string, logger: Logger): OwnResource {
  const sessions = new IscsiSessions({ clock: systemClock, logger, programs: systemPrograms });
  return {
    what: "iSCSI sessions",
    remove: async (signal) => {
      for (const disk of await iscsiDisks(rootDir)) await sessions.detach(disk, true, signal);
    },
    left: async () =>
      (await iscsiDisks(rootDir)).flatMap(({ iqn, portals }) =>
        [...portalHosts(iqn, {}).keys()]
          .filter((portal) => portals.includes(portal))
          .map((portal) => `${iqn} at ${portal}`),
      ),
  };
}
