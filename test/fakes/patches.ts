import { isRecord, type JsonRecord } from "../../src/lib/guard.ts";

/** RFC 7386. */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isRecord(patch)) return structuredClone(patch);
  const out: JsonRecord = isRecord(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete out[key];
    else out[key] = mergePatch(out[key], value);
  }
  return out;
}

/** patchMergeKey of the lists that agents patch; a list that is not named here is replaced as a whole. */
const mergeKeys: Readonly<Record<string, string>> = {
  addresses: "type",
  conditions: "type",
  containers: "name",
  env: "name",
  ephemeralContainers: "name",
  hostIPs: "ip",
  imagePullSecrets: "name",
  initContainers: "name",
  ownerReferences: "uid",
  podIPs: "ip",
  ports: "port",
  secrets: "name",
  volumeMounts: "mountPath",
  volumes: "name",
};

/** Strategic merge patch, with `$patch: replace|delete`, `$retainKeys` and `$deleteFromPrimitiveList/field`. */
export function strategicPatch(target: unknown, patch: unknown): unknown {
  if (!isRecord(patch)) return structuredClone(patch);
  const { $patch: directive, ...members } = patch;
  const out: JsonRecord = isRecord(target) && directive !== "replace" ? { ...target } : {};
  const retained = members["$retainKeys"];
  if (Array.isArray(retained)) {
    for (const key of Object.keys(out)) if (!retained.includes(key)) delete out[key];
  }
  for (const [key, value] of Object.entries(members)) {
    if (key === "$retainKeys" || key.startsWith("$setElementOrder/")) continue;
    if (key.startsWith("$deleteFromPrimitiveList/")) {
      const field = key.slice(key.indexOf("/") + 1);
      const [current, gone] = [out[field], value];
      if (Array.isArray(current) && Array.isArray(gone)) {
        out[field] = current.filter((member) => !gone.includes(member));
      }
    } else if (value === null) delete out[key];
    else if (Array.isArray(value)) out[key] = mergeList(key, out[key], value);
    else out[key] = strategicPatch(out[key], value);
  }
  return out;
}

function mergeList(field: string, target: unknown, patch: readonly unknown[]): unknown[] {
  if (!Array.isArray(target)) return dropDirectives(patch);
  const current: readonly unknown[] = target;
  if (field === "finalizers") return [...new Set<unknown>([...current, ...patch])];
  const key = mergeKeys[field];
  if (key === undefined || patch.some((item) => isRecord(item) && item["$patch"] === "replace")) {
    return dropDirectives(patch);
  }
  let out: unknown[] = [...current];
  for (const item of patch) {
    if (!isRecord(item)) continue;
    const index = out.findIndex((member) => isRecord(member) && member[key] === item[key]);
    if (item["$patch"] === "delete") out = out.filter((_, at) => at !== index);
    else if (index < 0) out.push(strategicPatch({}, item));
    else out[index] = strategicPatch(out[index], item);
  }
  return out;
}

function dropDirectives(items: readonly unknown[]): unknown[] {
  return items
    .filter((item) => !(isRecord(item) && "$patch" in item && item["$patch"] !== "merge"))
    .map((item) => structuredClone(item));
}

/** RFC 6902: add, remove, replace and test. */
export function jsonPatch(target: unknown, operations: unknown): unknown {
  if (!Array.isArray(operations)) throw new Error("a JSON patch is a list");
  let document: unknown = structuredClone(target);
  for (const operation of operations as unknown[]) {
    if (!isRecord(operation) || typeof operation["path"] !== "string") {
      throw new Error("a JSON patch operation needs op and path");
    }
    document = applyOperation(document, operation, operation["path"]);
  }
  return document;
}

function applyOperation(document: unknown, operation: JsonRecord, path: string): unknown {
  const { op, value } = operation;
  const segments = path
    .split("/")
    .slice(1)
    .map((segment) => segment.replaceAll("~1", "/").replaceAll("~0", "~"));
  const last = segments.pop();
  if (last === undefined) return op === "test" ? document : structuredClone(value);
  let parent: unknown = document;
  for (const segment of segments) parent = member(parent, segment);
  if (op === "test") {
    if (JSON.stringify(member(parent, last)) !== JSON.stringify(value)) {
      throw new Error(`testing path ${path} failed`);
    }
  } else if (Array.isArray(parent)) {
    const index = last === "-" ? parent.length : Number(last);
    if (op === "add") parent.splice(index, 0, structuredClone(value));
    else if (op === "remove") parent.splice(index, 1);
    else parent[index] = structuredClone(value);
  } else if (isRecord(parent)) {
    if (op === "remove") delete parent[last];
    else parent[last] = structuredClone(value);
  } else {
    throw new Error(`path ${path} does not exist`);
  }
  return document;
}

function member(parent: unknown, segment: string): unknown {
  if (Array.isArray(parent)) return (parent as unknown[])[Number(segment)];
  return isRecord(parent) ? parent[segment] : undefined;
}
