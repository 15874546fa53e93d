import type { SubjectAccessReviewSpec } from "../../api/types.gen.ts";
import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import { ExpiringCache } from "./expiring-cache.ts";
import { HttpRefusal } from "./http-refusal.ts";
import type { User } from "./identity.ts";
import type { Reviews } from "./reviews.ts";
import type { Access } from "./route.ts";

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

export interface AuthorizerOptions {
  readonly settings: AgentConfig["authorization"];
  readonly nodeName: string;
  readonly reviews: Reviews;
  readonly clock: Clock;
}

/** Asks the API server whether a user may do something with this node; remembers the answers. */
export class Authorizer {
  readonly #options: AuthorizerOptions;
  readonly #answers: ExpiringCache<boolean>;

  constructor(options: AuthorizerOptions) {
    this.#options = options;
    this.#answers = new ExpiringCache(options.clock);
  }

  /**
   * Returns when the user may; one allowed subresource suffices, they are asked about one after the other.
   *
   * @throws {HttpRefusal} 403, or 500 when the API server could not be asked, with upstream's texts.
   */
  async authorize(user: User, method: string, access: Access, signal: AbortSignal): Promise<void> {
    if (this.#options.settings?.mode === "AlwaysAllow") return;
    // Allowed everything by every API server, also by one that cannot be asked at the moment.
    if (user.groups.includes("system:masters")) return;
    const verb = accessVerb(access, method);
    const about = `user=${user.name}, verb=${verb}, resource=nodes`;
    for (const subresource of access.subresources) {
      try {
        if (await this.#ask(this.#spec(user, verb, subresource), signal)) return;
      } catch (error) {
        const text = `Authorization error (${about}, subresource=${subresource})`;
        throw new HttpRefusal(500, text, { cause: error });
      }
    }
    const subresources = access.subresources.join(" ");
    throw new HttpRefusal(403, `Forbidden (${about}, subresource(s)=[${subresources}])\n`);
  }

  async #ask(spec: SubjectAccessReviewSpec, signal: AbortSignal): Promise<boolean> {
    const { reviews, settings } = this.#options;
    return this.#answers.get(
      JSON.stringify(spec),
      async (inner) => {
        const { allowed, denied } = await reviews.access(spec, inner);
        if (allowed === true && denied === true) {
          throw new Error("webhook subject access review returned both allow and deny response");
        }
        return allowed === true;
      },
      (allowed) =>
        allowed
          ? (settings?.cacheAuthorizedTTLMs ?? allowMs)
          : (settings?.cacheUnauthorizedTTLMs ?? denyMs),
      signal,
    );
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
        name: this.#options.nodeName,
      },
    };
  }
}
