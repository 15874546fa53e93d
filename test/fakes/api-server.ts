/**
 * A small API server in memory for component tests: plain HTTP on loopback, generic over resources, no validation. It
 * keeps the rules that clients rely on: one resource version, watches without gaps, selectors that turn changes into
 * additions and deletions, streaming lists, graceful pod deletion, preconditions, finalizers, Status errors.
 */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import {
  createServer as createTlsServer,
  type Server as TlsServer,
  type ServerOptions as TlsServerOptions,
} from "node:https";
import type { Socket } from "node:net";

import { createHttpClient, type HttpClient } from "../../src/api/http-client.ts";
import type { Kubeconfig } from "../../src/api/kubeconfig-types.ts";
import {
  matchesFields,
  matchesLabels,
  parseFieldSelector,
  parseLabelSelector,
} from "../../src/api/labels.ts";
import { type Stored, objectKey } from "../../src/api/object.ts";
import { apiVersion, type Resource } from "../../src/api/resource.ts";
import * as knownResources from "../../src/api/resources.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { asRecord, isRecord, type JsonRecord, stringMap } from "../../src/lib/guard.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { jsonPatch, mergePatch, strategicPatch } from "./patches.ts";

/** One request the server has seen. */
export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly contentType: string;
  readonly userAgent: string;
  readonly authorization: string | undefined;
  readonly body: unknown;
}

/** An answer that replaces the real one. `"hang"` = none at all, `"reset"` = the connection is cut. */
export type Injected =
  | {
      readonly status: number;
      readonly reason?: string;
      readonly message?: string;
      readonly retryAfterSeconds?: number;
      /** Sent instead of a Status. */
      readonly text?: string;
    }
  | "hang"
  | "reset";

export interface FakeApiServer {
  readonly url: string;
  /** Speaks to the server over HTTP as the agent does. */
  readonly client: HttpClient;
  readonly kubeconfig: Kubeconfig;
  /** Everything asked so far, oldest first. */
  readonly requests: readonly SeenRequest[];
  /** The resource version of the newest change. */
  readonly resourceVersion: number;
  /** Creates or replaces an object as if somebody else had done it; missing metadata is filled in. */
  put<T>(resource: Resource<T>, object: T): Stored<T>;
  /** Removes an object at once, whatever its grace period. */
  remove(resource: Resource<unknown>, key: string): void;
  /** `key` is `namespace/name` or `name`. */
  get<T>(resource: Resource<T>, key: string): Stored<T> | undefined;
  list<T>(resource: Resource<T>): Stored<T>[];
  /** Answers the next `times` (default 1) matching requests with `answer`. */
  inject(matches: (request: SeenRequest) => boolean, answer: Injected, times?: number): void;
  /** Cuts the connections of all watches. */
  tearWatches(): void;
  /** Ends all watches as a server does on its own timeout. */
  endWatches(): void;
  /** Watches stay open but nothing is sent any more, until `false`. New watches are not affected. */
  stallWatches(stalled: boolean): void;
  /** Sends a raw line to all watches. */
  sendToWatches(line: string): void;
  sendBookmarks(): void;
  /** Forgets the past: watches from an older resource version get 410. */
  compact(): void;
  /** Sends 410 to all watches and ends them. */
  expireWatches(): void;
  /** How the server answers `sendInitialEvents`: it does (default), 422, or an ERROR event as over an old etcd. */
  streamingLists: "served" | "invalid" | "error-event";
  /** When false, watch requests get 500. */
  watchesServed: boolean;
  readonly watchCount: number;
  close(): Promise<void>;
}

interface Change {
  readonly resourceVersion: number;
  readonly collection: string;
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  readonly object: JsonRecord;
  readonly previous: JsonRecord | undefined;
}

interface Watcher {
  readonly collection: string;
  readonly selects: (object: JsonRecord) => boolean;
  readonly kind: string;
  readonly apiVersion: string;
  readonly response: ServerResponse;
  stalled: boolean;
}

interface Target {
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly namespace: string;
  readonly name: string;
  readonly subresource: string;
}

class Refusal extends Error {
  readonly answer: Exclude<Injected, string>;

  constructor(status: number, reason: string, message: string) {
    super(message);
    this.answer = { status, reason, message };
  }
}

const kinds = new Map<string, Resource<unknown>>(
  Object.values(knownResources).map((resource) => [
    `${resource.group}/${resource.plural}`,
    resource as Resource<unknown>,
  ]),
);

function parseTarget(path: string): Target {
  const parts = path.split("/").slice(1).map(decodeURIComponent);
  const [root = "", ...rest] = parts;
  const group = root === "apis" ? (rest.shift() ?? "") : "";
  const version = rest.shift() ?? "";
  if ((root !== "api" && root !== "apis") || version === "" || rest.length === 0) {
    throw new Refusal(404, "NotFound", "the server could not find the requested resource");
  }
  let namespace = "";
  if (
    rest[0] === "namespaces" &&
    rest.length > 2 &&
    !["status", "finalize"].includes(rest[2] ?? "")
  ) {
    namespace = rest[1] ?? "";
    rest.splice(0, 2);
  }
  const [plural = "", name = "", subresource = ""] = rest;
  return { group, version, plural, namespace, name, subresource };
}

function metadataOf(object: JsonRecord): JsonRecord {
  return asRecord(object["metadata"], "$.metadata");
}

function keyOf(object: JsonRecord): string {
  const { namespace, name } = metadataOf(object);
  return objectKey(
    typeof namespace === "string" ? namespace : undefined,
    typeof name === "string" ? name : "",
  );
}

function fieldValue(object: JsonRecord, field: string): string {
  let value: unknown = object;
  for (const part of field.split(".")) value = isRecord(value) ? value[part] : undefined;
  return typeof value === "string" || typeof value === "boolean" || typeof value === "number"
    ? String(value)
    : "";
}

function selection(target: Target, query: URLSearchParams): (object: JsonRecord) => boolean {
  const labels = parseLabelSelector(query.get("labelSelector") ?? "");
  const fields = parseFieldSelector(query.get("fieldSelector") ?? "");
  return (object) => {
    const metadata = metadataOf(object);
    if (target.namespace !== "" && metadata["namespace"] !== target.namespace) return false;
    if (target.name !== "" && metadata["name"] !== target.name) return false;
    return (
      matchesLabels(labels, stringMap(metadata["labels"])) &&
      matchesFields(fields, (field) => fieldValue(object, field))
    );
  };
}

class FakeServer implements FakeApiServer {
  readonly requests: SeenRequest[] = [];
  readonly kubeconfig: Kubeconfig;
  readonly client: HttpClient;
  readonly url: string;
  streamingLists: FakeApiServer["streamingLists"] = "served";
  watchesServed = true;
  readonly #server: Server | TlsServer;
  readonly #sockets = new Set<Socket>();
  readonly #collections = new Map<string, Map<string, JsonRecord>>();
  readonly #changes: Change[] = [];
  readonly #watchers = new Set<Watcher>();
  readonly #injections: {
    matches: (request: SeenRequest) => boolean;
    answer: Injected;
    times: number;
  }[] = [];
  #resourceVersion = 100;
  #oldest = 100;

  constructor(server: Server | TlsServer, url: string, sockets: Set<Socket>) {
    this.#server = server;
    this.#sockets = sockets;
    this.url = url;
    this.kubeconfig = {
      path: "fake",
      context: "fake",
      namespace: "default",
      cluster: { name: "fake", server: url, insecureSkipTLSVerify: true },
      user: { name: "fake" },
    };
    this.client = createHttpClient({
      kubeconfig: this.kubeconfig,
      userAgent: "remora-test",
      clock: systemClock,
      logger: silentLogger,
    });
  }

  get resourceVersion(): number {
    return this.#resourceVersion;
  }

  get watchCount(): number {
    return this.#watchers.size;
  }

  put<T>(resource: Resource<T>, object: T): Stored<T> {
    const copy = structuredClone(asRecord(object, "object"));
    copy["apiVersion"] = apiVersion(resource);
    copy["kind"] = resource.kind;
    const metadata: JsonRecord = { ...asRecord(copy["metadata"] ?? {}, "metadata") };
    copy["metadata"] = metadata;
    if (resource.namespaced) metadata["namespace"] ??= "default";
    else delete metadata["namespace"];
    const collection = `${resource.group}/${resource.plural}`;
    const previous = this.#collection(collection).get(keyOf(copy));
    const before: JsonRecord = previous === undefined ? {} : metadataOf(previous);
    metadata["uid"] ??= before["uid"] ?? randomUUID();
    metadata["creationTimestamp"] ??= before["creationTimestamp"] ?? new Date().toISOString();
    return this.#store(collection, copy) as unknown as Stored<T>;
  }

  remove(resource: Resource<unknown>, key: string): void {
    this.#delete(`${resource.group}/${resource.plural}`, key);
  }

  get<T>(resource: Resource<T>, key: string): Stored<T> | undefined {
    const object = this.#collection(`${resource.group}/${resource.plural}`).get(key);
    return structuredClone(object) as unknown as Stored<T> | undefined;
  }

  list<T>(resource: Resource<T>): Stored<T>[] {
    const objects = this.#collection(`${resource.group}/${resource.plural}`).values();
    return structuredClone([...objects]) as unknown as Stored<T>[];
  }

  inject(matches: (request: SeenRequest) => boolean, answer: Injected, times = 1): void {
    this.#injections.push({ matches, answer, times });
  }

  tearWatches(): void {
    for (const { response } of this.#watchers) response.socket?.destroy();
    this.#watchers.clear();
  }

  endWatches(): void {
    for (const { response } of this.#watchers) response.end();
    this.#watchers.clear();
  }

  stallWatches(stalled: boolean): void {
    for (const watcher of this.#watchers) watcher.stalled = stalled;
  }

  sendToWatches(line: string): void {
    for (const { response, stalled } of this.#watchers) if (!stalled) response.write(`${line}\n`);
  }

  sendBookmarks(): void {
    for (const watcher of this.#watchers) this.#bookmark(watcher);
  }

  compact(): void {
    this.#resourceVersion += 1;
    this.#oldest = this.#resourceVersion;
    this.#changes.length = 0;
  }

  expireWatches(): void {
    this.compact();
    const object = statusBody(410, "Expired", "too old resource version: 1 (2055)");
    this.sendToWatches(JSON.stringify({ type: "ERROR", object }));
    this.endWatches();
  }

  async close(): Promise<void> {
    await this.client.close();
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    if (this.#server.listening) await once(this.#server, "close");
  }

  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://fake");
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const text = Buffer.concat(chunks).toString();
    const body: unknown = text === "" ? undefined : JSON.parse(text);
    const seen: SeenRequest = {
      method: request.method ?? "GET",
      path: url.pathname,
      query: url.searchParams,
      contentType: request.headers["content-type"] ?? "",
      userAgent: request.headers["user-agent"] ?? "",
      authorization: request.headers.authorization,
      body,
    };
    this.requests.push(seen);
    const injection = this.#injections.find(({ matches, times }) => times > 0 && matches(seen));
    if (injection !== undefined) {
      injection.times -= 1;
      if (injection.answer === "hang") return;
      if (injection.answer === "reset") request.socket.destroy();
      else refuse(response, injection.answer);
      return;
    }
    try {
      const target = parseTarget(url.pathname);
      if (seen.method === "GET" && url.searchParams.get("watch") === "true") {
        this.#watch(target, url.searchParams, response);
        return;
      }
      const [status, answer] = this.#answer(seen, target);
      response.writeHead(status, { "content-type": "application/json" });
      response.end(JSON.stringify(answer));
    } catch (error) {
      const answer =
        error instanceof Refusal
          ? error.answer
          : { status: 400, reason: "BadRequest", message: String(error) };
      refuse(response, answer);
    }
  }

  #collection(name: string): Map<string, JsonRecord> {
    let collection = this.#collections.get(name);
    if (collection === undefined) {
      collection = new Map();
      this.#collections.set(name, collection);
    }
    return collection;
  }

  #store(collection: string, object: JsonRecord): JsonRecord {
    const objects = this.#collection(collection);
    const key = keyOf(object);
    const previous = objects.get(key);
    this.#resourceVersion += 1;
    metadataOf(object)["resourceVersion"] = String(this.#resourceVersion);
    objects.set(key, object);
    this.#publish({
      resourceVersion: this.#resourceVersion,
      collection,
      type: previous === undefined ? "ADDED" : "MODIFIED",
      object: structuredClone(object),
      previous,
    });
    return structuredClone(object);
  }

  #delete(collection: string, key: string): JsonRecord | undefined {
    const objects = this.#collection(collection);
    const previous = objects.get(key);
    if (previous === undefined) return undefined;
    objects.delete(key);
    this.#resourceVersion += 1;
    const object = structuredClone(previous);
    metadataOf(object)["resourceVersion"] = String(this.#resourceVersion);
    const type = "DELETED";
    this.#publish({
      resourceVersion: this.#resourceVersion,
      collection,
      type,
      object,
      previous,
    });
    return object;
  }

  #publish(change: Change): void {
    this.#changes.push(change);
    for (const watcher of this.#watchers) {
      if (watcher.collection === change.collection) send(watcher, change);
    }
  }

  #bookmark(watcher: Watcher, annotations?: JsonRecord): void {
    if (watcher.stalled) return;
    const metadata = {
      resourceVersion: String(this.#resourceVersion),
      ...(annotations === undefined ? {} : { annotations }),
    };
    const object = { kind: watcher.kind, apiVersion: watcher.apiVersion, metadata };
    watcher.response.write(`${JSON.stringify({ type: "BOOKMARK", object })}\n`);
  }

  #watch(target: Target, query: URLSearchParams, response: ServerResponse): void {
    if (!this.watchesServed) throw new Refusal(500, "InternalError", "watches are not served");
    const streaming = query.get("sendInitialEvents") === "true";
    if (streaming && this.streamingLists === "invalid") {
      throw new Refusal(
        422,
        "Invalid",
        'ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled',
      );
    }
    const collection = `${target.group}/${target.plural}`;
    const kind = kinds.get(collection)?.kind ?? "Object";
    const watcher: Watcher = {
      collection,
      selects: selection(target, query),
      kind,
      apiVersion: target.group === "" ? target.version : `${target.group}/${target.version}`,
      response,
      stalled: false,
    };
    response.writeHead(200, { "content-type": "application/json", "transfer-encoding": "chunked" });
    response.flushHeaders();
    if (streaming && this.streamingLists === "error-event") {
      const object = statusBody(
        500,
        "InternalError",
        "storage feature RequestWatchProgress is disabled",
      );
      response.end(`${JSON.stringify({ type: "ERROR", object })}\n`);
      return;
    }
    const from = Number(query.get("resourceVersion") ?? "0");
    if (streaming || from === 0) {
      for (const object of this.#collection(collection).values()) {
        if (watcher.selects(object)) {
          response.write(`${JSON.stringify({ type: "ADDED", object })}\n`);
        }
      }
      if (streaming) this.#bookmark(watcher, { "k8s.io/initial-events-end": "true" });
    } else if (from < this.#oldest) {
      const object = statusBody(
        410,
        "Expired",
        `too old resource version: ${from} (${this.#resourceVersion})`,
      );
      response.end(`${JSON.stringify({ type: "ERROR", object })}\n`);
      return;
    } else {
      for (const change of this.#changes) {
        if (change.resourceVersion > from && change.collection === collection) {
          send(watcher, change);
        }
      }
    }
    this.#watchers.add(watcher);
    response.on("close", () => this.#watchers.delete(watcher));
  }

  #answer(request: SeenRequest, target: Target): [number, unknown] {
    switch (request.method) {
      case "GET":
        if (target.name === "") return [200, this.#list(request, target)];
        return [200, this.#existing(target)];
      case "POST":
        return this.#create(request, target);
      case "PUT":
        return [200, this.#update(target, asRecord(request.body, "body"))];
      case "PATCH":
        return [200, this.#patch(request, target)];
      case "DELETE":
        return [200, this.#deleteRequest(request, target)];
      default:
        throw new Refusal(
          405,
          "MethodNotAllowed",
          "the server does not allow this method on the requested resource",
        );
    }
  }

  #list({ query }: SeenRequest, target: Target): JsonRecord {
    const selects = selection(target, query);
    const kind = kinds.get(`${target.group}/${target.plural}`)?.kind ?? "Object";
    const limit = Number(query.get("limit") ?? "0");
    const token = query.get("continue") ?? "";
    const [tokenVersion = "", after = ""] = Buffer.from(token, "base64").toString().split("\0");
    if (token !== "" && Number(tokenVersion) < this.#oldest) {
      throw new Refusal(410, "Expired", "The provided continue parameter is too old");
    }
    const all = [...this.#collection(`${target.group}/${target.plural}`).entries()]
      .filter(([, object]) => selects(object))
      .toSorted(([a], [b]) => (a < b ? -1 : 1));
    const rest = all.filter(([key]) => token === "" || key > after);
    const page = limit > 0 ? rest.slice(0, limit) : rest;
    const version = token === "" ? String(this.#resourceVersion) : tokenVersion;
    const more =
      page.length < rest.length
        ? { continue: Buffer.from(`${version}\0${page.at(-1)?.[0] ?? ""}`).toString("base64") }
        : {};
    return {
      kind: `${kind}List`,
      apiVersion: target.group === "" ? target.version : `${target.group}/${target.version}`,
      metadata: { resourceVersion: version, ...more },
      // As the real server: items of a list carry neither kind nor apiVersion.
      items: page.map(([, { kind: _kind, apiVersion: _apiVersion, ...object }]) => object),
    };
  }

  #existing(target: Target): JsonRecord {
    const key = objectKey(target.namespace, target.name);
    const object = this.#collection(`${target.group}/${target.plural}`).get(key);
    if (object !== undefined) return structuredClone(object);
    throw notFound(target);
  }

  #create(request: SeenRequest, target: Target): [number, unknown] {
    const body = asRecord(request.body, "body");
    if (target.subresource === "binding") {
      const pod = this.#existing(target);
      const node = asRecord(body["target"], "target")["name"];
      const bound = { ...pod, spec: { ...asRecord(pod["spec"] ?? {}, "spec"), nodeName: node } };
      this.#store(`${target.group}/${target.plural}`, bound);
      return [201, success()];
    }
    if (target.subresource === "eviction") {
      const options = isRecord(body["deleteOptions"]) ? body["deleteOptions"] : {};
      this.#deleteRequest({ ...request, body: options }, target);
      return [201, success()];
    }
    if (target.subresource === "token") {
      const expirationTimestamp = new Date(Date.now() + 3_600_000).toISOString();
      return [201, { ...body, status: { token: `token-of-${target.name}`, expirationTimestamp } }];
    }
    const metadata: JsonRecord = { ...asRecord(body["metadata"] ?? {}, "metadata") };
    if (target.namespace !== "") metadata["namespace"] = target.namespace;
    if (typeof metadata["generateName"] === "string") {
      metadata["name"] ??= metadata["generateName"] + randomUUID().slice(0, 5);
    }
    metadata["uid"] = randomUUID();
    metadata["creationTimestamp"] = new Date().toISOString();
    const object = { ...structuredClone(body), metadata };
    const collection = `${target.group}/${target.plural}`;
    if (this.#collection(collection).has(keyOf(object))) {
      const name = String(metadata["name"]);
      throw new Refusal(409, "AlreadyExists", `${describe(target)} "${name}" already exists`);
    }
    return [201, this.#store(collection, object)];
  }

  #update(target: Target, body: JsonRecord): JsonRecord {
    const old = this.#existing(target);
    const [before, after] = [metadataOf(old), metadataOf(body)];
    const wanted = after["resourceVersion"];
    if (wanted !== undefined && wanted !== "" && wanted !== before["resourceVersion"]) {
      throw conflict(
        target,
        "the object has been modified; please apply your changes to the latest version and try again",
      );
    }
    if (after["uid"] !== undefined && after["uid"] !== before["uid"]) {
      throw conflict(
        target,
        `Precondition failed: UID in precondition: ${JSON.stringify(after["uid"])}, UID in object meta: ${String(before["uid"])}`,
      );
    }
    const next: JsonRecord =
      target.subresource === "status"
        ? { ...old, ...("status" in body ? { status: body["status"] } : {}) }
        : { ...body, ...("status" in old ? { status: old["status"] } : {}) };
    next["metadata"] = {
      ...(target.subresource === "status" ? before : after),
      name: before["name"],
      ...(before["namespace"] === undefined ? {} : { namespace: before["namespace"] }),
      uid: before["uid"],
      creationTimestamp: before["creationTimestamp"],
      resourceVersion: before["resourceVersion"],
      ...(before["deletionTimestamp"] === undefined
        ? {}
        : {
            deletionTimestamp: before["deletionTimestamp"],
            deletionGracePeriodSeconds: before["deletionGracePeriodSeconds"],
          }),
    };
    const collection = `${target.group}/${target.plural}`;
    if (JSON.stringify(next) === JSON.stringify(old)) return old;
    const stored = this.#store(collection, next);
    const finished =
      metadataOf(stored)["deletionTimestamp"] !== undefined &&
      !hasFinalizers(stored) &&
      metadataOf(stored)["deletionGracePeriodSeconds"] === 0;
    return finished ? (this.#delete(collection, keyOf(stored)) ?? stored) : stored;
  }

  #patch(request: SeenRequest, target: Target): JsonRecord {
    const old = this.#existing(target);
    const apply = {
      "application/json-patch+json": jsonPatch,
      "application/merge-patch+json": mergePatch,
      "application/strategic-merge-patch+json": strategicPatch,
    }[request.contentType];
    if (apply === undefined) {
      throw new Refusal(
        415,
        "UnsupportedMediaType",
        `the body of the request was in an unknown format - ${request.contentType}`,
      );
    }
    return this.#update(target, asRecord(apply(old, request.body), "patched"));
  }

  #deleteRequest(request: SeenRequest, target: Target): JsonRecord {
    if (target.name === "") {
      const selects = selection(target, request.query);
      for (const [key, object] of this.#collection(`${target.group}/${target.plural}`)) {
        if (selects(object)) this.#delete(`${target.group}/${target.plural}`, key);
      }
      return success();
    }
    const object = this.#existing(target);
    const metadata = metadataOf(object);
    const options = isRecord(request.body) ? request.body : {};
    const preconditions = isRecord(options["preconditions"]) ? options["preconditions"] : {};
    for (const [field, title] of [
      ["uid", "UID"],
      ["resourceVersion", "ResourceVersion"],
    ] as const) {
      const wanted = preconditions[field];
      if (wanted !== undefined && wanted !== metadata[field]) {
        throw conflict(
          target,
          `Precondition failed: ${title} in precondition: ${JSON.stringify(wanted)}, ${title} in object meta: ${String(metadata[field])}`,
        );
      }
    }
    const grace = this.#grace(target, object, request, options);
    const collection = `${target.group}/${target.plural}`;
    if (grace === 0 && !hasFinalizers(object)) {
      return this.#delete(collection, keyOf(object)) ?? object;
    }
    const current = metadata["deletionGracePeriodSeconds"];
    if (metadata["deletionTimestamp"] !== undefined && Number(current) <= grace) return object;
    metadata["deletionTimestamp"] = new Date(Date.now() + grace * 1000).toISOString();
    metadata["deletionGracePeriodSeconds"] = grace;
    return this.#store(collection, object);
  }

  #grace(target: Target, object: JsonRecord, request: SeenRequest, options: JsonRecord): number {
    if (target.plural !== "pods") return 0;
    const spec = isRecord(object["spec"]) ? object["spec"] : {};
    const phase = isRecord(object["status"]) ? object["status"]["phase"] : undefined;
    const asked = options["gracePeriodSeconds"] ?? request.query.get("gracePeriodSeconds");
    if (asked !== null && asked !== undefined) return Number(asked);
    if (spec["nodeName"] === undefined || phase === "Succeeded" || phase === "Failed") return 0;
    return Number(spec["terminationGracePeriodSeconds"] ?? 30);
  }
}

function hasFinalizers(object: JsonRecord): boolean {
  const { finalizers } = metadataOf(object);
  return Array.isArray(finalizers) && finalizers.length > 0;
}

/** A change as one watch sees it: leaving the selection looks like a deletion, entering it like a creation. */
function send(watcher: Watcher, change: Change): void {
  if (watcher.stalled) return;
  const now = change.type !== "DELETED" && watcher.selects(change.object);
  const before = change.previous !== undefined && watcher.selects(change.previous);
  if (!now && !before) return;
  let type = "MODIFIED";
  if (!before) type = "ADDED";
  if (!now) type = "DELETED";
  watcher.response.write(`${JSON.stringify({ type, object: change.object })}\n`);
}

function describe(target: Target): string {
  return target.group === "" ? target.plural : `${target.plural}.${target.group}`;
}

function notFound(target: Target): Refusal {
  return new Refusal(404, "NotFound", `${describe(target)} "${target.name}" not found`);
}

function conflict(target: Target, why: string): Refusal {
  return new Refusal(
    409,
    "Conflict",
    `Operation cannot be fulfilled on ${describe(target)} "${target.name}": ${why}`,
  );
}

function success(): JsonRecord {
  return { kind: "Status", apiVersion: "v1", metadata: {}, status: "Success" };
}

function statusBody(code: number, reason: string, message: string): JsonRecord {
  const status = "Failure";
  return { kind: "Status", apiVersion: "v1", metadata: {}, status, message, reason, code };
}

function refuse(response: ServerResponse, answer: Exclude<Injected, string>): void {
  const { status, reason = "", message = "injected", retryAfterSeconds, text } = answer;
  const after = retryAfterSeconds === undefined ? {} : { "retry-after": String(retryAfterSeconds) };
  if (text !== undefined) {
    response.writeHead(status, { "content-type": "text/plain", ...after });
    response.end(text);
    return;
  }
  response.writeHead(status, { "content-type": "application/json", ...after });
  response.end(JSON.stringify(statusBody(status, reason, message)));
}

/** Starts the server on a free loopback port. With `tls`, over HTTPS 1.1. */
export async function startFakeApiServer(
  options: { readonly tls?: TlsServerOptions } = {},
): Promise<FakeApiServer> {
  let fake: FakeServer | undefined;
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    fake?.handle(request, response).catch(() => response.destroy());
  };
  const server =
    options.tls === undefined ? createServer(listener) : createTlsServer(options.tls, listener);
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const scheme = options.tls === undefined ? "http" : "https";
  fake = new FakeServer(server, `${scheme}://127.0.0.1:${port}`, sockets);
  return fake;
}
