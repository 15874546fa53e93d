import type { ApiClient } from "../../../api/client.ts";
import type { Resource } from "../../../api/resource.ts";
import { asRecord, asString, isRecord } from "../../../lib/guard.ts";

/** A served resource with what may be done to it. */
export interface ServedResource extends Resource<unknown> {
  readonly verbs: ReadonlySet<string>;
}

/** `deployments.apps`, `pods`: one name per resource whatever its version. */
export function groupResource(resource: Resource<unknown>): string {
  return resource.group === "" ? resource.plural : `${resource.plural}.${resource.group}`;
}

async function resourcesOf(
  client: ApiClient,
  groupVersion: { readonly group: string; readonly version: string },
  signal: AbortSignal,
): Promise<readonly ServedResource[]> {
  const { group, version } = groupVersion;
  const path = group === "" ? `/api/${version}` : `/apis/${group}/${version}`;
  const list = asRecord(await client.request({ method: "GET", path, signal }), path);
  const resources = Array.isArray(list["resources"]) ? list["resources"] : [];
  return resources.flatMap((entry: unknown): readonly ServedResource[] => {
    if (!isRecord(entry)) return [];
    const plural = asString(entry["name"], `${path}.resources.name`);
    // Subresources are parts of an object, not objects.
    if (plural.includes("/")) return [];
    const verbs = Array.isArray(entry["verbs"]) ? entry["verbs"] : [];
    return [
      {
        group,
        version,
        plural,
        kind: asString(entry["kind"], `${path}.resources.kind`),
        namespaced: entry["namespaced"] === true,
        verbs: new Set(verbs.filter((verb) => typeof verb === "string")),
      },
    ];
  });
}

/**
 * Every resource the server serves, each in its group's preferred version.
 *
 * @throws what the client throws; a partial answer would make content look gone.
 */
export async function discoverResources(
  client: ApiClient,
  signal: AbortSignal,
): Promise<readonly ServedResource[]> {
  const groups = asRecord(await client.request({ method: "GET", path: "/apis", signal }), "/apis");
  const preferred = (Array.isArray(groups["groups"]) ? groups["groups"] : []).flatMap(
    (entry: unknown) => {
      if (!isRecord(entry) || !isRecord(entry["preferredVersion"])) return [];
      return [
        {
          group: asString(entry["name"], "/apis.groups.name"),
          version: asString(entry["preferredVersion"]["version"], "/apis.groups.version"),
        },
      ];
    },
  );
  const lists = await Promise.all(
    [{ group: "", version: "v1" }, ...preferred].map((each) => resourcesOf(client, each, signal)),
  );
  return lists.flat();
}
