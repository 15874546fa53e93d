import type { ApiClient } from "../../api/client.ts";
import { ApiError, ApiUnavailableError } from "../../api/errors.ts";
import type { SubjectAccessReviewSpec, TokenReviewSpec } from "../../api/types.gen.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorCode } from "../../lib/errors.ts";
import { isRecord, type JsonRecord } from "../../lib/guard.ts";

const deadlineMs = 10_000;
/** Strangers make us ask about their tokens; that must take neither us nor the API server down. */
const maxAtOnce = 16;
/** Waits before the second to the fifth try: upstream's webhook back-off without its jitter. */
const retryDelaysMs = [500, 750, 1125, 1690] as const;

/** Asks the API server about tokens and rights: a few at a time, and again when it was too busy to answer. */
export class Reviews {
  readonly #client: ApiClient;
  readonly #clock: Clock;
  #running = 0;
  readonly #waiting = new Set<() => void>();

  constructor(options: { readonly client: ApiClient; readonly clock: Clock }) {
    this.#client = options.client;
    this.#clock = options.clock;
  }

  /** Status of a TokenReview. @throws {ApiError} and others when the API server could not be asked. */
  async token(spec: TokenReviewSpec, signal: AbortSignal): Promise<JsonRecord> {
    const path = "/apis/authentication.k8s.io/v1/tokenreviews";
    return this.#review(path, "authentication.k8s.io/v1", "TokenReview", spec, signal);
  }

  /** Status of a SubjectAccessReview. @throws {ApiError} and others when the API server could not be asked. */
  async access(spec: SubjectAccessReviewSpec, signal: AbortSignal): Promise<JsonRecord> {
    const path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    return this.#review(path, "authorization.k8s.io/v1", "SubjectAccessReview", spec, signal);
  }

  async #review(
    path: string,
    apiVersion: string,
    kind: string,
    spec: object,
    signal: AbortSignal,
  ): Promise<JsonRecord> {
    await this.#turn(signal);
    try {
      const answer = await this.#post(path, { apiVersion, kind, metadata: {}, spec }, signal);
      const status = isRecord(answer) ? answer["status"] : undefined;
      return isRecord(status) ? status : {};
    } finally {
      this.#running -= 1;
      const [next] = this.#waiting;
      next?.();
    }
  }

  async #post(path: string, body: object, signal: AbortSignal): Promise<unknown> {
    for (let tried = 0; ; tried += 1) {
      try {
        return await this.#client.request({ method: "POST", path, body, deadlineMs, signal });
      } catch (error) {
        const delayMs = retryDelaysMs[tried];
        if (delayMs === undefined || !worthAnotherTry(error)) throw error;
        await this.#clock.sleep(delayMs, signal);
      }
    }
  }

  async #turn(signal: AbortSignal): Promise<void> {
    while (this.#running >= maxAtOnce) {
      signal.throwIfAborted();
      const { promise, resolve } = Promise.withResolvers<void>();
      signal.addEventListener("abort", () => resolve(), { once: true });
      this.#waiting.add(resolve);
      await promise;
      this.#waiting.delete(resolve);
    }
    signal.throwIfAborted();
    this.#running += 1;
  }
}

/** As upstream's webhooks decide: an API server that is not there at all is not waited for. */
function worthAnotherTry(error: unknown): boolean {
  if (error instanceof ApiError) {
    return [429, 500, 504].includes(error.status) || error.retryAfterSeconds !== undefined;
  }
  return error instanceof ApiUnavailableError && errorCode(error.cause) === "ECONNRESET";
}
