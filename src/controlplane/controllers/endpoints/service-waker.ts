import type { Informer } from "../../../api/informer-types.ts";
import { keyOf } from "../../../api/object.ts";
import type { KeyedQueue } from "../../../lib/keyed-queue.ts";
import { indexByNamespace } from "../shared/by-namespace.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { isPodReady, isPodTerminal, isTerminating } from "../shared/pod-state.ts";
import type { StoredService } from "./service-endpoints.ts";
import { selectsPod } from "./service-endpoints.ts";

/** What of a pod can change its endpoints; status heartbeats and annotations do not. */
function relevant(pod: StoredPod): string {
  return JSON.stringify([
    pod.metadata.labels,
    pod.metadata.uid,
    pod.status?.podIP,
    pod.status?.podIPs,
    pod.spec?.nodeName,
    isPodReady(pod),
    isPodTerminal(pod),
    isTerminating(pod),
  ]);
}

/** Wakes the Services whose endpoints a pod's change may alter. Returns the function that ends it. */
export function wakeServicesOfPods(
  informers: { readonly pods: Informer<StoredPod>; readonly services: Informer<StoredService> },
  queue: KeyedQueue,
): () => void {
  const services = indexByNamespace(informers.services);
  const wake = (pod: StoredPod): void => {
    for (const service of services.in(pod.metadata.namespace ?? ""))
      if (selectsPod(service, pod)) queue.add(keyOf(service));
  };
  const end = informers.pods.subscribe((change) => {
    if (change.kind === "updated") {
      if (relevant(change.object) === relevant(change.previous)) return;
      wake(change.previous);
    }
    wake(change.kind === "deleted" ? change.previous : change.object);
  });
  return () => {
    end();
    services.close();
  };
}
