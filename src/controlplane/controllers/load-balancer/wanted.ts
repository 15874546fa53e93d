import type { StoredService } from "../endpoints/service-endpoints.ts";

/** On a Service: somebody has given it addresses and must take them back before it goes. */
export const cleanupFinalizer = "service.kubernetes.io/load-balancer-cleanup";

/** `spec.loadBalancerClass` that asks for the addresses of nodes by name; none at all asks for them, too. */
export const nodeClass = "remora.io/node";

/** Whether the Service is to have addresses of nodes. Other classes belong to other controllers. */
export function wantsNodeAddresses({ metadata, spec }: StoredService): boolean {
  const { loadBalancerClass } = spec ?? {};
  return (
    spec?.type === "LoadBalancer" &&
    metadata.deletionTimestamp === undefined &&
    (loadBalancerClass === undefined || loadBalancerClass === nodeClass)
  );
}

export function hasFinalizer({ metadata }: StoredService): boolean {
  return metadata.finalizers?.includes(cleanupFinalizer) === true;
}

/** Whether addresses that were given must be taken back. */
export function needsCleanup(service: StoredService): boolean {
  const { spec } = service;
  if (!hasFinalizer(service) || wantsNodeAddresses(service)) return false;
  // Controllers of other classes use the same finalizer, and remove it themselves.
  const { loadBalancerClass = nodeClass } = spec ?? {};
  return spec?.type !== "LoadBalancer" || loadBalancerClass === nodeClass;
}
