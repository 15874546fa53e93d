import { isForbidden } from "../../../api/errors.ts";
import type { Stored } from "../../../api/object.ts";
import { ENDPOINTS } from "../../../api/resources.ts";
import type { Endpoints, EndpointSubset } from "../../../api/types.gen.ts";
import { errorMessage } from "../../../lib/errors.ts";
import type { NamespaceIndex } from "../shared/by-namespace.ts";
import { indexByNamespace } from "../shared/by-namespace.ts";
import { createObject, deleteObject } from "../../../api/objects.ts";
import { replaceObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { eventTarget, runQueueLoop, splitKey } from "../shared/controller.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { SERVICES } from "../../../api/resources.ts";
import { wakeServicesOfPods } from "./service-waker.ts";
import type { StoredService } from "./service-endpoints.ts";
import {
  copiedLabels,
  headlessLabel,
  isHeadless,
  isManagedService,
  selectsPod,
  TriggerTimes,
  triggerTimeAnnotation,
} from "./service-endpoints.ts";
import { computeSubsets, truncateSubsets } from "./subsets.ts";

const capacityAnnotation = "endpoints.kubernetes.io/over-capacity";
const managedByLabel = "endpoints.kubernetes.io/managed-by";

/** The Endpoints object of one Service, or undefined when `current` is already right. */
export function planEndpoints(
  service: StoredService,
  pods: readonly StoredPod[],
  current: Stored<Endpoints> | undefined,
  triggeredAt: number | undefined,
): Endpoints | undefined {
  const { subsets, truncated } = truncateSubsets(computeSubsets(service, pods));
  const labels: Record<string, string> = {
    ...copiedLabels(service),
    [managedByLabel]: "endpoint-controller",
  };
  if (isHeadless(service)) labels[headlessLabel] = "";
  const annotations = { ...current?.metadata.annotations };
  const wasTruncated = annotations[capacityAnnotation] === "truncated";
  if (
    current !== undefined &&
    sameSubsets(current.subsets ?? [], subsets) &&
    sameMap(current.metadata.labels ?? {}, labels) &&
    wasTruncated === truncated
  ) {
    return undefined;
  }
  delete annotations[capacityAnnotation];
  delete annotations[triggerTimeAnnotation];
  if (truncated) annotations[capacityAnnotation] = "truncated";
  if (triggeredAt !== undefined)
    annotations[triggerTimeAnnotation] = new Date(triggeredAt).toISOString().replace(".000Z", "Z");
  const { namespace, name } = service.metadata;
  return {
    metadata: {
      ...(current?.metadata ?? { namespace, name }),
      labels,
      ...(Object.keys(annotations).length === 0 ? { annotations: undefined } : { annotations }),
    },
    subsets: [...subsets],
  };
}

function sameMap(
  left: Readonly<Record<string, string>>,
  right: Readonly<Record<string, string>>,
): boolean {
  const keys = Object.keys(left);
  return keys.length === Object.keys(right).length && keys.every((key) => left[key] === right[key]);
}

/** Compares as sets; a pod's resourceVersion in targetRef does not count. */
function sameSubsets(left: readonly EndpointSubset[], right: readonly EndpointSubset[]): boolean {
  return normalForm(left) === normalForm(right);
}

function addressForms(list: EndpointSubset["addresses"]): readonly string[] {
  return (list ?? [])
    .map((each) =>
      JSON.stringify([each.ip, each.hostname, each.nodeName, each.targetRef?.uid ?? null]),
    )
    .toSorted();
}

function normalForm(subsets: readonly EndpointSubset[]): string {
  return subsets
    .map((each) =>
      JSON.stringify([
        addressForms(each.addresses),
        addressForms(each.notReadyAddresses),
        (each.ports ?? [])
          .map((port) =>
            JSON.stringify([port.name, port.port, port.protocol, port.appProtocol ?? null]),
          )
          .toSorted(),
      ]),
    )
    .toSorted()
    .join("\n");
}

/** Keeps the v1 Endpoints of every Service with a selector. */
export function endpointsController(context: ControllerContext): Controller {
  const { informers, client, recorder } = context;
  const triggers = new TriggerTimes();
  let pods: NamespaceIndex<StoredPod> | undefined;

  async function sync(key: string, signal: AbortSignal): Promise<void> {
    const service = informers.services.get(key);
    const current = informers.endpoints.get(key);
    const { namespace, name } = splitKey(key);
    const target = { resource: ENDPOINTS, namespace, name };
    if (service === undefined) {
      triggers.forget(key);
      // Endpoints somebody keeps by hand (leader election of old clients) are not ours to remove.
      if (current !== undefined && current.metadata.labels?.[managedByLabel] !== undefined)
        await deleteObject(client, ENDPOINTS, target, { uid: current.metadata.uid, signal });
      return;
    }
    if (!isManagedService(service)) return;
    const selected = [...(pods?.in(namespace) ?? [])].filter((pod) => selectsPod(service, pod));
    const triggeredAt = triggers.next(key, service, selected);
    const wanted = planEndpoints(service, selected, current, triggeredAt);
    if (wanted === undefined) return;
    try {
      if (current === undefined) await createObject(client, ENDPOINTS, wanted, { signal });
      else {
        await replaceObject(client, target, wanted, signal);
      }
    } catch (error) {
      // A namespace that is being terminated takes no new objects.
      if (current === undefined && isForbidden(error)) return;
      if (!signal.aborted) {
        const verb = current === undefined ? "create" : "update";
        recorder.event(
          eventTarget(SERVICES, service),
          "Warning",
          current === undefined ? "FailedToCreateEndpoint" : "FailedToUpdateEndpoint",
          `Failed to ${verb} endpoint ${namespace}/${name}: ${errorMessage(error)}`,
        );
      }
      throw error;
    }
  }

  return {
    name: "endpoints",
    run: async (signal) => {
      await runQueueLoop(
        {
          name: "endpoints",
          context,
          waitFor: [informers.pods, informers.services, informers.endpoints],
          sync: async (key) => sync(key, signal),
          subscribe: (queue) => {
            const index = indexByNamespace(informers.pods);
            pods = index;
            return [
              () => index.close(),
              informers.services.subscribe(({ key }) => queue.add(key)),
              // Somebody else changed or removed what we wrote.
              informers.endpoints.subscribe(({ key }) => queue.add(key)),
              wakeServicesOfPods(informers, queue),
            ];
          },
        },
        signal,
      );
    },
  };
}
