import type { EndpointAddress, EndpointSubset } from "../../../api/types.gen.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { isPodReady } from "../shared/pod-state.ts";
import type { StoredService, TargetPort } from "./service-endpoints.ts";
import {
  addressesOf,
  endpointHostname,
  isHeadless,
  isPublished,
  podReference,
  primaryFamily,
  targetPorts,
} from "./service-endpoints.ts";

/** Addresses one Endpoints object may hold; consumers of more use EndpointSlices. */
export const maxEndpointsCapacity = 1000;

interface Member {
  readonly address: EndpointAddress;
  readonly ready: boolean;
}

function memberKey(member: Member): string {
  return `${member.address.ip} ${member.address.targetRef?.uid ?? ""} ${String(member.ready)}`;
}

function compareText(left: string, right: string): number {
  if (left === right) return 0;
  return left < right ? -1 : 1;
}

function memberOf(service: StoredService, pod: StoredPod): Member | undefined {
  const [ip] = addressesOf(pod, primaryFamily(service));
  if (ip === undefined) return undefined;
  const nodeName = pod.spec?.nodeName;
  const hostname = endpointHostname(service, pod);
  return {
    ready: service.spec?.publishNotReadyAddresses === true || isPodReady(pod),
    address: {
      ip,
      ...(hostname === undefined ? {} : { hostname }),
      ...(nodeName === undefined ? {} : { nodeName }),
      targetRef: podReference(pod),
    },
  };
}

/** Members per port; the key of "no port at all" (headless without ports) is null. */
function membersByPort(
  service: StoredService,
  pods: readonly StoredPod[],
): ReadonlyMap<string, { readonly port: TargetPort | null; readonly members: Member[] }> {
  const byPort = new Map<string, { port: TargetPort | null; members: Member[] }>();
  for (const pod of pods) {
    if (!isPublished(pod, service.spec?.publishNotReadyAddresses === true)) continue;
    const member = memberOf(service, pod);
    if (member === undefined) continue;
    const portless = (service.spec?.ports ?? []).length === 0;
    if (portless && !isHeadless(service)) continue;
    const ports = portless ? [null] : targetPorts(service, pod);
    for (const port of ports) {
      const key = JSON.stringify(port);
      const entry = byPort.get(key) ?? { port, members: [] };
      entry.members.push(member);
      byPort.set(key, entry);
    }
  }
  return byPort;
}

/** The subsets of a Service's Endpoints: ports with the same addresses share one subset, in a stable order. */
export function computeSubsets(
  service: StoredService,
  pods: readonly StoredPod[],
): readonly EndpointSubset[] {
  const groups = new Map<string, { ports: TargetPort[]; members: readonly Member[] }>();
  for (const { port, members } of membersByPort(service, pods).values()) {
    const sorted = members.toSorted((a, b) => compareText(memberKey(a), memberKey(b)));
    const key = sorted.map((member) => memberKey(member)).join("|");
    const group = groups.get(key) ?? { ports: [], members: sorted };
    if (port !== null) group.ports.push(port);
    groups.set(key, group);
  }
  return [...groups.entries()]
    .toSorted(([a], [b]) => compareText(a, b))
    .map(([, group]) => subset(group.ports, group.members));
}

function subset(ports: readonly TargetPort[], members: readonly Member[]): EndpointSubset {
  const ready = members.filter((member) => member.ready).map((member) => member.address);
  const notReady = members.filter((member) => !member.ready).map((member) => member.address);
  const sortedPorts = ports.toSorted((a, b) => compareText(JSON.stringify(a), JSON.stringify(b)));
  return {
    ...(ready.length === 0 ? {} : { addresses: ready }),
    ...(notReady.length === 0 ? {} : { notReadyAddresses: notReady }),
    // An unnamed port has no name member in Endpoints, unlike in EndpointSlices.
    ...(ports.length === 0
      ? {}
      : {
          ports: sortedPorts.map(({ name, ...port }) => (name === "" ? port : { name, ...port })),
        }),
  };
}

/** Cuts to {@link maxEndpointsCapacity} addresses, ready ones first in each subset's share. */
export function truncateSubsets(subsets: readonly EndpointSubset[]): {
  readonly subsets: readonly EndpointSubset[];
  readonly truncated: boolean;
} {
  const count = (key: "addresses" | "notReadyAddresses"): number =>
    subsets.reduce((sum, each) => sum + (each[key]?.length ?? 0), 0);
  const readyTotal = count("addresses");
  const notReadyTotal = count("notReadyAddresses");
  if (readyTotal + notReadyTotal <= maxEndpointsCapacity) return { subsets, truncated: false };
  let readyLeft = Math.min(readyTotal, maxEndpointsCapacity);
  let notReadyLeft = maxEndpointsCapacity - readyLeft;
  const cut = subsets.flatMap((each) => {
    const addresses = (each.addresses ?? []).slice(0, readyLeft);
    const notReadyAddresses = (each.notReadyAddresses ?? []).slice(0, notReadyLeft);
    readyLeft -= addresses.length;
    notReadyLeft -= notReadyAddresses.length;
    if (addresses.length + notReadyAddresses.length === 0) return [];
    return [
      {
        ...(addresses.length === 0 ? {} : { addresses }),
        ...(notReadyAddresses.length === 0 ? {} : { notReadyAddresses }),
        ...(each.ports === undefined ? {} : { ports: each.ports }),
      },
    ];
  });
  return { subsets: cut, truncated: true };
}
