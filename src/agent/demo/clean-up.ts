import type { ApiClient } from "../../api/client.ts";
import { isNotFound } from "../../api/errors.ts";
import { getObject, listObjects } from "../../api/objects.ts";
import type { Resource } from "../../api/resource.ts";
import {
  DEPLOYMENTS,
  ENDPOINT_SLICES,
  NAMESPACES,
  PODS,
  REPLICA_SETS,
  SERVICES,
} from "../../api/resources.ts";
import { type Clock, deadline } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import type { ClusterTool } from "./cluster-tool.ts";
import type { DemoEngine } from "./engine.ts";

/** On the demo's namespace, so that a later demo knows what one that was killed left behind. */
export const demoMark = { "made-by": "remora-demo" } as const;

export interface Leftovers {
  readonly tool: ClusterTool;
  readonly client: ApiClient;
  readonly engine: DemoEngine;
  readonly clock: Clock;
  readonly namespace: string;
  /** The file that was created. */
  readonly manifest: string;
  /** Image names to take away: those that were not there before. */
  readonly images: readonly string[];
}

const containersMs = 30_000;
const kinds: readonly Resource<unknown>[] = [
  DEPLOYMENTS,
  REPLICA_SETS,
  PODS,
  SERVICES,
  ENDPOINT_SLICES,
];

/** Whether the demo's namespace is there, and whether a demo made it. */
export async function findNamespace(
  client: ApiClient,
  namespace: string,
  signal: AbortSignal,
): Promise<"none" | "ours" | "foreign"> {
  try {
    const { metadata } = await getObject(client, NAMESPACES, { name: namespace }, { signal });
    return metadata.labels?.["made-by"] === demoMark["made-by"] ? "ours" : "foreign";
  } catch (error) {
    if (isNotFound(error)) return "none";
    throw error;
  }
}

function containersOf({ engine, namespace }: Leftovers, signal: AbortSignal) {
  return engine.containers(`io.kubernetes.pod.namespace=${namespace}`, signal);
}

/** Containers go behind the objects: the node has to end and remove them first. */
async function waitForContainers(leftovers: Leftovers, signal: AbortSignal): Promise<void> {
  const limited = deadline(signal, containersMs);
  while ((await containersOf(leftovers, limited)).length > 0) {
    await leftovers.clock.sleep(150, limited);
  }
}

/**
 * Everything of the demo that is still there, one line each. Looks at cluster and engine, never at what was done.
 *
 * @throws when one of them does not answer.
 */
export async function leftOver(
  leftovers: Leftovers,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const { client, engine, namespace, images } = leftovers;
  const found: string[] = [];
  if ((await findNamespace(client, namespace, signal)) !== "none") {
    found.push(`namespace/${namespace}`);
  }
  for (const resource of kinds) {
    const { items } = await listObjects(client, resource, { namespace, signal });
    found.push(...items.map(({ metadata }) => `${resource.plural}/${metadata.name}`));
  }
  for (const { name } of await containersOf(leftovers, signal)) found.push(`container ${name}`);
  for (const image of images) {
    if ((await engine.imageSize(image, signal)) !== undefined) found.push(`image ${image}`);
  }
  return found;
}

/**
 * Removes what the demo made, whatever there is of it, and looks again. A step that fails does not keep the next from
 * being tried.
 *
 * @param warn Told of each step that failed.
 * @returns what is left, as {@link leftOver}.
 */
export async function cleanUp(
  leftovers: Leftovers,
  warn: (problem: string) => void,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const { tool, client, engine, namespace, manifest, images } = leftovers;
  const attempt = async (work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      if (signal.aborted) throw error;
      warn(isAbort(error) ? "it took too long" : errorMessage(error));
    }
  };
  if ((await findNamespace(client, namespace, signal)) === "ours") {
    await attempt(() => tool.delete(manifest, signal));
    await attempt(() => tool.deleteNamespace(signal));
  }
  await attempt(() => waitForContainers(leftovers, signal));
  for (const image of images) {
    await attempt(async () => {
      if (!(await engine.removeImage(image, signal))) warn(`${image} is in use; it stays`);
    });
  }
  return leftOver(leftovers, signal);
}
