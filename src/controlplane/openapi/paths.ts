import type {
  CustomSubresource,
  JsonObject,
  KindDefinition,
  StoredSubresource,
  Verb,
} from "../types.ts";

const ref = (name: string): JsonObject => ({ $ref: `#/components/schemas/${name}` });
const STATUS = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

function query(name: string, type: string, description: string): JsonObject {
  return { name, in: "query", description, schema: { type, uniqueItems: true } };
}

const pretty = query("pretty", "string", "If 'true', then the output is pretty printed.");

const writeParameters = [
  query("dryRun", "string", "`All`: run everything and store nothing."),
  query("fieldManager", "string", "The name under which changed fields are recorded."),
  query("fieldValidation", "string", "`Ignore`, `Warn` or `Strict` for unknown and double fields."),
];

const listParameters = [
  query("allowWatchBookmarks", "boolean", "Ask for BOOKMARK events in a watch."),
  query("continue", "string", "Token of the next page."),
  query("fieldSelector", "string", "Restrict by fields."),
  query("labelSelector", "string", "Restrict by labels."),
  query("limit", "integer", "Items per page."),
  query("resourceVersion", "string", "The version to read from."),
  query("resourceVersionMatch", "string", "How resourceVersion is meant."),
  query("sendInitialEvents", "boolean", "Start a watch with the present state."),
  query("timeoutSeconds", "integer", "End of the call."),
  query("watch", "boolean", "Stream changes."),
];

const deleteParameters = [
  query("dryRun", "string", "`All`: run everything and store nothing."),
  query("gracePeriodSeconds", "integer", "Seconds before the object is deleted."),
  query("propagationPolicy", "string", "`Orphan`, `Background` or `Foreground`."),
];

const methods: Readonly<Record<Verb, string>> = {
  get: "get",
  list: "get",
  watch: "get",
  create: "post",
  update: "put",
  patch: "patch",
  delete: "delete",
  deletecollection: "delete",
};

const actions: Readonly<Record<Verb, string>> = {
  get: "get",
  list: "list",
  watch: "watch",
  create: "post",
  update: "put",
  patch: "patch",
  delete: "delete",
  deletecollection: "deletecollection",
};

const patchTypes = [
  "application/json-patch+json",
  "application/merge-patch+json",
  "application/strategic-merge-patch+json",
];

function parametersOf(verb: Verb): readonly JsonObject[] {
  if (verb === "list" || verb === "watch") return listParameters;
  if (verb === "delete" || verb === "deletecollection") return deleteParameters;
  return verb === "get" ? [] : writeParameters;
}

function content(schema: JsonObject, types: readonly string[]): JsonObject {
  return { content: Object.fromEntries(types.map((type) => [type, { schema }])) };
}

function requestBody(verb: Verb, schema: string): JsonObject {
  switch (verb) {
    case "create":
    case "update":
      return { requestBody: { ...content(ref(schema), ["*/*"]), required: true } };
    case "patch":
      return {
        requestBody: {
          ...content(ref("io.k8s.apimachinery.pkg.apis.meta.v1.Patch"), patchTypes),
          required: true,
        },
      };
    case "delete":
    case "deletecollection":
      return {
        requestBody: content(ref("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"), ["*/*"]),
      };
    case "get":
    case "list":
    case "watch":
      return {};
  }
}

interface Target {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly schema: string;
}

function operation(verb: Verb, target: Target, id: string): JsonObject {
  const reply =
    verb === "list"
      ? `${target.schema}List`
      : verb === "delete" || verb === "deletecollection"
        ? STATUS
        : target.schema;
  const { group, version, kind } = target;
  return {
    operationId: `${actions[verb]}${id}`,
    parameters: parametersOf(verb),
    ...requestBody(verb, target.schema),
    responses: { "200": { description: "OK", ...content(ref(reply), ["application/json"]) } },
    "x-kubernetes-action": actions[verb],
    "x-kubernetes-group-version-kind": { group, version, kind },
  };
}

function pathParameters(path: string): JsonObject[] {
  return ["namespace", "name"]
    .filter((name) => path.includes(`{${name}}`))
    .map((name) => ({
      name,
      in: "path",
      required: true,
      schema: { type: "string", uniqueItems: true },
    }));
}

function item(path: string, verbs: readonly Verb[], target: Target, id: string): JsonObject {
  const out: JsonObject = { parameters: [...pathParameters(path), pretty] };
  for (const verb of verbs) {
    // GET is described as the list; a watch is the same path with `watch=true`.
    if (verb !== "watch") out[methods[verb]] = operation(verb, target, id);
  }
  return out;
}

function subresourceTarget(
  kind: KindDefinition,
  subresource: StoredSubresource | CustomSubresource,
): Target {
  const { group, version, schema } = kind;
  if (subresource.kind === "stored") return { group, version, kind: kind.kind, schema };
  return { ...subresource.gvk, schema: STATUS };
}

function pascal(text: string): string {
  return text
    .split(/[^A-Za-z0-9]+/)
    .map((part) => part.slice(0, 1).toUpperCase() + part.slice(1))
    .join("");
}

/** The path items of one kind. */
export function pathsOf(kind: KindDefinition): JsonObject {
  const { group, version, plural, schema } = kind;
  const root = group === "" ? `/api/${version}` : `/apis/${group}/${version}`;
  const target: Target = { group, version, kind: kind.kind, schema };
  const collection = kind.namespaced
    ? `${root}/namespaces/{namespace}/${plural}`
    : `${root}/${plural}`;
  const one = `${collection}/{name}`;
  const scope = kind.namespaced ? "Namespaced" : "";
  const id = `${pascal(group === "" ? "core" : group)}${pascal(version)}${scope}${kind.kind}`;
  const has = (...verbs: readonly Verb[]): Verb[] =>
    verbs.filter((verb) => kind.verbs.includes(verb));
  const out: JsonObject = {
    [collection]: item(collection, has("list", "create", "deletecollection"), target, id),
  };
  const single = has("get", "update", "patch", "delete");
  if (single.length > 0) out[one] = item(one, single, target, id);
  if (kind.namespaced && kind.verbs.includes("list")) {
    const all = `${root}/${plural}`;
    out[all] = item(all, ["list"], target, `${id}ForAllNamespaces`);
  }
  for (const [name, subresource] of Object.entries(kind.subresources)) {
    const path = `${one}/${name}`;
    const below = subresourceTarget(kind, subresource);
    out[path] = item(path, subresource.verbs, below, `${id}${pascal(name)}`);
  }
  return out;
}
