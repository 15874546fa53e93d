import type { TLSSocket } from "node:tls";

import type { ApiClient } from "../../api/client.ts";
import type { TokenReviewSpec, TokenReviewStatus } from "../../api/types.gen.ts";
import type { Clock } from "../../lib/clock.ts";
import { isRecord, optionalString, stringMap } from "../../lib/guard.ts";
import { ExpiringCache } from "./expiring-cache.ts";

/** Who sends a request (authentication.k8s.io UserInfo). */
export interface User {
  readonly name: string;
  readonly uid: string;
  readonly groups: readonly string[];
  readonly extra: Readonly<Record<string, readonly string[]>>;
}

/** `authentication.webhook.cacheTTL` */
const tokenCacheMs = 120_000;
const reviewDeadlineMs = 10_000;

/** The user that a client certificate's subject names: CN is the name, each O a group. */
export function certificateUser(subject: unknown): User | undefined {
  if (!isRecord(subject)) return undefined;
  const name = optionalString(subject["CN"]);
  if (name === undefined || name === "") return undefined;
  const organizations = subject["O"];
  const groups = (Array.isArray(organizations) ? organizations : [organizations]).filter(
    (group) => typeof group === "string",
  );
  return { name, uid: "", groups: [...groups, "system:authenticated"], extra: {} };
}

/** Tells who speaks, by verified client certificate or by bearer token through TokenReview. */
export class Authenticator {
  readonly #client: ApiClient;
  readonly #tokens: ExpiringCache<User | undefined>;

  constructor(options: { readonly client: ApiClient; readonly clock: Clock }) {
    this.#client = options.client;
    this.#tokens = new ExpiringCache(options.clock);
  }

  /**
   * Undefined for nobody: no credential, or one that does not hold.
   *
   * @throws {ApiError} and others when the API server could not be asked about a token.
   */
  async authenticate(
    socket: Pick<TLSSocket, "authorized" | "getPeerCertificate">,
    authorization: string | undefined,
    signal: AbortSignal,
  ): Promise<User | undefined> {
    if (socket.authorized) {
      const user = certificateUser(socket.getPeerCertificate().subject);
      if (user !== undefined) return user;
    }
    const token = /^Bearer +(\S+)$/i.exec(authorization ?? "")?.[1];
    if (token === undefined) return undefined;
    return this.#tokens.get(
      token,
      () => this.#review(token, signal),
      () => tokenCacheMs,
    );
  }

  async #review(token: string, signal: AbortSignal): Promise<User | undefined> {
    const spec: TokenReviewSpec = { token };
    const answer = await this.#client.request({
      method: "POST",
      path: "/apis/authentication.k8s.io/v1/tokenreviews",
      body: { apiVersion: "authentication.k8s.io/v1", kind: "TokenReview", metadata: {}, spec },
      deadlineMs: reviewDeadlineMs,
      signal,
    });
    const status = isRecord(answer) ? answer["status"] : undefined;
    return isRecord(status) ? reviewedUser(status) : undefined;
  }
}

function reviewedUser(status: TokenReviewStatus | Record<string, unknown>): User | undefined {
  const user: unknown = status.user;
  if (status.authenticated !== true || !isRecord(user)) return undefined;
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
