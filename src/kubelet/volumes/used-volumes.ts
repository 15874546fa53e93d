import type { Volume } from "../../api/types.gen.ts";
import { allContainers } from "../spec/containers.ts";
import type { AssignedPod } from "../types.ts";

/**
 * The volumes of a pod that some container mounts, has as a device, or reads variables from. Others are left alone, as
 * upstream does: one that nobody uses need not even exist.
 */
export function usedVolumes(pod: AssignedPod): readonly Volume[] {
  const used = new Set<string>();
  for (const { container } of allContainers(pod)) {
    for (const { name } of container.volumeMounts ?? []) used.add(name);
    for (const { name } of container.volumeDevices ?? []) used.add(name);
    for (const { valueFrom } of container.env ?? []) {
      if (valueFrom?.fileKeyRef !== undefined) used.add(valueFrom.fileKeyRef.volumeName);
    }
  }
  return (pod.spec?.volumes ?? []).filter(({ name }) => used.has(name));
}
