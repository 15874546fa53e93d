import type { Stored } from "../../../api/object.ts";
import type { Node, ObjectReference, Service, ServicePort } from "../../../api/types.gen.ts";
import type { IPFamily } from "../../../lib/cidr.ts";
import { ipFamily } from "../../../lib/cidr.ts";
import { matchesMap } from "../../../api/selectors.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import {
  isPodReady,
  isPodTerminal,
  isTerminating,
  podCondition,
  timeMs,
} from "../shared/pod-state.ts";

export type StoredService = Stored<Service>;
export type StoredNode = Stored<Node>;

/** A port that a Service's traffic goes to on one pod. */
export interface TargetPort {
  readonly name: string;
  readonly port: number;
  readonly protocol: "TCP" | "UDP" | "SCTP";
  readonly appProtocol?: string;
}

/** A Service whose endpoints the controllers compute: it has a selector and is not a DNS alias. */
export function isManagedService(service: StoredService): boolean {
  return (
    Object.keys(service.spec?.selector ?? {}).length > 0 && service.spec?.type !== "ExternalName"
  );
}

export function isHeadless(service: StoredService): boolean {
  const clusterIP = service.spec?.clusterIP ?? "";
  return clusterIP === "" || clusterIP === "None";
}

export function selectsPod(service: StoredService, pod: StoredPod): boolean {
  return isManagedService(service) && matchesMap(service.spec?.selector ?? {}, pod.metadata.labels);
}

/** Whether a selected pod is published at all. */
export function isPublished(pod: StoredPod, includeTerminating: boolean): boolean {
  if (isPodTerminal(pod)) return false;
  if (podAddresses(pod).length === 0) return false;
  return includeTerminating || !isTerminating(pod);
}

function podAddresses(pod: StoredPod): readonly string[] {
  const all = (pod.status?.podIPs ?? []).map(({ ip }) => ip);
  const primary = pod.status?.podIP ?? "";
  return all.length === 0 && primary !== "" ? [primary] : all;
}

/** The pod's addresses of one family. */
export function addressesOf(pod: StoredPod, family: IPFamily): readonly string[] {
  return podAddresses(pod).filter((address) => ipFamily(address) === family);
}

/** The family of the Service's first cluster IP. */
export function primaryFamily(service: StoredService): IPFamily {
  const clusterIP = service.spec?.clusterIP ?? "";
  return service.spec?.ipFamilies?.[0] ?? ipFamily(clusterIP) ?? "IPv4";
}

/** The number behind a `targetPort`; undefined when the pod has no port of that name and protocol. */
export function resolveTargetPort(pod: StoredPod, port: ServicePort): number | undefined {
  const target = port.targetPort ?? port.port;
  if (typeof target === "number") return target;
  const protocol = port.protocol ?? "TCP";
  const containers = [
    ...(pod.spec?.containers ?? []),
    ...(pod.spec?.initContainers ?? []).filter((each) => each.restartPolicy === "Always"),
  ];
  return containers
    .flatMap((container) => container.ports ?? [])
    .find((each) => each.name === target && (each.protocol ?? "TCP") === protocol)?.containerPort;
}

/** The ports of a Service on one pod; a named port the pod lacks is left out. */
export function targetPorts(service: StoredService, pod: StoredPod): readonly TargetPort[] {
  return (service.spec?.ports ?? []).flatMap((port) => {
    const number = resolveTargetPort(pod, port);
    if (number === undefined) return [];
    return [
      {
        name: port.name ?? "",
        port: number,
        protocol: port.protocol ?? "TCP",
        ...(port.appProtocol === undefined ? {} : { appProtocol: port.appProtocol }),
      },
    ];
  });
}

/** The pod's own host name when the Service governs its subdomain (DNS of headless Services). */
export function endpointHostname(service: StoredService, pod: StoredPod): string | undefined {
  const hostname = pod.spec?.hostname ?? "";
  return hostname !== "" && pod.spec?.subdomain === service.metadata.name ? hostname : undefined;
}

export function podReference(pod: StoredPod): ObjectReference {
  const { namespace, name, uid } = pod.metadata;
  return { kind: "Pod", namespace, name, uid };
}

/** conditions.ready: what ordinary traffic may use. */
export function isEndpointReady(service: StoredService, pod: StoredPod): boolean {
  if (service.spec?.publishNotReadyAddresses === true) return true;
  return isPodReady(pod) && !isTerminating(pod);
}

/** The Service's labels without those that only the controllers may set. */
export function copiedLabels(service: StoredService): Record<string, string> {
  const labels = { ...service.metadata.labels };
  delete labels["service.kubernetes.io/headless"];
  delete labels["kubernetes.io/service-name"];
  delete labels["endpointslice.kubernetes.io/managed-by"];
  return labels;
}

export const headlessLabel = "service.kubernetes.io/headless";
export const triggerTimeAnnotation = "endpoints.kubernetes.io/last-change-trigger-time";

interface TriggerState {
  readonly service: number;
  readonly pods: ReadonlyMap<string, number>;
}

/**
 * When the change that a write publishes happened (the readiness of a pod, the creation of the Service): the basis of
 * the network programming latency that consumers measure.
 */
export class TriggerTimes {
  readonly #states = new Map<string, TriggerState>();

  /** Milliseconds of the earliest change since the last call for this Service; undefined when there was none. */
  next(key: string, service: StoredService, pods: readonly StoredPod[]): number | undefined {
    const before = this.#states.get(key);
    const times = new Map<string, number>();
    const changed: number[] = [];
    for (const pod of pods) {
      const time = timeMs(podCondition(pod, "Ready")?.lastTransitionTime);
      if (time === undefined) continue;
      times.set(pod.metadata.name, time);
      if (time > (before?.pods.get(pod.metadata.name) ?? 0)) changed.push(time);
    }
    const created = timeMs(service.metadata.creationTimestamp) ?? 0;
    if (created > (before?.service ?? 0)) changed.push(created);
    this.#states.set(key, { service: created, pods: times });
    return changed.length === 0 ? undefined : Math.min(...changed);
  }

  forget(key: string): void {
    this.#states.delete(key);
  }
}
