import { randomUUID } from "node:crypto";

import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { createOpenApi } from "../openapi/openapi-v3.ts";
import type { ObjectRegistry } from "../registry/create-registry.ts";
import { resourceOf } from "../registry/write-rules.ts";
import { notFound, StatusError } from "../status-error.ts";
import type { Authorizer, JsonObject, KindDefinition, UserInfo, Verb } from "../types.ts";
import { fitsScope, parseApiPath, type ApiPath } from "./api-path.ts";
import { requireAuthorized } from "./authorize.ts";
import type { ApiCall, ApiHandler, ApiReply } from "./call.ts";
import { createDiscovery } from "./discovery.ts";
import { isWatch, parseListOptions, parseSelection } from "./list-options.ts";
import { checkNotFuture, listObject, listObjects } from "./list.ts";
import { chooseRepresentation } from "./negotiate.ts";
import {
  answerPlainPath,
  isOpenToAnonymous,
  type PlainPathDeps,
  type VersionInfo,
} from "./plain-paths.ts";
import { checkPodLogOptions } from "./pod-log-options.ts";
import { parseProxyName, relayTarget } from "./relay-target.ts";
import { representList, representObject, representWatch } from "./represent.ts";
import {
  fieldManagerOf,
  methodNotAllowed,
  parseDryRun,
  removeCollection,
  runObjectRequest,
  type RequestDeps,
  type ResourceRequest,
} from "./resource-request.ts";
import { startWatch } from "./watch.ts";

export interface ApiHandlerOptions {
  readonly kinds: readonly KindDefinition[];
  readonly registry: ObjectRegistry;
  readonly authorizer: Authorizer;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Uniform in [0, 1); spreads the ends of watches. */
  readonly random: () => number;
  /** What `/version` says. */
  readonly version: VersionInfo;
  /** Checks behind `/readyz`; all must be ok. */
  readonly readiness?: () => readonly { readonly name: string; readonly ok: boolean }[];
  /** Documents that are served as they are, such as `/openid/v1/jwks`. */
  readonly documents?: Readonly<Record<string, JsonObject>>;
  /** Node whose kubelet answers on this machine's loopback address; default none. */
  readonly loopbackNode?: string;
}

const anonymous: UserInfo = {
  name: "system:anonymous",
  uid: "",
  groups: ["system:unauthenticated"],
  extra: {},
};

type ResourcePath = Extract<ApiPath, { kind: "resource" }>;

interface Routed {
  readonly path: ResourcePath;
  readonly kind: KindDefinition;
  readonly verb: Verb;
}

function verbOf(call: ApiCall, path: ResourcePath): Verb | undefined {
  switch (call.method) {
    case "GET":
    case "HEAD":
      if (path.name !== undefined) return "get";
      return isWatch(call.query) ? "watch" : "list";
    case "POST":
      return "create";
    case "PUT":
      return "update";
    case "PATCH":
      return "patch";
    case "DELETE":
      return path.name === undefined ? "deletecollection" : "delete";
    default:
      return undefined;
  }
}

function plainNotFound(): ApiReply {
  return {
    kind: "text",
    status: 404,
    headers: { "content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff" },
    text: "404 page not found\n",
  };
}

/** Streams that a WebSocket GET opens: they change the pod, so `create` is asked for beside `get` (KEP-4006). */
const upgradeSubresources = new Set(["exec", "attach", "portforward"]);

/**
 * Whether a read would open a stream into a pod. Nothing else of a node is a stream, so that who may only read nodes/proxy
 * needs none; whatever the path is spelt like, the node takes no command without one by GET.
 */
function opensStream({ upgrade }: ApiCall, { plural, subresource = "" }: ResourcePath): boolean {
  if (plural === "pods" && upgradeSubresources.has(subresource)) return true;
  return plural === "nodes" && subresource === "proxy" && upgrade === true;
}

class Handler implements ApiHandler {
  readonly #options: ApiHandlerOptions;
  readonly #kinds: ReadonlyMap<string, KindDefinition>;
  readonly #deps: RequestDeps;
  readonly #plain: PlainPathDeps;
  readonly #requests = new Map<string, number>();
  readonly #watches = new Map<KindDefinition, number>();

  constructor(options: ApiHandlerOptions) {
    this.#options = options;
    const { registry, clock, random, kinds } = options;
    this.#deps = { registry, clock, random };
    this.#kinds = new Map(kinds.map((one) => [`${one.group}/${one.version}/${one.plural}`, one]));
    this.#plain = {
      registry,
      discovery: createDiscovery(kinds),
      openApi: createOpenApi(kinds),
      version: options.version,
      readiness: options.readiness ?? (() => []),
      documents: options.documents ?? {},
      requests: this.#requests,
      watches: this.#watches,
    };
  }

  async handle(call: ApiCall): Promise<ApiReply> {
    const warnings: string[] = [];
    const reply = await this.#answer(call, warnings);
    this.#count(call, reply);
    const headers = {
      "audit-id": randomUUID(),
      "cache-control": "no-cache, private",
      ...(warnings.length === 0
        ? {}
        : { warning: [...new Set(warnings)].map((text) => `299 - ${JSON.stringify(text)}`) }),
    };
    return reply.kind === "relay" ? reply : { ...reply, headers: { ...headers, ...reply.headers } };
  }

  async #answer(call: ApiCall, warnings: string[]): Promise<ApiReply> {
    try {
      return await this.#dispatch(call, warnings);
    } catch (error) {
      const status = this.#statusOf(call, error);
      const retry = status.details?.retryAfterSeconds;
      return {
        kind: "object",
        status: status.status,
        headers: retry === undefined ? {} : { "retry-after": String(retry) },
        object: status.toStatus(),
      };
    }
  }

  #statusOf(call: ApiCall, error: unknown): StatusError {
    if (error instanceof StatusError) return error;
    this.#options.logger.log("error", "request failed", {
      method: call.method,
      path: call.path,
      error: error instanceof Error ? (error.stack ?? error.message) : String(error),
    });
    const message = errorMessage(error);
    return new StatusError(500, "InternalError", `Internal error occurred: ${message}`, {
      causes: [{ reason: "", message }],
    });
  }

  #count(call: ApiCall, reply: ApiReply): void {
    const code = reply.kind === "object" || reply.kind === "text" ? reply.status : 200;
    const key = `${call.method} ${code}`;
    this.#requests.set(key, (this.#requests.get(key) ?? 0) + 1);
  }

  async #dispatch(call: ApiCall, warnings: string[]): Promise<ApiReply> {
    if (call.user === undefined && !isOpenToAnonymous(call.method, call.path))
      throw new StatusError(401, "Unauthorized", "Unauthorized");
    const user = call.user ?? anonymous;
    const path = parseApiPath(call.path);
    const routed = path.kind === "resource" ? this.#route(call, path) : undefined;
    if (routed === undefined) {
      if (path.kind === "resource") this.#authorizeUnknown(call, user, path);
      else this.#authorizePath(call, user);
      return answerPlainPath(this.#plain, call) ?? this.#notServed(path);
    }
    return this.#resource(call, user, routed, warnings);
  }

  #route(call: ApiCall, path: ResourcePath): Routed | undefined {
    const kind = this.#kinds.get(`${path.group}/${path.version}/${path.plural}`);
    if (kind === undefined || !fitsScope(kind, path)) return undefined;
    if (path.subresource !== undefined && !Object.hasOwn(kind.subresources, path.subresource))
      return undefined;
    if (path.rest !== "" && path.subresource !== "proxy") return undefined;
    const verb = verbOf(call, path);
    if (verb === undefined) throw methodNotAllowed();
    return { path, kind, verb };
  }

  /** A resource or version that is not there in a group that is: the API says so as an object. */
  #notServed(path: ReturnType<typeof parseApiPath>): ApiReply {
    const groups = this.#options.kinds.map(({ group }) => group);
    if (path.kind !== "resource" || !groups.includes(path.group)) return plainNotFound();
    const message = "the server could not find the requested resource";
    throw new StatusError(404, "NotFound", message, {});
  }

  #authorizePath(call: ApiCall, user: UserInfo): void {
    requireAuthorized(this.#options.authorizer, {
      user,
      verb: call.method.toLowerCase(),
      path: call.path,
      group: "",
      version: "",
      resource: "",
      subresource: "",
      namespace: "",
      name: "",
      fieldSelector: "",
    });
  }

  /** A resource that is not served is still refused first to those who may not ask for it. */
  #authorizeUnknown(call: ApiCall, user: UserInfo, path: ResourcePath): void {
    this.#authorizeResource(call, user, path, verbOf(call, path) ?? call.method.toLowerCase());
  }

  #authorizeResource(call: ApiCall, user: UserInfo, path: ResourcePath, verb: string): void {
    // The API authorizes reading one named Namespace inside that namespace.
    const namespace = path.plural === "namespaces" ? path.name : path.namespace;
    const name =
      path.subresource === "proxy" ? parseProxyName(path.name ?? "").name : (path.name ?? "");
    requireAuthorized(this.#options.authorizer, {
      user,
      verb,
      group: path.group,
      version: path.version,
      resource: path.plural,
      subresource: path.subresource ?? "",
      namespace: namespace ?? "",
      name,
      path: call.path,
      fieldSelector: call.query.get("fieldSelector") ?? "",
    });
  }

  async #resource(
    call: ApiCall,
    user: UserInfo,
    routed: Routed,
    warnings: string[],
  ): Promise<ApiReply> {
    const { path, kind, verb } = routed;
    this.#authorizeResource(call, user, path, verb);
    if (verb === "get" && opensStream(call, path))
      this.#authorizeResource(call, user, path, "create");
    this.#checkVerb(routed);
    if (kind.deprecation !== undefined) warnings.push(kind.deprecation);
    const request: ResourceRequest = {
      call,
      verb,
      kind,
      namespace: kind.namespaced ? path.namespace : undefined,
      name: path.name,
      subresource: path.subresource,
      mayCreate: () => {
        this.#authorizeResource(call, user, path, "create");
      },
      context: {
        user,
        dryRun: parseDryRun(call.query.getAll("dryRun")),
        now: this.#options.clock.now(),
        fieldManager: fieldManagerOf(call),
        warn: (message) => {
          warnings.push(message);
        },
      },
    };
    const subresource =
      path.subresource === undefined ? undefined : kind.subresources[path.subresource];
    if (subresource?.kind === "custom" && subresource.handle === undefined)
      return this.#relay(request, path);
    const representation = chooseRepresentation(call.accept);
    if (verb === "list") return this.#list(request, representation);
    if (verb === "watch") return this.#watch(request, representation);
    if (verb === "deletecollection") {
      const options = parseListOptions(call.query, false);
      const { matches } = parseSelection(kind, options);
      const items = await removeCollection(this.#deps, request, matches);
      const metadata = { resourceVersion: String(this.#options.registry.store.currentRevision) };
      return {
        kind: "object",
        status: 200,
        headers: {},
        object: listObject(kind, { items, metadata }),
      };
    }
    const answer = await runObjectRequest(this.#deps, request);
    const object = representObject(kind, answer.object, representation, {
      query: call.query,
      now: request.context.now,
    });
    return { kind: "object", status: answer.status, headers: {}, object };
  }

  #checkVerb({ path, kind, verb }: Routed): void {
    const subresource =
      path.subresource === undefined ? undefined : kind.subresources[path.subresource];
    const verbs = subresource?.verbs ?? kind.verbs;
    const createsNamed = verb === "create" && path.name !== undefined && subresource === undefined;
    const needsNamespace = kind.namespaced && path.namespace === undefined;
    const across = verb === "list" || verb === "watch";
    if (!verbs.includes(verb) || createsNamed || (needsNamespace && !across))
      throw methodNotAllowed();
  }

  #list(
    request: ResourceRequest,
    representation: ReturnType<typeof chooseRepresentation>,
  ): ApiReply {
    const { kind, call, namespace } = request;
    const options = parseListOptions(call.query, false);
    const selection = parseSelection(kind, options);
    const { store } = this.#options.registry;
    const listed = listObjects(store, kind, namespace, options, selection);
    const object = representList(kind, listed, representation, {
      query: call.query,
      now: request.context.now,
    });
    return { kind: "object", status: 200, headers: {}, object };
  }

  #watch(
    request: ResourceRequest,
    representation: ReturnType<typeof chooseRepresentation>,
  ): ApiReply {
    const { kind, call, namespace } = request;
    const options = parseListOptions(call.query, true);
    const selection = parseSelection(kind, options);
    const { registry, clock, random } = this.#options;
    checkNotFuture(registry.store, options.resourceVersion);
    const count = (by: number): void => {
      this.#watches.set(kind, (this.#watches.get(kind) ?? 0) + by);
    };
    const deps = { store: registry.store, clock, random, onEnd: () => count(-1) };
    const target = { kind, namespace, options, selection };
    const represent = representWatch(kind, representation, {
      query: call.query,
      now: () => clock.now(),
    });
    const stream = startWatch(deps, target, call.signal);
    count(1);
    return { kind: "watch", headers: { "content-type": "application/json" }, stream, represent };
  }

  #relay(request: ResourceRequest, path: ResourcePath): ApiReply {
    const { kind, namespace = "", call, context } = request;
    const name = path.name ?? "";
    const { loopbackNode, registry } = this.#options;
    const subresource = path.subresource ?? "";
    const plain = subresource === "proxy" ? parseProxyName(name).name : name;
    if (subresource === "log") checkPodLogOptions(name, call.query);
    if (registry.get(resourceOf(kind), namespace, plain) === undefined) throw notFound(kind, plain);
    const at = { namespace, name: plain };
    registry.admit(resourceOf(kind), {
      operation: "CONNECT",
      subresource,
      at,
      object: undefined,
      context,
    });
    const { query } = call;
    const wanted = { kind, namespace, name, subresource, rest: path.rest, query };
    const target = relayTarget(wanted, registry, loopbackNode);
    if (target !== undefined) return { kind: "relay", target };
    return { kind: "text", status: 204, headers: {}, text: "" };
  }
}

/** The API server without sockets: routing, authorization, negotiation, the write path, watches. */
export function createApiHandler(options: ApiHandlerOptions): ApiHandler {
  return new Handler(options);
}
