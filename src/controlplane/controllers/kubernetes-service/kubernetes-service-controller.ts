import { objectKey } from "../../../api/object.ts";
import { createObject, deleteObject } from "../../../api/objects.ts";
import { ENDPOINT_SLICES, ENDPOINTS, SERVICES } from "../../../api/resources.ts";
import type { Endpoints, EndpointSlice, Service } from "../../../api/types.gen.ts";
import { ipFamily } from "../../../lib/cidr.ts";
import { replaceObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { runQueueLoop } from "../shared/controller.ts";

export interface KubernetesServiceOptions {
  /** First address of the Service network. */
  readonly clusterIP: string;
  /** Where the API server answers other machines and pods; undefined while that is not known, which changes nothing. */
  readonly advertiseAddress: () => string | undefined;
  /** Calls `listener` when that is another one. Returns the function that ends it. */
  readonly onAddress: (listener: () => void) => () => void;
  readonly port: number;
}

const namespace = "default";
const name = "kubernetes";

function wantedService(options: KubernetesServiceOptions): Service {
  return {
    metadata: { namespace, name, labels: { component: "apiserver", provider: "kubernetes" } },
    spec: {
      type: "ClusterIP",
      clusterIP: options.clusterIP,
      clusterIPs: [options.clusterIP],
      ports: [{ name: "https", port: 443, protocol: "TCP", targetPort: options.port }],
    },
  };
}

function wantedSlice(address: string, port: number): EndpointSlice {
  return {
    metadata: { namespace, name, labels: { "kubernetes.io/service-name": name } },
    addressType: ipFamily(address) ?? "IPv4",
    endpoints: [{ addresses: [address], conditions: { ready: true } }],
    ports: [{ name: "https", port, protocol: "TCP" }],
  };
}

function wantedEndpoints(address: string, port: number): Endpoints {
  return {
    // Its slice is written here too, so that nobody must derive a second one from it.
    metadata: { namespace, name, labels: { "endpointslice.kubernetes.io/skip-mirror": "true" } },
    subsets: [
      {
        addresses: [{ ip: address }],
        ports: [{ name: "https", port, protocol: "TCP" }],
      },
    ],
  };
}

/** Keeps `kubernetes.default`, through which pods reach the API server. */
export function kubernetesServiceController(
  context: ControllerContext,
  options: KubernetesServiceOptions,
): Controller {
  const { informers, client } = context;
  const key = objectKey(namespace, name);

  async function sync(signal: AbortSignal): Promise<void> {
    const target = { namespace, name };
    const service = wantedService(options);
    const current = informers.services.get(key);
    if (current === undefined) await createObject(client, SERVICES, service, { signal });
    else if (JSON.stringify(current.spec?.ports) !== JSON.stringify(service.spec?.ports)) {
      await replaceObject(
        client,
        { resource: SERVICES, ...target },
        { ...current, spec: { ...current.spec, ports: service.spec?.ports } },
        signal,
      );
    }
    const address = options.advertiseAddress();
    if (address === undefined) return;
    await syncSlice(wantedSlice(address, options.port), signal);
    const endpoints = wantedEndpoints(address, options.port);
    const old = informers.endpoints.get(key);
    if (old === undefined) await createObject(client, ENDPOINTS, endpoints, { signal });
    else if (JSON.stringify(old.subsets) !== JSON.stringify(endpoints.subsets)) {
      await replaceObject(
        client,
        { resource: ENDPOINTS, ...target },
        { ...endpoints, metadata: { ...old.metadata, labels: endpoints.metadata?.labels } },
        signal,
      );
    }
  }

  async function syncSlice(slice: EndpointSlice, signal: AbortSignal): Promise<void> {
    const old = informers.endpointSlices.get(key);
    if (old !== undefined && old.addressType !== slice.addressType) {
      // A slice cannot change its family.
      await deleteObject(client, ENDPOINT_SLICES, { namespace, name }, { signal });
      await createObject(client, ENDPOINT_SLICES, slice, { signal });
    } else if (old === undefined) await createObject(client, ENDPOINT_SLICES, slice, { signal });
    else if (
      JSON.stringify([old.endpoints, old.ports]) !== JSON.stringify([slice.endpoints, slice.ports])
    ) {
      await replaceObject(
        client,
        { resource: ENDPOINT_SLICES, namespace, name },
        { ...slice, metadata: { ...old.metadata, labels: slice.metadata?.labels } },
        signal,
      );
    }
  }

  return {
    name: "kubernetes-service",
    run: (signal) =>
      runQueueLoop(
        {
          name: "kubernetes-service",
          context,
          waitFor: [informers.services, informers.endpointSlices, informers.endpoints],
          sync: () => sync(signal),
          subscribe: (queue) => {
            const wake = (change: { readonly key: string }): void => {
              if (change.key === key) queue.add(key);
            };
            queue.add(key);
            return [
              informers.services.subscribe(wake),
              informers.endpointSlices.subscribe(wake),
              informers.endpoints.subscribe(wake),
              options.onAddress(() => queue.add(key)),
            ];
          },
        },
        signal,
      ),
  };
}
