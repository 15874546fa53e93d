import type { Stored } from "../../../api/object.ts";
import { isLocalVolume } from "../../../api/local-volumes.ts";
import { compareQuantities } from "../../../api/quantity.ts";
import { PERSISTENT_VOLUME_CLAIMS } from "../../../api/resources.ts";
import {
  annotations,
  hasAnnotation,
  type StoredClaim,
  type StoredVolume,
  storageOf,
} from "../persistent-volume-binder/claims.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { eventTarget, runQueueLoop } from "../shared/controller.ts";

/** Who is to make a claim larger. */
export type Expansion = "none" | "external" | "unsupported";

/** No type of volume that is built in can be expanded by the control plane; local volumes have a controller of their own. */
export function decideExpansion(claim: StoredClaim, volume: StoredVolume | undefined): Expansion {
  if (claim.status?.phase !== "Bound" || volume === undefined) return "none";
  if (volume.spec?.claimRef?.uid !== claim.metadata.uid || isLocalVolume(volume)) return "none";
  const grows =
    compareQuantities(
      storageOf(claim.spec?.resources?.requests),
      storageOf(claim.status.capacity),
    ) > 0;
  if (!grows && !hasAnnotation(volume, annotations.preResizeCapacity)) return "none";
  return volume.spec.csi === undefined ? "unsupported" : "external";
}

function key({ metadata }: Stored<unknown>): string {
  return metadata.uid;
}

/** Says on claims that are to grow who has to do it: the resizer of their CSI driver (upstream's volume-expand). */
export function expandController(context: ControllerContext): Controller {
  const name = "persistentvolume-expander";
  const { informers, recorder } = context;
  const { persistentVolumeClaims, persistentVolumes } = informers;
  /** Wanted size that was last spoken of, by uid of the claim. */
  const said = new Map<string, string>();

  function tell(claim: StoredClaim): void {
    const volume = persistentVolumes.get(claim.spec?.volumeName ?? "");
    const expansion = decideExpansion(claim, volume);
    const size = String(claim.spec?.resources?.requests?.["storage"]);
    if (expansion === "none" || said.get(key(claim)) === size) return;
    said.set(key(claim), size);
    recorder.event(
      eventTarget(PERSISTENT_VOLUME_CLAIMS, claim),
      expansion === "external" ? "Normal" : "Warning",
      "ExternalExpanding",
      "waiting for an external controller to expand this PVC",
    );
  }

  return {
    name,
    run: (signal) =>
      runQueueLoop(
        {
          name,
          context,
          waitFor: [persistentVolumeClaims, persistentVolumes],
          sync: (claimKey) => {
            const claim = persistentVolumeClaims.get(claimKey);
            if (claim !== undefined) tell(claim);
            return Promise.resolve();
          },
          subscribe: (queue) => [
            persistentVolumeClaims.subscribe((change) => {
              if (change.kind === "deleted") said.delete(key(change.previous));
              else if (change.object.status?.phase === "Bound") queue.add(change.key);
            }),
          ],
        },
        signal,
      ),
  };
}
