import type { Stored } from "../../../api/object.ts";
import { controllerOf } from "../../../api/object.ts";
import type {
  DiscoveryV1EndpointPort,
  Endpoint,
  EndpointSlice,
  ObjectMeta,
} from "../../../api/types.gen.ts";
import type { IPFamily } from "../../../lib/cidr.ts";
import type { StoredNode, StoredService } from "../endpoints/service-endpoints.ts";
import {
  addressesOf,
  copiedLabels,
  endpointHostname,
  headlessLabel,
  isEndpointReady,
  isHeadless,
  isPublished,
  podReference,
  primaryFamily,
  targetPorts,
  triggerTimeAnnotation,
} from "../endpoints/service-endpoints.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { isPodReady, isTerminating } from "../shared/pod-state.ts";

export type StoredSlice = Stored<EndpointSlice>;

export const managedByLabel = "endpointslice.kubernetes.io/managed-by";
export const serviceNameLabel = "kubernetes.io/service-name";
export const managerName = "endpointslice-controller.k8s.io";

/** Endpoints per slice: full slices are cheap to skip, and one change rewrites little. */
export const maxEndpointsPerSlice = 100;

export interface SlicePlan {
  readonly create: readonly EndpointSlice[];
  /** With the metadata of the slice they replace. */
  readonly update: readonly EndpointSlice[];
  readonly remove: readonly StoredSlice[];
  /** Pods left out because their node is unknown; worth another look later. */
  readonly skippedPods: readonly string[];
}

export interface SliceInput {
  readonly service: StoredService;
  /** Those the selector chose. */
  readonly pods: readonly StoredPod[];
  /** All slices of this Service that this controller manages. */
  readonly existing: readonly StoredSlice[];
  node(name: string): StoredNode | undefined;
  readonly triggeredAt: number | undefined;
}

interface Group {
  readonly ports: readonly DiscoveryV1EndpointPort[];
  readonly endpoints: Map<string, Endpoint>;
}

/** Slices are grouped by their exact set of ports: pods may resolve a named port differently. */
function portsKey(ports: readonly DiscoveryV1EndpointPort[] | undefined): string {
  return (ports ?? [])
    .map((port) => JSON.stringify([port.name ?? "", port.port, port.protocol, port.appProtocol]))
    .toSorted()
    .join("|");
}

function endpointKey(endpoint: Endpoint): string {
  return `${endpoint.targetRef?.uid ?? ""} ${endpoint.addresses.join(",")}`;
}

/** What consumers act on. */
function endpointForm(each: Endpoint): string {
  return JSON.stringify([
    each.addresses,
    each.conditions?.ready,
    each.conditions?.serving,
    each.conditions?.terminating,
    each.hostname ?? "",
    each.nodeName ?? "",
    each.zone ?? "",
    each.targetRef?.uid ?? "",
    (each.hints?.forZones ?? []).map(({ name }) => name),
    (each.hints?.forNodes ?? []).map(({ name }) => name),
  ]);
}

/** Equality of what consumers act on. */
function sameEndpoint(left: Endpoint, right: Endpoint): boolean {
  return endpointForm(left) === endpointForm(right);
}

function families(service: StoredService): readonly IPFamily[] {
  const listed = service.spec?.ipFamilies ?? [];
  return listed.length > 0 ? listed : [primaryFamily(service)];
}

/** Where consumers close to an endpoint are told to prefer it (KEP-4444, KEP-3015). */
function hintsFor(
  service: StoredService,
  endpoint: { readonly zone: string | undefined; readonly nodeName: string | undefined },
): Endpoint["hints"] {
  const distribution = service.spec?.trafficDistribution;
  const known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
  if (distribution === undefined || !known.includes(distribution)) return undefined;
  const { zone, nodeName } = endpoint;
  const forNode = distribution === "PreferSameNode" && nodeName !== undefined;
  if (zone === undefined && !forNode) return undefined;
  return {
    ...(zone === undefined ? {} : { forZones: [{ name: zone }] }),
    ...(forNode ? { forNodes: [{ name: nodeName }] } : {}),
  };
}

function endpointOf(
  service: StoredService,
  pod: StoredPod,
  node: StoredNode | undefined,
  addresses: readonly string[],
): Endpoint {
  const nodeName = pod.spec?.nodeName;
  const zone = node?.metadata.labels?.["topology.kubernetes.io/zone"];
  const hostname = endpointHostname(service, pod);
  const ready = isEndpointReady(service, pod);
  const hints = ready ? hintsFor(service, { zone, nodeName }) : undefined;
  return {
    addresses: [...addresses],
    conditions: { ready, serving: isPodReady(pod), terminating: isTerminating(pod) },
    ...(hostname === undefined ? {} : { hostname }),
    targetRef: podReference(pod),
    ...(nodeName === undefined ? {} : { nodeName }),
    ...(zone === undefined || zone === "" ? {} : { zone }),
    ...(hints === undefined ? {} : { hints }),
  };
}

function groupEndpoints(
  input: SliceInput,
  family: IPFamily,
  skipped: Set<string>,
): ReadonlyMap<string, Group> {
  const groups = new Map<string, Group>();
  for (const pod of input.pods) {
    if (!isPublished(pod, true)) continue;
    const ports = targetPorts(input.service, pod);
    const key = portsKey(ports);
    const group = groups.get(key) ?? { ports, endpoints: new Map<string, Endpoint>() };
    groups.set(key, group);
    const node = input.node(pod.spec?.nodeName ?? "");
    if (node === undefined && input.service.spec?.publishNotReadyAddresses !== true) {
      skipped.add(pod.metadata.name);
      continue;
    }
    const addresses = addressesOf(pod, family);
    if (addresses.length === 0) continue;
    const endpoint = endpointOf(input.service, pod, node, addresses);
    group.endpoints.set(endpointKey(endpoint), endpoint);
  }
  return groups;
}

function sliceLabels(service: StoredService): Record<string, string> {
  return {
    ...copiedLabels(service),
    ...(isHeadless(service) ? { [headlessLabel]: "" } : {}),
    [serviceNameLabel]: service.metadata.name,
    [managedByLabel]: managerName,
  };
}

function sliceMeta(service: StoredService): ObjectMeta {
  const { namespace, name, uid } = service.metadata;
  return {
    namespace,
    generateName: `${name}-`,
    ownerReferences: [
      {
        apiVersion: "v1",
        kind: "Service",
        name,
        uid,
        controller: true,
        blockOwnerDeletion: true,
      },
    ],
  };
}

function sameLabels(left: ObjectMeta["labels"], right: Readonly<Record<string, string>>): boolean {
  const keys = Object.keys(right);
  return (
    Object.keys(left ?? {}).length === keys.length &&
    keys.every((key) => left?.[key] === right[key])
  );
}

interface Draft {
  readonly existing: StoredSlice | undefined;
  endpoints: Endpoint[];
  changed: boolean;
}

/** Fits the wanted endpoints of one port set into its slices with as few writes as possible. */
function fillSlices(
  existing: readonly StoredSlice[],
  group: Group,
  labelsDiffer: (slice: StoredSlice) => boolean,
): {
  readonly drafts: readonly Draft[];
  readonly remove: readonly StoredSlice[];
} {
  const remaining = new Map(group.endpoints);
  const drafts: Draft[] = existing.map((slice) => {
    const kept: Endpoint[] = [];
    let changed = labelsDiffer(slice);
    for (const endpoint of slice.endpoints ?? []) {
      const key = endpointKey(endpoint);
      const wanted = remaining.get(key);
      if (wanted === undefined) {
        changed = true;
        continue;
      }
      remaining.delete(key);
      kept.push(wanted);
      if (!sameEndpoint(endpoint, wanted)) changed = true;
    }
    return { existing: slice, endpoints: kept, changed };
  });
  const add = [...remaining.values()];
  // First into slices that are written anyway, then into one with room, last into new ones.
  for (const draft of drafts) {
    if (!draft.changed || draft.endpoints.length === 0) continue;
    draft.endpoints.push(...add.splice(0, maxEndpointsPerSlice - draft.endpoints.length));
  }
  if (add.length > 0 && add.length < maxEndpointsPerSlice) {
    const fitting = drafts
      .filter((draft) => draft.endpoints.length + add.length <= maxEndpointsPerSlice)
      .toSorted((a, b) => b.endpoints.length - a.endpoints.length)[0];
    if (fitting !== undefined) {
      fitting.endpoints.push(...add.splice(0));
      fitting.changed = true;
    }
  }
  while (add.length > 0)
    drafts.push({
      existing: undefined,
      endpoints: add.splice(0, maxEndpointsPerSlice),
      changed: true,
    });
  // An empty slice goes, unless it is the only one of its ports and everything else would go too.
  const remove = drafts.flatMap((draft) =>
    draft.endpoints.length === 0 && draft.existing !== undefined ? [draft.existing] : [],
  );
  return { drafts: drafts.filter((draft) => draft.endpoints.length > 0), remove };
}

/** The writes that bring a Service's EndpointSlices to what its pods are now. */
export function planSlices(input: SliceInput): SlicePlan {
  const { service } = input;
  const create: EndpointSlice[] = [];
  const update: EndpointSlice[] = [];
  const remove: StoredSlice[] = [];
  const skipped = new Set<string>();
  const labels = sliceLabels(service);
  const wantedFamilies = families(service);
  for (const slice of input.existing)
    if (!wantedFamilies.some((family) => family === slice.addressType)) remove.push(slice);

  for (const family of wantedFamilies) {
    const ours = input.existing.filter((slice) => slice.addressType === family);
    const byPorts = new Map<string, StoredSlice[]>();
    for (const slice of ours) {
      if (controllerOf(slice.metadata)?.uid !== service.metadata.uid) {
        remove.push(slice);
        continue;
      }
      const key = portsKey(slice.ports);
      byPorts.set(key, [...(byPorts.get(key) ?? []), slice]);
    }
    const groups = groupEndpoints(input, family, skipped);
    const familyRemovals: StoredSlice[] = [];
    let kept = 0;
    for (const [key, group] of groups) {
      const { drafts, remove: emptied } = fillSlices(
        byPorts.get(key) ?? [],
        group,
        (slice) => !sameLabels(slice.metadata.labels, labels),
      );
      byPorts.delete(key);
      familyRemovals.push(...emptied);
      kept += drafts.length;
      for (const draft of drafts) {
        if (!draft.changed) continue;
        const body = { addressType: family, ports: [...group.ports], endpoints: draft.endpoints };
        if (draft.existing === undefined)
          create.push({ ...body, metadata: { ...sliceMeta(service), labels } });
        else update.push({ ...body, metadata: { ...draft.existing.metadata, labels } });
      }
    }
    for (const slices of byPorts.values()) familyRemovals.push(...slices);
    if (kept === 0) keepPlaceholder(service, family, { labels, familyRemovals, create });
    remove.push(...familyRemovals);
  }
  reuseRemoved(service, { create, update, remove });
  return {
    create: create.map((slice) => stamped(slice, input.triggeredAt)),
    update: update.map((slice) => stamped(slice, input.triggeredAt)),
    remove,
    skippedPods: [...skipped],
  };
}

/** Turns a removal and a creation into one update: half the writes, and consumers see no gap between them. */
function reuseRemoved(
  service: StoredService,
  plan: {
    readonly create: EndpointSlice[];
    readonly update: EndpointSlice[];
    readonly remove: StoredSlice[];
  },
): void {
  for (const slice of plan.create.splice(0)) {
    const index = plan.remove.findIndex(
      (each) =>
        each.addressType === slice.addressType &&
        controllerOf(each.metadata)?.uid === service.metadata.uid,
    );
    const [reused] = index < 0 ? [] : plan.remove.splice(index, 1);
    if (reused === undefined) plan.create.push(slice);
    else
      plan.update.push({
        ...slice,
        metadata: { ...reused.metadata, labels: slice.metadata?.labels },
      });
  }
}

/** A Service without endpoints has one empty slice: "none" must differ from "not computed yet". */
function keepPlaceholder(
  service: StoredService,
  family: IPFamily,
  work: {
    readonly labels: Readonly<Record<string, string>>;
    readonly familyRemovals: StoredSlice[];
    readonly create: EndpointSlice[];
  },
): void {
  const index = work.familyRemovals.findIndex(
    (slice) =>
      (slice.endpoints ?? []).length === 0 &&
      (slice.ports ?? []).length === 0 &&
      sameLabels(slice.metadata.labels, work.labels),
  );
  if (index >= 0) {
    work.familyRemovals.splice(index, 1);
    return;
  }
  work.create.push({
    addressType: family,
    ports: [],
    endpoints: [],
    metadata: { ...sliceMeta(service), labels: { ...work.labels } },
  });
}

function stamped(slice: EndpointSlice, triggeredAt: number | undefined): EndpointSlice {
  const annotations = { ...slice.metadata?.annotations };
  delete annotations[triggerTimeAnnotation];
  if (triggeredAt !== undefined)
    annotations[triggerTimeAnnotation] = new Date(triggeredAt).toISOString().replace(".000Z", "Z");
  const { annotations: _previous, ...metadata } = slice.metadata ?? {};
  return {
    ...slice,
    metadata: Object.keys(annotations).length === 0 ? metadata : { ...metadata, annotations },
  };
}
