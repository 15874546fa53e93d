import type { Cidr } from "../lib/cidr.ts";
import { isRecord } from "../lib/guard.ts";
import type { Logger } from "../lib/log.ts";
import type { BootstrapObject } from "./auth/bootstrap-rbac.ts";
import { bootstrapObjects } from "./bootstrap-objects.ts";
import { ensureNameService } from "./name-service.ts";
import type { JsonObject, ObjectRef, Registry, RequestContext } from "./types.ts";

const autoUpdate = "rbac.authorization.kubernetes.io/autoupdate";

/** The members of `wanted` that `present` lacks, appended to it; undefined when there are none. */
function completed(present: unknown, wanted: unknown): readonly unknown[] | undefined {
  const have: readonly unknown[] = Array.isArray(present) ? present : [];
  const want: readonly unknown[] = Array.isArray(wanted) ? wanted : [];
  const known = new Set(have.map((each) => JSON.stringify(each)));
  const missing = want.filter((each) => !known.has(JSON.stringify(each)));
  return missing.length === 0 ? undefined : [...have, ...missing];
}

/** The stored role or binding with what it lacks of the wanted one; undefined when it lacks nothing or opted out. */
export function reconciledRbac(
  current: Readonly<JsonObject>,
  wanted: Readonly<JsonObject>,
): JsonObject | undefined {
  const metadata = isRecord(current["metadata"]) ? current["metadata"] : {};
  const annotations = isRecord(metadata["annotations"]) ? metadata["annotations"] : {};
  if (annotations[autoUpdate] !== "true") return undefined;
  const rules =
    wanted["aggregationRule"] === undefined
      ? completed(current["rules"], wanted["rules"])
      : undefined;
  const subjects = completed(current["subjects"], wanted["subjects"]);
  if (rules === undefined && subjects === undefined) return undefined;
  return {
    ...current,
    ...(rules === undefined ? {} : { rules }),
    ...(subjects === undefined ? {} : { subjects }),
  };
}

function refOf(wanted: BootstrapObject): ObjectRef {
  const metadata = isRecord(wanted.object["metadata"]) ? wanted.object["metadata"] : {};
  const name = typeof metadata["name"] === "string" ? metadata["name"] : "";
  return { namespace: wanted.namespace, name };
}

/**
 * Creates what every cluster holds and is missing, and completes the bootstrap roles of an older version. What people
 * added stays.
 */
export function bootstrapCluster(
  registry: Registry,
  context: RequestContext,
  cluster: { readonly serviceNetwork: Cidr; readonly logger: Logger },
): void {
  for (const wanted of bootstrapObjects()) {
    const at = refOf(wanted);
    const current = registry.get(wanted.resource, at.namespace, at.name);
    if (current === undefined) {
      registry.create(wanted.resource, at.namespace, wanted.object, context, "kube-apiserver");
      continue;
    }
    if (!wanted.resource.endsWith(".rbac.authorization.k8s.io")) continue;
    if (reconciledRbac(current, wanted.object) === undefined) continue;
    registry.update(
      wanted.resource,
      at,
      (object) => reconciledRbac(object, wanted.object) ?? object,
      { context, fieldManager: "kube-apiserver" },
    );
  }
  ensureNameService(registry, context, cluster.serviceNetwork, cluster.logger);
}
