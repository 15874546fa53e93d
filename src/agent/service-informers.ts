import { isDeepStrictEqual } from "node:util";

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

/** Both projections of one object. */
interface Both<P, D> {
  readonly proxy: P | undefined;
  readonly dns: D;
}

/** Usually all that the name server needs follows from what the proxy keeps, and then nothing else is kept. */
type Kept<P, D> = P | Both<P, D>;

function keep<P extends object, D>(
  proxy: P | undefined,
  dns: D,
  derive: (proxy: P) => D,
): Kept<P, D> {
  return proxy !== undefined && isDeepStrictEqual(derive(proxy), dns) ? proxy : { proxy, dns };
}

function proxyPart<P extends object, D>(kept: Kept<P, D>): P | undefined {
  return "dns" in kept ? kept.proxy : kept;
}

function dnsPart<P extends object, D>(kept: Kept<P, D>, derive: (proxy: P) => D): D {
  return "dns" in kept ? kept.dns : derive(kept);
}

function dnsService({ key, namespace, name, clusterIPs, ports }: ServiceView): DnsService {
  return {
    key,
    namespace,
    name,
    clusterIPs: clusterIPs.map(({ ip }) => ip),
    headless: false,
    externalName: undefined,
    ports: ports.map(({ name, protocol, port }) => ({ name, protocol, port })),
    proxyName: "",
  };
}

function dnsSlice({ key, service, ports, endpoints }: SliceView): DnsSlice {
  const ready = endpoints.filter((endpoint) => endpoint.ready);
  return { key, service, ports, endpoints: ready.map(({ ip }) => ({ ip, hostname: "" })) };
}

function hasLabel(value: unknown, label: string): boolean {
  const metadata = asRecord(value, "$")["metadata"];
  const labels = isRecord(metadata) ? metadata["labels"] : undefined;
  return isRecord(labels) && labels[label] !== undefined;
}

/** Informers of all Services and EndpointSlices, and the views that proxy and name server have of them. */
export function createServiceInformers(options: ServiceInformersOptions): ServiceInformers {
  const shared = { ...options, whenForbidden: missingBinding };
  const services = createInformer<Kept<ServiceView, DnsService>>({
    ...shared,
    resource: SERVICES,
    project: (value) => {
      const others = hasLabel(value, "service.kubernetes.io/service-proxy-name");
      return keep(others ? undefined : parseService(value), parseDnsService(value), dnsService);
    },
  });
  const slices = createInformer<Kept<SliceView, DnsSlice>>({
    ...shared,
    resource: ENDPOINT_SLICES,
    project: (value) => {
      const headless = hasLabel(value, "service.kubernetes.io/headless");
      return keep(headless ? undefined : parseSlice(value), parseDnsSlice(value), dnsSlice);
    },
  });
  return {
    proxy: {
      services: informerView(services, proxyPart<ServiceView, DnsService>),
      slices: informerView(slices, proxyPart<SliceView, DnsSlice>),
    },
    dns: {
      services: informerView(services, (kept) => dnsPart(kept, dnsService)),
      slices: informerView(slices, (kept) => dnsPart(kept, dnsSlice)),
    },
    async run(signal) {
      await Promise.all([services.run(signal), slices.run(signal)]);
    },
  };
}
