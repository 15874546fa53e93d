import { ApiError } from "../../../src/api/errors.ts";
import { createInformer } from "../../../src/api/informer.ts";
import type { Stored } from "../../../src/api/object.ts";
import { parseStored } from "../../../src/api/object.ts";
import { deleteObject, patchObject } from "../../../src/api/objects.ts";
import { PODS } from "../../../src/api/resources.ts";
import type { Pod } from "../../../src/api/types.gen.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { World } from "./world.ts";
import { postRunning } from "./world.ts";

export interface PlayedKubelet {
  /** Images of which no pod ever becomes ready. */
  readonly broken: Set<string>;
  /** While true, pods that are to end go on running. */
  holdEnding: boolean;
  /** Lets go of what {@link PlayedKubelet.holdEnding} held. */
  release(): void;
  stop(): Promise<void>;
}

/** What kubelets do with pods, at once: bound ones run and are ready, ending ones are gone. */
export function playKubelet(world: World): PlayedKubelet {
  const stop = new AbortController();
  const signal = AbortSignal.any([world.signal, stop.signal]);
  const work = new Set<Promise<void>>();
  const held = new Set<string>();
  const { client } = world;
  let serial = 0;
  const pods = createInformer<Stored<Pod>>({
    client,
    clock: systemClock,
    logger: silentLogger,
    random: Math.random,
    resource: PODS,
    project: (object) => parseStored<Pod>(object),
  });

  async function act(pod: Stored<Pod>): Promise<void> {
    const { metadata, spec, status } = pod;
    if ((spec?.nodeName ?? "") === "") return;
    if (metadata.deletionTimestamp !== undefined) {
      if (kubelet.holdEnding) {
        held.add(`${metadata.namespace ?? ""}/${metadata.name}`);
        return;
      }
      const { uid } = metadata;
      await deleteObject(client, PODS, metadata, { gracePeriodSeconds: 0, uid, signal });
      return;
    }
    if (status?.phase !== "Pending") return;
    if (spec?.containers.some(({ image }) => kubelet.broken.has(image ?? "")) === true) {
      const at = { ...metadata, patch: { status: { phase: "Running" } } };
      await patchObject(client, PODS, at, { subresource: "status", signal });
      return;
    }
    serial += 1;
    await postRunning(world, pod, `10.244.0.${(serial % 250) + 2}`);
  }

  function start(pod: Stored<Pod>): void {
    const done = (async (): Promise<void> => {
      try {
        await act(pod);
      } catch (error) {
        // Gone or changed meanwhile: the next change tells.
        if (!signal.aborted && !(error instanceof ApiError)) throw error;
      }
    })();
    work.add(done);
    void done.finally(() => work.delete(done));
  }

  const kubelet: PlayedKubelet = {
    broken: new Set(),
    holdEnding: false,
    release() {
      kubelet.holdEnding = false;
      for (const key of held) {
        const pod = pods.get(key);
        if (pod !== undefined) start(pod);
      }
      held.clear();
    },
    async stop() {
      stop.abort();
      await running;
      await Promise.allSettled(work);
    },
  };
  pods.subscribe((change) => {
    if (change.kind !== "deleted") start(change.object);
  });
  const running = pods.run(signal);
  return kubelet;
}
