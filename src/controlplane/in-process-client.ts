import type { ApiClient, ApiRequest, Query, WatchRequest } from "../api/client.ts";
import { ApiError, ApiUnavailableError } from "../api/errors.ts";
import { optionalNumber, optionalString, isRecord } from "../lib/guard.ts";
import type { ApiCall, ApiHandler, ApiReply, CallBody } from "./http/call.ts";
import type { JsonObject, UserInfo } from "./types.ts";

export interface InProcessClientOptions {
  readonly handler: ApiHandler;
  /** Under whose name the requests are authorized. */
  readonly user: UserInfo;
  /** Name in managedFields; default the user's name without `system:`. */
  readonly userAgent?: string;
}

function searchParams(query: Query): URLSearchParams {
  const out = new URLSearchParams();
  for (const [name, value] of Object.entries(query))
    if (value !== undefined) out.set(name, String(value));
  return out;
}

function errorOf(
  method: string,
  path: string,
  status: number,
  body: Readonly<JsonObject>,
): ApiError {
  const details = isRecord(body["details"]) ? body["details"] : {};
  return new ApiError(
    status,
    optionalString(body["reason"]) ?? "",
    optionalString(body["message"]) ?? `${method} ${path}: HTTP ${status}`,
    { retryAfterSeconds: optionalNumber(details["retryAfterSeconds"]) },
  );
}

class InProcessClient implements ApiClient {
  readonly #handler: ApiHandler;
  readonly #user: UserInfo;
  readonly #userAgent: string;

  constructor(options: InProcessClientOptions) {
    this.#handler = options.handler;
    this.#user = options.user;
    this.#userAgent = options.userAgent ?? options.user.name.replace(/^.*:/, "");
  }

  async request(request: ApiRequest): Promise<unknown> {
    const { method, path, signal } = request;
    signal.throwIfAborted();
    const body: CallBody | undefined =
      request.body === undefined
        ? undefined
        : {
            kind: "json",
            // As it would arrive over the wire: without undefined members, and nobody else's object.
            value: JSON.parse(JSON.stringify(request.body)) as unknown,
            contentType: request.contentType ?? "application/json",
          };
    const reply = await this.#send(method, path, {
      query: request.query ?? {},
      body,
      signal,
    });
    switch (reply.kind) {
      case "object":
        if (reply.status >= 300) throw errorOf(method, path, reply.status, reply.object);
        return reply.object;
      case "text": {
        if (reply.status >= 300) throw new ApiError(reply.status, "", reply.text.trim());
        return reply.text;
      }
      case "watch":
        reply.stream.end();
        throw new ApiError(400, "BadRequest", `${path} is a watch: use watch()`);
      case "relay":
        throw new ApiError(501, "NotImplemented", `${path} needs a connection of its own`);
    }
  }

  async *watch(request: WatchRequest): AsyncIterable<unknown> {
    const { path, query, signal } = request;
    signal.throwIfAborted();
    const watched = { ...query, watch: true };
    const reply = await this.#send("GET", path, { query: watched, body: undefined, signal });
    if (reply.kind === "object") throw errorOf("GET", path, reply.status, reply.object);
    if (reply.kind !== "watch") throw new ApiUnavailableError(`${path} cannot be watched`);
    for await (const event of reply.stream) {
      signal.throwIfAborted();
      yield reply.represent(event);
    }
    signal.throwIfAborted();
  }

  #send(
    method: string,
    path: string,
    request: {
      readonly query: Query;
      readonly body: CallBody | undefined;
      readonly signal: AbortSignal;
    },
  ): Promise<ApiReply> {
    const call: ApiCall = {
      method,
      path,
      query: searchParams(request.query),
      accept: "application/json",
      userAgent: this.#userAgent,
      ifNoneMatch: "",
      body: request.body,
      user: this.#user,
      signal: request.signal,
    };
    return this.#handler.handle(call);
  }
}

/**
 * An {@link ApiClient} that calls the API server in this process: same authorization, same write path, no sockets.
 * The objects it returns are frozen, because they are the store's own.
 */
export function createInProcessClient(options: InProcessClientOptions): ApiClient {
  return new InProcessClient(options);
}
