import type { ApiClient } from "../../api/client.ts";
import type { SubjectAccessReviewSpec } from "../../api/types.gen.ts";
import type { Clock } from "../../lib/clock.ts";
import { isRecord } from "../../lib/guard.ts";
import { ExpiringCache } from "./expiring-cache.ts";
import type { User } from "./identity.ts";
import type { Access, NodeSubresource } from "./route.ts";

const verbs: Readonly<Record<string, string>> = {
  GET: "get",
  POST: "create",
  PUT: "update",
  PATCH: "patch",
  DELETE: "delete",
};

/** The verb asked for; empty for methods without one, which only those may use who may do everything. */
export function accessVerb({ verb }: Access, method: string): string {
  return verb ?? verbs[method] ?? "";
}

const allowMs = 5 * 60_000;
const denyMs = 30_000;
const reviewDeadlineMs = 10_000;

/** Asks the API server whether a user may do something with this node; remembers the answers. */
export class Authorizer {
  readonly #client: ApiClient;
  readonly #nodeName: string;
  readonly #answers: ExpiringCache<boolean>;

  constructor(options: {
    readonly client: ApiClient;
    readonly nodeName: string;
    readonly clock: Clock;
  }) {
    this.#client = options.client;
    this.#nodeName = options.nodeName;
    this.#answers = new ExpiringCache(options.clock);
  }

  /** One allowed subresource suffices. @throws {ApiError} and others when the API server could not be asked. */
  async allowed(
    user: User,
    verb: string,
    subresources: readonly NodeSubresource[],
    signal: AbortSignal,
  ): Promise<boolean> {
    // Allowed everything by every API server, also by one that cannot be asked at the moment.
    if (user.groups.includes("system:masters")) return true;
    for (const subresource of subresources) {
      const spec = this.#spec(user, verb, subresource);
      const answer = await this.#answers.get(
        JSON.stringify(spec),
        () => this.#review(spec, signal),
        (allowed) => (allowed ? allowMs : denyMs),
      );
      if (answer) return true;
    }
    return false;
  }

  #spec(user: User, verb: string, subresource: string): SubjectAccessReviewSpec {
    const extra = Object.entries(user.extra).map(([key, list]): [string, string[]] => [
      key,
      [...list],
    ]);
    return {
      user: user.name,
      groups: [...user.groups],
      ...(user.uid === "" ? {} : { uid: user.uid }),
      ...(extra.length === 0 ? {} : { extra: Object.fromEntries(extra) }),
      resourceAttributes: {
        verb,
        version: "v1",
        resource: "nodes",
        subresource,
        name: this.#nodeName,
      },
    };
  }

  async #review(spec: SubjectAccessReviewSpec, signal: AbortSignal): Promise<boolean> {
    const answer = await this.#client.request({
      method: "POST",
      path: "/apis/authorization.k8s.io/v1/subjectaccessreviews",
      body: {
        apiVersion: "authorization.k8s.io/v1",
        kind: "SubjectAccessReview",
        metadata: {},
        spec,
      },
      deadlineMs: reviewDeadlineMs,
      signal,
    });
    const status = isRecord(answer) ? answer["status"] : undefined;
    return isRecord(status) && status["allowed"] === true;
  }
}
