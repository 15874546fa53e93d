import type { ApiClient } from "../../api/client.ts";
import { objectPath } from "../../api/resource.ts";
import { SERVICE_ACCOUNTS } from "../../api/resources.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import { asRecord, asString, isRecord } from "../../lib/guard.ts";
import type { Logger } from "../../lib/log.ts";
import type { AssignedPod } from "../types.ts";
import { VolumeError } from "./payload.ts";

/** What a token is asked for: a `serviceAccountToken` source, or an entry of a CSIDriver's `tokenRequests`. */
export interface TokenWish {
  /** Absent or empty: the API server's own. */
  readonly audience?: string | undefined;
  /** Default 3600. */
  readonly expirationSeconds?: number | undefined;
}

/** A token bound to one pod. */
export interface BoundToken {
  readonly token: string;
  /** RFC 3339, as the server said. */
  readonly expirationTimestamp: string;
}

interface HeldToken extends BoundToken {
  /** When to ask for the next one, milliseconds since the epoch. */
  readonly refreshAt: number;
}

export interface ServiceAccountTokensOptions {
  readonly client: ApiClient;
  readonly clock: Clock;
  readonly random: () => number;
  /** Is told of refreshes that failed while the old token is good. */
  readonly logger?: Logger;
}

const dayMs = 24 * 3600 * 1000;
const maxJitterMs = 10_000;
/** Of a token that could not be refreshed, and of one that the server gave no life at all. */
const retryMs = 60_000;

/**
 * Bound service account tokens (TokenRequest, KEP-1205), kept in memory until 80 % of their life or 24 hours have
 * passed. After a restart they are asked for again.
 */
export class ServiceAccountTokens {
  readonly #options: ServiceAccountTokensOptions;
  readonly #tokens = new Map<string, Map<string, HeldToken>>();
  /** Requests under way, by pod and wish: volumes of one pod are set up at the same time and share tokens. */
  readonly #asked = new Map<string, Promise<HeldToken>>();

  constructor(options: ServiceAccountTokensOptions) {
    this.#options = options;
  }

  /**
   * The token to show in the pod.
   *
   * @throws as {@link ServiceAccountTokens.bound}.
   */
  async get(pod: AssignedPod, wish: TokenWish, signal: AbortSignal): Promise<string> {
    return (await this.bound(pod, wish, signal)).token;
  }

  /**
   * The same with its end. A token that is due but cannot be had anew is given out until it has expired.
   *
   * @throws {VolumeError} when there is none that is still good; its cause is the server's answer.
   */
  async bound(pod: AssignedPod, wish: TokenWish, signal: AbortSignal): Promise<BoundToken> {
    const { uid } = pod.metadata;
    const ofPod = this.#tokens.get(uid) ?? new Map<string, HeldToken>();
    this.#tokens.set(uid, ofPod);
    const key = JSON.stringify([wish.audience ?? "", secondsOf(wish)]);
    const known = ofPod.get(key);
    const { clock, logger, random } = this.#options;
    if (known !== undefined && clock.now() < known.refreshAt) return known;
    try {
      const fresh = await this.#fresh(pod, wish, `${uid} ${key}`, signal);
      ofPod.set(key, fresh);
      return fresh;
    } catch (error) {
      if (isAbort(error) && signal.aborted) throw error;
      const reason = errorMessage(error);
      if (known === undefined) {
        throw new VolumeError(`failed to fetch token: ${reason}`, { cause: error });
      }
      const now = clock.now();
      if (now >= Date.parse(known.expirationTimestamp)) {
        const text = `token ${tokenName(pod, wish)} expired and refresh failed: ${reason}`;
        throw new VolumeError(text, { cause: error });
      }
      ofPod.set(key, { ...known, refreshAt: now + retryMs * (1 + random() / 2) });
      logger?.log("warn", "service account token could not be refreshed, the old one stays", {
        podUID: uid,
        error: reason,
      });
      return known;
    }
  }

  /** When the first token of the pod is to be refreshed, milliseconds since the epoch; undefined when it has none. */
  refreshAt(uid: string): number | undefined {
    const due = [...(this.#tokens.get(uid)?.values() ?? [])].map(({ refreshAt }) => refreshAt);
    return due.length === 0 ? undefined : Math.min(...due);
  }

  forget(uid: string): void {
    this.#tokens.delete(uid);
  }

  /** A new token; whoever asks for the same one meanwhile gets it too. */
  async #fresh(
    pod: AssignedPod,
    wish: TokenWish,
    key: string,
    signal: AbortSignal,
  ): Promise<HeldToken> {
    for (let asked = this.#asked.get(key); asked !== undefined; asked = this.#asked.get(key)) {
      try {
        return await asked;
      } catch (error) {
        // Only the one who asked has stopped waiting.
        if (!isAbort(error) || signal.aborted) throw error;
      }
    }
    const asked = this.#request(pod, wish, signal).finally(() => this.#asked.delete(key));
    this.#asked.set(key, asked);
    return asked;
  }

  async #request(pod: AssignedPod, wish: TokenWish, signal: AbortSignal): Promise<HeldToken> {
    const { client, clock, random } = this.#options;
    const { name, namespace, uid } = pod.metadata;
    const { audience = "" } = wish;
    const asked = await client.request({
      method: "POST",
      path: objectPath(SERVICE_ACCOUNTS, { namespace, name: accountOf(pod) }, "token"),
      body: {
        apiVersion: "authentication.k8s.io/v1",
        kind: "TokenRequest",
        spec: {
          audiences: audience === "" ? [] : [audience],
          expirationSeconds: secondsOf(wish),
          boundObjectRef: { apiVersion: "v1", kind: "Pod", name, uid },
        },
      },
      signal,
    });
    const answer = asRecord(asked, "$");
    const status = asRecord(answer["status"], "$.status");
    const expirationTimestamp = asString(
      status["expirationTimestamp"],
      "$.status.expirationTimestamp",
    );
    const now = clock.now();
    const life = Math.min((lifeMs(answer) ?? Date.parse(expirationTimestamp) - now) * 0.8, dayMs);
    const waitMs = life > 0 ? Math.max(life - random() * maxJitterMs, life / 2) : retryMs;
    const token = asString(status["token"], "$.status.token");
    return { token, expirationTimestamp, refreshAt: now + waitMs };
  }
}

function secondsOf({ expirationSeconds = 3600 }: TokenWish): number {
  return expirationSeconds;
}

function accountOf({ spec }: AssignedPod): string {
  const { serviceAccountName = "" } = spec ?? {};
  return serviceAccountName === "" ? "default" : serviceAccountName;
}

/** What the server made of the wish: independent of whether its clock and ours agree. */
function lifeMs(answer: Readonly<Record<string, unknown>>): number | undefined {
  const { spec } = answer;
  const seconds = isRecord(spec) ? spec["expirationSeconds"] : undefined;
  return typeof seconds === "number" && seconds > 0 ? seconds * 1000 : undefined;
}

/** As the kubelet names tokens in its messages. */
function tokenName(pod: AssignedPod, wish: TokenWish): string {
  const { name, namespace = "", uid } = pod.metadata;
  const { audience = "" } = wish;
  const audiences = audience === "" ? "[]string(nil)" : `[]string{${JSON.stringify(audience)}}`;
  const bound = `v1.BoundObjectReference{Kind:"Pod", APIVersion:"v1", Name:"${name}", UID:"${uid}"}`;
  return `"${accountOf(pod)}"/"${namespace}"/${audiences}/${secondsOf(wish)}/${bound}/""`;
}
