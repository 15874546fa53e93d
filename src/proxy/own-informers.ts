import { createInformer, type InformerOptions } from "../api/informer.ts";
import type { Informer } from "../api/informer-types.ts";
import { ENDPOINT_SLICES, SERVICES } from "../api/resources.ts";
import { parseService, parseSlice, type ServiceView, type SliceView } from "./parse.ts";

/** What the proxy follows. Whoever made them runs them. */
export interface ProxyInformers {
  /** Services that no other proxy serves. */
  readonly services: Informer<ServiceView>;
  /** EndpointSlices, without those of headless Services. */
  readonly slices: Informer<SliceView>;
}

/** Informers for a proxy that shares them with nobody: the server leaves out what the proxy does not need. */
export function ownInformers(
  shared: Omit<InformerOptions<unknown>, "resource" | "project">,
): ProxyInformers {
  return {
    services: createInformer({
      ...shared,
      resource: SERVICES,
      labelSelector: "!service.kubernetes.io/service-proxy-name",
      project: parseService,
    }),
    slices: createInformer({
      ...shared,
      resource: ENDPOINT_SLICES,
      labelSelector: "!service.kubernetes.io/headless",
      project: parseSlice,
    }),
  };
}
