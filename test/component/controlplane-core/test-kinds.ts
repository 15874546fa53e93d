import { randomUUID } from "node:crypto";

import { isRecord, optionalString, type JsonRecord } from "../../../src/lib/guard.ts";
import { createApiHandler } from "../../../src/controlplane/http/api-handler.ts";
import type { ApiCall, ApiHandler, ApiReply } from "../../../src/controlplane/http/call.ts";
import {
  createRegistry,
  type ObjectRegistry,
} from "../../../src/controlplane/registry/create-registry.ts";
import { openStore } from "../../../src/controlplane/store/open-store.ts";
import type { Store } from "../../../src/controlplane/store/store.ts";
import type {
  AdmissionPlugin,
  Authorizer,
  KindDefinition,
  RequestContext,
  Strategy,
  UserInfo,
  Verb,
} from "../../../src/controlplane/types.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";

const verbs: readonly Verb[] = [
  "create",
  "delete",
  "deletecollection",
  "get",
  "list",
  "patch",
  "update",
  "watch",
];

export const plainStrategy: Strategy = {
  applyDefaults: () => undefined,
  prepareForCreate: () => undefined,
  prepareForUpdate: () => undefined,
  validateCreate: () => [],
  validateUpdate: () => [],
  allowCreateOnUpdate: false,
  allowUnconditionalUpdate: true,
  validateName: (name) => (/^[a-z0-9.-]+$/.test(name) ? [] : ["bad name"]),
};

const nameColumn = { name: "Name", type: "string", format: "name", description: "", priority: 0 };

function nameOf(object: Readonly<JsonRecord>): string {
  const metadata = object["metadata"];
  return isRecord(metadata) ? String(metadata["name"]) : "";
}

export function kindOf(
  plural: string,
  kind: string,
  more: Partial<KindDefinition> = {},
): KindDefinition {
  return {
    group: "",
    version: "v1",
    kind,
    plural,
    singular: kind.toLowerCase(),
    shortNames: [],
    categories: [],
    namespaced: true,
    verbs,
    schema: `io.k8s.api.core.v1.${kind}`,
    durability: "durable",
    strategy: plainStrategy,
    subresources: {},
    fieldSelectors: {},
    table: { columns: [{ ...nameColumn, type: "string" }], row: (object) => [nameOf(object)] },
    ...more,
  };
}

function member(object: Readonly<JsonRecord>, outer: string, inner: string): unknown {
  const value = object[outer];
  return isRecord(value) ? value[inner] : undefined;
}

/** A pod-like kind: graceful deletion, a status subresource, a field selector. */
export const podKind = kindOf("pods", "Pod", {
  shortNames: ["po"],
  strategy: {
    ...plainStrategy,
    returnsDeletedObject: true,
    deletionGraceSeconds: (object, requested) => {
      if (member(object, "spec", "nodeName") === undefined) return undefined;
      return requested ?? 30;
    },
    prepareForCreate: (object) => {
      object["status"] = { phase: "Pending" };
    },
    prepareForUpdate: (object, old) => {
      object["status"] = old["status"];
    },
    validateCreate: (object) =>
      member(object, "spec", "containers") === undefined
        ? [{ type: "FieldValueRequired", field: "spec.containers", message: "Required value" }]
        : [],
  },
  fieldSelectors: {
    "spec.nodeName": (object) => optionalString(member(object, "spec", "nodeName")) ?? "",
  },
  subresources: {
    status: {
      kind: "stored",
      verbs: ["get", "patch", "update"],
      strategy: {
        ...plainStrategy,
        prepareForUpdate: (object, old) => {
          object["spec"] = old["spec"];
        },
      },
    },
    log: { kind: "custom", verbs: ["get"], gvk: { group: "", version: "v1", kind: "Pod" } },
    exec: {
      kind: "custom",
      verbs: ["create", "get"],
      gvk: { group: "", version: "v1", kind: "PodExecOptions" },
    },
    proxy: {
      kind: "custom",
      verbs: ["create", "get"],
      gvk: { group: "", version: "v1", kind: "PodProxyOptions" },
    },
  },
});

export const configMapKind = kindOf("configmaps", "ConfigMap");
export const nodeKind = kindOf("nodes", "Node", { namespaced: false });
export const eventKind = kindOf("events", "Event", { durability: "ephemeral", ttlSeconds: 3600 });

export const admin: UserInfo = {
  name: "admin",
  uid: "",
  groups: ["system:masters", "system:authenticated"],
  extra: {},
};

export function contextAt(now: number, dryRun = false): RequestContext {
  return { user: admin, dryRun, now, warn: () => undefined };
}

export const allowAll: Authorizer = { authorize: () => ({ allowed: true, reason: "" }) };

export interface World {
  readonly store: Store;
  readonly registry: ObjectRegistry;
  readonly handler: ApiHandler;
  readonly request: (
    method: string,
    path: string,
    body?: unknown,
    more?: Partial<ApiCall>,
  ) => Promise<ApiReply>;
  /** Status and body of a request that answers with an object. */
  readonly ask: (
    method: string,
    path: string,
    body?: unknown,
    more?: Partial<ApiCall>,
  ) => Promise<{
    readonly status: number;
    readonly body: JsonRecord;
    readonly headers: JsonRecord;
  }>;
}

/** A control plane core over a store in memory. */
export function world(
  options: {
    readonly kinds?: readonly KindDefinition[];
    readonly admission?: readonly AdmissionPlugin[];
    readonly authorizer?: Authorizer;
    readonly historySize?: number;
    readonly random?: () => number;
  } = {},
): World {
  const kinds = options.kinds ?? [podKind, configMapKind, nodeKind, eventKind];
  const store = openStore({
    path: ":memory:",
    ephemeralPath: ":memory:",
    isEphemeral: (resource) => resource === "events",
    now: () => Date.now(),
    historySize: options.historySize ?? 4096,
  });
  const random = options.random ?? Math.random;
  const registry = createRegistry({
    store,
    kinds,
    admission: options.admission ?? [],
    now: () => Date.now(),
    uuid: randomUUID,
    random,
  });
  const handler = createApiHandler({
    kinds,
    registry,
    authorizer: options.authorizer ?? allowAll,
    clock: systemClock,
    logger: silentLogger,
    random,
    version: {
      major: "1",
      minor: "36",
      gitVersion: "v1.36.2",
      gitCommit: "",
      gitTreeState: "",
      buildDate: "",
      goVersion: "",
      compiler: "",
      platform: "",
    },
  });
  const request: World["request"] = (method, target, body, more = {}) => {
    const [path = "", query = ""] = target.split("?");
    return handler.handle({
      method,
      path,
      query: new URLSearchParams(query),
      accept: "application/json",
      userAgent: "test/1",
      ifNoneMatch: "",
      body:
        body === undefined
          ? undefined
          : {
              kind: "bytes",
              bytes: Buffer.from(typeof body === "string" ? body : JSON.stringify(body)),
              contentType: "application/json",
            },
      user: admin,
      signal: new AbortController().signal,
      ...more,
    });
  };
  return {
    store,
    registry,
    handler,
    request,
    ask: async (...parameters) => {
      const reply = await request(...parameters);
      if (reply.kind !== "object") throw new Error(`expected an object, got ${reply.kind}`);
      return { status: reply.status, body: { ...reply.object }, headers: { ...reply.headers } };
    },
  };
}

export function pod(name: string, more: JsonRecord = {}): JsonRecord {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name },
    spec: { containers: [{ name: "c", image: "nginx" }] },
    ...more,
  };
}

/** The value at a path such as `metadata.labels.app`. */
export function at(object: unknown, path: string): unknown {
  let value = object;
  for (const part of path.split(".")) {
    if (Array.isArray(value)) value = value[Number(part)];
    else value = isRecord(value) ? value[part] : undefined;
  }
  return value;
}

/** A JSON object of whatever was found; empty when it was none. */
export function record(value: unknown): JsonRecord {
  return isRecord(value) ? value : {};
}
