import {
  openApiV2,
  openApiV2Protobuf,
  openApiV2ProtobufAccept,
  openApiV2ProtobufType,
} from "../openapi/openapi-v2.ts";
import type { OpenApi } from "../openapi/openapi-v3.ts";
import type { ObjectRegistry } from "../registry/create-registry.ts";
import type { JsonObject, KindDefinition } from "../types.ts";
import type { ApiCall, ApiReply } from "./call.ts";
import { etagOf, type Discovery } from "./discovery.ts";
import { discoveryVersion } from "./negotiate.ts";

/** The body of `/version`. */
export interface VersionInfo {
  readonly major: string;
  readonly minor: string;
  readonly gitVersion: string;
  readonly gitCommit: string;
  readonly gitTreeState: string;
  readonly buildDate: string;
  readonly goVersion: string;
  readonly compiler: string;
  readonly platform: string;
}

export interface PlainPathDeps {
  readonly registry: ObjectRegistry;
  readonly discovery: Discovery;
  readonly openApi: OpenApi;
  readonly version: VersionInfo;
  readonly readiness: () => readonly { readonly name: string; readonly ok: boolean }[];
  readonly documents: Readonly<Record<string, JsonObject>>;
  /** `METHOD CODE` to count. */
  readonly requests: ReadonlyMap<string, number>;
  /** Watches that are served now. */
  readonly watches: ReadonlyMap<KindDefinition, number>;
}

/** Paths that need no credentials (ClusterRole system:public-info-viewer); the authorizer still decides. */
export function isPublicPath(path: string): boolean {
  return /^\/(healthz|livez|readyz|version)(\/|$)/.test(path);
}

const clusterInfoPath = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

/**
 * Whether a request may come without credentials at all: the public paths, and the one object with which a machine
 * that joins learns whom to trust (AuthenticationConfiguration's `anonymous.conditions`, KEP-4633).
 */
export function isOpenToAnonymous(method: string, path: string): boolean {
  return isPublicPath(path) || (method === "GET" && path === clusterInfoPath);
}

function json(object: JsonObject, headers: Record<string, string> = {}): ApiReply {
  return { kind: "object", status: 200, headers, object };
}

function text(status: number, body: string): ApiReply {
  const headers = {
    "content-type": "text/plain; charset=utf-8",
    "x-content-type-options": "nosniff",
  };
  return { kind: "text", status, headers, text: body };
}

function health(deps: PlainPathDeps, call: ApiCall, name: string): ApiReply {
  const checks = [{ name: "ping", ok: true }, ...(name === "livez" ? [] : deps.readiness())];
  const failed = checks.some((check) => !check.ok);
  const lines = checks.map((check) =>
    check.ok ? `[+]${check.name} ok` : `[-]${check.name} failed: reason withheld`,
  );
  if (failed) return text(500, `${lines.join("\n")}\n${name} check failed\n`);
  return text(
    200,
    call.query.has("verbose") ? `${lines.join("\n")}\n${name} check passed\n` : "ok",
  );
}

function metrics(deps: PlainPathDeps): ApiReply {
  const lines = ["# TYPE apiserver_request_total counter"];
  for (const [key, count] of deps.requests) {
    const [verb, code] = key.split(" ");
    lines.push(`apiserver_request_total{verb="${verb}",code="${code}"} ${count}`);
  }
  lines.push("# TYPE apiserver_longrunning_requests gauge");
  for (const [{ group, plural }, count] of deps.watches) {
    const labels = `verb="WATCH",group="${group}",resource="${plural}"`;
    lines.push(`apiserver_longrunning_requests{${labels}} ${count}`);
  }
  lines.push("# TYPE apiserver_resource_objects gauge");
  for (const [resource, kind] of deps.registry.kinds) {
    const count = [...deps.registry.list(resource)].length;
    lines.push(
      `apiserver_resource_objects{group="${kind.group}",resource="${kind.plural}"} ${count}`,
    );
  }
  return {
    kind: "text",
    status: 200,
    headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8" },
    text: `${lines.join("\n")}\n`,
  };
}

function discoveryRoot(deps: PlainPathDeps, call: ApiCall, root: "api" | "apis"): ApiReply {
  const version = discoveryVersion(call.accept);
  if (version === undefined) {
    return json(root === "api" ? deps.discovery.versions : deps.discovery.groups, {
      vary: "Accept",
    });
  }
  const document = deps.discovery.aggregated(root, version);
  const etag = etagOf(document);
  const headers = { etag, vary: "Accept", "cache-control": "public" };
  if (call.ifNoneMatch === etag) return { kind: "text", status: 304, headers, text: "" };
  return json(document, {
    ...headers,
    "content-type": `application/json;g=apidiscovery.k8s.io;v=${version};as=APIGroupDiscoveryList`,
  });
}

function discoveryBelow(deps: PlainPathDeps, parts: readonly string[]): ApiReply | undefined {
  const [root, first = "", second] = parts;
  if (root === "api") {
    const document = parts.length === 2 ? deps.discovery.resources("", first) : undefined;
    return document === undefined ? undefined : json(document);
  }
  const document =
    second === undefined
      ? deps.discovery.group(first)
      : parts.length === 3
        ? deps.discovery.resources(first, second)
        : undefined;
  return document === undefined ? undefined : json(document);
}

function openApiV2Reply(call: ApiCall): ApiReply {
  const headers = { vary: "Accept" };
  if (!call.accept.includes(openApiV2ProtobufAccept)) return json(openApiV2, headers);
  return {
    kind: "text",
    status: 200,
    headers: { ...headers, "content-type": openApiV2ProtobufType },
    // Every byte of it is ASCII.
    text: openApiV2Protobuf().toString("latin1"),
  };
}

function openApi(
  deps: PlainPathDeps,
  call: ApiCall,
  parts: readonly string[],
): ApiReply | undefined {
  if (parts[1] === "v2" && parts.length === 2) return openApiV2Reply(call);
  if (parts[1] !== "v3") return undefined;
  if (parts.length === 2) return json(deps.openApi.index, { "content-type": "application/json" });
  const name = parts.slice(2).join("/");
  const hash = deps.openApi.hash(name);
  if (hash === undefined) return undefined;
  const etag = `"${hash}"`;
  // The hash is part of the URL, so that the document behind it may be kept for ever.
  const fixed = call.query.get("hash") === hash;
  const headers = {
    etag,
    vary: "Accept",
    ...(fixed ? { "cache-control": "public, immutable, max-age=31536000" } : {}),
  };
  if (call.ifNoneMatch === etag) return { kind: "text", status: 304, headers, text: "" };
  const body = deps.openApi.document(name);
  if (body === undefined) return undefined;
  return {
    kind: "text",
    status: 200,
    headers: { ...headers, "content-type": "application/json" },
    text: body,
  };
}

/** Answers what is no resource: discovery, OpenAPI, version, health, metrics. Undefined: no such path. */
export function answerPlainPath(deps: PlainPathDeps, call: ApiCall): ApiReply | undefined {
  if (call.method !== "GET" && call.method !== "HEAD") return undefined;
  const parts = call.path.split("/").filter((part) => part !== "");
  const [root] = parts;
  switch (root) {
    case undefined:
      return json({
        paths: [
          "/api",
          "/apis",
          "/healthz",
          "/livez",
          "/metrics",
          "/openapi/v2",
          "/openapi/v3",
          "/readyz",
          "/version",
        ],
      });
    case "api":
    case "apis":
      return parts.length === 1 ? discoveryRoot(deps, call, root) : discoveryBelow(deps, parts);
    case "openapi":
      return openApi(deps, call, parts);
    case "version":
      return parts.length === 1 ? json({ ...deps.version }) : undefined;
    case "healthz":
    case "livez":
    case "readyz":
      return parts.length === 1 ? health(deps, call, root) : undefined;
    case "metrics":
      return parts.length === 1 ? metrics(deps) : undefined;
    default: {
      const document = deps.documents[call.path];
      return document === undefined ? undefined : json(document);
    }
  }
}
