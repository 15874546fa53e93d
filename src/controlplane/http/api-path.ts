import type { KindDefinition } from "../types.ts";

/** A parsed request path. */
export type ApiPath =
  | { readonly kind: "other" }
  | { readonly kind: "group-version"; readonly group: string; readonly version: string }
  | {
      readonly kind: "resource";
      readonly group: string;
      readonly version: string;
      readonly plural: string;
      /** Undefined: all namespaces, or a cluster-scoped resource. */
      readonly namespace: string | undefined;
      /** Undefined for a collection. */
      readonly name: string | undefined;
      readonly subresource: string | undefined;
      /** What follows the subresource, still encoded, with its leading slash: `/metrics` of `.../proxy/metrics`. */
      readonly rest: string;
    };

const namespaceSubresources = new Set(["status", "finalize"]);

function decode(segment: string): string | undefined {
  try {
    return decodeURIComponent(segment);
  } catch {
    return undefined;
  }
}

/** For who is behind a proxy `logs` and `logs/` are two pages. */
function restPath(segments: readonly string[], directory: boolean): string {
  if (segments.length === 0) return "";
  return `/${segments.join("/")}${directory ? "/" : ""}`;
}

/** Splits `/api/v1/...` and `/apis/GROUP/VERSION/...`; anything else, malformed encoding included, is `other`. */
export function parseApiPath(path: string): ApiPath {
  const raw = path.split("/").slice(1);
  const directory = raw.at(-1) === "";
  if (directory) raw.pop();
  const parts = raw.map(decode);
  if (parts.includes(undefined) || parts.includes("")) {
    // `proxy//x` is legal after the subresource; everywhere else an empty segment is not.
    if (!raw.includes("proxy")) return { kind: "other" };
  }
  const text = parts.map((part) => part ?? "");
  const core = text[0] === "api";
  if (!core && text[0] !== "apis") return { kind: "other" };
  const head = core ? 2 : 3;
  if (text.length < head) return { kind: "other" };
  const group = core ? "" : (text[1] ?? "");
  const version = text[head - 1] ?? "";
  const tail = text.slice(head);
  if (tail.length === 0) return { kind: "group-version", group, version };
  let at = head;
  let namespace: string | undefined;
  const namespaced =
    tail[0] === "namespaces" &&
    tail.length > 2 &&
    !(tail.length === 3 && namespaceSubresources.has(tail[2] ?? ""));
  if (namespaced) {
    namespace = tail[1];
    at += 2;
  }
  return {
    kind: "resource",
    group,
    version,
    namespace,
    plural: text[at] ?? "",
    name: text[at + 1],
    subresource: text[at + 2],
    rest: restPath(raw.slice(at + 3), directory),
  };
}

/** Whether the path addresses the kind as its scope demands. */
export function fitsScope(
  kind: KindDefinition,
  path: { readonly namespace: string | undefined; readonly name: string | undefined },
): boolean {
  if (kind.namespaced) return path.namespace !== undefined || path.name === undefined;
  return path.namespace === undefined;
}
