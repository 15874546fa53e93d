import type { Container, ContainerStatus, VolumeMountStatus } from "../../api/types.gen.ts";
import type { ContainerRecord } from "../../runtime/types.ts";
import { containerPath } from "./mounts.ts";
import { parseContainerNote } from "./records.ts";

function mountStatus(
  {
    mountPath,
    name,
    readOnly,
  }: { mountPath: string; name: string; readOnly?: boolean | undefined },
  readOnlyTrees: readonly string[],
): VolumeMountStatus {
  if (readOnly !== true) return { name, mountPath };
  return {
    name,
    mountPath,
    readOnly,
    recursiveReadOnly: readOnlyTrees.includes(containerPath(mountPath)) ? "Enabled" : "Disabled",
  };
}

/**
 * What a container was really given, for its status: user and groups (KEP-3619), how far its mounts are read-only
 * (KEP-3857), and the stop signal where the pod asked for one (KEP-4960).
 */
export function appliedFields(
  container: Container,
  record: ContainerRecord | undefined,
): Pick<ContainerStatus, "stopSignal" | "user" | "volumeMounts"> {
  const note = parseContainerNote(record?.record ?? "");
  const mounts = container.volumeMounts ?? [];
  const user = record?.user;
  const stopSignal = container.lifecycle?.stopSignal;
  return {
    ...(mounts.length === 0
      ? {}
      : { volumeMounts: mounts.map((mount) => mountStatus(mount, note.recursiveReadOnly ?? [])) }),
    ...(user === undefined
      ? {}
      : {
          user: {
            linux: {
              uid: user.uid,
              gid: user.gid,
              supplementalGroups: [...user.supplementalGroups],
            },
          },
        }),
    // Only then: an API server without the feature drops the field, and the difference would never go away.
    ...(record === undefined || stopSignal === undefined ? {} : { stopSignal }),
  };
}
