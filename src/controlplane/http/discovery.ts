import { createHash } from "node:crypto";

import type { CustomSubresource, JsonObject, KindDefinition, StoredSubresource } from "../types.ts";

/** Order in which groups are offered: kubectl takes the first that has a resource. The rest follows by name. */
const groupOrder = [
  "apps",
  "events.k8s.io",
  "authentication.k8s.io",
  "authorization.k8s.io",
  "autoscaling",
  "batch",
  "certificates.k8s.io",
  "networking.k8s.io",
  "policy",
  "rbac.authorization.k8s.io",
  "storage.k8s.io",
  "apiextensions.k8s.io",
  "scheduling.k8s.io",
  "coordination.k8s.io",
  "node.k8s.io",
  "discovery.k8s.io",
];

/** The discovery documents of the served kinds. They never change while the server runs. */
export interface Discovery {
  /** `/api` (core) or `/apis` in the aggregated form. */
  aggregated(root: "api" | "apis", version: "v2" | "v2beta1"): JsonObject;
  readonly versions: JsonObject;
  readonly groups: JsonObject;
  /** `/apis/GROUP`. */
  group(group: string): JsonObject | undefined;
  /** `/api/v1`, `/apis/GROUP/VERSION`. */
  resources(group: string, version: string): JsonObject | undefined;
  /** Groups and versions, core first. */
  readonly groupVersions: readonly { readonly group: string; readonly version: string }[];
}

/** Strong validator for a document that does not change. */
export function etagOf(document: unknown): string {
  return `"${createHash("sha512").update(JSON.stringify(document)).digest("hex").toUpperCase()}"`;
}

function rank(group: string): number {
  const at = groupOrder.indexOf(group);
  return at < 0 ? groupOrder.length : at;
}

function verbsOf(kind: KindDefinition): readonly string[] {
  return [...kind.verbs].toSorted();
}

function optionalList(name: string, values: readonly string[]): JsonObject {
  return values.length === 0 ? {} : { [name]: values };
}

function subresources(
  kind: KindDefinition,
): readonly (readonly [string, StoredSubresource | CustomSubresource])[] {
  return Object.entries(kind.subresources).toSorted(([left], [right]) => (left < right ? -1 : 1));
}

function foreign(
  kind: KindDefinition,
  subresource: StoredSubresource | CustomSubresource,
): JsonObject {
  if (subresource.kind === "stored") return { group: "", version: "", kind: kind.kind };
  const { gvk } = subresource;
  const own = gvk.group === kind.group && gvk.version === kind.version;
  return own
    ? { group: "", version: "", kind: gvk.kind }
    : { group: gvk.group, version: gvk.version, kind: gvk.kind };
}

function aggregatedResource(kind: KindDefinition): JsonObject {
  const below = subresources(kind).map(([name, one]) => ({
    subresource: name,
    responseKind: foreign(kind, one),
    verbs: [...one.verbs].toSorted(),
  }));
  return {
    resource: kind.plural,
    responseKind: { group: "", version: "", kind: kind.kind },
    scope: kind.namespaced ? "Namespaced" : "Cluster",
    singularResource: kind.singular,
    verbs: verbsOf(kind),
    ...optionalList("shortNames", kind.shortNames),
    ...optionalList("categories", kind.categories),
    ...(below.length === 0 ? {} : { subresources: below }),
  };
}

function legacyResources(kinds: readonly KindDefinition[]): JsonObject[] {
  return kinds.flatMap((kind) => [
    {
      name: kind.plural,
      singularName: kind.singular,
      namespaced: kind.namespaced,
      kind: kind.kind,
      verbs: verbsOf(kind),
      ...optionalList("shortNames", kind.shortNames),
      ...optionalList("categories", kind.categories),
    },
    ...subresources(kind).map(([name, one]) => {
      const { group, version, kind: bodyKind } = foreign(kind, one);
      return {
        name: `${kind.plural}/${name}`,
        singularName: "",
        namespaced: kind.namespaced,
        ...(version === "" ? {} : { group, version }),
        kind: bodyKind,
        verbs: [...one.verbs].toSorted(),
      };
    }),
  ]);
}

/** Builds the documents once. */
export function createDiscovery(kinds: readonly KindDefinition[]): Discovery {
  const sorted = kinds.toSorted((left, right) => (left.plural < right.plural ? -1 : 1));
  const byGroup = new Map<string, Map<string, KindDefinition[]>>();
  for (const kind of sorted) {
    const versions = byGroup.get(kind.group) ?? new Map<string, KindDefinition[]>();
    versions.set(kind.version, [...(versions.get(kind.version) ?? []), kind]);
    byGroup.set(kind.group, versions);
  }
  const groups = [...byGroup.keys()].toSorted(
    (left, right) => rank(left) - rank(right) || (left < right ? -1 : 1),
  );
  const named = groups.filter((group) => group !== "");

  const groupDocument = (group: string): JsonObject | undefined => {
    const versions = [...(byGroup.get(group)?.keys() ?? [])].map((version) => ({
      groupVersion: `${group}/${version}`,
      version,
    }));
    return versions.length === 0
      ? undefined
      : { name: group, versions, preferredVersion: versions[0] };
  };

  return {
    aggregated: (root, version) => ({
      kind: "APIGroupDiscoveryList",
      apiVersion: `apidiscovery.k8s.io/${version}`,
      metadata: {},
      items: (root === "api" ? groups.filter((group) => group === "") : named).map((group) => ({
        metadata: group === "" ? {} : { name: group },
        versions: [...(byGroup.get(group) ?? [])].map(([name, served]) => ({
          version: name,
          resources: served.map(aggregatedResource),
          freshness: "Current",
        })),
      })),
    }),
    versions: { kind: "APIVersions", versions: ["v1"], serverAddressByClientCIDRs: [] },
    groups: { kind: "APIGroupList", apiVersion: "v1", groups: named.map(groupDocument) },
    group: (group) => {
      const document = group === "" ? undefined : groupDocument(group);
      return document === undefined
        ? undefined
        : { kind: "APIGroup", apiVersion: "v1", ...document };
    },
    resources: (group, version) => {
      const served = byGroup.get(group)?.get(version);
      if (served === undefined) return undefined;
      return {
        kind: "APIResourceList",
        ...(group === "" ? {} : { apiVersion: "v1" }),
        groupVersion: group === "" ? version : `${group}/${version}`,
        resources: legacyResources(served),
      };
    },
    groupVersions: ["", ...named].flatMap((group) =>
      [...(byGroup.get(group)?.keys() ?? [])].map((version) => ({ group, version })),
    ),
  };
}
