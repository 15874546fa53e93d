/**
 * The CSI driver of csi-driver.ts as a process: csi-driver-process.ts ROOT DATA. ROOT is the kubelet's directory, DATA holds
 * what volumes contain; it shows them by binds, and after a restart finds in the mount table what it has published. Prints a
 * line for each call.
 */
import { mkdir, rmdir } from "node:fs/promises";
import { join } from "node:path";

import { systemMounter } from "../../src/kubelet/volumes/mounter.ts";
import { FakeCsiDriver } from "./csi-driver.ts";

const [rootDir = "", data = ""] = process.argv.slice(2);
const forever = new AbortController().signal;

const driver = new FakeCsiDriver({
  rootDir,
  nodeID: "the-node",
  maxVolumes: 8,
  capabilities: ["stageUnstageVolume", "getVolumeStats", "expandVolume"],
  mounts: {
    mount: async (volume, target) => {
      const source = join(data, volume);
      await mkdir(source, { recursive: true });
      await mkdir(target, { recursive: true });
      if (systemMounter.table().at(target) === undefined) {
        await systemMounter.bind(source, target, forever);
      }
    },
    unmount: async (_volume, target, how) => {
      await systemMounter.unmount(target, forever);
      if (how === "publish") await rmdir(target);
    },
  },
});
driver.onCall((method) => {
  process.stdout.write(`${method}\n`);
});
// What a former process has published is still there.
for (const { path, root } of systemMounter.table().below(rootDir)) {
  const handle = root.slice(root.lastIndexOf("/") + 1);
  if (path.endsWith("/globalmount")) driver.staged.set(path, handle);
  else if (path.includes("/kubernetes.io~csi/")) driver.published.set(path, handle);
}
await driver.start();
process.stdout.write("driver is ready\n");
