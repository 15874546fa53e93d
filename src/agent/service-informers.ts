import type { ApiClient } from "../api/client.ts";
import { createInformer } from "../api/informer.ts";
import type { Informer } from "../api/informer-types.ts";
import { informerView } from "../api/informer-view.ts";
import { ENDPOINT_SLICES, SERVICES } from "../api/resources.ts";
import { parseDnsService, parseDnsSlice } from "../dns/parse.ts";
import type { DnsService, DnsSlice } from "../dns/types.ts";
import type { Clock } from "../lib/clock.ts";
import { asRecord, isRecord } from "../lib/guard.ts";
import type { Logger } from "../lib/log.ts";
import type { ProxyInformers } from "../proxy/own-informers.ts";
import { parseService, parseSlice, type ServiceView, type SliceView } from "../proxy/parse.ts";
import { missingBinding } from "../proxy/proxy.ts";

export interface ServiceInformersOptions {
  readonly client: ApiClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
}

/** Services and EndpointSlices, watched once for all who need them. */
export interface ServiceInformers {
  /** What the Service proxy serves: without those of other proxies, and without slices of headless Services. */
  readonly proxy: ProxyInformers;
  /** All of them: they have names, whoever does their packets. */
  readonly dns: { readonly services: Informer<DnsService>; readonly slices: Informer<DnsSlice> };
  /** Follows the server until `signal` aborts. */
  run(signal: AbortSignal): Promise<void>;
}

interface Shared<P, D> {
  readonly proxy: P | undefined;
  readonly dns: D;
}

function hasLabel(value: unknown, label: string): boolean {
  const metadata = asRecord(value, "$")["metadata"];
  const labels = isRecord(metadata) ? metadata["labels"] : undefined;
  return isRecord(labels) && labels[label] !== undefined;
}

/** Informers of all Services and EndpointSlices, and the views that proxy and name server have of them. */
export function createServiceInformers(options: ServiceInformersOptions): ServiceInformers {
  const shared = { ...options, whenForbidden: missingBinding };
  const services = createInformer<Shared<ServiceView, DnsService>>({
    ...shared,
    resource: SERVICES,
    project: (value) => ({
      proxy: hasLabel(value, "service.kubernetes.io/service-proxy-name")
        ? undefined
        : parseService(value),
      dns: parseDnsService(value),
    }),
  });
  const slices = createInformer<Shared<SliceView, DnsSlice>>({
    ...shared,
    resource: ENDPOINT_SLICES,
    project: (value) => ({
      proxy: hasLabel(value, "service.kubernetes.io/headless") ? undefined : parseSlice(value),
      dns: parseDnsSlice(value),
    }),
  });
  return {
    proxy: {
      services: informerView(services, ({ proxy }) => proxy),
      slices: informerView(slices, ({ proxy }) => proxy),
    },
    dns: {
      services: informerView(services, ({ dns }) => dns),
      slices: informerView(slices, ({ dns }) => dns),
    },
    async run(signal) {
      await Promise.all([services.run(signal), slices.run(signal)]);
    },
  };
}
