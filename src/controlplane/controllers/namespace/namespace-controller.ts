import type { ApiClient } from "../../../api/client.ts";
import { isNotFound } from "../../../api/errors.ts";
import { listPages } from "../../../api/list-pages.ts";
import type { Stored } from "../../../api/object.ts";
import { parseStored } from "../../../api/object.ts";
import { deleteObject } from "../../../api/objects.ts";
import { collectionPath } from "../../../api/resource.ts";
import { NAMESPACES } from "../../../api/resources.ts";
import type { Namespace } from "../../../api/types.gen.ts";
import { errorMessage } from "../../../lib/errors.ts";
import type { KeyedQueue } from "../../../lib/keyed-queue.ts";
import { findObject, replaceObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { runQueueLoop } from "../shared/controller.ts";
import type { ServedResource } from "../shared/discovery.ts";
import { discoverResources, groupResource } from "../shared/discovery.ts";
import { timeMs } from "../shared/pod-state.ts";
import type { Leftovers } from "./conditions.ts";
import { isEmpty, namespaceConditions } from "./conditions.ts";

const kubernetesFinalizer = "kubernetes";
/** Wait between two looks at content that is on its way out. */
const recheckMs = 1_000;
const slowRecheckMs = 5_000;
/**
 * How long a namespace stays visible as Terminating, from its deletionTimestamp (whole seconds). Its content goes at
 * once; scripts that delete without waiting and then look expect the phase and the conditions to be there.
 */
const visibleMs = 3_000;

interface Content {
  readonly resource: ServedResource;
  readonly objects: readonly Stored<unknown>[];
}

async function listContent(
  client: ApiClient,
  resource: ServedResource,
  namespace: string,
  signal: AbortSignal,
): Promise<Content> {
  const path = collectionPath(resource, namespace);
  const objects: Stored<unknown>[] = [];
  for await (const page of listPages(client, path, {}, signal)) {
    if (page.restart) objects.length = 0;
    for (const item of page.items) objects.push(parseStored<unknown>(item));
  }
  return { resource, objects };
}

/** Empties a namespace that is being deleted, says what still holds it, and lets it go. */
export function namespaceController(context: ControllerContext): Controller {
  const { informers, client, clock } = context;

  async function sync(name: string, queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    if (informers.namespaces.get(name)?.metadata.deletionTimestamp === undefined) return;
    const namespace = await findObject(client, { resource: NAMESPACES, name }, signal);
    if (namespace?.metadata.deletionTimestamp === undefined) return;
    if (!(namespace.spec?.finalizers ?? []).includes(kubernetesFinalizer)) return;
    const left = await deleteContent(name, signal);
    const written = await writeStatus(namespace, left, signal);
    const since = clock.now() - (timeMs(namespace.metadata.deletionTimestamp) ?? clock.now());
    if (!isEmpty(left)) {
      queue.addAfter(name, since < 30_000 ? recheckMs : slowRecheckMs);
      return;
    }
    if (since < visibleMs) {
      queue.addAfter(name, visibleMs - since);
      return;
    }
    await finalize(written, signal);
  }

  async function deleteContent(namespace: string, signal: AbortSignal): Promise<Leftovers> {
    let served: readonly ServedResource[];
    try {
      served = await discoverResources(client, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      return {
        discoveryFailure: errorMessage(error),
        contentFailures: [],
        remaining: [],
        finalizers: [],
      };
    }
    const deletable = served.filter(
      ({ namespaced, verbs }) => namespaced && verbs.has("list") && verbs.has("delete"),
    );
    const contentFailures: string[] = [];
    const remaining: { readonly resource: string; readonly count: number }[] = [];
    const finalizers: string[] = [];
    for (const resource of deletable) {
      try {
        const left = await deleteResource(resource, namespace, signal);
        if (left.objects.length === 0) continue;
        remaining.push({ resource: groupResource(resource), count: left.objects.length });
        for (const { metadata } of left.objects) finalizers.push(...(metadata.finalizers ?? []));
      } catch (error) {
        if (signal.aborted) throw error;
        // One resource that cannot be emptied must not keep the others.
        contentFailures.push(`${groupResource(resource)}: ${errorMessage(error)}`);
      }
    }
    return { discoveryFailure: undefined, contentFailures, remaining, finalizers };
  }

  async function deleteResource(
    resource: ServedResource,
    namespace: string,
    signal: AbortSignal,
  ): Promise<Content> {
    const before = await listContent(client, resource, namespace, signal);
    const doomed = before.objects.filter(
      ({ metadata }) => metadata.deletionTimestamp === undefined,
    );
    if (doomed.length === 0) return before;
    if (resource.verbs.has("deletecollection")) {
      await client.request({
        method: "DELETE",
        path: collectionPath(resource, namespace),
        body: { apiVersion: "v1", kind: "DeleteOptions", propagationPolicy: "Background" },
        signal,
      });
    } else {
      for (const { metadata } of doomed) {
        await deleteObject(client, resource, metadata, {
          uid: metadata.uid,
          propagationPolicy: "Background",
          signal,
        });
      }
    }
    return listContent(client, resource, namespace, signal);
  }

  async function writeStatus(
    namespace: Stored<Namespace>,
    left: Leftovers,
    signal: AbortSignal,
  ): Promise<Stored<Namespace>> {
    const current = namespace.status?.conditions ?? [];
    const conditions = namespaceConditions(current, left, clock.now());
    if (conditions === undefined) return namespace;
    try {
      return await replaceObject(
        client,
        { resource: NAMESPACES, name: namespace.metadata.name, subresource: "status" },
        { ...namespace, status: { ...namespace.status, phase: "Terminating", conditions } },
        signal,
      );
    } catch (error) {
      if (isNotFound(error)) return namespace;
      throw error;
    }
  }

  async function finalize(namespace: Stored<Namespace>, signal: AbortSignal): Promise<void> {
    const finalizers = (namespace.spec?.finalizers ?? []).filter(
      (each) => each !== kubernetesFinalizer,
    );
    try {
      await client.request({
        method: "PUT",
        path: `/api/v1/namespaces/${encodeURIComponent(namespace.metadata.name)}/finalize`,
        body: {
          ...namespace,
          apiVersion: "v1",
          kind: "Namespace",
          spec: { ...namespace.spec, finalizers },
        },
        signal,
      });
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }

  return {
    name: "namespace",
    run: (signal) =>
      runQueueLoop(
        {
          name: "namespace",
          context,
          waitFor: [informers.namespaces, informers.pods],
          sync: (name, queue) => sync(name, queue, signal),
          subscribe: (queue) => [
            informers.namespaces.subscribe((change) => {
              if (change.kind === "deleted") return;
              if (change.object.metadata.deletionTimestamp !== undefined) queue.add(change.key);
            }),
            // Pods are what a namespace waits for most; the look every second is for the rest.
            informers.pods.subscribe((change) => {
              if (change.kind !== "deleted") return;
              const name = change.previous.metadata.namespace ?? "";
              const deleted = informers.namespaces.get(name)?.metadata.deletionTimestamp;
              if (deleted !== undefined) queue.add(name);
            }),
          ],
        },
        signal,
      ),
  };
}
