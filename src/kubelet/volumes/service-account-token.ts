import type { ApiClient } from "../../api/client.ts";
import { objectPath } from "../../api/resource.ts";
import { SERVICE_ACCOUNTS } from "../../api/resources.ts";
import type { ServiceAccountTokenProjection } from "../../api/types.gen.ts";
import type { Clock } from "../../lib/clock.ts";
import { asRecord, asString } from "../../lib/guard.ts";
import type { AssignedPod } from "../types.ts";

interface Token {
  readonly token: string;
  /** When to ask for the next one, milliseconds since the epoch. */
  readonly refreshAt: number;
}

const dayMs = 24 * 3600 * 1000;
const maxJitterMs = 10_000;

/**
 * Bound service account tokens (TokenRequest, KEP-1205), kept in memory until 80 % of their life or 24 hours have
 * passed. After a restart they are asked for again.
 */
export class ServiceAccountTokens {
  readonly #client: ApiClient;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #tokens = new Map<string, Map<string, Token>>();

  constructor(options: {
    readonly client: ApiClient;
    readonly clock: Clock;
    readonly random: () => number;
  }) {
    this.#client = options.client;
    this.#clock = options.clock;
    this.#random = options.random;
  }

  /**
   * The token to show in the pod.
   *
   * @throws {ApiError} when the server refuses and the old token, if any, is past its refresh time.
   */
  async get(
    pod: AssignedPod,
    projection: ServiceAccountTokenProjection,
    signal: AbortSignal,
  ): Promise<string> {
    const { uid } = pod.metadata;
    const expirationSeconds = projection.expirationSeconds ?? 3600;
    const key = JSON.stringify([projection.audience ?? "", expirationSeconds]);
    const ofPod = this.#tokens.get(uid) ?? new Map<string, Token>();
    this.#tokens.set(uid, ofPod);
    const known = ofPod.get(key);
    const now = this.#clock.now();
    if (known !== undefined && now < known.refreshAt) return known.token;
    const answer = await this.#request(pod, projection, expirationSeconds, signal);
    const expires = Date.parse(
      asString(answer["expirationTimestamp"], "$.status.expirationTimestamp"),
    );
    const life = Math.min(Math.max(expires - now, 0) * 0.8, dayMs);
    const token = asString(answer["token"], "$.status.token");
    ofPod.set(key, { token, refreshAt: now + life - this.#random() * maxJitterMs });
    return token;
  }

  /** When the first token of the pod is to be refreshed; undefined when it has none. */
  refreshAt(uid: string): number | undefined {
    const due = [...(this.#tokens.get(uid)?.values() ?? [])].map(({ refreshAt }) => refreshAt);
    return due.length === 0 ? undefined : Math.min(...due);
  }

  forget(uid: string): void {
    this.#tokens.delete(uid);
  }

  async #request(
    pod: AssignedPod,
    projection: ServiceAccountTokenProjection,
    expirationSeconds: number,
    signal: AbortSignal,
  ): Promise<Record<string, unknown>> {
    const { name, namespace, uid } = pod.metadata;
    const account = pod.spec?.serviceAccountName ?? "default";
    const audience = projection.audience ?? "";
    const answer = await this.#client.request({
      method: "POST",
      path: objectPath(SERVICE_ACCOUNTS, { namespace, name: account }, "token"),
      body: {
        apiVersion: "authentication.k8s.io/v1",
        kind: "TokenRequest",
        spec: {
          audiences: audience === "" ? [] : [audience],
          expirationSeconds,
          boundObjectRef: { apiVersion: "v1", kind: "Pod", name, uid },
        },
      },
      signal,
    });
    return asRecord(asRecord(answer, "$")["status"], "$.status");
  }
}
