import type { Clock } from "../../lib/clock.ts";
import { isAbort } from "../../lib/errors.ts";
import type { ContainerRuntime, ImageService } from "../../runtime/types.ts";
import type { PodInventory } from "./pod-inventory.ts";
import type { ContainerType, RuntimeMetrics } from "./runtime-metrics.ts";

export interface MeasuredRuntimeOptions {
  readonly runtime: ContainerRuntime & ImageService;
  readonly inventory: PodInventory;
  readonly metrics: RuntimeMetrics;
  /** What a container is to its pod. */
  readonly typeOf: (podUID: string, container: string) => ContainerType;
  readonly clock: Clock;
}

/** Upstream's name of why a start failed. */
const createError = "CreateContainerError";
const runError = "RunContainerError";

/**
 * The same runtime, whose calls are counted and timed, and whose answers about pods are kept for readers of figures.
 * Nothing else about it changes.
 */
export function measuredRuntime(options: MeasuredRuntimeOptions): ContainerRuntime & ImageService {
  const { clock, inventory, metrics, runtime, typeOf } = options;
  /** Containers that were made and not started yet. */
  const made = new Map<string, ContainerType>();

  async function timed<T>(
    type: string,
    call: () => Promise<T>,
    then?: (seconds: number, failed: boolean) => void,
  ): Promise<T> {
    const startedAt = clock.monotonic();
    let failed = false;
    try {
      return await call();
    } catch (error) {
      // Who gives up waiting has not seen the engine fail.
      failed = !isAbort(error);
      throw error;
    } finally {
      const seconds = (clock.monotonic() - startedAt) / 1000;
      metrics.operation(type, seconds, failed);
      then?.(seconds, failed);
    }
  }

  return {
    ...runtime,
    connect: (signal) => timed("version", () => runtime.connect(signal)),
    ping: (signal) => timed("status", () => runtime.ping(signal)),
    snapshot: (signal) =>
      timed(
        "list_containers",
        async () => {
          const look = inventory.begin();
          const records = await runtime.snapshot(signal);
          inventory.takeAll(records, look);
          return records;
        },
        (seconds, failed) => {
          if (!failed) metrics.relisted(seconds, clock.now());
        },
      ),
    podRecord: (uid, signal) =>
      timed(
        "podsandbox_status",
        async () => {
          const look = inventory.begin();
          const record = await runtime.podRecord(uid, signal);
          inventory.takeOne(record, look);
          return record;
        },
        (seconds) => metrics.podRelisted(seconds),
      ),
    runPodSandbox: (config, signal) =>
      timed(
        "run_podsandbox",
        () => runtime.runPodSandbox(config, signal),
        (seconds, failed) => metrics.sandboxRun(config.runtimeHandler, seconds, failed),
      ),
    stopPodSandbox: async (id, signal) => {
      await timed("stop_podsandbox", () => runtime.stopPodSandbox(id, signal));
      inventory.dropSandbox(id);
    },
    removePodSandbox: async (id, signal) => {
      await timed("remove_podsandbox", () => runtime.removePodSandbox(id, signal));
      inventory.dropSandbox(id);
    },
    createContainer: async (sandbox, config, signal) => {
      const type = typeOf(sandbox.metadata.uid, config.name);
      const created = await timed(
        "create_container",
        () => runtime.createContainer(sandbox, config, signal),
        (_, failed) => {
          if (failed) metrics.containerStarted(type, createError);
        },
      );
      made.set(created.id, type);
      return created;
    },
    startContainer: (id, signal) =>
      timed(
        "start_container",
        () => runtime.startContainer(id, signal),
        (_, failed) => {
          metrics.containerStarted(made.get(id) ?? "container", failed ? runError : undefined);
          made.delete(id);
        },
      ),
    stopContainer: (id, grace, signal) =>
      timed("stop_container", () => runtime.stopContainer(id, grace, signal)),
    removeContainer: async (id, signal) => {
      made.delete(id);
      await timed("remove_container", () => runtime.removeContainer(id, signal));
      inventory.dropContainer(id);
    },
    updateContainer: (id, limits, signal) =>
      timed("update_container", () => runtime.updateContainer(id, limits, signal)),
    containerLogPath: (id, signal) =>
      timed("container_status", () => runtime.containerLogPath(id, signal)),
    execSync: (id, command, limits, signal) =>
      timed("exec_sync", () => runtime.execSync(id, command, limits, signal)),
    exec: (id, what, signal) => timed("exec", () => runtime.exec(id, what, signal)),
    attach: (id, what, signal) => timed("attach", () => runtime.attach(id, what, signal)),
    listImages: (signal) => timed("list_images", () => runtime.listImages(signal)),
    imageStatus: (reference, signal) =>
      timed("image_status", () => runtime.imageStatus(reference, signal)),
    pullImage: async (reference, pull, signal) => {
      const fromMs = clock.now();
      const image = await timed("pull_image", () => runtime.pullImage(reference, pull, signal));
      metrics.imagePulled({ reference, fromMs, toMs: clock.now() }, image.sizeBytes);
      return image;
    },
    removeImage: (id, signal) => timed("remove_image", () => runtime.removeImage(id, signal)),
  };
}
