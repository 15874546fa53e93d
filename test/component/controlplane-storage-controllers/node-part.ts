import { join } from "node:path";

import type { ApiClient } from "../../../src/api/client.ts";
import { createEventRecorder } from "../../../src/api/event-recorder.ts";
import { createInformer } from "../../../src/api/informer.ts";
import { parseStored, type Stored } from "../../../src/api/object.ts";
import { NODES } from "../../../src/api/resources.ts";
import type { Node } from "../../../src/api/types.gen.ts";
import type { LocalVolumeStep } from "../../../src/kubelet/local-volumes/data-directories.ts";
import {
  LocalVolumes,
  type LocalVolumesOptions,
} from "../../../src/kubelet/local-volumes/local-volumes.ts";
import { systemMounter } from "../../../src/kubelet/volumes/mounter.ts";
import { removeTree } from "../../../src/kubelet/volumes/remove-tree.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { World } from "../controlplane-controllers/world.ts";

export interface NodePart {
  stop(): Promise<void>;
}

/** The node's half of local volumes for node n1, as the agent runs it. */
export function startNodePart(options: {
  readonly world: World;
  readonly client: ApiClient;
  readonly directory: string;
  readonly step?: (name: LocalVolumeStep) => void | Promise<void>;
  readonly mounter?: LocalVolumesOptions["mounter"];
  readonly runProgram?: LocalVolumesOptions["runProgram"];
}): NodePart {
  const { world, client, directory, step, runProgram } = options;
  const abort = new AbortController();
  const shared = { client, clock: systemClock, logger: silentLogger, random: Math.random };
  const nodes = createInformer<Stored<Node>>({
    ...shared,
    resource: NODES,
    fieldSelector: "metadata.name=n1",
    project: (object) => parseStored<Node>(object),
  });
  const events = createEventRecorder({
    ...shared,
    client: world.client,
    component: "kubelet",
    host: "n1",
    patience: { quietMs: 0, maxMs: 0 },
  });
  const volumes = new LocalVolumes({
    ...shared,
    nodeName: "n1",
    directory: join(directory, "volumes"),
    rootDir: join(directory, "kubelet"),
    recordsDir: join(directory, "records"),
    node: {
      node: () => nodes.get("n1"),
      hostIPs: () => [],
      subscribe: (listener) => nodes.subscribe(listener),
    },
    events,
    mounter: options.mounter ?? systemMounter,
    removeTree,
    ...(step === undefined ? {} : { step }),
    ...(runProgram === undefined ? {} : { runProgram }),
  });
  const { signal } = abort;
  const running = Promise.all([nodes.run(signal), events.run(signal), volumes.run(signal)]);
  return {
    stop: async () => {
      abort.abort();
      await running;
    },
  };
}
