import type { Stored } from "../../../api/object.ts";
import { deleteObject } from "../../../api/objects.ts";
import { JOBS } from "../../../api/resources.ts";
import type { Job } from "../../../api/types.gen.ts";
import { findObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { runQueueLoop, splitKey } from "../shared/controller.ts";
import { timeMs } from "../shared/pod-state.ts";

/** When a Job is to be removed, ms since the epoch; undefined while that is not known, or never. */
export function expiresAtMs(job: Stored<Job>): number | undefined {
  const ttl = job.spec?.ttlSecondsAfterFinished;
  if (ttl === undefined || job.metadata.deletionTimestamp !== undefined) return undefined;
  const finished = job.status?.conditions?.find(
    ({ type, status }) => (type === "Complete" || type === "Failed") && status === "True",
  );
  const finishedMs = timeMs(finished?.lastTransitionTime);
  return finishedMs === undefined ? undefined : finishedMs + ttl * 1000;
}

/** Removes finished Jobs with their pods once `ttlSecondsAfterFinished` are over. */
export function ttlAfterFinishedController(context: ControllerContext): Controller {
  const { client, clock, informers } = context;
  const { jobs } = informers;
  const name = "ttl-after-finished";

  /** Milliseconds left; undefined when the Job is to stay. */
  function leftMs(job: Stored<Job> | undefined): number | undefined {
    const expiry = job === undefined ? undefined : expiresAtMs(job);
    return expiry === undefined ? undefined : expiry - clock.now();
  }

  return {
    name,
    run: (signal) =>
      runQueueLoop(
        {
          name,
          context,
          waitFor: [jobs],
          sync: async (key, queue) => {
            const cached = leftMs(jobs.get(key));
            if (cached === undefined) return;
            if (cached > 0) {
              queue.addAfter(key, cached);
              return;
            }
            // Asked live: the time may have been prolonged, or the name be another Job's.
            const live = await findObject(client, { resource: JOBS, ...splitKey(key) }, signal);
            const left = leftMs(live);
            if (live === undefined || left === undefined) return;
            if (left > 0) queue.addAfter(key, left);
            else {
              await deleteObject(client, JOBS, live.metadata, {
                uid: live.metadata.uid,
                propagationPolicy: "Foreground",
                signal,
              });
            }
          },
          subscribe: (queue) => [
            jobs.subscribe((change) => {
              if (change.kind !== "deleted" && expiresAtMs(change.object) !== undefined)
                queue.add(change.key);
            }),
          ],
        },
        signal,
      ),
  };
}
