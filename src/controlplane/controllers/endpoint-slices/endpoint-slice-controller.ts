import { isForbidden } from "../../../api/errors.ts";
import { objectKey } from "../../../api/object.ts";
import { ENDPOINT_SLICES, SERVICES } from "../../../api/resources.ts";
import { errorMessage } from "../../../lib/errors.ts";
import type { KeyedQueue } from "../../../lib/keyed-queue.ts";
import { isManagedService, selectsPod, TriggerTimes } from "../endpoints/service-endpoints.ts";
import { wakeServicesOfPods } from "../endpoints/service-waker.ts";
import type { NamespaceIndex } from "../shared/by-namespace.ts";
import { indexByNamespace } from "../shared/by-namespace.ts";
import { createObject, deleteObject } from "../../../api/objects.ts";
import { replaceObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { eventTarget, runQueueLoop, splitKey } from "../shared/controller.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import type { SlicePlan, StoredSlice } from "./plan.ts";
import { managedByLabel, managerName, planSlices, serviceNameLabel } from "./plan.ts";

/** How long a write may stay unseen by the cache before it is no longer waited for. */
const staleCacheMs = 5_000;

/** Versions that we wrote and that the cache must have shown before it may be planned upon. */
class PendingWrites {
  readonly #byService = new Map<
    string,
    { readonly versions: Set<string>; readonly until: number }
  >();

  expect(key: string, versions: readonly string[], until: number): void {
    if (versions.length > 0) this.#byService.set(key, { versions: new Set(versions), until });
  }

  observe(key: string, version: string): void {
    this.#byService.get(key)?.versions.delete(version);
  }

  settled(key: string, now: number): boolean {
    const pending = this.#byService.get(key);
    if (pending === undefined) return true;
    if (pending.versions.size > 0 && now < pending.until) return false;
    this.#byService.delete(key);
    return true;
  }
}

function versionOf(slice: {
  readonly metadata: { readonly uid: string; readonly resourceVersion: string };
}): string {
  return `${slice.metadata.uid}@${slice.metadata.resourceVersion}`;
}

/** Key of the Service that the slice belongs to; undefined for slices of other makers. */
function serviceKey(slice: StoredSlice): string | undefined {
  const labels = slice.metadata.labels;
  const service = labels?.[serviceNameLabel];
  if (service === undefined || labels?.[managedByLabel] !== managerName) return undefined;
  return objectKey(slice.metadata.namespace, service);
}

/** Keeps the EndpointSlices of every Service with a selector. */
export function endpointSliceController(context: ControllerContext): Controller {
  const { informers, client, clock, recorder } = context;
  const triggers = new TriggerTimes();
  const pending = new PendingWrites();
  let pods: NamespaceIndex<StoredPod> | undefined;
  let slices: NamespaceIndex<StoredSlice> | undefined;

  async function sync(key: string, queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const { namespace } = splitKey(key);
    const existing = [...(slices?.in(namespace) ?? [])].filter((each) => serviceKey(each) === key);
    const service = informers.services.get(key);
    if (service === undefined) {
      triggers.forget(key);
      // Without this they would wait for the garbage collector while consumers still use them.
      for (const slice of existing) await remove(slice, signal);
      return;
    }
    if (!isManagedService(service)) return;
    if (!pending.settled(key, clock.monotonic())) {
      queue.addAfter(key, 50);
      return;
    }
    const selected = [...(pods?.in(namespace) ?? [])].filter((pod) => selectsPod(service, pod));
    const plan = planSlices({
      service,
      pods: selected,
      existing,
      node: (name) => informers.nodes.get(name),
      triggeredAt: triggers.next(key, service, selected),
    });
    try {
      await apply(key, plan, signal);
    } catch (error) {
      if (existing.length === 0 && isForbidden(error)) return;
      if (!signal.aborted) {
        recorder.event(
          eventTarget(SERVICES, service),
          "Warning",
          "FailedToUpdateEndpointSlices",
          `Error updating Endpoint Slices for Service ${key}: ${errorMessage(error)}`,
        );
      }
      throw error;
    }
  }

  async function apply(key: string, plan: SlicePlan, signal: AbortSignal): Promise<void> {
    const versions: string[] = [];
    try {
      for (const slice of plan.create)
        versions.push(versionOf(await createObject(client, ENDPOINT_SLICES, slice, { signal })));
      for (const slice of plan.update) {
        const { namespace, name } = slice.metadata ?? {};
        versions.push(
          versionOf(
            await replaceObject(
              client,
              { resource: ENDPOINT_SLICES, namespace, name: name ?? "" },
              slice,
              signal,
            ),
          ),
        );
      }
    } finally {
      const seen = new Set([...informers.endpointSlices.values()].map((each) => versionOf(each)));
      pending.expect(
        key,
        versions.filter((version) => !seen.has(version)),
        clock.monotonic() + staleCacheMs,
      );
    }
    for (const slice of plan.remove) await remove(slice, signal);
  }

  async function remove(slice: StoredSlice, signal: AbortSignal): Promise<void> {
    const { namespace, name, uid } = slice.metadata;
    await deleteObject(client, ENDPOINT_SLICES, { namespace, name }, { uid, signal });
  }

  function subscribe(queue: KeyedQueue): readonly (() => void)[] {
    const podIndex = indexByNamespace(informers.pods);
    const sliceIndex = indexByNamespace(informers.endpointSlices);
    pods = podIndex;
    slices = sliceIndex;
    return [
      () => podIndex.close(),
      () => sliceIndex.close(),
      informers.services.subscribe(({ key }) => queue.add(key)),
      informers.endpointSlices.subscribe((change) => {
        const slice = change.kind === "deleted" ? change.previous : change.object;
        const key = serviceKey(slice);
        if (key !== undefined) {
          pending.observe(key, versionOf(slice));
          queue.add(key);
        }
        const before = change.kind === "updated" ? serviceKey(change.previous) : undefined;
        if (before !== undefined && before !== key) queue.add(before);
      }),
      informers.nodes.subscribe((change) => {
        const zone = "topology.kubernetes.io/zone";
        if (
          change.kind === "updated" &&
          change.object.metadata.labels?.[zone] === change.previous.metadata.labels?.[zone]
        ) {
          return;
        }
        // Zones and unknown nodes alter what is published; both are rare.
        for (const service of informers.services.values())
          queue.add(objectKey(service.metadata.namespace, service.metadata.name));
      }),
      wakeServicesOfPods(informers, queue),
    ];
  }

  return {
    name: "endpointslice",
    run: async (signal) => {
      await runQueueLoop(
        {
          name: "endpointslice",
          context,
          waitFor: [informers.pods, informers.services, informers.endpointSlices, informers.nodes],
          sync: async (key, queue) => sync(key, queue, signal),
          subscribe,
        },
        signal,
      );
    },
  };
}
