import type { IncomingHttpHeaders } from "node:http";

import type { TokenReviewSpec, TokenReviewStatus } from "../../api/types.gen.ts";
import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import { isRecord, type JsonRecord, optionalString, stringMap } from "../../lib/guard.ts";
import type { CertifiedSocket, ClientCertificates } from "./client-certificates.ts";
import { ExpiringCache } from "./expiring-cache.ts";
import type { Reviews } from "./reviews.ts";

/** Who sends a request (authentication.k8s.io UserInfo). */
export interface User {
  readonly name: string;
  readonly uid: string;
  readonly groups: readonly string[];
  readonly extra: Readonly<Record<string, readonly string[]>>;
}

const authenticated = "system:authenticated";
const unauthenticated = "system:unauthenticated";

const anonymous: User = {
  name: "system:anonymous",
  uid: "",
  groups: [unauthenticated],
  extra: {},
};

/** `authentication.webhook.cacheTTL` */
const tokenCacheMs = 120_000;

export interface AuthenticatorOptions {
  readonly settings: AgentConfig["authentication"];
  readonly certificates: ClientCertificates;
  readonly reviews: Reviews;
  readonly clock: Clock;
}

/** Tells who speaks: by client certificate, else by bearer token through TokenReview, else nobody or anonymous. */
export class Authenticator {
  readonly #options: AuthenticatorOptions;
  readonly #cacheMs: number;
  readonly #tokens: ExpiringCache<User | undefined>;

  constructor(options: AuthenticatorOptions) {
    this.#options = options;
    this.#cacheMs = options.settings?.webhookCacheTTLMs ?? tokenCacheMs;
    this.#tokens = new ExpiringCache(options.clock);
  }

  /**
   * Undefined for nobody: a caller without any credential, where those are not let in as anonymous.
   *
   * @throws {Error} a credential that does not hold, or an API server that could not be asked about it: such a caller
   *   is not taken for one without any.
   */
  async authenticate(
    socket: CertifiedSocket,
    headers: IncomingHttpHeaders,
    signal: AbortSignal,
  ): Promise<User | undefined> {
    const { certificates, clock, settings } = this.#options;
    const failures: unknown[] = [];
    try {
      const user = certificates.userOf(socket, clock.now());
      if (user !== undefined) return withAuthenticated(user);
    } catch (error) {
      // As upstream: who also shows a token is known by that.
      failures.push(error);
    }
    const token = settings?.webhookEnabled === false ? undefined : bearerToken(headers);
    if (token !== undefined) return withAuthenticated(await this.#tokenUser(token, signal));
    if (failures.length > 0) throw failures[0];
    return settings?.anonymousEnabled === true ? anonymous : undefined;
  }

  async #tokenUser(token: string, signal: AbortSignal): Promise<User> {
    const user = await this.#tokens.get(
      token,
      async (inner) => reviewedUser(await this.#options.reviews.token(reviewSpec(token), inner)),
      () => this.#cacheMs,
      signal,
    );
    if (user === undefined) throw new Error("invalid bearer token");
    return user;
  }
}

function reviewSpec(token: string): TokenReviewSpec {
  return { token };
}

function withAuthenticated(user: User): User {
  const { groups } = user;
  if (groups.includes(authenticated) || groups.includes(unauthenticated)) return user;
  return { ...user, groups: [...groups, authenticated] };
}

const socketTokenPrefix = "base64url.bearer.authorization.k8s.io.";

/** The token of the Authorization header, or the one that browsers hide among a WebSocket's protocols. */
export function bearerToken(headers: IncomingHttpHeaders): string | undefined {
  const [scheme = "", token = ""] = (headers.authorization ?? "").trim().split(" ");
  if (scheme.toLowerCase() === "bearer" && token !== "") return token;
  const offered = (headers["sec-websocket-protocol"] ?? "").split(",");
  const hidden = offered.map((name) => name.trim()).find((n) => n.startsWith(socketTokenPrefix));
  if (hidden === undefined) return undefined;
  const text = Buffer.from(hidden.slice(socketTokenPrefix.length), "base64url").toString("utf8");
  return text === "" ? undefined : text;
}

/** @throws {Error} with the API server's words when it could not tell. */
function reviewedUser(status: TokenReviewStatus | JsonRecord): User | undefined {
  const user: unknown = status.user;
  if (status.authenticated !== true) {
    const error = optionalString(status.error);
    // Not an answer to be kept: the next one may be another.
    if (error !== undefined && error !== "") throw new Error(error);
    return undefined;
  }
  if (!isRecord(user)) return undefined;
  const { groups, extra } = user;
  const names = stringMap(user);
  return {
    name: names["username"] ?? "",
    uid: names["uid"] ?? "",
    groups: stringList(groups),
    extra: isRecord(extra)
      ? Object.fromEntries(Object.entries(extra).map(([key, list]) => [key, stringList(list)]))
      : {},
  };
}

function stringList(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((entry) => typeof entry === "string") : [];
}
