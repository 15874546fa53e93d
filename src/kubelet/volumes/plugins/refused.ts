import { VolumeError } from "../payload.ts";
import type { VolumePlugin, VolumeSpec } from "../plugin.ts";

/** Types that moved out of Kubernetes, with the CSI driver that has them now. */
const migrated: Readonly<Record<string, string>> = {
  awsElasticBlockStore: "ebs.csi.aws.com",
  azureDisk: "disk.csi.azure.com",
  azureFile: "file.csi.azure.com",
  cinder: "cinder.csi.openstack.org",
  gcePersistentDisk: "pd.csi.storage.gke.io",
  portworxVolume: "pxd.portworx.com",
  vsphereVolume: "csi.vsphere.vmware.com",
};

/** Types that nobody mounts any more; the API still knows them. */
const removed = new Set([
  "cephfs",
  "flocker",
  "glusterfs",
  "photonPersistentDisk",
  "quobyte",
  "rbd",
  "scaleIO",
  "storageos",
]);

const gitRepo =
  "git-repo volume plugin has been disabled; if necessary, it may be re-enabled by enabling the feature-gate `GitRepoVolumeDriver`, which this node does not have: clone in an init container into an emptyDir";
const flexVolume =
  "no volume plugin matched: flexVolume drivers are not run by this node, use a CSI driver";

function refusal(type: string): string | undefined {
  const driver = migrated[type];
  if (driver !== undefined) {
    return `no volume plugin matched: ${type} has moved to the CSI driver ${driver}, use a PersistentVolume of that driver`;
  }
  if (type === "gitRepo") return gitRepo;
  if (type === "flexVolume") return flexVolume;
  return removed.has(type)
    ? `no volume plugin matched: ${type} was removed from Kubernetes`
    : undefined;
}

/** Why no node of this kind mounts the volume; undefined for one of another type. */
export function volumeRefusal({ persistent, volume }: VolumeSpec): string | undefined {
  const source = persistent === undefined ? volume : (persistent.volume.spec ?? {});
  for (const [type, value] of Object.entries(source)) {
    if (value === undefined || value === null) continue;
    const reason = refusal(type);
    if (reason !== undefined) return reason;
  }
  return undefined;
}

/** Volumes that the API knows and no node of this kind mounts: each is refused with the reason. */
export function refusedPlugin(): VolumePlugin {
  return {
    directory: "kubernetes.io~refused",
    supports: (spec) => volumeRefusal(spec) !== undefined,
    setUp: async (spec) => Promise.reject(new VolumeError(volumeRefusal(spec) ?? "")),
  };
}
