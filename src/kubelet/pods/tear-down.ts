import { deleteObject } from "../../api/objects.ts";
import { isConflict } from "../../api/errors.ts";
import { PODS } from "../../api/resources.ts";
import type { PodRecord } from "../../runtime/types.ts";
import { parseSandboxNote } from "../spec/records.ts";
import type { AssignedPod } from "../types.ts";
import type { PodDeps } from "./pod-deps.ts";

/**
 * Takes down what a stopped pod still occupies: network, sandbox process, volumes, cgroup. Its dead containers stay,
 * for their logs and exit codes. Every step may be repeated.
 */
export async function tearDownPod(
  deps: PodDeps,
  record: PodRecord,
  signal: AbortSignal,
): Promise<void> {
  const { cgroups, network, runtime, step, volumes } = deps;
  for (const sandbox of record.sandboxes) {
    await step("tearDownNetwork");
    await network.tearDown(sandbox.id, signal);
    if (sandbox.ready) {
      await step("stopPodSandbox");
      await runtime.stopPodSandbox(sandbox.id, signal);
    }
  }
  await step("tearDownVolume");
  await volumes.tearDown(record.uid, signal);
  const paths = record.sandboxes.map((sandbox) => parseSandboxNote(sandbox.record).cgroupPath);
  await cgroups.remove(record.uid, paths);
}

/** Removes what is left of a pod that was torn down: containers, sandboxes, directories. */
export async function removePod(
  deps: PodDeps,
  record: PodRecord,
  signal: AbortSignal,
): Promise<void> {
  const { runtime, step, volumes } = deps;
  for (const container of record.containers) {
    await step("removeContainer");
    await runtime.removeContainer(container.id, signal);
  }
  for (const sandbox of record.sandboxes) {
    await step("removePodSandbox");
    await runtime.removePodSandbox(sandbox.id, signal);
  }
  await step("removePodDirectories");
  await volumes.removeDirectories(record.uid, signal);
}

/** Lets the API server forget the pod. Call once its terminal status is there. Gone already is success. */
export async function deletePodObject(
  deps: PodDeps,
  pod: AssignedPod,
  signal: AbortSignal,
): Promise<void> {
  const { name, namespace, uid } = pod.metadata;
  await deps.step("deletePodObject");
  try {
    await deleteObject(
      deps.client,
      PODS,
      { namespace, name },
      { gracePeriodSeconds: 0, uid, signal },
    );
  } catch (error) {
    // Conflict: the name belongs to another uid by now.
    if (!isConflict(error)) throw error;
  }
}
