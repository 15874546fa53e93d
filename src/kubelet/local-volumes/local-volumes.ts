import { readdir } from "node:fs/promises";

import { mayDo } from "../../api/access-review.ts";
import type { ApiClient } from "../../api/client.ts";
import { isConflict, isNotFound } from "../../api/errors.ts";
import type { EventRecorder, EventTarget } from "../../api/event-types.ts";
import { createInformer } from "../../api/informer.ts";
import type { Informer } from "../../api/informer-types.ts";
import { isLocalVolume, localVolumes } from "../../api/local-volumes.ts";
import { parseStored, type Stored } from "../../api/object.ts";
import { patchObject } from "../../api/objects.ts";
import { NODES, PERSISTENT_VOLUMES } from "../../api/resources.ts";
import type { PersistentVolume } from "../../api/types.gen.ts";
import { jitteredBackoffMs } from "../../lib/backoff.ts";
import { type Clock, within } from "../../lib/clock.ts";
import { errorCode, errorMessage, isAbort } from "../../lib/errors.ts";
import { KeyedQueue } from "../../lib/keyed-queue.ts";
import type { Logger } from "../../lib/log.ts";
import type { NodeView } from "../types.ts";
import {
  DataDirectories,
  DataInUse,
  DataMissing,
  type LocalVolumeStep,
} from "./data-directories.ts";
import { type DataStep, decideData } from "./decide.ts";
import { probeProjectQuota, type QuotaSupport, type RunProgram } from "./project-quota.ts";
import { VolumeRecords } from "./records.ts";
import type { Mounter } from "../volumes/mounter.ts";
import type { RemoveTree } from "../volumes/remove-tree.ts";

export interface LocalVolumesOptions {
  readonly nodeName: string;
  /** Where volumes are kept: one directory for each, directly below. */
  readonly directory: string;
  /** Kubelet root. */
  readonly rootDir: string;
  /** Where it is written down which volumes were made. */
  readonly recordsDir: string;
  /** Identity `system:node:NAME`. */
  readonly client: ApiClient;
  readonly node: NodeView;
  readonly events: EventRecorder;
  readonly mounter: Pick<Mounter, "table">;
  readonly removeTree: RemoveTree;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  readonly step?: (name: LocalVolumeStep) => void | Promise<void>;
  /** Default: the real programs. */
  readonly runProgram?: RunProgram;
}

/** A cluster without our provisioner is asked again this often whether it has got one. */
const askAgainMs = 3_600_000;
const retryLimits = { baseMs: 500, maxMs: 122_000 };
/** How long one look at one volume may take; a removal then goes on at the next one. */
const lookMs = 10 * 60_000;
const concurrency = 4;
/** Tries, half a minute in all, after which a pod that does not let go of a deleted volume is spoken of. */
const patience = 6;

/** What is kept of a volume that is not ours. */
const notOurs = Symbol("not ours");

type Seen = Stored<PersistentVolume> | typeof notOurs;

/**
 * The node's half of local volumes: says where this node keeps them, makes the directory of each that is on this node,
 * and removes the data of one that was deleted before its object goes.
 */
export class LocalVolumes {
  readonly #options: LocalVolumesOptions;
  readonly #logger: Logger;

  constructor(options: LocalVolumesOptions) {
    this.#options = options;
    this.#logger = options.logger;
  }

  /** Ends when `signal` aborts; never rejects for the server's sake. */
  async run(signal: AbortSignal): Promise<void> {
    try {
      await this.#untilServed(signal);
      const { directory, mounter, runProgram } = this.#options;
      const quota = await probeProjectQuota(directory, mounter.table(), signal, runProgram);
      await this.#follow(quota, signal);
    } catch (error) {
      if (!signal.aborted || !isAbort(error)) throw error;
    }
  }

  /** Waits until the cluster lets nodes keep local volumes: one without our control plane never does. */
  async #untilServed(signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#options;
    for (let failures = 0; ;) {
      try {
        if (await this.#isServed(signal)) return;
        failures = 0;
        await clock.sleep(askAgainMs, signal);
      } catch (error) {
        signal.throwIfAborted();
        failures += 1;
        this.#logger.log("debug", "own rights not checked", { error: errorMessage(error) });
        await clock.sleep(jitteredBackoffMs(failures, retryLimits, random), signal);
      }
    }
  }

  async #isServed(signal: AbortSignal): Promise<boolean> {
    const attributes = { verb: "patch", group: "", resource: "persistentvolumes" };
    return (await mayDo(this.#options.client, attributes, { signal })) === true;
  }

  async #follow(quota: QuotaSupport, signal: AbortSignal): Promise<void> {
    const { client, clock, random, node, rootDir, recordsDir, mounter, removeTree } = this.#options;
    const data = new DataDirectories({
      rootDir,
      records: new VolumeRecords(recordsDir),
      quota,
      mounts: () => mounter.table(),
      removeTree,
      step: this.#options.step ?? (() => undefined),
    });
    const volumes = createInformer<Seen>({
      client,
      resource: PERSISTENT_VOLUMES,
      project: (object) => {
        const volume = parseStored<PersistentVolume>(object);
        return isLocalVolume(volume) ? volume : notOurs;
      },
      clock,
      logger: this.#logger,
      random,
    });
    const failures = new Map<string, number>();
    const queue = new KeyedQueue({
      concurrency,
      clock,
      signal,
      work: async (key) => {
        if (key === nodeKey) await this.#announce(quota, signal);
        else await within(signal, lookMs, (limited) => this.#look(volumes.get(key), data, limited));
        failures.delete(key);
      },
      onError: (key, error) => {
        if (signal.aborted) return;
        const count = (failures.get(key) ?? 0) + 1;
        failures.set(key, count);
        this.#report(key === nodeKey ? undefined : volumes.get(key), error, count);
        queue.addAfter(key, jitteredBackoffMs(count, retryLimits, random));
      },
    });
    let hostname: string | undefined;
    const wake = (): void => {
      queue.add(nodeKey);
      const label = node.node()?.metadata.labels?.["kubernetes.io/hostname"];
      if (label === hostname) return;
      hostname = label;
      for (const volume of volumes.values())
        if (volume !== notOurs) queue.add(volume.metadata.name);
    };
    const endNode = node.subscribe(wake);
    const endVolumes = volumes.subscribe((change) => {
      if (change.kind === "deleted") failures.delete(change.key);
      else if (change.object !== notOurs) queue.add(change.key);
    });
    wake();
    const told = this.#tellLeftovers(volumes, signal);
    await volumes.run(signal);
    await told;
    endNode();
    endVolumes();
    await queue.idle();
  }

  /** Data of claims of a former cluster, or of volumes that were let go: nobody's to remove but people's. */
  async #tellLeftovers(
    volumes: Pick<Informer<Seen>, "get" | "whenSynced">,
    signal: AbortSignal,
  ): Promise<void> {
    const { directory } = this.#options;
    try {
      await volumes.whenSynced(signal);
      const names = (await readdir(directory)).filter(
        (name) => !name.startsWith(".") && volumes.get(name.split("_", 1)[0] ?? "") === undefined,
      );
      if (names.length === 0) return;
      this.#logger.log("info", "directories of volumes that the cluster does not have are kept", {
        directory,
        count: names.length,
        names: names.slice(0, 10).join(" "),
      });
    } catch (error) {
      if (signal.aborted || errorCode(error) === "ENOENT") return;
      this.#logger.log("warn", "the directory of volumes cannot be read", {
        directory,
        error: errorMessage(error),
      });
    }
  }

  /** Tells the provisioner where this node keeps volumes, and whether it holds them to their size. */
  async #announce(quota: QuotaSupport, signal: AbortSignal): Promise<void> {
    const { node, client, nodeName, directory } = this.#options;
    const found = node.node();
    if (found === undefined) return;
    const wanted = {
      [localVolumes.directoryAnnotation]: directory,
      [localVolumes.capacityAnnotation]:
        quota.kind === "enforced" ? localVolumes.capacityEnforced : quota.why,
    };
    const { annotations = {} } = found.metadata;
    if (Object.entries(wanted).every(([name, text]) => annotations[name] === text)) return;
    await patchObject(
      client,
      NODES,
      { name: nodeName, patch: { metadata: { annotations: wanted } } },
      { signal, type: "application/merge-patch+json" },
    );
    this.#logger.log("info", "the node keeps local volumes", {
      directory,
      capacity: wanted[localVolumes.capacityAnnotation],
    });
  }

  async #look(seen: Seen | undefined, data: DataDirectories, signal: AbortSignal): Promise<void> {
    const { node, directory } = this.#options;
    const found = node.node();
    if (seen === undefined || seen === notOurs || found === undefined) return;
    const { name, labels } = found.metadata;
    const step = decideData(seen, { name, labels }, directory);
    await this.#doStep(step, seen, { data, signal });
  }

  async #doStep(
    step: DataStep,
    volume: Stored<PersistentVolume>,
    { data, signal }: { readonly data: DataDirectories; readonly signal: AbortSignal },
  ): Promise<void> {
    const { name } = volume.metadata;
    switch (step.kind) {
      case "none":
        return;
      case "foreign":
        this.#tell(
          volume,
          "VolumeNotKept",
          `${step.path} is not below ${this.#options.directory}, where this node keeps local volumes: it is left alone`,
        );
        return;
      case "keep":
        await data.ensure({ name, path: step.path }, step.bytes, signal);
        return;
      case "remove":
        await data.remove({ name, path: step.path }, signal);
        this.#logger.log("info", "data of a deleted volume removed", {
          volume: name,
          path: step.path,
        });
        break;
      case "release":
        await data.forget(name);
        this.#logger.log("info", "data of a deleted volume kept", { volume: name });
    }
    await this.#release(volume, signal);
  }

  /** Takes our finalizer, and with it, as a rule, the object. */
  async #release(volume: Stored<PersistentVolume>, signal: AbortSignal): Promise<void> {
    const { name, uid, resourceVersion, finalizers = [] } = volume.metadata;
    await this.#options.step?.("releaseVolume");
    const kept = finalizers.filter((each) => each !== localVolumes.finalizer);
    try {
      await patchObject(
        this.#options.client,
        PERSISTENT_VOLUMES,
        { name, patch: { metadata: { uid, resourceVersion, finalizers: kept } } },
        { signal, type: "application/merge-patch+json" },
      );
    } catch (error) {
      // Changed or gone meanwhile: its next state wakes us.
      if (!isConflict(error) && !isNotFound(error)) throw error;
    }
  }

  #report(seen: Seen | undefined, error: unknown, count: number): void {
    const message = errorMessage(error);
    if (seen === undefined || seen === notOurs) {
      this.#logger.log(count < 3 ? "debug" : "warn", "local volumes not announced, will retry", {
        error: message,
      });
      return;
    }
    const { name, deletionTimestamp } = seen.metadata;
    // A pod deleted by force is gone from the API before its containers are.
    if (error instanceof DataInUse && count <= patience) {
      this.#logger.log("debug", "data of a deleted volume is still in use", { volume: name });
      return;
    }
    this.#logger.log("warn", "local volume not done, will retry", { volume: name, error: message });
    if (error instanceof DataMissing) this.#tell(seen, "VolumeDataMissing", message);
    else if (deletionTimestamp !== undefined) this.#tell(seen, "VolumeFailedDelete", message);
    else this.#tell(seen, "VolumeNotMade", message);
  }

  /** On the volume, and where people look first: on its claim. */
  #tell(volume: Stored<PersistentVolume>, reason: string, message: string): void {
    const { events } = this.#options;
    events.event(volumeTarget(volume), "Warning", reason, message);
    const { namespace, name, uid } = volume.spec?.claimRef ?? {};
    if (namespace === undefined || name === undefined || uid === undefined) return;
    if (volume.metadata.deletionTimestamp !== undefined) return;
    events.event(
      { kind: "PersistentVolumeClaim", apiVersion: "v1", namespace, name, uid },
      "Warning",
      reason,
      message,
    );
  }
}

/** No volume has such a name. */
const nodeKey = "/node";

function volumeTarget({ metadata }: Stored<PersistentVolume>): EventTarget {
  const { name, uid, resourceVersion } = metadata;
  return { kind: "PersistentVolume", apiVersion: "v1", namespace: "", name, uid, resourceVersion };
}
